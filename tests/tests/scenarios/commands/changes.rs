//! Commands that change something: apply, scale, stop, restart, rm.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use cocktail_tests::{Client, Home, http};

use crate::{WORKER, web};

/// Replacements need not be watched for long here.
const QUICK: &str = "update = { monitor = \"100ms\" }\n";

/// What `plan` would do, as `action object`.
fn planned(home: &Home, file: &str) -> Vec<String> {
    let plan = home.json(&["plan", file]);
    let actions = plan["actions"].as_array().unwrap().iter();
    actions.map(|one| format!("{} {}", one["action"].as_str().unwrap(), one["object"].as_str().unwrap())).collect()
}

fn keys<V>(map: &std::collections::BTreeMap<String, V>) -> BTreeSet<&str> {
    map.keys().map(String::as_str).collect()
}

#[test]
fn plan_twice_prints_the_same_and_apply_twice_changes_nothing() {
    let home = Home::new();
    let body = web(home.port(), 2, "hi") + "[maps.prod.units.other]\ncommand = [\"sleep\", \"1000\"]\n";
    home.manifest("m.toml", &body);
    let _manager = home.serve();
    for format in ["table", "json"] {
        let first = home.ok(&["-o", format, "plan", "m.toml"]);
        assert!(first.stdout.contains("create") && first.stdout.contains("shop/prod/other"), "{first}");
        let second = home.ok(&["-o", format, "plan", "m.toml"]);
        assert_eq!((first.stdout, first.stderr), (second.stdout, second.stderr));
    }
    assert!(home.ps().is_empty(), "a plan changed something");

    let first = home.json(&["apply", "--wait", "m.toml"]);
    assert_eq!(first["changed"].as_array().unwrap().len(), 2, "{first}");
    let (web, other) = (home.settled("web", 2), home.settled("other", 1));
    assert_eq!(planned(&home, "m.toml"), Vec::<String>::new());
    let seq = home.seq();
    let second = home.json(&["apply", "--wait", "m.toml"]);
    assert_eq!((&second["changed"], &second["removed"]), (&serde_json::json!([]), &serde_json::json!([])));
    assert_eq!(home.seq(), seq, "an apply of the same was journaled:\n{}", home.report());
    assert_eq!((home.settled("web", 2), home.settled("other", 1)), (web, other));
    home.finish();
}

#[test]
fn a_count_set_by_hand_is_undone_only_by_a_new_count_in_the_file() {
    let home = Home::new();
    let port = home.port();
    let apply = |replicas, more: &str| {
        home.manifest("m.toml", &(web(port, replicas, "hi") + QUICK + more));
        home.ok(&["apply", "m.toml", "--wait"])
    };
    let _manager = home.serve();
    apply(2, "");
    let two = home.settled("web", 2);
    home.ok(&["scale", "web", "4", "--wait"]);
    let four = home.settled("web", 4);
    assert!(keys(&four).is_superset(&keys(&two)));

    // The same file, another Unit, another setting of this Unit: all unrelated to its count.
    assert!(apply(2, "").stderr.contains("nothing changed"));
    assert_eq!(home.settled("web", 4), four);
    apply(2, "[maps.prod.units.other]\ncommand = [\"sleep\", \"1000\"]\n");
    assert_eq!(home.settled("web", 4), four);
    apply(2, "env = { CHANGED = \"yes\" }\n");
    let replaced = home.settled("web", 4);
    assert!(keys(&replaced).is_disjoint(&keys(&four)), "{four:?} was not replaced: {replaced:?}");

    // Another value wins, also over what was set by hand after it.
    apply(3, "env = { CHANGED = \"yes\" }\n");
    home.settled("web", 3);
    home.ok(&["extend", "web", "2", "--wait"]);
    apply(3, "env = { CHANGED = \"yes\" }\n");
    home.settled("web", 5);
    home.ok(&["reduce", "web", "--wait"]);
    home.settled("web", 4);
    home.finish();
}

