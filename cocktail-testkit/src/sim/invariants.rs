//! What must hold at every step, and what looks at it.
//!
//! The names are those that the documentation promises:
//!
//! | name | what holds |
//! | --- | --- |
//! | I1 intent | what a call creates was durable in the journal before the call was sent |
//! | I2 once | a claim has at most one server, and one generation of a container is started once |
//! | I3 ports | two live containers never share server and port, and what runs has its lease |
//! | I4 limit | there are never more servers than the limit; those on their way and leaving count |
//! | I5 floor | ready containers never fall below the floor by our decision, no server goes while something runs there |
//! | I6 unknown | nothing counts as gone or ended that is there |
//! | I7 drain | nothing is placed on what is leaving, and a drained container is stopped when its connections ended or its time is over |
//! | I8 facts | an operation ends only by something that was observed |
//! | I9 epochs | an older Manager is never obeyed |
//! | I10 volumes | a volume that outlives its container is deleted by nobody, and an exclusive one has one holder at a time |
//! | I11 promises | what a user was answered survives a crash |
//! | I12 pauses | a call is not repeated before its pause is over, whoever repeats it |
//! | I13 time | Manager time runs only while a Manager runs |
//! | I14 rollback | an update goes back once, and no two revisions go back in turn |
//! | I15 workers | a worker is told what to load only when it has nothing loaded |
//! | E1 passes | a pass over everything finds nothing that the incremental passes missed |
//! | E2 replay | the journal gives the state that was live |
//! | A1 possible | nothing happens that the lifecycles do not know |
//! | V1 rest | after the faults end, what was asked for is there and nothing else |
//! | V2 every operation ends | none stays open |

use std::collections::{BTreeMap, BTreeSet};

use cocktail_core::container::ContainerState;
use cocktail_core::contract::{Launch, LaunchVolume};
use cocktail_core::event::{Event, Turn};
use cocktail_core::fleet::FleetEvent;
use cocktail_core::id::{ContainerId, OperationId, ServerId, UnitId};
use cocktail_core::operation::{Failure, OperationKind};
use cocktail_core::plan;
use cocktail_core::ports::PortLease;
use cocktail_core::rollout::RolloutStep;
use cocktail_core::server::ServerState;
use cocktail_core::spec::{NoRoom, VolumeKind};
use cocktail_core::state::State;
use cocktail_core::time::ManagerTime;

use super::manager::Pending;
use super::turn::free_ports;
use super::world::World;
use super::{Breach, Planted};

/// What the invariants remember.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) breach: Option<Breach>,
    /// Starts that failed, so that the same call fails again.
    pub(super) failed: BTreeMap<OperationId, Failure>,
    /// When the connections of a container that left the routing table are over.
    connections: BTreeMap<ContainerId, u64>,
    /// Servers that an operation was told will not be made.
    pub(super) denied: BTreeSet<(OperationId, ServerId)>,
    /// Before when a call is not repeated.
    pauses: BTreeMap<OperationId, ManagerTime>,
    /// Counts that users were promised.
    pub(super) promised: BTreeMap<String, u32>,
    /// Ways back by Unit since a user last changed it.
    back: BTreeMap<UnitId, u32>,
    /// Containers whose ports a planted bug has freed.
    pub(super) freed: Vec<ContainerId>,
    turns: u64,
}

impl Watch {
    pub(super) fn connections_end(&self, container: &ContainerId) -> Option<u64> {
        self.connections.get(container).copied()
    }
}

impl World {
    /// Applies a durable turn to what the journal says, and looks at each event before it is applied.
    pub(super) fn watch_turn(&mut self, turn: &Turn, pending: Option<&Pending>) {
        if turn.epoch < self.replayed.epoch {
            self.breach("I9 epochs", format!("a turn of epoch {} follows {}", turn.epoch, self.replayed.epoch));
        }
        if turn.now.0 > self.uptime() + 1 {
            self.breach("I13 time", format!("{} ms are counted, Managers ran for {}", turn.now.0, self.uptime()));
        }
        self.replayed.advance(turn.now, turn.at);
        self.replayed.epoch = turn.epoch;
        let decisions = pending.map_or(0, |pending| pending.inputs);
        let decided = pending.map_or(self.now, |pending| pending.decided);
        let mut ready = BTreeMap::new();
        let mut drained = false;
        for (index, event) in turn.events.iter().enumerate() {
            if index == decisions {
                ready = self.ready();
            }
            if let Event::DrainBegun { because, .. } = event {
                drained |= !because.ends_with("its time is over");
            }
            self.watch_event(turn.now, decided, event);
            self.replayed.apply(event);
        }
        if drained && pending.is_some() {
            self.check_floor(&ready, turn);
        }
        for container in std::mem::take(&mut self.watch.freed) {
            free_ports(&mut self.replayed, &container);
        }
        self.watch.turns += 1;
        if self.watch.turns.is_multiple_of(16) {
            self.check_ports();
        }
    }

