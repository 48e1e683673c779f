//! Servers and providers: what events make of them.
//!
//! A server's record stays until nothing is left of it and no operation is about it, so that a late answer always finds
//! what it is about; one that comes later still is dropped.

use std::time::Duration;

use super::{ENDED_OPERATIONS, State};
use crate::container::{ContainerState, Step};
use crate::contract::TerminateReason;
use crate::error::ErrorKind;
use crate::fleet::{
    FleetEvent, FleetLimits, Late, Rearrangement, Refused, ServerFailure, ServerOperation, ServerOperationKind,
    TokenRecord, offering_key,
};
use crate::id::{ContainerId, OperationId, ServerId};
use crate::name::Name;
use crate::operation::OperationState;
use crate::ports::PortPool;
use crate::server::{Server, ServerState, ServerStep};

/// How long an offering is left alone after a failure that says nothing about its stock.
const AGAIN: Duration = Duration::from_secs(30);

/// How long a server is left alone after what runs on it could not be moved for the sake of money.
const AGAIN_REARRANGED: Duration = Duration::from_secs(1800);

impl State {
    pub(super) fn fleet_event(&mut self, event: &FleetEvent) {
        self.touch_fleet();
        if !matches!(event, FleetEvent::Listed { .. } | FleetEvent::Delayed { .. }) {
            // What waits may have another reason now, or room.
            self.touch_held();
        }
        match event {
            FleetEvent::ProviderSeen { provider, grows, limits, offerings, images } => {
                let record = self.providers.entry(provider.clone()).or_default();
                (record.grows, record.images) = (*grows, *images);
                record.limits.clone_from(limits);
                record.offerings.clone_from(offerings);
            }
            FleetEvent::BuyingStopped { provider, refused } => {
                if let Some(record) = self.providers.get_mut(provider) {
                    if refused.is_none() {
                        record.failures.clear();
                    }
                    record.refused.clone_from(refused);
                    let because = refused.as_ref().map_or("servers may be bought again", |it| it.because.as_str());
                    record.why.record(self.at, "buy", because, &[]);
                    record.why.keep(self.settings.why_per_object);
                }
            }
            FleetEvent::Claimed { server } => {
                let mut server = (**server).clone();
                server.tenure.why.record(self.at, "buy", &server.reason.clone(), &[]);
                self.ports.entry(server.id.clone()).or_insert_with(|| PortPool::new(self.settings.port_range));
                self.soft.resting.entry(server.id.clone()).or_default();
                self.servers.insert(server.id.clone(), server);
            }
            FleetEvent::Intended { operation } => self.fleet_intended(operation),
            FleetEvent::Delayed { operation, until, because } => {
                if let Some(open) = self.server_operations.get_mut(operation) {
                    open.tries += 1;
                    open.not_before = Some(*until);
                    open.error = Some(because.clone());
                    if open.state != OperationState::Failed {
                        open.state = OperationState::OutcomeUnknown;
                    }
                }
            }
            FleetEvent::Accepted { server, provider_id } => {
                let registration = self.limits_of(server).registration;
                let now = self.now;
                let deadline = now + registration;
                self.fleet_step(server, ServerStep::Accepted, "the provider makes it", |record| {
                    // The call may have been long on its way: how long listings may not name it counts from now.
                    record.tenure.bought = Some(now);
                    record.provider_id.clone_from(provider_id);
                    record.tenure.deadline = Some(deadline);
                });
                self.claim_ended(server, None);
            }
            FleetEvent::Refused { server, failure } => self.fleet_refused(server, failure),
            FleetEvent::Joined { server, incarnation, capacity, address } => {
                let now = self.now;
                self.fleet_step(server, ServerStep::Joined, "it answers", |record| {
                    if record.provider_id.is_empty() {
                        // It came before the answer to its call: this is the first that is known of it.
                        record.tenure.bought = Some(now);
                    }
                    record.incarnation.clone_from(incarnation);
                    record.capacity = *capacity;
                    record.address = *address;
                    record.tenure.deadline = None;
                    record.tenure.missing = None;
                    record.tenure.quiet = None;
                    record.tenure.given_up = false;
                    record.tenure.empty = (record.containers == 0).then_some(now);
                });
                let provider = self.servers.get(server).map(|record| record.provider.clone());
                if let Some(record) = provider.and_then(|provider| self.providers.get_mut(&provider)) {
                    record.failures.clear();
                }
                self.claim_ended(server, None);
            }
            FleetEvent::Stepped { server, step, because } => self.fleet_stepped(server, *step, because),
            FleetEvent::Rearranging { server, rearrangement } => {
                let (at, most) = (self.at, self.settings.why_per_object);
                if let Some(record) = self.servers.get_mut(server) {
                    let because = rearrangement.as_ref().map_or("it is not emptied any more", |it| it.because.as_str());
                    record.tenure.why.record(at, "empty", because, &[]);
                    record.tenure.why.keep(most);
                    if rearrangement.as_ref().is_some_and(|it| it.give_back == Some(TerminateReason::Requested)) {
                        // Whoever asks for it does not want to wait.
                        record.tenure.keep = None;
                    }
                    let before = std::mem::replace(&mut record.tenure.rearrangement, rearrangement.clone());
                    if rearrangement.is_none()
                        && before.is_some_and(|it| it.give_back == Some(TerminateReason::Rearranged))
                    {
                        record.tenure.keep = Some(self.now + AGAIN_REARRANGED);
                    }
                }
                if rearrangement.as_ref().is_some_and(|it| it.give_back == Some(TerminateReason::Interrupted)) {
                    self.short_of(server);
                }
                let lost = |record: &&mut Server| record.state == ServerState::Lost;
                if let Some(record) = self.servers.get_mut(server).filter(lost) {
                    record.tenure.given_up = rearrangement.is_some();
                    self.touch_units_on(server, ContainerState::Lost);
                }
            }
            FleetEvent::Cleared { server } => {
                let record = self.servers.get_mut(server);
                if let Some(rearrangement) = record.and_then(|record| record.tenure.rearrangement.as_mut()) {
                    rearrangement.cleared |= rearrangement.give_back.is_some();
                }
                self.claim_ended(server, None);
            }
            FleetEvent::ReplaceDropped { container, because } => {
                self.change(container, |state, record| {
                    record.replace = None;
                    record.why.record(state.at, "stay", because, &[]);
                });
            }
            FleetEvent::Released { server } => {
                // What is still listed long after is asked for again.
                let again = self.now + self.limits_of(server).visibility * 2;
                if let Some(record) = self.servers.get_mut(server) {
                    record.tenure.deadline = Some(again);
                }
                self.claim_ended(server, None);
            }
            FleetEvent::Kept { server, failure, until } => {
                self.claim_ended(server, Some(failure));
                let (at, most) = (self.at, self.settings.why_per_object);
                let mut joined = false;
                if let Some(record) = self.servers.get_mut(server) {
                    record.tenure.why.record(at, "keep", &failure.message, &[]);
                    record.tenure.why.keep(most);
                    if !record.is_about_to_go() {
                        // The answer is to a question that nobody asks any more.
                        return;
                    }
                    joined = !record.incarnation.is_empty();
                    record.tenure.keep = Some(*until);
                    record.tenure.rearrangement = None;
                    if !joined {
                        // It is of no use, so it is asked for again.
                        record.tenure.deadline = Some(*until);
                    }
                }
                if joined {
                    let back = self.servers.get(server).map_or(ServerStep::Uncordon, Server::step_back);
                    self.fleet_step(server, back, &failure.message, |_| {});
                }
            }
            FleetEvent::Identified { server, provider_id } => {
                if let Some(record) = self.servers.get_mut(server).filter(|record| record.provider_id.is_empty()) {
                    record.provider_id.clone_from(provider_id);
                }
            }
            FleetEvent::SessionRecorded { server, record } => {
                if let Some(known) = self.servers.get_mut(server) {
                    known.tenure.by_agent = true;
                    known.tenure.session = Some(record.clone());
                }
            }
            FleetEvent::Quiet { server, because } => self.fell_quiet(server, because),
            FleetEvent::Described { server, capacity, address } => self.described(server, *capacity, *address),
            FleetEvent::Heard { server } => self.heard_again(server),
            FleetEvent::TokenMade { server, number, until, .. } => {
                if let Some(record) = self.servers.get_mut(server) {
                    record.tenure.token = Some(TokenRecord { number: *number, until: *until, used_by: None });
                }
            }
            FleetEvent::Admitted { server, number, instance } => {
                if self.may_join(server, *number, instance).is_ok()
                    && let Some(token) = self.servers.get_mut(server).and_then(|record| record.tenure.token.as_mut())
                {
                    token.used_by = Some(instance.clone());
                }
            }
            FleetEvent::Alerted { server, because } => {
                let (at, most) = (self.at, self.settings.why_per_object);
                if let Some(record) = self.servers.get_mut(server) {
                    record.tenure.why.record(at, "alert", because, &[]);
                    record.tenure.why.keep(most);
                    if record.state == ServerState::Booting {
                        // It may be what keeps it from joining.
                        record.reason = because.as_str().into();
                    }
                }
            }
            FleetEvent::Fenced { container, because } => self.fenced(container, because),
            FleetEvent::Listed { server, present } => {
                let now = self.now;
                if let Some(record) = self.servers.get_mut(server) {
                    record.tenure.missing = (!present).then(|| record.tenure.missing.unwrap_or(now));
                }
            }
            FleetEvent::Gone { server, because } => {
                self.fleet_step(server, ServerStep::Vanished, because, |record| record.tenure.deadline = None);
                self.claim_ended(server, None);
                for container in self.containers_on(server) {
                    self.container_lost(&container, &format!("{server} is gone: {because}"));
                }
            }
            FleetEvent::Forgotten { server } => {
                self.servers.remove(server);
                self.rank(server);
                self.ports.remove(server);
                self.soft.resting.remove(server);
            }
            FleetEvent::OrphanSeen { provider, provider_id, orphan } => {
                if let Some(record) = self.providers.get_mut(provider) {
                    record.orphans.insert(provider_id.clone(), orphan.clone());
                }
            }
            FleetEvent::OrphanCondemned { provider, provider_id, .. } => {
                let orphans = self.providers.get_mut(provider).map(|record| &mut record.orphans);
                if let Some(orphan) = orphans.and_then(|orphans| orphans.get_mut(provider_id)) {
                    orphan.condemned = true;
                }
            }
            FleetEvent::OrphanGone { provider, provider_id } => {
                let orphans = self.providers.get_mut(provider).map(|record| &mut record.orphans);
                if let Some(orphan) = orphans.and_then(|orphans| orphans.remove(provider_id)) {
                    self.claim_ended(&orphan.server, None);
                }
            }
        }
    }

