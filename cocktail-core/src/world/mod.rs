//! A small world for tests: one Manager's state, a simulated machine, a journal, and time that only tests move.
//!
//! Start at [`World`]. Every turn goes the way of a real one: what happened is applied, the planner decides, the turn is
//! written as JSON and read back, and only then do its operations reach the [`machine`]. After every turn [`check`] looks
//! at everything that must always hold.

mod check;
mod machine;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use self::machine::Machine;

pub(crate) use self::machine::Answer;

use crate::command::{Command, Commanded, Count};
use crate::container::{Container, ContainerState};
use crate::contract::{Actor, Exit, ProbeKind, WorkerSaid};
use crate::error::Result;
use crate::event::{Event, Soft, Turn};
use crate::id::{ContainerId, Epoch, ServerId, StoreId, UnitId};
use crate::manifest;
use crate::name::Name;
use crate::plan;
use crate::quantity::{Bytes, CpuMillis};
use crate::server::{Server, ServerState};
use crate::settings::Settings;
use crate::spec::{Resources, ServiceSpec};
use crate::state::State;
use crate::time::{ManagerTime, WallTime};
use crate::unit::Unit;

/// One Manager on one simulated machine.
pub(crate) struct World {
    /// The state of the running Manager.
    pub(crate) state: State,
    pub(crate) machine: Machine,
    /// Containers that one turn makes at most.
    pub(crate) claims: usize,
    settings: Settings,
    base: Option<Vec<u8>>,
    journal: Vec<Turn>,
    replayed: State,
}