    fn watch_event(&mut self, now: ManagerTime, decided: u64, event: &Event) {
        match event {
            Event::Claimed { container, server, .. } => {
                let state = self.replayed.servers.get(server).map(|it| it.state);
                if state != Some(ServerState::Ready) {
                    self.breach("I7 drain", format!("{container} is placed on {server}, which is {state:?}"));
                }
            }
            Event::Exited { container, generation, .. } => {
                let known = self.replayed.containers.get(container);
                let machine = known.and_then(|it| self.machines.get(&it.server));
                let runs = machine.and_then(|it| it.processes.get(container));
                if runs.is_some_and(|it| it.generation == *generation) {
                    self.breach("I6 unknown", format!("{container} counts as ended and runs"));
                }
            }
            Event::DrainBegun { container, .. } => {
                let was_ready = self.replayed.containers.get(container).map(|it| it.state);
                // Connections of busy workers are open for longer.
                let longest = if self.user.load > 20 { 8_000 } else { 3_000 };
                let pause = if was_ready == Some(ContainerState::Ready) { self.chance.below(longest) } else { 0 };
                let ends = self.now + pause;
                self.watch.connections.entry(container.clone()).or_insert(ends);
            }
            Event::Intended { operation } => {
                if let OperationKind::Stop { .. } = operation.kind {
                    self.watch_stop(now, decided, &operation.container);
                }
            }
            Event::Removed { container } => {
                self.watch.connections.remove(container);
            }
            Event::Applied { .. } => {
                self.watch.promised.clear();
                self.watch.back.clear();
            }
            Event::RolloutStepped { unit, step: RolloutStep::RollBack { .. }, failed: true, .. } => {
                let ways = self.watch.back.entry(unit.clone()).or_default();
                *ways += 1;
                if *ways > 1 {
                    self.breach("I14 rollback", format!("{unit} goes back again"));
                }
            }
            // What a user steers may fail again.
            Event::RolloutStepped {
                unit,
                failed: false,
                step: RolloutStep::Resume | RolloutStep::RollBack { .. },
                ..
            } => {
                self.watch.back.remove(unit);
            }
            Event::Fleet { event } => self.watch_fleet(event),
            _ => {}
        }
    }

    fn watch_fleet(&mut self, event: &FleetEvent) {
        match event {
            FleetEvent::Gone { server, .. } if self.provider.runs(server) => {
                self.breach("I6 unknown", format!("{server} counts as gone and runs"));
            }
            FleetEvent::Accepted { server, provider_id } => {
                let made = self.provider.objects.get(provider_id).is_some_and(|it| it.server == *server);
                if !made {
                    self.breach("I8 facts", format!("{server} is accepted as {provider_id}, which nobody made"));
                }
            }
            FleetEvent::Refused { server, .. }
                if self.provider.ours().any(|(_, it)| it.server == *server && !it.late) =>
            {
                self.breach("I8 facts", format!("{server} counts as refused and is there"));
            }
            FleetEvent::Released { server } if self.provider.runs(server) => {
                self.breach("I8 facts", format!("{server} counts as given back and runs"));
            }
            FleetEvent::Delayed { operation, until, .. } => {
                self.watch.pauses.insert(*operation, *until);
            }
            _ => {}
        }
    }

    /// A drained container is asked to end.
    fn watch_stop(&mut self, now: ManagerTime, decided: u64, container: &ContainerId) {
        let Some(record) = self.replayed.containers.get(container) else { return };
        let routed = self.replayed.units.get(&record.unit).is_some_and(cocktail_core::unit::Unit::is_routed);
        if record.state != ContainerState::Draining || !routed || record.deadline.is_none() {
            return;
        }
        let late = record.deadline.is_some_and(|deadline| deadline <= now);
        let open = self.watch.connections.get(container).is_some_and(|ends| *ends > decided);
        if open && !late {
            self.breach("I7 drain", format!("{container} is stopped while connections are open"));
        }
    }