#[test]
fn what_left_the_file_is_removed_and_plan_says_so() {
    let home = Home::new();
    let sleep = |name: &str| format!("[maps.prod.units.{name}]\ncommand = [\"sleep\", \"1000\"]\n");
    let port = home.port();
    home.manifest("m.toml", &(web(port, 1, "hi") + &sleep("other")));
    home.write("dev.toml", "service = \"shop\"\n[maps.dev.units.mine]\ncommand = [\"sleep\", \"1000\"]\n");
    let _manager = home.serve();
    home.ok(&["apply", "m.toml", "dev.toml", "--wait"]);
    let (other, mine) = (home.settled("other", 1), home.settled("mine", 1));

    home.manifest("m.toml", &sleep("other"));
    assert_eq!(planned(&home, "m.toml"), ["remove shop/prod/web"]);
    let applied = home.json(&["apply", "--wait", "m.toml"]);
    assert_eq!(applied["removed"], serde_json::json!(["shop/prod/web"]));
    assert!(home.unit("web").is_none() && home.containers("web").is_empty());
    // Its service port can be had by others at once; the map that the file does not name is untouched.
    TcpListener::bind(("127.0.0.1", port)).unwrap();
    assert_eq!((home.settled("other", 1), home.settled("mine", 1)), (other, mine));
    home.finish();
}

#[test]
fn a_changed_command_is_replaced_without_a_failed_request() {
    let home = Home::new();
    let port = home.port();
    home.manifest("m.toml", &(web(port, 3, "old") + QUICK));
    home.ok(&["up", "-d", "m.toml"]);
    let old = home.settled("web", 3);
    let client = Client::with_new_connections(port);
    home.eventually("the client is at work", || client.answered() > 50);

    home.manifest("m.toml", &(web(port, 3, "new") + QUICK));
    assert_eq!(planned(&home, "m.toml"), ["replace shop/prod/web"]);
    // Ready containers never drop below the count, at any look.
    let apply = home.spawn(&["apply", "m.toml", "--wait"]);
    let mut most = 0;
    let new = home.until("the rollout has completed", || {
        let all = home.containers("web");
        let ready = all.iter().filter(|one| one["ready"] == true).count();
        assert!(ready >= 3, "only {ready} are ready\n{}", home.report());
        most = most.max(all.iter().filter(|one| one["state"] != "draining" && one["state"] != "stopped").count());
        let unit = home.unit("web")?;
        let completed = unit["updated"] == 3 && unit["rollout"]["state"] == "completed";
        (unit["revision"] == 2 && completed && all.len() == 3).then(|| home.pids("web"))
    });
    assert!(most <= 4, "{most} at a time, although `surge` is 1");
    apply.succeed();
    let report = client.stop_after(50);
    assert!(keys(&new).is_disjoint(&keys(&old)), "{old:?} became {new:?}");
    let of = |word: &str| report.bodies.keys().filter(|body| body.trim_end().ends_with(word)).count();
    assert_eq!((of("old"), of("new")), (3, 3), "{:?}", report.bodies);
    assert_eq!(home.unit("web").unwrap()["revision"], 2);
    home.finish();
}

#[test]
fn a_new_revision_that_does_not_come_up_goes_back_and_leaves_the_old_one_serving() {
    let home = Home::new();
    let port = home.port();
    home.manifest("m.toml", &(web(port, 2, "old") + QUICK));
    home.ok(&["up", "-d", "m.toml"]);
    let old = home.settled("web", 2);
    let client = Client::with_new_connections(port);
    home.manifest("m.toml", &(web(port, 2, "new").replace("\"serve\", \"new\"", "\"exit\", \"3\"") + QUICK));
    let said = home.run(&["apply", "m.toml", "--wait"]).fails(1);
    assert!(said.contains("the update went back") && said.contains("exited with code 3"), "{said}");
    assert_eq!(home.pids("web"), old, "an old container was given up");
    assert!(home.why("web").iter().any(|because| because.contains("exited with code 3")), "{:#?}", home.why("web"));

    // A file that is right again goes through, and nothing of the broken one is left.
    home.manifest("m.toml", &(web(port, 2, "right") + QUICK));
    home.ok(&["apply", "m.toml", "--wait"]);
    let right = home.settled("web", 2);
    assert!(keys(&right).is_disjoint(&keys(&old)));
    client.stop_after(20);
    home.finish();
}

#[test]
fn a_unit_that_is_renamed_takes_its_ports_along() {
    let home = Home::new();
    let port = home.port();
    home.manifest("m.toml", &web(port, 2, "web"));
    home.ok(&["up", "-d", "m.toml"]);
    home.settled("web", 2);
    home.manifest("m.toml", &web(port, 2, "site").replace("units.web", "units.site"));
    assert_eq!(planned(&home, "m.toml"), ["remove shop/prod/web", "create shop/prod/site"]);
    home.ok(&["apply", "m.toml", "--wait"]);
    home.settled("site", 2);
    home.eventually("the service port answers for the new name", || {
        http::get(port, "/").is_ok_and(|answer| answer.body.trim_end().ends_with("site"))
    });
    home.finish();
}

