//! Artifacts from outside: archives that are well, callers that come together, go away or are told to wait, and what stays
//! on the disk. Archives that mean harm are in `attacks`, URLs in `http`.

mod attacks;
mod http;
mod made;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cocktail_agent::artifact::{Artifacts, Limits};
use cocktail_core::error::ErrorKind;
use cocktail_core::spec::{Artifact, ArtifactSource};

use made::{Bytes, Tar, gzip, hash, of, zstd};

/// A server's folder of artifacts, and one around it that nothing may be written to.
struct Scene {
    outside: tempfile::TempDir,
    artifacts: Artifacts,
}

impl Scene {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let outside = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::new(outside.path().join("shelf"), limits).unwrap();
        Self { outside, artifacts }
    }

    fn root(&self) -> std::path::PathBuf {
        self.outside.path().join("shelf")
    }

    /// Nothing is there that was not asked for.
    fn assert_only(&self, hashes: &[&str]) {
        assert_eq!(names(self.outside.path()), ["shelf"]);
        let mut expected: Vec<_> = hashes.iter().map(ToString::to_string).collect();
        expected.sort();
        assert_eq!(names(&self.root()), expected);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn site() -> Tar {
    Tar::new()
        .folder("./", 0o755)
        .folder("bin", 0o2777)
        .file("bin/web", 0o4777, b"#!/bin/sh\necho hi\n")
        .file("etc/deep/settings", 0o600, b"a = 1\n")
        .file("empty", 0o644, b"")
        .link("bin/latest", "web")
        .link("etc/deep/up", "../../bin/web")
        .link("etc/nowhere", "not-there")
        .second_name("bin/same", "bin/web")
}

#[tokio::test]
async fn plain_gzip_and_zstd_unpack_to_the_same_files() {
    let scene = Scene::new();
    let plain = site().end();
    let middle = plain.len() / 2;
    let twice = |pack: fn(&[u8]) -> Vec<u8>| [pack(&plain[..middle]), pack(&plain[middle..])].concat();
    let skipped = [b"\x50\x2a\x4d\x18\x03\0\0\0abc".as_slice(), &zstd(&plain)].concat();
    for archive in [plain.clone(), gzip(&plain), zstd(&plain), twice(gzip), twice(zstd), skipped] {
        let (artifact, source) = of(archive);
        let files = scene.artifacts.ready(&artifact, &source).await.unwrap();
        assert_eq!(files, scene.root().join(&artifact.sha256).join("files"));
        assert_eq!(names(&files), ["bin", "empty", "etc"]);
        assert_eq!(fs::read(files.join("etc/deep/up")).unwrap(), b"#!/bin/sh\necho hi\n");
        assert_eq!(fs::read_link(files.join("etc/nowhere")).unwrap(), Path::new("not-there"));
        assert_eq!(fs::read(files.join("bin/same")).unwrap(), fs::read(files.join("bin/web")).unwrap());
        assert_eq!(fs::read(files.join("empty")).unwrap(), b"");
        // No setuid, nothing that others may write, and folders without an entry are as usual.
        for (path, expected) in
            [("bin", 0o755), ("bin/web", 0o755), ("etc", 0o755), ("etc/deep/settings", 0o600), ("empty", 0o644)]
        {
            assert_eq!(mode(&files.join(path)), expected, "{path}");
        }
        let written = fs::metadata(files.join("bin/web")).unwrap().modified().unwrap();
        assert_eq!(written.duration_since(std::time::UNIX_EPOCH).unwrap(), Duration::from_secs(1_000_000_000));
        let found = scene.artifacts.ready(&artifact, &source).await.unwrap();
        assert_eq!((found, source.opened()), (files, 1), "it is there, and not fetched again");
    }
}

#[tokio::test]
async fn long_names_holes_and_names_that_are_no_text_are_kept() {
    let long = "long/".repeat(40) + &"n".repeat(200);
    let scene = Scene::new();
    let tar = Tar::new()
        .comment("52 comment=what git archive writes into its archives\n")
        .gnu_long(&long, b"gnu")
        .pax_long(&format!("pax/{long}"), b"pax")
        .holes("holes", &[(0, b"a".to_vec()), (1 << 20, b"b".repeat(512))])
        .raw(b"caf\xe9", b'0', b"", b"bytes");
    let (artifact, source) = of(tar.end());
    let files = scene.artifacts.ready(&artifact, &source).await.unwrap();
    assert_eq!(fs::read(files.join(&long)).unwrap(), b"gnu");
    assert_eq!(fs::read(files.join("pax").join(&long)).unwrap(), b"pax");
    let holes = fs::read(files.join("holes")).unwrap();
    assert_eq!((holes.len(), holes[0], holes[1], holes[1 << 20]), ((1 << 20) + 512, b'a', 0, b'b'));
    use std::os::unix::ffi::OsStrExt;
    assert_eq!(fs::read(files.join(std::ffi::OsStr::from_bytes(b"caf\xe9"))).unwrap(), b"bytes");
}

#[tokio::test]
async fn another_hash_is_refused_before_anything_is_unpacked() {
    let scene = Scene::new();
    let (artifact, source) = of(site().end());
    let found = artifact.sha256.clone();
    let wrong = Artifact { sha256: hash(b"other"), ..artifact };
    let error = scene.artifacts.ready(&wrong, &source).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidConfig);
    for digits in [&found[..12], &wrong.sha256[..12]] {
        assert!(error.message().contains(digits), "{error}");
    }
    scene.assert_only(&[]);
    for hash in ["..", "", "ABC", &"A".repeat(64), &format!("../{}", "a".repeat(61))] {
        let named = Artifact { sha256: hash.to_owned(), ..wrong.clone() };
        let error = scene.artifacts.ready(&named, &source).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::InvalidConfig);
    }
    assert_eq!(source.opened(), 1, "what is no hash is not fetched");
    scene.assert_only(&[]);
}

