//! One turn of the Manager: what happened is applied, the planner decides, the turn is written, and only when it is
//! durable anything is sent.

use std::collections::BTreeMap;

use cocktail_core::command::{Command, Count};
use cocktail_core::container::ContainerState;
use cocktail_core::contract::{Actor, ProbeKind};
use cocktail_core::event::{Event, Soft, Turn};
use cocktail_core::fleet::{FleetEvent, ServerOperation, ServerOperationKind};
use cocktail_core::id::{ContainerId, OperationId, ServerId};
use cocktail_core::operation::{OperationKind, OperationState};
use cocktail_core::plan;
use cocktail_core::rollout::{RolloutState, RolloutStep};
use cocktail_core::server::{ServerState, ServerStep};
use cocktail_core::state::State;

use super::Planted;
use super::manager::{Input, Pending, Stage};
use super::provider::Answer;
use super::user::BUSY;
use super::world::{Happening, World};

/// Containers that one turn makes at most.
pub(super) const CLAIMS: usize = 64;
/// Turns between two passes over everything.
const EVERY: u64 = 64;

impl World {
    pub(super) fn turn(&mut self) {
        let (now, wall) = (self.manager_time(), self.wall_clock());
        let Some(mut manager) = self.manager.take() else { return };
        manager.turns += 1;
        manager.state.advance(now, wall);
        let mut scaled = Vec::new();
        let mut events = Vec::new();
        let early = std::mem::take(&mut manager.early);
        let inbox = std::mem::take(&mut manager.inbox);
        for input in inbox {
            if let Input::Soft(soft) = &input {
                manager.state.note(soft);
                continue;
            }
            for event in self.events_of(&manager.state, input, &mut manager.early, &mut scaled) {
                manager.state.apply(&event);
                events.push(event);
            }
        }
        for event in early {
            if is_early(&manager.state, &event) {
                manager.early.push(event);
            } else if is_news(&manager.state, &event) {
                manager.state.apply(&event);
                events.push(event);
            }
        }
        self.plant_inputs(&mut manager.state, &mut events);
        let inputs = events.len();
        if self.has(Planted::DrainFirst) {
            drain_first(&mut manager.state, &mut events);
        }
        events.append(&mut plan::decide_first(&mut manager.state, CLAIMS));
        self.plant_decisions(&mut manager.state, &mut events);
        if !manager.state.is_dirty() && manager.turns.is_multiple_of(EVERY) {
            self.check_passes(&manager.state);
        }
        for anomaly in manager.state.take_anomalies() {
            self.breach("A1 possible", anomaly);
        }
        manager.state.take_ended_server_operations();
        let dies = manager.dies;
        let epoch = manager.epoch;
        let turn = Turn { now: manager.state.now, at: manager.state.at, epoch, events };
        self.manager = Some(manager);
        if dies == Some(Stage::BeforeCommit) {
            return self.crash(true);
        }
        if turn.events.is_empty() && scaled.is_empty() {
            return self.rest_of_turn();
        }
        let Ok(bytes) = serde_json::to_vec(&turn) else {
            return self.breach("E2 replay", "a turn cannot be written");
        };
        self.trace.bytes(&bytes);
        if self.trace.has_lines() {
            for event in &turn.events {
                let (kind, object, reason) = event.describe();
                self.trace.line(self.now, format_args!("{kind} {object}: {reason}"));
            }
        }
        self.trace.events += turn.events.len() as u64;
        if !self.store.append(epoch, bytes, false) {
            return self.breach("I9 epochs", "the living Manager is refused");
        }
        let decided = self.now;
        if let Some(manager) = &mut self.manager {
            manager.pending = Some(Pending { inputs, decided, scaled });
        }
        if self.has(Planted::RecordAfterActing) {
            self.act_early(&turn);
        }
        match dies {
            Some(Stage::CommitLost) => return self.crash(true),
            Some(Stage::CommitKept) => return self.crash(false),
            _ => {}
        }
        let long = if self.chance.happens(self.rates.sync_slow) { 2_000 } else { 4 };
        let (pause, life) = (self.chance.between(1, long), self.life);
        self.after(pause, Happening::Synced { life });
    }

