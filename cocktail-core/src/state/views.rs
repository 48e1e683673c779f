//! The state as users see it.

use super::{Object, State};
use crate::container::{Container, ContainerState};
use crate::error::{Error, Result};
use crate::id::UnitId;
use crate::rollout::{Rollout, RolloutState};
use crate::spec::Labels;
use crate::unit::Unit;
use crate::view::{BackendView, ContainerView, EndpointView, PortView, RolloutView, UnitView, UsageView, WhyView};

impl State {
    /// All containers, in the order of Units and creation.
    pub fn container_views(&self) -> Vec<ContainerView> {
        let mut records: Vec<&Container> = self.containers.values().collect();
        records.sort_by_key(|record| (&record.unit, record.ordinal));
        records.into_iter().map(|record| self.container_view(record)).collect()
    }

    pub(super) fn container_view(&self, record: &Container) -> ContainerView {
        let host = self.host_of(&record.server).to_string();
        let handle = record.handle.as_ref();
        ContainerView {
            id: record.id.to_string(),
            service: record.unit.service.to_string(),
            map: record.unit.map.to_string(),
            unit: record.unit.unit.to_string(),
            revision: record.revision.0,
            generation: record.generation.0,
            server: record.server.to_string(),
            provider: self.servers.get(&record.server).map(|server| server.provider.to_string()).unwrap_or_default(),
            state: record.state.as_str().into(),
            ready: record.state == ContainerState::Ready,
            reason: record.reason.clone(),
            since: record.since.to_string(),
            restarts: record.restarts,
            pid: handle.and_then(|handle| handle.pid),
            docker_id: handle.and_then(|handle| handle.docker_id.clone()),
            ports: record
                .ports
                .iter()
                .filter_map(|lease| {
                    Some(PortView { name: lease.name.to_string(), host: host.clone(), port: lease.port? })
                })
                .collect(),
            usage: usage(record),
        }
    }

    /// All Units.
    pub fn unit_views(&self) -> Vec<UnitView> {
        self.units.iter().map(|(id, unit)| self.view_of(id, unit)).collect()
    }

    /// One Unit, if it exists.
    pub fn unit_view(&self, id: &UnitId) -> Option<UnitView> {
        self.units.get(id).map(|unit| self.view_of(id, unit))
    }

    pub(super) fn view_of(&self, id: &UnitId, unit: &Unit) -> UnitView {
        // What waits for whoever needs it is none of those that the Unit wants.
        let containers: Vec<&Container> = self.of(unit).filter(|container| !container.is_spare()).collect();
        let ready = containers.iter().filter(|container| container.state == ContainerState::Ready).count();
        let updated =
            containers.iter().filter(|container| container.is_wanted() && container.revision == unit.revision).count();
        let replaced = containers
            .iter()
            .filter(|container| container.revision != unit.revision || container.replace.is_some())
            .count();
        let alike =
            containers.iter().any(|container| container.revision == unit.revision && container.replace.is_some());
        let usage = containers.iter().map(|container| usage(container)).fold(UsageView::default(), |sum, one| {
            UsageView { cpu_millis: sum.cpu_millis + one.cpu_millis, memory_bytes: sum.memory_bytes + one.memory_bytes }
        });
        let done = |failed: bool| {
            let done = containers.iter().filter(|container| container.revision == unit.revision);
            count(done.filter(|container| container.is_done() && container.completed != failed).count())
        };
        let reason = if unit.held.is_empty() {
            let unready = containers.iter().find(|container| {
                container.state.is_live() && container.state != ContainerState::Ready && !container.reason.is_empty()
            });
            unready.map(|container| format!("{}: {}", container.id, container.reason)).unwrap_or_default()
        } else {
            unit.held.clone()
        };
        UnitView {
            service: id.service.to_string(),
            map: id.map.to_string(),
            unit: id.unit.to_string(),
            desired: unit.goal(),
            ready: count(ready),
            updated: count(updated),
            revision: unit.revision.0,
            rollout: rollout_view(unit, updated, replaced, alike),
            usage,
            reason,
            stopped: unit.stopped,
            limits: unit.limits(),
            autoscaled: unit.spec.replicas.scaling.is_some(),
            job: unit.is_job(),
            succeeded: done(false),
            failed: done(true),
            labels: self.labels_of(id, unit),
        }
    }

