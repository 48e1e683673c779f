//! The only way to change [`State`].
//!
//! Every branch is total: an observation that comes too late (of an older generation, of a container that is gone) is
//! dropped, so that no order of events can do harm. What a runtime reports is in `outcomes`, rollouts and scaling are in
//! `progress`.

use std::sync::Arc;

use super::rooms::left;
use super::roster::Marks;
use super::shared::shared_port;
use super::{ENDED_OPERATIONS, State};
use crate::container::{Container, ContainerPort, ContainerState, Step, WorkerRecord};
use crate::event::{Event, Soft};
use crate::fleet::Tenure;
use crate::id::{ContainerId, Generation, OperationId, UnitId};
use crate::operation::{Operation, OperationKind, OperationState};
use crate::ports::PortPool;
use crate::server::Server;
use crate::spec::{Partition, ServiceSpec, Template};
use crate::text::Text;
use crate::unit::{Unit, pool};

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
                // What it runs on may be another one.
                self.units.values_mut().for_each(|unit| unit.unfit = None);
                self.allow_buying();
                self.wake_for_budget();
                self.mark_all();
                self.soft.routes_changed = true;
            }
            Event::Applied { service, actor } => self.applied(service, actor),
            Event::Scaled { unit, desired, actor } => {
                let now = self.now;
                self.change_unit(unit, |record| {
                    if record.desired == 0 {
                        record.renew_deadline(now);
                    }
                    record.desired = *desired;
                    ("scale", format!("set to {desired} by {actor}"))
                });
                self.wake_for_rollout(unit);
            }
            Event::Autoscaled { unit, desired, because, considered } => {
                self.autoscaled(unit, *desired, because, considered);
            }
            Event::BoundsSet { unit, bounds, because } => {
                self.change_unit(unit, |record| {
                    record.bounds = *bounds;
                    ("bounds", because.clone())
                });
            }
            Event::RolloutStepped { unit, step, failed, because } => {
                self.rollout_stepped(unit, *step, *failed, because);
            }
            Event::RolloutProgressed { unit, proved } => self.rollout_progressed(unit, *proved),
            Event::CanaryProved { unit } => self.canary_proved(unit),
            Event::Promoted { unit, because } => self.promoted(unit, because),
            Event::Switched { unit, stopped, actor } => {
                let now = self.now;
                self.change_unit(unit, |record| {
                    record.stopped = *stopped;
                    record.unfit = None;
                    record.renew_deadline(now);
                    if *stopped {
                        ("stop", format!("stopped by {actor}"))
                    } else {
                        ("start", format!("started by {actor}"))
                    }
                });
                self.wake_for_rollout(unit);
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
                self.soft.scaling.remove(unit);
                self.soft.unknown.remove(unit);
                self.soft.demand.remove(unit);
                self.soft.routes_changed = true;
                let UnitId { service, map, .. } = unit;
                if !self.units.keys().any(|other| other.service == *service) {
                    self.services.remove(service);
                } else if !self.units.keys().any(|other| other.service == *service && other.map == *map)
                    && let Some(known) = self.services.get_mut(service)
                {
                    known.maps.remove(map);
                }
            }
            Event::ReplaceAsked { container, because } => {
                self.change(container, |state, record| {
                    record.replace = Some(because.clone());
                    record.why.record(state.at, "replace", because, &[]);
                });
                if let Some(unit) = self.containers.get(container).map(|record| record.unit.clone()) {
                    self.wake_for_rollout(&unit);
                }
            }
            Event::ServerSeen { server } => self.server_seen(server),
            Event::Claimed { .. } => self.claimed(event),
            Event::Registered { container, generation } => self.registered(container, *generation),
            Event::CheckedOut { container, unit, revision, ports, because, instead } => {
                self.checked_out(container, unit, *revision, ports, because, instead.as_ref());
            }
            Event::Unfit { container, because } => self.found_unfit(container, because),
            Event::Assigned { operation, failure } => self.assigned(*operation, failure.as_ref()),
            Event::Unloaded { operation, failure } => self.unloaded(*operation, failure.as_ref()),
            Event::PortTaken { container, port, because } => self.port_taken(container, *port, because),
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
            Event::Noted { container, what, because } => {
                self.edit(container, |state, record| {
                    record.why.record(state.at, what, because, &[]);
                    record.why.keep(state.settings.why_per_object);
                });
            }
            Event::DrainBegun { container, because } => {
                let drain = self.settings.drain;
                self.change(container, |state, record| {
                    state.step(record, Step::Drain, because.clone());
                    let routed = state.units.get(&record.unit).is_some_and(Unit::is_routed);
                    // What waits was never in the table.
                    let routed = routed && !record.is_spare();
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
            Event::Fleet { event } => self.fleet_event(event),
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
                self.edit(container, |state, record| {
                    if record.generation == *generation && record.state == ContainerState::Preparing {
                        record.probe.clear();
                        state.step(record, Step::Prepared, "ports and folders are ready".into());
                    }
                });
            }
            Soft::Delayed { container, generation, because } => {
                if let Some(record) = self.containers.get_mut(container)
                    && record.generation == *generation
                    && record.state == ContainerState::Preparing
                {
                    record.probe.clone_from(because);
                    record.reason = format!("not prepared yet: {because}");
                }
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
            Soft::Read(samples) => self.read(samples),
            Soft::Sampled(samples) => {
                self.read(samples);
                self.ask_policies();
            }
            Soft::Demand { unit } => {
                if self.units.contains_key(unit) {
                    self.soft.demand.insert(unit.clone());
                    self.touch(unit);
                }
            }
            Soft::Halt => {
                self.soft.halting = true;
                self.mark_all();
            }
        }
    }

    fn applied(&mut self, service: &ServiceSpec, actor: &str) {
        let known = self.services.entry(service.name.clone()).or_default();
        let before = std::mem::replace(&mut known.quota, service.quota.clone());
        known.labels.clone_from(&service.labels);
        known.maps.extend(service.maps.iter().map(|(map, spec)| (map.clone(), spec.labels.clone())));
        if before != service.quota {
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
                let (now, at) = (self.now, self.at);
                match self.units.get_mut(&id) {
                    Some(record) => {
                        let (revision, desired) = (record.revision, record.desired);
                        let monitor = record.spec.update.monitor;
                        let moved = record.spec.place != unit.place;
                        record.take(unit.clone(), now, at, actor);
                        // What it waits for may be another server now.
                        self.soft.fleet_dirty |= moved && self.soft.wanting.contains_key(&id);
                        if record.revision != revision {
                            let because = format!("{actor} applied revision {}", record.revision);
                            let because = with_image(because, &record.spec.template);
                            record.why.record(at, "update", &because, &[]);
                        }
                        if record.desired != desired {
                            let because = format!("{actor} applied {} instead of {desired}", record.desired);
                            record.why.record(at, "scale", &because, &[]);
                        }
                        if record.spec.update.monitor != monitor {
                            self.count_again(&id);
                        }
                    }
                    None => {
                        let mut record = Unit::new(unit.clone(), at, actor);
                        let because = with_image(format!("applied by {actor}"), &unit.template);
                        record.why.record(at, "create", &because, &[]);
                        self.units.insert(id.clone(), record);
                    }
                }
                self.wake_for_rollout(&id);
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
            let by_agent = server.tenure.by_agent;
            server.tenure = Tenure { by_agent, ..known.tenure.clone() };
        }
        let range = self.settings.port_range;
        self.ports.entry(server.id.clone()).or_insert_with(|| PortPool::new(range));
        let id = server.id.clone();
        self.servers.insert(id.clone(), server);
        self.rank(&id);
        self.mark_all();
    }

    fn claimed(&mut self, event: &Event) {
        let Event::Claimed { container, unit, revision, server, ports, slot, spare, because, considered } = event
        else {
            return;
        };
        if self.containers.contains_key(container) {
            return self.report_anomaly(format!("{container} was made twice"));
        }
        let (unit, server) = (&self.shared_unit(unit), &self.shared_server(server));
        let Some(owner) = self.units.get_mut(unit) else { return };
        let because = &Text::from(because.as_str());
        owner.made += 1;
        owner.containers.insert(container.clone());
        owner.why.record_shared(self.at, "create", because, considered);
        owner.why.keep(self.settings.why_per_object);
        let template = owner.template(*revision);
        let reserved = template.resources;
        let finish_by = template.restart.deadline.map(|deadline| self.now + deadline);
        let lease = |(name, port): &(_, u16)| ContainerPort { name: shared_port(template, name), port: Some(*port) };
        let leases = ports.iter().map(lease).collect();
        let worker = (*spare || !template.microservices.is_empty()).then(|| {
            Box::new(WorkerRecord {
                pool: pool(unit, *revision, template),
                assignment: u64::from(!spare),
                spare: *spare,
                late: false,
                worn: false,
            })
        });
        let mut record = Container {
            id: container.clone(),
            unit: unit.clone(),
            revision: *revision,
            generation: Generation(0),
            server: server.clone(),
            state: ContainerState::Claimed,
            reason: because.as_str().to_owned(),
            since: self.at,
            entered: self.now,
            ordinal: owner.made,
            ports: leases,
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
            completed: false,
            finish_by,
            outlives_lease: false,
            excused: false,
            relieve: false,
            worker,
            why: crate::why::WhyLog::default(),
            usage: None,
        };
        record.why.record_shared(self.at, "create", because, considered);
        if let Some(pool) = self.ports.get_mut(server) {
            for (_, port) in ports {
                pool.reserve(*port, container.clone());
            }
        }
        if let Some(server) = self.servers.get_mut(server) {
            server.allocated.cpu.0 += reserved.cpu.0;
            server.allocated.memory.0 += reserved.memory.0;
            server.containers += 1;
            server.tenure.empty = None;
            // One that was to be given back because it was empty is of use again.
            self.soft.fleet_dirty |= server.tenure.rearrangement.is_some();
            self.soft.rooms.set(server, left(server));
        }
        self.spot_in(&record);
        self.count_in(&record);
        self.containers.insert(Arc::new(record));
        if let Some(finish_by) = finish_by {
            self.wake(finish_by, unit);
        }
        self.touch_held();
        self.mark(unit);
    }

    fn intended(&mut self, operation: &Operation) {
        self.last_operation = self.last_operation.max(operation.id);
        let id = operation.id;
        self.change(&operation.container, |state, record| {
            record.operation = Some(id);
            match &operation.kind {
                OperationKind::Start => {
                    record.generation = operation.generation;
                    let unit = state.units.get(&record.unit);
                    record.outlives_lease = unit.is_some_and(|unit| unit.spec.place.partition == Partition::Wait);
                    if let Some(worker) = &mut record.worker {
                        worker.late = false;
                    }
                    record.restarts = operation.generation.0.saturating_sub(1);
                    record.ending = None;
                    record.unwell = None;
                    record.relieve = false;
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
                OperationKind::Remove | OperationKind::Assign | OperationKind::Unload { .. } => {}
            }
            record.why.record(state.at, operation.kind.as_str(), &operation.because, &[]);
        });
        if let OperationKind::Unload { home, .. } = &operation.kind {
            self.mark(home);
        }
        self.operations.insert(id, operation.clone());
    }

    /// Takes one step of the lifecycle and says why.
    pub(super) fn step(&mut self, record: &mut Container, step: Step, reason: String) {
        match record.state.on(step) {
            Ok(next) => {
                if (next == ContainerState::Ready) != (record.state == ContainerState::Ready) {
                    self.soft.routes_changed = true;
                }
                if next != record.state {
                    record.since = self.at;
                    record.entered = self.now;
                    if next == ContainerState::Ready {
                        self.turned_ready(record);
                    }
                    if !next.is_live() {
                        self.touch_left(&record.server);
                    }
                }
                record.state = next;
                record.reason = reason;
            }
            Err(illegal) => self.report_anomaly(format!("{}: {illegal}", record.id)),
        }
    }

    /// Ends an operation; `None` if it is not open.
    pub(super) fn end(&mut self, id: OperationId, state: OperationState, error: Option<String>) -> Option<Operation> {
        let mut operation = self.operations.remove(&id)?;
        if let OperationKind::Unload { home, .. } = &operation.kind {
            // It was reckoned with there.
            self.mark(home);
        }
        operation.state = state;
        operation.error = error;
        if self.ended.len() == ENDED_OPERATIONS {
            self.ended.pop_front();
        }
        self.ended.push_back(operation.clone());
        Some(operation)
    }

    /// Changes a container in place; marks its Unit. One that is gone is left alone.
    pub(super) fn change(&mut self, id: &ContainerId, change: impl FnOnce(&mut Self, &mut Container)) {
        let unit = self.edit(id, |state, record| {
            change(state, record);
            record.why.keep(state.settings.why_per_object);
            record.unit.clone()
        });
        if let Some(unit) = unit {
            self.mark(&unit);
        }
    }

    /// Changes a container in place, and says what `edit` does. `None` if it is gone.
    fn edit<T>(&mut self, id: &ContainerId, edit: impl FnOnce(&mut Self, &mut Container) -> T) -> Option<T> {
        let mut record = self.containers.remove(id)?;
        let before = Marks::of(&record);
        let edited = edit(self, Arc::make_mut(&mut record));
        self.count(&record.unit, Some(&before), Some(&Marks::of(&record)));
        self.containers.insert(record);
        Some(edited)
    }

    pub(super) fn change_unit(&mut self, id: &UnitId, change: impl FnOnce(&mut Unit) -> (&'static str, String)) {
        let at = self.at;
        if let Some(record) = self.units.get_mut(id) {
            let (decision, because) = change(record);
            record.why.record(at, decision, &because, &[]);
            self.touch(id);
            self.soft.routes_changed = true;
        }
    }
}

/// A reason, with what is known of the image.
fn with_image(because: String, template: &Template) -> String {
    match &template.image {
        Some(image) => format!("{because}; {}", image.said()),
        None => because,
    }
}
