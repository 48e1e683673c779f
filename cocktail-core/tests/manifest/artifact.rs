//! Where the files of a command come from on other servers: what is taken, what is refused, and what stays as it was.

use cocktail_core::manifest::template_hash;
use cocktail_core::spec::{Artifact, ArtifactSource, Template};

use super::{parse, unit, unit_refused, web};

const HASH: &str = "3a7bd3e2360a3d29eea436fcfb7e44c735d117c42d1c1835420b6b9942dd4f1b";

fn artifact(body: &str) -> Artifact {
    web(&unit(&body.replace("HASH", HASH))).template.artifact.expect("it is taken")
}

#[test]
fn an_artifact_is_a_file_of_the_manifests_folder_or_a_url_with_its_hash() {
    let file = artifact("artifact = { file = \"out/dist.tar.zst\", sha256 = \"HASH\" }");
    assert_eq!(file.source, ArtifactSource::File("/srv/out/dist.tar.zst".into()));
    assert_eq!(file.sha256, HASH);
    let absolute = artifact("artifact = { file = \"/data/a.tar\", sha256 = \"HASH\" }");
    assert_eq!(absolute.source, ArtifactSource::File("/data/a.tar".into()));
    for url in [
        "https://example.com/dist.tar.zst",
        "http://127.0.0.1:9000/a@b/c.tar?x=a@b#c@d",
        "HTTPS://[::1]:8443",
        "https://example.com?mail=a@b",
    ] {
        let found = artifact(&format!("artifact.url = \"{url}\"\nartifact.sha256 = \"HASH\""));
        assert_eq!(found.source, ArtifactSource::Url(url.into()));
    }
    let upper = artifact(&format!("artifact = {{ file = \"a\", sha256 = \"{}\" }}", HASH.to_uppercase()));
    assert_eq!(upper.sha256, HASH, "one hash has one spelling");
}

#[test]
fn a_worker_can_have_one_and_a_unit_without_stays_as_it_was() {
    let text = "service = \"shop\"\n[maps.prod.units.web]\nworker = \"w\"\nmicroservices = [\"orders\"]\n";
    let with = format!("{text}artifact = {{ file = \"a\", sha256 = \"{HASH}\" }}\n");
    assert!(web(&with).template.artifact.is_some());
    let plain = web(text).template;
    let stored = serde_json::to_string(&plain).expect("it has a form");
    assert!(!stored.contains("artifact"), "{stored}");
    assert_eq!(serde_json::from_str::<Template>(&stored).expect("it reads back"), plain);
    assert_ne!(template_hash(&web(&with).template), template_hash(&plain));
}

#[test]
fn an_artifact_reads_back_as_it_was_stored() {
    let template = web(&unit(&format!("artifact = {{ url = \"http://x\", sha256 = \"{HASH}\" }}"))).template;
    let stored = serde_json::to_value(&template).expect("it has a form");
    assert_eq!(stored["artifact"], serde_json::json!({ "source": { "url": "http://x" }, "sha256": HASH }));
    assert_eq!(serde_json::from_value::<Template>(stored).expect("it reads back"), template);
}

#[test]
fn what_is_no_artifact_is_refused_at_its_place() {
    let form = r#"write artifact = { file = "dist.tar.zst", sha256 = "…" }, or url = "https://…""#;
    let hash = "sha256sum FILE prints it: 64 hexadecimal digits";
    let is_no_hash = |column: usize| format!("4:{column}: is no SHA-256 ({hash})");
    let (short, letter) = (&HASH[1..], format!("g{}", &HASH[1..]));
    for (body, expected) in [
        ("artifact = \"a.tar\"".to_owned(), format!("4:12: expected a table, found a string ({form})")),
        ("artifact = { file = \"a\" }".to_owned(), format!("4:1: missing key `sha256` ({hash})")),
        (
            format!("artifact = {{ sha256 = \"{HASH}\" }}"),
            format!("4:1: an artifact needs a `file` or a `url` ({form})"),
        ),
        (
            format!("artifact = {{ file = \"a\", url = \"http://x\", sha256 = \"{HASH}\" }}"),
            "4:1: an artifact comes from a `file` or from a `url` (keep one of them)".to_owned(),
        ),
        (format!("artifact = {{ file = \"\", sha256 = \"{HASH}\" }}"), format!("4:21: must not be empty ({form})")),
        (format!("artifact = {{ file = \"a\", sha256 = \"{short}\" }}"), is_no_hash(35)),
        (format!("artifact = {{ file = \"a\", sha256 = \"{letter}\" }}"), is_no_hash(35)),
        (format!("artifact = {{ file = \"a\", sha256 = \"{HASH}0\" }}"), is_no_hash(35)),
        (
            format!("artifact = {{ file = \"a\", sha255 = \"x\", sha256 = \"{HASH}\" }}"),
            "4:26: unknown key `sha255` (did you mean `sha256`?)".to_owned(),
        ),
    ] {
        unit_refused(&[(&body, &[&expected])]);
    }
}

#[test]
fn a_url_is_refused_at_its_place_and_never_repeated() {
    let url = r#"write url = "https://example.com/dist.tar.zst""#;
    let begins = format!("a URL begins with http:// or https:// ({url})");
    let host = format!("the URL names no host ({url})");
    let secret = "a URL with a user or a password would be stored, and shown (leave out what stands before the @: the \
                  hash says whether the files are the right ones)";
    let signs = "a URL has neither spaces nor backslashes, nor letters beyond ASCII (write %20 and the like)";
    let long = format!("http://{}", "x".repeat(2_048));
    let cases = [
        ("ftp://hunter2/a", begins.as_str()),
        ("file:///hunter2", &begins),
        ("https:hunter2.com/a", &begins),
        ("hunter2.tar", &begins),
        ("https://", &host),
        ("https:///user:hunter2@x/a", &host),
        ("http://:80/hunter2", &host),
        ("https://user:hunter2@example.com/a", secret),
        ("https://hunter2@example.com", secret),
        ("https://user:hunter2@?x", secret),
        ("https://user:hunter2\\\\@example.com/a", signs),
        ("https://example.com\\n/hunter2 b", signs),
        ("https://example.com/hunter2ö", signs),
        (&long, &format!("a URL has at most 2048 characters ({url})")),
    ];
    for (text, why) in cases {
        let body = format!("artifact = {{ url = \"{text}\", sha256 = \"{HASH}\" }}");
        unit_refused(&[(&body, &[&format!("4:20: {why}")])]);
        let problems = parse(&unit(&body)).expect_err("it is refused");
        assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
    }
}