#[tokio::test]
async fn callers_at_the_same_time_fetch_once_and_fail_together() {
    let scene = Scene::new();
    let (artifact, source) = of(gzip(&site().end()));
    let source = source.slow(Duration::from_millis(50));
    let all = (0..8).map(|_| scene.artifacts.ready(&artifact, &source));
    let all = futures_util::future::join_all(all).await;
    assert!(all.iter().all(|files| files.as_ref().unwrap() == all[0].as_ref().unwrap()));
    assert_eq!(source.opened(), 1);

    let (artifact, _) = of(b"what never comes".to_vec());
    let broken = Bytes::new(b"what nev".to_vec()).slow(Duration::from_millis(50)).failing();
    let elsewhere = Artifact { source: ArtifactSource::File("/elsewhere".into()), ..artifact.clone() };
    let (first, second, other) = tokio::join!(
        scene.artifacts.ready(&artifact, &broken),
        scene.artifacts.ready(&artifact, &broken),
        scene.artifacts.ready(&elsewhere, &broken)
    );
    for failed in [&first, &second, &other] {
        assert_eq!(*failed.as_ref().unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(broken.opened(), 2, "who has another source tries that one");
    let again = scene.artifacts.ready(&artifact, &broken).await.unwrap_err();
    assert_eq!((again.kind(), broken.opened()), (&ErrorKind::Unavailable, 3), "who comes later tries anew");
}

#[tokio::test]
async fn a_source_that_fails_or_stalls_leaves_nothing() {
    let scene = Scene::with(Limits { stall: Duration::from_millis(100), ..Limits::default() });
    let (artifact, whole) = of(site().end());
    let half = whole.data()[..700].to_vec();
    let failing = Bytes::new(half.clone()).slow(Duration::from_millis(30)).failing();
    let error = scene.artifacts.ready(&artifact, &failing).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    assert!(error.chain().contains("the cable is out"), "{}", error.chain());
    let error = scene.artifacts.ready(&artifact, &Bytes::new(half.clone()).stalling()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("brought nothing for 0.1 s"), "{error}");
    let error = scene.artifacts.ready(&artifact, &Bytes::new(half)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidConfig, "half of it has another hash");
    scene.assert_only(&[]);
    scene.artifacts.ready(&artifact, &whole).await.unwrap();
    scene.assert_only(&[&artifact.sha256]);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_nothing_and_keeps_nobody_waiting() {
    let scene = Scene::new();
    let (artifact, whole) = of(site().end());
    let stalling = Bytes::new(whole.data()[..700].to_vec()).stalling();
    let gone = tokio::time::timeout(Duration::from_millis(100), scene.artifacts.ready(&artifact, &stalling));
    gone.await.unwrap_err();
    assert_eq!(stalling.opened(), 1);
    scene.assert_only(&[]);
    scene.artifacts.ready(&artifact, &whole).await.unwrap();
    scene.assert_only(&[&artifact.sha256]);
}

#[tokio::test]
async fn what_a_crash_left_is_removed_and_what_was_finished_stays() {
    let scene = Scene::new();
    let (artifact, source) = of(site().end());
    scene.artifacts.ready(&artifact, &source).await.unwrap();
    let Scene { outside, artifacts } = scene;
    let root = outside.path().join("shelf");
    let other = Artifacts::new(root.clone(), Limits::default()).unwrap_err();
    assert_eq!(*other.kind(), ErrorKind::Conflict, "what another process is at work on is not removed");
    drop(artifacts);
    fs::create_dir_all(root.join(".draft-0/files/deep")).unwrap();
    fs::write(root.join(".draft-0/archive"), b"half").unwrap();
    fs::write(root.join(".draft-0/files/deep/half"), b"half").unwrap();
    let artifacts = Artifacts::new(root, Limits::default()).unwrap();
    let scene = Scene { outside, artifacts };
    scene.assert_only(&[&artifact.sha256]);
    scene.artifacts.ready(&artifact, &source).await.unwrap();
    assert_eq!(source.opened(), 1);
}

#[tokio::test]
async fn what_nobody_uses_goes_and_the_longest_unused_first() {
    // Each has 512 bytes, so two of them may stay.
    let limits = Limits { spare: 1_024, rest: Duration::ZERO, ..Limits::default() };
    let scene = Scene::with(limits);
    let all: Vec<_> = (0..5_u8).map(|each| of(Tar::new().file("a", 0o644, &[each; 512]).end())).collect();
    let hashes: Vec<&str> = all.iter().map(|(artifact, _)| artifact.sha256.as_str()).collect();
    for at in [0, 1, 2, 3, 4, 0] {
        scene.artifacts.ready(&all[at].0, &all[at].1).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let keep = BTreeSet::from([hashes[1].to_owned()]);
    let removed = scene.artifacts.prune(&keep).await.unwrap();
    assert_eq!(removed, [hashes[2], hashes[3]], "0 was used again, 1 is in use");
    scene.assert_only(&[hashes[0], hashes[1], hashes[4]]);
    assert!(scene.artifacts.prune(&keep).await.unwrap().is_empty());
    scene.artifacts.ready(&all[2].0, &all[2].1).await.unwrap();
    assert_eq!(all[2].1.opened(), 2, "what went is fetched again");
}

#[tokio::test]
async fn what_was_just_handed_out_or_is_being_fetched_is_not_removed() {
    let scene = Arc::new(Scene::with(Limits { spare: 0, ..Limits::default() }));
    let (artifact, source) = of(site().end());
    let (other, slow) = of(Tar::new().file("a", 0o644, b"a").end());
    scene.artifacts.ready(&artifact, &source).await.unwrap();
    let fetching = tokio::spawn({
        let (scene, other) = (Arc::clone(&scene), other.clone());
        async move { scene.artifacts.ready(&other, &slow.slow(Duration::from_millis(200))).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(scene.artifacts.prune(&BTreeSet::new()).await.unwrap().is_empty());
    fetching.await.unwrap().unwrap();
    scene.assert_only(&[&artifact.sha256, &other.sha256]);
}
