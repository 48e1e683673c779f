//! Which containers go: surplus ones, and old ones whose replacement is ready.

use super::count::Census;
use super::draft::Draft;
use crate::container::{Container, ContainerState};
use crate::event::Event;
use crate::spec::NoRoom;
use crate::unit::Unit;

/// Drains what is surplus or replaced. `held` says that a replacement found no room.
pub(super) fn reduce(draft: &mut Draft<'_>, unit: &Unit, census: &Census<'_>, held: bool) {
    let mut ready = census.ready();
    let surplus = census.fresh.len().saturating_sub(census.goal);
    let mut fresh = census.fresh.clone();
    // What takes no traffic goes first, then the youngest.
    fresh.sort_by_key(|container| (is_ready(container), std::cmp::Reverse(container.ordinal)));
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
        } else if let Some(forced) = stop_first {
            if in_motion < at_once {
                in_motion += 1;
                ready -= 1;
                drain(draft, container, format!("{because}; it goes first, since {forced}"));
            }
        } else if held && unit.spec.update.no_room == NoRoom::Replace && in_motion < at_once {
            in_motion += 1;
            ready -= 1;
            drain(draft, container, format!("{because}; it goes first, since there is no room for both"));
        }
    }
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
