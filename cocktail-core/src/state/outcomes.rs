//! What a runtime reported, applied to the container that it is about.

use super::{Roster, State};
use crate::backoff::{CRASH_LOOP, delay};
use crate::container::{Container, ContainerState, Step};
use crate::contract::{Exit, Handle, ProbeKind};
use crate::id::{ContainerId, Generation, OperationId};
use crate::operation::{Failure, OperationKind, OperationState};
use crate::spec::{Restart, RestartWhen};
use crate::time::human;
use crate::unit::Unit;

impl State {
    pub(super) fn start_failed(&mut self, operation: OperationId, failure: &Failure) {
        let Some(ended) = self.end(operation, OperationState::Failed, Some(failure.message.clone())) else { return };
        let poison = self.settings.port_poison;
        self.change(&ended.container, |state, record| {
            if record.operation == Some(operation) {
                record.operation = None;
            }
            if record.generation != ended.generation || !record.state.may_run() {
                return;
            }
            if record.state == ContainerState::Draining {
                state.step(record, Step::Ended, failure.message.clone());
                state.free_ports(record);
                return;
            }
            let fixed = failure.port.is_some_and(|port| {
                let unit = state.units.get(&record.unit);
                unit.is_some_and(|unit| {
                    unit.template(record.revision).ports.iter().any(|spec| spec.fixed == Some(port))
                })
            });
            if let Some(port) = failure.port
                && !fixed
                && record.port_numbers().any(|held| held == port)
            {
                if let Some(pool) = state.ports.get_mut(&record.server) {
                    pool.poison(port, state.now + poison);
                }
                state.wake_held(state.now + poison);
                for lease in &mut record.ports {
                    if lease.port == Some(port) {
                        lease.port = None;
                    }
                }
                // Nothing of this generation ran: the next start repeats its number.
                record.generation = Generation(record.generation.0.saturating_sub(1));
                state.step(record, Step::Reclaim, failure.message.clone());
                record.why.record(state.at, "poison port", &failure.message, &[]);
            } else {
                record.excused = false;
                state.crash(record, &failure.message);
            }
        });
    }

    pub(super) fn started(&mut self, container: &ContainerId, generation: Generation, handle: &Handle) {
        self.change(container, |state, record| {
            if record.generation != generation || !record.state.may_run() {
                return;
            }
            record.handle = Some(handle.clone());
            let starting = record
                .operation
                .filter(|id| state.operations.get(id).is_some_and(|open| open.kind == OperationKind::Start));
            if let Some(id) = starting {
                state.end(id, OperationState::Succeeded, None);
                record.operation = None;
            }
            if record.state == ContainerState::Lost {
                return state.regained(record);
            }
            let before_running =
                matches!(record.state, ContainerState::Preparing | ContainerState::Prepared | ContainerState::Starting);
            if !before_running {
                return;
            }
            record.started = Some(state.now);
            let unit = state.units.get(&record.unit);
            let probe = unit.and_then(|unit| unit.template(record.revision).ready.clone());
            let waits = probe.is_some() || record.is_spare();
            let reason = match (record.is_spare(), &probe) {
                (true, _) if state.is_image(record) => "comes up, and is paused then",
                (true, _) => "waits until its worker has registered",
                (false, Some(_)) => "waits for its readiness probe",
                (false, None) => "runs",
            };
            state.step(record, Step::Started { ready: !waits }, reason.into());
            if let (true, Some(unit)) = (waits, unit_of(state, record)) {
                let deadline = state.now + unit.spec.update.progress;
                record.deadline = Some(deadline);
                state.wake(deadline, &record.unit);
            }
        });
    }

