//! Units that run an image.

use std::path::Path;

use cocktail_core::spec::{Image, VolumeKind};

use super::{refused, web};

fn unit(body: &str) -> String {
    format!("service = \"shop\"\n[maps.prod.units.web]\n{body}")
}

#[test]
fn an_image_runs_its_own_command_unless_another_one_is_written() {
    let plain = web(&unit("image = \"shop/web:1.4\"")).template;
    assert_eq!(
        plain.image,
        Some(Image { reference: "shop/web:1.4".into(), entrypoint: None, read_only: None, digest: None, build: None })
    );
    assert!(plain.command.is_empty() && plain.cwd == Path::new(""), "{plain:?}");
    let all = web(&unit(
        r#"image = "shop/web:1.4"
entrypoint = ["/init"]
command = ["serve", "--port", "${PORT}"]
cwd = "/app"
ports.http = { service = 8080, container = 80 }
volumes.data = { mount = "/var/lib/data" }
volumes.cache = { mount = "/var/cache", kind = "ephemeral" }"#,
    ))
    .template;
    assert_eq!(all.image.unwrap().entrypoint, Some(vec!["/init".to_owned()]));
    assert_eq!((all.command.len(), all.cwd.as_path()), (3, Path::new("/app")));
    assert_eq!(all.ports[0].container, Some(80));
    let mounts: Vec<_> = all.volumes.values().map(|volume| (volume.mount.to_str().unwrap(), volume.kind)).collect();
    assert_eq!(mounts, [("/var/cache", VolumeKind::Ephemeral), ("/var/lib/data", VolumeKind::Exclusive)]);
}

#[test]
fn what_has_no_meaning_for_an_image_is_refused() {
    let image = "write image = \"registry.example.com/shop/web:1.4\", or a name and @sha256:…";
    let name = "the name of an image has small letters, digits, and `.`, `_`, `-` and `/` between them";
    let cases: [(&str, &[&str]); 6] = [
        ("image = \"Shop\"", &[&format!("3:9: {name} ({image})")]),
        (
            "image = \"web\"\nentrypoint = \"/init\"",
            &[
                "4:14: expected an array, found a string: no shell splits it (write it as an array: [\"/usr/bin/server\"])",
            ],
        ),
        (
            "command = [\"web\"]\nentrypoint = [\"/init\"]",
            &["4:1: only an image has an entrypoint (add `image`, or leave `entrypoint` out)"],
        ),
        (
            "image = \"web\"\ncwd = \"app\"",
            &[
                "4:7: the working directory of an image is an absolute path in it (write a folder of the image: cwd = \"/app\", or leave it out)",
            ],
        ),
        (
            "image = \"web\"\nvolumes.data = { mount = \"data\" }",
            &[
                "4:26: a mount in an image is an absolute path without `..` (write a path inside the image: mount = \"/var/lib/data\")",
            ],
        ),
        (
            "image = \"web\"\nartifact = {}",
            &["4:1: an image needs no artifact (leave it out: the image has the files)"],
        ),
    ];
    for (body, expected) in cases {
        refused(&unit(body), expected);
    }
}

#[test]
fn a_number_inside_a_container_needs_an_image_and_an_image_inherits_no_socket() {
    let inside = unit("command = [\"web\"]\nports.http = { container = 80 }");
    let help = "leave `container` out, or run an `image`";
    let problem = "the port `http` has a number inside a container, and there is no image";
    refused(&inside, &[&format!("2:18: {problem} ({help})")]);
    let inherits = unit("image = \"web\"\nports.http = { inherit = true }");
    let help = "leave `inherit` out: an image listens itself";
    refused(&inherits, &[&format!("2:18: the port `http` cannot be inherited by an image ({help})")]);
}