#[test]
fn stop_start_and_restart_do_what_they_say_and_say_what_they_do() {
    let home = Home::new();
    let port = home.port();
    home.manifest(
        "m.toml",
        &(web(port, 2, "hi") + QUICK + "[maps.prod.units.other]\ncommand = [\"sleep\", \"1000\"]\n"),
    );
    home.ok(&["up", "-d", "m.toml"]);
    let (first, other) = (home.settled("web", 2), home.settled("other", 1));

    home.ok(&["stop", "web", "--wait"]);
    let unit = home.unit("web").unwrap();
    assert_eq!((&unit["stopped"], &unit["ready"]), (&true.into(), &0.into()), "{unit}");
    assert!(home.workers().iter().all(|process| !first.values().any(|pid| *pid == process.pid)));
    // Nothing starts it but a command: not an apply of the same file.
    home.ok(&["apply", "m.toml"]);
    assert_eq!(home.unit("web").unwrap()["stopped"], true);
    home.ok(&["start", "web", "--wait"]);
    let second = home.settled("web", 2);

    let client = Client::with_new_connections(port);
    home.ok(&["restart", "web", "--wait"]);
    let third = home.settled("web", 2);
    let pids = |map: &std::collections::BTreeMap<String, u32>| map.values().copied().collect::<BTreeSet<_>>();
    assert!(pids(&second).is_disjoint(&pids(&third)), "{second:?} became {third:?}");
    // One container by its id, and a whole map.
    let one = keys(&third).first().copied().unwrap().to_owned();
    home.ok(&["restart", &one, "--wait"]);
    let fourth = home.settled("web", 2);
    assert_eq!(pids(&third).intersection(&pids(&fourth)).count(), 1, "{third:?} became {fourth:?}");
    assert_eq!(home.settled("other", 1), other);
    home.ok(&["restart", "shop/prod", "--wait"]);
    assert!(pids(&fourth).is_disjoint(&pids(&home.settled("web", 2))));
    assert!(pids(&other).is_disjoint(&pids(&home.settled("other", 1))));
    client.stop_after(20);

    home.ok(&["rm", "web", "--wait"]);
    assert!(home.unit("web").is_none() && home.containers("web").is_empty());
    assert!(http::get(port, "/").is_err(), "the service port still answers");
    home.run(&["rm", "web"]).fails(3);
    home.finish();
}

#[test]
fn why_names_the_cause_of_a_container_that_cannot_start() {
    let home = Home::new();
    let program = home.write("program", "#!/bin/sh\nexec sleep 1000\n");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut body = String::new();
    for (unit, command) in [
        ("missing", "[\"./program\"]".to_owned()),
        ("exits", format!("[\"{WORKER}\", \"exit\", \"42\"]")),
        ("silent", "[\"sleep\", \"1000\"]\nports.http = {}".to_owned()),
    ] {
        body.push_str(&format!("[maps.prod.units.{unit}]\ncommand = {command}\nupdate = {{ progress = \"1s\" }}\n"));
    }
    home.manifest("m.toml", &body);
    let _manager = home.serve();
    home.ok(&["apply", "m.toml"]);
    // It was there when it was applied, and goes before it is started again.
    home.settled("missing", 1);
    fs::remove_file(&program).unwrap();
    home.ok(&["restart", "missing"]);
    for (unit, cause) in
        [("missing", "`./program`"), ("exits", "exited with code 42"), ("silent", "listens on no port")]
    {
        let says = |reasons: &[String]| reasons.iter().any(|reason| reason.to_lowercase().contains(cause));
        home.eventually(&format!("`why {unit}` says {cause:?}"), || says(&home.why(unit)));
        home.eventually(&format!("`why` of a container of {unit} says {cause:?}"), || {
            home.containers(unit).iter().any(|one| says(&home.why(one["id"].as_str().unwrap())))
        });
        home.eventually(&format!("`ps` says {cause:?} of {unit}"), || {
            home.containers(unit).iter().any(|one| says(&[one["reason"].as_str().unwrap().to_owned()]))
        });
    }
    // Whoever waits for it is told the same.
    let said = home.run(&["restart", "silent", "--wait=500ms"]).fails(5);
    assert!(said.contains("shop/prod/silent: "), "{said}");
    home.finish();
}
