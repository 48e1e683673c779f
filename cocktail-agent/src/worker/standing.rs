//! What a worker is at the moment, and what it does about what it is told.
//!
//! One task owns the [`Standing`]. Loading, draining and closing run beside it, one at a time, so that it goes on listening;
//! what each has led to is said once, and said again whenever a new session begins.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::Error;
use super::context::Shared;
use super::link::{Link, News};
use super::loaded::{Loaded, Loader, load};
use crate::protocol::{Assign, Drained, Failed, FromWorker, Ready, Severity, Unloaded, from_worker::Kind, to_worker};

/// Pace of usage until a session says another.
const USAGE: Duration = Duration::from_secs(10);

/// What a worker is at the moment.
pub(super) struct Standing {
    loader: Loader,
    /// The last assignment that was given, for the link.
    assignment: watch::Sender<u64>,
    phase: Phase,
    /// What became of the last assignment.
    outcome: Option<Kind>,
    /// That it cannot serve, which must not be lost with a session.
    broken: Option<Kind>,
    outbox: Option<mpsc::Sender<FromWorker>>,
    /// What is told when it can be told: at most a few requests and reports.
    waiting: Vec<Kind>,
    /// Where what runs beside says how it ended.
    beside: mpsc::Sender<Ended>,
    ended: mpsc::Receiver<Ended>,
}

enum Phase {
    Waiting,
    Loading { shared: Arc<Shared>, then: Then },
    Ready { shared: Arc<Shared>, loaded: Loaded },
    Draining { shared: Arc<Shared>, then: Then },
    Drained { shared: Arc<Shared>, loaded: Loaded },
    Closing { assignment: u64, then: Option<Assign> },
}

/// How what ran beside has ended. Panics of microservices are their failures, so that each of them ends like this.
enum Ended {
    Loaded(Result<Loaded, Failed>),
    Drained(Loaded),
    Closed,
}

/// What follows when what runs now has ended.
#[derive(Debug, Default)]
struct Then {
    drain: bool,
    unload: bool,
    assign: Option<Assign>,
}

impl Standing {
    pub(super) fn new(loader: Loader, assignment: watch::Sender<u64>) -> Self {
        let (beside, ended) = mpsc::channel(1);
        let phase = Phase::Waiting;
        let (outcome, broken, outbox, waiting) = (None, None, None, Vec::new());
        Self { loader, assignment, phase, outcome, broken, outbox, waiting, beside, ended }
    }

    /// Does what it is told until `ended`; then it leaves as it would for a drain, and closes everything.
    pub(super) async fn run(
        mut self,
        mut link: Link,
        mut telling: mpsc::Receiver<Kind>,
        ended: impl Future<Output = ()> + Send,
    ) -> Result<(), Error> {
        tokio::pin!(ended);
        let mut usage = interval(USAGE);
        usage.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tasks = interval(Duration::from_millis(200));
        tasks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let result = loop {
            tokio::select! {
                () = &mut ended => break Ok(()),
                news = link.next() => match news {
                    Some(News::Up { outbox, usage: every }) => {
                        if usage.period() != every {
                            usage = interval(every);
                            usage.set_missed_tick_behavior(MissedTickBehavior::Delay);
                        }
                        self.came_up(outbox);
                    }
                    Some(News::Told(kind)) => self.told(kind),
                    Some(News::Down) => self.outbox = None,
                    Some(News::Refused(error)) => break Err(error),
                    None => break Err(Error::Refused("the session ended".into())),
                },
                Some(kind) = telling.recv() => self.say_later(kind),
                Some(ended) = self.ended.recv() => self.advance(ended),
                _ = tasks.tick() => if let Some(shared) = self.phase.shared() { shared.look_after_tasks() },
                _ = usage.tick() => if let Some(shared) = self.phase.shared() {
                    let usage = shared.usage();
                    self.say(Kind::Usage(usage));
                },
            }
        };
        self.leave(&mut link, &mut telling).await;
        result
    }

