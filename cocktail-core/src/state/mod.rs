//! Everything that a Manager knows, as one value.
//!
//! Start at [`State`]. It changes only by [`State::apply`] (durable events), [`State::note`] (soft observations) and
//! [`State::advance`] (time). Each change marks what it touched as dirty, so that the planner looks at that and at
//! nothing else; [`State::mark_all`] marks everything, and after a turn that must lead to an empty plan.
//! What was asked for may be anything; what is recorded as seen was seen.

mod apply;
mod contact;
mod containers;
mod fleet;
mod found;
mod images;
mod inspect;
mod objects;
mod outcomes;
mod progress;
mod provided;
pub(crate) mod rooms;
mod roster;
mod routes;
mod server_views;
mod shared;
#[cfg(test)]
mod tests;
mod views;
mod workers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::containers::Containers;
pub use self::objects::Object;
pub(crate) use self::roster::{Class, Group, Roster};

use crate::container::ContainerState;
use crate::contract::{InOrder, PlacementPolicy};
use crate::event::Turn;
use crate::fleet::{ProviderRecord, ServerOperation};
use crate::id::{ContainerId, Epoch, OperationId, ServerId, StoreId, UnitId};
use crate::lookup::Lookup;
use crate::name::Name;
use crate::operation::Operation;
use crate::ports::{PortLease, PortPool};
use crate::scaling::{ScalingPolicy, TargetTracking, Window};
use crate::server::Server;
use crate::settings::Settings;
use crate::spec::{Labels, Quota};
use crate::time::{ManagerTime, WallTime};
use crate::unit::Unit;

/// Ended operations that are kept for `ops`.
const ENDED_OPERATIONS: usize = 256;

/// Everything that a Manager knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The store that it belongs to; the seed of everything that looks like chance.
    pub store: StoreId,
    /// The lease under which the last turn was decided.
    pub epoch: Epoch,
    /// Manager time of the last turn.
    pub now: ManagerTime,
    /// Wall clock of the last turn, for people.
    pub at: WallTime,
    /// Settings of the running Manager.
    pub settings: Settings,
    /// Services by name.
    pub services: BTreeMap<Name, ServiceRecord>,
    /// Units by name.
    pub units: BTreeMap<UnitId, Unit>,
    /// Containers by id.
    pub containers: Containers,
    /// Servers by id.
    pub servers: BTreeMap<ServerId, Server>,
    /// Providers by name.
    #[serde(default)]
    pub providers: BTreeMap<Name, ProviderRecord>,
    /// Operations on servers that have not ended.
    #[serde(default)]
    pub server_operations: BTreeMap<OperationId, ServerOperation>,
    /// The last operations on servers that ended, oldest first.
    #[serde(default)]
    pub ended_server_operations: VecDeque<ServerOperation>,
    /// Port leases by server.
    pub ports: BTreeMap<ServerId, PortPool>,
    /// Operations that have not ended.
    pub operations: BTreeMap<OperationId, Operation>,
    /// The last operations that ended, oldest first.
    pub ended: VecDeque<Operation>,
    /// The last operation's id.
    pub last_operation: OperationId,
    /// Why the Manager decides nothing destructive by itself.
    pub frozen: Option<String>,
    /// Ends that the Manager decided by itself (unwell, late), by the time of their decision, within the window.
    pub own_stops: VecDeque<ManagerTime>,

    #[serde(skip)]
    soft: SoftState,
}

/// A Service: what all its Units share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// Limits over all maps.
    pub quota: Quota,
    /// Words of the user's own.
    pub labels: Labels,
    /// Its maps by name, with words of the user's own.
    pub maps: BTreeMap<Name, Labels>,
}

/// What is derived or forgotten: never journaled, rebuilt after loading.
#[derive(Debug, Clone, Default)]
struct SoftState {
    dirty: BTreeSet<UnitId>,
    /// Units that wait for nothing but that containers may be made.
    unfinished: BTreeSet<UnitId>,
    /// The last Unit that was marked: what happens often happens to the same one.
    marked: Option<UnitId>,
    /// Without a Unit: something that whoever waits may need has its time.
    timers: BTreeSet<(ManagerTime, Option<UnitId>)>,
    held: BTreeSet<UnitId>,
    held_dirty: bool,
    running: usize,
    unwell: usize,
    rosters: Lookup<UnitId, Roster>,
    /// Containers whose connections are waited for.
    draining: BTreeSet<ContainerId>,
    /// Workers that can be told what to load.
    waiting: roster::Waiting,
    routes_changed: bool,
    resting: BTreeMap<ServerId, BTreeSet<u16>>,
    halting: bool,
    anomalies: Vec<String>,
    anomalous: u64,
    /// What the scaling policy asked for lately.
    scaling: BTreeMap<UnitId, Window>,
    /// Why it could say nothing at the last reading.
    unknown: BTreeMap<UnitId, String>,
    /// Units without a ready container at whose service port a client waits.
    demand: BTreeSet<UnitId>,
    policy: Policies,
    /// Servers or providers are to be looked at.
    fleet_dirty: bool,
    fleet_wake: Option<ManagerTime>,
    /// When the servers of a provider are compared next, where that is wanted.
    rearranging: BTreeMap<Name, ManagerTime>,
    ended_fleet: Vec<ServerOperation>,
    rooms: rooms::Rooms,
    spots: rooms::Spots,
    here: rooms::Here,
    /// Units that found no room, with how many containers of which revision they miss.
    wanting: BTreeMap<UnitId, Want>,
}

