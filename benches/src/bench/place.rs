//! `place`: 10,000 containers of 50 Units onto 5,000 servers that hold 1,000.
//!
//! Each Unit reserves cpu and memory, is spread over servers, keeps away from another Unit, and has a port: a container
//! that is placed has its id, its lease and its `why`. The planner alone: from the applied manifest until nothing is left
//! to decide, in turns as the writer takes them. Durable: the same through a whole Manager with its real store, from the
//! apply until the start of each container has been called, answered by a server that only acknowledges, and is durable.

use std::time::Instant;

use anyhow::{Result, ensure};
use cocktail_core::event::Event;
use cocktail_core::plan;
use serde::Deserialize;

use crate::Setup;
use crate::cluster::{self, CLAIMS, Deployment};
use crate::managed;
use crate::report::{Report, median};

const SERVERS: u32 = 5_000;
const CORES: u64 = 16;
const THERE: Deployment = Deployment { map: "there", units: 10, each: 100, cpu: 250, memory_mib: 256, apart: false };
const NEW: Deployment = Deployment { map: "new", units: 50, each: 200, cpu: 250, memory_mib: 256, apart: true };

/// What `bench-manager place` prints.
#[derive(Debug, Deserialize)]
struct Outcome {
    containers: f64,
    seconds: f64,
}

pub(crate) fn run(setup: &Setup) -> Result<Report> {
    let mut report = Report::new("place");
    let rounds = setup.rounds(5);
    let mut before = cluster::state(SERVERS, CORES)?;
    cluster::apply(&mut before, THERE)?;
    plan::decide(&mut before);
    cluster::start_all(&mut before);
    ensure!(before.containers.len() == THERE.count(), "the servers do not hold what they shall");

    let mut rates = Vec::new();
    for _ in 0..rounds {
        let mut state = before.clone();
        cluster::apply(&mut state, NEW)?;
        let begin = Instant::now();
        let mut placed = 0;
        while state.is_dirty() {
            let decided = plan::decide_first(&mut state, CLAIMS);
            placed += decided.iter().filter(|event| matches!(event, Event::Claimed { .. })).count();
        }
        rates.push(placed as f64 / begin.elapsed().as_secs_f64());
        ensure!(placed == NEW.count(), "{placed} of {} were placed", NEW.count());
        check(&state)?;
    }
    report.figure("planner_per_s", median(&rates), "containers placed a second by the planner alone");
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let (there, new) = (THERE.count(), NEW);
        let numbers = [SERVERS as usize, there, new.units as usize, new.each as usize];
        let outcome: Outcome = managed::run(setup, "place", &numbers)?;
        rates.push(outcome.containers / outcome.seconds);
    }
    report.figure("durable_per_s", median(&rates), "placed, started and answered a second, all of it durable");
    report.note(format!("medians of {rounds} rounds, in turns of at most {CLAIMS} containers"));
    Ok(report)
}

/// Every container has its port and its reason, and no Unit is where it must not be.
fn check(state: &cocktail_core::state::State) -> Result<()> {
    let mut on_server = std::collections::BTreeSet::new();
    for record in state.containers.values() {
        ensure!(record.ports.iter().all(|port| port.port.is_some()), "{} has no port", record.id);
        ensure!(record.why.iter().next().is_some(), "{} has no reason", record.id);
        on_server.insert((record.server.clone(), record.unit.clone()));
    }
    for (server, unit) in on_server.iter().filter(|(_, unit)| unit.map.as_str() == NEW.map) {
        for other in &state.units[unit].spec.place.apart {
            let mut there = unit.clone();
            there.unit = other.clone();
            ensure!(!on_server.contains(&(server.clone(), there)), "{unit} is beside {other} on {server}");
        }
    }
    Ok(())
}
