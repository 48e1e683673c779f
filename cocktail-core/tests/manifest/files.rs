//! Several files together, and a file under the settings in force.

use std::path::Path;

use cocktail_core::manifest::{self, Parsed, check, check_settings, parse_settings};
use cocktail_core::ports::PortRange;
use cocktail_core::settings::Settings;

fn file(name: &str, text: &str) -> Parsed {
    manifest::parse(text, Path::new(name), Path::new("/srv")).expect("the file alone is well")
}

fn unit(service: &str, map: &str, unit: &str, body: &str) -> String {
    format!("service = \"{service}\"\n[maps.{map}.units.{unit}]\ncommand = [\"x\"]\n{body}")
}

fn lines(problems: &[manifest::Diagnostic]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn files_without_overlap_go_together() {
    let a = file("a.toml", &unit("shop", "prod", "web", "ports.a = { service = 8080 }"));
    let b = file("b.toml", &unit("shop", "dev", "web", "ports.a = { service = 8080, address = \"127.0.0.2\" }"));
    let c = file("c.toml", &unit("other", "prod", "web", "ports.a = { service = 8081 }"));
    assert_eq!(lines(&check(&[a, b, c])), Vec::<String>::new());
}

#[test]
fn two_files_cannot_own_one_map() {
    let a = file("a.toml", &unit("shop", "prod", "web", ""));
    let b = file("b.toml", &unit("shop", "prod", "api", ""));
    assert_eq!(
        lines(&check(&[a, b])),
        [
            "b.toml:2:7: map `prod` is already defined at a.toml:2:7 (one file owns a map: move the units together, or rename one map)"
        ]
    );
}

#[test]
fn two_files_cannot_have_one_service_port() {
    let a = file("a.toml", &unit("shop", "prod", "web", "ports.a = { service = 8080 }"));
    let b = file("b.toml", &unit("other", "prod", "web", "ports.a = { service = 8080, address = \"0.0.0.0\" }"));
    assert_eq!(
        lines(&check(&[a, b])),
        [
            "b.toml:4:13: port 8080 is already the service port of shop/prod/web (a.toml:4:13) (give one of them another port)"
        ]
    );
}

#[test]
fn a_quota_counts_the_units_of_all_files() {
    let a = file("a.toml", &format!("quota = {{ containers = 3 }}\n{}", unit("shop", "prod", "web", "replicas = 2")));
    let b = file("b.toml", &unit("shop", "dev", "web", "replicas = 2"));
    let alone = check(std::slice::from_ref(&a));
    assert_eq!(lines(&alone), Vec::<String>::new());
    assert_eq!(
        lines(&check(&[b, a])),
        [
            "a.toml:1:11: the units ask for more than the quota of containers: 4 in all (raise the quota, or ask for less)"
        ]
    );
}

#[test]
fn settings_stand_in_one_file() {
    let a = file("a.toml", "[manager]\ndrain = \"1s\"");
    let b = file("b.toml", "[manager]\ndrain = \"2s\"");
    assert_eq!(lines(&check(&[a, b])), ["b.toml:1:2: a.toml has Manager settings, too (keep them in one file)"]);
}

#[test]
fn unknown_providers_are_found_under_the_settings_in_force() {
    let body = "provider = [\"standalon\", \"local\", \"mine\"]";
    let parsed = file("a.toml", &unit("shop", "prod", "web", body));
    let text = "[providers.local]\nkind = \"standalone\"";
    let (settings, _) = parse_settings(text, Path::new("c.toml"), Path::new("/srv")).expect("the settings are well");
    assert_eq!(
        lines(&check_settings(&parsed, &settings, &["standalone"])),
        [
            "a.toml:4:1: unknown provider `mine` (known here: local, standalone)",
            "a.toml:4:1: unknown provider `standalon` (did you mean \"standalone\"?)",
        ]
    );
}

#[test]
fn declared_ports_among_the_leased_ones_are_pointed_out() {
    let parsed = file("a.toml", &unit("shop", "prod", "web", "ports.a = { service = 20080 }"));
    let problems = check_settings(&parsed, &Settings::default(), &["standalone"]);
    assert_eq!(problems[0].severity, manifest::Severity::Warning);
    assert_eq!(
        lines(&problems),
        [
            "a.toml:4:13: service port 20080 lies in the range of leased ports, 20000-29999 (choose a port outside, or change manager.port_range)"
        ]
    );
    let elsewhere = Settings { port_range: PortRange { first: 30_000, last: 31_000 }, ..Settings::default() };
    assert_eq!(check_settings(&parsed, &elsewhere, &["standalone"]), []);
}

#[test]
fn a_bind_lies_below_the_manifest_or_what_the_settings_name() {
    let bind = |base: &str, source: &str, settings: &Settings| {
        let body = format!("volumes.a = {{ mount = \"a\", kind = \"bind\", source = \"{source}\" }}");
        let text = unit("shop", "prod", "web", &body);
        let parsed = manifest::parse(&text, Path::new("a.toml"), Path::new(base)).expect("the file alone is well");
        assert_eq!(parsed.base, Path::new(base));
        lines(&check_settings(&parsed, settings, &["standalone"]))
    };
    let refused = |folder: &str| {
        vec![format!(
            "a.toml:4:43: this folder is not among those that may be bound (add \"{folder}\" to manager.binds, or use a folder below that of the manifest)"
        )]
    };
    let (none, nothing) = (Settings::default(), Vec::<String>::new());
    for source in ["data", "/srv/shop/data", "x/../data/.", "/srv/shop"] {
        assert_eq!(bind("/srv/shop", source, &none), nothing, "{source}");
    }
    for (source, folder) in [("/srv/data", "/srv/data"), ("../data", "/srv/data"), ("/srv/shop2", "/srv/shop2")] {
        assert_eq!(bind("/srv/shop", source, &none), refused(folder), "{source}");
    }
    // A base with dots is the folder that it means, and the root is nobody's own folder.
    assert_eq!(bind("/srv/x/../shop", "data", &none), nothing);
    assert_eq!(bind("/srv/x/..", "/srv/data", &none), nothing);
    assert_eq!(bind("/", "/srv/data", &none), refused("/srv/data"));
    assert_eq!(bind("/srv/..", "/srv/data", &none), refused("/srv/data"));

    let some = Settings { binds: vec!["/mnt/a".into(), "/srv/b/../data".into()], ..Settings::default() };
    for source in ["/mnt/a", "/mnt/a/deep", "../data"] {
        assert_eq!(bind("/srv/shop", source, &some), nothing, "{source}");
    }
    assert_eq!(bind("/srv/shop", "/mnt/a/../b", &some), refused("/mnt/b"));
    let long = format!("/{}", "x".repeat(300));
    assert_eq!(bind("/srv/shop", &long, &some), [refused("it")[0].replace("\"it\"", "it")]);
}

#[test]
fn what_is_found_later_points_at_the_nearest_key() {
    let parsed = file("a.toml", &unit("shop", "prod", "web", "ports.http = { service = 8080 }"));
    let place = |key: &str| parsed.spans.error(key, "x").to_string();
    assert_eq!(place("maps.prod.units.web.command[0]"), "a.toml:3:1: x");
    assert_eq!(place("maps.prod.units.web.ports.http.service"), "a.toml:4:16: x");
    assert_eq!(place("maps.prod.units.web.cwd"), "a.toml:2:18: x");
    assert_eq!(place("elsewhere"), "a.toml: x");
}
