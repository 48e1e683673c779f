//! The guard: a run of this program that ends what a store has in the engine.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use cocktail_core::contract::{Exit, Launch, RuntimeEvent};
use cocktail_core::id::StoreId;
use cocktail_provider_docker::guard;

use crate::machine::{self, Machine};

machine::trials![
    the_guard_ends_what_is_not_to_run_on_and_touches_nothing_else,
    a_guard_without_an_engine_has_not_done_its_work,
    what_an_engine_that_hangs_does_not_end_is_killed_without_it,
];

/// Runs the guard as a keeper does; whether it has done its work.
fn guarded(url: &str, store: &StoreId) -> bool {
    let mut command = Command::new("/proc/self/exe");
    command.args(guard::arguments(url, store)).arg("1000").env_clear().status().unwrap().success()
}

async fn the_guard_ends_what_is_not_to_run_on_and_touches_nothing_else(machine: &mut Machine) {
    let polite = machine.launch("polite-1", "trap 'exit 5' TERM; while :; do sleep 0.1; done");
    let deaf = machine.launch("deaf-1", "trap '' TERM; while :; do sleep 0.1; done");
    let kept = Launch { outlives_lease: true, ..machine.launch("kept-1", "sleep 600") };
    let paused = machine.launch("paused-1", "trap 'exit 6' TERM; while :; do sleep 0.1; done");
    let mut ids = Vec::new();
    for launch in [&polite, &deaf, &kept, &paused] {
        ids.push(machine.run(launch).await.docker_id.unwrap());
    }
    let prepared = machine.launch("prepared-1", "sleep 600");
    machine.runtime().prepare(&prepared).await.unwrap();
    machine.engine.docker(&["pause", &ids[3]]).unwrap();
    let other = ["run", "-d", "--label", "cocktail.store=somebody", machine::IMAGE, "sleep", "600"];
    let other = machine.engine.docker(&other).unwrap();

    assert!(guarded(&machine.engine.url(), &machine.store));
    let mut ends = BTreeMap::new();
    while ends.len() < 3 {
        let end = |event| match event {
            RuntimeEvent::Exited { container, exit: Exit::Code(code), .. } => Some((container.to_string(), code)),
            _ => None,
        };
        ends.extend([machine.event(end).await]);
    }
    let ended = [("deaf-1", 137), ("paused-1", 6), ("polite-1", 5)].map(|(name, code)| (name.to_owned(), code));
    assert_eq!(ends, BTreeMap::from(ended));
    let running = machine.engine.docker(&["ps", "-q", "--no-trunc"]).unwrap();
    let running: Vec<&str> = running.lines().collect();
    assert!(running.len() == 2 && running.contains(&ids[2].as_str()) && running.contains(&other.as_str()));
    // Who was about to start it finds nothing.
    machine.runtime().start(&prepared).await.unwrap_err();
    assert!(guarded(&machine.engine.url(), &machine.store), "there is nothing left to do");
    machine.engine.docker(&["rm", "--force", &other]).unwrap();
}

async fn a_guard_without_an_engine_has_not_done_its_work(machine: &mut Machine) {
    assert!(!guarded("unix:///nowhere", &machine.store));
}

async fn what_an_engine_that_hangs_does_not_end_is_killed_without_it(machine: &mut Machine) {
    let ours = machine.run(&machine.launch("ours-1", "sleep 600")).await.pid.unwrap();
    let kept = Launch { outlives_lease: true, ..machine.launch("kept-1", "sleep 600") };
    let kept = machine.run(&kept).await.pid.unwrap();
    let lives = |pid: u32| {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    };
    let (url, store, engine) = (machine.engine.url(), machine.store.clone(), machine.engine.pid());
    signal(engine, "STOP");
    let done = guarded(&url, &store);
    let left = (lives(ours), lives(kept));
    signal(engine, "CONT");
    assert!(!done, "the engine has not said so");
    assert_eq!(left, (false, true));
    assert_eq!(machine.exited("ours-1").await, Exit::Code(137));
    assert!(guarded(&url, &store));
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap().success());
}
