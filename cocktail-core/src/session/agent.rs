//! The agent's end of a session.
//!
//! Start at [`AgentEnd`]. The driver dials a Manager, passes on what comes, and does what an [`AgentOutput`] asks for, in
//! its order. The runtime below it (a keeper) must outlive the agent: it is told the lease by [`Effect::Hold`] and fences
//! by itself when that passes, since the agent may be stopped or dead by then.
//!
//! What always holds: a session never outlives the lease, so whoever acts on an order has one; what the lease's end has
//! blocked stays blocked until an order admits it.

mod containers;
mod memory;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::memory::{AgentMemory, Mark, Memo};

use self::containers::Containers;
use super::lineage;
use super::message::{
    Attempt, Failure, Held, Hello, LeaseEnd, Order, Outcome, Phase, Report, Terms, ToAgent, ToManager, VERSIONS,
    Welcome,
};
use super::{AgentTime, BootId, Connection, OPEN_ORDERS, PAGE, SessionId};
use crate::contract::{Exit, Launch, Lease};
use crate::id::{ContainerId, Generation, ServerId};

/// How often the pause between two hellos on one connection is doubled.
const SLOWEST: u32 = 3;

/// Hellos without an answer after which a connection is given up.
const PATIENT_HELLOS: u32 = 6;

/// Beats whose answer may still come.
const OPEN_BEATS: usize = 64;

/// Who this agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// The server.
    pub server: ServerId,
    /// This boot of it.
    pub boot: BootId,
    /// First pause before a hello is sent again.
    pub hello_every: Duration,
}

/// What a new agent finds that outlived the last one on the same boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survivors {
    /// What the runtime was told last by [`Effect::Hold`]: until when, and the time to end in.
    pub lease: Option<(AgentTime, Duration)>,
    /// Every container that the runtime knows.
    pub containers: BTreeMap<ContainerId, Survivor>,
}

/// A container that outlived its agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// Which start of it. Of two, the older one.
    pub generation: Generation,
    /// How it ended; `None` while it is there.
    pub exit: Option<Exit>,
    /// It is cut off from traffic.
    pub blocked: bool,
    /// As it was started.
    pub at_lease_end: LeaseEnd,
}

/// What the driver has to do: memos first, durably; then effects, in order; then messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct AgentOutput {
    /// What to remember before anything else is done.
    pub memos: Vec<Memo>,
    /// What to tell the runtime.
    pub effects: Vec<Effect>,
    /// What to send.
    pub messages: Vec<(Connection, ToManager)>,
    /// Connections to close, after what was sent on them; [`AgentEnd::opened`] is expected for a new one.
    pub hang_up: Vec<Connection>,
}

/// What a runtime is told. Each may be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Containers may serve until then, and those that are to end get `fence` for it.
    Hold {
        /// By the agent's clock.
        until: AgentTime,
        /// Time to end in.
        fence: Duration,
    },
    /// Start a generation; [`AgentEnd::started`] or [`AgentEnd::start_failed`] answers.
    Run {
        /// What to start.
        launch: Arc<Launch>,
        /// What to do with it when the lease ends.
        at_lease_end: LeaseEnd,
    },
    /// End a generation within the grace, or an earlier one; [`AgentEnd::exited`] answers when nothing of it is left.
    End {
        /// The container.
        container: ContainerId,
        /// Which start of it.
        generation: Generation,
        /// Time until everything is killed.
        grace: Duration,
    },
    /// Cut a generation off from traffic, at once and also if it is still being started.
    Block {
        /// The container.
        container: ContainerId,
        /// Which start of it.
        generation: Generation,
    },
    /// Let a generation serve again.
    Unblock {
        /// The container.
        container: ContainerId,
        /// Which start of it.
        generation: Generation,
    },
    /// Remove what is left of an ended container.
    Forget {
        /// The container.
        container: ContainerId,
    },
}

/// The agent's end.
#[derive(Debug, Clone)]
pub struct AgentEnd {
    config: AgentConfig,
    memory: AgentMemory,
    now: AgentTime,
    /// When the lease is over, and the time to end in then.
    lease: Option<(AgentTime, Duration)>,
    /// Whose session this is, or was last.
    leading: Option<Lease>,
    hellos: u64,
    link: Option<Link>,
    containers: Containers,
}

#[derive(Debug, Clone)]
enum Link {
    Greeting(Greeting),
    Open(Box<Open>),
}

/// A connection without a session.
#[derive(Debug, Clone)]
struct Greeting {
    connection: Connection,
    /// Hellos in a row without an answer.
    unanswered: u32,
    /// When the last one was sent.
    sent: AgentTime,
    again: AgentTime,
}

