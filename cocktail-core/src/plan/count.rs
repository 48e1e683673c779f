//! How many containers a Unit has, by what is to become of them. Counts come from its [`Roster`]; containers are looked
//! up in the order in which they are needed, and no further.

use std::collections::BTreeSet;
use std::iter::Peekable;

use crate::container::Container;
use crate::id::{ContainerId, Revision, UnitId};
use crate::rollout::{Rollout, RolloutState};
use crate::state::{Class, Group, Roster, State};
use crate::unit::Unit;

/// The containers of a Unit, sorted by what is to become of them.
#[derive(Debug)]
pub(super) struct Census<'a> {
    /// Containers that shall exist.
    pub(super) goal: usize,
    /// Those of them that shall be of the current revision now: fewer than all while a rollout waits.
    pub(super) fresh_goal: usize,
    /// Live, of the current revision, not to be replaced.
    pub(super) fresh: Live<'a>,
    /// Live, to be replaced.
    pub(super) outdated: Live<'a>,
    /// A job's containers of the current revision that are done, in the order of their ids.
    pub(super) done: &'a BTreeSet<ContainerId>,
    /// Done, of no interest any more and not yet on their way out, in the order of their ids.
    pub(super) spent: Vec<&'a Container>,
    /// On their way out.
    pub(super) leaving: usize,
    /// On their way out because they were replaced.
    pub(super) leaving_outdated: usize,
    /// Of the current revision, and ready for the monitor window.
    pub(super) proved: usize,
}

/// Live containers of a Unit.
#[derive(Debug)]
pub(super) struct Live<'a> {
    state: &'a State,
    groups: Vec<(Class, &'a Group)>,
    ready: usize,
    all: usize,
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

static NONE: BTreeSet<ContainerId> = BTreeSet::new();

pub(super) fn census<'a>(state: &'a State, id: &UnitId, unit: &Unit) -> Census<'a> {
    let goal = if state.is_halting() { 0 } else { unit.goal() as usize };
    let groups = state.roster(id).into_iter().flat_map(Roster::groups);
    // What waits for whoever needs it is not one of those that this Unit wants; `warm` looks at them.
    let all: Vec<(Class, &Group)> = groups.filter(|(class, _)| !class.spare).collect();
    let (fresh, outdated): (Vec<_>, Vec<_>) = all.iter().partition(|(class, _)| *class == Class::kept(unit.revision));
    let alike = outdated.iter().filter(|(class, _)| class.revision == unit.revision);
    let asked: usize = alike.map(|(_, group)| group.len()).sum();
    let leaving = |groups: &[(Class, &Group)]| groups.iter().map(|(_, group)| group.leaving()).sum();
    // There is one such class at most.
    let done = fresh.first().filter(|_| goal > 0).map(|(_, group)| group.done());
    let spent = if goal == 0 { &all } else { &outdated };
    let fresh_goal = match unit.rollout.as_ref().map_or(Pace::All, pace) {
        Pace::All => goal,
        Pace::Only(canary) => goal.min(canary),
        Pace::Held => goal.min(fresh.iter().map(|(_, group)| group.len()).sum::<usize>() + asked),
    };
    Census {
        goal,
        fresh_goal,
        done: done.unwrap_or(&NONE),
        spent: found(state, spent.iter().flat_map(|(_, group)| group.idle())),
        leaving: leaving(&all),
        leaving_outdated: leaving(&outdated),
        proved: fresh.iter().map(|(_, group)| group.proved(state.now, unit.spec.update.monitor)).sum(),
        fresh: Live::new(state, fresh),
        outdated: Live::new(state, outdated),
    }
}

/// The containers in the order of their ids.
fn found<'a>(state: &'a State, ids: impl Iterator<Item = &'a ContainerId>) -> Vec<&'a Container> {
    let ids: BTreeSet<&ContainerId> = ids.collect();
    ids.into_iter().filter_map(|id| state.containers.get(id)).collect()
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
        self.fresh.ready() + self.outdated.ready()
    }

    /// Containers that can be relied on: old ones that take traffic, and new ones that have done so for a while.
    pub(super) fn relied(&self) -> usize {
        self.proved + self.outdated.ready()
    }
}

impl<'a> Live<'a> {
    fn new(state: &'a State, groups: Vec<(Class, &'a Group)>) -> Self {
        let ready = groups.iter().map(|(_, group)| group.ready().len()).sum();
        let all = groups.iter().map(|(_, group)| group.len()).sum();
        Self { state, groups, ready, all }
    }

    pub(super) fn len(&self) -> usize {
        self.all
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all == 0
    }

    /// How many take traffic.
    pub(super) fn ready(&self) -> usize {
        self.ready
    }

    /// The one that was made first.
    pub(super) fn first(&self) -> Option<&'a Container> {
        let firsts =
            self.groups.iter().flat_map(|(_, group)| group.unready().next().into_iter().chain(group.ready().next()));
        self.state.containers.get(&firsts.min()?.1)
    }

    /// Those that take traffic and whose class is `wanted`, in the order of creation.
    pub(super) fn ready_of(&self, wanted: impl Fn(Class) -> bool) -> impl Iterator<Item = &'a Container> {
        let groups = self.groups.iter().filter(move |(class, _)| wanted(*class));
        self.found(Merged(groups.map(|(_, group)| group.ready().peekable()).collect()))
    }

    /// All of them: what takes no traffic first, then in the order of creation.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &'a Container> {
        let unready = Merged(self.groups.iter().map(|(_, group)| group.unready().peekable()).collect());
        self.found(unready).chain(self.ready_of(|_| true))
    }

    /// All of them in the order in which they can be spared. Of exclusive volumes the first stay in use, so that those
    /// who come later find their data; otherwise what takes no traffic goes first, then the youngest.
    pub(super) fn spare(&self) -> impl Iterator<Item = &'a Container> {
        let slotted = self.groups.iter().flat_map(|(_, group)| group.slotted());
        let unready = self.groups.iter().flat_map(|(_, group)| group.unready().rev());
        let ready = self.groups.iter().flat_map(|(_, group)| group.ready().rev());
        let state = self.state;
        let slotted = slotted.filter_map(|id| state.containers.get(id));
        slotted.chain(self.found(unready.chain(ready)).filter(|container| container.slot.is_none()))
    }

    fn found(&self, made: impl Iterator<Item = &'a (u64, ContainerId)>) -> impl Iterator<Item = &'a Container> {
        let state = self.state;
        made.filter_map(|(_, id)| state.containers.get(id))
    }
}

/// Several rows in order, as one in order.
struct Merged<I: Iterator>(Vec<Peekable<I>>);

impl<I: Iterator<Item: Ord + Copy>> Iterator for Merged<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        let rows = self.0.iter_mut();
        rows.filter_map(|row| Some((*row.peek()?, row))).min_by_key(|(first, _)| *first)?.1.next()
    }
}