    pub(super) fn exited(&mut self, container: &ContainerId, generation: Generation, exit: Exit) {
        self.change(container, |state, record| {
            if record.generation != generation || !record.state.may_run() {
                return;
            }
            if let Some(id) = record.operation.take() {
                state.end(id, OperationState::Succeeded, None);
            }
            record.last_exit = Some(exit);
            record.excused = record.ending.is_none() && exit.is_from_outside();
            record.handle = None;
            record.usage = None;
            if matches!(record.state, ContainerState::Draining | ContainerState::Fenced) {
                state.step(record, Step::Ended, exit.to_string());
                record.deadline = None;
                state.free_ports(record);
                return;
            }
            let lived = record.started.map(|started| state.now - started);
            let reset = unit_of(state, record).map(|unit| unit.template(record.revision).restart.reset);
            if lived.zip(reset).is_some_and(|(lived, reset)| lived >= reset) {
                record.crashes = 0;
            }
            let because = match (record.ending.take(), lived) {
                (Some(because), _) => because,
                (None, Some(lived)) => format!("{exit} after {}", human(lived)),
                (None, None) => exit.to_string(),
            };
            let restart = unit_of(state, record).map(|unit| unit.template(record.revision).restart.clone());
            match restart {
                Some(restart) if restart.is_job() => state.attempt_ended(record, exit, &restart, &because),
                _ => state.crash(record, &because),
            }
        });
    }

    /// A job's container ended: it is done, tries again, or gives up.
    fn attempt_ended(&mut self, record: &mut Container, exit: Exit, restart: &Restart, because: &str) {
        if record.finish_by.is_some_and(|finish_by| finish_by <= self.now) {
            self.done(record, Step::GaveUp, format!("failed: {because}"));
        } else if exit == Exit::Code(0) {
            record.completed = true;
            self.done(record, Step::Completed, format!("completed: {because}"));
        } else if restart.when == RestartWhen::Never {
            self.done(record, Step::GaveUp, format!("failed: {because}"));
        } else if record.crashes >= restart.retries {
            let tries = record.crashes + 1;
            self.done(record, Step::GaveUp, format!("failed: {because}; no attempt is left after {tries}"));
        } else {
            self.crash(record, because);
        }
    }

    /// A job's container is not started again; it stays to show how it ended.
    fn done(&mut self, record: &mut Container, step: Step, reason: String) {
        record.started = None;
        record.deadline = None;
        record.why.record(self.at, step_name(step), &reason, &[]);
        if let Some(unit) = self.units.get_mut(&record.unit) {
            unit.why.record(self.at, step_name(step), &format!("{}: {reason}", record.id), &[]);
            unit.why.keep(self.settings.why_per_object);
        }
        self.give_back(record);
        self.step(record, step, reason);
        self.free_ports(record);
        self.touch_held();
    }

    /// What a container reserved is free for others; one that is done reserves nothing.
    fn give_back(&mut self, record: &Container) {
        if record.state == ContainerState::Failed || record.state == ContainerState::Stopped && record.completed {
            return;
        }
        let reserved = unit_of(self, record).map(|unit| unit.template(record.revision).resources).unwrap_or_default();
        if let Some(server) = self.servers.get_mut(&record.server) {
            server.allocated.cpu.0 = server.allocated.cpu.0.saturating_sub(reserved.cpu.0);
            server.allocated.memory.0 = server.allocated.memory.0.saturating_sub(reserved.memory.0);
        }
        self.rank(&record.server);
    }

    /// The container is wanted back: it waits for its back-off.
    fn crash(&mut self, record: &mut Container, because: &str) {
        let Some(unit) = self.units.get(&record.unit) else { return };
        let restart = unit.template(record.revision).restart.clone();
        record.crashes += 1;
        let lived = record.started.take().map(|started| self.now - started);
        record.deadline = None;
        let chance = self.chance(record.id.as_str(), record.restarts);
        let pause = delay(restart.base, restart.max, record.crashes, chance);
        let until = self.now + pause;
        if let Some(finish_by) = record.finish_by.filter(|finish_by| until >= *finish_by) {
            let left = human(finish_by - self.now);
            self.done(record, Step::GaveUp, format!("failed: {because}; its deadline is in {left}"));
            return;
        }
        record.relieve = unit.template(record.revision).image.is_some() && lived.is_some_and(|lived| lived >= pause);
        let crash_loop = record.crashes >= CRASH_LOOP && restart.base > std::time::Duration::ZERO;
        let prefix = if crash_loop { format!("crash loop ({} in a row): ", record.crashes) } else { String::new() };
        let reason = format!("{prefix}{because}; restart {} in {}", record.restarts + 1, human(pause));
        self.step(record, Step::Crashed { until }, reason.clone());
        record.why.record(self.at, "back off", &reason, &[]);
        if let Some(unit) = self.units.get_mut(&record.unit) {
            unit.why.record(self.at, "back off", &format!("{}: {reason}", record.id), &[]);
            unit.why.keep(self.settings.why_per_object);
        }
        self.wake(until, &record.unit);
    }

