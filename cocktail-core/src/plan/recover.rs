//! Containers one by one: start what is claimed or has waited long enough, end what is unwell or late, collect what
//! has stopped. The roster says which ones may need that now; the others are not looked at.

use super::draft::{Draft, Hold};
use super::warm;
use crate::container::{Container, ContainerState};
use crate::event::Event;
use crate::fleet::FleetEvent;
use crate::id::{ServerId, UnitId};
use crate::server::ServerState;
use crate::spec::{Partition, VolumeKind};
use crate::state::State;
use crate::time::human;
use crate::unit::Unit;

/// Lost servers below which nothing is frozen.
const FREEZE_LEAST: usize = 2;

/// Decides about each container that is due; returns why not, where something stands in the way.
pub(super) fn recover(draft: &mut Draft<'_>, id: &UnitId, unit: &Unit) -> Option<Hold> {
    let state = draft.state;
    let mut held = None;
    let due = state.roster(id).map(|roster| roster.due(state.now)).unwrap_or_default();
    for container in due.into_iter().filter_map(|id| state.containers.get(id)) {
        if container.operation.is_some() || draft.leaving.contains(&container.id) {
            continue;
        }
        match container.state {
            ContainerState::Claimed if !state.is_halting() => held = held.or(begin(draft, container)),
            ContainerState::Backoff { until } if until <= state.now && !state.is_halting() => {
                if unit.goal() > 0 || container.is_spare() {
                    held = held.or(begin(draft, container));
                }
            }
            ContainerState::Waiting => {
                let waited = human(unit.spec.warm.age);
                warm::release(draft, container, format!("it has waited long enough: at most {waited}"));
            }
            ContainerState::Loading | ContainerState::Ready => {
                let told = held.is_some();
                held = held.or(watch(draft, unit, container, told));
            }
            ContainerState::Draining => {
                let waited = container.deadline.is_some_and(|deadline| deadline <= state.now);
                if container.drained || waited {
                    let because = if container.drained {
                        container.reason.clone()
                    } else {
                        let drain = human(state.settings.drain);
                        format!("{}; connections did not end within {drain}", container.reason)
                    };
                    match warm::home(draft, container, unit).filter(|_| container.drained) {
                        Some(home) => {
                            draft.unload(container, unit.template(container.revision).stop.grace, home, because)
                        }
                        None => draft.stop(container, unit, because),
                    }
                }
            }
            ContainerState::Stopped if !container.completed => draft.remove(container, container.reason.clone()),
            ContainerState::Claimed
            | ContainerState::Preparing
            | ContainerState::Prepared
            | ContainerState::Starting
            | ContainerState::Backoff { .. }
            | ContainerState::Stopped
            | ContainerState::Failed => {}
            ContainerState::Lost if !state.is_halting() => {
                let told = held.is_some();
                held = held.or(lost(draft, unit, container, told));
            }
            ContainerState::Fenced if answers(state, &container.server) => {
                let because = format!("another one took its place: {}", container.reason);
                draft.push(Event::DrainBegun { container: container.id.clone(), because });
            }
            ContainerState::Lost | ContainerState::Fenced => {}
        }
    }
    held
}

/// Whether a server can be told what to do.
fn answers(state: &State, server: &ServerId) -> bool {
    use ServerState as S;
    let record = state.servers.get(server);
    record.is_some_and(|it| matches!(it.state, S::Ready | S::Cordoned | S::Draining) && it.tenure.quiet.is_none())
}