    /// The commit is durable: everything that follows from it is sent.
    pub(super) fn synced(&mut self) {
        let Some(turn) = self.store.sync() else { return };
        let (pending, dies) = match &mut self.manager {
            Some(manager) => (manager.pending.take(), manager.dies),
            None => (None, None),
        };
        self.durable(&turn, pending.as_ref());
        if dies == Some(Stage::BeforeSend) {
            return self.crash(true);
        }
        self.act(&turn);
        if dies == Some(Stage::AfterSend) {
            return self.crash(true);
        }
        if self.store.is_long() {
            let written = self.store.write_snapshot(&self.replayed);
            if let Err(error) = written {
                self.breach("E2 replay", format!("a state cannot be written: {error}"));
            }
            if let Some(manager) = self.manager.take() {
                self.check_live(&manager.state);
                self.manager = Some(manager);
            }
        }
        self.rest_of_turn();
    }

    /// A turn became durable: the journal's state follows it, and everything in it is looked at.
    pub(super) fn durable(&mut self, turn: &Turn, pending: Option<&Pending>) {
        self.watch_turn(turn, pending);
        if let Some(pending) = pending {
            for (unit, count) in &pending.scaled {
                self.watch.promised.insert(unit.clone(), *count);
            }
        }
    }

    fn rest_of_turn(&mut self) {
        let life = self.life;
        let now = self.manager_time();
        let Some(manager) = &mut self.manager else { return };
        manager.busy = false;
        if manager.dies.is_some() {
            return self.crash(true);
        }
        if manager.state.is_dirty() || !manager.inbox.is_empty() {
            return self.turn_soon();
        }
        manager.wake += 1;
        let number = manager.wake;
        if let Some(at) = manager.state.wake_at() {
            let pause = at.0.saturating_sub(now.0).max(1);
            self.after(pause, Happening::Wake { life, number });
        }
    }

    /// Sends what a turn intended.
    fn act(&mut self, turn: &Turn) {
        let life = self.life;
        for event in &turn.events {
            match event {
                Event::Intended { operation } => {
                    let operation = operation.id;
                    self.after(0, Happening::Send { life, operation });
                }
                Event::DrainBegun { container, .. } => self.drain(container),
                Event::Fleet { event } => match &**event {
                    FleetEvent::Intended { operation } => {
                        let operation = operation.id;
                        self.after(0, Happening::Send { life, operation });
                    }
                    FleetEvent::Delayed { operation, until, .. } => {
                        let pause = until.0.saturating_sub(self.manager_time().0);
                        let operation = *operation;
                        self.after(pause, Happening::Send { life, operation });
                    }
                    _ => {}
                },
                _ => {}
            }
        }
    }

    /// Planted: calls to the provider are sent while their intent is being written.
    fn act_early(&mut self, turn: &Turn) {
        let life = self.life;
        for event in &turn.events {
            if let Event::Fleet { event } = event
                && let FleetEvent::Intended { operation } = &**event
            {
                let operation = operation.id;
                self.after(0, Happening::Send { life, operation });
            }
        }
    }

    /// A container left the routing table: its connections end sooner or later, and the forwarder tells.
    fn drain(&mut self, container: &ContainerId) {
        let (ends, life) = (self.watch.connections_end(container).unwrap_or(self.now), self.life);
        let soft = Soft::Drained { container: container.clone() };
        self.at(ends + 1, Happening::Noted { life, soft });
    }

