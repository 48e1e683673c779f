//! Which containers go: surplus ones, and old ones whose replacement is ready.

use super::count::Census;
use super::draft::{Draft, Hold};
use super::place::obstacle;
use crate::container::{Container, ContainerState};
use crate::event::Event;
use crate::id::UnitId;
use crate::rollout::RolloutState;
use crate::spec::NoRoom;
use crate::unit::Unit;

/// Drains what is surplus or replaced. `held` says that a replacement found no room. Returns why an old container that
/// would have to go first stays.
pub(super) fn reduce<'a>(
    draft: &mut Draft<'a>,
    id: &'a UnitId,
    unit: &'a Unit,
    census: &Census<'_>,
    held: bool,
) -> Option<Hold> {
    for container in &census.spent {
        draft.forget(container, gone(draft, unit, census));
    }
    let mut ready = census.ready();
    let surplus = (census.fresh.len() + census.done.len()).saturating_sub(census.goal);
    let state = draft.state;
    for container in census.done.iter().take(surplus).filter_map(|id| state.containers.get(id)) {
        draft.forget(container, gone(draft, unit, census));
    }
    let surplus = surplus.saturating_sub(census.done.len());
    for container in census.fresh.spare().take(surplus) {
        ready -= usize::from(is_ready(container));
        let because = gone(draft, unit, census);
        drain(draft, container, because);
    }
    match unit.rollout.as_ref().filter(|rollout| rollout.state == RolloutState::Paused && census.goal > 0) {
        Some(rollout) => {
            keep_paused(draft, unit, census, rollout.failed, surplus);
            None
        }
        None => replace(draft, id, unit, census, ready, held),
    }
}

/// While a rollout is paused nothing is replaced, but the count still holds.
fn keep_paused(draft: &mut Draft<'_>, unit: &Unit, census: &Census<'_>, failed: bool, drained: usize) {
    let relied = census.relied().saturating_sub(drained);
    let mut surplus = relied.saturating_sub(census.goal);
    // What a user wants replaced goes first: its replacement was made and is ready, and would be made again if that went.
    let asked = census.outdated.ready_of(|class| class.revision == unit.revision);
    // What a failed update brought goes before what serves; what a user paused has begun a step that ends.
    let new = census.fresh.ready_of(|_| failed);
    let old = census.outdated.ready_of(|class| class.revision != unit.revision);
    for container in asked.chain(new).chain(old) {
        if surplus == 0 {
            break;
        }
        if draft.leaving.contains(&container.id) {
            continue;
        }
        surplus -= 1;
        let because = match &container.replace {
            Some(because) if container.revision == unit.revision => format!("replaced: {because}"),
            _ => gone(draft, unit, census),
        };
        drain(draft, container, because);
    }
}

/// Drains old containers whose replacements can be relied on.
fn replace<'a>(
    draft: &mut Draft<'a>,
    id: &'a UnitId,
    unit: &'a Unit,
    census: &Census<'_>,
    ready: usize,
    held: bool,
) -> Option<Hold> {
    let stop_first = unit.stop_first();
    let unproved = census.fresh.len() - census.proved;
    let mut in_motion = census.leaving + unproved;
    let at_once = unit.spec.update.surge.max(1) as usize;
    // Whatever is drained as surplus was counted as ready, so both counts go down with it.
    let mut relied = census.relied().saturating_sub(census.ready() - ready);
    let mut stay = census.goal.saturating_sub(census.fresh_goal);
    let mut kept = None;
    let mut left = census.outdated.len();
    for container in census.outdated.in_order() {
        if left <= stay {
            break;
        }
        if census.goal > 0 && container.state == ContainerState::Lost && container.outlives_lease {
            // It may run: it is waited for.
            continue;
        }
        let because = if census.goal == 0 {
            gone(draft, unit, census)
        } else {
            match &container.replace {
                Some(because) if container.revision == unit.revision => format!("replaced: {because}"),
                _ => format!("replaced by revision {}", unit.revision),
            }
        };
        if !is_ready(container) || relied > census.goal || census.goal == 0 {
            relied = relied.saturating_sub(usize::from(is_ready(container)));
            in_motion += 1;
            left -= 1;
            drain(draft, container, because);
            continue;
        }
        let first = match stop_first {
            Some(forced) => forced,
            None if held && unit.spec.update.no_room == NoRoom::Replace => "there is no room for both",
            // Those that follow are ready too, and nothing before them was drained that could be relied on.
            None => break,
        };
        if in_motion >= at_once {
            break;
        }
        // It only goes where its replacement could take its place: otherwise everything would go in turn for nothing.
        if let Some(hold) = obstacle(draft, id, unit, container) {
            kept = kept.or(Some(hold));
            continue;
        }
        in_motion += 1;
        left -= 1;
        stay = stay.min(left);
        relied -= 1;
        drain(draft, container, format!("{because}; it goes first, since {first}"));
    }
    kept
}

fn gone(draft: &Draft<'_>, unit: &Unit, census: &Census<'_>) -> String {
    if draft.state.is_halting() {
        "the manager ends and takes its containers along".into()
    } else if unit.removing {
        "its unit is removed".into()
    } else if unit.stopped {
        "its unit is stopped".into()
    } else {
        format!("{} wanted, {} there", census.goal, census.fresh.len())
    }
}

fn drain(draft: &mut Draft<'_>, container: &Container, because: String) {
    draft.leaving.insert(container.id.clone());
    draft.push(Event::DrainBegun { container: container.id.clone(), because });
}

fn is_ready(container: &Container) -> bool {
    container.state == ContainerState::Ready
}