    /// Words of the user's own: the Unit's before its map's before its Service's.
    fn labels_of(&self, id: &UnitId, unit: &Unit) -> Labels {
        let service = self.services.get(&id.service);
        let map = service.and_then(|service| service.maps.get(&id.map));
        let mut labels = service.map(|service| service.labels.clone()).unwrap_or_default();
        labels.extend(map.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        labels.extend(unit.spec.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
        labels
    }

    /// Where the last rollout of a Unit stands.
    ///
    /// # Errors
    /// As [`State::object`].
    pub fn rollout_view_of(&self, name: &str) -> Result<RolloutView> {
        let id = self.unit_named(name)?;
        let view = self.unit_view(&id).ok_or_else(|| Error::not_found(format!("no unit {id}")))?;
        Ok(view.rollout)
    }

    /// Every named port of every Unit with its ready containers.
    pub fn endpoint_views(&self) -> Vec<EndpointView> {
        let mut views = Vec::new();
        for (id, unit) in &self.units {
            for port in &unit.spec.template.ports {
                let backends = self
                    .of(unit)
                    .filter(|container| container.state == ContainerState::Ready)
                    .filter_map(|container| {
                        let lease = container.ports.iter().find(|lease| lease.name == port.name)?;
                        Some(BackendView {
                            container: container.id.to_string(),
                            host: self.host_of(&container.server).to_string(),
                            port: lease.port?,
                        })
                    })
                    .collect();
                views.push(EndpointView {
                    service: id.service.to_string(),
                    map: id.map.to_string(),
                    unit: id.unit.to_string(),
                    port_name: port.name.to_string(),
                    service_port: port.service,
                    address: port.address.to_string(),
                    error: None,
                    backends,
                });
            }
        }
        views
    }

    /// The decisions about an object, oldest first.
    ///
    /// # Errors
    /// As [`State::object`].
    pub fn why(&self, name: &str) -> Result<Vec<WhyView>> {
        let object = self.object(name)?;
        let mut views = Vec::new();
        match &object {
            Object::Container(id) => {
                let record = self.containers.get(id).ok_or_else(|| Error::not_found(format!("no {id}")))?;
                views.extend(record.why.views(id.as_str()));
                views.push(self.state_of(record));
            }
            Object::Server(id) => {
                let server = self.servers.get(id).ok_or_else(|| Error::not_found(format!("no {id}")))?;
                views.extend(self.why_of_server(server));
            }
            _ => {
                for id in self.units_of(&object) {
                    let Some(unit) = self.units.get(&id) else { continue };
                    views.extend(unit.why.views(&id.to_string()));
                    let unready = self.of(unit).filter(|container| container.state != ContainerState::Ready);
                    views.extend(unready.map(|container| self.state_of(container)));
                    if let Some(because) = self.soft.unknown.get(&id) {
                        views.push(WhyView {
                            at: self.at.to_string(),
                            decision: "keep the count".into(),
                            object: id.to_string(),
                            because: because.clone(),
                            considered: Vec::new(),
                        });
                    }
                }
            }
        }
        if let Some(because) = &self.frozen {
            views.push(WhyView {
                at: self.at.to_string(),
                decision: "freeze".into(),
                object: "manager".into(),
                because: because.clone(),
                considered: Vec::new(),
            });
        }
        views.sort_by(|a, b| a.at.cmp(&b.at));
        Ok(views)
    }

    fn state_of(&self, record: &Container) -> WhyView {
        WhyView {
            at: record.since.to_string(),
            decision: "state".into(),
            object: record.id.to_string(),
            because: format!("{}: {}", record.state, record.reason),
            considered: Vec::new(),
        }
    }

    /// The containers of a Unit in the order of their ids.
    pub fn of<'a>(&'a self, unit: &'a Unit) -> impl Iterator<Item = &'a Container> {
        unit.containers.iter().filter_map(|id| self.containers.get(id))
    }
}

fn rollout_view(unit: &Unit, updated: usize, replaced: usize, alike: bool) -> RolloutView {
    let goal = unit.goal();
    let step = match &unit.rollout {
        Some(rollout) if rollout.state.is_open() && rollout.canary > 0 => {
            format!("canary: {} of {} well", rollout.proved.min(rollout.canary), rollout.canary)
        }
        Some(rollout) if rollout.state.is_open() => format!("{updated} of {goal} are of revision {}", rollout.to),
        _ if replaced > 0 && goal > 0 => format!("{replaced} of {goal} to be replaced"),
        _ => String::new(),
    };
    match &unit.rollout {
        Some(rollout) if rollout.state.is_open() || replaced == 0 || goal == 0 => {
            let state = rollout.state.as_str().into();
            RolloutView { state, step, reason: rollout.reason.clone(), ..about(rollout) }
        }
        _ if replaced > 0 && goal > 0 => {
            let reason = format!("{replaced} containers are to be replaced");
            let about = unit.rollout.as_ref().map(about).unwrap_or_default();
            // The last old ones of a rollout are still leaving, or all are replaced by their like.
            let from = if alike { about.to } else { about.from };
            RolloutView { state: RolloutState::Running.as_str().into(), step, reason, from, ..about }
        }
        _ => RolloutView { state: RolloutState::Completed.as_str().into(), step, ..RolloutView::default() },
    }
}

/// Which rollout it is.
fn about(rollout: &Rollout) -> RolloutView {
    RolloutView {
        from: rollout.from.map(|revision| revision.0),
        to: Some(rollout.to.0),
        since: rollout.since.to_string(),
        failed: rollout.failed,
        asks_promotion: rollout.state == RolloutState::Running
            && rollout.canary > 0
            && rollout.canary_proved
            && rollout.promote_at.is_none(),
        ..RolloutView::default()
    }
}

fn usage(record: &Container) -> UsageView {
    let sample = record.usage.as_ref();
    UsageView {
        cpu_millis: sample.map_or(0, |sample| sample.cpu_millis),
        memory_bytes: sample.map_or(0, |sample| sample.memory_bytes),
    }
}

fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}
