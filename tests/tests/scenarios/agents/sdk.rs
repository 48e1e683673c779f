//! Workers on the SDK on servers that are not this one: their agent is the one that keeps their sessions, so what they are
//! told and what they ask goes over it.

use std::collections::{BTreeMap, BTreeSet};

use cocktail_tests::{Net, http};

use super::rack::Rack;

const WORKER: &str = env!("CARGO_BIN_EXE_sdk-worker");

/// A container's process and which start of it that is.
type Starts = BTreeMap<String, (u64, u64)>;

fn unit(name: &str, microservice: &str, config: &str, more: &str) -> String {
    format!(
        "[maps.prod.units.{name}]\nworker = \"{WORKER}\"\nmicroservices = [\"{microservice}\"]\n\
         config.{microservice} = {{ {config} }}\n{more}\n"
    )
}

/// A Unit's containers in one state.
fn starts(rack: &Rack, unit: &str, state: &str) -> Starts {
    let all = rack.home.look_at_containers(unit).unwrap_or_default();
    let of = |it: &serde_json::Value| {
        Some((it["id"].as_str()?.to_owned(), (it["pid"].as_u64()?, it["generation"].as_u64()?)))
    };
    all.iter().filter(|it| it["state"] == state).filter_map(of).collect()
}

/// Waits until a Unit has so many that serve and so many that wait, and no others.
fn rest(rack: &Rack, unit: &str, serving: usize, waiting: usize) -> (Starts, Starts) {
    rack.home.eventually(&format!("{serving} of {unit} serve and {waiting} wait"), || {
        let all = rack.home.look_at_containers(unit).unwrap_or_default().len();
        let (ready, waits) = (starts(rack, unit, "ready").len(), starts(rack, unit, "waiting").len());
        (ready, waits, all) == (serving, waiting, serving + waiting)
    });
    (starts(rack, unit, "ready"), starts(rack, unit, "waiting"))
}

/// Who answers at a Unit's port on the Manager's host, in so many requests.
fn answering(rack: &Rack, port: u16, requests: usize) -> BTreeSet<String> {
    let ask = || (0..requests).map(|_| http::get(port, "/").unwrap());
    let answers: Vec<_> = rack.net.host(Net::MANAGER).within(|| ask().collect());
    let who = |answer: &http::Answer| {
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body.split_whitespace().nth(1).unwrap().to_owned()
    };
    answers.iter().map(who).collect()
}

fn ids(starts: &Starts) -> BTreeSet<String> {
    starts.keys().cloned().collect()
}

#[test]
fn what_waits_on_a_server_is_taken_and_not_started_and_others_wait_in_its_place() {
    xtask::skip_if!(NoNetworkNamespaces);
    let rack = Rack::new(1);
    let port = rack.home.port();
    let more = format!("replicas = 1\nwarm = 2\nports.http = {{ service = {port} }}");
    rack.home.write("m.toml", format!("service = \"shop\"\n{}", unit("orders", "orders", "greeting = \"hi\"", &more)));
    rack.home.ok(&["apply", "--wait", "m.toml"]);
    let (serving, waiting) = rest(&rack, "orders", 1, 2);
    assert_eq!(rack.workers(1).len(), 3, "they are all there");
    rack.home.ok(&["scale", "orders", "3"]);
    let (now, fresh) = rest(&rack, "orders", 3, 2);
    let expected: Starts = serving.into_iter().chain(waiting.clone()).collect();
    assert_eq!(now, expected, "those that waited serve, as they were started");
    assert!(ids(&fresh).is_disjoint(&ids(&expected)), "others wait in their place");
    for taken in waiting.keys() {
        let why = rack.home.why(taken);
        assert!(why.iter().any(|line| line.contains("it was waiting")), "{why:?}");
    }
    assert_eq!(answering(&rack, port, 30), ids(&expected), "all of them answer");
    rack.end();
}

#[test]
fn a_worker_on_a_server_follows_who_serves_on_others() {
    xtask::skip_if!(NoNetworkNamespaces);
    let rack = Rack::new(3);
    let port = rack.home.port();
    let front = unit("front", "front", "unit = \"orders\"", &format!("ports.http = {{ service = {port} }}"));
    let orders = unit("orders", "orders", "greeting = \"hi\"", "replicas = 2\nports.http = {}");
    rack.home.write("m.toml", format!("service = \"shop\"\n{front}{orders}"));
    rack.home.ok(&["apply", "--wait", "m.toml"]);
    let settled = |count| ids(&rest(&rack, "orders", count, 0).0);
    let first = settled(2);
    rack.home.eventually("both are called", || answering(&rack, port, 6) == first);
    let before = starts(&rack, "front", "ready");
    rack.home.ok(&["extend", "orders", "2"]);
    let more = settled(4);
    let servers: BTreeSet<String> =
        rack.home.containers("orders").iter().map(|it| it["server"].as_str().unwrap().to_owned()).collect();
    assert!(servers.len() > 1, "they are spread: {servers:?}");
    rack.home.eventually("it has learned of the two", || answering(&rack, port, 12) == more);
    rack.home.ok(&["reduce", "orders", "3"]);
    let last = settled(1);
    rack.home.eventually("it has learned who went", || answering(&rack, port, 6) == last);
    assert_eq!(starts(&rack, "front", "ready"), before, "it was told, and not started anew");
    rack.end();
}
