//! The executor: sends calls of operations that are durable and open, and repeats what got no answer.

use cocktail_core::contract::ServerListing;
use cocktail_core::error::{Error, ErrorKind};
use cocktail_core::event::{Event, Soft};
use cocktail_core::fleet::ServerOperationKind;
use cocktail_core::id::OperationId;
use cocktail_core::operation::{Operation, OperationKind};
use cocktail_core::state::State;
use cocktail_core::time::ManagerTime;

use super::machine::Order;
use super::manager::Input;
use super::provider::{Answer, Call};
use super::world::{Happening, World, millis};
use super::{Planted, wall};

/// How long an answer of the provider, and of a server, is waited for.
const CALL: u64 = 45_000;
const ORDER: u64 = 12_000;
/// Pause between two listings.
const RELIST: u64 = 30_000;

/// What an operation asks a server for.
///
/// # Errors
/// The container cannot be launched.
pub(super) fn order(state: &State, operation: &Operation) -> Result<Order, Error> {
    let container = operation.container.clone();
    Ok(match &operation.kind {
        OperationKind::Start => Order::Start(Box::new(state.launch(&container)?)),
        OperationKind::Stop { grace, .. } => {
            Order::Stop { container, generation: operation.generation, grace: millis(*grace) }
        }
        OperationKind::Remove => Order::Remove(container),
        OperationKind::Assign => Order::Assign(Box::new(state.launch(&container)?)),
        OperationKind::Unload { .. } => {
            let order = state.unload_order(operation);
            Order::Unload(order.ok_or_else(|| Error::not_found(format!("{container} is no worker")))?)
        }
    })
}

impl World {
    /// Sends the call of an operation, if it is still open and its time has come.
    pub(super) fn send(&mut self, id: OperationId) {
        let (now, life) = (self.manager_time(), self.life);
        let Some(manager) = &mut self.manager else { return };
        let epoch = manager.epoch;
        if let Some(operation) = manager.state.server_operation(id) {
            if let Some(until) = operation.not_before.filter(|until| *until > now) {
                let pause = until.0 - now.0;
                return self.after(pause, Happening::Send { life, operation: id });
            }
            let attempt = manager.sent.entry(id).or_default();
            *attempt += 1;
            let attempt = *attempt;
            let mut token = operation.token(&manager.state.store);
            let call = match &operation.kind {
                ServerOperationKind::Provision { spec } => {
                    Call::Provision { spec: spec.clone(), servers: operation.servers.clone() }
                }
                ServerOperationKind::Clear => Call::Clear,
                ServerOperationKind::Terminate { .. } => Call::Terminate { servers: operation.servers.clone() },
            };
            if self.has(Planted::RandomToken) {
                token = format!("{token}-{life}-{attempt}");
            }
            self.watch_send(id, now);
            self.trace.note(self.now, format_args!("operation {id} is sent, try {attempt}"));
            self.after(CALL, Happening::Overdue { life, operation: id, attempt });
            if !self.chance.happens(self.rates.call_lost) {
                let pause = self.chance.between(5, 300);
                self.after(pause, Happening::AtProvider { life, operation: id, token, call });
            }
            return;
        }
        let Some(operation) = manager.state.operations.get(&id) else { return };
        let container = operation.container.clone();
        let order = match order(&manager.state, operation) {
            Ok(order) => order,
            Err(error) => return self.breach("A1 possible", format!("{container} cannot be launched: {error}")),
        };
        let Some(server) = manager.state.containers.get(&container).map(|it| it.server.clone()) else { return };
        let attempt = manager.sent.entry(id).or_default();
        *attempt += 1;
        let attempt = *attempt;
        self.after(ORDER, Happening::Overdue { life, operation: id, attempt });
        if let Some(pause) = self.way_there(&server) {
            self.after(pause, Happening::AtMachine { life, epoch, server, operation: id, order });
        }
    }

    /// No answer came in time.
    pub(super) fn overdue(&mut self, id: OperationId, attempt: u32) {
        let Some(manager) = &self.manager else { return };
        if manager.sent.get(&id) != Some(&attempt) {
            return;
        }
        if let Some(operation) = manager.state.server_operation(id) {
            if operation.not_before.is_some_and(|until| until > self.manager_time()) {
                return;
            }
            let error = || Error::new(ErrorKind::OutcomeUnknown, "no answer");
            let answer = match operation.kind {
                ServerOperationKind::Provision { .. } => Answer::Provisioned(Err(error())),
                ServerOperationKind::Clear => Answer::Cleared(Err(error())),
                ServerOperationKind::Terminate { .. } => Answer::Terminated(Err(error())),
            };
            self.input(Input::Answered(id, answer));
        } else if manager.state.operations.contains_key(&id) {
            self.send(id);
        }
    }

