//! What must hold after every turn, whatever happened.

use std::collections::{BTreeMap, BTreeSet};

use crate::container::{Container, ContainerState};
use crate::event::Event;
use crate::id::{ContainerId, UnitId};
use crate::plan;
use crate::ports::PortLease;
use crate::spec::{NoRoom, Resources};
use crate::state::State;
use crate::time::{ManagerTime, WallTime};

/// What the planner may not do between `before` (with everything that happened applied) and `after`.
pub(super) fn decisions(before: &State, after: &State, decided: &[Event]) {
    for (id, unit) in &after.units {
        let forced = |event: &Event| match event {
            Event::DrainBegun { container, .. } => after.is_out_of_time(container),
            _ => false,
        };
        let exempt =
            decided.iter().any(forced) || unit.stop_first().is_some() || unit.spec.update.no_room == NoRoom::Replace;
        let goal = if after.is_halting() { 0 } else { unit.goal() as usize };
        let floor = ready(before, id).min(goal);
        let left = ready(after, id);
        assert!(exempt || left >= floor, "{id} has {left} ready containers, its floor is {floor}");
        if claims(decided, id) {
            surge(after, id, goal);
        }
    }
    let services: BTreeSet<_> = after.units.keys().map(|id| &id.service).collect();
    for service in services {
        let claimed = after.units.keys().any(|id| id.service == *service && claims(decided, id));
        let Some(quota) = after.quota(service).filter(|_| claimed) else { continue };
        // What others took the place of is out of reach.
        let counts = |record: &Container| !record.is_done() && record.state != ContainerState::Fenced;
        let counted = |record: &&Container| record.unit.service == *service && counts(record);
        let of_service: Vec<&Container> = after.containers.values().filter(counted).collect();
        let cpu: u64 = of_service.iter().map(|record| reserved(after, record).cpu.0).sum();
        assert!(quota.containers.is_none_or(|most| of_service.len() <= most as usize), "too many for the quota");
        assert!(quota.cpu.is_none_or(|most| cpu <= most.0), "too much cpu for the quota");
    }
}

/// What holds in every state between two turns.
pub(super) fn state(state: &mut State) {
    assert_eq!(state.take_anomalies(), Vec::<String>::new());
    ports(state);
    operations(state);
    for server in state.servers.values() {
        let on_it: Vec<&Container> = state.containers.values().filter(|record| record.server == server.id).collect();
        let cpu: u64 = on_it.iter().map(|record| reserved(state, record).cpu.0).sum();
        assert_eq!(server.allocated.cpu.0, cpu, "what is allocated is what containers reserve");
        assert_eq!(server.containers as usize, on_it.len());
        assert!(cpu <= server.capacity.cpu.0 || !state.is_dirty());
    }
    rosters(state);
    workers(state);
    let mut counted = state.clone();
    counted.count_rooms();
    assert_eq!(state.derived_rooms(), counted.derived_rooms(), "the order of rooms is that of what is left");
    let mut all = state.clone();
    all.mark_all();
    assert_eq!(plan::decide(&mut all), [], "a pass over everything finds what the incremental ones missed");
}

/// What is read back is what was there, but for what is not written.
pub(super) fn replay(live: &State, replayed: &State) {
    let mut replayed = replayed.clone();
    replayed.advance(live.now, live.at);
    let (live, replayed) = (durable(live), durable(&replayed));
    for (id, record) in &live.containers {
        assert_eq!(Some(record), replayed.containers.get(id), "a replay gives another container");
    }
    for (id, unit) in &live.units {
        assert_eq!(Some(unit), replayed.units.get(id), "a replay gives another unit");
    }
    assert_eq!(live, replayed, "a replay gives another state");
}

/// Without soft observations.
fn durable(state: &State) -> State {
    let mut state = state.clone();
    let now = state.now;
    for pool in state.ports.values_mut() {
        pool.expire(now);
    }
    for record in state.containers.values_mut() {
        record.usage = None;
        record.drained = false;
        record.probe.clear();
        match record.state {
            ContainerState::Preparing | ContainerState::Starting => {
                record.state = ContainerState::Preparing;
                (record.reason, record.since) = (String::new(), WallTime::default());
                record.entered = ManagerTime::default();
            }
            ContainerState::Loading => record.reason.clear(),
            _ => {}
        }
    }
    state
}

/// What is counted along the way is what there is.
fn rosters(state: &State) {
    let (mut live, mut anew) = (state.clone(), state.clone());
    anew.count_all();
    assert_eq!(live.wellness(), anew.wellness(), "how many are well");
    for id in state.units.keys() {
        live.settle(id);
        anew.settle(id);
        assert_eq!(live.roster(id), anew.roster(id), "the roster of {id} is what a count of all gives");
    }
}