    /// What an input amounts to for the state as it is now.
    fn events_of(
        &mut self,
        state: &State,
        input: Input,
        early: &mut Vec<Event>,
        scaled: &mut Vec<(String, u32)>,
    ) -> Vec<Event> {
        match input {
            Input::Event(event) if is_early(state, &event) => {
                early.push(event);
                Vec::new()
            }
            Input::Event(event) if is_news(state, &event) => vec![event],
            Input::Event(_) => Vec::new(),
            // Noted where it is taken, since it is not part of the journal.
            Input::Soft(_) => Vec::new(),
            Input::Answered(operation, Answer::Provisioned(answer)) => state.provisioned(operation, answer),
            Input::Answered(operation, Answer::Cleared(answer)) => state.cleared(operation, answer),
            Input::Answered(operation, Answer::Terminated(answer)) => state.terminated(operation, answer),
            Input::Listed { asked, listing } => {
                let mut events = state.listed(&self.cloud, asked, &listing);
                if self.has(Planted::MissingIsGone) && listing.complete {
                    let named = |id: &ServerId| listing.servers.iter().any(|it| it.server == *id);
                    let there = state
                        .servers
                        .values()
                        .filter(|it| matches!(it.state, ServerState::Booting | ServerState::Ready) && !named(&it.id));
                    let because = || "not found".to_owned();
                    events
                        .extend(there.map(|it| FleetEvent::Gone { server: it.id.clone(), because: because() }.into()));
                }
                events
            }
            Input::MachineListed { server, asked, listing, ready } => {
                let mut events = state.found(&server, asked, &listing);
                events.extend(ready.into_iter().flat_map(|(container, generation, ok, says)| {
                    if let Some(said) = says {
                        return state.worker_said(&container, generation, &said);
                    }
                    let (probe, detail) = (ProbeKind::Ready, "asked".to_owned());
                    let event = Event::Probed { container, generation, probe, ok, detail };
                    is_news(state, &event).then_some(event).into_iter().collect()
                }));
                events
            }
            Input::Said(container, generation, said) => state.worker_said(&container, generation, &said),
            Input::Noticed(notices) => state.interrupted(&self.cloud, &notices),
            Input::Hello(server) => self.joined(state, &server).into_iter().collect(),
            Input::Command(command) => match state.command(&command, &Actor("user".into())) {
                Ok(commanded) => {
                    // What the load decides was promised for now, and not for later.
                    if let Command::Scale { unit, count: Count::Exactly(count) } = *command
                        && unit != BUSY
                    {
                        scaled.push((unit, count));
                    }
                    commanded.events
                }
                Err(_) => Vec::new(),
            },
        }
    }

    fn joined(&self, state: &State, server: &ServerId) -> Option<Event> {
        let waits = matches!(state.servers.get(server)?.state, ServerState::Provisioning | ServerState::Booting);
        let machine = self.machines.get(server).filter(|_| waits)?;
        let capacity = self.provider.offerings.get(machine.offering)?.allocatable;
        let (server, incarnation) = (server.clone(), format!("boot-{}", machine.boot));
        let address = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        Some(FleetEvent::Joined { server, incarnation, capacity, address }.into())
    }

    /// Planted bugs of what is taken in.
    fn plant_inputs(&mut self, state: &mut State, events: &mut Vec<Event>) {
        let mut push = |state: &mut State, event: Event| {
            state.apply(&event);
            events.push(event);
        };
        if self.has(Planted::LimitIgnoresPending) {
            let coming = |it: ServerState| matches!(it, ServerState::Provisioning | ServerState::Booting);
            let count = state.servers.values().filter(|it| coming(it.state)).count();
            let FleetEvent::ProviderSeen { provider, grows, mut limits, offerings, images } = self.provider_seen()
            else {
                return;
            };
            limits.max_servers += u32::try_from(count).unwrap_or_default();
            if state.providers.get(&provider).is_some_and(|it| it.limits != limits) {
                push(state, FleetEvent::ProviderSeen { provider, grows, limits, offerings, images }.into());
            }
        }
    }

    /// Planted bugs of what is decided.
    fn plant_decisions(&mut self, state: &mut State, events: &mut Vec<Event>) {
        let mut more: Vec<Event> = Vec::new();
        for event in events.iter() {
            match event {
                Event::Intended { operation }
                    if self.has(Planted::PortFreedEarly) && matches!(operation.kind, OperationKind::Stop { .. }) =>
                {
                    self.watch.freed.push(operation.container.clone());
                }
                Event::DrainBegun { container, .. } if self.has(Planted::DrainAtOnce) => {
                    state.note(&Soft::Drained { container: container.clone() });
                }
                Event::RolloutStepped { unit, step: RolloutStep::Finish | RolloutStep::Pause, .. }
                    if self.has(Planted::RollbackLoop) =>
                {
                    let rollout = state.units.get(unit).and_then(|it| it.rollout.as_ref()).filter(|it| it.back);
                    if let Some(to) = rollout.and_then(|it| it.from) {
                        let (unit, because) = (unit.clone(), "it failed as well".to_owned());
                        let step = RolloutStep::RollBack { to };
                        more.push(Event::RolloutStepped { unit, step, failed: true, because });
                    }
                }
                _ => {}
            }
        }
        for container in &self.watch.freed {
            free_ports(state, container);
        }
        if self.has(Planted::IdleWithoutAck) {
            more.extend(idle_without_ack(state));
        }
        for event in more {
            state.apply(&event);
            events.push(event);
        }
        if self.has(Planted::DrainAtOnce) || self.has(Planted::RollbackLoop) {
            events.append(&mut plan::decide_first(state, CLAIMS));
        }
    }
}

