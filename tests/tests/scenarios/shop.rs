//! The main job: one command runs the shop, its JSON is as promised, and Ctrl-C leaves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cocktail_tests::shape::{self, Is};
use cocktail_tests::{Home, http, program};
use rustix::process::Signal;
use serde_json::Value;

/// A copy of the shop in a Home, with ports of its own.
struct Shop {
    home: Home,
    web: u16,
    ledger: u16,
}

impl Shop {
    fn new() -> Self {
        let home = Home::new();
        let (web, ledger) = (home.port(), home.port());
        copy(&program::workspace().join("examples/shop"), &home.root());
        let file = home.root().join("cocktail.toml");
        let text = fs::read_to_string(&file).unwrap();
        for port in ["8080", "8090"] {
            assert!(text.contains(&format!("service = {port}")), "the shop's ports have changed");
        }
        let text = text.replace("8080", &web.to_string()).replace("8090", &ledger.to_string());
        let text = text.replace("\n# Three web", &format!("\n{}\n# Three web", home.settings()));
        fs::write(&file, text).unwrap();
        Self { home, web, ledger }
    }

    /// The program as one types it in the shop's folder: nothing says where the data dir is.
    fn typed(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(args);
        command.env_remove("COCKTAIL_DATA_DIR");
        command
    }
}

/// Copies what a checkout has; not what a run left in it.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, name) = (entry.file_type().unwrap(), entry.file_name());
        if kind.is_dir() && name != ".cocktail" {
            fs::create_dir(to.join(&name)).unwrap();
            copy(&entry.path(), &to.join(&name));
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(&name)).unwrap();
        }
    }
}

/// All that is in a folder, links and sockets included, but for what is below `.cocktail`.
fn content(folder: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name == ".cocktail") {
            continue;
        }
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            all.extend(content(&path));
        }
        all.insert(path);
    }
    all
}

/// Sockets and pipes in a folder.
fn endpoints_in(folder: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::FileTypeExt;
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            found.extend(endpoints_in(&path));
        } else if kind.is_socket() || kind.is_fifo() {
            found.push(path);
        }
    }
    found
}

#[test]
fn one_command_runs_the_shop_and_ctrl_c_leaves_nothing() {
    xtask::skip_if!(NoPython3);
    let shop = Shop::new();
    let home = &shop.home;
    let before = content(&home.root());
    let mut up = home.spawn_command(shop.typed(&["up", "cocktail.toml"]));
    home.eventually("all Units are ready", || {
        up.must_run();
        up.said().contains("all Units are ready")
    });

    // The summary is data; the way there is for people.
    for line in [format!("http://127.0.0.1:{} → 3 ready", shop.web), format!(":{} → 1 ready", shop.ledger)] {
        assert!(up.data().contains(&line), "{}", up.data());
    }
    assert!(up.data().lines().any(|line| line == "worker  2 ready"), "{}", up.data());
    assert!(!up.said().contains('\u{1b}') && !up.data().contains('\u{1b}'), "colour where there is no terminal");

    let page = http::get(shop.web, "/").unwrap();
    assert_eq!(page.status, 200);
    assert_eq!(page.body, fs::read_to_string(home.root().join("site/index.html")).unwrap());
    assert_eq!(http::get(shop.ledger, "/").unwrap().status, 200);

    // A second terminal in the same folder, and one in a folder below.
    let ps = |folder: &str| {
        let mut ps = shop.typed(&["-o", "json", "ps"]);
        ps.current_dir(home.root().join(folder));
        program::run(&mut ps, b"").json()
    };
    assert_eq!(ps(".").as_array().unwrap().len(), 6);
    assert_eq!(ps("site").as_array().unwrap().len(), 6);
    for container in ps(".").as_array().unwrap() {
        assert_eq!((&container["state"], &container["ready"]), (&"ready".into(), &true.into()), "{container}");
        for port in container["ports"].as_array().unwrap() {
            assert!(home.leases(u16::try_from(port["port"].as_u64().unwrap()).unwrap()), "{container}");
        }
    }
    let table = program::run(&mut shop.typed(&["ps"]), b"").ok();
    assert_eq!(table.stdout.lines().count(), 7, "{table}");
    assert!(table.stderr.is_empty(), "{table}");

    let ended = up.end(Signal::INT).ok();
    assert!(ended.stderr.ends_with("stopped\n"), "{ended}");
    // The workers and the ports went before the program did; its keeper is at its last breath at most.
    assert_eq!(home.workers(), []);
    assert_eq!(home.taken_ports(), Vec::<u16>::new());
    home.nothing_is_left();
    assert_eq!(content(&home.root()), before, "something new is in the folder of the manifest");
    assert_eq!(endpoints_in(&home.data_dir()), Vec::<PathBuf>::new());
    for file in ["cocktail.sock", "manager.pid", "manager.background"] {
        assert!(!home.data_dir().join(file).exists(), "{file} is left");
    }
    assert_eq!(fs::read_dir(home.base().join("tmp")).unwrap().count(), 0, "a temporary file is left");
    shop.home.finish();
}

