//! The Manager's end of a session, one for each server.
//!
//! Start at [`ManagerEnd`]. It is a value that the planner keeps beside its State: facts come out of it, orders go in.
//! Whatever a [`ManagerOutput`] tells as facts is committed before its messages are sent, so that a Manager that dies
//! between the two has promised nothing that the next one does not know.
//!
//! What always holds: the server is lost only when every lease that an answer of ours may have given is over on the
//! agent; time in which no Manager ran counts for nobody, since a new one waits the whole span from its own start on.

mod greeting;
mod orders;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::greeting::Pending;
use self::orders::Live;
use super::message::{Decline, Held, Order, Outcome, Phase, ToAgent, ToManager};
use super::{Attempt, BootId, Connection, SessionId, Timing};
use crate::contract::Lease;
use crate::id::{ContainerId, Generation, OperationId, ServerId};
use crate::time::ManagerTime;

/// Boots of one server that are remembered after another one took over.
pub const RETIRED_BOOTS: usize = 64;

/// The Manager's end.
#[derive(Debug, Clone)]
pub struct ManagerEnd {
    timing: Timing,
    server: ServerId,
    lease: Lease,
    acts_until: Option<ManagerTime>,
    now: ManagerTime,
    record: Record,
    claims: BTreeMap<ContainerId, Claim>,
    released: BTreeSet<ContainerId>,
    contact: Contact,
    /// When something was sent last that may have given a lease, by us or, at our start, by the Manager before us.
    granted_at: ManagerTime,
    /// When the first grant was sent of which nothing shows that it arrived.
    unproven_since: Option<ManagerTime>,
    heard_at: ManagerTime,
    /// Sessions that were offered.
    offered: u64,
    latest: Option<(BootId, Attempt)>,
    pending: Option<Pending>,
    live: Option<Live>,
    seen: BTreeMap<ContainerId, Held>,
    alerted: BTreeSet<BootId>,
}

/// What a Manager has to remember of a server's sessions; durable whenever [`Fact::Recorded`] says so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The boot that joined last.
    pub boot: Option<BootId>,
    /// Boots that never come back, oldest first: [`RETIRED_BOOTS`] at most.
    pub retired: VecDeque<BootId>,
    /// The last session that was confirmed.
    pub session: Option<SessionId>,
    /// The longest lease that was given since the server was lost, for a Manager with other settings.
    pub promised: Duration,
    /// It was lost, and nothing has joined since.
    pub lost: bool,
}

/// What the planner has on a server, as far as the session must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The start that was ordered last.
    pub generation: Generation,
    /// Whether it may go on.
    pub standing: Standing,
}

/// Whether a container may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Yes.
    Wanted,
    /// It was told to end.
    Leaving,
    /// It is replaced: ended wherever it is found, never routed, never started again.
    Fenced,
}

/// How a server is in touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contact {
    /// Nothing was heard yet.
    Awaited,
    /// It beats.
    Live,
    /// Nothing was heard for a while. Its containers may serve.
    Silent,
    /// Whatever it ran has ended or is blocked.
    Lost,
}

/// What the driver has to do: commit the facts, then send the messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct ManagerOutput {
    /// What the planner learns, in order.
    pub facts: Vec<Fact>,
    /// What to send.
    pub messages: Vec<(Connection, ToAgent)>,
    /// Connections to close, after what was sent on them.
    pub hang_up: Vec<Connection>,
}

/// What the planner learns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// This has to be durable.
    Recorded(Record),
    /// A session began. What is not named by a verdict is not there.
    Joined {
        /// The session.
        session: SessionId,
        /// The boot.
        boot: BootId,
        /// It is not the boot that joined before.
        rebooted: bool,
        /// What became of what was claimed, and what else is there.
        verdicts: BTreeMap<ContainerId, Verdict>,
    },
    /// Nothing was heard for `silent_after`.
    Silent,
    /// It was silent and is heard again, in the same session.
    Back,
    /// Every lease is over.
    Lost,
    /// An order's outcome.
    Outcome {
        /// Whose order it was.
        operation: OperationId,
        /// What came of it.
        outcome: Outcome,
    },
    /// The session ended before the outcome was told: what the next one finds says what came of the order.
    Undecided {
        /// Whose order it was.
        operation: OperationId,
    },
    /// A container is no longer as it was.
    Changed {
        /// The container.
        container: ContainerId,
        /// As it is now.
        held: Held,
    },
    /// Nothing of a fenced container serves any more, nor ever will: its replacement may be admitted.
    Released {
        /// The container.
        container: ContainerId,
    },
    /// Another boot asks to join while the one that joined may be alive: it was rebooted, or there are two.
    Contested {
        /// The other one.
        boot: BootId,
    },
    /// There are two: a boot, or a copy of it, asks to join after another took over from it. It is refused for good.
    Twin {
        /// Who asked.
        boot: BootId,
    },
    /// The agent does not follow us.
    Declined {
        /// Why.
        why: Decline,
    },
}

