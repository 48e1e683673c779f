//! How many containers a Unit has, by what is to become of them.

use crate::container::{Container, ContainerState};
use crate::id::Revision;
use crate::rollout::{Rollout, RolloutState};
use crate::state::State;
use crate::unit::Unit;

/// The containers of a Unit, sorted by what is to become of them.
#[derive(Debug)]
pub(super) struct Census<'a> {
    /// Containers that shall exist.
    pub(super) goal: usize,
    /// Those of them that shall be of the current revision now: fewer than all while a rollout waits.
    pub(super) fresh_goal: usize,
    /// Live, of the current revision, not to be replaced.
    pub(super) fresh: Vec<&'a Container>,
    /// Live, to be replaced.
    pub(super) outdated: Vec<&'a Container>,
    /// A job's containers of the current revision that are done.
    pub(super) done: Vec<&'a Container>,
    /// Done, and of no interest any more.
    pub(super) spent: Vec<&'a Container>,
    /// On their way out.
    pub(super) leaving: usize,
    /// On their way out because they were replaced.
    pub(super) leaving_outdated: usize,
    /// Of the current revision, and ready for the monitor window.
    pub(super) proved: usize,
}

/// How far a rollout may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// To the end.
    All,
    /// That many containers of the new revision.
    Only(usize),
    /// No further.
    Held,
}

pub(super) fn census<'a>(state: &'a State, unit: &'a Unit) -> Census<'a> {
    let goal = if state.is_halting() { 0 } else { unit.goal() as usize };
    let monitor = unit.spec.update.monitor;
    let mut census = Census {
        goal,
        fresh_goal: goal,
        fresh: Vec::new(),
        outdated: Vec::new(),
        done: Vec::new(),
        spent: Vec::new(),
        leaving: 0,
        leaving_outdated: 0,
        proved: 0,
    };
    let mut asked = 0;
    for container in state.of(unit) {
        let replaced = container.revision != unit.revision || container.replace.is_some();
        if container.is_done() {
            let kept = if replaced || goal == 0 { &mut census.spent } else { &mut census.done };
            kept.push(container);
        } else if !container.state.is_live() {
            if !matches!(container.state, ContainerState::Stopped) {
                census.leaving += 1;
                census.leaving_outdated += usize::from(replaced);
            }
        } else if replaced {
            asked += usize::from(container.revision == unit.revision);
            census.outdated.push(container);
        } else {
            census.proved += usize::from(container.is_proved(state.now, monitor));
            census.fresh.push(container);
        }
    }
    census.fresh.sort_by_key(|container| container.ordinal);
    census.outdated.sort_by_key(|container| container.ordinal);
    census.fresh_goal = match unit.rollout.as_ref().map_or(Pace::All, pace) {
        Pace::All => goal,
        Pace::Only(canary) => goal.min(canary),
        Pace::Held => goal.min(census.fresh.len() + asked),
    };
    census
}

fn pace(rollout: &Rollout) -> Pace {
    match rollout.state {
        RolloutState::Paused => Pace::Held,
        RolloutState::Running if rollout.canary > 0 => Pace::Only(rollout.canary as usize),
        _ => Pace::All,
    }
}

impl Census<'_> {
    /// Containers to make now, and of which revision.
    pub(super) fn missing(&self, unit: &Unit) -> (usize, Revision) {
        let wanted = self.fresh_goal.saturating_sub(self.fresh.len() + self.done.len());
        if unit.stop_first().is_some() {
            // What is leaving still has the volume or the port.
            let present = self.fresh.len() + self.done.len() + self.outdated.len() + self.leaving;
            return (wanted.min(self.goal.saturating_sub(present)), unit.revision);
        }
        if wanted == 0 && self.fresh_goal < self.goal {
            // While a rollout waits, what is missing beside it is of the revision that serves.
            let serving = unit.rollout.as_ref().and_then(|rollout| rollout.from);
            let serving = serving.filter(|from| unit.templates.contains_key(from));
            let present = self.fresh.len() + self.outdated.len();
            let most = self.goal + unit.spec.update.surge.max(1) as usize;
            let room = most.saturating_sub(present + self.leaving_outdated);
            return (self.goal.saturating_sub(present).min(room), serving.unwrap_or(unit.revision));
        }
        if self.outdated.is_empty() && self.leaving_outdated == 0 {
            return (wanted, unit.revision);
        }
        let most = self.goal + unit.spec.update.surge.max(1) as usize;
        let present = self.fresh.len() + self.outdated.len() + self.leaving_outdated;
        (wanted.min(most.saturating_sub(present)), unit.revision)
    }

    /// Containers that take traffic.
    pub(super) fn ready(&self) -> usize {
        self.fresh.iter().chain(&self.outdated).filter(|container| container.state == ContainerState::Ready).count()
    }

    /// Containers that can be relied on: old ones that take traffic, and new ones that have done so for a while.
    pub(super) fn relied(&self) -> usize {
        self.proved + self.outdated.iter().filter(|container| container.state == ContainerState::Ready).count()
    }
}
