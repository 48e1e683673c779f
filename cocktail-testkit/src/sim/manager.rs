//! The Manager: a state, what waits for its next turn, its clock, its deaths and its starts.

use std::collections::BTreeMap;
use std::time::Duration;

use cocktail_core::command::Command;
use cocktail_core::contract::{Interruption, Listing, ServerListing, WorkerSaid};
use cocktail_core::event::{Event, Soft};
use cocktail_core::fleet::{FleetEvent, FleetLimits, RearrangeLimits};
use cocktail_core::id::{ContainerId, Epoch, Generation, OperationId, ServerId};
use cocktail_core::settings::Settings;
use cocktail_core::state::State;
use cocktail_core::time::{ManagerTime, WallTime};

use super::ghost::Ghost;
use super::load::SAMPLE;
use super::provider::Answer;
use super::world::{Happening, Readiness, World};
use super::{Planted, wall};

/// Something that waits for the next turn.
pub(super) enum Input {
    Event(Event),
    Soft(Soft),
    Answered(OperationId, Answer),
    Listed { asked: ManagerTime, listing: ServerListing },
    MachineListed { server: ServerId, asked: ManagerTime, listing: Listing, ready: Vec<Readiness> },
    Hello(ServerId),
    Said(ContainerId, Generation, WorkerSaid),
    Noticed(Vec<Interruption>),
    Command(Box<Command>),
}

/// Where a Manager dies within a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    BeforeCommit,
    CommitLost,
    CommitKept,
    BeforeSend,
    AfterSend,
}

/// A turn whose commit is under way.
pub(super) struct Pending {
    /// Events before the decisions.
    pub(super) inputs: usize,
    /// When it was decided.
    pub(super) decided: u64,
    /// Counts that users were promised, once it is durable.
    pub(super) scaled: Vec<(String, u32)>,
}

/// A running Manager.
pub(super) struct Manager {
    pub(super) state: State,
    pub(super) epoch: Epoch,
    pub(super) born: u64,
    pub(super) base: ManagerTime,
    pub(super) inbox: Vec<Input>,
    /// Events that came before the start that they are about was known.
    pub(super) early: Vec<Event>,
    /// A turn is due or under way.
    pub(super) busy: bool,
    pub(super) pending: Option<Pending>,
    /// Tries of calls that were sent in this life.
    pub(super) sent: BTreeMap<OperationId, u32>,
    pub(super) wake: u64,
    pub(super) dies: Option<Stage>,
    pub(super) turns: u64,
}

impl World {
    /// Manager time: it runs while a Manager runs.
    pub(super) fn manager_time(&self) -> ManagerTime {
        let Some(manager) = &self.manager else { return self.replayed.now };
        if self.has(Planted::WallClock) {
            let since = self.wall_clock().0 - wall(0).0;
            return ManagerTime(u64::try_from(since / 1_000).unwrap_or_default());
        }
        manager.base + Duration::from_millis(self.now - manager.born)
    }

    /// The wall clock, which steps now and then.
    pub(super) fn wall_clock(&self) -> WallTime {
        WallTime(wall(self.now).0 + self.skew * 1_000)
    }

    /// How long Managers have run.
    pub(super) fn uptime(&self) -> u64 {
        self.ran + self.manager.as_ref().map_or(0, |manager| self.now - manager.born)
    }

    pub(super) fn limits(&self) -> FleetLimits {
        FleetLimits {
            max_servers: self.limit,
            min_servers: 0,
            idle: Duration::from_secs(120),
            registration: Duration::from_secs(180),
            visibility: Duration::from_secs(180),
            stock_out: Duration::from_secs(60),
            failures: 3,
            rest: Duration::from_secs(120),
            // Some of the users save money.
            rearrange: (self.seed % 4 == 3).then_some(RearrangeLimits {
                gain: 1.2,
                budget: 2,
                every: Duration::from_secs(120),
            }),
        }
    }