/// A session.
#[derive(Debug, Clone)]
struct Open {
    connection: Connection,
    session: SessionId,
    lease: Lease,
    terms: Terms,
    /// The Manager has shown that it has our confirmation.
    confirmed: bool,
    /// Beats without an answer, and when each was sent.
    beats: VecDeque<(u64, AgentTime)>,
    beat: u64,
    heard: u64,
    heard_at: AgentTime,
    beat_at: AgentTime,
    taken: u64,
    waiting: BTreeMap<u64, Order>,
    /// Reports that were not acknowledged; the first has the number `acknowledged + 1`.
    reports: VecDeque<Report>,
    acknowledged: u64,
    /// Reports up to this one were sent.
    sent: u64,
}

impl AgentEnd {
    /// An agent that was just started. What survived without a lease that still runs is fenced by the output.
    pub fn new(config: AgentConfig, memory: AgentMemory, found: Survivors, now: AgentTime) -> (Self, AgentOutput) {
        let mut out = AgentOutput { memos: vec![Memo::Start(memory.starts + 1)], ..AgentOutput::default() };
        let containers = Containers::found(&memory, found.containers, &mut out);
        let lease = Some(found.lease.unwrap_or((now, Duration::ZERO)));
        let mut end = Self { config, memory, now, lease, leading: None, hellos: 0, link: None, containers };
        end.pass(now, &mut out);
        let out = end.finish(out);
        (end, out)
    }

    /// There is a connection to a Manager. It takes the place of an earlier one.
    pub fn opened(&mut self, now: AgentTime, connection: Connection) -> AgentOutput {
        self.turn(now, |end, out| {
            if let Some(link) = end.link.take() {
                out.hang_up.push(link.connection());
            }
            let greeting = Greeting { connection, unanswered: 0, sent: end.now, again: end.now };
            end.link = Some(Link::Greeting(greeting));
            end.greet(out);
        })
    }

    /// A connection broke.
    pub fn closed(&mut self, now: AgentTime, connection: Connection) -> AgentOutput {
        self.turn(now, |end, _| {
            end.link.take_if(|link| link.connection() == connection);
        })
    }

    /// A message came.
    pub fn received(&mut self, now: AgentTime, connection: Connection, message: ToAgent) -> AgentOutput {
        self.turn(now, |end, out| match message {
            ToAgent::Welcome(welcome) => end.welcomed(connection, welcome, out),
            ToAgent::Refused { attempt, retry_after, .. } => end.refused(connection, attempt, retry_after),
            ToAgent::Renew { session, beat, received } => {
                let Some(open) = open_in(&mut end.link, session) else { return };
                open.acknowledge(received);
                if let Some(sent) = open.answered(beat, end.now) {
                    end.hold(sent, out);
                }
            }
            ToAgent::Received { session, received } => {
                let Some(open) = open_in(&mut end.link, session) else { return };
                open.confirmed = true;
                open.acknowledge(received);
            }
            ToAgent::Orders { session, first, orders } => end.ordered(session, first, orders, out),
        })
    }

    /// Time has passed.
    pub fn tick(&mut self, now: AgentTime) -> AgentOutput {
        self.turn(now, |_, _| ())
    }

    /// The runtime started a generation.
    pub fn started(&mut self, now: AgentTime, container: &ContainerId, generation: Generation) -> AgentOutput {
        self.turn(now, |end, _| end.containers.started(container, generation))
    }

    /// The runtime could not start a generation, and nothing of it is left.
    pub fn start_failed(
        &mut self,
        now: AgentTime,
        container: &ContainerId,
        generation: Generation,
        failure: Failure,
    ) -> AgentOutput {
        self.turn(now, |end, out| end.containers.over(container, generation, Phase::Failed(failure), out))
    }

    /// A generation ended, asked for or not, and nothing of it is left.
    pub fn exited(
        &mut self,
        now: AgentTime,
        container: &ContainerId,
        generation: Generation,
        exit: Exit,
    ) -> AgentOutput {
        self.turn(now, |end, out| end.containers.over(container, generation, Phase::Ended(Some(exit)), out))
    }

    /// When [`AgentEnd::tick`] must be called at the latest.
    pub fn wake_at(&self) -> Option<AgentTime> {
        let link = self.link.as_ref().map(|link| match link {
            Link::Greeting(greeting) => greeting.again,
            Link::Open(open) => open.beat_at.min(open.heard_at + open.terms.patience),
        });
        [link, self.lease.map(|(until, _)| until)].into_iter().flatten().min()
    }

    /// What is remembered.
    pub fn memory(&self) -> &AgentMemory {
        &self.memory
    }

    /// The session, if there is one.
    pub fn session(&self) -> Option<SessionId> {
        match &self.link {
            Some(Link::Open(open)) => Some(open.session),
            Some(Link::Greeting(_)) | None => None,
        }
    }

    /// Until when everything may run, and what it gets to end in then.
    pub fn lease(&self) -> Option<(AgentTime, Duration)> {
        self.lease
    }

