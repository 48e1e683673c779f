//! Rearrangement by monitoring: gives back a server when what runs on it has room elsewhere and that is worth the trouble.
//!
//! Start at [`rearrange`]. It is off unless a provider's limits say what it has to bring. Bounded in every way: so many
//! servers at a time, a look at few of them each time, nothing while anything else is under way, and never a server on
//! which somebody works. What cannot move in time stays, and that server is left alone for a while.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::Draft;
use super::leave::stays;
use super::pack::holds;
use crate::container::{Container, ContainerState};
use crate::contract::TerminateReason;
use crate::fleet::{FleetEvent, Late, ProviderRecord, RearrangeLimits, Rearrangement};
use crate::id::ServerId;
use crate::name::Name;
use crate::rollout::RolloutState;
use crate::server::{Server, ServerState};
use crate::spec::{PlaceOrder, Resources};
use crate::state::State;
use crate::unit::Unit;

/// Servers whose containers are tried elsewhere in one look.
const TRIED: usize = 20;
/// How long what runs on a server may take to move.
const TIME: Duration = Duration::from_secs(600);

/// Rearranges where a provider's limits allow it and its time has come.
pub(super) fn rearrange(draft: &mut Draft<'_>) {
    let state = draft.state;
    let providers: Vec<(&Name, &ProviderRecord)> =
        state.providers.iter().filter(|(name, _)| state.may_rearrange(name)).collect();
    if providers.is_empty() || state.wanting().next().is_some() {
        return;
    }
    let mut here = Moves::new();
    for container in state.containers.values() {
        here.entry(&container.server).or_default().push(container);
    }
    for (name, record) in providers {
        if let Some(limits) = &record.limits.rearrange {
            look(draft, name, *limits, &here);
        }
    }
}

fn look(draft: &mut Draft<'_>, name: &Name, limits: RearrangeLimits, here: &Moves<'_>) {
    let state = draft.state;
    let servers = || state.servers.values().filter(|server| server.provider == *name);
    let leaves = |server: &&Server| server.tenure.rearrangement.is_some() || server.state == ServerState::Terminating;
    let calm = |server: &Server| matches!(server.state, ServerState::Ready | ServerState::Cordoned | ServerState::Gone);
    if servers().any(|server| !calm(server) && !leaves(&server)) {
        return;
    }
    let least = state.providers.get(name).map_or(0, |record| record.limits.min_servers as usize);
    let spare = servers().filter(|server| stays(server)).count().saturating_sub(least);
    let mut budget = (limits.budget as usize).saturating_sub(servers().filter(leaves).count()).min(spare);
    let all: f64 = servers().map(price).sum();
    let total: usize = servers().filter_map(|server| here.get(&server.id)).map(Vec::len).sum();
    let mut candidates: Vec<(f64, &Server, &Vec<&Container>)> = servers()
        .filter(|server| server.state == ServerState::Ready && !leaves(server) && server.tenure.operation.is_none())
        .filter(|server| server.tenure.keep.is_none_or(|until| until <= state.now))
        .filter_map(|server| Some((server, here.get(&server.id)?)))
        .filter(|(_, containers)| containers.iter().all(|container| may_move(state, container)))
        .map(|(server, containers)| (gain((price(server), all), (containers.len(), total)), server, containers))
        .filter(|(gain, ..)| *gain >= limits.gain)
        .collect();
    candidates.sort_by(|(one, a, _), (other, b, _)| other.total_cmp(one).then_with(|| a.id.cmp(&b.id)));
    let mut moved = Moves::new();
    let mut leaving = Vec::new();
    for (gain, server, containers) in candidates.into_iter().take(TRIED) {
        if budget == 0 {
            return;
        }
        let Some(more) = elsewhere(state, server, containers, here, (&moved, &leaving)) else { continue };
        moved = more;
        leaving.push(&server.id);
        budget -= 1;
        let rearrangement = Rearrangement {
            because: format!(
                "the {} containers on {} have room elsewhere: giving it back saves {gain:.1} times its part of the work",
                containers.len(),
                server.id
            ),
            deadline: Some(state.now + TIME),
            late: Late::Cancel,
            give_back: Some(TerminateReason::Rearranged),
            cleared: false,
        };
        draft.push(FleetEvent::Rearranging { server: server.id.clone(), rearrangement: Some(rearrangement) });
    }
}

/// What an hour of a server costs; servers without a price cost the same.
fn price(server: &Server) -> f64 {
    server.tenure.price.filter(|price| price.is_finite() && *price > 0.0).unwrap_or(1.0)
}

