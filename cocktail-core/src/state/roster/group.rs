//! The containers of one class, in the orders in which decisions take them.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use crate::container::{Container, ContainerState};
use crate::id::ContainerId;
use crate::time::ManagerTime;

/// A container in the order of creation; no two of a Unit have the same number.
type Made = (u64, ContainerId);

/// The containers of one class.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    all: usize,
    /// Live and not ready.
    unready: BTreeSet<Made>,
    /// They take traffic.
    ready: BTreeSet<Made>,
    /// Live with an exclusive volume: the last volume first, what takes no traffic first, the youngest first.
    slotted: BTreeSet<(Reverse<u32>, bool, Reverse<u64>, ContainerId)>,
    /// On their way out.
    leaving: usize,
    /// A job's containers that are done.
    done: BTreeSet<ContainerId>,
    /// Those of them without an open operation.
    idle: BTreeSet<ContainerId>,
    /// Ready and well, by the time since when. They wait to be counted as proved.
    settling: BTreeSet<(ManagerTime, u64)>,
    /// Ready and well, and no longer among those that are settling.
    proved: usize,
    /// Ready and not well, by the time since when.
    unwell: BTreeSet<(ManagerTime, u64)>,
    /// What a good revision's containers do not do, these did.
    suspects: BTreeSet<Made>,
    /// They are to be ready by that time.
    loading: BTreeSet<(ManagerTime, ContainerId)>,
}

impl Group {
    /// Live containers.
    pub(crate) fn len(&self) -> usize {
        self.unready.len() + self.ready.len()
    }

    /// Containers on their way out.
    pub(crate) fn leaving(&self) -> usize {
        self.leaving
    }

    /// A job's containers that are done.
    pub(crate) fn done(&self) -> &BTreeSet<ContainerId> {
        &self.done
    }

    /// Those of [`Group::done`] without an open operation.
    pub(crate) fn idle(&self) -> &BTreeSet<ContainerId> {
        &self.idle
    }

    /// Containers that take traffic, in the order of creation.
    pub(crate) fn ready(&self) -> impl DoubleEndedIterator<Item = &Made> + ExactSizeIterator {
        self.ready.iter()
    }

    /// Live containers that take none, in the order of creation.
    pub(crate) fn unready(&self) -> impl DoubleEndedIterator<Item = &Made> + ExactSizeIterator {
        self.unready.iter()
    }

    /// Live containers with an exclusive volume, in the order in which they can be spared.
    pub(crate) fn slotted(&self) -> impl ExactSizeIterator<Item = &ContainerId> {
        self.slotted.iter().map(|(.., id)| id)
    }

    /// Containers that are well and have been ready for `monitor` at `now`.
    pub(crate) fn proved(&self, now: ManagerTime, monitor: Duration) -> usize {
        self.proved + self.settling.iter().take_while(|(entered, _)| *entered + monitor <= now).count()
    }

    /// Containers made after the first `made` that did what a good revision's containers do not do, or are not ready at
    /// `now` and had to be.
    pub(crate) fn suspects(&self, made: u64, now: ManagerTime) -> impl Iterator<Item = &ContainerId> {
        let suspects = self.suspects.iter().rev().take_while(move |(number, _)| *number > made);
        let late = self.loading.iter().take_while(move |(deadline, _)| *deadline <= now);
        suspects.map(|(_, id)| id).chain(late.map(|(_, id)| id))
    }

    /// Since when containers are ready that may still have to prove it, each time once.
    pub(super) fn settling(&self) -> impl Iterator<Item = ManagerTime> {
        times(&self.settling).chain(times(&self.unwell))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all == 0
    }

    /// Counts a container in or out. One function does both, so that nothing is left behind.
    pub(super) fn count(&mut self, record: &Container, enters: bool) {
        let (state, number) = (record.state, record.ordinal);
        let made = || (number, record.id.clone());
        let is_ready = state == ContainerState::Ready;
        add(&mut self.all, enters);
        if record.is_done() {
            put(&mut self.done, record.id.clone(), enters);
            if record.operation.is_none() {
                put(&mut self.idle, record.id.clone(), enters);
            }
        } else if state.is_live() {
            put(if is_ready { &mut self.ready } else { &mut self.unready }, made(), enters);
            if let Some(slot) = record.slot {
                let spared = (Reverse(slot), is_ready, Reverse(number), record.id.clone());
                put(&mut self.slotted, spared, enters);
            }
        } else if state != ContainerState::Stopped {
            add(&mut self.leaving, enters);
        }
        if is_ready && record.unwell.is_some() {
            put(&mut self.unwell, (record.entered, number), enters);
        } else if is_ready && !put(&mut self.settling, (record.entered, number), enters) {
            // It is not there any more, because it has settled.
            self.proved -= 1;
        }
        if is_suspect(record) {
            put(&mut self.suspects, made(), enters);
        }
        if let (ContainerState::Loading, Some(deadline)) = (state, record.deadline) {
            put(&mut self.loading, (deadline, record.id.clone()), enters);
        }
    }

    /// Counts as proved what has been ready for `monitor` at `now`. Time never goes back, so it stays that.
    pub(super) fn settle(&mut self, now: ManagerTime, monitor: Duration) {
        while self.settling.first().is_some_and(|(entered, _)| *entered + monitor <= now) {
            self.settling.pop_first();
            self.proved += 1;
        }
    }
}

/// Whether it ended by itself, or does not do what it should.
fn is_suspect(record: &Container) -> bool {
    match record.state {
        ContainerState::Backoff { .. } | ContainerState::Failed => true,
        ContainerState::Loading | ContainerState::Ready => record.crashes > 0 || record.unwell.is_some(),
        state => record.crashes > 0 && state.is_live(),
    }
}

/// Adds an item or takes it away; whether that changed anything.
pub(super) fn put<T: Ord>(items: &mut BTreeSet<T>, item: T, enters: bool) -> bool {
    if enters { items.insert(item) } else { items.remove(&item) }
}

fn add(count: &mut usize, enters: bool) {
    *count = if enters { *count + 1 } else { *count - 1 };
}

/// The times in a set, each once: very many containers may have the same.
fn times(items: &BTreeSet<(ManagerTime, u64)>) -> impl Iterator<Item = ManagerTime> {
    let first = items.first();
    std::iter::successors(first, |last| items.range((Bound::Excluded((last.0, u64::MAX)), Bound::Unbounded)).next())
        .map(|(at, _)| *at)
}
