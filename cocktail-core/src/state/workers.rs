//! Containers that wait, and what becomes of them: workers are registered, taken by a Unit, told what to load, and come
//! back; those of images are paused, and taken once.

use std::sync::Arc;

use super::State;
use crate::container::{Container, ContainerPort, ContainerState, Step, WorkerRecord};
use crate::id::{ContainerId, Generation, OperationId, Revision, UnitId};
use crate::name::Name;
use crate::operation::{Failure, Operation, OperationKind, OperationState};
use crate::unit::pool;

impl State {
    /// Containers of a Service that wait, and can be taken by a Unit whose template has this pool; in the order of their ids.
    pub(crate) fn waiting(&self, service: &Name, pool: &str) -> impl Iterator<Item = &Container> {
        self.soft.waiting.of(service, pool).filter_map(|id| self.containers.get(id))
    }

    /// Whether a container of a Service waits.
    pub(crate) fn has_waiting(&self, service: &Name) -> bool {
        self.soft.waiting.has(service)
    }

    /// Workers that are being unloaded, to wait for a Unit.
    pub(crate) fn returning(&self, home: &UnitId) -> usize {
        let to_it = |open: &&Operation| matches!(&open.kind, OperationKind::Unload { home: to, .. } if to == home);
        self.operations.values().filter(to_it).count()
    }

    pub(super) fn registered(&mut self, container: &ContainerId, generation: Generation) {
        self.change(container, |state, record| {
            if record.generation == generation && record.state == ContainerState::Loading && record.is_spare() {
                let reason =
                    if state.is_image(record) { "is paused until it is needed" } else { "waits with nothing loaded" };
                state.wait(record, Step::Registered, reason);
            }
        });
        // Whoever found no room may take it.
        self.touch_held();
    }

    /// Whether a container is made from an image.
    pub(super) fn is_image(&self, record: &Container) -> bool {
        self.units.get(&record.unit).is_some_and(|unit| unit.template(record.revision).image.is_some())
    }

    /// It waits from now on.
    fn wait(&mut self, record: &mut Container, step: Step, reason: &str) {
        self.step(record, step, reason.into());
        let Some(age) = self.units.get(&record.unit).map(|unit| unit.spec.warm.age) else { return };
        // Those that came together must not go together.
        let early = self.chance(record.id.as_str(), record.generation.0) % 25;
        let deadline = self.now + age.mul_f64(1.0 - early as f64 / 100.0);
        record.deadline = Some(deadline);
        self.wake(deadline, &record.unit);
    }

    pub(super) fn checked_out(
        &mut self,
        container: &ContainerId,
        unit: &UnitId,
        revision: Revision,
        ports: &[(Name, u16)],
        because: &str,
        instead: Option<&ContainerId>,
    ) {
        let waits = |it: &&Container| it.state == ContainerState::Waiting && it.is_spare();
        if self.containers.get(container).filter(waits).is_none() || !self.units.contains_key(unit) {
            return self.report_anomaly(format!("{container} was taken by {unit}, and does not wait"));
        }
        let from = self.containers.get(container).map(|record| record.unit.clone());
        let crashed = instead.and_then(|id| self.containers.get(id)).cloned();
        if let Some(from) = from
            && crashed.is_none()
            && let Some(owner) = self.units.get_mut(&from)
            && owner.refill_at().is_none_or(|at| at <= self.now)
        {
            owner.taken = Some(self.now);
            let refill = owner.refill_at().unwrap_or(self.now);
            self.wake(refill, &from);
        }
        self.take(container, unit, true, |state, record| {
            record.revision = revision;
            if state.is_image(record) {
                // From now on it is as any other, and what it does it does from now on.
                record.worker = None;
                record.started = Some(state.now);
            } else if let Some(worker) = &mut record.worker {
                worker.spare = false;
                worker.late = true;
                worker.assignment += 1;
            }
            // What it did before is no fault of what it is told now; but who crashes in turn is one that crashes.
            record.crashes = crashed.as_ref().map_or(0, |crashed| crashed.crashes);
            let lease = |(name, port): &(Name, u16)| ContainerPort { name: name.clone(), port: Some(*port) };
            record.ports = ports.iter().map(lease).collect();
            if let Some(pool) = state.ports.get_mut(&record.server) {
                for (_, port) in ports {
                    pool.reserve(*port, container.clone());
                }
            }
            state.step(record, Step::Assign, because.to_owned());
            record.why.record(state.at, "check out", because, &[]);
            let progress = state.units.get(unit).map(|unit| unit.spec.update.progress);
            record.deadline = progress.map(|progress| state.now + progress);
            if let Some(deadline) = record.deadline {
                state.wake(deadline, unit);
            }
        });
        if let Some(owner) = self.units.get_mut(unit) {
            owner.why.record(self.at, "check out", &format!("{container}: {because}"), &[]);
            owner.why.keep(self.settings.why_per_object);
        }
        if let Some(crashed) = crashed {
            self.gave_way(&crashed, container);
        }
        self.touch_held();
    }

    /// A container crashed, and `other` has taken its place: it is one that waits when it is up again.
    fn gave_way(&mut self, crashed: &Container, other: &ContainerId) {
        let Some(unit) = self.units.get(&crashed.unit) else { return };
        if !matches!(crashed.state, ContainerState::Backoff { .. }) || crashed.is_spare() {
            return self.report_anomaly(format!("{} gave way to {other}, and has not crashed", crashed.id));
        }
        let pool = pool(&crashed.unit, crashed.revision, unit.template(crashed.revision));
        self.take(&crashed.id, &crashed.unit, false, |state, record| {
            record.worker = Some(Box::new(WorkerRecord { pool, spare: true, ..WorkerRecord::default() }));
            record.relieve = false;
            record.why.record(state.at, "give way", &format!("{other} was waiting, and took its place"), &[]);
        });
    }