/// The part of the money that a server takes, over the part of the containers that would have to move.
fn gain((price, all): (f64, f64), (containers, total): (usize, usize)) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of containers are small")]
    let part = containers.max(1) as f64 / total.max(1) as f64;
    price / all.max(f64::MIN_POSITIVE) / part
}

/// Whether a container may be replaced for the sake of money: it serves or waits, nothing else is decided about it, and nobody
/// works in it. What a service port carries is drained without loss; other work that is under way is not.
fn may_move(state: &State, container: &Container) -> bool {
    let Some(unit) = state.units.get(&container.unit) else { return false };
    let calm = unit
        .rollout
        .as_ref()
        .is_none_or(|it| !matches!(it.state, RolloutState::Running | RolloutState::RollingBack | RolloutState::Paused));
    let waits = container.state == ContainerState::Waiting && container.operation.is_none();
    let serves = (container.state == ContainerState::Ready || waits) && container.replace.is_none();
    let routed = unit.spec.template.ports.iter().any(|port| port.service.is_some());
    let in_flight = container.usage.as_ref().and_then(|usage| usage.traffic).is_some_and(|it| it.in_flight > 0);
    let works = unit.spec.template.restart.is_job() || in_flight && !routed;
    // A volume does not move with it, and what it stays near would have to move as well.
    let bound = !unit.template(container.revision).volumes.is_empty() || !unit.spec.place.near.is_empty();
    serves && calm && !works && !bound && unit.held.is_empty()
}

/// What is to be moved to each server.
type Moves<'a> = BTreeMap<&'a ServerId, Vec<&'a Container>>;

/// Finds room for each container on another server, besides what has been moved before; `None` where one has none.
fn elsewhere<'a>(
    state: &'a State,
    server: &Server,
    containers: &[&'a Container],
    here: &Moves<'a>,
    (moved, leaving): (&Moves<'a>, &[&ServerId]),
) -> Option<Moves<'a>> {
    let mut moved = moved.clone();
    let mut containers = containers.to_vec();
    containers.sort_by_key(|container| {
        let Resources { cpu, memory } = wanted(state, container);
        (Reverse((cpu, memory)), &container.id)
    });
    let takes = |it: &&Server| it.state == ServerState::Ready && it.tenure.rearrangement.is_none();
    let others = || state.servers.values().filter(takes).filter(|it| it.id != server.id && !leaving.contains(&&it.id));
    for container in containers {
        let unit = state.units.get(&container.unit)?;
        let other = others().find(|other| {
            let there = |of: &Moves<'a>| of.get(&other.id).cloned().unwrap_or_default();
            let (known, more) = (there(here), there(&moved));
            let room = more.iter().fold(other.capacity, |left, it| without(left, wanted(state, it)));
            holds(without(room, other.allocated), wanted(state, container))
                && suits(state, unit, container, other, &[known, more].concat())
        })?;
        moved.entry(&other.id).or_default().push(container);
    }
    Some(moved)
}

/// Whether a container of a Unit may be on a server beside those that are there.
fn suits(state: &State, unit: &Unit, container: &Container, server: &Server, there: &[&Container]) -> bool {
    let place = &unit.spec.place;
    let template = unit.template(container.revision);
    let providers = &template.providers;
    let may = server.images == template.image.is_some()
        && (providers.is_empty() || providers.contains(&server.provider))
        && (place.zones.is_empty() || server.zone.as_ref().is_some_and(|zone| place.zones.contains(zone)))
        && (place.offerings.is_empty() || place.offerings.contains(&server.offering));
    let own = &container.unit;
    let apart = |it: &&Container| {
        let theirs = state.units.get(&it.unit).map(|unit| &unit.spec.place.apart[..]).unwrap_or_default();
        let alike = it.unit.service == own.service && it.unit.map == own.map;
        alike && (place.apart.contains(&it.unit.unit) || theirs.contains(&own.unit))
    };
    // What spreads stays spread.
    let alone = !matches!(place.order, PlaceOrder::Spread(_)) || there.iter().all(|it| it.unit != *own);
    may && alone && !there.iter().any(apart)
}

fn wanted(state: &State, container: &Container) -> Resources {
    state.units.get(&container.unit).map(|unit| unit.template(container.revision).resources).unwrap_or_default()
}

fn without(mut left: Resources, taken: Resources) -> Resources {
    left.cpu.0 = left.cpu.0.saturating_sub(taken.cpu.0);
    left.memory.0 = left.memory.0.saturating_sub(taken.memory.0);
    left
}
