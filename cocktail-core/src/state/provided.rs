//! What providers answered, turned into events: pure, so that a simulated world and the real one read answers alike.
//!
//! Unknown is never read as absent: an incomplete listing removes nothing, an answer that may have acted is repeated
//! with the same token, and a server counts as gone when two complete listings in a row do not name it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::State;
use crate::backoff;
use crate::contract::{ClaimOutcome, Interruption, ServerListing, ServerObservation, TerminateReason};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::fleet::{FleetEvent, Late, Orphan, ProviderRecord, Rearrangement, Refused, ServerFailure, ServerOperation};
use crate::id::{OperationId, ServerId};
use crate::name::Name;
use crate::server::{Server, ServerState};
use crate::time::{ManagerTime, human};

/// First and longest pause before a call is repeated.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));
/// How long a server is left alone that the provider would not let go.
const KEPT: Duration = Duration::from_secs(300);
/// How long before a server is taken away what has not moved is told to end.
const MARGIN: Duration = Duration::from_secs(30);

impl State {
    /// What follows from the answer to a provisioning call.
    ///
    /// Claims that are not named, and those whose outcome is not sure, stay open: the same call is sent again. An answer
    /// to an operation that has ended says nothing.
    pub fn provisioned(&self, operation: OperationId, answer: Result<Vec<ClaimOutcome>>) -> Vec<Event> {
        let Some(operation) = self.server_operations.get(&operation) else { return Vec::new() };
        let mut events = Vec::new();
        let mut open: BTreeSet<&ServerId> = self.open_claims(operation).collect();
        let mut unsure = None;
        match answer {
            Ok(outcomes) => {
                for ClaimOutcome { server, result } in outcomes {
                    if !open.contains(&server) {
                        let joined = self.servers.get(&server).is_some_and(Server::is_nameless);
                        if let (true, Ok(provider_id)) = (joined && operation.servers.contains(&server), result) {
                            events.push(FleetEvent::Identified { server, provider_id }.into());
                        }
                        continue;
                    }
                    match result {
                        Ok(provider_id) => {
                            open.remove(&server);
                            events.push(FleetEvent::Accepted { server, provider_id }.into());
                        }
                        Err(error) if is_sure(error.kind()) => {
                            open.remove(&server);
                            events.push(FleetEvent::Refused { server, failure: failure(&error) }.into());
                        }
                        Err(error) => unsure = Some(error),
                    }
                }
            }
            Err(error) if is_sure(error.kind()) => {
                let failure = failure(&error);
                events.extend(
                    std::mem::take(&mut open)
                        .into_iter()
                        .map(|server| FleetEvent::Refused { server: server.clone(), failure: failure.clone() }.into()),
                );
            }
            Err(error) => unsure = Some(error),
        }
        if !open.is_empty() {
            let error = unsure.unwrap_or_else(|| Error::new(ErrorKind::OutcomeUnknown, "the answer does not name all"));
            events.push(self.delayed(operation, &error));
        }
        events
    }

    /// What follows from the answer to whether servers would be let go.
    pub fn cleared(&self, operation: OperationId, answer: Result<()>) -> Vec<Event> {
        let Some(operation) = self.server_operations.get(&operation) else { return Vec::new() };
        let servers = self.open_claims(operation).cloned();
        match answer {
            // One that is gone is let go: listings say so.
            Ok(()) => servers.map(|server| FleetEvent::Cleared { server }.into()).collect(),
            Err(error) if *error.kind() == ErrorKind::NotFound => {
                servers.map(|server| FleetEvent::Cleared { server }.into()).collect()
            }
            Err(error) if says_no(&error) => self.kept(servers, &error),
            Err(error) => vec![self.delayed(operation, &error)],
        }
    }

    /// What follows from the notices of a provider: others serve first what runs on such a server, and what has not moved
    /// shortly before the server goes is drained. A notice that is known already says nothing.
    pub fn interrupted(&self, provider: &Name, notices: &[Interruption]) -> Vec<Event> {
        let mut events = Vec::new();
        for Interruption { server, at, because } in notices {
            let Some(known) = self.servers.get(server).filter(|known| known.provider == *provider) else { continue };
            let told = known.tenure.rearrangement.as_ref().and_then(|it| it.give_back);
            let works = matches!(known.state, ServerState::Ready | ServerState::Cordoned | ServerState::Draining);
            if !works || told == Some(TerminateReason::Interrupted) {
                continue;
            }
            let left = u64::try_from(at.0.saturating_sub(self.at.0)).map_or(Duration::ZERO, Duration::from_micros);
            let rearrangement = Rearrangement {
                because: format!("{provider} takes it away in {}: {because}", human(left)),
                deadline: Some(self.now + left.saturating_sub(MARGIN)),
                late: Late::Force,
                give_back: Some(TerminateReason::Interrupted),
                // It goes whether the provider is asked or not.
                cleared: true,
            };
            let server = server.clone();
            events.push(FleetEvent::Rearranging { server, rearrangement: Some(rearrangement) }.into());
        }
        events
    }

