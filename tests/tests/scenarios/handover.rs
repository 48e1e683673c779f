//! Fixed ports: handed from old to new with the socket itself, or else taken in turn, and the plan says which.

use cocktail_tests::{Home, Load, Shape, http};

use crate::WEB;

fn fixed(port: u16, version: &str, inherit: bool) -> String {
    format!(
        "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"{WEB}\"]\nenv = {{ VERSION = \"{version}\" }}\n\
         ports.http = {{ fixed = {port}, inherit = {inherit} }}\n\
         ready = {{ http = \"/ready\", every = \"100ms\", timeout = \"5s\" }}\nupdate = {{ monitor = \"300ms\" }}\n"
    )
}

fn because(home: &Home) -> String {
    home.json(&["plan", "m.toml"])["actions"][0]["because"].as_str().unwrap().to_owned()
}

#[test]
fn a_fixed_port_whose_socket_is_handed_over_refuses_nobody_during_an_update() {
    let home = Home::new();
    let mut manager = home.serve();
    let port = home.port();
    home.write("m.toml", fixed(port, "v0", true));
    home.ok(&["apply", "--wait", "m.toml"]);
    let load = Load::of(port, Shape::only_new(200));
    home.eventually("the load is at work", || load.answered() > 50 || load.failed() > 0);
    for round in 1..=4 {
        let version = format!("v{round}");
        home.write("m.toml", fixed(port, &version, true));
        assert!(because(&home).contains("each ready before an old one ends"), "{}", because(&home));
        home.ok(&["apply", "m.toml"]);
        if round % 2 == 0 {
            // The keeper has the socket, whatever becomes of the Manager.
            manager.kill();
            manager = home.serve();
        }
        home.eventually("the new one is alone", || {
            home.look("web")
                .is_some_and(|unit| unit["rollout"]["state"] == "completed" && unit["revision"] == round + 1)
                && home.look_at_containers("web").is_some_and(|all| all.len() == 1)
        });
        assert!(http::get(port, "/").unwrap().body.starts_with(&version));
    }
    let report = load.stop_after(200);
    assert_eq!(report.versions().len(), 5, "{:?}", report.versions());
    home.finish();
    drop(manager);
}

#[test]
fn a_fixed_port_that_cannot_be_handed_over_and_an_exclusive_volume_go_first_and_plan_says_so_before() {
    let home = Home::new();
    let _manager = home.serve();
    let port = home.port();
    home.write("m.toml", fixed(port, "v0", false));
    home.ok(&["apply", "--wait", "m.toml"]);
    let old = home.settled("web", 1);
    home.write("m.toml", fixed(port, "v1", false));
    let says = because(&home);
    assert!(says.contains("ends before its replacement starts") && says.contains("a fixed port"), "{says}");
    assert_eq!(home.pids("web"), old, "a plan changed something");
    home.ok(&["apply", "--wait", "m.toml"]);
    assert!(http::get(port, "/").unwrap().body.starts_with("v1 "));

    let volume = "volumes.data = { mount = \"data\", kind = \"exclusive\" }\n";
    home.write("m.toml", format!("{}{volume}", fixed(port, "v1", true)));
    let says = because(&home);
    assert!(says.contains("ends before its replacement starts") && says.contains("an exclusive volume"), "{says}");
    home.ok(&["apply", "--wait", "m.toml"]);
    // What was said is what was done, and stands in the reasons.
    let why = home.why("web");
    let events = home.run(&["-o", "json", "events"]).json_lines();
    let drains: Vec<_> = events.iter().filter(|event| event["kind"] == "drain-begun").collect();
    assert_eq!(drains.len(), 2);
    assert!(
        drains.iter().all(|event| event["reason"].as_str().unwrap().contains("it goes first, since")),
        "{drains:?}"
    );
    assert!(!why.is_empty());
    home.finish();
}
