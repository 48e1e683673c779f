//! Which containers go: surplus ones, and old ones whose replacement is ready.

use std::cmp::Reverse;

use super::count::Census;
use super::draft::{Draft, Hold};
use super::place::obstacle;
use crate::container::{Container, ContainerState};
use crate::event::Event;
use crate::id::UnitId;
use crate::spec::NoRoom;
use crate::unit::Unit;

/// Drains what is surplus or replaced. `held` says that a replacement found no room. Returns why an old container that
/// would have to go first stays.
pub(super) fn reduce(draft: &mut Draft<'_>, id: &UnitId, unit: &Unit, census: &Census<'_>, held: bool) -> Option<Hold> {
    let mut ready = census.ready();
    let surplus = census.fresh.len().saturating_sub(census.goal);
    let mut fresh = census.fresh.clone();
    // Of exclusive volumes the first stay in use, so that those who come later find their data; otherwise what takes no
    // traffic goes first, then the youngest.
    fresh.sort_by_key(|container| (Reverse(container.slot), is_ready(container), Reverse(container.ordinal)));
    for container in fresh.into_iter().take(surplus) {
        ready -= usize::from(is_ready(container));
        let because = gone(draft, unit, census);
        drain(draft, container, because);
    }
    let mut outdated = census.outdated.clone();
    outdated.sort_by_key(|container| (is_ready(container), container.ordinal));
    let stop_first = unit.stop_first();
    let unready_fresh = census.fresh.iter().filter(|container| !is_ready(container)).count();
    let mut in_motion = census.leaving + unready_fresh;
    let at_once = unit.spec.update.surge.max(1) as usize;
    let mut kept = None;
    for container in outdated {
        let because = if census.goal == 0 {
            gone(draft, unit, census)
        } else {
            match &container.replace {
                Some(because) if container.revision == unit.revision => format!("replaced: {because}"),
                _ => format!("replaced by revision {}", unit.revision),
            }
        };
        if !is_ready(container) || ready > census.goal {
            ready -= usize::from(is_ready(container));
            in_motion += 1;
            drain(draft, container, because);
            continue;
        }
        let first = match stop_first {
            Some(forced) => forced,
            None if held && unit.spec.update.no_room == NoRoom::Replace => "there is no room for both",
            None => continue,
        };
        if in_motion >= at_once {
            continue;
        }
        // It only goes where its replacement could take its place: otherwise everything would go in turn for nothing.
        if let Some(hold) = obstacle(draft, id, unit, container) {
            kept = kept.or(Some(hold));
            continue;
        }
        in_motion += 1;
        ready -= 1;
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
