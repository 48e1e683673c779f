//! What one pass has decided so far, so that its later decisions reckon with its earlier ones.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Plan;
use crate::container::{Container, ContainerState};
use crate::event::Event;
use crate::id::{ContainerId, Generation, OperationId, ServerId, UnitId};
use crate::lookup::Lookup;
use crate::name::Name;
use crate::operation::{Operation, OperationKind, OperationState};
use crate::ports::PortError;
use crate::server::Server;
use crate::spec::Resources;
use crate::state::rooms::{self, Rank, Rooms, Yard, share};
use crate::state::{State, Want};
use crate::time::ManagerTime;
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
    /// Servers for which this pass has decided something.
    touched: Lookup<&'a ServerId, Touched<'a>>,
    /// Units of which this pass has placed containers, one after the other.
    placed: Vec<&'a UnitId>,
    used: BTreeMap<Name, (u32, Resources)>,
    /// Servers by what is left of them, with what this pass has placed.
    lots: Vec<Lot<'a>>,
    /// Which Units keep away from a Unit, from the first that is placed on.
    kept_apart: Option<BTreeMap<UnitId, Vec<&'a UnitId>>>,
    pub(super) leaving: BTreeSet<ContainerId>,
    /// Containers by the Unit for which this pass has them wait again.
    returning: BTreeMap<UnitId, usize>,
    /// Ids that this pass has given to new containers.
    made: Lookup<ContainerId, ()>,
    /// Why nothing that is unwell is ended.
    pub(super) frozen: Option<String>,
    /// Containers that may still be made.
    claims: usize,
    own_stops: usize,
    last_operation: OperationId,
    plan: Plan,
}

/// What one pass has decided for a server.
#[derive(Debug, Default)]
struct Touched<'a> {
    reserved: Resources,
    /// Containers by Unit. Few Units come to the same server in one pass.
    placed: Vec<(&'a UnitId, u32)>,
    /// Ports that were given away.
    ports: BTreeSet<u16>,
}

/// A server, with what a pass has put on it so far.
#[derive(Debug)]
pub(super) struct Site<'d, 'a> {
    pub(super) server: &'a Server,
    ranked: &'a Rooms,
    touched: Option<&'d Touched<'a>>,
}

/// The servers of one yard, those with least left first.
#[derive(Debug)]
struct Lot<'a> {
    yard: &'a Yard,
    /// The state's own, until this pass places a container there.
    ranked: Cow<'a, BTreeSet<Rank>>,
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

impl Site<'_, '_> {
    /// What is left of it.
    pub(super) fn left(&self) -> Resources {
        self.touched.map_or_else(|| rooms::left(self.server), |touched| touched.left_of(self.server))
    }

    /// How much of it is left, if it takes containers.
    pub(super) fn rank(&self) -> Option<u32> {
        let rank = self.ranked.rank(&self.server.id)?;
        Some(self.touched.map_or(rank, |touched| share(touched.left_of(self.server), self.server.capacity)))
    }

    /// Containers of a Unit that this pass has put on it.
    pub(super) fn placed(&self, unit: &UnitId) -> u32 {
        self.touched.map_or(0, |touched| touched.count(unit))
    }
}

impl<'a> Touched<'a> {
    fn left_of(&self, server: &Server) -> Resources {
        let mut left = rooms::left(server);
        left.cpu.0 = left.cpu.0.saturating_sub(self.reserved.cpu.0);
        left.memory.0 = left.memory.0.saturating_sub(self.reserved.memory.0);
        left
    }

    fn count(&self, unit: &UnitId) -> u32 {
        self.placed.iter().find(|(placed, _)| *placed == unit).map_or(0, |(_, count)| *count)
    }

    fn place(&mut self, unit: &'a UnitId) {
        match self.placed.iter_mut().find(|(placed, _)| *placed == unit) {
            Some((_, count)) => *count += 1,
            None => self.placed.push((unit, 1)),
        }
    }
}

impl<'a> Draft<'a> {
    pub(super) fn new(state: &'a State, claims: usize) -> Self {
        let lot = |(yard, ranked)| Lot { yard, ranked: Cow::Borrowed(ranked) };
        Self {
            state,
            touched: Lookup::default(),
            placed: Vec::new(),
            used: BTreeMap::new(),
            lots: state.rooms().yards().map(lot).collect(),
            kept_apart: None,
            leaving: BTreeSet::new(),
            returning: BTreeMap::new(),
            made: Lookup::default(),
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

    /// The yards of the state in order.
    pub(super) fn yards(&self) -> impl Iterator<Item = &'a Yard> {
        self.lots.iter().map(|lot| lot.yard)
    }

    /// The servers of a yard, named by its place among [`Draft::yards`]: those with least left first.
    pub(super) fn yard(&self, index: usize) -> Option<&BTreeSet<Rank>> {
        self.lots.get(index).map(|lot| &*lot.ranked)
    }

    /// A server, with what this pass has put on it.
    pub(super) fn site(&self, server: &'a Server) -> Site<'_, 'a> {
        Site { server, ranked: self.state.rooms(), touched: self.touched.get(&server.id) }
    }

    /// Whether a Unit has a container on any server.
    pub(super) fn is_anywhere(&self, unit: &UnitId) -> bool {
        self.state.spots(unit).is_some() || self.placed.contains(&unit)
    }

    /// Servers with containers of a Unit.
    pub(super) fn spots(&self, unit: &UnitId) -> BTreeSet<&'a ServerId> {
        let there = self.state.spots(unit).into_iter().flat_map(|spots| spots.keys_where(|_| true));
        there.chain(self.touched.keys_where(|touched| touched.count(unit) > 0).into_iter().copied()).collect()
    }