#[test]
fn up_in_the_background_holds_nothing_open_and_down_ends_it() {
    xtask::skip_if!(NoPython3);
    let shop = Shop::new();
    let home = &shop.home;
    // As in `x=$(cocktail up -d FILE)`, with a descriptor more that nobody knows of: the output is read to its end,
    // which comes only when the last process that has it open closes it.
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" up -d cocktail.toml 9>&1"]).arg(program::cocktail());
    home.settle(&mut shell);
    let up = program::run(&mut shell, b"").ok();
    assert!(up.stdout.contains("worker  2 ready"), "{up}");
    assert_eq!(http::get(shop.web, "/").unwrap().status, 200);

    let pid = home.manager_pid().unwrap();
    assert_eq!(fs::read_to_string(home.data_dir().join("manager.pid")).unwrap().trim(), pid.to_string());
    // Again: it is found, and nothing changes.
    let pids: Vec<_> = home.ps().iter().map(|one| one["pid"].clone()).collect();
    let again = home.ok(&["up", "-d", "cocktail.toml"]);
    assert!(again.stderr.contains("nothing changed"), "{again}");
    assert_eq!(home.ps().iter().map(|one| one["pid"].clone()).collect::<Vec<_>>(), pids);

    home.ok(&["down"]);
    home.nothing_is_left();
    assert_eq!(home.run(&["ps"]).fails(6).lines().count(), 1);
    // What the ledger wrote stays, and the next one goes on with it.
    home.ok(&["up", "-d", "cocktail.toml"]);
    let ledger: Value = serde_json::from_str(&http::get(shop.ledger, "/").unwrap().body).unwrap();
    assert_eq!(ledger["entries"], 2, "one line for each opening: {ledger}");
    shop.home.finish();
}

const USAGE: Is = Is::Object(&[("cpu_millis", Is::Count), ("memory_bytes", Is::Count)]);

const CONTAINERS: Is = Is::Array(&Is::Object(&[
    ("id", Is::Word),
    ("service", Is::Word),
    ("map", Is::Word),
    ("unit", Is::Word),
    ("revision", Is::Count),
    ("generation", Is::Count),
    ("server", Is::Word),
    ("provider", Is::Word),
    (
        "state",
        Is::OneOf(&[
            "claimed",
            "preparing",
            "prepared",
            "starting",
            "waiting",
            "loading",
            "ready",
            "draining",
            "backoff",
            "stopped",
            "failed",
            "lost",
            "fenced",
        ]),
    ),
    ("ready", Is::Flag),
    ("reason", Is::Text),
    ("since", Is::Time),
    ("restarts", Is::Count),
    ("pid", Is::Count),
    ("ports", Is::Array(&Is::Object(&[("name", Is::Word), ("host", Is::Word), ("port", Is::Count)]))),
    ("usage", USAGE),
]));

const ROLLOUTS: &[&str] = &["running", "paused", "completed", "superseded", "rolling-back", "rolled-back"];

const UNITS: Is = Is::Array(&Is::Object(&[
    ("service", Is::Word),
    ("map", Is::Word),
    ("unit", Is::Word),
    ("desired", Is::Count),
    ("ready", Is::Count),
    ("updated", Is::Count),
    ("revision", Is::Count),
    ("rollout", Is::Object(&[("state", Is::OneOf(ROLLOUTS)), ("reason", Is::Text)])),
    ("usage", USAGE),
]));

const SERVERS: Is = Is::Array(&Is::Object(&[
    ("id", Is::Word),
    ("provider", Is::Word),
    ("provider_id", Is::Word),
    ("state", Is::Word),
    ("reason", Is::Text),
    ("since", Is::Time),
    ("zone", Is::Either(&Is::Null, &Is::Word)),
    ("offering", Is::Word),
    ("capacity", USAGE),
    ("allocated", USAGE),
    ("containers", Is::Count),
    ("incarnation", Is::Word),
]));

const ENDPOINTS: Is = Is::Array(&Is::Object(&[
    ("service", Is::Word),
    ("map", Is::Word),
    ("unit", Is::Word),
    ("port_name", Is::Word),
    ("service_port", Is::Either(&Is::Null, &Is::Count)),
    ("backends", Is::Array(&Is::Object(&[("container", Is::Word), ("host", Is::Word), ("port", Is::Count)]))),
]));

const OPERATIONS: Is = Is::Array(&Is::Object(&[
    ("id", Is::Count),
    ("kind", Is::Word),
    ("claims", Is::Array(&Is::Word)),
    ("attempt", Is::Count),
    ("provider_ids", Is::Array(&Is::Word)),
    ("state", Is::OneOf(&["intended", "issued", "succeeded", "failed", "outcome-unknown", "resolved"])),
    ("error", Is::Either(&Is::Null, &Is::Word)),
    ("since", Is::Time),
    ("deadline", Is::Time),
]));

const EVENT: Is = Is::Object(&[
    ("seq", Is::Count),
    ("at", Is::Time),
    ("kind", Is::Word),
    ("object", Is::Text),
    ("reason", Is::Text),
    ("detail", Is::Anything),
]);

