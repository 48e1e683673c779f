//! Several Managers on one machine, and several commands at a Manager.

use std::collections::BTreeSet;

use cocktail_tests::Home;
use rustix::process::Signal;

use crate::web;

/// The leased ports of all containers that have one and run.
fn ports(home: &Home) -> Vec<u64> {
    let ready = home.ps().into_iter().filter(|one| one["ready"] == true);
    ready.map(|one| one["ports"][0]["port"].as_u64().unwrap()).collect()
}

#[test]
fn two_data_dirs_with_one_port_range_never_share_a_port() {
    let (one, other) = (Home::new(), Home::new());
    // Twenty ports for both.
    let first: u16 = one.port_range().split('-').next().unwrap().parse().unwrap();
    let settings = format!(
        "[manager]\nport_range = \"{first}-{}\"\nport_hold_down = \"100ms\"\nport_poison = \"300ms\"\n",
        first + 19
    );
    // Workers that never use their port: nothing but the Managers' own word keeps others from it.
    let body = "[maps.prod.units.api]\ncommand = [\"sleep\", \"1000\"]\nreplicas = 8\nports.http = {}\n\
                ready = { exec = [\"true\"], every = \"100ms\" }\n";
    let mut managers = Vec::new();
    for home in [&one, &other] {
        managers.push(home.serve_with(&settings));
        home.write("m.toml", format!("service = \"shop\"\n{body}"));
    }
    // At the same time, so that they look at the same ports.
    let applies = [&one, &other].map(|home| home.spawn(&["apply", "m.toml", "--wait"]));
    for apply in applies {
        apply.wait().ok();
    }
    let all = |least: usize| {
        let ports = [ports(&one), ports(&other)].concat();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len(), "a port was handed out twice: {ports:?}");
        ports.len() >= least
    };
    assert!(all(16));
    // More than there are: each gets what is free, waits for the rest, and says for what.
    for home in [&one, &other] {
        home.ok(&["scale", "api", "12"]);
    }
    one.eventually("all twenty ports are in use", || all(20));
    let short = if ports(&one).len() < 12 { &one } else { &other };
    short.eventually("the reason is known", || short.why("api").iter().any(|because| because.contains("port")));
    // What one gives back, the other gets.
    one.ok(&["scale", "api", "2", "--wait"]);
    other.eventually("the other has all it wants", || all(14) && ports(&other).len() == 12);
    // Both end first: they have ports of one block.
    for home in [&one, &other] {
        home.ok(&["down"]);
    }
    drop(managers);
    one.finish();
    other.finish();
}

#[test]
fn up_at_a_manager_that_runs_stops_only_what_it_started() {
    let home = Home::new();
    let port = home.port();
    home.manifest("base.toml", &web(port, 1, "base"));
    home.write("more.toml", "service = \"more\"\n[maps.prod.units.extra]\ncommand = [\"sleep\", \"1000\"]\n");
    home.ok(&["up", "-d", "base.toml"]);
    let base = home.settled("web", 1);
    let up = home.up(&["base.toml", "more.toml"]);
    home.settled("extra", 1);
    up.end(Signal::INT).ok();
    assert_eq!(home.settled("web", 1), base);
    assert!(home.workers().iter().all(|process| !process.command.starts_with("sleep")));
    assert_eq!(home.unit("extra").unwrap()["stopped"], true);
    // The next `up` starts it again.
    let up = home.up(&["more.toml"]);
    home.settled("extra", 1);
    up.end(Signal::TERM).ok();
    home.finish();
}

#[test]
fn commands_that_come_at_once_all_hold() {
    let home = Home::new();
    let unit = |n: usize| format!("service = \"s{n}\"\n[maps.prod.units.u{n}]\ncommand = [\"sleep\", \"1000\"]\n");
    let _manager = home.serve();
    let applies: Vec<_> = (0..8)
        .map(|n| {
            let file = format!("{n}.toml");
            home.write(&file, unit(n));
            home.spawn(&["apply", &file, "--wait"])
        })
        .collect();
    for apply in applies {
        apply.wait().ok();
    }
    let extends: Vec<_> = (0..8).map(|_| home.spawn(&["extend", "u0"])).collect();
    for extend in extends {
        extend.wait().ok();
    }
    home.settled("u0", 9);
    assert_eq!(home.json(&["units"]).as_array().unwrap().len(), 8);
    home.finish();
}