    /// Whoever starts a Manager has looked at what stood in the way for good.
    pub(super) fn allow_buying(&mut self) {
        for record in self.providers.values_mut() {
            record.refused = record.refused.take().filter(|refused| refused.until.is_some());
        }
    }

    /// What a provider takes back is what it is short of: that offering is left alone for a while.
    fn short_of(&mut self, server: &ServerId) {
        let Some(record) = self.servers.get(server) else { return };
        let Some(kind) = record.tenure.kind else { return };
        let key = offering_key(&record.offering, record.zone.as_deref(), kind);
        if let Some(owner) = self.providers.get_mut(&record.provider) {
            owner.marked.insert(key, self.now + owner.limits.stock_out);
        }
    }

    fn fleet_intended(&mut self, operation: &ServerOperation) {
        self.last_operation = self.last_operation.max(operation.id);
        let (id, now) = (operation.id, self.now);
        for server in &operation.servers {
            let step = match &operation.kind {
                ServerOperationKind::Provision { .. } => ServerStep::Provision,
                ServerOperationKind::Terminate { .. } => ServerStep::Terminate,
                ServerOperationKind::Clear => {
                    if let Some(record) = self.servers.get_mut(server) {
                        record.tenure.operation = Some(id);
                    }
                    continue;
                }
            };
            self.fleet_step(server, step, &operation.because, |record| {
                record.tenure.operation = Some(id);
                if step == ServerStep::Provision {
                    record.tenure.bought = Some(now);
                }
            });
        }
        if let Some(record) = self.providers.get_mut(&operation.provider) {
            let meant = record.orphans.values_mut().filter(|orphan| operation.servers.contains(&orphan.server));
            meant.for_each(|orphan| orphan.asked = Some(now));
        }
        self.server_operations.insert(id, operation.clone());
    }

