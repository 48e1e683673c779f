//! The other end of workers' sessions: for whoever starts workers.
//!
//! Start at [`Hub`]. It listens, knows which workers to expect, gives each its orders, and tells what they say. It decides
//! nothing: what is wanted of a worker is the last order that it was given, which is sent whenever a session begins.
//!
//! Workers are strangers. What one of them sends is bounded before it is kept: bytes of a message, messages in a time,
//! streams and connections, the time until it says who it is. What it does that has no sense ends its session and nothing
//! else, with a reason that is told as [`Said::Refused`].

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod keys;
mod listen;
mod session;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::stream::BoxStream;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::keys::Keys;

use self::keys::Purpose;
use crate::protocol::{
    Assign, Drain, EndpointTable, ErrorReport, ExtendRequest, Failed, ToWorker, Unload, Usage, to_worker,
};

/// Events that wait to be taken. While they wait, nothing more is read from workers.
const EVENTS: usize = 1_024;

/// How patient a hub is, and how many it takes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at the same time; the others wait.
    pub connections: usize,
    /// Sessions and attempts at one on one connection.
    pub streams: u32,
    /// Time until whoever connected has said who it is.
    pub first: Duration,
    /// How often a silent connection is tried, and how long an answer may take.
    pub keep_alive: Duration,
    /// Those who follow the endpoints at the same time; more are refused. Each may have a connection of its own, so that it
    /// is to be far less than `connections`.
    pub followers: usize,
    /// Messages of one worker within a second; it is read more slowly where it sends more.
    pub messages: u32,
    /// Pause between two usage messages that is asked for.
    pub usage: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            streams: 4,
            first: Duration::from_secs(5),
            keep_alive: Duration::from_secs(15),
            followers: 1_024,
            messages: 200,
            usage: Duration::from_secs(1),
        }
    }
}

/// What a worker is to do. Each order takes the place of the one before.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Load this.
    Assign(Assign),
    /// Refuse what is new, finish what is in flight.
    Drain(Drain),
    /// Close what the assignment loaded.
    Unload(Unload),
}

impl Order {
    /// Which assignment it is about, and how far that has come: nothing goes back behind an order that was given.
    fn rank(&self) -> (u64, u8) {
        match self {
            Self::Assign(assign) => (assign.assignment, 0),
            Self::Drain(drain) => (drain.assignment, 1),
            Self::Unload(unload) => (unload.assignment, 2),
        }
    }
}

/// Something about one worker.
#[derive(Debug, Clone, PartialEq)]
pub struct HubEvent {
    /// The container.
    pub container: String,
    /// Which start of it.
    pub generation: u64,
    /// What.
    pub said: Said,
}

/// What a worker said, or what became of its session.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Said {
    /// It is up and has nothing loaded.
    Registered {
        /// Its process, as it says.
        pid: u32,
        /// What it says about its build.
        build: String,
        /// What it can load.
        microservices: Vec<String>,
    },
    /// It is back after its session broke; what became of its assignment follows.
    Resumed {
        /// The last assignment that it was given.
        assignment: u64,
    },
    /// The assignment is loaded and takes requests.
    Ready {
        /// Which.
        assignment: u64,
    },
    /// The assignment cannot be taken up.
    Failed(Failed),
    /// It wants help.
    Extend(ExtendRequest),
    /// Something is wrong.
    Report(ErrorReport),
    /// Nothing is in flight, and nothing begins any more.
    Drained {
        /// Of which assignment.
        assignment: u64,
    },
    /// Nothing is loaded.
    Unloaded {
        /// The assignment that was.
        assignment: u64,
    },
    /// Its session ended. It runs on, or has ended: its runtime knows.
    Left,
    /// It, or somebody in its name, did what has no sense.
    Refused {
        /// What.
        because: String,
    },
}

/// Sessions of workers on one socket. Dropping the last clone ends them all; workers run on and come back to the next hub.
#[derive(Debug, Clone)]
pub struct Hub {
    workers: Arc<Workers>,
    _ends: Arc<DropGuard>,
}

/// What a hub knows of its workers.
pub(crate) struct Workers {
    keys: Keys,
    limits: Limits,
    slots: Mutex<BTreeMap<String, Slot>>,
    events: mpsc::Sender<HubEvent>,
    /// Who knows the endpoints.
    endpoints: OnceLock<Endpoints>,
    /// Who may still follow them.
    followers: Arc<Semaphore>,
    /// Ends all sessions.
    ends: CancellationToken,
}

/// Tells the endpoints of the Units with a name, or of all where it is empty: as they are, and after each change.
pub type Endpoints = Arc<dyn Fn(&str) -> BoxStream<'static, EndpointTable> + Send + Sync>;