    /// Ready containers by Unit.
    fn ready(&self) -> BTreeMap<UnitId, usize> {
        let mut ready = BTreeMap::new();
        for container in self.replayed.containers.values().filter(|it| it.state == ContainerState::Ready) {
            match ready.get_mut(&container.unit) {
                Some(count) => *count += 1,
                None => {
                    ready.insert(container.unit.clone(), 1);
                }
            }
        }
        ready
    }

    /// I5: decisions leave as many ready as there were, or as are wanted.
    fn check_floor(&mut self, before: &BTreeMap<UnitId, usize>, turn: &Turn) {
        let after = self.ready();
        let mut found = None;
        for (id, unit) in &self.replayed.units {
            let exempt = unit.stop_first().is_some() || unit.spec.update.no_room == NoRoom::Replace;
            let forced = turn.events.iter().any(
                |event| matches!(event, Event::DrainBegun { because, .. } if because.ends_with("its time is over")),
            );
            let count = |ready: &BTreeMap<UnitId, usize>| ready.get(id).copied().unwrap_or_default();
            let floor = count(before).min(unit.goal() as usize);
            if count(&after) < floor && !exempt && !forced {
                found = Some(format!("{id} has {} ready, its floor is {floor}", count(&after)));
            }
        }
        if let Some(found) = found {
            self.breach("I5 floor", found);
        }
    }

    /// I3: what holds ports has its leases, and nobody else has.
    fn check_ports(&mut self) {
        let mut held: BTreeMap<(&ServerId, u16), &ContainerId> = BTreeMap::new();
        let mut found = None;
        for record in self.replayed.containers.values().filter(|it| it.holds_ports()) {
            for port in record.port_numbers() {
                if let Some(other) = held.insert((&record.server, port), &record.id) {
                    found = Some(format!("{other} and {} both have port {port} of {}", record.id, record.server));
                }
                let lease = self.replayed.ports.get(&record.server).and_then(|pool| pool.lease(port));
                if !matches!(lease, Some(PortLease::Held(holder)) if *holder == record.id) {
                    found = Some(format!("{} has port {port} of {} without a lease", record.id, record.server));
                }
            }
        }
        if let Some(found) = found {
            self.breach("I3 ports", found);
        }
    }

    /// The provider made something.
    pub(super) fn watch_made(&mut self, id: &str, operation: OperationId) {
        if !self.store.ledger.contains(&operation) {
            self.breach("I1 intent", format!("{id} was made by operation {operation}, which is not durable"));
        }
        let Some(object) = self.provider.objects.get(id) else { return };
        let server = object.server.clone();
        let same = self.provider.ours().filter(|(_, it)| it.server == server).count();
        if same > 1 {
            self.breach("I2 once", format!("{same} servers are {server}"));
        }
        let there = self.provider.ours().filter(|(_, it)| !it.late).count();
        if there > self.limit as usize {
            self.breach("I4 limit", format!("{there} servers, {} are the limit", self.limit));
        }
    }

    /// A call is sent.
    pub(super) fn watch_send(&mut self, operation: OperationId, now: ManagerTime) {
        if self.watch.pauses.get(&operation).is_some_and(|until| *until > now) {
            self.breach("I12 pauses", format!("operation {operation} is sent again before its pause is over"));
        }
    }

    /// Servers are given back.
    pub(super) fn watch_terminate(&mut self, servers: &[ServerId]) {
        for server in servers {
            let running = self.machines.get(server).and_then(|it| it.processes.keys().next());
            if let Some(container) = running {
                let detail = format!("{server} is given back while {container} runs there");
                return self.breach("I5 floor", detail);
            }
        }
    }

    /// A worker is about to be started.
    pub(super) fn watch_start(&mut self, server: &ServerId, launch: &Launch) {
        let elsewhere = |(id, it): (&ServerId, &super::machine::Machine)| {
            id != server && it.processes.contains_key(&launch.container)
        };
        if self.machines.iter().any(elsewhere) {
            return self.breach("I2 once", format!("{} is started on {server} and runs elsewhere", launch.container));
        }
        let Some(machine) = self.machines.get(server) else { return };
        if machine.processes.contains_key(&launch.container) {
            return self.breach("I2 once", format!("{} is started again while it runs", launch.container));
        }
        self.watch_assign(server, launch);
        let path = |volume: &LaunchVolume| volume.path.display().to_string();
        let mut wanted = launch.volumes.iter().filter(|it| it.kind == VolumeKind::Exclusive).map(path);
        let mut running = self.machines.values().flat_map(|it| &it.processes);
        let twice = wanted.find_map(|path| Some((running.find(|(_, it)| it.holds.contains(&path))?.0.clone(), path)));
        if let Some((other, path)) = twice {
            self.breach("I10 volumes", format!("{} and {other} both have {path}", launch.container));
        }
    }