    fn fleet_refused(&mut self, server: &ServerId, failure: &ServerFailure) {
        let Some(record) = self.servers.get(server).filter(|record| record.state == ServerState::Provisioning) else {
            return;
        };
        let kind = record.tenure.kind;
        let key = kind.map(|kind| offering_key(&record.offering, record.zone.as_deref(), kind));
        let (provider, now) = (record.provider.clone(), self.now);
        if let Some(owner) = self.providers.get_mut(&provider) {
            let refused = |until| Some(Refused { until, because: failure.message.clone() });
            match &failure.kind {
                ErrorKind::InsufficientCapacity { retry_after, .. } => {
                    owner.marked.retain(|_, until| *until > now);
                    owner.marked.extend(key.map(|key| (key, now + retry_after.unwrap_or(owner.limits.stock_out))));
                }
                ErrorKind::Quota { .. } => owner.refused = refused(Some(now + owner.limits.rest)),
                ErrorKind::Denied | ErrorKind::InvalidConfig | ErrorKind::Unsupported | ErrorKind::Unexpected => {
                    owner.refused = refused(None);
                }
                // Nothing was made, and the next call may fare better: not at once, so that it is no storm.
                _ => owner.marked.extend(key.map(|key| (key, now + AGAIN))),
            }
            owner.why.record(self.at, "buy", &failure.message, &[]);
            owner.why.keep(self.settings.why_per_object);
        }
        self.claim_ended(server, Some(failure));
        // Surely there is nothing to give back, so it is gone at once.
        self.fleet_step(server, ServerStep::Fail, &failure.message, |_| {});
        self.fleet_step(server, ServerStep::Vanished, &failure.message, |_| {});
    }

