//! Each Unit's containers by what is to become of them, kept while they change: a decision about one container costs the
//! same in a large Unit, because nobody has to look at the others.
//!
//! Start at [`Roster`]. What a container counts as is noted before it changes ([`Marks`]) and compared with what it counts
//! as afterwards, so that only what has changed is counted anew. What depends on time alone waits in the order of its time:
//! `due` for what [`crate::plan`] has to do about a container, [`Group`] for what has been ready for long enough. A roster
//! always equals the one that a count of all containers gives; the tests compare both after every turn.

mod group;
mod marks;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) use self::group::Group;
pub(super) use self::marks::Marks;
pub(super) use self::waiting::Waiting;

use self::group::exchange;
use super::State;
use crate::container::Container;
use crate::id::{ContainerId, Revision, UnitId};
use crate::lookup::Lookup;
use crate::time::ManagerTime;

/// Containers of a Unit that are treated alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class {
    /// What they were made from.
    pub(crate) revision: Revision,
    /// Somebody asked to replace them.
    pub(crate) asked: bool,
    /// They wait for a Unit that needs them, and are none of those that this one wants.
    pub(crate) spare: bool,
}

impl Class {
    /// Containers of a revision that nobody asked to replace.
    pub(crate) fn kept(revision: Revision) -> Self {
        Self { revision, asked: false, spare: false }
    }

    fn of(record: &Container) -> Self {
        Self { revision: record.revision, asked: record.replace.is_some(), spare: record.is_spare() }
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
        self.groups.keys().any(|class| !class.spare && (class.asked || class.revision != current))
    }

    /// When ready containers that have not been so for `monitor` at `now` will have been: each time once.
    pub(super) fn proofs(&self, now: ManagerTime, monitor: Duration) -> BTreeSet<ManagerTime> {
        let entered = self.groups.values().flat_map(Group::settling);
        entered.map(|entered| entered + monitor).filter(|proof| *proof > now).collect()
    }

    /// Counts one container as something else: it counted as `before`, and counts as `after` from now on.
    fn count(&mut self, before: Option<&Marks>, after: Option<&Marks>) {
        let classes = (before.map(Marks::class), after.map(Marks::class));
        if classes.0 == classes.1 {
            if let Some(class) = classes.0 {
                self.groups.entry(class).or_default().count(before, after);
            }
        } else {
            if let Some(class) = classes.0 {
                let group = self.groups.entry(class).or_default();
                group.count(before, None);
                if group.is_empty() {
                    self.groups.remove(&class);
                }
            }
            if let Some(class) = classes.1 {
                self.groups.entry(class).or_default().count(None, after);
            }
        }
        exchange(&mut self.due, before.and_then(Marks::due), after.and_then(Marks::due));
        self.ready -= usize::from(before.is_some_and(Marks::is_ready));
        self.ready += usize::from(after.is_some_and(Marks::is_ready));
    }

    fn settle(&mut self, now: ManagerTime, monitor: Duration) {
        for group in self.groups.values_mut() {
            group.settle(now, monitor);
        }
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

    /// Containers whose connections are waited for, in the order of their ids.
    pub fn draining(&self) -> impl Iterator<Item = &ContainerId> {
        self.soft.draining.iter()
    }

    /// Counts a container in: it was made.
    pub(super) fn count_in(&mut self, record: &Container) {
        self.count(&record.unit, None, Some(&Marks::of(record)));
    }

    /// Counts a container out: it is gone.
    pub(super) fn count_out(&mut self, record: &Container) {
        self.count(&record.unit, Some(&Marks::of(record)), None);
    }

    /// Counts a container as something else.
    pub(super) fn count(&mut self, unit: &UnitId, before: Option<&Marks>, after: Option<&Marks>) {
        if before == after {
            return;
        }
        for (marks, enters) in before.map(|it| (it, false)).into_iter().chain(after.map(|it| (it, true))) {
            let (running, unwell) = marks.wellness();
            group::add(&mut self.soft.running, running, enters);
            group::add(&mut self.soft.unwell, unwell, enters);
        }
        exchange(&mut self.soft.draining, before.and_then(Marks::draining), after.and_then(Marks::draining));
        for (marks, enters) in before.map(|it| (it, false)).into_iter().chain(after.map(|it| (it, true))) {
            if let Some((pool, id)) = marks.waiting() {
                self.soft.waiting.count(&unit.service, pool, id, enters);
            }
        }
        let roster = self.soft.rosters.get_or_default(unit.clone());
        roster.count(before, after);
        if roster.groups.is_empty() {
            self.soft.rosters.remove(unit);
        }
    }

    /// Counts everything, after loading.
    pub(crate) fn count_all(&mut self) {
        self.soft.rosters = Lookup::default();
        self.soft.draining.clear();
        self.soft.waiting = Waiting::default();
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
            roster.count(None, Some(&Marks::of(record)));
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
