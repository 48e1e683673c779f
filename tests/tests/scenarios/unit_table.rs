//! What a Unit can be asked to do, row by row as the table of the starting documents has it: short, on the real program.
//!
//! Each row has its depth elsewhere; here stands that it is there at all, and what it looks like from a script.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::{fs, thread};

use cocktail_tests::home::PATIENCE;
use cocktail_tests::journal::Journal;
use cocktail_tests::shape::{self, Is};
use cocktail_tests::{Home, Load, Manager, Shape, Terminal, http, program};
use serde_json::{Value, json};

use crate::site;

/// Replacements need not be watched for long here.
const QUICK: &str = "update = { monitor = \"200ms\" }";

/// A Home with a Manager that looks often, and the Unit `web` of two containers behind a port.
struct Row {
    home: Home,
    manager: Manager,
    port: u16,
}

impl Row {
    fn new() -> Self {
        let home = Home::new();
        let port = home.port();
        let manager = home.serve_with(&format!("{}usage = \"100ms\"\n", home.settings()));
        Self { home, manager, port }
    }

    /// Applies `web` and waits for it.
    #[track_caller]
    fn web(&self, version: &str, more: &str) -> BTreeMap<String, u32> {
        self.home.write("web.toml", format!("service = \"shop\"\n{}", site(self.port, version, "", more)));
        self.home.ok(&["apply", "--wait", "web.toml"]);
        let count = self.home.unit("web").unwrap()["desired"].as_u64().unwrap();
        self.home.settled("web", usize::try_from(count).unwrap())
    }

    fn with_web() -> (Self, BTreeMap<String, u32>) {
        let row = Self::new();
        let pids = row.web("one", &format!("replicas = 2\n{QUICK}"));
        (row, pids)
    }

    /// Another Manager after the death of this one.
    fn again(&mut self) {
        self.manager.signal(rustix::process::Signal::KILL);
        self.home.eventually("the Manager is dead", || self.home.manager_pid().is_none());
        self.manager = self.home.serve();
    }

    #[track_caller]
    fn answers(&self, version: &str) {
        let answer = http::get(self.port, "/").unwrap();
        assert_eq!(answer.body.split(' ').next(), Some(version), "{answer:?}");
    }

    fn planned(&self, file: &str) -> Vec<String> {
        let plan = self.home.json(&["plan", file]);
        let actions = plan["actions"].as_array().unwrap().iter();
        actions.map(|one| format!("{} {}", one["action"].as_str().unwrap(), one["object"].as_str().unwrap())).collect()
    }
}

fn ids(map: &BTreeMap<String, u32>) -> BTreeSet<&str> {
    map.keys().map(String::as_str).collect()
}

#[test]
fn creation() {
    let row = Row::new();
    row.home.write("web.toml", format!("service = \"shop\"\n{}", site(row.port, "one", "", "replicas = 2")));
    assert_eq!(row.planned("web.toml"), ["create shop/prod/web"]);
    assert!(row.home.unit("web").is_none() && row.home.ps().is_empty());
    let applied = row.home.json(&["apply", "--wait", "web.toml"]);
    assert_eq!(applied["changed"], json!(["shop/prod/web"]));
    let unit = row.home.unit("web").unwrap();
    for (key, value) in [("desired", 2), ("ready", 2), ("updated", 2), ("revision", 1)] {
        assert_eq!(unit[key], value, "{key}: {unit}");
    }
    let containers = row.home.containers("web");
    for one in &containers {
        assert_eq!((&one["state"], &one["generation"], &one["revision"]), (&json!("ready"), &json!(1), &json!(1)));
        assert!(row.home.workers().iter().any(|process| one["pid"] == process.pid), "{one}");
        assert!(!row.home.why(one["id"].as_str().unwrap()).is_empty(), "nothing says why {one} was made");
    }
    assert_eq!(containers.len(), 2);
    row.answers("one");
    row.home.finish();
}

