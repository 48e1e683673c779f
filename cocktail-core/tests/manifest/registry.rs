//! Registries that want to know who asks.

use cocktail_core::settings::{RegistryAccess, RegistrySettings};
use cocktail_core::spec::SecretSource;

use super::{file_refused, name, parse};

fn registries(text: &str) -> Vec<(String, RegistrySettings)> {
    let parsed = parse(text).unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"));
    let settings = parsed.settings.expect("the file has settings");
    settings.registries.into_iter().map(|(name, registry)| (name.to_string(), registry)).collect()
}

#[test]
fn a_registry_has_a_host_one_proof_and_the_services_that_may_use_it() {
    let found = registries(
        "[registries.a]\nhost = \"Registry.example.com:5000\"\nusername = \"u\"\npassword = { file = \"key\" }\n\
         [registries.b]\nhost = \"index.docker.io\"\ntoken = { env = \"TOKEN\" }\nservices = [\"shop\"]\n\
         [registries.c]\nhost = \"localhost\"\nhelper = \"ecr-login\"\n\
         [registries.d]\nhost = \"docker.io\"\n",
    );
    let password = SecretSource::File("/srv/key".into());
    let of = |host: &str, access, services: &[&str]| RegistrySettings {
        host: host.into(),
        access,
        services: services.iter().map(|service| name(service)).collect(),
    };
    let expected = [
        ("a", of("registry.example.com:5000", RegistryAccess::Password { username: "u".into(), password }, &[])),
        ("b", of("docker.io", RegistryAccess::Token(SecretSource::Env("TOKEN".into())), &["shop"])),
        ("c", of("localhost", RegistryAccess::Helper("ecr-login".into()), &[])),
        ("d", of("docker.io", RegistryAccess::Open, &[])),
    ];
    assert_eq!(found, expected.map(|(name, registry)| (name.to_owned(), registry)));
}

#[test]
fn registries_that_cannot_be_are_refused_with_what_to_write() {
    let host = "write host = \"registry.example.com:5000\", or \"docker.io\"";
    let pair = "write username = \"…\" and password = { file = \"/run/password\" } or { env = \"PASSWORD\" }";
    let proofs = "keep one of them: `username` and `password`, `token`, or `helper`";
    let source =
        "name its source: { file = \"/run/key\" } or { env = \"API_KEY\" }; the value itself is never written here";
    let table = |body: &str| format!("[registries.a]\n{body}\n");
    let hosted = |body: &str| table(&format!("host = \"a.example.com\"\n{body}"));
    let cases = [
        (
            table("username = \"u\""),
            vec![
                format!("1:13: `username` and `password` belong together ({pair})"),
                format!("1:13: missing key `host` ({host})"),
            ],
        ),
        (
            table("host = \"https://a.example.com\""),
            vec![format!("2:8: a registry is named by its host alone, without https:// and path ({host})")],
        ),
        (table("host = \"u:p@a.example.com\""), vec![format!("2:8: is no host name ({host})")]),
        (
            table("host = \"hub\""),
            vec![format!("2:8: has neither a dot nor a port: references of images take it for a folder ({host})")],
        ),
        (
            hosted("username = \"u\"\npassword = \"hunter2\""),
            vec![format!("4:12: expected a table, found a string ({source})")],
        ),
        (
            hosted("token = { env = \"T\" }\nhelper = \"pass\""),
            vec![format!("1:13: a registry is told once who asks ({proofs})")],
        ),
        (
            hosted("helper = \"../pass\""),
            vec![
            "3:10: is no name of a credential helper (write helper = \"pass\" for the program docker-credential-pass)"
                .to_owned(),
        ],
        ),
        (
            hosted("services = []"),
            vec!["3:12: names no service (write services = [\"shop\"], or leave it out for all)".to_owned()],
        ),
        (
            "[registries.a]\nhost = \"a.io\"\nservices = [\"x\"]\n[registries.b]\nhost = \"a.io\"\n\
             [registries.c]\nhost = \"A.io\"\nservices = [\"y\", \"x\"]\n"
                .to_owned(),
            vec![
                "6:13: `a` has the same host for the same services (keep one of them, or name other `services`)"
                    .to_owned(),
            ],
        ),
    ];
    for (text, expected) in &cases {
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        file_refused(&[(text, &expected)]);
    }
}

#[test]
fn what_was_written_by_mistake_is_not_drawn() {
    let text = "[registries.a]\nhost = \"a.example.com\"\nusername = \"u\"\npassword = \"hunter2\"\n";
    let problems = parse(text).unwrap_err();
    let drawn = cocktail_core::manifest::render(&problems, text);
    assert!(drawn.contains("expected a table") && !drawn.contains("hunter2"), "{drawn}");
}
