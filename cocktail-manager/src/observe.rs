//! From what was seen to events: drops what says nothing new, so that the journal holds changes only.

use std::collections::{BTreeMap, BTreeSet};

use cocktail_core::container::{Container, ContainerState};
use cocktail_core::contract::{Listing, Observation, ProbeKind, RuntimeEvent, Sighting, WorkerSaid};
use cocktail_core::error::{Error, Result};
use cocktail_core::event::{Event, Soft};
use cocktail_core::id::{ContainerId, Generation, ServerId};
use cocktail_core::state::State;
use serde_json::json;

/// Containers that a sentence names.
const NAMED: usize = 3;

/// What an observation amounts to.
#[derive(Debug)]
pub(crate) enum Change {
    Durable(Event),
    Soft(Soft),
}

/// What a runtime told by itself. `None` where it says nothing new.
pub(crate) fn of_runtime(state: &State, event: RuntimeEvent) -> Option<Change> {
    match event {
        RuntimeEvent::Exited { container, generation, exit } => {
            let record = state.containers.get(&container)?;
            let news = record.generation == generation && record.state.may_run();
            news.then_some(Change::Durable(Event::Exited { container, generation, exit }))
        }
        RuntimeEvent::Probe { container, generation, kind, ok, detail } => {
            let record = state.containers.get(&container)?;
            of_probe(record, generation, kind, ok, detail)
        }
        RuntimeEvent::Drained { container } => Some(Change::Soft(Soft::Drained { container })),
        RuntimeEvent::Demand { unit } => Some(Change::Soft(Soft::Demand { unit })),
        // A worker's words are looked at by the state, and a gap by the writer.
        RuntimeEvent::Worker { .. } | RuntimeEvent::Resync { .. } => None,
    }
}

/// The container that a probe looked at, or a worker that spoke, before its start is known to have happened.
pub(crate) fn is_early<'a>(state: &State, event: &'a RuntimeEvent) -> Option<&'a ContainerId> {
    let (container, generation) = match event {
        RuntimeEvent::Probe { container, generation, .. } => (container, generation),
        // The rest of what it says is not for others to keep.
        RuntimeEvent::Worker {
            container,
            generation,
            said: WorkerSaid::Waiting | WorkerSaid::Unfit { .. } | WorkerSaid::Ready { .. } | WorkerSaid::Failed { .. },
        } => (container, generation),
        _ => return None,
    };
    let record = state.containers.get(container)?;
    (record.generation == *generation && is_starting(record)).then_some(container)
}

fn is_starting(record: &Container) -> bool {
    matches!(record.state, ContainerState::Preparing | ContainerState::Prepared | ContainerState::Starting)
}

fn of_probe(record: &Container, generation: Generation, probe: ProbeKind, ok: bool, detail: String) -> Option<Change> {
    let container = record.id.clone();
    let running = matches!(record.state, ContainerState::Loading | ContainerState::Ready);
    if record.generation != generation || !running {
        return None;
    }
    let news = match probe {
        // What is to wait says itself when it does.
        ProbeKind::Ready => ok != (record.state == ContainerState::Ready) && !(ok && record.is_spare()),
        ProbeKind::Live => ok == record.unwell.is_some(),
    };
    if news {
        return Some(Change::Durable(Event::Probed { container, generation, probe, ok, detail }));
    }
    let unready = probe == ProbeKind::Ready && !ok;
    unready.then_some(Change::Soft(Soft::ProbeDetail { container, generation, detail }))
}

/// Makes sure that the store is not behind what runs. Whatever is started was intended in a store that is durable, so
/// a start that this store knows nothing of proves that it is an older copy, unless the runtime knows better: then a user
/// said that this copy is the one to go on with.
///
/// # Errors
/// `Refused` with some of the containers.
pub(crate) fn check_not_older(state: &State, listing: &Listing) -> Result<()> {
    let newer: Vec<String> = unknown(state, &BTreeSet::new(), listing).keys().map(ToString::to_string).collect();
    if newer.is_empty() || listing.descended {
        return Ok(());
    }
    let more = if newer.len() > NAMED { ", …" } else { "" };
    Err(Error::refused(format!(
        "the store knows nothing of starts that were made for it ({}{more}), so the data dir is an older copy; workers \
         and ports were not touched: put the newer copy back; or run `cocktail adopt` to go on with this one and keep \
         them, or `cocktail release` to end them, each with `--data-dir` of this data dir",
        newer[..newer.len().min(NAMED)].join(", ")
    )))
}

/// Containers that the state knows on a server.
pub(crate) fn ids_on(state: &State, server: &ServerId) -> BTreeSet<ContainerId> {
    state.on(server).map(|it| it.id.clone()).collect()
}

/// What a listing names that the state knows nothing of: containers, and later starts of containers. Those that were
/// known `before`, when the listing was asked for, have been removed meanwhile and are no strangers.
pub(crate) fn unknown(
    state: &State,
    before: &BTreeSet<ContainerId>,
    listing: &Listing,
) -> BTreeMap<ContainerId, Observation> {
    let strange = |(id, seen): &(&ContainerId, &Observation)| match state.containers.get(id) {
        Some(record) => seen.generation > record.generation,
        None => !before.contains(*id),
    };
    listing.containers.iter().filter(strange).map(|(id, seen)| (id.clone(), seen.clone())).collect()
}

/// Containers that the state does not know, as `inspect` shows them.
pub(crate) fn unknown_view(unknown: &BTreeMap<ContainerId, Observation>) -> serde_json::Value {
    let view = |(id, seen): (&ContainerId, &Observation)| {
        let (state, pid) = match &seen.sighting {
            Sighting::Prepared => ("prepared", None),
            Sighting::Running(handle) => ("running", handle.pid),
            Sighting::Exited(_) => ("exited", None),
            Sighting::Absent => ("absent", None),
            Sighting::Unknown => ("unknown", None),
        };
        json!({ "id": id, "generation": seen.generation, "state": state, "pid": pid })
    };
    unknown.iter().map(view).collect()
}