/// What a new session finds of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is wanted and there, at this generation, which is the claimed one or a newer one.
    Adopted(Generation),
    /// Only an older generation than the claimed one is there.
    Older(Generation),
    /// It is ending, or has to be told again.
    Leaving(Generation),
    /// It has ended or could not be started.
    Over(Generation),
    /// It was claimed and is not there.
    Missing,
    /// It was replaced: it is being ended.
    Fenced(Generation),
    /// Nobody claimed it. It is left alone.
    Unknown(Generation),
}

/// Why an order is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There is no session, or no right to act.
    #[error("the server has no session")]
    NoSession,
    /// Too many wait for their outcome.
    #[error("{limit} orders wait for their outcome")]
    Full {
        /// [`super::OPEN_ORDERS`].
        limit: usize,
    },
    /// It was replaced.
    #[error("the container was replaced")]
    Fenced,
    /// A newer generation is there.
    #[error("generation {newest} of the container was ordered or seen already")]
    OlderGeneration {
        /// The highest that is known.
        newest: Generation,
    },
}

impl ManagerEnd {
    /// A Manager that was just started, with what the one before it has recorded and claimed.
    ///
    /// The server has the whole span from now on, whenever it was heard last: while no Manager ran nobody could answer
    /// it, and the last answer of the Manager before may have been sent just now.
    pub fn new(
        timing: Timing,
        server: ServerId,
        lease: Lease,
        record: Record,
        claims: BTreeMap<ContainerId, Claim>,
        now: ManagerTime,
    ) -> Self {
        let contact = if record.lost { Contact::Lost } else { Contact::Awaited };
        Self {
            timing,
            server,
            lease,
            acts_until: None,
            now,
            record,
            claims,
            released: BTreeSet::new(),
            contact,
            granted_at: now,
            unproven_since: None,
            heard_at: now,
            offered: 0,
            latest: None,
            pending: None,
            live: None,
            seen: BTreeMap::new(),
            alerted: BTreeSet::new(),
        }
    }

    /// The Manager may act until then; `None` is as long as it runs, as with the lock on a data dir.
    ///
    /// Afterwards it answers nobody, orders nothing and loses no server. A store whose lease is renewed says so here
    /// after each renewal; another Manager may only begin when this time has surely passed.
    pub fn may_act_until(&mut self, now: ManagerTime, until: Option<ManagerTime>) -> ManagerOutput {
        self.turn(now, |end, _| end.acts_until = until)
    }

    /// A message came.
    pub fn received(&mut self, now: ManagerTime, connection: Connection, message: ToManager) -> ManagerOutput {
        self.turn(now, |end, out| match message {
            ToManager::Hello(hello) => end.greeted(connection, hello, out),
            ToManager::Declined { attempt, why } => end.declined(attempt, why, out),
            ToManager::Confirm { session, as_of, containers } => end.confirmed(session, as_of, containers, out),
            ToManager::Beat { session, number, heard, taken } => end.beaten(session, number, heard, taken, out),
            ToManager::Reports { session, taken, first, reports } => end.told(session, taken, first, reports, out),
        })
    }

    /// A connection broke. The session on it is over, the lease is not.
    pub fn closed(&mut self, now: ManagerTime, connection: Connection) -> ManagerOutput {
        self.turn(now, |end, out| {
            end.pending.take_if(|pending| pending.connection == connection);
            if end.live.as_ref().is_some_and(|live| live.connection == connection) {
                end.end_session(out);
            }
        })
    }

    /// Time has passed.
    pub fn tick(&mut self, now: ManagerTime) -> ManagerOutput {
        self.turn(now, |_, _| ())
    }

    /// Orders something; [`Fact::Outcome`] or [`Fact::Undecided`] answers, once. What is ordered is claimed.
    ///
    /// # Errors
    /// Nothing was done: [`OrderError`].
    pub fn order(
        &mut self,
        now: ManagerTime,
        operation: OperationId,
        order: Order,
    ) -> Result<ManagerOutput, OrderError> {
        self.check(now, &order)?;
        Ok(self.turn(now, |end, out| end.ordered(operation, order, out)))
    }

    /// A replacement of this container was decided; [`Fact::Released`] says when it may be admitted. May be repeated, and
    /// is after a restart for each that is still to be released.
    pub fn fence(&mut self, now: ManagerTime, container: &ContainerId) -> ManagerOutput {
        self.turn(now, |end, out| end.fenced(container, out))
    }

    /// Somebody outside has proved that a boot is over: the provider stopped the machine, or has seen it reboot.
    pub fn proven_dead(&mut self, now: ManagerTime, boot: &BootId) -> ManagerOutput {
        self.turn(now, |end, out| {
            if end.record.boot.as_ref() == Some(boot) {
                end.record.boot = None;
                end.retire(boot.clone());
                end.lose(out);
            } else if !end.record.retired.contains(boot) {
                end.retire(boot.clone());
                out.facts.push(Fact::Recorded(end.record.clone()));
            }
        })
    }

    /// When [`ManagerEnd::tick`] must be called at the latest.
    pub fn wake_at(&self) -> Option<ManagerTime> {
        let silent = self.awaits_words().then(|| self.silent_at());
        let lost = (self.may_lose() && self.acts()).then(|| self.lost_at());
        let resend = self.live.as_ref().filter(|_| self.acts()).and_then(Live::resend_at);
        [silent, lost, resend].into_iter().flatten().min()
    }

