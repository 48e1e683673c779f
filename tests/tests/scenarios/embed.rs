//! The embedding example, for real: a service that is restarted again and again, and workers that never notice.

use std::collections::BTreeMap;
use std::process::Command;

use cocktail_tests::{Client, Home, Manager, http, program};
use rustix::process::Signal;
use serde_json::Value;

/// The example in a Home.
struct Embed {
    home: Home,
    port: u16,
    workers: u16,
}

impl Embed {
    fn new() -> Self {
        let home = Home::new();
        let (port, workers) = (home.port(), home.port());
        Self { home, port, workers }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program::example("cocktail-example-embed", "embed"));
        command.args(args);
        self.home.settle(&mut command);
        command.env("EMBED_PORT", self.port.to_string()).env("EMBED_WORKERS_PORT", self.workers.to_string());
        command
    }

    /// Starts the service and waits until it answers with `count` ready workers.
    fn start(&self, count: usize) -> (Manager, BTreeMap<String, u64>) {
        let mut service = self.home.spawn_command(self.command(&[]));
        let pids = self.home.until("the service has its workers", || {
            service.must_run();
            Some(self.workers()).filter(|pids| pids.len() == count)
        });
        (service, pids)
    }

    /// Process ids of the ready workers, as the service tells.
    fn workers(&self) -> BTreeMap<String, u64> {
        let Ok(answer) = http::get(self.port, "/workers") else { return BTreeMap::new() };
        let containers: Vec<Value> = serde_json::from_str(&answer.body).unwrap();
        let ready = containers.iter().filter(|one| one["ready"] == true);
        ready.map(|one| (one["id"].as_str().unwrap().to_owned(), one["pid"].as_u64().unwrap())).collect()
    }
}

#[test]
fn workers_survive_their_service_while_clients_keep_asking() {
    let embed = Embed::new();
    let (mut service, pids) = embed.start(2);
    let client = Client::with_new_connections(embed.workers);
    for round in 0..3 {
        let asked = client.answered();
        embed.home.eventually("the client goes on", || client.answered() > asked + 20);
        if round == 1 {
            service.kill();
        } else {
            service.end(Signal::TERM).ok();
        }
        let asked = client.answered();
        embed.home.eventually("the client goes on without the service", || client.answered() > asked + 20);
        let again;
        (service, again) = embed.start(2);
        assert_eq!(again, pids, "workers were not kept over restart {round}");
    }
    let report = client.stop_after(60);
    assert_eq!(report.bodies.len(), 2, "both workers answer: {:?}", report.bodies);

    // It scales them, and what it was told holds over a restart although its manifest says 2.
    assert_eq!(http::put(embed.port, "/workers/4").unwrap().status, 200);
    embed.home.eventually("there are four workers", || embed.workers().len() == 4);
    assert_eq!(http::put(embed.port, "/workers/10001").unwrap().status, 409);
    service.end(Signal::TERM).ok();
    let (service, four) = embed.start(4);
    assert!(pids.iter().all(|(id, pid)| four.get(id) == Some(pid)), "{pids:?} became {four:?}");
    service.end(Signal::INT).ok();

    program::run(&mut embed.command(&["down"]), b"").ok();
    assert_eq!(embed.home.workers(), []);
    embed.home.finish();
}

#[test]
fn a_service_that_runs_already_is_not_started_twice() {
    let embed = Embed::new();
    let (service, pids) = embed.start(2);
    let second = program::run(&mut embed.command(&[]), b"");
    assert_ne!(second.code(), 0, "{second}");
    assert!(second.stderr.contains(&service.pid().to_string()), "it does not say who has the data dir: {second}");
    assert_eq!(embed.workers(), pids);
    service.end(Signal::TERM).ok();
    program::run(&mut embed.command(&["down"]), b"").ok();
    embed.home.finish();
}
