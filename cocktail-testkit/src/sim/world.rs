//! Everything that there is, and the order in which it happens.
//!
//! Start at [`World::run`]: it takes what is next by time and number, until the end or the first breach.

use std::collections::BTreeMap;

use cocktail_core::command::Command;
use cocktail_core::contract::{Exit, Listing, ServerListing, WorkerSaid};
use cocktail_core::event::{Event, Soft};
use cocktail_core::id::{ContainerId, Epoch, Generation, OperationId, ServerId, StoreId};
use cocktail_core::name::Name;
use cocktail_core::state::State;
use cocktail_core::time::ManagerTime;

use super::chance::Chance;
use super::ghost::Ghost;
use super::invariants::Watch;
use super::machine::{Machine, Order};
use super::manager::{Input, Manager};
use super::network::Cut;
use super::provider::{Answer, Call, Provider};
use super::rates::Rates;
use super::store::Store;
use super::trace::Trace;
use super::user::User;
use super::{Breach, Options, Outcome, Planted};

/// Something that happens at its time.
pub(super) enum Happening {
    /// The Manager of this life takes a turn, has its commit synced, or is woken by a timer.
    Turn {
        life: u64,
    },
    Synced {
        life: u64,
    },
    Wake {
        life: u64,
        number: u64,
    },
    /// It dies at some point of its next turn; the next one starts.
    Crash,
    Start,
    /// A Manager that was thought dead writes.
    Ghost,
    /// The executor sends a call, or has waited long enough for its answer.
    Send {
        life: u64,
        operation: OperationId,
    },
    Overdue {
        life: u64,
        operation: OperationId,
        attempt: u32,
    },
    /// A call arrives at the provider; its answer arrives at the Manager.
    AtProvider {
        life: u64,
        operation: OperationId,
        token: String,
        call: Call,
    },
    Answered {
        life: u64,
        operation: OperationId,
        answer: Box<Answer>,
    },
    /// The Manager asks for a listing; it arrives.
    Relist {
        life: u64,
    },
    Listed {
        life: u64,
        asked: ManagerTime,
        listing: Option<Box<ServerListing>>,
    },
    /// An order arrives at a server; what the server tells arrives at the Manager.
    AtMachine {
        life: u64,
        epoch: Epoch,
        server: ServerId,
        operation: OperationId,
        order: Order,
    },
    Told {
        life: u64,
        event: Box<Event>,
    },
    Noted {
        life: u64,
        soft: Soft,
    },
    /// The Manager asks all servers for what runs there; one is asked; its answer arrives.
    RelistMachines {
        life: u64,
    },
    ListMachine {
        life: u64,
        epoch: Epoch,
        server: ServerId,
        asked: ManagerTime,
    },
    MachineListed {
        life: u64,
        server: ServerId,
        asked: ManagerTime,
        listing: Box<Listing>,
        ready: Vec<Readiness>,
    },
    /// A server comes late, has booted, says hello, is gone.
    LateObject {
        server: ServerId,
        offering: usize,
        operation: OperationId,
    },
    Booted {
        server: ServerId,
    },
    Hello {
        server: ServerId,
    },
    ObjectGone {
        id: String,
    },
    /// A worker turns ready, or unready for a while; ends by itself; ends because it was told to.
    WorkerReady {
        server: ServerId,
        container: ContainerId,
        generation: Generation,
        ready: bool,
    },
    /// A worker's words arrive.
    Said {
        life: u64,
        container: ContainerId,
        generation: Generation,
        said: WorkerSaid,
    },
    WorkerEnds {
        server: ServerId,
        container: ContainerId,
        generation: Generation,
    },
    WorkerStopped {
        server: ServerId,
        container: ContainerId,
        generation: Generation,
        exit: Exit,
    },
    /// Faults of the world.
    Stock {
        offering: usize,
    },
    Quota,
    Foreign,
    ForeignGone {
        id: String,
    },
    ServerDies,
    Reboot,
    Pause,
    Clock,
    /// Servers are cut off.
    Cut,
    /// The provider gives notice of an interruption; it comes.
    Notice,
    Interrupt {
        server: ServerId,
        id: String,
    },
    /// Clients ask for more or less; the Manager reads what its containers do.
    Load,
    Sample {
        life: u64,
    },
    /// The user does something; nothing goes wrong any more.
    User,
    Tend,
    Uncordon {
        server: ServerId,
    },
    Heal,
}