/// Planted: a rearrangement drains at once.
fn drain_first(state: &mut State, events: &mut Vec<Event>) {
    let mut leaving = Vec::new();
    for event in events.iter() {
        if let Event::Fleet { event } = event
            && let FleetEvent::Rearranging { server, rearrangement: Some(rearrangement) } = &**event
        {
            let here = state.containers.values().filter(|it| it.server == *server && it.state.is_live());
            leaving.extend(here.map(|it| (it.id.clone(), rearrangement.because.clone())));
        }
    }
    for (container, because) in leaving {
        let event = Event::DrainBegun { container, because };
        state.apply(&event);
        events.push(event);
    }
}

/// Planted: what was asked to leave counts as gone.
fn idle_without_ack(state: &State) -> Vec<Event> {
    let mut leaving: BTreeMap<&ServerId, bool> = BTreeMap::new();
    for container in state.containers.values() {
        let goes = container.state == ContainerState::Draining && container.operation.is_some();
        *leaving.entry(&container.server).or_insert(true) &= goes;
    }
    let free = |id: &&ServerId| {
        leaving.get(*id) == Some(&true)
            && state.servers.get(*id).is_some_and(|it| it.state == ServerState::Ready && it.tenure.operation.is_none())
    };
    let Some(server) = leaving.keys().copied().find(free) else { return Vec::new() };
    let Some(provider) = state.servers.get(server).map(|it| it.provider.clone()) else { return Vec::new() };
    let because = "nothing is left on it".to_owned();
    let operation = ServerOperation {
        id: OperationId(state.last_operation.0 + 1),
        provider,
        kind: ServerOperationKind::Terminate { reason: cocktail_core::contract::TerminateReason::Empty },
        servers: vec![server.clone()],
        state: OperationState::Intended,
        error: None,
        because: because.clone(),
        since: state.at,
        intended: state.now,
        tries: 0,
        not_before: None,
    };
    let step = FleetEvent::Stepped { server: server.clone(), step: ServerStep::Drain, because };
    vec![step.into(), FleetEvent::Intended { operation: Box::new(operation) }.into()]
}

/// Planted: what a container holds is free although it runs.
pub(super) fn free_ports(state: &mut State, container: &ContainerId) {
    let Some(record) = state.containers.get(container) else { return };
    let (server, ports, now): (_, Vec<u16>, _) = (record.server.clone(), record.port_numbers().collect(), state.now);
    if let Some(pool) = state.ports.get_mut(&server) {
        pool.release(container, ports, now);
    }
}

/// Whether a probe is about a start that is not known yet.
fn is_early(state: &State, event: &Event) -> bool {
    let Event::Probed { container, generation, .. } = event else { return false };
    let starting = |it: ContainerState| {
        matches!(it, ContainerState::Preparing | ContainerState::Prepared | ContainerState::Starting)
    };
    state.containers.get(container).is_some_and(|it| it.generation == *generation && starting(it.state))
}

/// Whether an observation says something new.
fn is_news(state: &State, event: &Event) -> bool {
    match event {
        Event::Probed { container, generation, probe: ProbeKind::Ready, ok, .. } => {
            state.containers.get(container).is_some_and(|it| {
                let running = matches!(it.state, ContainerState::Loading | ContainerState::Ready);
                it.generation == *generation && running && *ok != (it.state == ContainerState::Ready)
            })
        }
        Event::Exited { container, generation, .. } => {
            state.containers.get(container).is_some_and(|it| it.generation == *generation && it.state.may_run())
        }
        Event::Removed { container } => state.containers.contains_key(container),
        Event::Assigned { operation, .. } | Event::Unloaded { operation, .. } => {
            state.operations.contains_key(operation)
        }
        _ => true,
    }
}

/// Whether a Unit's rollout has come to an end.
pub(super) fn is_settled(rollout: Option<&cocktail_core::rollout::Rollout>) -> bool {
    rollout
        .is_none_or(|it| !matches!(it.state, RolloutState::Running | RolloutState::RollingBack | RolloutState::Paused))
}
