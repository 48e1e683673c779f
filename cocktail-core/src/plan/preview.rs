//! What an apply would lead to: the dry run.

use crate::id::UnitId;
use crate::spec::{NoRoom, ServiceSpec, UnitSpec};
use crate::state::State;
use crate::unit::{Unit, digest};
use crate::view::{PlanAction, PlanView};

/// What applying `services` would do, Unit by Unit, and why. Empty when nothing would change.
pub fn preview(state: &State, services: &[ServiceSpec]) -> PlanView {
    let mut actions = Vec::new();
    for service in services {
        if state.quota(&service.name).is_some_and(|quota| *quota != service.quota) {
            actions.push(action("set-quota", service.name.to_string(), "the quota in the manifest has changed".into()));
        }
        for (map, spec) in &service.maps {
            for id in state.units.keys().filter(|id| id.service == service.name && id.map == *map) {
                let removing = state.units.get(id).is_some_and(|unit| unit.removing);
                if !spec.units.contains_key(&id.unit) && !removing {
                    let containers = state.units.get(id).map_or(0, |unit| unit.containers.len());
                    let because = format!("no longer in the manifest; {containers} containers end, volumes stay");
                    actions.push(action("remove", id.to_string(), because));
                }
            }
            for (name, wanted) in &spec.units {
                let id = UnitId::new(service.name.clone(), map.clone(), name.clone());
                match state.units.get(&id) {
                    None => actions.push(create(&id, wanted)),
                    Some(unit) if unit.removing => actions.push(create(&id, wanted)),
                    Some(unit) => change(state, &id, unit, wanted, &mut actions),
                }
            }
        }
    }
    let summary = match actions.len() {
        0 => "nothing would change".to_owned(),
        1 => "1 change".to_owned(),
        many => format!("{many} changes"),
    };
    PlanView { actions, summary, warnings: Vec::new() }
}

fn create(id: &UnitId, wanted: &UnitSpec) -> PlanAction {
    let count = wanted.replicas.initial;
    let start = if count == 1 { "container starts" } else { "containers start" };
    action("create", id.to_string(), format!("new in the manifest; {count} {start}"))
}

fn change(state: &State, id: &UnitId, unit: &Unit, wanted: &UnitSpec, actions: &mut Vec<PlanAction>) {
    let next = {
        let mut next = unit.clone();
        next.take(wanted.clone(), state.now, state.at, "");
        next
    };
    if digest(&wanted.template) != unit.digest {
        let how = match next.stop_first() {
            Some(forced) => format!("each old one ends before its replacement starts, since {forced}"),
            None if wanted.update.no_room == NoRoom::Replace => format!(
                "at most {} above the count at a time, each ready before an old one ends; where there is no room, the \
                 old one ends first",
                wanted.update.surge.max(1)
            ),
            None => format!(
                "at most {} above the count at a time, each ready before an old one ends",
                wanted.update.surge.max(1)
            ),
        };
        let canary = match next.rollout.as_ref().map_or(0, |rollout| rollout.canary) {
            0 => String::new(),
            first => format!("; {first} first, the others when it is promoted"),
        };
        let moved = moved_image(unit, wanted);
        let because = format!("revision {} becomes {}{moved}: {how}{canary}", unit.revision, next.revision);
        actions.push(action("replace", id.to_string(), because));
    }
    if next.desired > unit.desired {
        actions.push(action("extend", id.to_string(), format!("{} instead of {}", next.desired, unit.desired)));
    } else if next.desired < unit.desired {
        actions.push(action("reduce", id.to_string(), format!("{} instead of {}", next.desired, unit.desired)));
    }
    if digest(&wanted.template) == unit.digest && *wanted != unit.spec && next.desired == unit.desired {
        let because = "settings that need no replacement have changed".to_owned();
        actions.push(action("configure", id.to_string(), because));
    }
}

/// Says so where the reference of the image is the same and stands for something else.
fn moved_image(unit: &Unit, wanted: &UnitSpec) -> String {
    match (&unit.spec.template.image, &wanted.template.image) {
        (Some(old), Some(new)) if old.reference == new.reference && old.digest != new.digest => {
            format!(", since {} is another image now", new.reference)
        }
        _ => String::new(),
    }
}

fn action(action: &str, object: String, because: String) -> PlanAction {
    PlanAction { action: action.into(), object, because }
}