/// Whether a program is ready, or what a worker says of itself, as a listing tells.
pub(super) type Readiness = (ContainerId, Generation, bool, Option<WorkerSaid>);

/// Everything.
pub(super) struct World {
    pub(super) options: Options,
    pub(super) seed: u64,
    pub(super) now: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    numbers: u64,
    pub(super) chance: Chance,
    pub(super) rates: Rates,
    pub(super) healed: bool,
    pub(super) trace: Trace,
    pub(super) cloud: Name,
    pub(super) provider: Provider,
    pub(super) machines: BTreeMap<ServerId, Machine>,
    pub(super) cuts: BTreeMap<ServerId, Cut>,
    /// Most servers.
    pub(super) limit: u32,
    pub(super) store: Store,
    pub(super) manager: Option<Manager>,
    /// A Manager that stands still while another has taken its place.
    pub(super) ghost: Option<Ghost>,
    pub(super) life: u64,
    /// What the journal says, event by event.
    pub(super) replayed: State,
    /// How long Managers have run before the present one, and how far the wall clock is off.
    pub(super) ran: u64,
    pub(super) skew: i64,
    pub(super) user: User,
    pub(super) watch: Watch,
    peak: usize,
}

impl World {
    pub(super) fn new(seed: u64, options: Options) -> Self {
        let mut chance = Chance::new(seed, 1);
        let rates = Rates::draw(&mut Chance::new(seed, 2));
        let id = StoreId::new(format!("store-{seed}"));
        let quota = options.servers as usize + 5;
        let user = User::new(Chance::new(seed, 3), options.servers);
        let mut world = Self {
            seed,
            now: 0,
            queue: BTreeMap::new(),
            numbers: 0,
            rates,
            healed: false,
            trace: Trace::new(options.lines),
            cloud: user.provider.clone(),
            provider: Provider::new(id.clone(), quota),
            machines: BTreeMap::new(),
            cuts: BTreeMap::new(),
            limit: options.servers,
            store: Store::new(id.clone()),
            manager: None,
            ghost: None,
            life: 0,
            replayed: State::new(id),
            ran: 0,
            skew: 0,
            user,
            watch: Watch::default(),
            peak: 0,
            chance: Chance::new(chance.below(u64::MAX), 4),
            options,
        };
        world.at(0, Happening::Start);
        world.begin_faults();
        let faulty = millis(world.options.faulty);
        world.at(faulty, Happening::Heal);
        world
    }

    /// Runs to the end, or to the first breach.
    pub(super) fn run(mut self) -> Outcome {
        let end = millis(self.options.faulty + self.options.rest);
        while self.watch.breach.is_none() {
            let Some(entry) = self.queue.first_entry() else { break };
            if entry.key().0 > end {
                break;
            }
            let ((at, _), happening) = entry.remove_entry();
            self.now = at;
            self.happen(happening);
            self.peak = self.peak.max(self.machines.len());
        }
        if self.watch.breach.is_none() {
            self.now = end;
            self.check_rest();
        }
        let (events, hash) = (self.trace.events, self.trace.hash());
        let breach = self.watch.breach;
        Outcome { seed: self.seed, events, hash, peak: self.peak, breach, lines: self.trace.into_lines() }
    }

    /// Something happens at a time.
    pub(super) fn at(&mut self, time: u64, happening: Happening) {
        self.numbers += 1;
        self.queue.insert((time.max(self.now), self.numbers), happening);
    }

    /// Whether a container is that of a job, and ends when it is done.
    fn is_job(&self, container: &ContainerId) -> bool {
        let record = self.replayed.containers.get(container);
        record.and_then(|record| self.replayed.units.get(&record.unit)).is_some_and(cocktail_core::unit::Unit::is_job)
    }

    /// Something happens after a pause.
    pub(super) fn after(&mut self, pause: u64, happening: Happening) {
        self.at(self.now + pause, happening);
    }

    /// Something happens again after about `mean`, as long as things go wrong; a mean of zero is never.
    pub(super) fn again(&mut self, mean: u64, happening: Happening) {
        if mean > 0 && !self.healed {
            let pause = self.chance.around(mean) + 1;
            self.after(pause, happening);
        }
    }