    fn fleet_stepped(&mut self, server: &ServerId, step: ServerStep, because: &str) {
        let now = self.now;
        if step == ServerStep::Fail
            && let Some(provider) = self.servers.get(server).map(|record| record.provider.clone())
            && let Some(owner) = self.providers.get_mut(&provider)
        {
            let rest = owner.limits.rest;
            owner.failures.push_back(now);
            while owner.failures.front().is_some_and(|at| *at + rest <= now) {
                owner.failures.pop_front();
            }
        }
        if let Some(record) = self.servers.get_mut(server) {
            match step {
                ServerStep::Cordon => record.tenure.cordoned = true,
                ServerStep::Uncordon => record.tenure.cordoned = false,
                _ => {}
            }
        }
        self.fleet_step(server, step, because, |record| match step {
            ServerStep::Admitted | ServerStep::Uncordon => {
                record.tenure.empty = (record.containers == 0).then_some(now);
            }
            ServerStep::Silent => record.tenure.missing = None,
            _ => {}
        });
        match step {
            ServerStep::Admitted | ServerStep::Uncordon => {
                self.touch_held();
                // What was replaced meanwhile ends now.
                self.touch_units_on(server, ContainerState::Fenced);
            }
            ServerStep::Silent => {
                for container in self.containers_on(server) {
                    self.container_silent(&container, because);
                }
            }
            _ => {}
        }
    }

    /// A container whose server is gone: nothing can be told to it and nothing is left of it.
    fn container_lost(&mut self, container: &ContainerId, because: &str) {
        let Some(record) = self.containers.get(container) else { return };
        if let Some(open) = record.operation {
            self.end(open, OperationState::Resolved, Some(because.to_owned()));
        }
        self.change(container, |state, record| {
            record.operation = None;
            record.handle = None;
            if !matches!(record.state, ContainerState::Stopped | ContainerState::Failed) {
                state.step(record, Step::Ended, because.to_owned());
            }
        });
        self.removed(container);
    }

    /// The claim on a server that an operation is about has its answer; with the last one the operation ends.
    fn claim_ended(&mut self, server: &ServerId, failure: Option<&ServerFailure>) {
        let of_orphan = |operation: &&ServerOperation| operation.servers.contains(server);
        let open = match self.servers.get_mut(server) {
            Some(record) => record.tenure.operation.take(),
            None => self.server_operations.values().find(of_orphan).map(|operation| operation.id),
        };
        let Some(id) = open else { return };
        let open = |other: &ServerId| self.servers.get(other).is_some_and(|record| record.tenure.operation == Some(id));
        let Some(operation) = self.server_operations.get(&id) else { return };
        let last = !operation.servers.iter().any(open);
        if let Some(operation) = self.server_operations.get_mut(&id) {
            match (failure, operation.state) {
                (Some(failure), _) => {
                    operation.error = Some(failure.message.clone());
                    operation.state = OperationState::Failed;
                }
                // Of several claims one has failed, which is what is told.
                (None, OperationState::Failed) => {}
                (None, state) if last => {
                    operation.error = None;
                    operation.state = match state {
                        OperationState::OutcomeUnknown => OperationState::Resolved,
                        _ => OperationState::Succeeded,
                    };
                }
                _ => {}
            }
        }
        if last && let Some(ended) = self.server_operations.remove(&id) {
            if self.ended_server_operations.len() == ENDED_OPERATIONS {
                self.ended_server_operations.pop_front();
            }
            self.ended_server_operations.push_back(ended.clone());
            self.soft.ended_fleet.push(ended);
        }
    }

    /// Takes one step of a server's life and says why; one that makes no sense any more is dropped.
    fn fleet_step(&mut self, server: &ServerId, step: ServerStep, because: &str, change: impl FnOnce(&mut Server)) {
        let at = self.at;
        let most = self.settings.why_per_object;
        let Some(record) = self.servers.get_mut(server) else { return };
        let before = record.state;
        let Ok(next) = record.state.on(step) else { return };
        if next != before {
            record.state = next;
            record.since = at;
            because.clone_into(&mut record.reason);
            record.tenure.why.record(at, step.as_str(), because, &[]);
            record.tenure.why.keep(most);
        }
        change(record);
        self.rank(server);
    }