    pub(super) fn probed(
        &mut self,
        container: &ContainerId,
        generation: Generation,
        probe: ProbeKind,
        ok: bool,
        detail: &str,
    ) {
        self.change(container, |state, record| {
            let running = matches!(record.state, ContainerState::Loading | ContainerState::Ready);
            // What comes up to wait says itself when it does.
            if record.generation != generation || !running || record.is_spare() {
                return;
            }
            match (probe, ok) {
                (ProbeKind::Ready, true) => {
                    record.deadline = None;
                    record.probe.clear();
                    state.step(record, Step::TurnedReady, format!("ready: {detail}"));
                }
                (ProbeKind::Ready, false) => {
                    record.probe = detail.to_owned();
                    let was_ready = record.state == ContainerState::Ready;
                    state.step(record, Step::TurnedUnready, format!("not ready: {detail}"));
                    if let (true, Some(unit)) = (was_ready, unit_of(state, record)) {
                        let deadline = state.now + unit.spec.update.progress;
                        record.deadline = Some(deadline);
                        state.wake(deadline, &record.unit);
                    }
                }
                (ProbeKind::Live, true) => record.unwell = None,
                (ProbeKind::Live, false) => record.unwell = Some(detail.to_owned()),
            }
        });
    }

    pub(super) fn removed(&mut self, container: &ContainerId) {
        let Some(record) = self.containers.remove(container) else { return };
        self.count_out(&record);
        if let Some(id) = record.operation {
            self.end(id, OperationState::Succeeded, None);
        }
        self.give_back(&record);
        self.spot_out(&record);
        if let Some(unit) = self.units.get_mut(&record.unit) {
            unit.containers.remove(container);
            let in_use = self.soft.rosters.get(&record.unit).map(Roster::revisions);
            unit.forget_templates(&in_use.unwrap_or_default());
            unit.why.record(self.at, "remove", &format!("{container} is gone: {}", record.reason), &[]);
        }
        if let Some(server) = self.servers.get_mut(&record.server) {
            server.containers = server.containers.saturating_sub(1);
            if server.containers == 0 {
                server.tenure.empty = Some(self.now);
                self.soft.fleet_dirty = true;
            }
        }
        self.touch_left(&record.server);
        self.touch_held();
        self.touch(&record.unit);
    }

    /// The holder ended: its ports rest.
    pub(super) fn free_ports(&mut self, record: &Container) {
        if record.ports.is_empty() {
            return;
        }
        let until = self.now + self.settings.port_hold_down;
        // Only a socket that is handed over has two holders.
        let inherits = |unit: &&Unit| {
            let templates = unit.templates.values().chain([&unit.spec.template]);
            templates.flat_map(|template| &template.ports).any(|port| port.inherit && port.fixed.is_some())
        };
        let others = self.units.get(&record.unit).filter(inherits).map(|unit| &unit.containers);
        let shared: Vec<(u16, ContainerId)> = others
            .into_iter()
            .flatten()
            .filter_map(|id| self.containers.get(id))
            .filter(|other| other.id != record.id && other.server == record.server && other.holds_ports())
            .flat_map(|other| other.port_numbers().map(|port| (port, other.id.clone())))
            .filter(|(port, _)| record.port_numbers().any(|own| own == *port))
            .collect();
        if let Some(pool) = self.ports.get_mut(&record.server) {
            pool.release(&record.id, record.port_numbers(), until);
            // A fixed port whose socket is handed over has its next holder already.
            for (port, holder) in shared {
                pool.reserve(port, holder);
            }
        }
        let resting = self.soft.resting.entry(record.server.clone()).or_default();
        resting.extend(record.port_numbers());
        if record.ports.iter().any(|port| port.port.is_some()) {
            self.wake_held(until);
        }
    }
}

fn step_name(step: Step) -> &'static str {
    if step == Step::Completed { "complete" } else { "give up" }
}

fn unit_of<'a>(state: &'a State, record: &Container) -> Option<&'a Unit> {
    state.units.get(&record.unit)
}