/// What is due later than that is not waited for: a worker that waits is exchanged some day, for ever.
const SOON: Duration = Duration::from_secs(40 * 60);

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default(), 64_000)
    }

    /// A world with its own limits, on a machine with `cpu` thousandths of a core.
    pub(crate) fn with(settings: Settings, cpu: u64) -> Self {
        let state = State::new(store());
        let replayed = state.clone();
        let machine = Machine::default();
        let mut world =
            Self { state, machine, claims: usize::MAX, settings, base: None, journal: Vec::new(), replayed };
        world.start_manager();
        world.turn(vec![Event::ServerSeen { server: Box::new(server(cpu)) }]);
        world
    }

    /// Applies a manifest.
    pub(crate) fn apply(&mut self, text: &str) -> Vec<Event> {
        self.command(&Command::Apply(vec![service(text)])).expect("an apply is not refused")
    }

    /// Gives a command and returns everything that its turn holds.
    pub(crate) fn command(&mut self, command: &Command) -> Result<Vec<Event>> {
        let Commanded { events, .. } = self.state.command(command, &actor())?;
        Ok(self.turn(events))
    }

    pub(crate) fn scale(&mut self, unit: &str, count: u32) -> Result<Vec<Event>> {
        self.command(&Command::Scale { unit: unit.into(), count: Count::Exactly(count) })
    }

    pub(crate) fn restart(&mut self, object: &str) -> Vec<Event> {
        self.command(&Command::Restart { object: object.into() }).expect("a restart is not refused")
    }

    pub(crate) fn remove(&mut self, object: &str) -> Vec<Event> {
        self.command(&Command::Remove { object: object.into() }).expect("a removal is not refused")
    }

    pub(crate) fn switch(&mut self, object: &str, stopped: bool) -> Vec<Event> {
        self.command(&Command::Switch { object: object.into(), stopped }).expect("a switch is not refused")
    }

    /// One turn, or several where more containers are missing than one may make: applies what happened, decides, writes,
    /// acts and checks. Returns all events.
    pub(crate) fn turn(&mut self, mut events: Vec<Event>) -> Vec<Event> {
        for event in &events {
            self.state.apply(event);
        }
        let mut first = 0;
        loop {
            let before = self.state.clone();
            let decided = plan::decide_first(&mut self.state, self.claims);
            check::decisions(&before, &self.state, &decided);
            events.extend(decided);
            if first < events.len() {
                self.write(&events[first..]);
                for event in &events[first..] {
                    if let Event::Intended { operation } = event {
                        self.machine.send(&self.state, operation);
                    }
                }
            }
            first = events.len();
            if !self.state.is_dirty() {
                break;
            }
        }
        check::state(&mut self.state);
        check::replay(&self.state, &self.replayed);
        events
    }

    fn write(&mut self, events: &[Event]) {
        let (now, at, epoch) = (self.state.now, self.state.at, self.state.epoch);
        let turn = Turn { now, at, epoch, events: events.to_vec() };
        let text = serde_json::to_string(&turn).expect("a turn can be written");
        let read: Turn = serde_json::from_str(&text).expect("a turn can be read");
        assert_eq!(read, turn, "the journal loses something");
        self.replayed.replay(&read);
        self.journal.push(read);
    }

    /// What was written, turn by turn.
    pub(crate) fn turns(&self) -> impl Iterator<Item = &Turn> {
        self.journal.iter()
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, span: Duration) -> Vec<Event> {
        let wall = WallTime(self.state.at.0 + i64::try_from(span.as_micros()).expect("spans of tests are short"));
        self.state.advance(self.state.now + span, wall);
        self.turn(Vec::new())
    }

    /// The machine answers one open call, if there is one.
    pub(crate) fn answer(&mut self, index: usize, answer: Answer) -> Vec<Event> {
        match self.machine.answer(index, answer) {
            Some(event) => self.turn(vec![event]),
            None => Vec::new(),
        }
    }

    /// Every open call succeeds, in order, in one turn each.
    pub(crate) fn answer_all(&mut self) {
        while self.machine.open_calls() > 0 {
            self.answer(0, Answer::Done);
        }
    }

    /// A container ends by itself.
    pub(crate) fn exit(&mut self, container: &ContainerId, exit: Exit) -> Vec<Event> {
        match self.machine.exit(container) {
            Some(generation) => self.turn(vec![Event::Exited { container: container.clone(), generation, exit }]),
            None => Vec::new(),
        }
    }

    /// A container ends, and nobody tells.
    pub(crate) fn vanish(&mut self, container: &ContainerId) {
        self.machine.exit(container);
    }

    /// A probe's result changes.
    pub(crate) fn probe(&mut self, container: &ContainerId, probe: ProbeKind, ok: bool) -> Vec<Event> {
        let Some(generation) = self.machine.generation(container) else { return Vec::new() };
        let record = self.state.containers.get(container);
        if self.machine.is_paused(container) {
            // It is paused as soon as it is up. Whoever goes on cannot be looked at before.
            let events = self.state.worker_said(container, generation, &WorkerSaid::Waiting);
            return self.turn(events);
        }
        if record.is_some_and(|record| record.worker.is_some()) && probe == ProbeKind::Ready {
            let assignment = self.machine.assignment(container);
            let (error, port_taken) = ("it cannot".to_owned(), None);
            let said = match assignment {
                None => WorkerSaid::Waiting,
                Some(assignment) if ok => WorkerSaid::Ready { assignment },
                Some(assignment) => WorkerSaid::Failed { assignment, error, port_taken },
            };
            let events = self.state.worker_said(container, generation, &said);
            return self.turn(events);
        }
        let detail = if ok { "answered" } else { "connection refused" }.into();
        self.turn(vec![Event::Probed { container: container.clone(), generation, probe, ok, detail }])
    }

    /// A complete listing of the machine.
    pub(crate) fn list(&mut self) -> Vec<Event> {
        let events = self.machine.listing(&self.state);
        self.turn(events)
    }

    pub(crate) fn note(&mut self, soft: &Soft) {
        self.state.note(soft);
        self.turn(Vec::new());
    }

    /// The server is another than it was.
    pub(crate) fn resize(&mut self, cpu: u64, state: ServerState) -> Vec<Event> {
        let server = Server { state, ..server(cpu) };
        self.turn(vec![Event::ServerSeen { server: Box::new(server) }])
    }

    /// There is an engine on the same machine.
    pub(crate) fn add_engine(&mut self, cpu: u64) {
        self.add_images(engine_id(), cpu);
    }

    /// There is another server that runs images.
    pub(crate) fn add_images(&mut self, id: ServerId, cpu: u64) {
        let engine = Server { id, provider: name("docker"), images: true, ..server(cpu) };
        self.turn(vec![Event::ServerSeen { server: Box::new(engine) }]);
    }

    /// Writes a snapshot and forgets the journal before it.
    pub(crate) fn snapshot(&mut self) {
        let bytes = self.state.freeze().to_snapshot().expect("a state can be written");
        self.replayed = State::from_snapshot(&bytes).expect("a snapshot can be read");
        check::replay(&self.state, &self.replayed);
        self.journal.clear();
        self.base = Some(bytes);
    }

    /// The Manager dies; the next one reads snapshot and journal, and sends what is open again.
    pub(crate) fn reopen(&mut self) {
        let mut state = match &self.base {
            Some(bytes) => State::from_snapshot(bytes).expect("a snapshot can be read"),
            None => State::new(store()),
        };
        for turn in &self.journal {
            state.replay(turn);
        }
        self.state = state;
        self.machine.send_again(&self.state);
        self.start_manager();
    }

    fn start_manager(&mut self) {
        let (epoch, settings) = (Epoch(self.state.epoch.0 + 1), Box::new(self.settings.clone()));
        self.turn(vec![Event::ManagerStarted { epoch, settings }]);
    }

    /// Nothing fails any more, and time passes only where the state waits for it. Returns the turns that it took.
    ///
    /// # Panics
    /// It does not come to rest.
    pub(crate) fn settle(&mut self) -> usize {
        self.list();
        for turns in 0..4_000 {
            if self.machine.open_calls() > 0 {
                self.answer(0, Answer::Done);
            } else if let Some((container, probe)) = self.unanswered_probe() {
                self.probe(&container, probe, true);
            } else if let Some(at) = self.state.wake_at().filter(|at| *at < self.state.now + SOON) {
                self.pass(at - self.state.now);
            } else if self.list().is_empty() {
                return turns;
            }
        }
        panic!("the world does not come to rest: {}", self.describe());
    }

    /// A container whose probe has something better to say.
    fn unanswered_probe(&self) -> Option<(ContainerId, ProbeKind)> {
        self.state.containers.values().find_map(|record| match record.state {
            _ if self.machine.generation(&record.id).is_none() => None,
            ContainerState::Loading => Some((record.id.clone(), ProbeKind::Ready)),
            ContainerState::Ready if record.unwell.is_some() => Some((record.id.clone(), ProbeKind::Live)),
            _ => None,
        })
    }

    pub(crate) fn unit(&self, tail: &str) -> &Unit {
        let id = self.state.unit_named(tail).expect("the unit exists");
        &self.state.units[&id]
    }

    /// The containers of a Unit in the order in which they were made.
    pub(crate) fn of(&self, tail: &str) -> Vec<&Container> {
        let mut records: Vec<&Container> = self.state.of(self.unit(tail)).collect();
        records.sort_by_key(|record| record.ordinal);
        records
    }

    pub(crate) fn ids(&self, tail: &str) -> Vec<ContainerId> {
        self.of(tail).iter().map(|record| record.id.clone()).collect()
    }

    pub(crate) fn container(&self, id: &ContainerId) -> &Container {
        &self.state.containers[id]
    }

    pub(crate) fn ready(&self, tail: &str) -> usize {
        self.of(tail).iter().filter(|record| record.state == ContainerState::Ready).count()
    }

    pub(crate) fn now(&self) -> ManagerTime {
        self.state.now
    }

    /// Where everything stands, for the message of a failed test.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for (id, unit) in &self.state.units {
            let _ = writeln!(text, "{id}: goal {}, revision {}, held {:?}", unit.goal(), unit.revision, unit.held);
            for record in self.state.of(unit) {
                let _ = writeln!(
                    text,
                    "  {} r{} g{} {:?} op {:?} ports {:?} {}",
                    record.id,
                    record.revision,
                    record.generation,
                    record.state,
                    record.operation,
                    record.ports,
                    record.reason
                );
            }
        }
        let _ = writeln!(text, "now {:?}, wake {:?}", self.state.now, self.state.wake_at());
        text
    }
}

