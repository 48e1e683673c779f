//! Counts of each Unit's containers, kept while they change, so that one event costs the same in a large Unit.
//!
//! A container is counted out before it changes and in again afterwards; [`State::tally`] is what there is between.

use std::collections::BTreeMap;

use super::State;
use crate::container::{Container, ContainerState};
use crate::id::{Revision, UnitId};

/// How many containers a Unit has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// By the revision that they are of; none of them is zero.
    pub(crate) revisions: BTreeMap<Revision, usize>,
    /// Those that somebody asked to replace.
    pub(crate) asked: usize,
    /// Those that take traffic.
    pub(crate) ready: usize,
}

impl Tally {
    /// Whether a container is to be replaced, or was and is leaving.
    pub(super) fn replaces(&self, current: Revision) -> bool {
        self.asked > 0 || self.revisions.keys().any(|revision| *revision != current)
    }

    fn is_empty(&self) -> bool {
        self.revisions.is_empty()
    }
}

impl State {
    /// How many containers a Unit has.
    pub(crate) fn tally(&self, unit: &UnitId) -> Option<&Tally> {
        self.soft.tallies.get(unit)
    }

    /// Containers of a Unit that take traffic.
    pub fn ready(&self, unit: &UnitId) -> usize {
        self.tally(unit).map_or(0, |tally| tally.ready)
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
        let tally = match self.soft.tallies.get_mut(&record.unit) {
            Some(tally) => tally,
            None => self.soft.tallies.entry(record.unit.clone()).or_default(),
        };
        *tally.revisions.entry(record.revision).or_default() += 1;
        tally.asked += usize::from(record.replace.is_some());
        tally.ready += usize::from(record.state == ContainerState::Ready);
    }

    /// Counts a container out: it is about to change, or to go.
    pub(super) fn count_out(&mut self, record: &Container) {
        let (running, unwell) = wellness_of(record);
        self.soft.running -= usize::from(running);
        self.soft.unwell -= usize::from(unwell);
        let Some(tally) = self.soft.tallies.get_mut(&record.unit) else { return };
        if let Some(count) = tally.revisions.get_mut(&record.revision) {
            *count -= 1;
            if *count == 0 {
                tally.revisions.remove(&record.revision);
            }
        }
        tally.asked -= usize::from(record.replace.is_some());
        tally.ready -= usize::from(record.state == ContainerState::Ready);
        if tally.is_empty() {
            self.soft.tallies.remove(&record.unit);
        }
    }

    /// Counts everything, after loading.
    pub(crate) fn count_all(&mut self) {
        self.soft.tallies.clear();
        (self.soft.running, self.soft.unwell) = (0, 0);
        let containers = std::mem::take(&mut self.containers);
        for record in containers.values() {
            self.count_in(record);
        }
        self.containers = containers;
    }
}

/// Whether a container runs, and whether it does so and fails its liveness probe.
fn wellness_of(record: &Container) -> (bool, bool) {
    let running = matches!(record.state, ContainerState::Loading | ContainerState::Ready);
    (running, running && record.unwell.is_some())
}