    /// Ports of a server that this pass has given away.
    pub(super) fn ports(&mut self, server: &'a ServerId) -> &mut BTreeSet<u16> {
        &mut self.touched.get_or_default(server).ports
    }

    /// Units of the same map that keep away from this one.
    pub(super) fn kept_apart(&mut self, unit: &UnitId) -> &[&'a UnitId] {
        let state = self.state;
        let all = self.kept_apart.get_or_insert_with(|| {
            let mut all: BTreeMap<UnitId, Vec<&UnitId>> = BTreeMap::new();
            for (id, record) in &state.units {
                for name in &record.spec.place.apart {
                    let other = UnitId::new(id.service.clone(), id.map.clone(), name.clone());
                    all.entry(other).or_default().push(id);
                }
            }
            all
        });
        all.get(unit).map(Vec::as_slice).unwrap_or_default()
    }

    /// What containers of a Service count and reserve.
    pub(super) fn used(&mut self, service: &Name) -> (u32, Resources) {
        let state = self.state;
        let count = || {
            let (mut count, mut sum) = (0, Resources::default());
            for (_, unit) in state.units.iter().filter(|(id, _)| id.service == *service) {
                // What is fenced reserves nothing that anybody could have.
                let counts = |it: &&Container| !it.is_done() && it.state != ContainerState::Fenced;
                for container in state.of(unit).filter(counts) {
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
    pub(super) fn reserve(&mut self, unit: &'a UnitId, server: &'a Server, resources: Resources) {
        if let Some((count, sum)) = self.used.get_mut(&unit.service) {
            *count += 1;
            sum.cpu.0 += resources.cpu.0;
            sum.memory.0 += resources.memory.0;
        }
        if self.placed.last() != Some(&unit) {
            self.placed.push(unit);
        }
        let touched = self.touched.get_or_default(&server.id);
        let before = share(touched.left_of(server), server.capacity);
        touched.reserved.cpu.0 += resources.cpu.0;
        touched.reserved.memory.0 += resources.memory.0;
        touched.place(unit);
        let after = share(touched.left_of(server), server.capacity);
        let is_there = |lot: &&mut Lot<'_>| lot.yard.0 == server.provider && lot.yard.1 == server.zone;
        if before != after
            && let Some(lot) = self.lots.iter_mut().find(is_there)
        {
            let ranked = lot.ranked.to_mut();
            let mut rank = (before, Reverse(server.id.clone()));
            if ranked.remove(&rank) {
                rank.0 = after;
                ranked.insert(rank);
            }
        }
    }

    /// Gives an id to a new container; false if another one of this pass has it.
    pub(super) fn take_id(&mut self, id: &ContainerId) -> bool {
        self.made.insert(id.clone(), ()).is_none()
    }

    /// A Unit found no room.
    pub(super) fn want(&mut self, unit: &UnitId, want: Want) {
        self.plan.wanting.insert(unit.clone(), want);
    }

    /// Takes one from the containers that may be made.
    pub(super) fn take_claim(&mut self) {
        self.claims = self.claims.saturating_sub(1);
    }

    /// Whether a container may still be made.
    pub(super) fn may_claim(&self) -> bool {
        self.claims > 0
    }

    /// Has a Unit wait for the next turn.
    pub(super) fn put_off(&mut self, id: &UnitId) {
        self.plan.unfinished.insert(id.clone());
    }

    /// Whether a Unit waits for the next turn.
    pub(super) fn is_put_off(&self, id: &UnitId) -> bool {
        self.plan.unfinished.contains(id)
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

    /// Intends that a container that was taken by a Unit is told what to load.
    pub(super) fn assign(&mut self, container: &Container, unit: &UnitId, because: String) {
        let deadline = self.state.now + self.state.settings.start_deadline;
        self.intend_for(unit, container, OperationKind::Assign, container.generation, because, Some(deadline));
    }

    /// Intends that a container closes what it has loaded, and waits for `home`.
    pub(super) fn unload(&mut self, container: &Container, grace: Duration, home: UnitId, because: String) {
        *self.returning.entry(home.clone()).or_default() += 1;
        self.intend(container, OperationKind::Unload { grace, home }, container.generation, because, None);
    }

    /// Containers that are being unloaded to wait for a Unit, with what this pass has decided.
    pub(super) fn returning(&self, home: &UnitId) -> usize {
        self.state.returning(home) + self.returning.get(home).copied().unwrap_or_default()
    }

    /// Reckons with a container that a Unit has taken on a server: it has its room already.
    pub(super) fn put(&mut self, unit: &'a UnitId, server: &'a Server) {
        if self.placed.last() != Some(&unit) {
            self.placed.push(unit);
        }
        self.touched.get_or_default(&server.id).place(unit);
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
        deadline: Option<ManagerTime>,
    ) {
        self.intend_for(&container.unit, container, kind, generation, because, deadline);
    }

    fn intend_for(
        &mut self,
        unit: &UnitId,
        container: &Container,
        kind: OperationKind,
        generation: Generation,
        because: String,
        deadline: Option<ManagerTime>,
    ) {
        self.last_operation = self.last_operation.next();
        self.plan.events.push(Event::Intended {
            operation: Box::new(Operation {
                id: self.last_operation,
                kind,
                container: container.id.clone(),
                unit: unit.clone(),
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
