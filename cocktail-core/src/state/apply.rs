//! The only way to change [`State`].
//!
//! Every branch is total: an observation that comes too late (of an older generation, of a container that is gone) is
//! dropped here, so that no order of events can do harm.

use std::collections::BTreeSet;

use super::{ENDED_OPERATIONS, State};
use crate::backoff::{CRASH_LOOP, delay};
use crate::container::{Container, ContainerPort, ContainerState, Step};
use crate::contract::{Exit, Handle, ProbeKind};
use crate::event::{Event, Soft};
use crate::id::{ContainerId, Generation, OperationId, UnitId};
use crate::operation::{Failure, Operation, OperationKind, OperationState};
use crate::ports::PortPool;
use crate::server::Server;
use crate::spec::ServiceSpec;
use crate::time::human;
use crate::unit::Unit;

impl State {
    /// Applies one durable event. The same events in the same order give the same state.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::ManagerStarted { epoch, settings } => {
                self.epoch = *epoch;
                self.settings = (**settings).clone();
                for pool in self.ports.values_mut() {
                    pool.set_range(settings.port_range);
                }
                self.wake_for_budget();
                self.mark_all();
                self.soft.routes_changed = true;
            }
            Event::Applied { service, actor } => self.applied(service, actor),
            Event::Scaled { unit, desired, actor } => {
                self.change_unit(unit, |record| {
                    record.desired = *desired;
                    ("scale", format!("set to {desired} by {actor}"))
                });
            }
            Event::Switched { unit, stopped, actor } => {
                self.change_unit(unit, |record| {
                    record.stopped = *stopped;
                    if *stopped {
                        ("stop", format!("stopped by {actor}"))
                    } else {
                        ("start", format!("started by {actor}"))
                    }
                });
            }
            Event::UnitRemoved { unit, actor } => {
                self.change_unit(unit, |record| {
                    record.removing = true;
                    ("remove", format!("removed by {actor}"))
                });
            }
            Event::UnitForgotten { unit } => {
                self.units.remove(unit);
                self.soft.held.remove(unit);
                self.soft.routes_changed = true;
                let service = &unit.service;
                if !self.units.keys().any(|other| other.service == *service) {
                    self.quotas.remove(service);
                }
            }
            Event::ReplaceAsked { container, because } => {
                self.change(container, |state, record| {
                    record.replace = Some(because.clone());
                    record.why.record(state.at, "replace", because, &[]);
                });
            }
            Event::ServerSeen { server } => self.server_seen(server),
            Event::Claimed { .. } => self.claimed(event),
            Event::PortsLeased { container, ports, because } => {
                self.change(container, |state, record| {
                    for (lease, (_, port)) in record.ports.iter_mut().zip(ports) {
                        lease.port = Some(*port);
                        if let Some(pool) = state.ports.get_mut(&record.server) {
                            pool.reserve(*port, record.id.clone());
                        }
                    }
                    record.why.record(state.at, "lease ports", because, &[]);
                });
            }
            Event::Intended { operation } => self.intended(operation),
            Event::StartFailed { operation, failure } => self.start_failed(*operation, failure),
            Event::Started { container, generation, handle } => self.started(container, *generation, handle),
            Event::Exited { container, generation, exit } => self.exited(container, *generation, *exit),
            Event::Removed { container } => self.removed(container),
            Event::Probed { container, generation, probe, ok, detail } => {
                self.probed(container, *generation, *probe, *ok, detail);
            }
            Event::DrainBegun { container, because } => {
                let drain = self.settings.drain;
                self.change(container, |state, record| {
                    state.step(record, Step::Drain, because.clone());
                    let routed = state.units.get(&record.unit).is_some_and(Unit::is_routed);
                    record.drained = !routed;
                    record.deadline = routed.then(|| state.now + drain);
                    if let Some(deadline) = record.deadline {
                        state.wake(deadline, &record.unit);
                    }
                    record.why.record(state.at, "drain", because, &[]);
                });
            }
            Event::Held { unit, because, cause, considered } => {
                let at = self.at;
                if let Some(record) = self.units.get_mut(unit) {
                    record.held.clone_from(because);
                    record.held_cause.clone_from(cause);
                    if because.is_empty() {
                        self.soft.held.remove(unit);
                    } else {
                        self.soft.held.insert(unit.clone());
                        record.why.record(at, "wait", because, considered);
                    }
                }
                self.bound_why(unit);
            }
            Event::Froze { because } => {
                self.frozen.clone_from(because);
                self.mark_all();
            }
        }
    }

    /// Applies an observation that is not journaled.
    pub fn note(&mut self, soft: &Soft) {
        match soft {
            Soft::Prepared { container, generation } => {
                // Nothing follows from it but what people see, so the Unit need not be looked at.
                let Some(mut record) = self.containers.remove(container) else { return };
                if record.generation == *generation && record.state == ContainerState::Preparing {
                    self.step(&mut record, Step::Prepared, "ports and folders are ready".into());
                }
                self.containers.insert(container.clone(), record);
            }
            Soft::Drained { container } => {
                self.change(container, |_, record| {
                    if record.state == ContainerState::Draining {
                        record.drained = true;
                    }
                });
            }
            Soft::ProbeDetail { container, generation, detail } => {
                if let Some(record) = self.containers.get_mut(container)
                    && record.generation == *generation
                    && record.state == ContainerState::Loading
                {
                    record.probe.clone_from(detail);
                    record.reason = format!("not ready: {detail}");
                }
            }
            Soft::Usage(readings) => {
                for (container, reading) in readings {
                    if let Some(record) = self.containers.get_mut(container) {
                        record.usage = *reading;
                    }
                }
            }
            Soft::Halt => {
                self.soft.halting = true;
                self.mark_all();
            }
        }
    }

    fn applied(&mut self, service: &ServiceSpec, actor: &str) {
        let quota = self.quotas.insert(service.name.clone(), service.quota.clone());
        if quota.is_some_and(|before| before != service.quota) {
            // Units of maps that are not named here may wait for it.
            self.touch_held();
        }
        for (map, spec) in &service.maps {
            let gone: Vec<UnitId> = self
                .units
                .keys()
                .filter(|id| id.service == service.name && id.map == *map && !spec.units.contains_key(&id.unit))
                .cloned()
                .collect();
            for unit in gone {
                self.change_unit(&unit, |record| {
                    record.removing = true;
                    ("remove", format!("no longer in the manifest that {actor} applied"))
                });
            }
            for (name, unit) in &spec.units {
                let id = UnitId::new(service.name.clone(), map.clone(), name.clone());
                let at = self.at;
                match self.units.get_mut(&id) {
                    Some(record) => {
                        let (revision, desired) = (record.revision, record.desired);
                        record.take(unit.clone());
                        if record.revision != revision {
                            let because = format!("{actor} applied revision {}", record.revision);
                            record.why.record(at, "update", &because, &[]);
                        }
                        if record.desired != desired {
                            let because = format!("{actor} applied {} instead of {desired}", record.desired);
                            record.why.record(at, "scale", &because, &[]);
                        }
                    }
                    None => {
                        let mut record = Unit::new(unit.clone());
                        record.why.record(at, "create", &format!("applied by {actor}"), &[]);
                        self.units.insert(id.clone(), record);
                    }
                }
                self.touch(&id);
            }
        }
        self.soft.routes_changed = true;
    }

    fn server_seen(&mut self, server: &Server) {
        let mut server = server.clone();
        if let Some(known) = self.servers.get(&server.id) {
            // What containers have reserved is ours to know, not the provider's.
            server.allocated = known.allocated;
            server.containers = known.containers;
        }
        let range = self.settings.port_range;
        self.ports.entry(server.id.clone()).or_insert_with(|| PortPool::new(range));
        self.soft.resting.entry(server.id.clone()).or_default();
        self.servers.insert(server.id.clone(), server);
        self.mark_all();
    }

    fn claimed(&mut self, event: &Event) {
        let Event::Claimed { container, unit, revision, server, ports, slot, because, considered } = event else {
            return;
        };
        let Some(owner) = self.units.get_mut(unit) else { return };
        owner.made += 1;
        owner.containers.insert(container.clone());
        owner.why.record(self.at, "create", because, considered);
        let reserved = owner.template(*revision).resources;
        let mut record = Container {
            id: container.clone(),
            unit: unit.clone(),
            revision: *revision,
            generation: Generation(0),
            server: server.clone(),
            state: ContainerState::Claimed,
            reason: because.clone(),
            since: self.at,
            entered: self.now,
            ordinal: owner.made,
            ports: ports.iter().map(|(name, port)| ContainerPort { name: name.clone(), port: Some(*port) }).collect(),
            slot: *slot,
            handle: None,
            operation: None,
            restarts: 0,
            crashes: 0,
            started: None,
            deadline: None,
            drained: false,
            unwell: None,
            replace: None,
            ending: None,
            probe: String::new(),
            last_exit: None,
            why: crate::why::WhyLog::default(),
            usage: crate::contract::UsageReading::default(),
        };
        record.why.record(self.at, "create", because, considered);
        if let Some(pool) = self.ports.get_mut(server) {
            for (_, port) in ports {
                pool.reserve(*port, container.clone());
            }
        }
        if let Some(server) = self.servers.get_mut(server) {
            server.allocated.cpu.0 += reserved.cpu.0;
            server.allocated.memory.0 += reserved.memory.0;
            server.containers += 1;
        }
        self.containers.insert(container.clone(), record);
        self.touch_held();
        self.touch(unit);
    }

    fn intended(&mut self, operation: &Operation) {
        self.last_operation = self.last_operation.max(operation.id);
        let id = operation.id;
        self.change(&operation.container, |state, record| {
            record.operation = Some(id);
            match &operation.kind {
                OperationKind::Start => {
                    record.generation = operation.generation;
                    record.restarts = operation.generation.0.saturating_sub(1);
                    record.ending = None;
                    record.unwell = None;
                    record.probe.clear();
                    record.deadline = None;
                    state.step(record, Step::Begin, operation.because.clone());
                }
                OperationKind::Stop { .. } => {
                    if record.state != ContainerState::Draining {
                        record.ending = Some(operation.because.clone());
                        record.reason.clone_from(&operation.because);
                        record.deadline = None;
                        state.own_stops.push_back(state.now);
                        let window = state.settings.budget_window;
                        state.wake_held(state.now + window);
                    }
                }
                OperationKind::Remove => {}
            }
            record.why.record(state.at, operation.kind.as_str(), &operation.because, &[]);
        });
        self.operations.insert(id, operation.clone());
    }

    fn start_failed(&mut self, operation: OperationId, failure: &Failure) {
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
                state.crash(record, &failure.message);
            }
        });
    }

    fn started(&mut self, container: &ContainerId, generation: Generation, handle: &Handle) {
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
            let before_running =
                matches!(record.state, ContainerState::Preparing | ContainerState::Prepared | ContainerState::Starting);
            if !before_running {
                return;
            }
            record.started = Some(state.now);
            let unit = state.units.get(&record.unit);
            let probe = unit.and_then(|unit| unit.template(record.revision).ready.clone());
            let reason = if probe.is_some() { "waits for its readiness probe" } else { "runs" };
            state.step(record, Step::Started { ready: probe.is_none() }, reason.into());
            if let (Some(_), Some(unit)) = (probe, unit_of(state, record)) {
                let deadline = state.now + unit.spec.update.progress;
                record.deadline = Some(deadline);
                state.wake(deadline, &record.unit);
            }
        });
    }

    fn exited(&mut self, container: &ContainerId, generation: Generation, exit: Exit) {
        self.change(container, |state, record| {
            if record.generation != generation || !record.state.may_run() {
                return;
            }
            if let Some(id) = record.operation.take() {
                state.end(id, OperationState::Succeeded, None);
            }
            record.last_exit = Some(exit);
            record.handle = None;
            record.usage = crate::contract::UsageReading::default();
            if record.state == ContainerState::Draining {
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
            state.crash(record, &because);
        });
    }

    /// The container is wanted back: it waits for its back-off.
    fn crash(&mut self, record: &mut Container, because: &str) {
        let Some(unit) = self.units.get(&record.unit) else { return };
        let restart = unit.template(record.revision).restart.clone();
        record.crashes += 1;
        record.started = None;
        record.deadline = None;
        let chance = self.chance(record.id.as_str(), record.restarts);
        let pause = delay(restart.base, restart.max, record.crashes, chance);
        let until = self.now + pause;
        let crash_loop = record.crashes >= CRASH_LOOP && restart.base > std::time::Duration::ZERO;
        let prefix = if crash_loop { format!("crash loop ({} in a row): ", record.crashes) } else { String::new() };
        let reason = format!("{prefix}{because}; restart {} in {}", record.restarts + 1, human(pause));
        self.step(record, Step::Crashed { until }, reason.clone());
        record.why.record(self.at, "back off", &reason, &[]);
        if let Some(unit) = self.units.get_mut(&record.unit) {
            unit.why.record(self.at, "back off", &format!("{}: {reason}", record.id), &[]);
        }
        self.wake(until, &record.unit);
    }

    fn probed(&mut self, container: &ContainerId, generation: Generation, probe: ProbeKind, ok: bool, detail: &str) {
        self.change(container, |state, record| {
            let running = matches!(record.state, ContainerState::Loading | ContainerState::Ready);
            if record.generation != generation || !running {
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

    fn removed(&mut self, container: &ContainerId) {
        let Some(record) = self.containers.remove(container) else { return };
        self.count_out(&record);
        if let Some(id) = record.operation {
            self.end(id, OperationState::Succeeded, None);
        }
        let mut reserved = None;
        if let Some(unit) = self.units.get_mut(&record.unit) {
            reserved = Some(unit.template(record.revision).resources);
            unit.containers.remove(container);
            let in_use: BTreeSet<_> = unit
                .containers
                .iter()
                .filter_map(|id| self.containers.get(id))
                .map(|container| container.revision)
                .collect();
            unit.forget_templates(&in_use);
            unit.why.record(self.at, "remove", &format!("{container} is gone: {}", record.reason), &[]);
        }
        if let Some(server) = self.servers.get_mut(&record.server) {
            let reserved = reserved.unwrap_or_default();
            server.allocated.cpu.0 = server.allocated.cpu.0.saturating_sub(reserved.cpu.0);
            server.allocated.memory.0 = server.allocated.memory.0.saturating_sub(reserved.memory.0);
            server.containers = server.containers.saturating_sub(1);
        }
        self.touch_held();
        self.touch(&record.unit);
    }

    /// The holder ended: its ports rest.
    fn free_ports(&mut self, record: &Container) {
        let until = self.now + self.settings.port_hold_down;
        if let Some(pool) = self.ports.get_mut(&record.server) {
            pool.release(&record.id, record.port_numbers(), until);
        }
        let resting = self.soft.resting.entry(record.server.clone()).or_default();
        resting.extend(record.port_numbers());
        if record.ports.iter().any(|port| port.port.is_some()) {
            self.wake_held(until);
        }
    }

    /// Takes one step of the lifecycle and says why.
    fn step(&mut self, record: &mut Container, step: Step, reason: String) {
        match record.state.on(step) {
            Ok(next) => {
                if (next == ContainerState::Ready) != (record.state == ContainerState::Ready) {
                    self.soft.routes_changed = true;
                }
                if next != record.state {
                    record.since = self.at;
                    record.entered = self.now;
                }
                record.state = next;
                record.reason = reason;
            }
            Err(illegal) => self.report_anomaly(format!("{}: {illegal}", record.id)),
        }
    }

    /// Ends an operation; `None` if it is not open.
    fn end(&mut self, id: OperationId, state: OperationState, error: Option<String>) -> Option<Operation> {
        let mut operation = self.operations.remove(&id)?;
        operation.state = state;
        operation.error = error;
        if self.ended.len() == ENDED_OPERATIONS {
            self.ended.pop_front();
        }
        self.ended.push_back(operation.clone());
        self.soft.ended_now.push(operation.clone());
        Some(operation)
    }

    /// Changes a container in place; marks its Unit. One that is gone is left alone.
    fn change(&mut self, id: &ContainerId, change: impl FnOnce(&mut Self, &mut Container)) {
        let Some(mut record) = self.containers.remove(id) else { return };
        self.count_out(&record);
        change(self, &mut record);
        record.why.keep(self.settings.why_per_object);
        self.count_in(&record);
        let unit = record.unit.clone();
        self.containers.insert(id.clone(), record);
        self.touch(&unit);
    }

    fn change_unit(&mut self, id: &UnitId, change: impl FnOnce(&mut Unit) -> (&'static str, String)) {
        let at = self.at;
        if let Some(record) = self.units.get_mut(id) {
            let (decision, because) = change(record);
            record.why.record(at, decision, &because, &[]);
            self.touch(id);
            self.soft.routes_changed = true;
        }
    }
}

fn unit_of<'a>(state: &'a State, record: &Container) -> Option<&'a Unit> {
    state.units.get(&record.unit)
}
