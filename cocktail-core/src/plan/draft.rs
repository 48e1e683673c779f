//! What one pass has decided so far, so that its later decisions reckon with its earlier ones.

use std::collections::{BTreeMap, BTreeSet};

use super::Plan;
use crate::container::Container;
use crate::event::Event;
use crate::id::{ContainerId, Generation, OperationId, ServerId, UnitId};
use crate::name::Name;
use crate::operation::{Operation, OperationKind, OperationState};
use crate::ports::PortError;
use crate::spec::Resources;
use crate::state::rooms::{self, Rooms};
use crate::state::{State, Want};
use crate::unit::Unit;
use crate::view::ConsideredView;

/// Share of unwell containers, in percent, above which something other than the containers must be wrong.
const FREEZE_PERCENT: usize = 45;
/// Unwell containers below which nothing is frozen.
const FREEZE_LEAST: usize = 4;

/// What one pass has decided so far.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) state: &'a State,
    pub(super) ports: BTreeMap<ServerId, BTreeSet<u16>>,
    reserved: BTreeMap<ServerId, Resources>,
    placed: BTreeMap<UnitId, BTreeMap<ServerId, u32>>,
    used: BTreeMap<Name, (u32, Resources)>,
    /// A copy of the state's, from the first container on that this pass places.
    rooms: Option<Rooms>,
    pub(super) leaving: BTreeSet<ContainerId>,
    /// Why nothing that is unwell is ended.
    pub(super) frozen: Option<String>,
    /// Containers that may still be made.
    claims: usize,
    own_stops: usize,
    last_operation: OperationId,
    plan: Plan,
}

/// Why something that is wanted is not done.
#[derive(Debug, Default)]
pub(super) struct Hold {
    pub(super) because: String,
    /// The same without the numbers that change by themselves, so that it is told once.
    pub(super) cause: String,
    pub(super) considered: Vec<ConsideredView>,
}

impl Hold {
    pub(super) fn new(because: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { because: because.into(), cause: cause.into(), considered: Vec::new() }
    }
}

impl From<PortError> for Hold {
    fn from(error: PortError) -> Self {
        Self::new(error.to_string(), error.cause())
    }
}

impl<'a> Draft<'a> {
    pub(super) fn new(state: &'a State, claims: usize) -> Self {
        Self {
            state,
            ports: BTreeMap::new(),
            reserved: BTreeMap::new(),
            placed: BTreeMap::new(),
            used: BTreeMap::new(),
            rooms: None,
            leaving: BTreeSet::new(),
            frozen: state.frozen.clone(),
            claims,
            own_stops: state.own_stops.len(),
            last_operation: state.last_operation,
            plan: Plan::default(),
        }
    }

    pub(super) fn push(&mut self, event: Event) {
        self.plan.events.push(event);
    }

    pub(super) fn into_plan(self) -> Plan {
        self.plan
    }

    /// Servers by what is left of them, with what this pass has placed.
    pub(super) fn rooms(&self) -> &Rooms {
        self.rooms.as_ref().unwrap_or(self.state.rooms())
    }

    /// What is left of a server.
    pub(super) fn left_of(&self, server: &ServerId) -> Resources {
        let mut left = self.state.servers.get(server).map(rooms::left).unwrap_or_default();
        if let Some(reserved) = self.reserved.get(server) {
            left.cpu.0 = left.cpu.0.saturating_sub(reserved.cpu.0);
            left.memory.0 = left.memory.0.saturating_sub(reserved.memory.0);
        }
        left
    }

    /// Containers of a Unit on a server.
    pub(super) fn on_server(&self, server: &ServerId, unit: &UnitId) -> u32 {
        let there = self.state.spots(unit).and_then(|spots| spots.get(server)).copied().unwrap_or_default();
        let placed = self.placed.get(unit).and_then(|placed| placed.get(server)).copied().unwrap_or_default();
        there + placed
    }

    /// Whether a Unit has a container on any server.
    pub(super) fn is_anywhere(&self, unit: &UnitId) -> bool {
        self.state.spots(unit).is_some() || self.placed.contains_key(unit)
    }

    /// Servers with containers of a Unit.
    pub(super) fn spots(&self, unit: &UnitId) -> BTreeSet<ServerId> {
        let there = self.state.spots(unit).into_iter().flat_map(BTreeMap::keys);
        let placed = self.placed.get(unit).into_iter().flat_map(BTreeMap::keys);
        there.chain(placed).cloned().collect()
    }