#[test]
fn modification() {
    let (row, first) = Row::with_web();
    let two = site(row.port, "two", "", &format!("replicas = 3\n{QUICK}"));
    row.home.write("two.toml", format!("service = \"shop\"\n{two}"));
    assert_eq!(row.planned("two.toml"), ["replace shop/prod/web", "extend shop/prod/web"]);
    row.home.ok(&["apply", "--wait", "two.toml"]);
    let second = row.home.settled("web", 3);
    assert!(ids(&first).is_disjoint(&ids(&second)));
    assert_eq!(row.home.unit("web").unwrap()["revision"], 2);
    row.answers("two");
    let diff = &row.home.json(&["inspect", "web"])["diff"]["changes"];
    assert_eq!(diff, &json!([{ "key": "env.VERSION", "from": "one", "to": "two" }]));
    // What containers are not made from replaces none.
    let labelled = format!("service = \"shop\"\n{two}labels = {{ team = \"web\" }}\n");
    row.home.write("two.toml", labelled.replace("monitor = \"200ms\"", "monitor = \"150ms\""));
    assert_eq!(row.planned("two.toml"), ["configure shop/prod/web"]);
    row.home.ok(&["apply", "--wait", "two.toml"]);
    assert_eq!(row.home.settled("web", 3), second);
    assert_eq!(row.home.unit("web").unwrap()["labels"], json!({ "team": "web" }));
    row.home.finish();
}

#[test]
fn termination() {
    let (mut row, first) = Row::with_web();
    row.home.ok(&["stop", "--wait", "web"]);
    let stopped = |row: &Row| {
        let unit = row.home.unit("web").unwrap();
        assert_eq!((&unit["stopped"], &unit["ready"], &unit["desired"]), (&json!(true), &json!(0), &json!(0)));
        assert_eq!(row.home.workers(), []);
    };
    stopped(&row);
    // It stays so, whoever else runs.
    row.again();
    stopped(&row);
    row.home.ok(&["start", "--wait", "web"]);
    assert!(ids(&first).is_disjoint(&ids(&row.home.settled("web", 2))));
    row.answers("one");
    row.home.finish();
}

#[test]
fn restart() {
    let (row, first) = Row::with_web();
    let from = row.home.seq();
    row.home.ok(&["restart", "--wait", "web"]);
    let second = row.home.settled("web", 2);
    assert!(ids(&first).is_disjoint(&ids(&second)));
    // Only one.
    let one = second.keys().next().unwrap();
    row.home.ok(&["restart", "--wait", one]);
    let third = row.home.settled("web", 2);
    assert_eq!(ids(&second).intersection(&ids(&third)).count(), 1);
    assert!(!third.contains_key(one));
    assert_eq!(row.home.unit("web").unwrap()["revision"], 1, "a restart is no revision");
    Journal::read(&row.home).never_below("shop/prod/web", 2, from);
    row.home.finish();
}

#[test]
fn deletion() {
    let row = Row::new();
    row.web("one", "volumes.data = { mount = \"data\", kind = \"shared\" }");
    let keep = row.home.data_dir().join("volumes/shop/prod/web/data/keep");
    fs::write(&keep, "kept").unwrap();
    let removed = row.home.ok(&["rm", "--wait", "web"]);
    assert!(removed.stderr.contains("web"), "{removed}");
    assert!(row.home.unit("web").is_none() && row.home.ps().is_empty());
    assert_eq!(row.home.workers(), []);
    TcpListener::bind(("127.0.0.1", row.port)).unwrap();
    row.home.run(&["inspect", "web"]).fails(3);
    // Volumes stay, are listed as nobody's, and are there when it comes again.
    let volumes = row.home.json(&["volumes"]);
    assert_eq!((&volumes[0]["kind"], &volumes[0]["containers"]), (&json!(""), &json!([])), "{volumes}");
    row.web("one", "volumes.data = { mount = \"data\", kind = \"shared\" }");
    assert_eq!(fs::read_to_string(keep).unwrap(), "kept");
    assert_eq!(row.home.unit("web").unwrap()["revision"], 1);
    row.home.finish();
}

