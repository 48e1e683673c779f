//! Each Unit's containers by what is to become of them, kept while they change: a decision about one container costs the
//! same in a large Unit, because nobody has to look at the others.
//!
//! Start at [`Roster`]. A container is counted out before it changes and in again afterwards; [`State::roster`] is what
//! there is between. What depends on time alone waits in the order of its time: `due` for what [`crate::plan`] has to do
//! about a container, [`Group`] for what has been ready for long enough. A roster always equals the one that a count of
//! all containers gives; the tests compare both after every turn.

mod group;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) use self::group::Group;

use self::group::put;
use super::State;
use crate::container::{Container, ContainerState};
use crate::id::{ContainerId, Revision, UnitId};
use crate::time::ManagerTime;

/// Containers of a Unit that are treated alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class {
    /// What they were made from.
    pub(crate) revision: Revision,
    /// Somebody asked to replace them.
    pub(crate) asked: bool,
}

impl Class {
    /// Containers of a revision that nobody asked to replace.
    pub(crate) fn kept(revision: Revision) -> Self {
        Self { revision, asked: false }
    }

    fn of(record: &Container) -> Self {
        Self { revision: record.revision, asked: record.replace.is_some() }
    }
}

/// The containers of one Unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Roster {
    /// None of them is empty.
    groups: BTreeMap<Class, Group>,
    /// When something has to be done about a container, if nothing happens to it before.
    due: BTreeSet<(ManagerTime, ContainerId)>,
    ready: usize,
}

impl Roster {
    /// The containers of one class, if there are any.
    pub(crate) fn group(&self, class: Class) -> Option<&Group> {
        self.groups.get(&class)
    }

    /// All containers by class.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (Class, &Group)> {
        self.groups.iter().map(|(class, group)| (*class, group))
    }

    /// Containers about which something may have to be done by `now`, in the order of their ids.
    pub(crate) fn due(&self, now: ManagerTime) -> BTreeSet<&ContainerId> {
        self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| id).collect()
    }

    /// The revisions that its containers are of.
    pub(super) fn revisions(&self) -> BTreeSet<Revision> {
        self.groups.keys().map(|class| class.revision).collect()
    }

    /// Whether a container is to be replaced, or was and is leaving.
    pub(super) fn replaces(&self, current: Revision) -> bool {
        self.groups.keys().any(|class| class.asked || class.revision != current)
    }

    /// When ready containers that have not been so for `monitor` at `now` will have been: each time once.
    pub(super) fn proofs(&self, now: ManagerTime, monitor: Duration) -> BTreeSet<ManagerTime> {
        let entered = self.groups.values().flat_map(Group::settling);
        entered.map(|entered| entered + monitor).filter(|proof| *proof > now).collect()
    }

    fn count(&mut self, record: &Container, enters: bool) {
        let class = Class::of(record);
        let group = self.groups.entry(class).or_default();
        group.count(record, enters);
        if group.is_empty() {
            self.groups.remove(&class);
        }
        if let Some(at) = due(record) {
            put(&mut self.due, (at, record.id.clone()), enters);
        }
        if record.state == ContainerState::Ready {
            self.ready = if enters { self.ready + 1 } else { self.ready - 1 };
        }
    }

    fn settle(&mut self, now: ManagerTime, monitor: Duration) {
        for group in self.groups.values_mut() {
            group.settle(now, monitor);
        }
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
        ContainerState::Ready => record.finish_by,
        ContainerState::Draining if record.drained => NOW,
        ContainerState::Draining => record.deadline,
        ContainerState::Stopped if !record.completed => NOW,
        ContainerState::Preparing
        | ContainerState::Prepared
        | ContainerState::Starting
        | ContainerState::Waiting
        | ContainerState::Stopped
        | ContainerState::Failed
        | ContainerState::Lost
        | ContainerState::Fenced => None,
    }
}

impl State {
    /// The containers of a Unit; `None` if it has none.
    pub(crate) fn roster(&self, unit: &UnitId) -> Option<&Roster> {
        self.soft.rosters.get(unit)
    }

    /// Containers of a Unit that take traffic.
    pub fn ready(&self, unit: &UnitId) -> usize {
        self.roster(unit).map_or(0, |roster| roster.ready)
    }

    /// Containers that run, and those among them that fail their liveness probes.
    pub(crate) fn wellness(&self) -> (usize, usize) {
        (self.soft.running, self.soft.unwell)
    }

    /// Counts a container in: it was made, or has changed.
    pub(super) fn count_in(&mut self, record: &Container) {
        let (running, unwell) = wellness_of(record);
        self.soft.running += usize::from(running);
        self.soft.unwell += usize::from(unwell);
        match self.soft.rosters.get_mut(&record.unit) {
            Some(roster) => roster.count(record, true),
            None => self.soft.rosters.entry(record.unit.clone()).or_default().count(record, true),
        }
    }

    /// Counts a container out: it is about to change, or to go.
    pub(super) fn count_out(&mut self, record: &Container) {
        let (running, unwell) = wellness_of(record);
        self.soft.running -= usize::from(running);
        self.soft.unwell -= usize::from(unwell);
        let Some(roster) = self.soft.rosters.get_mut(&record.unit) else { return };
        roster.count(record, false);
        if roster.groups.is_empty() {
            self.soft.rosters.remove(&record.unit);
        }
    }

    /// Counts everything, after loading.
    pub(crate) fn count_all(&mut self) {
        self.soft.rosters.clear();
        (self.soft.running, self.soft.unwell) = (0, 0);
        let containers = std::mem::take(&mut self.containers);
        for record in containers.values() {
            self.count_in(record);
        }
        self.containers = containers;
    }

    /// Counts a Unit anew: what was ready for long enough may not have been for long enough from now on.
    pub(super) fn count_again(&mut self, unit: &UnitId) {
        let mut roster = Roster::default();
        for record in self.units.get(unit).into_iter().flat_map(|unit| self.of(unit)) {
            roster.count(record, true);
        }
        if !roster.groups.is_empty() {
            self.soft.rosters.insert(unit.clone(), roster);
        }
    }

    /// Counts what has been ready for long enough by now, so that it need not be looked at again.
    pub(crate) fn settle(&mut self, unit: &UnitId) {
        let monitor = self.units.get(unit).map(|unit| unit.spec.update.monitor);
        if let (Some(monitor), Some(roster)) = (monitor, self.soft.rosters.get_mut(unit)) {
            roster.settle(self.now, monitor);
        }
    }
}

/// Whether a container runs, and whether it does so and fails its liveness probe.
fn wellness_of(record: &Container) -> (bool, bool) {
    let running = matches!(record.state, ContainerState::Loading | ContainerState::Ready);
    (running, running && record.unwell.is_some())
}