/// One worker that is expected, or there.
#[derive(Debug)]
struct Slot {
    generation: u64,
    /// Its token was used.
    registered: bool,
    order: Option<Order>,
    /// The highest assignment that it was ever given.
    assignment: u64,
    usage: Option<Usage>,
    session: Option<Session>,
}

/// The open session of a worker.
#[derive(Debug)]
struct Session {
    number: u64,
    outbox: mpsc::Sender<ToWorker>,
    /// Ends it.
    ends: CancellationToken,
}

impl Hub {
    /// Listens from now on. Must be called within a tokio runtime, on which the sessions are served.
    pub fn open(listener: UnixListener, keys: Keys, limits: Limits) -> (Self, mpsc::Receiver<HubEvent>) {
        let (events, taken) = mpsc::channel(EVENTS);
        let ends = CancellationToken::new();
        let workers = Arc::new(Workers::new(keys, limits, events, ends.clone()));
        tokio::spawn(listen::serve(listener, workers.clone()));
        (Self { workers, _ends: Arc::new(ends.drop_guard()) }, taken)
    }

    /// What the start of a container is to find in `COCKTAIL_TOKEN`.
    pub fn token(&self, container: &str, generation: u64) -> String {
        self.workers.keys.derive(Purpose::Token, container, generation)
    }

    /// Expects a start of a container from now on, and no earlier one. With `registered` its token was used already: it
    /// comes back with what it was given then. The same start again changes nothing.
    pub fn expect(&self, container: &str, generation: u64, registered: bool) {
        let mut slots = self.workers.slots();
        if let Some(known) = slots.get_mut(container).filter(|known| known.generation >= generation) {
            known.registered |= registered && known.generation == generation;
            return;
        }
        let slot = Slot { generation, registered, order: None, assignment: 0, usage: None, session: None };
        if let Some(before) = slots.insert(container.to_owned(), slot) {
            before.end();
        }
    }

    /// Forgets a container: its session ends, and it is not taken any more.
    pub fn forget(&self, container: &str) {
        if let Some(slot) = self.workers.slots().remove(container) {
            slot.end();
        }
    }

    /// Says what a worker is to do, now if it is there, and at the beginning of each session. An order about an earlier
    /// assignment, or behind one that was given about the same, changes nothing: the standing one is told again. False if the
    /// worker is not expected.
    pub fn order(&self, container: &str, generation: u64, order: Order) -> bool {
        let mut slots = self.workers.slots();
        let Some(slot) = slots.get_mut(container).filter(|slot| slot.generation == generation) else { return false };
        slot.assignment = slot.assignment.max(order.rank().0);
        // What is told again, perhaps because somebody looked at an older state, takes nothing back.
        if slot.order.as_ref().is_none_or(|standing| order.rank() >= standing.rank()) {
            slot.order = Some(order);
        }
        slot.send_order();
        true
    }

    /// Says who knows the endpoints; until then nobody does. Only the first time counts.
    pub fn learn_endpoints_from(&self, endpoints: Endpoints) {
        _ = self.workers.endpoints.set(endpoints);
    }

    /// What each worker said last about its use.
    pub fn usage(&self) -> BTreeMap<String, Usage> {
        let slots = self.workers.slots();
        slots.iter().filter_map(|(container, slot)| Some((container.clone(), slot.usage.clone()?))).collect()
    }

    /// Whether a session of the worker is open.
    pub fn is_there(&self, container: &str) -> bool {
        self.workers.slots().get(container).is_some_and(|slot| slot.session.is_some())
    }
}

impl Workers {
    fn new(keys: Keys, limits: Limits, events: mpsc::Sender<HubEvent>, ends: CancellationToken) -> Self {
        let followers = Arc::new(Semaphore::new(limits.followers));
        Self { keys, limits, slots: Mutex::default(), events, endpoints: OnceLock::new(), followers, ends }
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Slot {
    /// Sends what is wanted, if somebody is there to take it.
    fn send_order(&mut self) {
        let (Some(session), Some(order)) = (&self.session, &self.order) else { return };
        let kind = match order.clone() {
            Order::Assign(assign) => to_worker::Kind::Assign(assign),
            Order::Drain(drain) => to_worker::Kind::Drain(drain),
            Order::Unload(unload) => to_worker::Kind::Unload(unload),
        };
        if session.outbox.try_send(ToWorker { kind: Some(kind) }).is_err() {
            // It does not read. It comes back, or its deadline ends it.
            session.ends.cancel();
        }
    }

    fn end(self) {
        if let Some(session) = self.session {
            session.ends.cancel();
        }
    }
}