/// Decodes a manifest that is known to be good.
pub(crate) fn service(text: &str) -> ServiceSpec {
    let parsed = manifest::parse(text, Path::new("cocktail.toml"), Path::new("/srv/shop"));
    parsed.unwrap_or_else(|problems| panic!("{problems:?}")).service.expect("the manifest names a service")
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a name of a test is a name")
}

pub(crate) fn unit_id(map: &str, unit: &str) -> UnitId {
    UnitId::new(name("shop"), name(map), name(unit))
}

pub(crate) fn actor() -> Actor {
    Actor("tester".into())
}

pub(crate) fn server_id() -> ServerId {
    ServerId::new("here")
}

pub(crate) fn engine_id() -> ServerId {
    ServerId::new("boxes")
}

fn store() -> StoreId {
    StoreId::new("store-1")
}

fn server(cpu: u64) -> Server {
    Server {
        id: server_id(),
        provider: name("standalone"),
        provider_id: "machine".into(),
        state: ServerState::Ready,
        reason: "this machine".into(),
        since: WallTime::default(),
        zone: None,
        offering: "machine".into(),
        incarnation: "boot".into(),
        address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        capacity: Resources { cpu: CpuMillis(cpu), memory: Bytes(1 << 40) },
        allocated: Resources::default(),
        containers: 0,
        images: false,
        tenure: crate::fleet::Tenure::default(),
    }
}
