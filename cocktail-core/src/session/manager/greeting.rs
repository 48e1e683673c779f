//! Who gets a session, and what a new one finds.
//!
//! Start at [`ManagerEnd::greeted`]. What always holds: the server has one boot at a time. Another one joins only when
//! every lease of the one before is over, and that one never comes back, so that two machines with one identity cannot
//! take turns.

use std::collections::BTreeMap;
use std::time::Duration;

use super::orders::Live;
use super::{Claim, Contact, Fact, ManagerEnd, ManagerOutput, Standing, Verdict};
use crate::contract::StopOrder;
use crate::id::ContainerId;
use crate::session::message::{Attempt, Decline, Held, Hello, Order, Phase, Refusal, ToAgent, VERSIONS, Welcome};
use crate::session::{BootId, Connection, RETIRED_BOOTS, SessionId};

/// The signal that asks a fenced container to end; its grace is zero, so that nothing depends on whether it listens.
const SIGTERM: i32 = 15;

/// A session that was offered.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) connection: Connection,
    attempt: Attempt,
    boot: BootId,
    session: SessionId,
}

impl ManagerEnd {
    pub(super) fn greeted(&mut self, connection: Connection, hello: Hello, out: &mut ManagerOutput) {
        if !self.acts() {
            return;
        }
        let attempt = hello.attempt;
        let known = self.latest.as_ref().filter(|(boot, _)| *boot == hello.boot).map(|(_, latest)| *latest);
        let repeated = self.pending.as_ref().filter(|pending| {
            pending.connection == connection && pending.attempt == attempt && pending.boot == hello.boot
        });
        let session = match repeated {
            Some(pending) => pending.session,
            // An agent has given up whatever it asked for before it asked again.
            None if known.is_some_and(|latest| attempt <= latest) => return,
            None => SessionId { epoch: self.lease.epoch, number: self.offered + 1 },
        };
        if let Err((why, retry_after)) = self.admit(&hello, out) {
            out.messages.push((connection, ToAgent::Refused { attempt, why, retry_after }));
            return;
        }
        self.latest = Some((hello.boot.clone(), attempt));
        self.offered = session.number;
        self.pending = Some(Pending { connection, attempt, boot: hello.boot, session });
        let terms = self.timing.terms();
        if self.record.promised < terms.lease {
            self.record.promised = terms.lease;
            out.facts.push(Fact::Recorded(self.record.clone()));
        }
        let welcome = Welcome { attempt, session, lease: self.lease.clone(), terms };
        out.messages.push((connection, ToAgent::Welcome(welcome)));
    }

    /// Whether a hello may be answered with a lease; if so it is granted.
    fn admit(&mut self, hello: &Hello, out: &mut ManagerOutput) -> Result<(), (Refusal, Duration)> {
        let slowly = self.timing.spans().lease;
        let (from, to) = VERSIONS;
        if hello.versions.1 < from || hello.versions.0 > to {
            return Err((Refusal::Version { from, to }, slowly));
        }
        if hello.server != self.server {
            return Err((Refusal::OtherServer { expected: self.server.clone() }, slowly));
        }
        if hello.store.as_ref().is_some_and(|store| *store != self.lease.store) {
            return Err((Refusal::OtherStore { store: self.lease.store.clone() }, slowly));
        }
        let is_bound = self.record.boot.as_ref().is_none_or(|boot| *boot == hello.boot);
        // The last session is written down before it is confirmed, so only a copy can know of none as late as we do.
        let is_copy = is_bound && self.record.boot.is_some() && hello.last < self.record.session;
        if self.record.retired.contains(&hello.boot) || is_copy {
            self.alert(Fact::Twin { boot: hello.boot.clone() }, &hello.boot, out);
            return Err((Refusal::Superseded, slowly));
        }
        let rest = self.lost_at() - self.now;
        if !is_bound && self.contact != Contact::Lost {
            self.alert(Fact::Contested { boot: hello.boot.clone() }, &hello.boot, out);
            return Err((Refusal::Occupied, rest));
        }
        if self.grant() { Ok(()) } else { Err((Refusal::Unheard, rest)) }
    }

