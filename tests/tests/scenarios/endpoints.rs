//! Who follows the endpoints: a worker that calls another Unit by itself, and programs that are told.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;

use cocktail_tests::{Home, Load, http};
use serde_json::Value;

const WORKER: &str = env!("CARGO_BIN_EXE_sdk-worker");

fn manifest(front: u16, replicas: u32, greeting: &str) -> String {
    format!(
        "service = \"shop\"\n[maps.prod.units.front]\nworker = \"{WORKER}\"\nmicroservices = [\"front\"]\n\
         config.front = {{ unit = \"orders\" }}\nports.http = {{ service = {front} }}\n\
         [maps.prod.units.orders]\nworker = \"{WORKER}\"\nmicroservices = [\"orders\"]\n\
         config.orders = {{ greeting = \"{greeting}\" }}\nreplicas = {replicas}\nports.http = {{}}\n\
         update = {{ monitor = \"300ms\" }}\n"
    )
}

/// How often each container behind a port answers.
fn shares(port: u16, requests: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..requests {
        let answer = http::get(port, "/").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let container = answer.body.split_whitespace().nth(1).unwrap().to_owned();
        *shares.entry(container).or_insert(0) += 1;
    }
    shares
}

#[test]
fn a_worker_that_calls_another_unit_meets_nobody_who_is_leaving_and_needs_no_manager() {
    let home = Home::new();
    let manager = home.serve();
    let port = home.port();
    home.write("m.toml", manifest(port, 3, "hi"));
    home.ok(&["apply", "--wait", "m.toml"]);
    home.eventually("all three are called", || shares(port, 3).len() == 3);
    assert!(shares(port, 90).values().all(|count| (25..=35).contains(count)), "each gets its part");

    let load = Load::start(port);
    home.ok(&["scale", "orders", "1"]);
    home.settled("orders", 1);
    home.ok(&["scale", "orders", "4"]);
    home.settled("orders", 4);
    home.write("next.toml", manifest(port, 4, "hello"));
    home.ok(&["apply", "--wait", "next.toml"]);
    home.eventually("the new version answers", || http::get(port, "/").unwrap().body.starts_with("hello "));
    // Nobody tells of it before the connection is refused.
    let killed = *home.settled("orders", 4).values().next().unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(killed).unwrap()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    home.eventually("it is back", || !home.settled("orders", 4).values().any(|pid| *pid == killed));
    let before = load.answered();
    manager.kill();
    home.eventually("the load goes on without a manager", || load.answered() > before + 200);
    let _manager = home.serve();
    home.settled("orders", 4);
    home.ok(&["scale", "orders", "2"]);
    home.settled("orders", 2);
    home.eventually("the next manager is followed", || shares(port, 20).len() == 2);
    load.stop_after(200);
    home.finish();
}

/// What a program reads that follows the endpoints as server-sent events.
fn follow(home: &Home, unit: &str) -> mpsc::Receiver<Value> {
    let mut stream = UnixStream::connect(home.data_dir().join("cocktail.sock")).unwrap();
    let request =
        format!("GET /v1/watch/endpoints?unit={unit} HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let (tables, told) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let Some(data) = line.strip_prefix("data: ") else { continue };
            if tables.send(serde_json::from_str(data).unwrap()).is_err() {
                return;
            }
        }
    });
    told
}

#[test]
fn a_program_is_told_of_each_change() {
    let home = Home::new();
    let manager = home.serve();
    let told = follow(&home, "orders");
    let next = || told.recv_timeout(cocktail_tests::home::PATIENCE).unwrap();
    assert_eq!(next(), serde_json::json!([]), "there is no such unit yet");
    home.write("m.toml", manifest(home.port(), 2, "hi"));
    home.ok(&["apply", "--wait", "m.toml"]);
    let until = |count: usize| loop {
        let table = next();
        let backends = table[0]["backends"].as_array().unwrap().clone();
        assert_eq!(table.as_array().unwrap().len(), 1, "only that of the unit: {table}");
        if backends.len() == count {
            break backends;
        }
    };
    let mut containers: Vec<String> =
        until(2).iter().map(|backend| backend["container"].as_str().unwrap().to_owned()).collect();
    containers.sort();
    assert_eq!(containers, home.settled("orders", 2).into_keys().collect::<Vec<_>>());
    home.ok(&["scale", "orders", "0"]);
    until(0);
    let mut followed = home.command(&["-o", "json", "endpoints", "-f", "orders"]);
    let mut followed = followed.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(followed.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"backends\":[]"));
    home.ok(&["scale", "orders", "1"]);
    until(1);
    assert!(lines.next().unwrap().unwrap().contains("\"container\":\"orders-"));
    manager.kill();
    let end = told.recv_timeout(cocktail_tests::home::PATIENCE);
    assert_eq!(end, Err(mpsc::RecvTimeoutError::Disconnected), "the stream ends with the manager");
    followed.wait().unwrap();
    let _manager = home.serve();
    home.finish();
}
