//! How far a Unit is on its way, from one look at the lists. Pure; start at [`standing`].
//!
//! A rollout that ended before the command was given says nothing about the command: what the lists said then is part
//! of the goal, and only an end that came later counts as a failure.

use cocktail_core::id::UnitId;
use cocktail_core::view::{ContainerView, UnitView};

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal<'a> {
    /// Every Unit has all its containers ready. A rollout that was paused before stays so.
    Ready {
        /// The Units before the command.
        before: &'a [UnitView],
    },
    /// Every Unit has all its containers ready, of the revision that was applied.
    Updated {
        /// The Units before the command.
        before: &'a [UnitView],
    },
    /// Every container is of an earlier revision again.
    Back {
        /// That revision.
        to: Option<u64>,
    },
    /// No container of the Units runs.
    Stopped,
    /// The Units and their containers are gone.
    Gone,
}

/// How far a Unit is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// There; a word about it, if there is one to say.
    Done(String),
    /// On its way; why it is not there yet, if anything stands in the way.
    Waiting(String),
    /// It will not come true by waiting.
    Failed(String),
}

/// How far a Unit is on its way to `goal`.
pub(crate) fn standing(unit: &UnitId, goal: Goal<'_>, units: &[UnitView], containers: &[ContainerView]) -> Standing {
    let view = units.iter().find(|view| is(view, unit));
    let mine = || containers.iter().filter(|container| belongs(container, unit));
    match (goal, view) {
        (Goal::Ready { .. } | Goal::Updated { .. } | Goal::Back { .. }, None) => {
            Standing::Failed("the Unit was removed".into())
        }
        (Goal::Ready { before }, Some(view)) => readiness(view, find(before, unit), false),
        (Goal::Updated { before }, Some(view)) => readiness(view, find(before, unit), true),
        (Goal::Back { to }, Some(view)) => way_back(view, to),
        (Goal::Stopped, _) => match mine().find(|container| !has_ended(&container.state)) {
            None => Standing::Done(String::new()),
            Some(container) => Standing::Waiting(format!("{} is {}", container.id, container.state)),
        },
        (Goal::Gone, view) => match mine().next() {
            None if view.is_none() => Standing::Done(String::new()),
            None => Standing::Waiting(String::new()),
            Some(container) => Standing::Waiting(format!("{} is {}", container.id, container.state)),
        },
    }
}

fn readiness(view: &UnitView, before: Option<&UnitView>, updated: bool) -> Standing {
    let rollout = &view.rollout;
    // Without a time it is of a Manager that does not tell which rollout it is.
    let is_old = !rollout.since.is_empty()
        && before
            .is_some_and(|before| (&before.rollout.state, &before.rollout.since) == (&rollout.state, &rollout.since));
    match rollout.state.as_str() {
        _ if view.stopped => Standing::Failed("the Unit is stopped; `cocktail start` starts it".into()),
        "rolled-back" if !is_old => Standing::Failed(format!("the update went back: {}", reason(view))),
        "paused" if updated || !is_old => Standing::Failed(paused(view)),
        "paused" if view.ready >= view.desired => Standing::Done("the rollout is paused".into()),
        "running" if rollout.asks_promotion => {
            let unit = &view.unit;
            Standing::Done(format!("the canary is well; `cocktail rollout promote {unit}` lets the others follow"))
        }
        // Nothing served before, so there is nothing to watch over: it is there when it is ready.
        "running" if rollout.from.is_none() && rollout.to.is_some() && is_complete(view) => done(view),
        "running" if view.job && is_complete(view) => done(view),
        // Without a container there is nothing to replace: the rollout goes on when the first is wanted.
        "running" if view.desired == 0 => done(view),
        "rolling-back" if view.desired == 0 => Standing::Failed(going_back(view)),
        "running" => Standing::Waiting(progress(view)),
        "rolling-back" => Standing::Waiting(going_back(view)),
        "paused" => Standing::Waiting(progress(view)),
        _ if is_complete(view) => done(view),
        _ => Standing::Waiting(view.reason.clone()),
    }
}

fn way_back(view: &UnitView, to: Option<u64>) -> Standing {
    let rollout = &view.rollout;
    match rollout.state.as_str() {
        _ if view.stopped => Standing::Failed("the Unit is stopped; `cocktail start` starts it".into()),
        _ if to.is_some_and(|to| to != view.revision) => {
            Standing::Failed(format!("revision {} took its place meanwhile", view.revision))
        }
        "paused" => Standing::Failed(paused(view)),
        "rolling-back" | "running" if view.desired == 0 => done(view),
        "rolling-back" | "running" => Standing::Waiting(progress(view)),
        _ if is_complete(view) => done(view),
        _ => Standing::Waiting(view.reason.clone()),
    }
}

