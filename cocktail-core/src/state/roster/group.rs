//! The containers of one class, in the orders in which decisions take them.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use super::Marks;
use crate::id::ContainerId;
use crate::time::ManagerTime;

/// A container in the order of creation; no two of a Unit have the same number.
pub(super) type Made = (u64, ContainerId);

/// A container with an exclusive volume, in the order in which it can be spared.
pub(super) type Spared = (Reverse<u32>, bool, Reverse<u64>, ContainerId);

/// The containers of one class.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    all: usize,
    /// Live and not ready.
    unready: BTreeSet<Made>,
    /// They take traffic.
    ready: BTreeSet<Made>,
    /// Live with an exclusive volume: the last volume first, what takes no traffic first, the youngest first.
    slotted: BTreeSet<Spared>,
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

    /// Counts a container as something else. One function does everything, so that nothing is left behind.
    pub(super) fn count(&mut self, before: Option<&Marks>, after: Option<&Marks>) {
        self.all -= usize::from(before.is_some());
        self.all += usize::from(after.is_some());
        self.leaving -= usize::from(before.is_some_and(Marks::is_leaving));
        self.leaving += usize::from(after.is_some_and(Marks::is_leaving));
        exchange(&mut self.unready, before.and_then(Marks::unready), after.and_then(Marks::unready));
        exchange(&mut self.ready, before.and_then(Marks::ready), after.and_then(Marks::ready));
        exchange(&mut self.slotted, before.and_then(Marks::slotted), after.and_then(Marks::slotted));
        exchange(&mut self.done, before.and_then(Marks::done), after.and_then(Marks::done));
        exchange(&mut self.idle, before.and_then(Marks::idle), after.and_then(Marks::idle));
        if !exchange(&mut self.settling, before.and_then(Marks::settling), after.and_then(Marks::settling)) {
            // It is not there any more, because it has settled.
            self.proved -= 1;
        }
        exchange(&mut self.unwell, before.and_then(Marks::unwell), after.and_then(Marks::unwell));
        exchange(&mut self.suspects, before.and_then(Marks::suspect), after.and_then(Marks::suspect));
        exchange(&mut self.loading, before.and_then(Marks::loading), after.and_then(Marks::loading));
    }

    /// Counts as proved what has been ready for `monitor` at `now`. Time never goes back, so it stays that.
    pub(super) fn settle(&mut self, now: ManagerTime, monitor: Duration) {
        while self.settling.first().is_some_and(|(entered, _)| *entered + monitor <= now) {
            self.settling.pop_first();
            self.proved += 1;
        }
    }
}

/// Takes one item away and adds another, where they differ. Whether what was to go was there.
pub(super) fn exchange<T: Ord>(items: &mut BTreeSet<T>, before: Option<T>, after: Option<T>) -> bool {
    if before == after {
        return true;
    }
    let there = before.is_none_or(|item| items.remove(&item));
    items.extend(after);
    there
}

/// Counts one up or down, if it counts.
pub(super) fn add(count: &mut usize, counts: bool, enters: bool) {
    *count = if enters { *count + usize::from(counts) } else { *count - usize::from(counts) };
}

/// The times in a set, each once: very many containers may have the same.
fn times(items: &BTreeSet<(ManagerTime, u64)>) -> impl Iterator<Item = ManagerTime> {
    let first = items.first();
    std::iter::successors(first, |last| items.range((Bound::Excluded((last.0, u64::MAX)), Bound::Unbounded)).next())
        .map(|(at, _)| *at)
}
