//! What a container counts as.

use std::cmp::Reverse;

use super::Class;
use super::group::{Made, Spared};
use crate::container::{Container, ContainerState};
use crate::id::ContainerId;
use crate::time::ManagerTime;

/// Everything about a container that its Unit's roster goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marks {
    id: ContainerId,
    number: u64,
    class: Class,
    state: ContainerState,
    slot: Option<u32>,
    entered: ManagerTime,
    done: bool,
    idle: bool,
    unwell: bool,
    draining: bool,
    suspect: bool,
    loading: Option<ManagerTime>,
    /// It waits and can be taken: what it was started from.
    waits: Option<String>,
    due: Option<ManagerTime>,
}

impl Marks {
    pub(crate) fn of(record: &Container) -> Self {
        let loading = if record.state == ContainerState::Loading { record.deadline } else { None };
        Self {
            id: record.id.clone(),
            number: record.ordinal,
            class: Class::of(record),
            state: record.state,
            slot: record.slot,
            entered: record.entered,
            done: record.is_done(),
            idle: record.operation.is_none(),
            unwell: record.unwell.is_some(),
            draining: record.state == ContainerState::Draining && !record.drained,
            suspect: is_suspect(record),
            loading,
            waits: waits(record),
            due: due(record),
        }
    }

    pub(super) fn class(&self) -> Class {
        self.class
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state == ContainerState::Ready
    }

    fn is_live(&self) -> bool {
        !self.done && self.state.is_live()
    }

    fn made(&self) -> Made {
        (self.number, self.id.clone())
    }

    pub(super) fn unready(&self) -> Option<Made> {
        (self.is_live() && !self.is_ready()).then(|| self.made())
    }

    pub(super) fn ready(&self) -> Option<Made> {
        (self.is_live() && self.is_ready()).then(|| self.made())
    }

    pub(super) fn slotted(&self) -> Option<Spared> {
        let slot = self.slot.filter(|_| self.is_live())?;
        Some((Reverse(slot), self.is_ready(), Reverse(self.number), self.id.clone()))
    }

    pub(super) fn is_leaving(&self) -> bool {
        // What is fenced is out of reach, and in nobody's way.
        let over = matches!(self.state, ContainerState::Stopped | ContainerState::Fenced);
        !self.done && !self.state.is_live() && !over
    }

    pub(super) fn done(&self) -> Option<ContainerId> {
        self.done.then(|| self.id.clone())
    }

    pub(super) fn idle(&self) -> Option<ContainerId> {
        (self.done && self.idle).then(|| self.id.clone())
    }

    pub(super) fn settling(&self) -> Option<(ManagerTime, u64)> {
        (self.is_ready() && !self.unwell).then_some((self.entered, self.number))
    }

    pub(super) fn unwell(&self) -> Option<(ManagerTime, u64)> {
        (self.is_ready() && self.unwell).then_some((self.entered, self.number))
    }

    pub(super) fn draining(&self) -> Option<ContainerId> {
        self.draining.then(|| self.id.clone())
    }

    pub(super) fn suspect(&self) -> Option<Made> {
        self.suspect.then(|| self.made())
    }

    pub(super) fn loading(&self) -> Option<(ManagerTime, ContainerId)> {
        Some((self.loading?, self.id.clone()))
    }

    pub(super) fn waiting(&self) -> Option<(&str, &ContainerId)> {
        Some((self.waits.as_deref()?, &self.id))
    }

    pub(super) fn due(&self) -> Option<(ManagerTime, ContainerId)> {
        Some((self.due?, self.id.clone()))
    }

    /// Whether it runs, and whether it does so and fails its liveness probe.
    pub(super) fn wellness(&self) -> (bool, bool) {
        let running = matches!(self.state, ContainerState::Loading | ContainerState::Ready);
        (running, running && self.unwell)
    }
}

/// When something has to be done about a container, if nothing happens to it before; what, `plan/recover.rs` says.
fn due(record: &Container) -> Option<ManagerTime> {
    const NOW: Option<ManagerTime> = Some(ManagerTime(0));
    if record.operation.is_some() {
        return None;
    }
    match record.state {
        ContainerState::Claimed => NOW,
        ContainerState::Backoff { until } => Some(until),
        ContainerState::Loading | ContainerState::Ready if record.unwell.is_some() => NOW,
        ContainerState::Loading => record.deadline.into_iter().chain(record.finish_by).min(),
        ContainerState::Waiting => record.deadline,
        ContainerState::Ready => record.finish_by,
        ContainerState::Draining if record.drained => NOW,
        ContainerState::Draining => record.deadline,
        ContainerState::Stopped if !record.completed => NOW,
        ContainerState::Lost | ContainerState::Fenced => NOW,
        ContainerState::Preparing
        | ContainerState::Prepared
        | ContainerState::Starting
        | ContainerState::Stopped
        | ContainerState::Failed => None,
    }
}

/// What it was started from, if it waits and nobody has said anything against it.
fn waits(record: &Container) -> Option<String> {
    let worker = record.worker.as_ref().filter(|worker| worker.spare)?;
    let free = record.state == ContainerState::Waiting && record.operation.is_none() && record.replace.is_none();
    free.then(|| worker.pool.clone())
}

/// Whether it ended by itself, or does not do what it should.
fn is_suspect(record: &Container) -> bool {
    match record.state {
        ContainerState::Backoff { .. } | ContainerState::Failed => true,
        ContainerState::Loading | ContainerState::Ready => record.crashes > 0 || record.unwell.is_some(),
        state => record.crashes > 0 && state.is_live(),
    }
}
