//! Rollouts and scaling: what their events change, and what samples amount to.

use std::collections::BTreeMap;

use super::State;
use crate::container::{Container, ContainerState};
use crate::id::{ContainerId, UnitId};
use crate::rollout::{Rollout, RolloutState, RolloutStep};
use crate::scaling::{Sample, ScalingInput};
use crate::time::ManagerTime;
use crate::unit::Unit;
use crate::view::ConsideredView;

impl Unit {
    /// Gives an open rollout its whole time again; one that waits for its promotion has all the time there is.
    pub(super) fn renew_deadline(&mut self, now: ManagerTime) {
        let update = &self.spec.update;
        let deadline = now + update.progress + update.monitor;
        if let Some(rollout) = self.rollout.as_mut().filter(|rollout| rollout.state.is_moving()) {
            let waits = rollout.canary > 0 && rollout.canary_proved;
            rollout.deadline = (!waits).then_some(deadline);
        }
    }
}

impl State {
    pub(super) fn rollout_stepped(&mut self, id: &UnitId, step: RolloutStep, failed: bool, because: &str) {
        let (now, at) = (self.now, self.at);
        let Some(unit) = self.units.get_mut(id) else { return };
        if let RolloutStep::RollBack { to } = step {
            if !unit.templates.contains_key(&to) {
                return;
            }
            begin_back(unit, to, now, at, failed, because);
        } else {
            let Some(rollout) = unit.rollout.as_mut() else { return };
            let Ok(next) = rollout.state.on(step, rollout.back) else { return };
            rollout.state = next;
            rollout.since = at;
            because.clone_into(&mut rollout.reason);
            // A way back that was begun by a failure ends as one.
            rollout.failed = failed || (step == RolloutStep::Finish && rollout.back && rollout.failed);
            rollout.deadline = None;
            rollout.promote_at = None;
            let (to, back) = (rollout.to, rollout.back);
            match step {
                RolloutStep::Finish => {
                    unit.good = Some(to);
                    unit.note_outcome(to, if back { "serving again" } else { "completed" });
                }
                RolloutStep::Pause if failed => unit.note_outcome(to, format!("failed: {because}")),
                RolloutStep::Resume => {
                    // What failed before is forgiven: only what happens from now on counts.
                    let made = unit.made;
                    if let Some(rollout) = unit.rollout.as_mut() {
                        rollout.made = made;
                        rollout.proved = 0;
                    }
                    unit.renew_deadline(now);
                }
                _ => {}
            }
        }
        unit.why.record(at, step_name(step), because, &[]);
        self.soft.routes_changed = true;
        self.wake_for_rollout(id);
        self.touch(id);
    }

    pub(super) fn rollout_progressed(&mut self, id: &UnitId, proved: u32) {
        let now = self.now;
        let Some(unit) = self.units.get_mut(id) else { return };
        if let Some(rollout) = unit.rollout.as_mut() {
            rollout.proved = proved;
        }
        unit.renew_deadline(now);
        self.wake_for_rollout(id);
        self.touch(id);
    }

    pub(super) fn canary_proved(&mut self, id: &UnitId) {
        let (now, at) = (self.now, self.at);
        let Some(unit) = self.units.get_mut(id) else { return };
        let promote = unit.spec.update.promote;
        let Some(rollout) = unit.rollout.as_mut() else { return };
        rollout.canary_proved = true;
        rollout.deadline = None;
        rollout.promote_at = promote.map(|promote| now + promote);
        let because = match promote {
            Some(promote) => format!("the canary is well; the others follow in {}", crate::time::human(promote)),
            None => "the canary is well; the others follow when it is promoted".to_owned(),
        };
        rollout.reason.clone_from(&because);
        unit.why.record(at, "wait", &because, &[]);
        self.wake_for_rollout(id);
        self.touch(id);
    }

    pub(super) fn promoted(&mut self, id: &UnitId, because: &str) {
        let (now, at) = (self.now, self.at);
        let Some(unit) = self.units.get_mut(id) else { return };
        if let Some(rollout) = unit.rollout.as_mut() {
            rollout.canary = 0;
            rollout.promote_at = None;
            because.clone_into(&mut rollout.reason);
        }
        unit.renew_deadline(now);
        unit.why.record(at, "promote", because, &[]);
        self.wake_for_rollout(id);
        self.touch(id);
    }

    /// Looks at a Unit when its rollout has waited long enough.
    pub(super) fn wake_for_rollout(&mut self, id: &UnitId) {
        let Some(unit) = self.units.get(id) else { return };
        // Only what replaces another has to show that it stays ready.
        let open = unit.rollout.as_ref().is_some_and(|rollout| rollout.state.is_open());
        let roster = self.roster(id).filter(|roster| open || roster.replaces(unit.revision));
        let mut due = roster.map(|roster| roster.proofs(self.now, unit.spec.update.monitor)).unwrap_or_default();
        if let Some(rollout) = &unit.rollout {
            due.extend([rollout.deadline, rollout.promote_at].into_iter().flatten());
        }
        for due in due {
            self.wake(due, id);
        }
    }