/// Containers that are there: they take traffic, or have run to their end.
pub(crate) fn there(view: &UnitView) -> u32 {
    if view.job { view.ready.saturating_add(view.succeeded).saturating_add(view.failed) } else { view.ready }
}

fn is_complete(view: &UnitView) -> bool {
    // Containers of a job that have run are nobody's to update.
    there(view) >= view.desired && (view.job || view.updated >= view.desired)
}

fn done(view: &UnitView) -> Standing {
    Standing::Done(if view.job && view.failed > 0 { view.reason.clone() } else { String::new() })
}

/// What stands in the way, or else how far the replacing is.
fn progress(view: &UnitView) -> String {
    let replaces = view.rollout.from.is_some();
    match view.reason.as_str() {
        "" if replaces && !view.rollout.step.is_empty() => view.rollout.step.clone(),
        "" if replaces || view.rollout.to.is_none() => view.rollout.reason.clone(),
        reason => reason.to_owned(),
    }
}

fn going_back(view: &UnitView) -> String {
    match view.rollout.to {
        Some(to) => format!("going back to revision {to}: {}", reason(view)),
        None => format!("going back: {}", reason(view)),
    }
}

fn paused(view: &UnitView) -> String {
    let unit = &view.unit;
    format!("the rollout is paused: {}; `cocktail rollout resume {unit}` or `abort {unit}`", reason(view))
}

fn reason(view: &UnitView) -> &str {
    if view.rollout.reason.is_empty() { &view.reason } else { &view.rollout.reason }
}

fn find<'a>(units: &'a [UnitView], unit: &UnitId) -> Option<&'a UnitView> {
    units.iter().find(|view| is(view, unit))
}

/// Whether a view is that of a Unit.
pub(super) fn is(view: &UnitView, unit: &UnitId) -> bool {
    view.service == unit.service.as_str() && view.map == unit.map.as_str() && view.unit == unit.unit.as_str()
}

/// Whether a container is of a Unit.
pub(super) fn belongs(view: &ContainerView, unit: &UnitId) -> bool {
    view.service == unit.service.as_str() && view.map == unit.map.as_str() && view.unit == unit.unit.as_str()
}

/// Whether nothing of a container in this state runs.
fn has_ended(state: &str) -> bool {
    matches!(state, "stopped" | "failed" | "claimed" | "backoff")
}

#[cfg(test)]
mod tests {
    use cocktail_core::view::RolloutView;

    use super::*;
    use crate::testing::{container, unit, unit_id};

    const READY: Goal<'static> = Goal::Ready { before: &[] };

    fn of(view: UnitView) -> Standing {
        standing(&unit_id("web"), READY, &[view], &[])
    }

    fn updated(before: &UnitView, view: UnitView) -> Standing {
        standing(&unit_id("web"), Goal::Updated { before: std::slice::from_ref(before) }, &[view], &[])
    }

    fn done() -> Standing {
        Standing::Done(String::new())
    }

    /// A Unit that is ready, with a rollout from revision 1 to 2.
    fn with(state: &str, since: &str) -> UnitView {
        let rollout = RolloutView {
            state: state.into(),
            step: "1 of 3 are of revision 2".into(),
            reason: "web-7 ended by itself".into(),
            from: Some(1),
            to: Some(2),
            since: since.into(),
            ..RolloutView::default()
        };
        UnitView { rollout, ..unit("web", 3, 3) }
    }

    #[test]
    fn a_unit_is_ready_when_all_containers_of_the_current_revision_are() {
        assert_eq!(of(unit("web", 3, 3)), done());
        assert_eq!(of(unit("web", 0, 0)), done());
        assert_eq!(of(unit("web", 3, 2)), Standing::Waiting(String::new()));
        let old = UnitView { updated: 1, ..unit("web", 3, 3) };
        assert_eq!(of(old), Standing::Waiting(String::new()));
        let mut running = unit("web", 3, 3);
        running.rollout.state = "running".into();
        running.rollout.reason = "step 2 of 3".into();
        assert_eq!(of(running), Standing::Waiting("step 2 of 3".into()));
    }

    #[test]
    fn what_never_served_is_there_when_it_is_ready_and_a_replacement_only_when_it_took_over() {
        let mut view = with("running", "1");
        assert_eq!(of(view.clone()), Standing::Waiting("1 of 3 are of revision 2".into()));
        view.rollout.from = None;
        assert_eq!(of(view.clone()), done());
        view.ready = 2;
        assert_eq!(of(view), Standing::Waiting(String::new()));
    }