    fn kept(&self, servers: impl Iterator<Item = ServerId>, error: &Error) -> Vec<Event> {
        let (failure, until) = (failure(error), self.now + KEPT);
        let mut events = Vec::new();
        for server in servers {
            if let Some(known) = self.servers.get(&server).filter(|known| known.is_about_to_go())
                && let Some(rearrangement) = &known.tenure.rearrangement
            {
                let because = &failure.message;
                let dropped = |container| FleetEvent::ReplaceDropped { container, because: because.clone() }.into();
                events.extend(self.moving(known, rearrangement).into_iter().map(dropped));
            }
            events.push(FleetEvent::Kept { server, failure: failure.clone(), until }.into());
        }
        events
    }

    /// What follows from the answer to a call that gives servers back.
    pub fn terminated(&self, operation: OperationId, answer: Result<()>) -> Vec<Event> {
        let Some(operation) = self.server_operations.get(&operation) else { return Vec::new() };
        let servers = operation.servers.iter().cloned();
        match answer {
            Ok(()) => servers.map(|server| FleetEvent::Released { server }.into()).collect(),
            Err(error) if *error.kind() == ErrorKind::NotFound => {
                servers.map(|server| FleetEvent::Released { server }.into()).collect()
            }
            Err(error) if says_no(&error) => self.kept(servers, &error),
            Err(error) => vec![self.delayed(operation, &error)],
        }
    }

    /// What follows from a provider's listing that was asked for at `asked`.
    pub fn listed(&self, provider: &Name, asked: ManagerTime, listing: &ServerListing) -> Vec<Event> {
        let Some(record) = self.providers.get(provider) else { return Vec::new() };
        let mut events = Vec::new();
        let mut named: BTreeSet<&ServerId> = BTreeSet::new();
        let mut named_by_provider: BTreeSet<&str> = BTreeSet::new();
        for seen in &listing.servers {
            named_by_provider.insert(&seen.provider_id);
            match self.servers.get(&seen.server).filter(|known| known.provider == *provider) {
                Some(known) => {
                    let first = named.insert(&seen.server);
                    self.seen_again(provider, record, known, seen, first, &mut events);
                }
                None => self.seen_without_claim(provider, record, seen, listing, &mut events),
            }
        }
        if !listing.complete {
            return events;
        }
        let absent = |server: &&Server| server.provider == *provider && !named.contains(&server.id);
        for server in self.servers.values().filter(absent) {
            self.not_named(record, server, asked, &mut events);
        }
        for provider_id in record.orphans.keys().filter(|id| !named_by_provider.contains(id.as_str())) {
            let (provider, provider_id) = (provider.clone(), provider_id.clone());
            events.push(FleetEvent::OrphanGone { provider, provider_id }.into());
        }
        events
    }

    /// What follows from the machines with an agent that a provider names which buys none: one that it names no longer is
    /// emptied, and forgotten when nothing is left there; one that it names again takes containers again.
    pub fn named(&self, provider: &Name, listing: &ServerListing) -> Vec<Event> {
        let mut events = Vec::new();
        for server in self.servers.values().filter(|it| it.provider == *provider && it.tenure.by_agent) {
            let present = listing.servers.iter().any(|seen| seen.server == server.id);
            if present == server.tenure.missing.is_none() {
                continue;
            }
            let rearrangement = (!present).then(|| Rearrangement {
                because: format!("{provider} names it no longer"),
                deadline: None,
                late: Late::Cancel,
                give_back: None,
                cleared: false,
            });
            let id = server.id.clone();
            events.push(FleetEvent::Listed { server: id.clone(), present }.into());
            events.push(FleetEvent::Rearranging { server: id.clone(), rearrangement }.into());
            if present && server.state == ServerState::Draining {
                let because = format!("{provider} names it again");
                events.push(FleetEvent::Stepped { server: id, step: server.step_back(), because }.into());
            }
        }
        events
    }

