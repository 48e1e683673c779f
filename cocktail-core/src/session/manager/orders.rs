//! Orders, reports, and what fencing waits for.
//!
//! Start at [`Live`]. What always holds: each order of a session is sent until it was taken, and is open until its
//! outcome came; reports are taken in order and once.

use std::collections::{BTreeMap, VecDeque};

use super::greeting::stop;
use super::{Claim, Contact, Fact, ManagerEnd, ManagerOutput, OrderError, Standing};
use crate::id::{ContainerId, Generation, OperationId};
use crate::session::message::{Order, Outcome, Report, ToAgent};
use crate::session::{Connection, OPEN_ORDERS, PAGE, SessionId};
use crate::time::ManagerTime;

/// Containers of one server that are remembered as told, whoever tells of more.
const MOST_SEEN: usize = 1 << 16;

/// A session that was confirmed.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) connection: Connection,
    pub(super) id: SessionId,
    /// Reports up to this one were taken.
    pub(super) received: u64,
    /// Highest beat whose answer is known to have arrived.
    heard: u64,
    /// Orders up to this one were taken by the agent.
    taken: u64,
    /// Orders after that, in order.
    queue: VecDeque<Order>,
    /// Orders up to this one were sent.
    sent: u64,
    resend_at: Option<ManagerTime>,
    /// Orders without an outcome.
    open: BTreeMap<u64, (Option<OperationId>, Order)>,
}

impl Live {
    pub(super) fn new(connection: Connection, id: SessionId, received: u64) -> Self {
        Self {
            connection,
            id,
            received,
            heard: 0,
            taken: 0,
            queue: VecDeque::new(),
            sent: 0,
            resend_at: None,
            open: BTreeMap::new(),
        }
    }

    pub(super) fn resend_at(&self) -> Option<ManagerTime> {
        self.resend_at
    }

    /// Whose orders have no outcome.
    pub(super) fn into_operations(self) -> impl Iterator<Item = OperationId> {
        self.open.into_values().filter_map(|(operation, _)| operation)
    }

    fn take(&mut self, taken: u64) {
        while self.taken < taken && self.queue.pop_front().is_some() {
            self.taken += 1;
        }
        self.sent = self.sent.max(self.taken);
        if self.queue.is_empty() {
            self.resend_at = None;
        }
    }
}

impl ManagerEnd {
    pub(super) fn check(&self, now: ManagerTime, order: &Order) -> Result<(), OrderError> {
        let acts = self.acts_until.is_none_or(|until| now < until);
        let live = self.live.as_ref().filter(|_| acts).ok_or(OrderError::NoSession)?;
        if live.open.len() >= OPEN_ORDERS {
            return Err(OrderError::Full { limit: OPEN_ORDERS });
        }
        let claim = self.claims.get(order.container());
        let is_fenced = claim.is_some_and(|claim| claim.standing == Standing::Fenced);
        match order {
            Order::Start { .. } | Order::Admit { .. } if is_fenced => Err(OrderError::Fenced),
            Order::Start { launch, .. } => match self.newest(&launch.container) {
                Some(newest) if newest > launch.generation => Err(OrderError::OlderGeneration { newest }),
                _ => Ok(()),
            },
            Order::Stop(_) | Order::Remove { .. } | Order::Admit { .. } => Ok(()),
        }
    }

    /// The highest generation of a container that was ordered or seen.
    fn newest(&self, container: &ContainerId) -> Option<Generation> {
        let claimed = self.claims.get(container).map(|claim| claim.generation);
        claimed.max(self.seen.get(container).map(|held| held.generation))
    }

    pub(super) fn ordered(&mut self, operation: OperationId, order: Order, out: &mut ManagerOutput) {
        if self.live.is_none() {
            // The server was lost in this very moment: nothing was sent.
            out.facts.push(Fact::Undecided { operation });
            return;
        }
        let container = order.container().clone();
        match &order {
            Order::Start { launch, .. } => {
                let claim = Claim { generation: launch.generation, standing: Standing::Wanted };
                self.claims.insert(container, claim);
            }
            Order::Stop(stop) => {
                let new = Claim { generation: stop.generation, standing: Standing::Leaving };
                let claim = self.claims.entry(container).or_insert(new);
                if claim.standing == Standing::Wanted && stop.generation >= claim.generation {
                    *claim = new;
                }
            }
            Order::Remove { .. } | Order::Admit { .. } => (),
        }
        self.issue(Some(operation), order);
    }

    /// Queues an order in the session, if there is one.
    pub(super) fn issue(&mut self, operation: Option<OperationId>, order: Order) {
        let Some(live) = &mut self.live else { return };
        live.queue.push_back(order.clone());
        live.open.insert(live.taken + live.queue.len() as u64, (operation, order));
    }