    /// Every container that is known here.
    pub fn containers(&self) -> BTreeMap<ContainerId, Held> {
        self.containers.table()
    }

    fn turn(&mut self, now: AgentTime, act: impl FnOnce(&mut Self, &mut AgentOutput)) -> AgentOutput {
        let mut out = AgentOutput::default();
        // What is over by now is over before anything else is looked at: a message may have waited while we did not run.
        self.pass(now, &mut out);
        act(self, &mut out);
        self.finish(out)
    }

    fn pass(&mut self, now: AgentTime, out: &mut AgentOutput) {
        self.now = self.now.max(now);
        let now = self.now;
        let over = self.lease.take_if(|(until, _)| *until <= now);
        let silent = |link: &Link| match link {
            Link::Greeting(greeting) => greeting.unanswered >= PATIENT_HELLOS && greeting.again <= now,
            Link::Open(open) => over.is_some() || now >= open.heard_at + open.terms.patience,
        };
        if let Some(link) = self.link.take_if(|link| silent(link)) {
            out.hang_up.push(link.connection());
        }
        if let Some((_, fence)) = over {
            self.containers.lease_over(fence, out);
        }
        match &mut self.link {
            Some(Link::Greeting(greeting)) if greeting.again <= now => self.greet(out),
            Some(Link::Open(open)) if open.beat_at <= now => open.beat(now, &self.containers, out),
            _ => (),
        }
    }

    fn greet(&mut self, out: &mut AgentOutput) {
        let Some(Link::Greeting(greeting)) = &mut self.link else { return };
        self.hellos += 1;
        greeting.sent = self.now;
        greeting.again = self.now + self.config.hello_every.saturating_mul(1 << greeting.unanswered.min(SLOWEST));
        greeting.unanswered += 1;
        let hello = Hello {
            versions: VERSIONS,
            server: self.config.server.clone(),
            boot: self.config.boot.clone(),
            attempt: Attempt { start: self.memory.starts, number: self.hellos },
            last: self.memory.session,
            store: self.memory.obeyed.as_ref().map(|lease| lease.store.clone()),
            obeyed: self.memory.obeyed.as_ref().map(|lease| lease.epoch),
        };
        out.messages.push((greeting.connection, ToManager::Hello(hello)));
    }

    fn refused(&mut self, connection: Connection, attempt: Attempt, retry_after: Duration) {
        let latest = self.latest_attempt();
        let Some(Link::Greeting(greeting)) = &mut self.link else { return };
        if greeting.connection == connection && attempt == latest {
            greeting.unanswered = 0;
            greeting.again = self.now + retry_after.max(self.config.hello_every);
        }
    }

    fn latest_attempt(&self) -> Attempt {
        Attempt { start: self.memory.starts, number: self.hellos }
    }

    fn welcomed(&mut self, connection: Connection, welcome: Welcome, out: &mut AgentOutput) {
        let latest = self.latest_attempt();
        let Some(Link::Greeting(greeting)) = &self.link else { return };
        let Welcome { attempt, session, lease, terms } = welcome;
        let until = greeting.sent + terms.lease;
        // The answer to an earlier hello would give a lease from that one's time, and one that comes too late gives none.
        if greeting.connection != connection || attempt != latest || until <= self.now {
            return;
        }
        if let Err(why) = lineage::check(&lease, self.memory.obeyed.as_ref(), self.leading.as_ref()) {
            out.messages.push((connection, ToManager::Declined { attempt, why }));
            out.hang_up.push(connection);
            self.link = None;
            return;
        }
        let sent = greeting.sent;
        self.leading = Some(lease.clone());
        out.memos.push(Memo::Session(session));
        // The confirmation says everything as it is now: nothing before it needs to be reported.
        self.containers.take_changed();
        let mut open = Open::new(connection, session, lease, terms, self.now);
        open.beat(self.now, &self.containers, out);
        self.link = Some(Link::Open(Box::new(open)));
        self.hold(sent, out);
    }

    /// Something that was sent at `sent` was answered.
    fn hold(&mut self, sent: AgentTime, out: &mut AgentOutput) {
        let Some(Link::Open(open)) = &self.link else { return };
        let (until, fence) = (sent + open.terms.lease, open.terms.fence);
        if self.lease.is_none_or(|(before, _)| before < until) {
            self.lease = Some((until, fence));
            out.effects.push(Effect::Hold { until, fence });
        }
    }