#[test]
fn auto_scaling() {
    let row = Row::new();
    row.web("one", "scale = { min = 1, max = 4, rps = 50, down = { stabilize = \"1s\" } }");
    let unit = row.home.unit("web").unwrap();
    assert_eq!((&unit["desired"], &unit["autoscaled"], &unit["limits"]), (&json!(1), &json!(true), &json!([1, 4])));
    let load = Load::of(row.port, Shape { kept_rate: 75, kept: 8, new_rate: 75, ..Shape::default() });
    row.home.eventually("there are three at least", || {
        row.home.look("web").is_some_and(|unit| unit["ready"].as_u64() >= Some(3))
    });
    let why = row.home.json(&["why", "web"]);
    let scaled = why.as_array().unwrap().iter().find(|one| one["decision"] == "scale").unwrap();
    let because = scaled["because"].as_str().unwrap();
    assert!(because.contains("rps is ") && because.contains("50 each are wanted"), "{because}");
    load.stop_after(20);
    row.home.eventually("one is left", || row.home.look("web").is_some_and(|unit| unit["desired"] == 1));
    row.home.settled("web", 1);
    row.home.finish();
}

#[test]
fn rolling_update() {
    let row = Row::new();
    row.web("one", "replicas = 4");
    let from = row.home.seq();
    let update = "replicas = 4\nupdate = { surge = 2, monitor = \"300ms\" }";
    row.home.write("web.toml", format!("service = \"shop\"\n{}", site(row.port, "two", "", update)));
    row.home.ok(&["apply", "web.toml"]);
    let mut states = BTreeSet::new();
    row.home.eventually("the rollout has completed", || {
        let status = row.home.json(&["rollout", "status", "web"]);
        shape::check(&status, Is::Object(&[("state", Is::Word), ("step", Is::Text), ("reason", Is::Text)]));
        assert_eq!((&status["from"], &status["to"]), (&json!(1), &json!(2)), "{status}");
        let all = row.home.containers("web");
        let live = all.iter().filter(|one| one["state"] != "draining" && one["state"] != "stopped").count();
        assert!(live <= 6, "{live} at a time, although `surge` is 2");
        states.insert(status["state"].as_str().unwrap().to_owned());
        status["state"] == "completed"
    });
    assert_eq!(states, BTreeSet::from(["running".to_owned(), "completed".to_owned()]));
    Journal::read(&row.home).never_below("shop/prod/web", 4, from);
    let revisions = &row.home.json(&["inspect", "web"])["revisions"];
    let outcomes: Vec<_> = revisions.as_array().unwrap().iter().map(|one| &one["outcome"]).collect();
    assert_eq!(outcomes.last().unwrap(), &"completed", "{revisions}");
    row.home.ok(&["rollback", "--to", "1", "--wait", "web"]);
    row.answers("one");
    assert_eq!(row.home.json(&["rollout", "status", "web"])["state"], "rolled-back");
    row.home.finish();
}

#[test]
fn service_ports() {
    let (row, pids) = Row::with_web();
    let endpoints = row.home.json(&["endpoints"]);
    assert_eq!(endpoints[0]["service_port"], row.port);
    let backends = endpoints[0]["backends"].as_array().unwrap().iter();
    let backends: BTreeSet<_> = backends.map(|one| one["container"].as_str().unwrap()).collect();
    assert_eq!(backends, ids(&pids), "{endpoints}");
    let mut answered = BTreeSet::new();
    row.home.eventually("each of them answers", || {
        let body = http::get(row.port, "/").unwrap().body;
        answered.insert(body.split(' ').nth(1).unwrap().to_owned());
        answered == pids.keys().cloned().collect()
    });
    // Another port replaces nobody.
    let (other, port) = (row.home.port(), row.port);
    let moved = site(other, "one", "", &format!("replicas = 2\n{QUICK}"));
    row.home.write("web.toml", format!("service = \"shop\"\n{moved}"));
    row.home.ok(&["apply", "--wait", "web.toml"]);
    row.home.eventually("it answers at the new port only", || {
        http::get(other, "/").is_ok_and(|answer| answer.status == 200) && TcpListener::bind(("127.0.0.1", port)).is_ok()
    });
    assert_eq!(row.home.settled("web", 2), pids);
    // What one Unit has no other gets.
    row.home.write("other.toml", format!("service = \"other\"\n{}", site(other, "one", "", "")));
    let said = row.home.run(&["apply", "other.toml"]).fails(2);
    assert!(said.contains("shop/prod/web"), "{said}");
    row.home.finish();
}