    pub(super) fn found_unfit(&mut self, container: &ContainerId, because: &str) {
        let unit = self.containers.get(container).filter(|it| it.is_spare()).map(|it| it.unit.clone());
        if let Some(unit) = unit.and_then(|unit| self.units.get_mut(&unit)) {
            unit.unfit = Some(because.to_owned());
        }
        self.change(container, |state, record| {
            if record.is_spare() {
                record.replace = Some(because.to_owned());
                record.why.record(state.at, "replace", because, &[]);
            }
        });
    }

    pub(super) fn assigned(&mut self, operation: OperationId, failure: Option<&Failure>) {
        let Some(ended) = self.end_worker(operation, failure) else { return };
        self.change(&ended.container, |state, record| {
            record.operation.take_if(|open| *open == operation);
            if record.generation != ended.generation {
                return;
            }
            let image = state.is_image(record);
            match failure {
                Some(failure) if record.replace.is_none() => {
                    let cannot = if image { "it cannot go on" } else { "it cannot be told what to load" };
                    let because = format!("{cannot}: {}", failure.message);
                    record.why.record(state.at, "replace", &because, &[]);
                    record.replace = Some(because);
                }
                None if image && record.state == ContainerState::Loading && state.is_unprobed(record) => {
                    record.deadline = None;
                    state.step(record, Step::TurnedReady, "goes on".into());
                }
                Some(_) | None => {}
            }
        });
    }

    pub(super) fn unloaded(&mut self, operation: OperationId, failure: Option<&Failure>) {
        let Some(ended) = self.end_worker(operation, failure) else { return };
        let OperationKind::Unload { home, .. } = &ended.kind else { return };
        let is_meant = |it: &&Container| it.generation == ended.generation && it.state == ContainerState::Draining;
        let Some(record) = self.containers.get(&ended.container).filter(is_meant) else { return };
        if let Some(failure) = failure {
            return self.change(&ended.container, |state, record| {
                record.operation = None;
                record.drained = true;
                if let Some(worker) = &mut record.worker {
                    worker.worn = true;
                }
                record.why.record(state.at, "unload", &format!("it did not: {}", failure.message), &[]);
            });
        }
        // What it was started from has to be what its home starts from, so that both reserve the same.
        let own = (record.unit.clone(), record.revision);
        let from = record.worker.as_ref().map(|worker| worker.pool.clone()).unwrap_or_default();
        let fits = |id: &UnitId, revision: Revision| {
            let template = self.units.get(id).and_then(|unit| unit.templates.get(&revision));
            template.is_some_and(|template| pool(id, revision, template) == from)
        };
        let current = self.units.get(home).map(|unit| unit.revision);
        let (unit, revision) = match current.filter(|revision| fits(home, *revision)) {
            Some(revision) => (home.clone(), revision),
            None => own,
        };
        self.take(&ended.container, &unit, false, |state, record| {
            state.free_ports(record);
            record.ports.clear();
            record.operation = None;
            record.revision = revision;
            record.drained = false;
            record.unwell = None;
            record.replace = None;
            record.usage = None;
            record.crashes = 0;
            record.probe.clear();
            if let Some(worker) = &mut record.worker {
                worker.spare = true;
            }
            record.unit = unit.clone();
            state.wait(record, Step::Returned, "waits again with nothing loaded");
            record.why.record(state.at, "return", "it waits again with nothing loaded", &[]);
        });
        // Its server may be about to go: it was leaving when that was decided.
        self.soft.fleet_dirty = true;
        self.touch_held();
    }

    pub(super) fn port_taken(&mut self, container: &ContainerId, port: u16, because: &str) {
        let poison = self.settings.port_poison;
        self.change(container, |state, record| {
            if record.port_numbers().any(|held| held == port) {
                if let Some(pool) = state.ports.get_mut(&record.server) {
                    pool.poison(port, state.now + poison);
                }
                state.wake_held(state.now + poison);
                for lease in &mut record.ports {
                    lease.port.take_if(|held| *held == port);
                }
                record.why.record(state.at, "poison port", because, &[]);
            }
            // It ends, and starts again with another one, which is proved before.
            record.unwell = Some(because.to_owned());
        });
    }

    fn end_worker(&mut self, operation: OperationId, failure: Option<&Failure>) -> Option<Operation> {
        let state = if failure.is_some() { OperationState::Failed } else { OperationState::Succeeded };
        self.end(operation, state, failure.map(|failure| failure.message.clone()))
    }

    /// Changes a container that another Unit may own from then on. One that is `new` there counts as made now.
    fn take(&mut self, id: &ContainerId, unit: &UnitId, new: bool, change: impl FnOnce(&mut Self, &mut Container)) {
        let Some(mut shared) = self.containers.remove(id) else { return };
        self.count_out(&shared);
        self.spot_out(&shared);
        let record = Arc::make_mut(&mut shared);
        let from = record.unit.clone();
        change(self, record);
        if from != *unit {
            record.unit = self.shared_unit(unit);
            if let Some(before) = self.units.get_mut(&from) {
                before.containers.remove(id);
            }
        }
        if (new || from != *unit)
            && let Some(after) = self.units.get_mut(unit)
        {
            after.made += 1;
            record.ordinal = after.made;
            after.containers.insert(id.clone());
        }
        record.why.keep(self.settings.why_per_object);
        self.spot_in(record);
        self.count_in(record);
        self.containers.insert(shared);
        let in_use = self.roster(&from).map(super::Roster::revisions).unwrap_or_default();
        if let Some(before) = self.units.get_mut(&from) {
            before.forget_templates(&in_use);
        }
        self.touch(&from);
        self.touch(unit);
    }
}
