//! Workers that wait, and what becomes of them: registered, taken by a Unit, told what to load, and back.

use std::sync::Arc;

use super::State;
use crate::container::{Container, ContainerPort, ContainerState, Step};
use crate::id::{ContainerId, Generation, OperationId, Revision, UnitId};
use crate::name::Name;
use crate::operation::{Failure, Operation, OperationKind, OperationState};
use crate::unit::pool;

impl State {
    /// Workers of a Service that wait, and can be taken by a Unit whose template has this pool; in the order of their ids.
    pub(crate) fn waiting(&self, service: &Name, pool: &str) -> impl Iterator<Item = &Container> {
        self.soft.waiting.of(service, pool).filter_map(|id| self.containers.get(id))
    }

    /// Whether a worker of a Service waits.
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
                state.wait(record, Step::Registered, "waits with nothing loaded");
            }
        });
        // Whoever found no room may take it.
        self.touch_held();
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
    ) {
        let waits = |it: &&Container| it.state == ContainerState::Waiting && it.is_spare();
        if self.containers.get(container).filter(waits).is_none() || !self.units.contains_key(unit) {
            return self.report_anomaly(format!("{container} was taken by {unit}, and does not wait"));
        }
        let from = self.containers.get(container).map(|record| record.unit.clone());
        if let Some(from) = from
            && let Some(owner) = self.units.get_mut(&from)
            && owner.refill_at().is_none_or(|at| at <= self.now)
        {
            owner.taken = Some(self.now);
            let refill = owner.refill_at().unwrap_or(self.now);
            self.wake(refill, &from);
        }
        self.take(container, unit, true, |state, record| {
            record.revision = revision;
            if let Some(worker) = &mut record.worker {
                worker.spare = false;
                worker.late = true;
                worker.assignment += 1;
            }
            // What it did before is no fault of what it is told now.
            record.crashes = 0;
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
        self.touch_held();
    }

    pub(super) fn assigned(&mut self, operation: OperationId, failure: Option<&Failure>) {
        let Some(ended) = self.end_worker(operation, failure) else { return };
        self.change(&ended.container, |state, record| {
            record.operation.take_if(|open| *open == operation);
            if let Some(failure) = failure
                && record.generation == ended.generation
                && record.replace.is_none()
            {
                let because = format!("it cannot be told what to load: {}", failure.message);
                record.why.record(state.at, "replace", &because, &[]);
                record.replace = Some(because);
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
            template.is_some_and(|template| pool(id, template) == from)
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