    /// Whether a bug is planted.
    pub(super) fn has(&self, bug: Planted) -> bool {
        self.options.planted == Some(bug)
    }

    /// Something did not hold.
    pub(super) fn breach(&mut self, invariant: &'static str, detail: impl Into<String>) {
        let at = self.now;
        let detail = detail.into();
        self.trace.line(at, format_args!("BREACH {invariant}: {detail}"));
        self.watch.breach.get_or_insert(Breach { invariant, at, detail });
    }

    fn happen(&mut self, happening: Happening) {
        use Happening as H;
        let now = self.now;
        match happening {
            H::Turn { life } if life == self.life => self.turn(),
            H::Synced { life } if life == self.life => self.synced(),
            H::Wake { life, number } if life == self.life => self.woken(number),
            H::Crash => self.crash_soon(),
            H::Start => self.start(),
            H::Ghost => self.ghost(),
            H::Send { life, operation } if life == self.life => self.send(operation),
            H::Overdue { life, operation, attempt } if life == self.life => self.overdue(operation, attempt),
            H::AtProvider { life, operation, token, call } => self.at_provider(life, operation, &token, &call),
            H::Answered { life, operation, answer } if life == self.life => self.answered(operation, *answer),
            H::Relist { life } if life == self.life => self.relist(),
            H::Listed { life, asked, listing } if life == self.life => self.listed(asked, listing.map(|it| *it)),
            H::AtMachine { life, epoch, server, operation, order } => {
                self.at_machine(life, epoch, &server, operation, order);
            }
            H::Told { life, event } if life == self.life => self.told(*event),
            H::Noted { life, soft } if life == self.life => self.noted(soft),
            H::RelistMachines { life } if life == self.life => self.relist_machines(),
            H::ListMachine { life, epoch, server, asked } => self.list_machine(life, epoch, server, asked),
            H::MachineListed { life, server, asked, listing, ready } if life == self.life => {
                self.machine_listed(&server, asked, *listing, ready);
            }
            H::LateObject { server, offering, operation } => self.late_object(server, offering, operation),
            H::Booted { server } => self.booted(server),
            H::Hello { server } => self.hello(server),
            H::ObjectGone { id } => self.object_gone(&id),
            H::WorkerReady { server, container, generation, ready } => {
                self.worker_ready(&server, container, generation, ready);
            }
            H::Said { life, container, generation, said } if life == self.life => {
                self.trace.note(self.now, format_args!("{container} says {said:?}"));
                self.input(Input::Said(container, generation, said));
            }
            // Nothing goes wrong any more; a job ends because it is done.
            H::WorkerEnds { container, .. } if self.healed && !self.is_job(&container) => {}
            H::WorkerEnds { server, container, generation } => {
                let exits = [Exit::Code(0), Exit::Code(1), Exit::Signal(9)];
                let exit = self.chance.pick(&exits).copied().unwrap_or(Exit::Unknown);
                self.worker_ended(&server, container, generation, exit);
            }
            H::WorkerStopped { server, container, generation, exit } => {
                self.worker_ended(&server, container, generation, exit);
            }
            H::Stock { offering } => self.stock(offering),
            H::Quota => self.move_quota(),
            H::Foreign => self.foreign(),
            H::ForeignGone { id } => self.foreign_gone(&id),
            H::ServerDies => self.server_dies(),
            H::Reboot => self.reboot(),
            H::Pause => self.pause(),
            H::Clock => self.step_clock(),
            H::Cut => self.cut_off(),
            H::Notice => self.notice(),
            H::Interrupt { server, id } => self.interrupt(&server, &id),
            H::Load => self.load_changes(),
            H::Sample { life } if life == self.life => self.sample(),
            H::User => self.user_acts(),
            H::Tend => self.tend(),
            H::Uncordon { server } => self.uncordon(server),
            H::Heal => self.heal(),
            // What was meant for a Manager that is dead.
            _ => self.trace.note(now, format_args!("dropped")),
        }
    }

    /// The user gives a command; it is answered when it is durable.
    pub(super) fn give(&mut self, command: Command) {
        self.input(super::manager::Input::Command(Box::new(command)));
    }
}

/// Whole milliseconds of a span.
pub(super) fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 4)
}
