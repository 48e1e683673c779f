//! Servers that are driven by an agent: what silence, loss and return make of their containers.
//!
//! A server that is *quiet* may be lost: nobody is sent to what runs there, and nothing is placed there. One that is *lost*
//! runs nothing that serves: its containers are lost with it until it is back, or are fenced because others take their
//! place. What the session has proved is in `session/`; here only what follows from it for containers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use super::State;
use crate::container::{Container, ContainerState, Step};
use crate::id::{ContainerId, ServerId, UnitId};
use crate::operation::OperationState;
use crate::server::ServerState;
use crate::session::{Claim, Standing};
use crate::spec::{ArtifactSource, Resources};

impl State {
    /// What the session with a server's agent must know of its containers: what was ever started there.
    pub fn session_claims(&self, server: &ServerId) -> BTreeMap<ContainerId, Claim> {
        let started = self.on(server).filter(|record| record.generation.0 > 0);
        let claim = |record: &Container| {
            let standing = match record.state {
                ContainerState::Fenced => Standing::Fenced,
                state if state.is_live() => Standing::Wanted,
                _ => Standing::Leaving,
            };
            (record.id.clone(), Claim { generation: record.generation, standing })
        };
        started.map(claim).collect()
    }

    /// Whether an instance may join as a server with a token of that number.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn may_join(&self, server: &ServerId, number: u64, instance: &str) -> Result<(), String> {
        let known = self.servers.get(server).ok_or_else(|| format!("no server {server}"))?;
        let Some(token) = &known.tenure.token else { return Err(format!("no token was made for {server}")) };
        if token.number != number {
            return Err(format!("token {number} of {server} is void: {} was made since", token.number));
        }
        match &token.used_by {
            Some(user) if user == instance => Ok(()),
            Some(_) => Err(format!("token {number} of {server} was used already")),
            None if token.until <= self.now => Err(format!("token {number} of {server} has run out")),
            None => Ok(()),
        }
    }

    /// Whether an instance has joined with a token.
    pub fn has_joined(&self, server: &ServerId, number: u64, instance: &str) -> bool {
        let token = self.servers.get(server).and_then(|record| record.tenure.token.as_ref());
        token.is_some_and(|token| token.number == number && token.used_by.as_deref() == Some(instance))
    }

    /// The file of an artifact, by its hash, if a container on that server is made from it.
    pub fn artifact_for(&self, server: &ServerId, sha256: &str) -> Option<PathBuf> {
        self.on(server).find_map(|record| {
            let template = self.units.get(&record.unit)?.template(record.revision);
            let artifact = template.artifact.as_ref().filter(|artifact| artifact.sha256 == sha256)?;
            match &artifact.source {
                ArtifactSource::File(path) => Some(path.clone()),
                ArtifactSource::Url(_) => None,
            }
        })
    }

    /// Containers of a server that others have taken the place of.
    pub fn fenced_on(&self, server: &ServerId) -> Vec<ContainerId> {
        let fenced = self.on(server).filter(|record| record.state == ContainerState::Fenced);
        fenced.map(|record| record.id.clone()).collect()
    }

    /// Servers that agents drive, and how many of them are lost or about to be.
    pub(crate) fn agents(&self) -> (usize, usize) {
        let agents = || self.servers.values().filter(|server| server.tenure.by_agent);
        let lost = agents().filter(|server| server.state == ServerState::Lost || server.tenure.quiet.is_some());
        (agents().count(), lost.count())
    }

    /// Its agent has told anew what it has, and where its containers are reached.
    pub(super) fn described(&mut self, server: &ServerId, capacity: Resources, address: IpAddr) {
        let Some(record) = self.servers.get_mut(server) else { return };
        (record.capacity, record.address) = (capacity, address);
        self.rank(server);
        self.touch_held();
        self.soft.routes_changed = true;
    }

    pub(super) fn fell_quiet(&mut self, server: &ServerId, because: &str) {
        let (at, now, most) = (self.at, self.now, self.settings.why_per_object);
        let Some(record) = self.servers.get_mut(server) else { return };
        record.tenure.quiet.get_or_insert(now);
        because.clone_into(&mut record.reason);
        record.tenure.why.record(at, "quiet", because, &[]);
        record.tenure.why.keep(most);
        self.rank(server);
        for container in self.containers_on(server) {
            self.change(&container, |state, record| {
                if record.state == ContainerState::Ready {
                    because.clone_into(&mut record.probe);
                    state.step(record, Step::TurnedUnready, format!("not ready: {because}"));
                    // How long it may be silent is the session's to say.
                    record.deadline = None;
                }
            });
        }
    }

    pub(super) fn heard_again(&mut self, server: &ServerId) {
        let Some(record) = self.servers.get_mut(server) else { return };
        if record.tenure.quiet.take().is_none() {
            return;
        }
        "it is heard again".clone_into(&mut record.reason);
        self.rank(server);
        self.touch_held();
        for container in self.containers_on(server) {
            self.change(&container, |state, record| {
                if record.state != ContainerState::Loading || record.deadline.is_some() {
                    return;
                }
                if state.is_unprobed(record) {
                    state.step(record, Step::TurnedReady, "its server is heard again".into());
                } else {
                    state.await_ready(record);
                }
            });
        }
    }

    /// Its server is lost: what it was doing is over, or will be told when the server is back.
    pub(super) fn container_silent(&mut self, container: &ContainerId, because: &str) {
        let Some(record) = self.containers.get(container) else { return };
        // What was to end ends: that is told to the server until it is done.
        if matches!(
            record.state,
            ContainerState::Draining | ContainerState::Stopped | ContainerState::Failed | ContainerState::Fenced
        ) {
            return;
        }
        if let Some(open) = record.operation {
            self.end(open, OperationState::Resolved, Some(because.to_owned()));
        }
        self.change(container, |state, record| {
            record.operation = None;
            record.deadline = None;
            record.usage = None;
            if record.outlives_lease {
                // It may run: nobody takes its place, whatever was asked for before.
                record.replace = None;
            }
            state.step(record, Step::Silent, because.to_owned());
            record.why.record(state.at, "lost", because, &[]);
        });
    }

    pub(super) fn fenced(&mut self, container: &ContainerId, because: &str) {
        self.change(container, |state, record| {
            if record.state == ContainerState::Lost {
                state.step(record, Step::Fence, because.to_owned());
                record.why.record(state.at, "fence", because, &[]);
            }
        });
        self.touch_held();
    }

    /// It was lost and runs: its probes say whether it is ready.
    pub(super) fn regained(&mut self, record: &mut Container) {
        let ready = self.is_unprobed(record);
        record.started.get_or_insert(self.now);
        self.step(record, Step::Regained { ready }, "its server is back".into());
        if !ready {
            self.await_ready(record);
        }
    }

    /// Has the Units looked at that have a container in that state on a server.
    pub(super) fn touch_units_on(&mut self, server: &ServerId, state: ContainerState) {
        let there = self.on(server).filter(|record| record.state == state);
        let units: BTreeSet<UnitId> = there.map(|record| record.unit.clone()).collect();
        units.iter().for_each(|unit| self.touch(unit));
    }

    /// Whether it is ready as soon as it runs.
    pub(super) fn is_unprobed(&self, record: &Container) -> bool {
        let unit = self.units.get(&record.unit);
        let probe = unit.and_then(|unit| unit.template(record.revision).ready.as_ref());
        probe.is_none() && !record.is_spare()
    }

    fn await_ready(&mut self, record: &mut Container) {
        let Some(unit) = self.units.get(&record.unit) else { return };
        let deadline = self.now + unit.spec.update.progress;
        record.deadline = Some(deadline);
        self.wake(deadline, &record.unit);
    }
}