    /// A call arrives at the provider.
    pub(super) fn at_provider(&mut self, life: u64, operation: OperationId, token: &str, call: &Call) {
        let now = self.now;
        self.trace.note(now, format_args!("operation {operation} arrives at the provider"));
        if let Some(retry_after) = self.provider.take_call(now, &self.rates) {
            let error = || Error::new(ErrorKind::Throttled { retry_after: Some(retry_after) }, "too many calls");
            let answer = match call {
                Call::Provision { .. } => Answer::Provisioned(Err(error())),
                Call::Clear => Answer::Cleared(Err(error())),
                Call::Terminate { .. } => Answer::Terminated(Err(error())),
            };
            return self.after(20, Happening::Answered { life, operation, answer: Box::new(answer) });
        }
        if let Call::Terminate { servers } = call {
            self.watch_terminate(servers);
        }
        let (answer, effects) = self.provider.act(now, (operation, token, call), &self.rates, &mut self.chance);
        let open = self.replayed.server_operations.contains_key(&operation);
        for id in &effects.made {
            if let Some(object) = self.provider.objects.get_mut(id) {
                // The call was under way for so long that a later Manager has given it up, or was told no when it repeated
                // the call: nobody waits for what it made.
                object.late |= !open || self.watch.denied.contains(&(operation, object.server.clone()));
            }
        }
        for id in &effects.made {
            self.object_made(id, operation);
        }
        for (at, server, offering) in effects.late {
            self.at(at, Happening::LateObject { server, offering, operation });
        }
        for (id, at) in effects.ending {
            self.object_ends(&id);
            self.at(at, Happening::ObjectGone { id });
        }
        if !self.chance.happens(self.rates.answer_lost) {
            if let Answer::Provisioned(Ok(outcomes)) = &answer {
                let denied = outcomes.iter().filter(|outcome| outcome.result.is_err());
                self.watch.denied.extend(denied.map(|outcome| (operation, outcome.server.clone())));
            }
            let long = if matches!(call, Call::Provision { .. }) { self.rates.create } else { 2_000 };
            let pause = self.chance.between(50, long.max(100));
            self.after(pause, Happening::Answered { life, operation, answer: Box::new(answer) });
        }
    }

    pub(super) fn answered(&mut self, operation: OperationId, answer: Answer) {
        self.input(Input::Answered(operation, answer));
    }

    /// Asks for a listing, page by page; what fails on the way makes it incomplete.
    pub(super) fn relist(&mut self) {
        let (asked, life, now) = (self.manager_time(), self.life, self.now);
        self.after(RELIST, Happening::Relist { life });
        let throttled = self.provider.take_call(now, &self.rates).is_some();
        let mut listing = None;
        if !throttled && !self.chance.happens(self.rates.list_failed) {
            let as_of = now.saturating_sub(self.chance.below(self.rates.stale + 1));
            let pages = self.chance.happens(self.rates.list_truncated).then_some(1);
            let mut seen = self.provider.list(as_of, pages);
            if self.has(Planted::FirstPage) {
                seen = ServerListing { complete: true, ..self.provider.list(as_of, Some(1)) };
            }
            listing = Some(seen);
        } else if self.has(Planted::ErrorIsEmpty) {
            listing = Some(ServerListing { servers: Vec::new(), complete: true, as_of: wall(now) });
        }
        let pause = self.chance.between(20, 3_000);
        self.after(pause, Happening::Listed { life, asked, listing: listing.map(Box::new) });
    }

    pub(super) fn listed(&mut self, asked: ManagerTime, listing: Option<ServerListing>) {
        self.trace.note(self.now, format_args!("listed {:?}", listing.as_ref().map(|it| it.servers.len())));
        if let Some(listing) = listing {
            self.ask_notices();
            self.input(Input::Listed { asked, listing });
        }
    }

    /// A server told something.
    pub(super) fn told(&mut self, event: Event) {
        let (kind, object, _) = event.describe();
        self.trace.note(self.now, format_args!("told {kind} {object}"));
        self.input(Input::Event(event));
    }

    pub(super) fn noted(&mut self, soft: Soft) {
        self.input(Input::Soft(soft));
    }
}
