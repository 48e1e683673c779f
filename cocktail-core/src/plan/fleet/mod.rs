//! Servers: which to buy, admit, empty and give back.
//!
//! Start at [`decide`]. It runs after the Units have been looked at, so that it knows what found no room. Nothing here is
//! destructive on a guess: a server goes when it is empty, and counts as gone only when that was observed.

mod buy;
mod leave;
mod pack;
mod rearrange;

use crate::event::Event;
use crate::fleet::{FleetEvent, Refused, ServerOperation, ServerOperationKind};
use crate::id::{OperationId, ServerId};
use crate::name::Name;
use crate::operation::OperationState;
use crate::server::ServerState;
use crate::state::State;
use crate::time::human;

pub(super) use buy::{awaits, outlook};

/// What one look at the servers has decided so far.
struct Draft<'a> {
    state: &'a State,
    last_operation: OperationId,
    events: Vec<Event>,
    /// Servers failed, or are not to be bought any more: what is bought is decided when that is counted.
    failed: bool,
}

/// One look at all servers and providers.
pub(super) fn decide(state: &State) -> Vec<Event> {
    let mut draft = Draft { state, last_operation: state.last_operation, events: Vec::new(), failed: false };
    if !state.is_halting() {
        leave::orphans(&mut draft);
        breakers(&mut draft);
    }
    for server in state.servers.values() {
        leave::step(&mut draft, server);
    }
    if !state.is_halting() {
        leave::empty(&mut draft);
        rearrange::rearrange(&mut draft);
        if !draft.failed {
            buy::buy(&mut draft);
        }
    }
    draft.events
}

impl Draft<'_> {
    fn push(&mut self, event: FleetEvent) {
        self.events.push(event.into());
    }

    fn intend(&mut self, provider: &Name, kind: ServerOperationKind, servers: Vec<ServerId>, because: String) {
        self.last_operation = self.last_operation.next();
        let operation = ServerOperation {
            id: self.last_operation,
            provider: provider.clone(),
            kind,
            servers,
            state: OperationState::Intended,
            error: None,
            because,
            since: self.state.at,
            intended: self.state.now,
            tries: 0,
            not_before: None,
        };
        self.push(FleetEvent::Intended { operation: Box::new(operation) });
    }
}

/// Stops buying where servers do not join, and begins again after a rest.
fn breakers(draft: &mut Draft<'_>) {
    let state = draft.state;
    for (name, provider) in &state.providers {
        let refused = match &provider.refused {
            Some(refused) if refused.until.is_some_and(|until| until <= state.now) => None,
            Some(_) => continue,
            None if provider.failures.len() >= provider.limits.failures.max(1) as usize => {
                let rest = human(provider.limits.rest);
                Some(Refused {
                    until: Some(state.now + provider.limits.rest),
                    because: format!(
                        "{} servers did not join within {rest}: nothing is bought for as long",
                        provider.failures.len()
                    ),
                })
            }
            None => continue,
        };
        draft.failed |= refused.is_some();
        draft.push(FleetEvent::BuyingStopped { provider: name.clone(), refused });
    }
}

/// Servers of a provider that exist or may exist.
fn existing(state: &State, provider: &Name) -> u32 {
    let there = |state: ServerState| state != ServerState::Gone;
    let count = state.servers.values().filter(|server| server.provider == *provider && there(server.state)).count();
    let orphans = state.providers.get(provider).map_or(0, |record| record.orphans.len());
    u32::try_from(count + orphans).unwrap_or(u32::MAX)
}
