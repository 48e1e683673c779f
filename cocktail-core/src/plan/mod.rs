//! What to do next, as pure functions of the state.
//!
//! Start at [`plan`]: it looks at the Units that were touched and returns decisions as events, each with its reason.
//! [`decide`] plans and applies until nothing is left to decide; what it returns is committed in one transaction, and
//! only then acted on. [`preview()`] says what an apply would lead to.
//!
//! What found no room is bought for in `fleet`, after the Units: servers are claimed, admitted, emptied and given back
//! there.
//!
//! Order within a Unit: scale, rollout, count, relieve what crashed, place, reduce, keep containers waiting; then, container by container, recover what ended or is unwell
//! and stays, and collect what has stopped. What always holds: ready containers never drop below the floor because of a
//! decision made here, an operation is intended before anything is sent, and a container has at most one open operation.

mod count;
mod draft;
mod fleet;
mod place;
mod preview;
mod recover;
mod reduce;
mod rollout;
mod scale;
#[cfg(test)]
mod tests;
mod warm;

use std::collections::{BTreeMap, BTreeSet};

pub use self::preview::preview;

use self::draft::Draft;
use crate::event::Event;
use crate::id::UnitId;
use crate::state::{State, Want};

/// Passes after which a turn that still decides is a loop; a turn needs a handful.
const PASSES: usize = 64;

/// Decisions, in the order in which they are to be applied.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The decisions.
    pub events: Vec<Event>,
    /// Units that miss more containers than were allowed to be made.
    pub unfinished: BTreeSet<UnitId>,
    /// Units that found no room, with what they miss.
    pub(crate) wanting: BTreeMap<UnitId, Want>,
}

/// One pass over the Units in `touched` that makes at most `claims` containers. Reads nothing but the state; the same
/// state gives the same plan.
pub fn plan(state: &State, touched: &BTreeSet<UnitId>, claims: usize) -> Plan {
    pass(state, touched, &BTreeSet::new(), claims)
}

/// As [`plan`], also over Units that only wait for containers to be made: they are looked at while some may be made.
fn pass(state: &State, touched: &BTreeSet<UnitId>, waiting: &BTreeSet<UnitId>, claims: usize) -> Plan {
    let mut draft = Draft::new(state, claims);
    draft.freeze_or_thaw();
    let mut units: Vec<_> = touched.union(waiting).filter_map(|id| state.units.get_key_value(id)).collect();
    units.sort_by_key(|(_, unit)| std::cmp::Reverse(unit.spec.place.priority));
    for (id, unit) in units {
        if !draft.may_claim() && !touched.contains(id) {
            draft.put_off(id);
            continue;
        }
        let census = count::census(state, id, unit);
        // Each of them touches the Unit again, and what follows is decided in the next pass.
        let begun = scale::scale(&mut draft, id, unit) || rollout::steer(&mut draft, id, unit, &census);
        if begun || warm::relieve(&mut draft, id, unit, &census) {
            continue;
        }
        let held = place::place(&mut draft, id, unit, &census);
        let kept = reduce::reduce(&mut draft, id, unit, &census, held.is_some());
        let short = warm::keep(&mut draft, id, unit, held.is_some());
        let spared = recover::recover(&mut draft, id, unit);
        let hold = held.or(kept).or(spared).or(short);
        // What was held is so until it is looked at again.
        if hold.is_some() || !draft.is_put_off(id) {
            draft.hold(id, unit, hold);
        }
        if unit.removing && unit.containers.is_empty() {
            draft.push(Event::UnitForgotten { unit: id.clone() });
        }
    }
    draft.into_plan()
}

/// Letters of an id that look like chance: none that are easily mistaken for each other.
fn letters(mut chance: u64, count: usize) -> impl Iterator<Item = char> {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstvwxyz0123456789";
    let letter = move |_| {
        let letter = char::from(LETTERS[(chance % 32) as usize]);
        chance /= 32;
        letter
    };
    (0..count).map(letter)
}

/// Plans and applies until there is nothing left to decide, and returns every decision in order.
pub fn decide(state: &mut State) -> Vec<Event> {
    decide_first(state, usize::MAX)
}

/// As [`decide`], with at most `claims` new containers. Where more are missing the state stays dirty: they are decided in
/// the next turn, while the first ones start.
pub fn decide_first(state: &mut State, mut claims: usize) -> Vec<Event> {
    let mut decided = Vec::new();
    let mut unfinished = state.take_unfinished();
    for _ in 0..PASSES {
        let touched = state.take_dirty();
        let waiting = if claims > 0 { std::mem::take(&mut unfinished) } else { BTreeSet::new() };
        if touched.is_empty() && waiting.is_empty() && !state.is_fleet_dirty() {
            state.put_off(unfinished);
            return decided;
        }
        let mut plan = pass(state, &touched, &waiting, claims);
        for event in &plan.events {
            claims -= usize::from(matches!(event, Event::Claimed { .. }));
            state.apply(event);
        }
        decided.append(&mut plan.events);
        state.set_wanting(touched.union(&waiting).filter(|unit| !plan.unfinished.contains(*unit)), plan.wanting);
        unfinished.append(&mut plan.unfinished);
        if state.take_fleet_dirty() {
            let mut events = fleet::decide(state);
            for event in &events {
                state.apply(event);
            }
            decided.append(&mut events);
            state.rearm_fleet();
        }
    }
    state.put_off(unfinished);
    state.report_anomaly("a turn did not come to an end: the planner repeats itself");
    decided
}