/// A worker that writes down its revision in its volume.
fn writes(revision: u32, volumes: &str) -> String {
    format!(
        "service = \"shop\"\n[maps.prod.units.db]\n\
         command = [\"sh\", \"-c\", '''echo \"r$COCKTAIL_REVISION\" >> \"$COCKTAIL_VOLUME_DATA/log\"; exec sleep 1000''']\n\
         env = {{ VERSION = \"{revision}\" }}\n{QUICK}\n{volumes}\n"
    )
}

#[test]
fn volumes() {
    let row = Row::new();
    let home = &row.home;
    let exclusive = "volumes.data = { mount = \"data\", kind = \"exclusive\", size = \"1MiB\" }";
    home.write("db.toml", writes(1, exclusive));
    home.ok(&["apply", "--wait", "db.toml"]);
    home.settled("db", 1);
    home.write("db.toml", writes(2, exclusive));
    home.ok(&["apply", "--wait", "db.toml"]);
    let id = home.settled("db", 1).into_keys().next().unwrap();
    let read = |id: &str| home.ok(&["exec", id, "--", "sh", "-c", "cat \"$COCKTAIL_VOLUME_DATA/log\""]).stdout;
    home.eventually("revision 2 reads what revision 1 wrote", || read(&id) == "r1\nr2\n");
    let list = home.json(&["volumes"]);
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    for (key, value) in [
        ("unit", json!("db")),
        ("name", json!("data")),
        ("kind", json!("exclusive")),
        ("size_bytes", json!(1 << 20)),
        ("containers", json!([id])),
    ] {
        assert_eq!(list[0][key], value, "{key}: {list}");
    }
    home.eventually("its size is known", || home.json(&["volumes"])[0]["used_bytes"].as_u64() > Some(0));

    // All of one, one of each, and a folder of the host.
    home.write("host/given", "hello");
    let three = "replicas = 2\nvolumes.data = { mount = \"all\", kind = \"shared\" }\n\
                 volumes.own = { mount = \"own\", kind = \"ephemeral\" }\n\
                 volumes.host = { mount = \"bound\", kind = \"bind\", source = \"host\" }";
    home.write("db.toml", writes(3, three));
    home.ok(&["apply", "--wait", "db.toml"]);
    let pids = home.settled("db", 2);
    let script = "cat \"$COCKTAIL_VOLUME_HOST/given\"; echo mine > \"$COCKTAIL_VOLUME_OWN/it\"; wc -l < \"$COCKTAIL_VOLUME_DATA/log\"";
    for id in pids.keys() {
        home.eventually("it has all three", || home.ok(&["exec", id, "--", "sh", "-c", script]).stdout == "hello2\n");
    }
    let own = || -> Vec<Value> {
        let list = home.json(&["volumes"]);
        list.as_array().unwrap().iter().filter(|one| one["name"] == "own").cloned().collect()
    };
    assert_eq!(own().len(), 2);
    home.ok(&["scale", "--wait", "db", "1"]);
    home.eventually("what was one container's own went with it", || own().len() == 1);
    // A folder that nobody allowed.
    home.write("db.toml", writes(4, "volumes.host = { mount = \"bound\", kind = \"bind\", source = \"/etc\" }"));
    assert!(home.run(&["apply", "db.toml"]).fails(2).contains("/etc"));
    row.home.finish();
}