const DECISIONS: Is = Is::Array(&Is::Object(&[
    ("at", Is::Time),
    ("decision", Is::Word),
    ("object", Is::Word),
    ("because", Is::Word),
    ("considered", Is::Array(&Is::Object(&[("option", Is::Word), ("rejected_because", Is::Word)]))),
]));

const PLAN: Is = Is::Object(&[
    ("actions", Is::Array(&Is::Object(&[("action", Is::Word), ("object", Is::Word), ("because", Is::Word)]))),
    ("summary", Is::Word),
]);

/// The list is as promised and has `count` entries.
#[track_caller]
fn listed(home: &Home, list: &str, is: Is, count: usize) -> Vec<Value> {
    let value = home.json(&[list]);
    shape::check(&value, is);
    let items = value.as_array().unwrap().clone();
    assert_eq!(items.len(), count, "{list}: {value:#}");
    items
}

#[test]
fn json_has_the_promised_keys_and_types() {
    xtask::skip_if!(NoPython3);
    let shop = Shop::new();
    let home = &shop.home;
    let up = home.run(&["-o", "json", "up", "-d", "cocktail.toml"]).json();
    shape::check(&up["units"], UNITS);
    shape::check(&up["endpoints"], ENDPOINTS);

    let containers = listed(home, "ps", CONTAINERS, 6);
    let by_unit = containers.iter().fold(BTreeMap::new(), |mut counts, one| {
        *counts.entry(one["unit"].as_str().unwrap()).or_insert(0) += 1;
        counts
    });
    assert_eq!(by_unit, BTreeMap::from([("ledger", 1), ("web", 3), ("worker", 2)]));
    for unit in listed(home, "units", UNITS, 3) {
        assert_eq!(unit["ready"], unit["desired"], "{unit}");
        assert_eq!(unit["rollout"]["state"], "completed", "{unit}");
    }
    let servers = listed(home, "servers", SERVERS, 1);
    assert_eq!((&servers[0]["containers"], &servers[0]["state"]), (&6.into(), &"ready".into()));
    assert_eq!(servers[0]["allocated"]["memory_bytes"], 6 * 64 * 1024 * 1024);
    let endpoints = listed(home, "endpoints", ENDPOINTS, 2);
    let backends = |port: u16| {
        let of = endpoints.iter().find(|one| one["service_port"] == port).unwrap();
        of["backends"].as_array().unwrap().len()
    };
    assert_eq!((backends(shop.web), backends(shop.ledger)), (3, 1));
    for operation in listed(home, "ops", OPERATIONS, 6) {
        assert_eq!((&operation["kind"], &operation["state"]), (&"start".into(), &"succeeded".into()), "{operation}");
    }

    let events = home.run(&["-o", "json", "events"]).json_lines();
    assert!(events.len() >= 6, "{events:#?}");
    for event in &events {
        shape::check(event, EVENT);
    }
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(seqs.is_sorted(), "{seqs:?}");
    let id = containers[0]["id"].as_str().unwrap();
    assert!(events.iter().any(|event| event["object"] == id), "no event is about {id}");

    for object in ["web", "shop/prod/ledger", id] {
        let decisions = home.json(&["why", object]);
        shape::check(&decisions, DECISIONS);
        assert!(!decisions.as_array().unwrap().is_empty(), "nothing is known about {object}");
        assert!(home.json(&["inspect", object]).is_object());
    }

    let nothing = home.json(&["plan", "cocktail.toml"]);
    shape::check(&nothing, PLAN);
    assert_eq!(nothing["actions"], Value::Array(Vec::new()));
    let file = home.root().join("cocktail.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("replicas = 3", "replicas = 4").replace("replicas = 2", "replicas = 1")).unwrap();
    let plan = home.json(&["plan", "cocktail.toml"]);
    shape::check(&plan, PLAN);
    let actions = plan["actions"].as_array().unwrap().iter();
    let actions: Vec<_> =
        actions.map(|one| (one["action"].as_str().unwrap(), one["object"].as_str().unwrap())).collect();
    assert_eq!(actions, [("extend", "shop/prod/web"), ("reduce", "shop/prod/worker")]);
    assert_eq!(home.ps().len(), 6, "a plan changed something");
    shop.home.finish();
}

#[test]
fn what_a_container_uses_is_read_and_summed_up() {
    let home = Home::new();
    let file = home.manifest("m.toml", &crate::web(home.port(), 2, "hi"));
    let text = fs::read_to_string(&file).unwrap().replace("drain", "usage = \"100ms\"\ndrain");
    fs::write(&file, text).unwrap();
    home.ok(&["up", "-d", "m.toml"]);
    home.eventually("memory of both containers is known", || {
        let used = |value: &Value| value["usage"]["memory_bytes"].as_u64().unwrap();
        let (all, unit) = (home.ps(), home.unit("web").unwrap());
        all.iter().all(|one| used(one) > 0) && used(&unit) > all.iter().map(used).max().unwrap()
    });
    home.finish();
}