    /// Limits of the provider of a server.
    pub(crate) fn limits_of(&self, server: &ServerId) -> FleetLimits {
        self.servers.get(server).map(|server| self.limits_of_provider(server).clone()).unwrap_or_default()
    }

    /// Containers that are to be replaced because of a rearrangement of their server.
    pub(crate) fn moving(&self, server: &Server, rearrangement: &Rearrangement) -> Vec<ContainerId> {
        self.on(&server.id)
            .filter(|it| it.replace.as_ref() == Some(&rearrangement.because))
            .map(|it| it.id.clone())
            .collect()
    }

    /// Whether a container has to go although others may not serve yet: its server is taken away, or was to be empty by now
    /// whatever that costs.
    pub fn is_out_of_time(&self, container: &ContainerId) -> bool {
        let server = self.containers.get(container).and_then(|record| self.servers.get(&record.server));
        let rearrangement = server.and_then(|server| server.tenure.rearrangement.as_ref());
        rearrangement
            .is_some_and(|it| it.late == Late::Force && it.deadline.is_some_and(|deadline| deadline <= self.now))
    }

    /// Containers on a server, in the order of their ids.
    pub(crate) fn containers_on(&self, server: &ServerId) -> Vec<ContainerId> {
        self.on(server).map(|it| it.id.clone()).collect()
    }

    /// Something has changed for good on a server that may be as good as gone.
    pub(super) fn touch_left(&mut self, server: &ServerId) {
        let lost = self.servers.get(server).is_some_and(|record| record.state == ServerState::Lost);
        self.soft.fleet_dirty |= lost;
    }

    /// Whether servers or providers are to be looked at; taken.
    pub(crate) fn take_fleet_dirty(&mut self) -> bool {
        std::mem::take(&mut self.soft.fleet_dirty)
    }

    /// Whether servers or providers are to be looked at.
    pub(crate) fn is_fleet_dirty(&self) -> bool {
        self.soft.fleet_dirty
    }

    pub(super) fn touch_fleet(&mut self) {
        self.soft.fleet_dirty = true;
    }

    /// When time alone makes something due about servers or providers. Found anew after each look at them.
    pub(crate) fn rearm_fleet(&mut self) {
        let now = self.now;
        let servers = self.servers.values().flat_map(|server| {
            let tenure = &server.tenure;
            let idle = tenure.empty.map(|since| since + self.limits_of_provider(server).idle);
            let late = tenure.rearrangement.as_ref().and_then(|rearrangement| rearrangement.deadline);
            [tenure.deadline, tenure.keep, idle, late]
        });
        let providers = self.providers.values().flat_map(|provider| {
            let refused = provider.refused.as_ref().and_then(|refused| refused.until);
            let visibility = provider.limits.visibility;
            let asked = provider.orphans.values().map(move |orphan| orphan.asked.map(|asked| asked + visibility));
            provider.marked.values().copied().map(Some).chain([refused]).chain(asked)
        });
        let wake = servers.chain(providers).flatten().filter(|due| *due > now).min();
        let mut looks = Vec::new();
        for (name, provider) in &self.providers {
            let Some(limits) = provider.limits.rearrange else { continue };
            let look = self.soft.rearranging.entry(name.clone()).or_insert(now + limits.every);
            if *look <= now {
                *look = now + limits.every;
            }
            looks.push(*look);
        }
        self.soft.fleet_wake = wake.into_iter().chain(looks).min();
    }

    /// Whether it is time to compare the servers of a provider.
    pub(crate) fn may_rearrange(&self, provider: &Name) -> bool {
        self.soft.rearranging.get(provider).is_some_and(|look| *look <= self.now)
    }

    fn limits_of_provider(&self, server: &Server) -> &FleetLimits {
        static DEFAULT: std::sync::LazyLock<FleetLimits> = std::sync::LazyLock::new(FleetLimits::default);
        self.providers.get(&server.provider).map_or(&DEFAULT, |provider| &provider.limits)
    }

    /// Operations on servers that ended since the last call, for the ledger.
    pub fn take_ended_server_operations(&mut self) -> Vec<ServerOperation> {
        std::mem::take(&mut self.soft.ended_fleet)
    }

    /// An open operation on servers.
    pub fn server_operation(&self, id: OperationId) -> Option<&ServerOperation> {
        self.server_operations.get(&id)
    }
}