    /// A worker is about to listen at its ports.
    pub(super) fn watch_assign(&mut self, server: &ServerId, launch: &Launch) {
        let Some(machine) = self.machines.get(server) else { return };
        let taken = |port: u16| machine.processes.iter().find(|(_, it)| it.ports.contains(&port)).map(|(id, _)| id);
        let shared = launch.ports.iter().find_map(|port| Some((port.port, taken(port.port)?.clone())));
        if let Some((port, other)) = shared {
            let detail = format!("{} and {other} share port {port} of {server}", launch.container);
            self.breach("I3 ports", detail);
        }
    }

    /// A container is forgotten on its server.
    pub(super) fn watch_remove(&mut self, server: &ServerId, container: &ContainerId, with_volumes: bool) {
        let Some(machine) = self.machines.get_mut(server) else { return };
        let lasting = machine.volumes.values().filter(|lasts| **lasts).count();
        let runs = machine.processes.contains_key(container);
        machine.forget(container, with_volumes);
        let left = machine.volumes.values().filter(|lasts| **lasts).count();
        if runs {
            self.breach("I6 unknown", format!("{container} is removed while it runs"));
        }
        if left < lasting {
            self.breach("I10 volumes", format!("a volume goes with {container}"));
        }
    }

    /// E1: a pass over everything finds nothing.
    pub(super) fn check_passes(&mut self, state: &State) {
        let mut all = state.clone();
        all.mark_all();
        if let Some(event) = plan::decide(&mut all).first() {
            let (kind, object, reason) = event.describe();
            self.breach("E1 passes", format!("missed: {kind} {object}: {reason}"));
        }
    }

    /// E2: the state that was live is the one that the journal gives.
    pub(super) fn check_live(&mut self, live: &State) {
        let mut replayed = self.replayed.clone();
        replayed.advance(live.now, live.at);
        let mut live = live.clone();
        for state in [&mut live, &mut replayed] {
            let now = state.now;
            for pool in state.ports.values_mut() {
                pool.expire(now);
            }
            for record in state.containers.values_mut() {
                (record.drained, record.usage) = (false, None);
            }
        }
        if live != replayed {
            let detail = difference(&live, &replayed);
            self.breach("E2 replay", detail);
        }
    }

    /// E2: what a new Manager reads is what was written.
    pub(super) fn check_replay(&mut self, loaded: &State) {
        let replayed = std::mem::replace(&mut self.replayed, loaded.clone());
        let mut same = loaded.clone();
        same.advance(replayed.now, replayed.at);
        let mut replayed = replayed;
        for state in [&mut same, &mut replayed] {
            let now = state.now;
            for pool in state.ports.values_mut() {
                pool.expire(now);
            }
        }
        if same != replayed && !self.has(Planted::PortFreedEarly) && !self.has(Planted::PauseForgotten) {
            let detail = difference(&same, &replayed);
            self.breach("E2 replay", detail);
        }
    }

    /// I11: what users were answered is there.
    pub(super) fn check_promises(&mut self, loaded: &State) {
        let kept = |(name, count): &(&String, &u32)| {
            let id = loaded.unit_named(name).ok();
            let unit = id.and_then(|id| loaded.units.get(&id));
            unit.is_none_or(|unit| unit.removing || unit.desired == **count)
        };
        let lost = self.watch.promised.iter().find(|it| !kept(it)).map(|(name, count)| format!("{count} {name}"));
        if let Some(lost) = lost {
            self.breach("I11 promises", format!("the user was promised {lost}"));
        }
    }
}

/// The first thing in which two states differ.
fn difference(one: &State, other: &State) -> String {
    for (id, record) in &one.containers {
        if other.containers.get(id) != Some(record) {
            return format!("{record:?} is {:?}", other.containers.get(id));
        }
    }
    for (id, server) in &one.servers {
        if other.servers.get(id) != Some(server) {
            return format!("{server:?} is {:?}", other.servers.get(id));
        }
    }
    for (id, unit) in &one.units {
        if other.units.get(id) != Some(unit) {
            return format!("{unit:?} is {:?}", other.units.get(id));
        }
    }
    if one.providers != other.providers {
        return format!("{:?} is {:?}", one.providers, other.providers);
    }
    if one.ports != other.ports {
        return "ports differ".into();
    }
    "operations or something else differ".into()
}