    /// Sends what was not sent yet, and again what was not taken in time.
    pub(super) fn send_orders(&mut self, out: &mut ManagerOutput) {
        let acts = self.acts();
        let Some(live) = self.live.as_mut().filter(|live| acts && !live.queue.is_empty()) else { return };
        if live.resend_at.is_some_and(|at| at <= self.now) {
            live.sent = live.taken;
        }
        let from = usize::try_from(live.sent - live.taken).unwrap_or(usize::MAX);
        let orders: Vec<Order> = live.queue.iter().skip(from).cloned().collect();
        if orders.is_empty() {
            return;
        }
        live.resend_at = Some(self.now + self.timing.spans().beat);
        for page in orders.chunks(PAGE) {
            let (session, first, orders) = (live.id, live.sent + 1, page.to_vec());
            live.sent += page.len() as u64;
            out.messages.push((live.connection, ToAgent::Orders { session, first, orders }));
        }
    }

    pub(super) fn beaten(&mut self, session: SessionId, number: u64, heard: u64, taken: u64, out: &mut ManagerOutput) {
        let Some(live) = self.live.as_mut().filter(|live| live.id == session) else { return };
        let proven = heard > live.heard;
        live.heard = live.heard.max(heard);
        live.take(taken);
        let (connection, received) = (live.connection, live.received);
        self.heard(proven, out);
        if self.grant() {
            out.messages.push((connection, ToAgent::Renew { session, beat: number, received }));
        }
    }

    pub(super) fn told(
        &mut self,
        session: SessionId,
        taken: u64,
        first: u64,
        reports: Vec<Report>,
        out: &mut ManagerOutput,
    ) {
        let Some(live) = self.live.as_mut().filter(|live| live.id == session) else { return };
        live.take(taken);
        let connection = live.connection;
        self.heard(false, out);
        for (number, report) in (first..=u64::MAX).zip(reports) {
            // What was received is the agent's own number: it may be the last that there is.
            let is_next = |live: &&mut Live| live.received.checked_add(1) == Some(number);
            let Some(live) = self.live.as_mut().filter(is_next) else { continue };
            live.received = number;
            match report {
                Report::Changed { container, held } => {
                    if self.seen.len() >= MOST_SEEN && !self.seen.contains_key(&container) {
                        // None of ours is left out by that: a server has fewer by far.
                        continue;
                    }
                    if self.seen.get(&container).is_none_or(|seen| seen.generation <= held.generation) {
                        self.seen.insert(container.clone(), held.clone());
                        out.facts.push(Fact::Changed { container, held });
                    }
                }
                Report::Outcome { order, outcome } => {
                    if let Some((operation, order)) = live.open.remove(&order) {
                        self.done(operation, &order, outcome, out);
                    }
                }
            }
        }
        let received = self.live.as_ref().map_or(0, |live| live.received);
        if self.acts() {
            out.messages.push((connection, ToAgent::Received { session, received }));
        }
    }

    fn done(&mut self, operation: Option<OperationId>, order: &Order, outcome: Outcome, out: &mut ManagerOutput) {
        let container = order.container();
        let fenced = self.claims.get(container).filter(|claim| claim.standing == Standing::Fenced);
        let is_over = match order {
            Order::Stop(stop) => fenced.is_some_and(|claim| stop.generation >= claim.generation),
            Order::Remove { .. } => fenced.is_some(),
            Order::Start { .. } | Order::Admit { .. } => false,
        };
        if is_over && matches!(outcome, Outcome::Ended(_) | Outcome::Removed) {
            self.release(container, out);
        }
        if outcome == Outcome::Removed {
            self.claims.remove(container);
            self.seen.remove(container);
        }
        if let Some(operation) = operation {
            out.facts.push(Fact::Outcome { operation, outcome });
        }
    }

    pub(super) fn fenced(&mut self, container: &ContainerId, out: &mut ManagerOutput) {
        let generation = self.newest(container).unwrap_or_default();
        let new = Claim { generation, standing: Standing::Fenced };
        let before = self.claims.insert(container.clone(), new);
        if self.contact == Contact::Lost || self.record.boot.is_none() {
            // Nothing serves there. Whoever asked before may have died with the answer.
            self.released.remove(container);
            self.release(container, out);
        } else if before.is_none_or(|claim| claim.standing != Standing::Fenced) {
            // Also an order that is under way comes before this one, and no other can follow it.
            self.issue(None, stop(container, generation));
        } else if self.released.remove(container) {
            self.release(container, out);
        }
    }
}
