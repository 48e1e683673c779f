//! Images that are built from files beside the manifest.

use std::collections::BTreeMap;

use cocktail_core::spec::{Build, Image};
use cocktail_core::unit::digest;

use super::{file_refused, name, web};

fn unit(body: &str) -> String {
    format!("service = \"shop\"\n[maps.prod.units.web]\n{body}\n")
}

#[test]
fn a_build_has_a_folder_and_what_it_is_made_with() {
    let plain = Build {
        context: "/srv/web".into(),
        file: "Dockerfile".into(),
        args: BTreeMap::new(),
        target: None,
        platform: None,
        registry: None,
        name: None,
    };
    let image = |build| {
        let reference = String::new();
        Some(Image { reference, entrypoint: None, read_only: None, digest: None, build: Some(build) })
    };
    assert_eq!(web(&unit("build = { context = \"web\" }")).template.image, image(plain.clone()));
    let all = "build = { context = \"web\", file = \"docker/Web\", args = { A = \"1\" }, target = \"run\", \
               platform = \"linux/arm64\", registry = \"hub\", name = \"team/web\" }\nentrypoint = [\"/a\"]";
    let built = Build {
        file: "docker/Web".into(),
        args: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
        target: Some("run".into()),
        platform: Some("linux/arm64".into()),
        registry: Some(name("hub")),
        name: Some("team/web".into()),
        ..plain
    };
    let found = web(&unit(all)).template.image.unwrap();
    assert_eq!((found.build, found.entrypoint), (Some(built), Some(vec!["/a".to_owned()])));
}

#[test]
fn where_the_files_lie_is_no_part_of_a_revision() {
    let named = |folder: &str, reference: &str| {
        let mut template = web(&unit(&format!("build = {{ context = \"{folder}\" }}"))).template;
        template.image.as_mut().unwrap().reference = reference.into();
        digest(&template)
    };
    assert_eq!(named("a", "x:1"), named("b", "x:1"));
    assert_ne!(named("a", "x:1"), named("a", "x:2"));
}

#[test]
fn builds_that_cannot_be_are_refused_with_what_to_write() {
    let build = "write build = { context = \".\" }";
    let cases = [
        ("build = {}", format!("3:1: missing key `context` ({build})")),
        (
            "build = { context = \".\" }\nimage = \"web\"",
            "3:1: a unit runs an `image` or what it builds (keep one of them: `build` makes the image, and names it)".into(),
        ),
        (
            "build = { context = \".\", file = \"../Dockerfile\" }",
            "3:33: the Dockerfile lies below the context (write file = \"docker/web.Dockerfile\", relative to the context)".into(),
        ),
        (
            "build = { context = \".\", args = { A = 1 } }",
            "3:39: expected a string, found a whole number (write args = { VERSION = \"1\" }; no secrets: they stay in the \
             image, and are shown)"
                .into(),
        ),
        (
            "build = { context = \".\", name = \"web\" }",
            "3:33: an image that is not pushed needs no name (add `registry`, or leave `name` out)".into(),
        ),
        (
            "image = \"localhost/cocktail/shop/prod/web:1\"",
            "3:9: such names have images that a unit builds (write `build`, which names it itself, or another name)".into(),
        ),
    ];
    for (body, expected) in &cases {
        file_refused(&[(&unit(body), &[expected.as_str()])]);
    }
}
