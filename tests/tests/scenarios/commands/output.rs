//! What commands answer: exit codes, streams, and what is for scripts and for people.

use std::process::Command;

use cocktail_tests::{Home, program};
use rustix::process::Signal;

use crate::web;

#[test]
fn every_promised_exit_code_is_given() {
    let home = Home::new();
    let port = home.port();
    // Without a data dir and without a Manager.
    home.run(&["ps"]).fails(6);
    home.run(&["apply", "m.toml"]).fails(2);
    home.manifest("m.toml", &web(port, 1, "hi"));
    home.run(&["apply", "m.toml"]).fails(6);
    home.ok(&["version"]);
    home.run(&["fly"]).fails(2);
    home.run(&["scale", "web", "many"]).fails(2);
    home.run(&["--data-dir", "", "ps"]).fails(2);

    let manager = home.serve();
    home.ok(&["apply", "m.toml", "--wait"]);
    for args in [
        &["why", "nobody"][..],
        &["inspect", "shop/prod/nobody"],
        &["scale", "nobody", "2"],
        &["stop", "nobody"],
        &["restart", "web-zzzzzz"],
        &["rm", "nobody/at/all"],
        &["logs", "nobody"],
    ] {
        let said = home.run(args).fails(3);
        assert!(said.contains("nobody") || said.contains("web-zzzzzz"), "{args:?}: {said}");
    }
    // Refused: more than the Unit may have, and a second Manager, which is told who has the data dir.
    home.manifest("m.toml", &web(port, 1, "hi").replace("replicas = 1", "scale = { min = 1, max = 2 }"));
    home.ok(&["apply", "m.toml"]);
    let said = home.run(&["scale", "web", "3"]).fails(4);
    assert!(said.contains('2'), "{said}");
    let said = home.run(&["serve"]).fails(4);
    assert!(said.contains(&manager.pid().to_string()), "{said}");

    let never =
        "[maps.prod.units.never]\ncommand = [\"sleep\", \"1000\"]\nready = { exec = [\"false\"], every = \"100ms\" }\n";
    home.manifest("n.toml", &never.replace("prod", "late"));
    let said = home.run(&["apply", "n.toml", "--wait=300ms"]).fails(5);
    assert!(said.contains("never"), "{said}");
    // Failed: what was begun could not be finished.
    let mut up = home.spawn(&["up", "n.toml"]);
    home.eventually("`up` waits", || {
        up.must_run();
        up.said().contains("never")
    });
    assert_eq!(up.end(Signal::INT).code(), 1);
    home.finish();
}

#[test]
fn an_ambiguous_name_is_refused_with_its_candidates() {
    let home = Home::new();
    let sleep = |map: &str| format!("[maps.{map}.units.same]\ncommand = [\"sleep\", \"1000\"]\n");
    home.manifest("m.toml", &(sleep("dev") + &sleep("prod")));
    home.ok(&["up", "-d", "m.toml"]);
    let said = home.run(&["scale", "same", "2"]);
    assert_ne!(said.code(), 0);
    assert!(said.stderr.contains("shop/dev/same") && said.stderr.contains("shop/prod/same"), "{said}");
    home.ok(&["scale", "dev/same", "2", "--wait"]);
    home.finish();
}

#[test]
fn events_are_followed_while_they_happen() {
    let home = Home::new();
    home.manifest("m.toml", &web(home.port(), 1, "hi"));
    home.ok(&["up", "-d", "m.toml"]);
    for (tail, args) in [(3, &["events", "--tail", "3"][..]), (2, &["events", "--tail", "2", "web"])] {
        assert_eq!(home.ok(args).stdout.lines().count(), tail, "{args:?}");
    }
    let mut follow = home.spawn(&["-o", "json", "events", "-f", "--tail", "1"]);
    home.eventually("the last event is shown", || follow.data().lines().count() == 1);
    home.ok(&["scale", "web", "2", "--wait"]);
    let ids = home.settled("web", 2);
    home.eventually("the new container is in the events", || {
        follow.must_run();
        ids.keys().all(|id| {
            follow.data().contains(&format!("\"object\":\"{id}\"")) || home.ok(&["events"]).stdout.contains(id)
        }) && ids.keys().any(|id| follow.data().contains(&format!("\"object\":\"{id}\"")))
    });
    // Each turn comes once and in order, with nothing between left out.
    let seqs: Vec<u64> = follow
        .data()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect();
    let all: Vec<u64> = home
        .run(&["-o", "json", "events"])
        .json_lines()
        .iter()
        .filter_map(|event| event["seq"].as_u64().filter(|seq| (seqs[0]..=seqs[seqs.len() - 1]).contains(seq)))
        .collect();
    assert!(seqs.is_sorted() && all.ends_with(&seqs[1..]), "{seqs:?} of {all:?}");
    // Only one object, and the end of the Manager is the end of the stream.
    let about = home.ok(&["events", "web"]);
    assert!(!about.stdout.is_empty(), "{about}");
    home.ok(&["down"]);
    follow.wait();
    home.finish();
}

#[test]
fn a_reader_that_goes_away_ends_a_command_quietly() {
    let home = Home::new();
    let script = "while :; do echo a line that is as good as any other; done";
    home.manifest("m.toml", &format!("[maps.prod.units.yes]\ncommand = [\"sh\", \"-c\", \"{script}\"]\n"));
    home.ok(&["up", "-d", "m.toml"]);
    for args in ["logs -f yes", "manifest schema", "completions bash", "-o json events", "--help"] {
        let mut shell = Command::new("sh");
        let script = format!("{{ \"$0\" {args}; echo \"code $?\" >&2; }} | head -c 1");
        home.settle(shell.args(["-c", &script]).arg(program::cocktail()));
        let output = program::run(&mut shell, b"").ok();
        assert_eq!(output.stderr, "code 0\n", "{args}: {output}");
    }
    home.finish();
}

#[test]
fn what_needs_no_manager_works_without_one() {
    let home = Home::new();
    assert!(home.ok(&["version"]).stdout.starts_with("cocktail "));
    assert!(home.json(&["version"])["manager"].is_null());
    for shell in ["bash", "zsh", "fish"] {
        let script = home.ok(&["completions", shell]).stdout;
        assert!(script.contains("cocktail") && script.contains("endpoints"), "{script}");
    }
    let script = home.write("completions.bash", home.ok(&["completions", "bash"]).stdout);
    if xtask::condition::find_program("bash").is_some() {
        let mut check = Command::new("bash");
        check.arg("-n").arg(&script);
        assert_eq!(program::run(&mut check, b"").ok().stderr, "");
    }
    let schema = home.ok(&["manifest", "schema"]).json();
    assert!(schema["properties"]["service"].is_object(), "{schema:#}");
    let doctor = home.run(&["-o", "json", "doctor"]);
    let checks: serde_json::Value = serde_json::from_str(&doctor.stdout).unwrap();
    let failed = checks.as_array().unwrap().iter().filter(|check| check["status"] == "fail").count();
    assert!(!checks.as_array().unwrap().is_empty(), "{doctor}");
    assert_eq!(doctor.code(), i32::from(failed > 0), "{doctor}");
    home.manifest("m.toml", &web(home.port(), 1, "hi"));
    home.ok(&["manifest", "check", "m.toml"]);
    assert!(home.processes().is_empty());
    assert!(!home.data_dir().exists(), "a question made a data dir");
    home.finish();
}
