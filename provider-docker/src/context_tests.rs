//! Which files are sent, and that equal files are equal bytes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use cocktail_core::error::ErrorKind;

use super::*;

fn files(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn packed(folder: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write(folder, Path::new("Dockerfile"), Bytes(1 << 20), &mut bytes)?;
    Ok(bytes)
}

/// Names of what is in an archive, with the text of files and the targets of links.
fn read(bytes: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        let link = entry.link_name().unwrap().map(|link| format!("-> {}", link.display()));
        (name, link.unwrap_or(text))
    });
    entries.collect()
}

fn names(bytes: &[u8]) -> Vec<String> {
    read(bytes).into_keys().collect()
}

#[test]
fn equal_files_are_equal_bytes_whenever_and_in_whatever_order_they_were_made() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let long = "x".repeat(120);
    let all = [("Dockerfile", "FROM scratch"), ("b/c", "c"), ("a", "a"), (long.as_str(), "long")];
    files(first.path(), &all);
    let mut reversed = all;
    reversed.reverse();
    files(second.path(), &reversed);
    let old = fs::File::options().write(true).open(second.path().join("a")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH).unwrap();
    let bytes = packed(first.path()).unwrap();
    assert_eq!(bytes, packed(second.path()).unwrap());
    let mut archive = tar::Archive::new(&bytes[..]);
    let order = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned());
    let sorted = ["Dockerfile", "a", "b", "b/c", &long].map(PathBuf::from);
    assert_eq!(order.collect::<Vec<_>>(), sorted, "no disk decides the order");
    fs::set_permissions(second.path().join("a"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_ne!(bytes, packed(second.path()).unwrap(), "what may be run is another file");
}

#[test]
fn what_is_ignored_stays_here_by_the_rules_of_docker() {
    let folder = tempfile::tempdir().unwrap();
    let rules = "# a comment\n\n/target\n**/*.log\n!keep.log\nsecret?.txt\ndocs/**\n!docs/README.md\n./odd/../{a}\nDockerfile\n";
    files(
        folder.path(),
        &[
            (".dockerignore", rules),
            ("Dockerfile", "FROM scratch"),
            ("target/out", ""),
            ("src/target/in", ""),
            ("src/deep/x.log", ""),
            ("keep.log", ""),
            ("secret1.txt", ""),
            ("secret10.txt", ""),
            ("docs/a/b", ""),
            ("docs/README.md", ""),
            ("{a}", ""),
            ("a", ""),
        ],
    );
    let kept = [
        ".dockerignore",
        "Dockerfile",
        "a",
        "docs",
        "docs/README.md",
        "keep.log",
        "secret10.txt",
        "src",
        "src/deep",
        "src/target",
        "src/target/in",
    ];
    assert_eq!(names(&packed(folder.path()).unwrap()), kept);
    files(folder.path(), &[(".dockerignore", "a\n[z-a]\n")]);
    let error = packed(folder.path()).unwrap_err();
    assert!(error.to_string().contains(".dockerignore has no pattern in line 2"), "{error}");
}

#[test]
fn links_are_sent_as_links_and_nothing_outside_is_read() {
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    files(outside.path(), &[("secret", "hunter2"), ("more/secret", "hunter2")]);
    files(folder.path(), &[("Dockerfile", "FROM scratch")]);
    symlink(outside.path().join("secret"), folder.path().join("file")).unwrap();
    symlink(outside.path().join("more"), folder.path().join("folder")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    let bytes = packed(folder.path()).unwrap();
    let target = |name: &str| format!("-> {}", outside.path().join(name).display());
    let expected = [("Dockerfile", "FROM scratch".to_owned()), ("file", target("secret")), ("folder", target("more"))];
    assert_eq!(read(&bytes), expected.map(|(name, text)| (name.to_owned(), text)).into());
    drop(socket);
    // A Dockerfile that is a link is none, since it could lead anywhere.
    fs::remove_file(folder.path().join("Dockerfile")).unwrap();
    symlink(outside.path().join("secret"), folder.path().join("Dockerfile")).unwrap();
    let error = packed(folder.path()).unwrap_err();
    assert!(*error.kind() == ErrorKind::InvalidConfig && error.to_string().contains("no file Dockerfile"), "{error}");
}

#[test]
fn more_than_is_allowed_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path(), &[("Dockerfile", "FROM scratch"), ("large", &"x".repeat(2_000))]);
    let mut bytes = Vec::new();
    let error = write(folder.path(), Path::new("Dockerfile"), Bytes(1_000), &mut bytes).unwrap_err();
    assert!(error.to_string().contains(".dockerignore") && error.to_string().contains("build_bytes"), "{error}");
    let missing = packed(&folder.path().join("nowhere")).unwrap_err();
    assert!(missing.to_string().contains("nowhere"), "{missing}");
}