#[test]
fn monitoring() {
    let home = Home::new();
    let (port, metrics) = (home.port(), home.port());
    let settings = format!("{}usage = \"100ms\"\nmetrics = \"127.0.0.1:{metrics}\"\n", home.settings());
    let manager = home.serve_with(&settings);
    let row = Row { home, manager, port };
    row.web("one", "replicas = 2");
    let load = Load::start(port);
    row.home.eventually("the load is counted", || {
        let unit = row.home.unit("web").unwrap();
        let usage = row.home.json(&["top"]);
        let sample = &usage["units"]["shop/prod/web"]["sample"];
        unit["usage"]["cpu_millis"].as_u64() > Some(0)
            && unit["usage"]["memory_bytes"].as_u64() > Some(100_000)
            && sample["traffic"]["rps"].as_f64() > Some(50.0)
            && sample["traffic"]["p50_ms"].as_f64() > Some(0.0)
    });
    load.stop_after(300);
    let answered = || {
        let page = http::get(metrics, "/metrics").unwrap();
        assert_eq!(page.status, 200);
        let line = |start: &str| {
            let line =
                page.body.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{}", page.body));
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        assert_eq!((line("cocktail_unit_desired{"), line("cocktail_unit_ready{")), (2.0, 2.0));
        assert!(line("cocktail_container_memory_bytes{") > 100_000.0);
        line("cocktail_unit_requests_total{")
    };
    row.home.eventually("all of them are counted", || answered() >= 300.0);
    // The live view, as somebody sees it who sits before a terminal.
    let mut terminal = Terminal::open(30, 140);
    let mut command = row.home.command(&["top"]);
    command.env("TERM", "xterm");
    let modes = terminal.modes();
    let mut top = terminal.spawn(command);
    terminal.shows("web");
    terminal.enter("q");
    assert!(program::end_of(&mut top, PATIENCE).unwrap().success());
    assert_eq!(terminal.modes(), modes, "the terminal was not given back as it was");
    // An hour of points: one of ten seconds, at least, has the load in it.
    for object in ["web".to_owned(), row.home.pids("web").keys().next().unwrap().clone()] {
        row.home.eventually(&format!("{object} has a history"), || {
            let history = row.home.ask(&format!("/v1/history/{object}")).unwrap();
            let points = history["points"].as_array().unwrap();
            points.iter().any(|point| {
                point["rps"].as_f64() > Some(0.0)
                    && point["memory_bytes"].as_u64() > Some(0)
                    && point["at"].as_str().is_some_and(|at| at.ends_with('Z'))
            })
        });
    }
    row.home.finish();
}

#[test]
fn inspection() {
    let (row, pids) = Row::with_web();
    let home = &row.home;
    let unit = home.json(&["inspect", "web"]);
    let deployment = Is::Object(&[
        ("unit", Is::Object(&[("desired", Is::Count), ("ready", Is::Count), ("revision", Is::Count)])),
        ("spec", Is::Object(&[("template", Is::Object(&[("command", Is::Array(&Is::Word))]))])),
        ("revisions", Is::Array(&Is::Object(&[("revision", Is::Count), ("outcome", Is::Word), ("actor", Is::Word)]))),
        ("containers", Is::Array(&Is::Object(&[("id", Is::Word), ("state", Is::Word)]))),
        ("ports", Is::Array(&Is::Object(&[("service_port", Is::Count)]))),
        ("volumes", Is::Array(&Is::Anything)),
    ]);
    shape::check(&unit, deployment);
    assert_eq!(unit["spec"]["template"]["env"]["VERSION"], "one");
    assert_eq!(unit["containers"].as_array().unwrap().len(), 2);
    for (object, name) in [("shop/prod", "shop/prod"), ("shop", "shop")] {
        let group = home.json(&["inspect", object]);
        assert_eq!(group["object"], name, "{group}");
        for unit in group["units"].as_array().unwrap() {
            shape::check(unit, deployment);
        }
    }
    let (id, pid) = pids.first_key_value().unwrap();
    let container = home.json(&["inspect", id]);
    assert_eq!(
        (&container["container"]["pid"], &container["template"]["env"]["VERSION"]),
        (&json!(pid), &json!("one"))
    );
    let server = home.json(&["servers"])[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(home.json(&["inspect", &server])["containers"].as_array().unwrap().len(), 2);
    // The last events are one command away.
    let events = home.run(&["-o", "json", "events", "--tail", "3", id]).json_lines();
    assert!(!events.is_empty() && events.iter().all(|event| event["object"] == *id), "{events:?}");
    row.home.finish();
}

#[test]
fn logs() {
    let row = Row::new();
    let home = &row.home;
    let script = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo \"$COCKTAIL_CONTAINER says $i\"; sleep 0.02; done; \
                  echo '{\"level\":\"warn\",\"message\":\"the end\",\"code\":7}'; exec sleep 1000";
    let unit = format!("[maps.prod.units.talk]\ncommand = [\"sh\", \"-c\", '''{script}''']\nreplicas = 3\n");
    home.write("talk.toml", format!("service = \"shop\"\n{unit}"));
    home.ok(&["apply", "--wait", "talk.toml"]);
    let ids = home.settled("talk", 3);
    let lines = |more: &[&str]| home.run(&[&["-o", "json", "logs"], more, &["talk"]].concat()).json_lines();
    home.eventually("all have said all", || lines(&["--grep", "the end"]).len() == 3);
    let all = lines(&[]);
    let times: Vec<_> =
        all.iter().map(|line| line["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap()).collect();
    assert!(times.is_sorted(), "not merged by time");
    let from: Vec<_> = all.iter().map(|line| line["container"].as_str().unwrap()).collect();
    assert_eq!(from.iter().copied().collect::<BTreeSet<_>>(), ids.keys().map(String::as_str).collect());
    assert!(from.windows(2).filter(|pair| pair[0] != pair[1]).count() > 5, "one after the other, not mixed: {from:?}");
    // A piece of it: by text, by time, by both, and the end.
    let grepped = lines(&["--grep", "says 7"]);
    assert_eq!(grepped.len(), 3, "{grepped:?}");
    let middle = all[all.len() / 2]["at"].as_str().unwrap();
    let since = lines(&["--since", middle]);
    assert!(since.len() < all.len() && since.len() >= all.len() / 2, "{} of {}", since.len(), all.len());
    assert!(
        since
            .iter()
            .all(|line| line["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap() >= times[all.len() / 2])
    );
    assert_eq!(
        lines(&["--since", middle, "--grep", "says 1"])
            .iter()
            .filter(|line| line["text"].as_str().unwrap().ends_with(" says 1"))
            .count(),
        0
    );
    assert_eq!(lines(&["--grep", "nobody says this"]), Vec::<Value>::new());
    // Lines that are JSON are told as such.
    for line in lines(&["--grep", "the end"]) {
        assert_eq!((&line["fields"]["code"], &line["fields"]["level"]), (&json!(7), &json!("warn")), "{line}");
    }
    row.home.finish();
}

#[test]
fn shell() {
    let (row, pids) = Row::with_web();
    let id = pids.keys().next().unwrap();
    let mut terminal = Terminal::open(40, 120);
    let mut child = terminal.spawn(row.home.command(&["exec", "-it", id, "--", "sh"]));
    terminal.enter("test -t 1 && echo $COCKTAIL_CONTAINER 'has'' a terminal'\r");
    terminal.shows(&format!("{id} has a terminal"));
    terminal.enter("exit 7\r");
    assert_eq!(program::end_of(&mut child, PATIENCE).unwrap().code(), Some(7));
    // Several at a time, and the worker does not notice.
    let shell = |id: &String| row.home.command(&["exec", id, "--", "sh", "-c", "echo $VERSION"]);
    let run = |mut command| thread::spawn(move || program::run(&mut command, b"").ok().stdout);
    let shells: Vec<_> = pids.keys().map(shell).map(run).collect();
    let said: Vec<_> = shells.into_iter().map(|shell| shell.join().unwrap()).collect();
    assert_eq!(said, ["one\n", "one\n"]);
    assert_eq!(row.home.settled("web", 2), pids);
    row.home.finish();
}