/// What a Unit found no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Want {
    /// Containers.
    pub(crate) count: u32,
    /// Of which version.
    pub(crate) revision: crate::id::Revision,
}

/// Decisions that an embedder has exchanged.
#[derive(Debug, Clone)]
struct Policies {
    scaling: Arc<dyn ScalingPolicy>,
    placement: Arc<dyn PlacementPolicy>,
}

impl Default for Policies {
    fn default() -> Self {
        Self { scaling: Arc::new(TargetTracking), placement: Arc::new(InOrder) }
    }
}

impl PartialEq for SoftState {
    /// Two states that know the same are equal, whatever is still to be looked at.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl State {
    /// The state of a new store.
    pub fn new(store: StoreId) -> Self {
        Self {
            store,
            epoch: Epoch::default(),
            now: ManagerTime::default(),
            at: WallTime::default(),
            settings: Settings::default(),
            services: BTreeMap::new(),
            units: BTreeMap::new(),
            containers: Containers::default(),
            servers: BTreeMap::new(),
            providers: BTreeMap::new(),
            server_operations: BTreeMap::new(),
            ended_server_operations: VecDeque::new(),
            ports: BTreeMap::new(),
            operations: BTreeMap::new(),
            ended: VecDeque::new(),
            last_operation: OperationId::default(),
            frozen: None,
            own_stops: VecDeque::new(),
            soft: SoftState::default(),
        }
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// The bytes are no snapshot of this version.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let mut state: Self = serde_json::from_slice(bytes)?;
        state.rebuild();
        Ok(state)
    }

    /// A copy to be written down elsewhere while this one goes on changing: of what is stored, without anything derived.
    /// Both share the records of containers that do not change meanwhile.
    #[must_use]
    pub fn freeze(&self) -> Self {
        Self {
            store: self.store.clone(),
            epoch: self.epoch,
            now: self.now,
            at: self.at,
            settings: self.settings.clone(),
            services: self.services.clone(),
            units: self.units.clone(),
            containers: self.containers.clone(),
            servers: self.servers.clone(),
            providers: self.providers.clone(),
            server_operations: self.server_operations.clone(),
            ended_server_operations: self.ended_server_operations.clone(),
            ports: self.ports.clone(),
            operations: self.operations.clone(),
            ended: self.ended.clone(),
            last_operation: self.last_operation,
            frozen: self.frozen.clone(),
            own_stops: self.own_stops.clone(),
            soft: SoftState::default(),
        }
    }