    /// Tells a fact about a boot once.
    fn alert(&mut self, fact: Fact, boot: &BootId, out: &mut ManagerOutput) {
        if self.alerted.len() >= RETIRED_BOOTS {
            self.alerted.clear();
        }
        if self.alerted.insert(boot.clone()) {
            out.facts.push(fact);
        }
    }

    pub(super) fn declined(&mut self, attempt: Attempt, why: Decline, out: &mut ManagerOutput) {
        if self.pending.take_if(|pending| pending.attempt == attempt).is_some() {
            out.facts.push(Fact::Declined { why });
        }
    }

    pub(super) fn confirmed(
        &mut self,
        session: SessionId,
        as_of: u64,
        containers: BTreeMap<ContainerId, Held>,
        out: &mut ManagerOutput,
    ) {
        if let Some(live) = self.live.as_ref().filter(|live| live.id == session) {
            let (connection, received) = (live.connection, live.received);
            self.heard(true, out);
            out.messages.push((connection, ToAgent::Received { session, received }));
            return;
        }
        let Some(pending) = self.pending.take_if(|pending| pending.session == session) else { return };
        if self.live.as_ref().is_some_and(|live| live.connection == pending.connection) {
            // The connection goes on, the session on it does not.
            self.end_session(out);
            out.hang_up.pop();
        }
        self.end_session(out);
        let before = self.record.boot.replace(pending.boot.clone()).filter(|boot| *boot != pending.boot);
        let rebooted = before.is_some();
        if let Some(before) = before {
            self.retire(before);
        }
        (self.record.session, self.record.lost) = (Some(session), false);
        (self.contact, self.heard_at, self.unproven_since) = (Contact::Live, self.now, None);
        self.live = Some(Live::new(pending.connection, session, as_of));
        self.seen = containers;
        out.facts.push(Fact::Recorded(self.record.clone()));
        let at = out.facts.len();
        let verdicts = self.judge(out);
        out.facts.insert(at, Fact::Joined { session, boot: pending.boot, rebooted, verdicts });
        out.messages.push((pending.connection, ToAgent::Received { session, received: as_of }));
    }

    /// Compares what is there with what is claimed; orders what needs no planner.
    fn judge(&mut self, out: &mut ManagerOutput) -> BTreeMap<ContainerId, Verdict> {
        let mut verdicts = BTreeMap::new();
        let (mut release, mut orders) = (Vec::new(), Vec::new());
        for (container, claim) in &mut self.claims {
            let held = self.seen.get(container).filter(|held| held.phase != Phase::Removed);
            let verdict = held.map_or(Verdict::Missing, |held| verdict(claim, held));
            match verdict {
                Verdict::Fenced(generation) => orders.push(stop(container, generation.max(claim.generation))),
                Verdict::Adopted(generation) => {
                    claim.generation = generation;
                    if held.is_some_and(|held| held.blocked) {
                        orders.push(Order::Admit { container: container.clone(), generation });
                    }
                }
                _ if claim.standing == Standing::Fenced => release.push(container.clone()),
                _ => (),
            }
            verdicts.insert(container.clone(), verdict);
        }
        for (container, held) in self.seen.iter().filter(|(_, held)| held.phase != Phase::Removed) {
            verdicts.entry(container.clone()).or_insert(Verdict::Unknown(held.generation));
        }
        for container in release {
            self.release(&container, out);
        }
        for order in orders {
            self.issue(None, order);
        }
        verdicts
    }
}

/// What ends a replaced container, whatever generation is there.
pub(super) fn stop(container: &ContainerId, generation: crate::id::Generation) -> Order {
    let container = container.clone();
    Order::Stop(StopOrder { container, generation, signal: SIGTERM, grace: Duration::ZERO })
}

fn verdict(claim: &Claim, held: &Held) -> Verdict {
    let generation = held.generation;
    let is_there = held.is_alive() || held.phase == Phase::Waiting;
    match (claim.standing, &held.phase) {
        (Standing::Fenced, _) if is_there => Verdict::Fenced(generation),
        (Standing::Wanted | Standing::Leaving, _) if generation < claim.generation => Verdict::Older(generation),
        (Standing::Wanted, Phase::Waiting | Phase::Starting | Phase::Running) => Verdict::Adopted(generation),
        _ if is_there => Verdict::Leaving(generation),
        _ => Verdict::Over(generation),
    }
}