    #[test]
    fn an_update_that_goes_back_is_waited_for_and_then_a_failure_with_its_reason() {
        let before = with("completed", "1");
        let back = Standing::Waiting("going back to revision 2: web-7 ended by itself".into());
        assert_eq!(updated(&before, with("rolling-back", "2")), back);
        let failed = Standing::Failed("the update went back: web-7 ended by itself".into());
        assert_eq!(updated(&before, with("rolled-back", "3")), failed);
        assert!(matches!(updated(&before, with("paused", "3")), Standing::Failed(_)));
    }

    #[test]
    fn how_an_earlier_rollout_ended_is_no_failure_of_this_command() {
        let old = with("rolled-back", "1");
        assert_eq!(updated(&old, old.clone()), done());
        let again = updated(&old, with("rolled-back", "2"));
        assert!(matches!(again, Standing::Failed(_)), "the same file failed a second time: {again:?}");
        let paused = with("paused", "1");
        let scaled = standing(
            &unit_id("web"),
            Goal::Ready { before: std::slice::from_ref(&paused) },
            std::slice::from_ref(&paused),
            &[],
        );
        assert_eq!(scaled, Standing::Done("the rollout is paused".into()));
        assert!(matches!(updated(&paused, paused.clone()), Standing::Failed(_)), "what was applied does not run");
    }

    #[test]
    fn a_canary_that_waits_for_somebody_is_all_that_there_is_to_wait_for() {
        let mut view = with("running", "1");
        view.rollout.asks_promotion = true;
        assert!(matches!(of(view), Standing::Done(text) if text.contains("rollout promote web")));
    }

    #[test]
    fn a_rollback_is_done_when_it_went_back_and_not_when_something_else_came() {
        let back = |state: &str, to| standing(&unit_id("web"), Goal::Back { to }, &[with(state, "1")], &[]);
        assert_eq!(back("rolled-back", Some(1)), done());
        assert_eq!(back("rolling-back", Some(1)), Standing::Waiting("1 of 3 are of revision 2".into()));
        assert!(matches!(back("paused", Some(1)), Standing::Failed(_)));
        assert!(matches!(back("running", Some(9)), Standing::Failed(_)));
        assert_eq!(back("completed", Some(1)), done());
    }

    #[test]
    fn without_a_container_there_is_nothing_to_wait_for() {
        let none = |state: &str| UnitView { desired: 0, ready: 0, updated: 0, ..with(state, "2") };
        assert_eq!(updated(&with("completed", "1"), none("running")), done());
        assert!(matches!(updated(&with("completed", "1"), none("rolling-back")), Standing::Failed(_)));
        assert_eq!(standing(&unit_id("web"), Goal::Back { to: Some(1) }, &[none("rolling-back")], &[]), done());
    }

    #[test]
    fn a_job_is_there_when_all_its_containers_run_or_are_done() {
        let job = |ready, succeeded, failed| UnitView { job: true, succeeded, failed, ..unit("web", 3, ready) };
        assert_eq!(of(job(1, 1, 1)), done());
        assert_eq!(of(job(0, 3, 0)), done());
        assert_eq!(of(job(1, 1, 0)), Standing::Waiting(String::new()));
    }

    #[test]
    fn what_waiting_cannot_change_is_a_failure() {
        let mut back = unit("web", 3, 3);
        back.rollout.state = "rolled-back".into();
        back.reason = "revision 2 did not become ready".into();
        assert_eq!(of(back), Standing::Failed("the update went back: revision 2 did not become ready".into()));
        assert!(matches!(of(UnitView { stopped: true, ..unit("web", 1, 1) }), Standing::Failed(_)));
        assert!(matches!(of(unit("other", 1, 1)), Standing::Failed(_)));
    }

    #[test]
    fn stopped_and_gone_look_at_the_containers() {
        let look = |goal, units: &[UnitView], state: &str| {
            standing(&unit_id("web"), goal, units, &[container("web-1", "web", state)]) == done()
        };
        assert!(!look(Goal::Stopped, &[], "draining"));
        assert!(look(Goal::Stopped, &[unit("web", 0, 0)], "stopped"));
        assert!(!look(Goal::Gone, &[], "stopped"));
        assert_eq!(standing(&unit_id("web"), Goal::Gone, &[], &[]), done());
        assert_ne!(standing(&unit_id("web"), Goal::Gone, &[unit("web", 1, 0)], &[]), done());
    }
}