/// What waits has nothing of what whoever takes it will need, and what serves has an assignment. What waits of an image has
/// all of it, and what serves of one is as if it had never waited.
fn workers(state: &State) {
    let table = state.routing_table();
    let routed: BTreeSet<_> = table.routes.iter().flat_map(|it| &it.backends).map(|it| &it.container).collect();
    for record in state.containers.values() {
        let waits = record.is_spare() || record.state == ContainerState::Waiting;
        assert!(!waits || !routed.contains(&record.id), "{} waits and is routed", record.id);
        assert!(!record.is_spare() || record.state != ContainerState::Ready, "{} waits and is ready", record.id);
        let unit = &state.units[&record.unit];
        let template = unit.template(record.revision);
        if template.image.is_some() {
            let named = record.ports.iter().map(|lease| &lease.name);
            assert!(named.eq(template.ports.iter().map(|port| &port.name)), "{} lacks a port", record.id);
            assert!(record.worker.is_none() || record.is_spare(), "{} is no worker", record.id);
            assert!(record.is_spare() || record.state != ContainerState::Waiting, "{} is paused and serves", record.id);
            continue;
        }
        let Some(worker) = &record.worker else { continue };
        assert!(!worker.spare || record.ports.is_empty(), "{} waits and has ports", record.id);
        assert!(worker.spare || worker.assignment > 0, "{} serves nothing", record.id);
        assert!(worker.spare || record.state != ContainerState::Waiting, "{} waits with something loaded", record.id);
    }
}

fn ports(state: &State) {
    let mut holders = BTreeMap::new();
    for record in state.containers.values().filter(|record| record.holds_ports()) {
        let ports = &state.units[&record.unit].template(record.revision).ports;
        let shared = |port: u16| ports.iter().any(|spec| spec.fixed == Some(port) && spec.inherit);
        for port in record.port_numbers().filter(|port| !shared(*port)) {
            let other = holders.insert((record.server.clone(), port), record.id.clone());
            assert_eq!(other, None, "two containers hold port {port}");
        }
    }
    let mut held = BTreeMap::new();
    for (server, pool) in &state.ports {
        for (port, lease) in pool.leases() {
            if let PortLease::Held(holder) = lease
                && !is_shared(state, holder, port)
            {
                held.insert((server.clone(), port), holder.clone());
            }
        }
    }
    assert_eq!(held, holders, "leases and holders differ");
}

/// A port whose socket is handed over is held by whoever got it last.
fn is_shared(state: &State, holder: &ContainerId, port: u16) -> bool {
    let record =
        state.containers.get(holder).unwrap_or_else(|| panic!("port {port} is held by {holder}, which is gone"));
    let template = state.units[&record.unit].template(record.revision);
    assert!(record.holds_ports(), "port {port} is held by {holder}, which has ended");
    template.ports.iter().any(|spec| spec.fixed == Some(port) && spec.inherit)
}

fn operations(state: &State) {
    for (id, operation) in &state.operations {
        let record = state.containers.get(&operation.container);
        let record = record.unwrap_or_else(|| panic!("operation {id} is about {}, which is gone", operation.container));
        assert_eq!(record.operation, Some(*id), "{} has another open operation", record.id);
    }
    for record in state.containers.values() {
        if let Some(id) = record.operation {
            assert!(state.operations.contains_key(&id), "operation {id} of {} is not open", record.id);
        }
        assert!(state.units.contains_key(&record.unit), "{} is of no unit", record.id);
    }
}

/// Claims were made: with old ones around, there may be no more than the surge above the count.
fn surge(state: &State, id: &UnitId, goal: usize) {
    let unit = &state.units[id];
    let old = |record: &Container| record.revision != unit.revision || record.replace.is_some();
    let counts = |record: &&Container| record.state != ContainerState::Stopped && !record.is_spare();
    let there: Vec<&Container> = state.of(unit).filter(counts).collect();
    let most = goal + unit.spec.update.surge.max(1) as usize;
    let counted = there.iter().filter(|record| !record.is_done() && (record.state.is_live() || old(record))).count();
    if there.iter().any(|record| old(record)) {
        assert!(counted <= most, "{id} has {counted} containers while it updates, {most} are allowed");
    }
}

fn claims(decided: &[Event], id: &UnitId) -> bool {
    decided.iter().any(|event| matches!(event, Event::Claimed { unit, spare: false, .. } if unit == id))
}

fn ready(state: &State, id: &UnitId) -> usize {
    let Some(unit) = state.units.get(id) else { return 0 };
    state.of(unit).filter(|record| record.state == ContainerState::Ready).count()
}

fn reserved(state: &State, record: &Container) -> Resources {
    if record.is_done() {
        return Resources::default();
    }
    state.units.get(&record.unit).map(|unit| unit.template(record.revision).resources).unwrap_or_default()
}
