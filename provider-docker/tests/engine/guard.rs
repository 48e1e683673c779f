//! The guard: a run of this program that ends what a store has in the engine.

use std::collections::BTreeMap;
use std::process::Command;

use cocktail_core::contract::{Exit, Launch, RuntimeEvent};
use cocktail_core::id::StoreId;
use cocktail_provider_docker::guard;

use crate::machine::{self, Machine};

machine::trials![
    the_guard_ends_what_is_not_to_run_on_and_touches_nothing_else,
    a_guard_without_an_engine_has_not_done_its_work,
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