    /// Writes a snapshot.
    ///
    /// # Errors
    /// Never for a state that was made by events; the caller may treat it as a failed write.
    pub fn to_snapshot(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Applies a turn of the journal: the replay after a crash.
    pub fn replay(&mut self, turn: &Turn) {
        self.advance(turn.now, turn.at);
        self.epoch = turn.epoch;
        for event in &turn.events {
            self.apply(event);
        }
    }

    /// Moves time forward (it never goes back) and marks what was waiting for it.
    pub fn advance(&mut self, now: ManagerTime, at: WallTime) {
        self.now = self.now.max(now);
        self.at = at;
        let mut fired = false;
        while let Some((due, unit)) = self.soft.timers.first().cloned() {
            if due > self.now {
                break;
            }
            fired = true;
            self.soft.timers.pop_first();
            self.soft.dirty.extend(unit);
        }
        if self.soft.fleet_wake.is_some_and(|due| due <= self.now) {
            self.soft.fleet_wake = None;
            self.soft.fleet_dirty = true;
            // Something may be bought again.
            self.touch_held();
        }
        let window = self.settings.budget_window;
        while self.own_stops.front().is_some_and(|at| *at + window <= self.now) {
            self.own_stops.pop_front();
        }
        if fired {
            // A port may have rested long enough, or the budget may allow something again.
            self.touch_held();
        }
    }

    /// When time alone makes something due, if ever.
    pub fn wake_at(&self) -> Option<ManagerTime> {
        let due = self.soft.timers.first().map(|(due, _)| *due);
        due.into_iter().chain(self.soft.fleet_wake).min()
    }

    /// Marks every Unit, as if everything had changed.
    pub fn mark_all(&mut self) {
        self.soft.dirty = self.units.keys().cloned().collect();
        self.soft.marked = None;
        self.soft.fleet_dirty = true;
    }

    /// Units that were touched since the last call.
    pub fn take_dirty(&mut self) -> BTreeSet<UnitId> {
        let mut dirty = std::mem::take(&mut self.soft.dirty);
        self.soft.marked = None;
        if std::mem::take(&mut self.soft.held_dirty) {
            dirty.extend(self.soft.held.iter().cloned());
        }
        for unit in &dirty {
            self.settle(unit);
        }
        dirty
    }

    /// Has Units wait for the next turn, in which more containers may be made.
    pub(crate) fn put_off(&mut self, units: BTreeSet<UnitId>) {
        self.soft.unfinished = units;
    }

    /// Units that the last turn has put off.
    pub(crate) fn take_unfinished(&mut self) -> BTreeSet<UnitId> {
        std::mem::take(&mut self.soft.unfinished)
    }

    /// Whether the last turn has put something off, because it could make only so many containers.
    pub fn is_unfinished(&self) -> bool {
        !self.soft.unfinished.is_empty()
    }

    /// Remembers what the Units that were looked at found no room for.
    pub(crate) fn set_wanting<'a>(
        &mut self,
        looked_at: impl Iterator<Item = &'a UnitId>,
        mut wanting: BTreeMap<UnitId, Want>,
    ) {
        for unit in looked_at {
            let before = self.soft.wanting.get(unit).copied();
            let after = wanting.remove(unit);
            if before == after {
                continue;
            }
            self.soft.fleet_dirty = true;
            match after {
                Some(want) => self.soft.wanting.insert(unit.clone(), want),
                None => self.soft.wanting.remove(unit),
            };
        }
    }

    /// What Units found no room for, in the order of their names.
    pub(crate) fn wanting(&self) -> impl Iterator<Item = (&UnitId, Want)> {
        self.soft.wanting.iter().map(|(unit, want)| (unit, *want))
    }

    /// Whether something waits to be looked at.
    pub fn is_dirty(&self) -> bool {
        let held = self.soft.held_dirty && !self.soft.held.is_empty();
        !self.soft.dirty.is_empty() || self.soft.fleet_dirty || held || self.is_unfinished()
    }

    /// Whether the routing table may have changed since the last call.
    pub fn take_routes_changed(&mut self) -> bool {
        std::mem::take(&mut self.soft.routes_changed)
    }

    /// Things that should be impossible and happened, for the log; each is told once.
    pub fn take_anomalies(&mut self) -> Vec<String> {
        std::mem::take(&mut self.soft.anomalies)
    }

    /// How many such things were seen since this value was made.
    pub fn anomalies(&self) -> u64 {
        self.soft.anomalous
    }

    /// Ports by server whose hold-down has ended since the last call: other Managers on the host may have them.
    pub fn take_rested_ports(&mut self) -> BTreeMap<ServerId, Vec<u16>> {
        let mut rested = BTreeMap::new();
        for (server, resting) in &mut self.soft.resting {
            let Some(pool) = self.ports.get_mut(server) else { continue };
            let free: Vec<u16> = pool.expire(self.now).into_iter().filter(|port| resting.remove(port)).collect();
            if !free.is_empty() {
                rested.insert(server.clone(), free);
            }
        }
        self.soft.resting.retain(|_, resting| !resting.is_empty());
        rested
    }

    /// Exchanges what says how many containers the load asks for. It is not part of what is stored.
    pub fn set_scaling_policy(&mut self, policy: Arc<dyn ScalingPolicy>) {
        self.soft.policy.scaling = policy;
    }

    /// Exchanges what chooses among the best servers for a container. It is not part of what is stored.
    pub fn set_placement_policy(&mut self, policy: Arc<dyn PlacementPolicy>) {
        self.soft.policy.placement = policy;
    }

    /// What chooses among the best servers for a container.
    pub(crate) fn placement(&self) -> &dyn PlacementPolicy {
        &*self.soft.policy.placement
    }

    /// What the scaling policy asked for lately.
    pub(crate) fn scaling_window(&self, unit: &UnitId) -> Option<&Window> {
        self.soft.scaling.get(unit)
    }