    fn seen_again(
        &self,
        provider: &Name,
        record: &ProviderRecord,
        known: &Server,
        seen: &ServerObservation,
        first: bool,
        events: &mut Vec<Event>,
    ) {
        let other = !known.provider_id.is_empty() && known.provider_id != seen.provider_id;
        if (other || !first) && record.refused.is_none() {
            let because = format!("{} and {} both are {}", known.provider_id, seen.provider_id, known.id);
            let refused = Some(Refused { until: None, because });
            events.push(FleetEvent::BuyingStopped { provider: provider.clone(), refused }.into());
            return;
        }
        if known.is_nameless() {
            let (server, provider_id) = (known.id.clone(), seen.provider_id.clone());
            events.push(FleetEvent::Identified { server, provider_id }.into());
        }
        match known.state {
            // Its answer was lost, and here it is.
            ServerState::Provisioning => {
                let (server, provider_id) = (known.id.clone(), seen.provider_id.clone());
                events.push(FleetEvent::Accepted { server, provider_id }.into());
            }
            _ if known.tenure.missing.is_some() => {
                events.push(FleetEvent::Listed { server: known.id.clone(), present: true }.into());
            }
            _ => {}
        }
    }

    /// One of ours that no claim is about, or one that is not ours to touch.
    fn seen_without_claim(
        &self,
        provider: &Name,
        record: &ProviderRecord,
        seen: &ServerObservation,
        listing: &ServerListing,
        events: &mut Vec<Event>,
    ) {
        let Some(owner) = &seen.owner else { return };
        let provider = provider.clone();
        let provider_id = seen.provider_id.clone();
        if owner.store != self.store || owner.operation > self.last_operation {
            if record.refused.is_none() {
                let because = format!(
                    "{provider_id} carries our cluster's tag and operation {} of store {}, which this store did not \
                     issue: `cocktail adopt` or `cocktail release`",
                    owner.operation, owner.store
                );
                let refused = Some(Refused { until: None, because });
                events.push(FleetEvent::BuyingStopped { provider, refused }.into());
            }
            return;
        }
        match record.orphans.get(&provider_id) {
            None => {
                let orphan = Orphan {
                    server: seen.server.clone(),
                    operation: owner.operation,
                    since: self.now,
                    as_of: listing.as_of,
                    condemned: false,
                    asked: None,
                };
                events.push(FleetEvent::OrphanSeen { provider, provider_id, orphan }.into());
            }
            Some(orphan) => {
                let later = listing.complete && listing.as_of > orphan.as_of;
                let old = orphan.since + record.limits.visibility <= self.now;
                if later && old && !orphan.condemned {
                    let as_of = listing.as_of;
                    events.push(FleetEvent::OrphanCondemned { provider, provider_id, as_of }.into());
                }
            }
        }
    }

    /// A complete listing does not name a server.
    fn not_named(&self, record: &ProviderRecord, server: &Server, asked: ManagerTime, events: &mut Vec<Event>) {
        let young = server.tenure.bought.is_some_and(|bought| bought + record.limits.visibility > asked);
        let id = server.id.clone();
        match server.state {
            // Whether it was made is not known yet, or nothing is left that could be missed.
            ServerState::Claimed | ServerState::Provisioning | ServerState::Gone | ServerState::Suspended => {}
            _ if young => {}
            ServerState::Terminating if server.tenure.operation.is_none() => {
                events.push(FleetEvent::Gone { server: id, because: "the provider has given it back".into() }.into());
            }
            _ => match server.tenure.missing {
                None => events.push(FleetEvent::Listed { server: id, present: false }.into()),
                Some(since) if since < asked => {
                    let because = "two complete listings do not name it".into();
                    events.push(FleetEvent::Gone { server: id, because }.into());
                }
                Some(_) => {}
            },
        }
    }

    /// Servers of an operation whose outcome is still open.
    fn open_claims<'a>(&'a self, operation: &'a ServerOperation) -> impl Iterator<Item = &'a ServerId> {
        operation.servers.iter().filter(|server| {
            self.servers.get(*server).is_some_and(|record| record.tenure.operation == Some(operation.id))
        })
    }

    fn delayed(&self, operation: &ServerOperation, error: &Error) -> Event {
        let (base, most) = PAUSE;
        let chance = self.chance(&format!("{} {}", operation.provider, operation.id), u64::from(operation.tries));
        let pause = backoff::delay(base, most, operation.tries, chance);
        let asked = match error.kind() {
            ErrorKind::Throttled { retry_after } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let (until, because) = (self.now + pause.max(asked), error.chain());
        FleetEvent::Delayed { operation: operation.id, until, because }.into()
    }
}

/// Whether an error says that a server is not let go.
fn says_no(error: &Error) -> bool {
    is_sure(error.kind()) || *error.kind() == ErrorKind::Refused
}

/// Whether an error says that nothing was made.
fn is_sure(kind: &ErrorKind) -> bool {
    !matches!(
        kind,
        ErrorKind::Throttled { .. }
            | ErrorKind::Unavailable
            | ErrorKind::OutcomeUnknown
            | ErrorKind::Deadline
            | ErrorKind::Refused
    )
}

fn failure(error: &Error) -> ServerFailure {
    ServerFailure { kind: error.kind().clone(), message: error.chain() }
}