    /// A container takes traffic from now on.
    pub(super) fn turned_ready(&mut self, record: &Container) {
        self.soft.demand.remove(&record.unit);
        let Some(unit) = self.units.get_mut(&record.unit) else { return };
        let open = unit.rollout.as_ref().is_some_and(|rollout| rollout.state.is_open());
        if !open && record.revision == unit.revision {
            unit.good = Some(unit.revision);
        }
        let (revision, monitor) = (unit.revision, unit.spec.update.monitor);
        // Only what replaces another has to show that it stays ready.
        let replaces = record.replace.is_some() || record.revision != revision;
        if open || replaces || self.roster(&record.unit).is_some_and(|roster| roster.replaces(revision)) {
            self.wake(self.now + monitor, &record.unit);
        }
    }

    pub(super) fn autoscaled(&mut self, id: &UnitId, desired: u32, because: &str, considered: &[ConsideredView]) {
        let (now, at) = (self.now, self.at);
        let Some(unit) = self.units.get_mut(id) else { return };
        if desired > unit.desired {
            unit.scaling.last_up = Some(now);
        } else {
            unit.scaling.last_down = Some(now);
        }
        if unit.desired == 0 {
            // While it had no container its rollout could not go on.
            unit.renew_deadline(now);
        }
        unit.why.record(at, "scale", &format!("{desired} instead of {}: {because}", unit.desired), considered);
        unit.desired = desired;
        self.soft.routes_changed = true;
        self.wake_for_rollout(id);
        self.touch(id);
    }

    /// Takes readings of some containers.
    pub(super) fn read(&mut self, samples: &BTreeMap<ContainerId, Sample>) {
        for (container, sample) in samples {
            if let Some(record) = self.containers.get_mut(container) {
                record.usage = Some(sample.clone());
            }
        }
    }

    /// Asks the policy about every Unit that is scaled, once all its containers were read.
    pub(super) fn ask_policies(&mut self) {
        let scaled: Vec<UnitId> = self
            .units
            .iter()
            .filter(|(_, unit)| unit.goal() > 0 && unit.spec.replicas.scaling.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        for id in scaled {
            self.ask_policy(&id);
        }
    }

    fn ask_policy(&mut self, id: &UnitId) {
        let Some(unit) = self.units.get(id) else { return };
        let Some(scaling) = unit.spec.replicas.scaling.as_ref().filter(|scaling| !scaling.targets.is_empty()) else {
            return;
        };
        let interval = self.settings.usage;
        // What just became ready was busy with becoming so, and of what was not read nothing is known.
        let settled = |record: &&Container| {
            record.state == ContainerState::Ready && record.entered + interval <= self.now && record.replace.is_none()
        };
        let settled: Vec<&Container> = self.of(unit).filter(settled).collect();
        let samples: Vec<&Sample> = settled.iter().filter_map(|record| record.usage.as_ref()).collect();
        let unread = u32::try_from(settled.len() - samples.len()).unwrap_or(u32::MAX);
        let (min, max) = unit.limits();
        let input = ScalingInput {
            scaling,
            resources: unit.spec.template.resources,
            samples: &samples,
            unread,
            desired: unit.desired,
            min,
            max,
        };
        let Some(wanted) = self.soft.policy.scaling.wanted(&input) else {
            let because = if samples.is_empty() {
                "no container has been ready for a whole interval".to_owned()
            } else {
                let metrics: Vec<&str> = scaling.targets.keys().map(String::as_str).collect();
                format!("none of {} containers reports {}", samples.len(), metrics.join(" or "))
            };
            self.soft.unknown.insert(id.clone(), because);
            return;
        };
        self.soft.unknown.remove(id);
        let window = self.soft.scaling.entry(id.clone()).or_default();
        window.add(self.now, wanted, scaling);
        self.touch(id);
    }
}

/// Makes a revision the goal that served before.
fn begin_back(
    unit: &mut Unit,
    to: crate::id::Revision,
    now: ManagerTime,
    at: crate::time::WallTime,
    failed: bool,
    because: &str,
) {
    let left = unit.revision;
    let open = unit.rollout.as_ref().is_some_and(|rollout| rollout.state.is_open());
    unit.note_outcome(
        left,
        match (failed, open) {
            (true, _) => format!("failed: {because}"),
            (false, true) => format!("superseded: {because}"),
            (false, false) => "served before".to_owned(),
        },
    );
    unit.go_back(to);
    unit.note_outcome(to, "serving again");
    unit.rollout = Some(Rollout {
        from: Some(left),
        to,
        state: RolloutState::RollingBack,
        back: true,
        reason: because.to_owned(),
        since: at,
        failed,
        made: unit.made,
        proved: 0,
        deadline: None,
        canary: 0,
        promote_at: None,
        canary_proved: false,
    });
    unit.renew_deadline(now);
}

fn step_name(step: RolloutStep) -> &'static str {
    match step {
        RolloutStep::Pause => "pause",
        RolloutStep::Resume => "resume",
        RolloutStep::Finish => "finish",
        RolloutStep::RollBack { .. } => "roll back",
        RolloutStep::Supersede => "supersede",
    }
}
