//! What a rollout does next: it ends, fails, or has a canary to wait for. The replacing itself is `place` and `reduce`.

use super::count::Census;
use super::draft::Draft;
use super::fleet::awaits;
use crate::container::{Container, ContainerState};
use crate::event::Event;
use crate::id::UnitId;
use crate::rollout::{Rollout, RolloutState, RolloutStep};
use crate::spec::OnFailure;
use crate::state::{Class, State};
use crate::time::human;
use crate::unit::Unit;

/// Takes the step that is due. True if there was one: the next pass sees what follows from it.
pub(super) fn steer(draft: &mut Draft<'_>, id: &UnitId, unit: &Unit, census: &Census<'_>) -> bool {
    let Some(rollout) = unit.rollout.as_ref().filter(|rollout| rollout.state.is_moving()) else { return false };
    if census.goal == 0 {
        // Nothing is to run, so nothing can be watched: what is started later is of the new revision.
        let gone = census.outdated.is_empty() && census.leaving == 0;
        let ends = gone && unit.desired == 0 && rollout.state == RolloutState::Running;
        if ends {
            step(draft, id, RolloutStep::Finish, false, "no container is wanted".into());
        }
        return ends;
    }
    if unit.is_job() {
        // A job is run anew; there is nothing to watch and nothing to go back to.
        step(draft, id, RolloutStep::Finish, false, "a job runs the new revision".into());
        return true;
    }
    if let Some(because) = failure(draft, id, unit, rollout) {
        fail(draft, id, unit, rollout, because);
        return true;
    }
    let proved = u32::try_from(census.proved).unwrap_or(u32::MAX);
    if census.outdated.is_empty() && census.proved >= census.goal && census.fresh_goal == census.goal {
        let because = match rollout.state {
            RolloutState::RollingBack => {
                // What made it go back is what people look for when it has.
                let again = format!("all {} containers are of revision {} again", census.goal, rollout.to);
                if rollout.failed { format!("{}; {again}", rollout.reason) } else { again }
            }
            _ => format!("all {} containers are of revision {}", census.goal, rollout.to),
        };
        step(draft, id, RolloutStep::Finish, false, because);
        return true;
    }
    if rollout.canary > 0 {
        if let Some(at) = rollout.promote_at.filter(|at| *at <= draft.state.now) {
            let waited = unit.spec.update.promote.unwrap_or(at - draft.state.now);
            let because = format!("the canary was well for {}", human(waited));
            draft.push(Event::Promoted { unit: id.clone(), because });
            return true;
        }
        if !rollout.canary_proved && census.proved >= census.fresh_goal && census.fresh_goal > 0 {
            draft.push(Event::CanaryProved { unit: id.clone() });
            return true;
        }
    }
    if proved > rollout.proved {
        draft.push(Event::RolloutProgressed { unit: id.clone(), proved });
        return true;
    }
    if rollout.deadline.is_some_and(|deadline| deadline <= draft.state.now) {
        if awaits(draft.state, id, unit) || fetches(draft.state, id, rollout) {
            // A server that boots is no fault of the revision, and neither is an image that takes its time.
            draft.push(Event::RolloutProgressed { unit: id.clone(), proved: rollout.proved });
            return true;
        }
        let limit = human(unit.spec.update.progress);
        let held = match delay(draft.state, id, rollout) {
            Some(delay) => format!(": {delay}"),
            None if unit.held.is_empty() => String::new(),
            None => format!(": {}", unit.held),
        };
        fail(draft, id, unit, rollout, format!("no progress within {limit}{held}"));
        return true;
    }
    false
}

/// Replacements that are being prepared.
fn preparing<'a>(state: &'a State, id: &UnitId, rollout: &Rollout) -> impl Iterator<Item = &'a Container> {
    let replacements = state.roster(id).and_then(|roster| roster.group(Class::kept(rollout.to)));
    let all = replacements.into_iter().flat_map(|group| group.unready().map(|(_, id)| id));
    let all = all.filter_map(|id| state.containers.get(id));
    all.filter(|container| container.state == ContainerState::Preparing)
}

/// Whether an image is on its way to one of the replacements. The server gives up on one that never comes.
fn fetches(state: &State, id: &UnitId, rollout: &Rollout) -> bool {
    let image = state.units.get(id).is_some_and(|unit| unit.template(rollout.to).image.is_some());
    image && preparing(state, id, rollout).any(|container| container.probe.is_empty())
}

/// What keeps one of the replacements from being prepared.
fn delay(state: &State, id: &UnitId, rollout: &Rollout) -> Option<String> {
    let delayed = preparing(state, id, rollout).find(|container| !container.probe.is_empty())?;
    Some(format!("{}: {}", delayed.id, delayed.probe))
}

/// What one of the replacements did that a good revision does not do.
fn failure(draft: &Draft<'_>, id: &UnitId, unit: &Unit, rollout: &Rollout) -> Option<String> {
    let state = draft.state;
    let replacements = state.roster(id)?.group(Class::kept(rollout.to))?;
    let suspects = replacements.suspects(rollout.made, state.now).filter_map(|id| state.containers.get(id));
    let new = suspects.filter(|container| container.ordinal > rollout.made);
    let first = new.filter_map(|container| Some((&container.id, fault(draft, unit, container)?)));
    first.min_by_key(|(id, _)| *id).map(|(_, fault)| fault)
}

/// What a container did that one of a good revision does not do.
fn fault(draft: &Draft<'_>, unit: &Unit, container: &Container) -> Option<String> {
    let id = &container.id;
    let late = container.deadline.is_some_and(|deadline| deadline <= draft.state.now);
    match container.state {
        ContainerState::Backoff { .. } | ContainerState::Failed if !container.excused => {
            // It is not started again, whatever its back-off says.
            let reason = container.reason.split("; restart ").next().unwrap_or_default();
            Some(format!("{id}: {reason}"))
        }
        _ if container.crashes > 0 && !container.excused && container.state.is_live() => {
            let exit = container.last_exit.map(|exit| format!(": {exit}")).unwrap_or_default();
            Some(format!("{id} ended by itself{exit}"))
        }
        ContainerState::Loading if late => {
            let limit = human(unit.spec.update.progress);
            let saw = if container.probe.is_empty() { "no answer yet" } else { &container.probe };
            Some(format!("{id} was not ready within {limit}: {saw}"))
        }
        ContainerState::Loading | ContainerState::Ready => {
            container.unwell.as_ref().map(|detail| format!("{id} failed its liveness probe: {detail}"))
        }
        _ => None,
    }
}

fn fail(draft: &mut Draft<'_>, id: &UnitId, unit: &Unit, rollout: &Rollout, because: String) {
    let back = rollout.from.filter(|from| {
        rollout.state == RolloutState::Running
            && unit.spec.update.on_failure == OnFailure::Rollback
            && unit.templates.contains_key(from)
    });
    match back {
        Some(to) => step(draft, id, RolloutStep::RollBack { to }, true, because),
        None => step(draft, id, RolloutStep::Pause, true, because),
    }
}

fn step(draft: &mut Draft<'_>, id: &UnitId, step: RolloutStep, failed: bool, because: String) {
    draft.push(Event::RolloutStepped { unit: id.clone(), step, failed, because });
}