    /// How the server is in touch.
    pub fn contact(&self) -> Contact {
        self.contact
    }

    /// The session, if there is one.
    pub fn session(&self) -> Option<SessionId> {
        self.live.as_ref().map(|live| live.id)
    }

    /// The connection of the session, if there is one.
    pub fn connection(&self) -> Option<Connection> {
        self.live.as_ref().map(|live| live.connection)
    }

    /// The spans that hold.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// What was recorded.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What is claimed.
    pub fn claims(&self) -> &BTreeMap<ContainerId, Claim> {
        &self.claims
    }

    /// Every container as the agent told it last; none once the server is lost.
    pub fn seen(&self) -> &BTreeMap<ContainerId, Held> {
        &self.seen
    }

    /// The generation of a container that may get traffic as far as the session can say: it is wanted, runs, is not
    /// blocked, and its server is not lost.
    pub fn routable(&self, container: &ContainerId) -> Option<Generation> {
        let claim = self.claims.get(container).filter(|claim| claim.standing == Standing::Wanted)?;
        let held = self.seen.get(container)?;
        let serves = held.phase == Phase::Running && !held.blocked && held.generation == claim.generation;
        serves.then_some(held.generation)
    }

    fn turn(&mut self, now: ManagerTime, act: impl FnOnce(&mut Self, &mut ManagerOutput)) -> ManagerOutput {
        let mut out = ManagerOutput::default();
        self.pass(now, &mut out);
        act(self, &mut out);
        self.send_orders(&mut out);
        out
    }

    fn pass(&mut self, now: ManagerTime, out: &mut ManagerOutput) {
        self.now = self.now.max(now);
        if self.awaits_words() && self.silent_at() <= self.now {
            self.contact = Contact::Silent;
            out.facts.push(Fact::Silent);
        }
        if self.may_lose() && self.acts() && self.lost_at() <= self.now {
            self.lose(out);
        }
    }

    fn acts(&self) -> bool {
        self.acts_until.is_none_or(|until| self.now < until)
    }

    /// A server that never joined is neither silent nor lost: whether it is late is the planner's to say.
    fn awaits_words(&self) -> bool {
        self.record.boot.is_some() && matches!(self.contact, Contact::Awaited | Contact::Live)
    }

    fn may_lose(&self) -> bool {
        self.record.boot.is_some() && self.contact != Contact::Lost
    }

    fn silent_at(&self) -> ManagerTime {
        self.heard_at + self.timing.spans().silent_after
    }

    fn lost_at(&self) -> ManagerTime {
        self.granted_at + self.timing.replace_after(self.record.promised)
    }

    /// Whether something may be sent that gives a lease; if so it counts as sent.
    ///
    /// A server that hears nothing of us would never be lost if each of its calls were answered. So answers that nothing
    /// shows to have arrived are given for the span of one lease only. Nothing is at stake with a lost one.
    fn grant(&mut self) -> bool {
        let deaf = self.unproven_since.is_some_and(|since| self.now - since > self.timing.spans().lease);
        if !self.acts() || (deaf && self.contact != Contact::Lost) {
            return false;
        }
        self.granted_at = self.now;
        self.unproven_since.get_or_insert(self.now);
        true
    }

    /// Something of the session was heard; `proven` if it shows that an answer of ours arrived.
    fn heard(&mut self, proven: bool, out: &mut ManagerOutput) {
        self.heard_at = self.now;
        if proven {
            self.unproven_since = None;
        }
        if self.contact == Contact::Silent {
            self.contact = Contact::Live;
            out.facts.push(Fact::Back);
        }
    }

    fn lose(&mut self, out: &mut ManagerOutput) {
        self.end_session(out);
        self.pending = None;
        self.unproven_since = None;
        self.contact = Contact::Lost;
        self.record.lost = true;
        self.record.promised = Duration::ZERO;
        self.seen.clear();
        out.facts.extend([Fact::Recorded(self.record.clone()), Fact::Lost]);
        let fenced = self.claims.iter().filter(|(_, claim)| claim.standing == Standing::Fenced);
        let fenced: Vec<ContainerId> = fenced.map(|(container, _)| container.clone()).collect();
        for container in fenced {
            self.release(&container, out);
        }
    }

    fn retire(&mut self, boot: BootId) {
        self.record.retired.push_back(boot);
        if self.record.retired.len() > RETIRED_BOOTS {
            self.record.retired.pop_front();
        }
    }

    fn end_session(&mut self, out: &mut ManagerOutput) {
        let Some(live) = self.live.take() else { return };
        out.hang_up.push(live.connection);
        out.facts.extend(live.into_operations().map(|operation| Fact::Undecided { operation }));
    }

    fn release(&mut self, container: &ContainerId, out: &mut ManagerOutput) {
        if self.released.insert(container.clone()) {
            out.facts.push(Fact::Released { container: container.clone() });
        }
    }
}