    fn ordered(&mut self, session: SessionId, first: u64, orders: Vec<Order>, out: &mut AgentOutput) {
        let Some(open) = open_in(&mut self.link, session) else { return };
        open.confirmed = true;
        for (number, order) in (first..=u64::MAX).zip(orders) {
            if number != open.taken + 1 || open.is_full() {
                continue;
            }
            open.taken = number;
            if self.memory.obeyed.as_ref() != Some(&open.lease) {
                self.memory.obeyed = Some(open.lease.clone());
                out.memos.push(Memo::Obeyed(open.lease.clone()));
            }
            match self.containers.take(&order, open.terms.fence, out) {
                Ok(()) => {
                    open.waiting.insert(number, order);
                }
                Err(why) => {
                    let outcome = Outcome::Refused(why);
                    open.reports.push_back(Report::Outcome { order: number, outcome });
                }
            }
        }
        // Also what was taken before is acknowledged again, and what came of it, as long as that was not received.
        open.sent = open.acknowledged;
        open.report_even_if_empty(out);
    }

    fn finish(&mut self, mut out: AgentOutput) -> AgentOutput {
        for memo in &out.memos {
            self.memory.apply(memo.clone());
        }
        if let Some(Link::Open(open)) = &mut self.link {
            let changed = self.containers.take_changed();
            open.reports.extend(changed.into_iter().map(|(container, held)| Report::Changed { container, held }));
            let containers = &self.containers;
            let reports = &mut open.reports;
            open.waiting.retain(|number, order| match containers.outcome(order) {
                Some(outcome) => {
                    reports.push_back(Report::Outcome { order: *number, outcome });
                    false
                }
                None => true,
            });
            open.report(&mut out);
        }
        out
    }
}

fn open_in(link: &mut Option<Link>, session: SessionId) -> Option<&mut Open> {
    match link {
        Some(Link::Open(open)) if open.session == session => Some(open),
        _ => None,
    }
}

impl Link {
    fn connection(&self) -> Connection {
        match self {
            Self::Greeting(greeting) => greeting.connection,
            Self::Open(open) => open.connection,
        }
    }
}

impl Open {
    fn new(connection: Connection, session: SessionId, lease: Lease, terms: Terms, now: AgentTime) -> Self {
        Self {
            connection,
            session,
            lease,
            terms,
            confirmed: false,
            beats: VecDeque::new(),
            beat: 0,
            heard: 0,
            heard_at: now,
            beat_at: now,
            taken: 0,
            waiting: BTreeMap::new(),
            reports: VecDeque::new(),
            acknowledged: 0,
            sent: 0,
        }
    }

    /// Sends a beat, and again what was not acknowledged.
    fn beat(&mut self, now: AgentTime, containers: &Containers, out: &mut AgentOutput) {
        let session = self.session;
        if !self.confirmed {
            let as_of = self.acknowledged + self.reports.len() as u64;
            let containers = containers.table();
            out.messages.push((self.connection, ToManager::Confirm { session, as_of, containers }));
        }
        self.beat += 1;
        self.beats.push_back((self.beat, now));
        if self.beats.len() > OPEN_BEATS {
            self.beats.pop_front();
        }
        self.beat_at = now + self.terms.beat.max(Duration::from_millis(1));
        let (number, heard, taken) = (self.beat, self.heard, self.taken);
        out.messages.push((self.connection, ToManager::Beat { session, number, heard, taken }));
        self.sent = self.acknowledged;
    }

    /// The time at which a beat was sent that is now answered for the first time.
    fn answered(&mut self, beat: u64, now: AgentTime) -> Option<AgentTime> {
        let sent = self.beats.iter().find(|(number, _)| *number == beat)?.1;
        self.beats.retain(|(number, _)| *number > beat);
        self.confirmed = true;
        self.heard = beat;
        self.heard_at = now;
        Some(sent)
    }

    fn acknowledge(&mut self, received: u64) {
        while self.acknowledged < received && self.reports.pop_front().is_some() {
            self.acknowledged += 1;
        }
        self.sent = self.sent.max(self.acknowledged);
    }

    /// Whether the Manager has to hear of what it ordered before it orders more.
    fn is_full(&self) -> bool {
        let told = self.reports.iter().filter(|report| matches!(report, Report::Outcome { .. })).count();
        self.waiting.len() + told >= OPEN_ORDERS
    }

    fn report(&mut self, out: &mut AgentOutput) {
        let unsent = usize::try_from(self.sent - self.acknowledged).unwrap_or(usize::MAX);
        if unsent < self.reports.len() {
            self.report_even_if_empty(out);
        }
    }

    fn report_even_if_empty(&mut self, out: &mut AgentOutput) {
        let (session, taken) = (self.session, self.taken);
        loop {
            let from = usize::try_from(self.sent - self.acknowledged).unwrap_or(usize::MAX);
            let reports: Vec<Report> = self.reports.iter().skip(from).take(PAGE).cloned().collect();
            let first = self.sent + 1;
            self.sent += reports.len() as u64;
            out.messages.push((self.connection, ToManager::Reports { session, taken, first, reports }));
            if self.sent == self.acknowledged + self.reports.len() as u64 {
                return;
            }
        }
    }
}