/// Has another one take the place of a container whose server is lost, as its Unit wants it; what is lost runs nowhere by
/// then. Where very many servers are lost at once the fault is elsewhere, perhaps with us.
fn lost(draft: &mut Draft<'_>, unit: &Unit, container: &Container, told: bool) -> Option<Hold> {
    let (state, id, server) = (draft.state, &container.id, &container.server);
    let hold = |because: String, cause: &str| (!told).then(|| Hold::new(because, cause));
    // One that is back has not said yet what runs there.
    let record = state.servers.get(server).filter(|record| record.state == ServerState::Lost)?;
    let asked = record.tenure.given_up;
    match unit.spec.place.partition {
        // It may run for as long as it likes, whatever the Unit wants by now.
        _ if container.outlives_lease => {
            return hold(format!("{id} runs on alone, or has ended: it is waited for until {server} is back"), "waits");
        }
        _ if asked => {}
        Partition::Wait => {}
        Partition::Stop => return hold(format!("{id} is started again when {server} is back"), "stopped"),
        Partition::Replace => {}
    }
    let exclusive = |kind| kind == VolumeKind::Exclusive;
    if unit.template(container.revision).volumes.values().any(|volume| exclusive(volume.kind)) {
        return hold(format!("{id} is not replaced: its volume is on {server}, which is lost"), "volume");
    }
    let (agents, lost) = state.agents();
    if !asked && lost >= FREEZE_LEAST && lost * 2 > agents {
        let because = format!(
            "{id} is not replaced: {lost} of {agents} servers are silent or lost at once, as if this manager were cut off from them; \
             `cocktail rearrange {server}` gives this one up"
        );
        return hold(because, "many lost");
    }
    let because = format!("{server} is lost: {}", container.reason);
    draft.push(FleetEvent::Fenced { container: id.clone(), because }.into());
    None
}

/// Starts the next generation, after ports that turned out taken were exchanged.
fn begin<'a>(draft: &mut Draft<'a>, container: &'a Container) -> Option<Hold> {
    if container.ports.iter().any(|lease| lease.port.is_none()) {
        return lease_again(draft, container);
    }
    let because = if container.generation.0 == 0 {
        container.reason.clone()
    } else {
        let exit = container.last_exit.map(|exit| format!(": {exit}")).unwrap_or_default();
        format!("restart {} in place{exit}", container.restarts + 1)
    };
    draft.start(container, because);
    None
}

fn lease_again<'a>(draft: &mut Draft<'a>, container: &'a Container) -> Option<Hold> {
    let now = draft.state.now;
    let pool = draft.state.ports.get(&container.server)?;
    let missing = container.ports.iter().filter(|lease| lease.port.is_none()).count();
    let taken = draft.ports(&container.server);
    let found = match pool.find(missing, now, taken) {
        Ok(found) => found,
        // The claim stays and is looked at again when a port has rested.
        Err(error) => {
            let (id, cause) = (&container.id, error.cause());
            return Some(Hold::new(format!("{id} cannot start: {error}"), format!("{id} cannot start: {cause}")));
        }
    };
    taken.extend(&found);
    let mut found = found.into_iter();
    let ports = container
        .ports
        .iter()
        .filter_map(|lease| Some((lease.name.clone(), lease.port.or_else(|| found.next())?)))
        .collect();
    draft.push(Event::PortsLeased { container: container.id.clone(), ports, because: container.reason.clone() });
    None
}

/// Ends what has missed its deadline or fails its liveness probe; the restart in place follows from its exit. Where it may
/// not, the reason is put into words unless one was `told`: very many may be late at once.
fn watch(draft: &mut Draft<'_>, unit: &Unit, container: &Container, told: bool) -> Option<Hold> {
    let state = draft.state;
    let late = container.deadline.is_some_and(|deadline| deadline <= state.now);
    if container.finish_by.is_some_and(|finish_by| finish_by <= state.now) {
        // The user set this limit, so it is no decision of ours that a budget could hold back.
        let limit = human(unit.template(container.revision).restart.deadline.unwrap_or_default());
        draft.stop(container, unit, format!("not done within {limit}"));
        return None;
    }
    let unready = late && container.state == ContainerState::Loading;
    if !unready && container.unwell.is_none() {
        return None;
    }
    let id = &container.id;
    if let Some(frozen) = &draft.frozen {
        return (!told).then(|| Hold::new(format!("{id} is not ended: {frozen}"), "frozen"));
    }
    if !draft.take_budget() {
        let (most, window) = (state.settings.budget_deletions, state.settings.budget_window);
        let because = || {
            let window = human(window);
            format!(
                "{id} is not ended yet: the manager ended {most} containers by itself within {window}, which is its budget"
            )
        };
        return (!told).then(|| Hold::new(because(), "budget"));
    }
    let because = match &container.unwell {
        Some(detail) if container.ports.iter().any(|lease| lease.port.is_none()) => detail.clone(),
        Some(detail) if !unready => format!("liveness probe failed: {detail}"),
        _ => {
            let limit = human(unit.spec.update.progress);
            let saw = if container.probe.is_empty() { "no answer yet" } else { &container.probe };
            format!("not ready within {limit}: {saw}")
        }
    };
    draft.stop(container, unit, because);
    None
}
