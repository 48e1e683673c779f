//! How many containers the load and the clock ask for.

use super::draft::Draft;
use crate::event::Event;
use crate::id::UnitId;
use crate::scaling::damp;
use crate::unit::Unit;

/// Changes the count where a policy asks for it. True if it did: the next pass counts anew.
pub(super) fn scale(draft: &mut Draft<'_>, id: &UnitId, unit: &Unit) -> bool {
    let state = draft.state;
    if unit.stopped || unit.removing || state.is_halting() {
        return false;
    }
    let limits @ (min, max) = unit.limits();
    let mut set = |desired: u32, because: String, considered| {
        draft.push(Event::Autoscaled { unit: id.clone(), desired, because, considered });
        true
    };
    if unit.bounds.is_some() && (unit.desired < min || unit.desired > max) {
        return set(unit.desired.clamp(min, max), format!("{min} to {max} are scheduled"), Vec::new());
    }
    let Some(scaling) = &unit.spec.replicas.scaling else { return false };
    if unit.desired == 0 && max > 0 && state.has_demand(id) {
        return set(1, "a client waits at its service port".into(), Vec::new());
    }
    if unit.desired == 0 {
        return false;
    }
    let Some(window) = state.scaling_window(id) else { return false };
    match damp(window, scaling, unit.scaling, unit.desired, limits) {
        Some(wanted) => set(wanted.count, wanted.because, wanted.considered),
        None => false,
    }
}