    /// The next Manager starts: lease, snapshot, journal, providers, and everything that is open is sent again.
    pub(super) fn start(&mut self) {
        if self.manager.is_some() {
            return;
        }
        let epoch = self.store.acquire();
        self.life += 1;
        let loaded = self.store.load();
        let mut state = match loaded {
            Ok(state) => state,
            Err(error) => return self.breach("E2 replay", format!("the journal cannot be read: {error}")),
        };
        self.check_replay(&state);
        self.check_promises(&state);
        if self.has(Planted::PauseForgotten) {
            for state in [&mut state, &mut self.replayed] {
                for operation in state.server_operations.values_mut() {
                    operation.not_before = None;
                }
            }
        }
        self.trace.note(self.now, format_args!("manager {} starts with epoch {epoch}", self.life));
        let settings = Settings { why_per_object: 4, ..Settings::default() };
        let seen = self.provider_seen();
        let mut inbox = vec![
            Input::Event(Event::ManagerStarted { epoch, settings: Box::new(settings) }),
            Input::Event(seen.into()),
        ];
        if self.has(Planted::NoGrace) {
            let runs = state.containers.values().filter(|it| it.state.may_run() && it.operation.is_none());
            inbox.extend(runs.map(|it| {
                let (container, generation) = (it.id.clone(), it.generation);
                Input::Event(Event::Exited { container, generation, exit: cocktail_core::contract::Exit::Unknown })
            }));
        }
        let base = state.now;
        let open: Vec<OperationId> = state.operations.keys().chain(state.server_operations.keys()).copied().collect();
        self.manager = Some(Manager {
            state,
            epoch,
            born: self.now,
            base,
            inbox,
            early: Vec::new(),
            busy: true,
            pending: None,
            sent: BTreeMap::new(),
            wake: 0,
            dies: None,
            turns: 0,
        });
        let life = self.life;
        self.after(1, Happening::Turn { life });
        for operation in open {
            self.after(2, Happening::Send { life, operation });
        }
        self.after(100, Happening::Relist { life });
        self.after(100, Happening::RelistMachines { life });
        let servers: Vec<ServerId> = self.machines.values().filter(|it| it.up).map(|it| it.server.clone()).collect();
        for server in servers {
            let pause = self.chance.between(100, 2_000);
            self.after(pause, Happening::Hello { server });
        }
        if self.ghost.is_some() {
            let pause = self.chance.between(10, 30_000);
            self.after(pause, Happening::Ghost);
        }
        self.after(SAMPLE, Happening::Sample { life });
        self.again(self.rates.crash, Happening::Crash);
    }

    /// What a Manager learns when it connects to the provider.
    pub(super) fn provider_seen(&self) -> FleetEvent {
        let (provider, limits) = (self.cloud.clone(), self.limits());
        FleetEvent::ProviderSeen {
            provider,
            grows: true,
            limits,
            offerings: self.provider.offerings.clone(),
            images: false,
        }
    }

    /// Something waits for the Manager, if one runs.
    pub(super) fn input(&mut self, input: Input) {
        let Some(manager) = &mut self.manager else { return };
        manager.inbox.push(input);
        self.turn_soon();
    }

    /// A turn is taken soon, if none is under way.
    pub(super) fn turn_soon(&mut self) {
        let pause = self.chance.between(1, 15);
        let Some(manager) = &mut self.manager else { return };
        if !manager.busy {
            manager.busy = true;
            let life = self.life;
            self.after(pause, Happening::Turn { life });
        }
    }

    pub(super) fn woken(&mut self, number: u64) {
        if self.manager.as_ref().is_some_and(|manager| manager.wake == number) {
            self.turn_soon();
        }
    }

    /// The Manager dies at some stage of its next turn; at once where none is due.
    pub(super) fn crash_soon(&mut self) {
        if self.healed {
            return;
        }
        let stages = [Stage::BeforeCommit, Stage::CommitLost, Stage::CommitKept, Stage::BeforeSend, Stage::AfterSend];
        let stage = self.chance.pick(&stages).copied();
        if let Some(manager) = &mut self.manager {
            manager.dies = stage;
        }
    }

    /// The Manager is dead; what was not synced is lost or not, and the next one starts after a while.
    pub(super) fn crash(&mut self, lost: bool) {
        let Some(manager) = self.manager.take() else { return };
        self.ran += self.now - manager.born;
        self.trace.note(self.now, format_args!("the manager dies, {}", if lost { "commit lost" } else { "all kept" }));
        if let Some(turn) = self.store.crash(lost) {
            self.durable(&turn, manager.pending.as_ref());
        }
        if self.chance.happens(500) {
            // It only stood still, and will go on when another has taken its place.
            self.ghost = Some(Ghost { manager, durable: self.replayed.last_operation });
        }
        let pause = self.chance.between(100, self.rates.downtime.max(200));
        self.after(pause, Happening::Start);
    }
}