    /// Whether a client waits at a service port of a Unit.
    pub(crate) fn has_demand(&self, unit: &UnitId) -> bool {
        self.soft.demand.contains(unit)
    }

    /// Whether the Manager is ending and takes its containers along.
    pub fn is_halting(&self) -> bool {
        self.soft.halting
    }

    /// A number between 0 and 2^64 that looks like chance and is the same in every replay.
    pub fn chance(&self, text: &str, count: u64) -> u64 {
        let seed = crate::backoff::mix(0, self.store.as_str(), 0);
        crate::backoff::mix(seed, text, count)
    }

    /// Limits of a Service.
    pub fn quota(&self, service: &Name) -> Option<&Quota> {
        self.services.get(service).map(|service| &service.quota)
    }

    /// Marks a Unit about which something may have been told.
    fn touch(&mut self, unit: &UnitId) {
        self.mark(unit);
        self.bound_why(unit);
    }

    /// Marks a Unit: it is looked at in the next pass.
    fn mark(&mut self, unit: &UnitId) {
        if self.soft.marked.as_ref() != Some(unit) {
            self.soft.dirty.insert(unit.clone());
            self.soft.marked = Some(unit.clone());
        }
    }

    /// What is told about a Unit is bounded like everything else.
    fn bound_why(&mut self, unit: &UnitId) {
        if let Some(record) = self.units.get_mut(unit) {
            record.why.keep(self.settings.why_per_object);
        }
    }

    /// Marks the Units that wait: there may be room now, or another reason.
    fn touch_held(&mut self) {
        self.soft.held_dirty = true;
    }

    /// Looks at a Unit at the given time.
    fn wake(&mut self, at: ManagerTime, unit: &UnitId) {
        self.soft.timers.insert((at, Some(unit.clone())));
    }

    /// Looks at the Units that wait at the given time.
    fn wake_held(&mut self, at: ManagerTime) {
        self.soft.timers.insert((at, None));
    }

    /// Looks at the Units that wait when the budget allows something again.
    fn wake_for_budget(&mut self) {
        let window = self.settings.budget_window;
        self.soft.timers.extend(self.own_stops.iter().map(|at| (*at + window, None)));
    }

    /// Reports something that should be impossible; the log gets it.
    pub(crate) fn report_anomaly(&mut self, text: impl Into<String>) {
        self.soft.anomalous = self.soft.anomalous.saturating_add(1);
        if self.soft.anomalies.len() < 100 {
            self.soft.anomalies.push(text.into());
        }
    }

    /// Rebuilds what is derived, after loading.
    fn rebuild(&mut self) {
        self.soft = SoftState { policy: std::mem::take(&mut self.soft.policy), ..SoftState::default() };
        self.share_texts();
        self.mark_all();
        self.count_all();
        self.count_rooms();
        self.soft.routes_changed = true;
        let mut timers = BTreeSet::new();
        for container in self.containers.values() {
            if let ContainerState::Backoff { until } = container.state {
                timers.insert((until, Some(container.unit.clone())));
            }
            if let Some(deadline) = container.deadline {
                timers.insert((deadline, Some(container.unit.clone())));
            }
            if let Some(finish_by) = container.finish_by {
                timers.insert((finish_by, Some(container.unit.clone())));
            }
            if container.state == ContainerState::Ready
                && let Some(unit) = self.units.get(&container.unit)
            {
                timers.insert((container.entered + unit.spec.update.monitor, Some(container.unit.clone())));
            }
        }
        for (id, unit) in &self.units {
            let rollout = unit.rollout.as_ref().filter(|rollout| rollout.state.is_open());
            let due = rollout.into_iter().flat_map(|rollout| [rollout.deadline, rollout.promote_at]).flatten();
            timers.extend(due.chain(unit.refill_at()).map(|due| (due, Some(id.clone()))));
        }
        for (_, lease) in self.ports.values().flat_map(PortPool::leases) {
            if let PortLease::HoldDown(until) | PortLease::Poisoned(until) = lease {
                timers.insert((*until, None));
            }
        }
        self.soft.timers = timers;
        self.wake_for_budget();
        self.soft.held =
            self.units.iter().filter(|(_, unit)| !unit.held.is_empty()).map(|(id, _)| id.clone()).collect();
        for (server, pool) in &self.ports {
            let resting: BTreeSet<u16> = pool
                .leases()
                .filter(|(_, lease)| matches!(lease, PortLease::HoldDown(_)))
                .map(|(port, _)| port)
                .collect();
            if !resting.is_empty() {
                self.soft.resting.insert(server.clone(), resting);
            }
        }
    }
}