    /// Refuses what is new, lets what is in flight finish, and closes everything. Whoever ends the worker says how long that
    /// may take, by ending it.
    async fn leave(&mut self, link: &mut Link, telling: &mut mpsc::Receiver<Kind>) {
        let then = || Then { drain: true, unload: true, assign: None };
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Loading { shared, .. } => {
                shared.shutdown.cancel();
                self.phase = Phase::Loading { shared, then: then() };
            }
            Phase::Draining { shared, .. } => self.phase = Phase::Draining { shared, then: then() },
            Phase::Closing { assignment, .. } => self.phase = Phase::Closing { assignment, then: None },
            Phase::Ready { shared, loaded } => self.begin_drain(shared, loaded, then()),
            Phase::Drained { shared, loaded } => self.begin_close(&shared, loaded, None),
            Phase::Waiting => {}
        }
        while !matches!(self.phase, Phase::Waiting) {
            tokio::select! {
                Some(ended) = self.ended.recv() => self.advance(ended),
                // Nobody must wait for room to tell something.
                Some(kind) = telling.recv() => self.say(kind),
                Some(news) = link.next() => match news {
                    News::Up { outbox, .. } => self.came_up(outbox),
                    News::Down => self.outbox = None,
                    News::Told(_) | News::Refused(_) => {}
                },
            }
        }
        // What was said last is on its way.
        if let Some(outbox) = self.outbox.take() {
            let deadline = Instant::now() + Duration::from_millis(100);
            while outbox.capacity() < outbox.max_capacity() && Instant::now() < deadline {
                sleep_until((Instant::now() + Duration::from_millis(2)).min(deadline)).await;
            }
        }
    }

    fn told(&mut self, kind: to_worker::Kind) {
        match kind {
            to_worker::Kind::Registered(_) => {}
            to_worker::Kind::Assign(assign) => self.assign(assign),
            to_worker::Kind::Drain(order) => {
                if self.phase.assignment() == Some(order.assignment) {
                    self.drain();
                } else if matches!(self.phase, Phase::Waiting) && order.assignment >= *self.assignment.borrow() {
                    // Nothing of it is loaded, and nothing will be.
                    self.assignment.send_replace(order.assignment);
                    self.became(Kind::Unloaded(Unloaded { assignment: order.assignment }));
                }
            }
            to_worker::Kind::Unload(order) => {
                if self.phase.assignment() == Some(order.assignment) {
                    self.unload(None);
                } else if matches!(self.phase, Phase::Waiting) && order.assignment >= *self.assignment.borrow() {
                    self.assignment.send_replace(order.assignment);
                    self.became(Kind::Unloaded(Unloaded { assignment: order.assignment }));
                }
            }
        }
    }

    fn assign(&mut self, assign: Assign) {
        let number = assign.assignment;
        if number <= *self.assignment.borrow() {
            // Told again, perhaps because what was said of it was lost.
            return self.say_outcome();
        }
        self.assignment.send_replace(number);
        (self.outcome, self.broken) = (None, None);
        if matches!(self.phase, Phase::Waiting) {
            self.load(assign);
        } else {
            self.unload(Some(assign));
        }
    }

    fn load(&mut self, assign: Assign) {
        let shared = self.loader.share(assign);
        let loading = load(self.loader.register.clone(), shared.clone());
        self.beside(async move { Ended::Loaded(loading.await) });
        self.phase = Phase::Loading { shared, then: Then::default() };
    }

    fn begin_drain(&mut self, shared: Arc<Shared>, mut loaded: Loaded, then: Then) {
        self.beside(async move {
            loaded.drain().await;
            Ended::Drained(loaded)
        });
        self.phase = Phase::Draining { shared, then };
    }

    fn begin_close(&mut self, shared: &Arc<Shared>, loaded: Loaded, then: Option<Assign>) {
        self.beside(async move {
            loaded.close().await;
            Ended::Closed
        });
        self.phase = Phase::Closing { assignment: shared.assign.assignment, then };
    }

    fn beside(&self, work: impl Future<Output = Ended> + Send + 'static) {
        let beside = self.beside.clone();
        tokio::spawn(async move {
            // What is guarded does not panic; a value of the program's own may when it is dropped.
            let ended = AssertUnwindSafe(work).catch_unwind().await.unwrap_or(Ended::Closed);
            _ = beside.send(ended).await;
        });
    }

    fn drain(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Ready { shared, loaded } => self.begin_drain(shared, loaded, Then::default()),
            Phase::Loading { shared, mut then } => {
                then.drain = true;
                self.phase = Phase::Loading { shared, then };
            }
            drained @ Phase::Drained { .. } => {
                self.phase = drained;
                self.say_outcome();
            }
            other => self.phase = other,
        }
    }

    fn unload(&mut self, assign: Option<Assign>) {
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Ready { shared, loaded } | Phase::Drained { shared, loaded } => {
                self.begin_close(&shared, loaded, assign);
            }
            Phase::Loading { shared, then } => {
                shared.shutdown.cancel();
                let assign = assign.or(then.assign);
                self.phase = Phase::Loading { shared, then: Then { unload: true, assign, drain: then.drain } };
            }
            Phase::Draining { shared, then } => {
                // Whoever unloads waits no longer for what is in flight.
                shared.shutdown.cancel();
                let assign = assign.or(then.assign);
                self.phase = Phase::Draining { shared, then: Then { unload: true, assign, drain: then.drain } };
            }
            Phase::Closing { assignment, then } => {
                self.phase = Phase::Closing { assignment, then: assign.or(then) };
            }
            Phase::Waiting => {}
        }
    }

    /// What ran beside has ended.
    fn advance(&mut self, ended: Ended) {
        match (std::mem::replace(&mut self.phase, Phase::Waiting), ended) {
            (Phase::Loading { then: Then { assign: Some(assign), .. }, .. }, Ended::Loaded(Err(_))) => {
                self.load(assign)
            }
            (Phase::Loading { .. }, Ended::Loaded(Err(failed))) => self.became(Kind::Failed(failed)),
            (Phase::Loading { shared, then }, Ended::Loaded(Ok(loaded))) => {
                if then.drain {
                    self.begin_drain(shared, loaded, then);
                } else if then.unload {
                    self.begin_close(&shared, loaded, then.assign);
                } else {
                    let assignment = shared.assign.assignment;
                    self.phase = Phase::Ready { shared, loaded };
                    self.became(Kind::Ready(Ready { assignment }));
                }
            }
            (Phase::Draining { shared, then }, Ended::Drained(loaded)) => {
                let assignment = shared.assign.assignment;
                if then.unload {
                    self.begin_close(&shared, loaded, then.assign);
                } else {
                    self.phase = Phase::Drained { shared, loaded };
                }
                self.became(Kind::Drained(Drained { assignment }));
            }
            (Phase::Closing { assignment, then }, Ended::Closed) => {
                self.became(Kind::Unloaded(Unloaded { assignment }));
                if let Some(assign) = then {
                    self.outcome = None;
                    self.load(assign);
                }
            }
            (Phase::Loading { shared, .. }, Ended::Closed) => {
                let (assignment, error) = (shared.assign.assignment, "it panicked".to_owned());
                self.became(Kind::Failed(Failed { assignment, error, ..Failed::default() }));
            }
            (Phase::Draining { shared, .. }, Ended::Closed) => {
                let assignment = shared.assign.assignment;
                self.became(Kind::Unloaded(Unloaded { assignment }));
            }
            // One thing runs beside at a time, and its phase stays until it has ended.
            (phase, _) => self.phase = phase,
        }
    }

    fn became(&mut self, outcome: Kind) {
        self.outcome = Some(outcome);
        self.say_outcome();
    }

    /// Says what became of the last assignment. What does not reach the other end is said in the next session.
    fn say_outcome(&mut self) {
        if let Some(outcome) = self.outcome.clone() {
            self.say(outcome);
        }
    }

    /// A session is open: what must be known is said, and what has waited.
    fn came_up(&mut self, outbox: mpsc::Sender<FromWorker>) {
        self.outbox = Some(outbox);
        self.say_outcome();
        let broken = self.broken.clone();
        for kind in broken.into_iter().chain(std::mem::take(&mut self.waiting)) {
            self.say(kind);
        }
    }

    /// Says something that waits for a session where there is none.
    fn say_later(&mut self, kind: Kind) {
        if matches!(&kind, Kind::ErrorReport(report) if report.severity() == Severity::Broken) {
            self.broken = Some(kind.clone());
            if self.outbox.is_none() {
                return;
            }
        }
        match &self.outbox {
            Some(_) => self.say(kind),
            None if self.waiting.len() < super::TELLING => self.waiting.push(kind),
            None => {}
        }
    }

    fn say(&mut self, kind: Kind) {
        // An outbox that is full has a reader that does not read: its session ends soon, and the next one begins anew.
        let told = self.outbox.as_ref().map(|outbox| outbox.try_send(FromWorker { kind: Some(kind) }));
        if told.is_some_and(|told| told.is_err()) {
            self.outbox = None;
        }
    }
}

impl Phase {
    fn shared(&self) -> Option<&Arc<Shared>> {
        match self {
            Self::Loading { shared, .. }
            | Self::Ready { shared, .. }
            | Self::Draining { shared, .. }
            | Self::Drained { shared, .. } => Some(shared),
            Self::Waiting | Self::Closing { .. } => None,
        }
    }

    fn assignment(&self) -> Option<u64> {
        match self {
            Self::Closing { assignment, .. } => Some(*assignment),
            other => other.shared().map(|shared| shared.assign.assignment),
        }
    }
}