    /// What containers of a Service count and reserve.
    pub(super) fn used(&mut self, service: &Name) -> (u32, Resources) {
        let state = self.state;
        let count = || {
            let (mut count, mut sum) = (0, Resources::default());
            for (_, unit) in state.units.iter().filter(|(id, _)| id.service == *service) {
                for container in state.of(unit).filter(|container| !container.is_done()) {
                    let reserved = unit.template(container.revision).resources;
                    count += 1;
                    sum.cpu.0 = sum.cpu.0.saturating_add(reserved.cpu.0);
                    sum.memory.0 = sum.memory.0.saturating_add(reserved.memory.0);
                }
            }
            (count, sum)
        };
        *self.used.entry(service.clone()).or_insert_with(count)
    }

    /// Reckons with a container that this pass places.
    pub(super) fn reserve(&mut self, unit: &UnitId, server: &ServerId, resources: Resources) {
        let on_server = self.reserved.entry(server.clone()).or_default();
        on_server.cpu.0 += resources.cpu.0;
        on_server.memory.0 += resources.memory.0;
        if let Some((count, sum)) = self.used.get_mut(&unit.service) {
            *count += 1;
            sum.cpu.0 += resources.cpu.0;
            sum.memory.0 += resources.memory.0;
        }
        *self.placed.entry(unit.clone()).or_default().entry(server.clone()).or_default() += 1;
        let left = self.left_of(server);
        if let Some(record) = self.state.servers.get(server) {
            self.rooms.get_or_insert_with(|| self.state.rooms().clone()).set(record, left);
        }
    }

    /// A Unit found no room.
    pub(super) fn want(&mut self, unit: &UnitId, want: Want) {
        self.plan.wanting.insert(unit.clone(), want);
    }

    /// Takes one from the containers that may be made; false when none is left, and the Unit has to wait for the next turn.
    pub(super) fn take_claim(&mut self, id: &UnitId) -> bool {
        if self.claims == 0 {
            self.plan.unfinished.insert(id.clone());
            return false;
        }
        self.claims -= 1;
        true
    }

    /// When very many containers turn unwell at once, the fault is elsewhere and killing them makes it worse.
    pub(super) fn freeze_or_thaw(&mut self) {
        let (running, unwell) = self.state.wellness();
        let impossible = unwell >= FREEZE_LEAST && unwell * 100 > running * FREEZE_PERCENT;
        if impossible == self.frozen.is_some() {
            return;
        }
        self.frozen = impossible.then(|| {
            format!(
                "{unwell} of {running} running containers fail their liveness probes at once: none is ended for that \
                 until fewer do"
            )
        });
        self.push(Event::Froze { because: self.frozen.clone() });
    }

    /// Takes one from the budget of decisions that end a container on the Manager's own account.
    pub(super) fn take_budget(&mut self) -> bool {
        if self.own_stops >= self.state.settings.budget_deletions as usize {
            return false;
        }
        self.own_stops += 1;
        true
    }

    /// Intends a start of the next generation.
    pub(super) fn start(&mut self, container: &Container, because: String) {
        let deadline = self.state.now + self.state.settings.start_deadline;
        let generation = container.generation.next();
        self.intend(container, OperationKind::Start, generation, because, Some(deadline));
    }

    /// Intends the end of a container's running generation.
    pub(super) fn stop(&mut self, container: &Container, unit: &Unit, because: String) {
        let stop = &unit.template(container.revision).stop;
        let kind = OperationKind::Stop { signal: stop.signal, grace: stop.grace };
        self.intend(container, kind, container.generation, because, None);
    }

    /// Intends that a stopped container is forgotten.
    pub(super) fn remove(&mut self, container: &Container, because: String) {
        self.intend(container, OperationKind::Remove, container.generation, because, None);
    }

    /// As [`Draft::remove`], for a container that is done and may be on its way out already.
    pub(super) fn forget(&mut self, container: &Container, because: String) {
        if container.operation.is_none() && self.leaving.insert(container.id.clone()) {
            self.remove(container, because);
        }
    }

    fn intend(
        &mut self,
        container: &Container,
        kind: OperationKind,
        generation: Generation,
        because: String,
        deadline: Option<crate::time::ManagerTime>,
    ) {
        self.last_operation = self.last_operation.next();
        self.plan.events.push(Event::Intended {
            operation: Box::new(Operation {
                id: self.last_operation,
                kind,
                container: container.id.clone(),
                unit: container.unit.clone(),
                generation,
                state: OperationState::Intended,
                error: None,
                because,
                since: self.state.at,
                intended: self.state.now,
                deadline,
            }),
        });
    }

    /// Records a non-decision when its reason has changed.
    pub(super) fn hold(&mut self, id: &UnitId, unit: &Unit, held: Option<Hold>) {
        let Hold { because, cause, considered } = held.unwrap_or_default();
        if cause != unit.held_cause {
            self.push(Event::Held { unit: id.clone(), because, cause, considered });
        }
    }
}
