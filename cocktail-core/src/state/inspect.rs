//! Everything that is known about one object, as `inspect` shows it.

use serde_json::{Value, json};

use super::{Object, State};
use crate::error::{Error, Result};
use crate::id::UnitId;
use crate::spec::VolumeKind;
use crate::unit::Unit;
use crate::view::{ContainerView, EndpointView, VolumeView};

/// Differences that are told at most.
const DIFFERENCES: usize = 200;

impl State {
    /// Everything known about an object. Secrets are not known here, only where they come from.
    ///
    /// # Errors
    /// As [`State::object`].
    pub fn inspect(&self, name: &str) -> Result<Value> {
        let object = self.object(name)?;
        let value = match &object {
            Object::Container(id) => {
                let record = self.containers.get(id).ok_or_else(|| Error::not_found(format!("no {id}")))?;
                let template = self.units.get(&record.unit).map(|unit| unit.template(record.revision));
                json!({
                    "container": self.container_view(record),
                    "record": record,
                    "template": template,
                    "usage": record.usage,
                })
            }
            Object::Server(id) => {
                let on_it: Vec<ContainerView> =
                    self.container_views().into_iter().filter(|container| container.server == id.as_str()).collect();
                let server = self.server_views().into_iter().find(|server| server.id == id.as_str());
                let tenure = self.servers.get(id).map(|server| &server.tenure);
                json!({ "server": server, "containers": on_it, "tenure": tenure, "ports": self.ports.get(id) })
            }
            Object::Unit(id) => {
                let unit = self.units.get(id).ok_or_else(|| Error::not_found(format!("no unit {id}")))?;
                self.inspect_unit(id, unit)
            }
            Object::Map(service, map) => {
                let labels = self.services.get(service).and_then(|record| record.maps.get(map));
                json!({ "object": format!("{service}/{map}"), "labels": labels, "units": self.inspect_units(&object) })
            }
            Object::Service(service) => {
                let record = self.services.get(service);
                json!({
                    "object": service,
                    "labels": record.map(|record| &record.labels),
                    "quota": record.map(|record| &record.quota),
                    "used": self.reserved_by(service),
                    "maps": record.map(|record| record.maps.keys().collect::<Vec<_>>()),
                    "units": self.inspect_units(&object),
                })
            }
        };
        Ok(value)
    }

    fn inspect_units(&self, object: &Object) -> Vec<Value> {
        let units = self.units_of(object);
        units.iter().filter_map(|id| self.units.get(id).map(|unit| self.inspect_unit(id, unit))).collect()
    }

    fn inspect_unit(&self, id: &UnitId, unit: &Unit) -> Value {
        let containers: Vec<ContainerView> = self.of(unit).map(|record| self.container_view(record)).collect();
        let ports: Vec<EndpointView> = self
            .endpoint_views()
            .into_iter()
            .filter(|view| {
                id.service.as_str() == view.service && id.map.as_str() == view.map && id.unit.as_str() == view.unit
            })
            .collect();
        let from = unit.rollout.as_ref().filter(|rollout| rollout.to == unit.revision).and_then(|rollout| rollout.from);
        let diff = from.or_else(|| unit.previous()).and_then(|from| {
            let old = serde_json::to_value(unit.templates.get(&from)?).ok()?;
            let new = serde_json::to_value(unit.template(unit.revision)).ok()?;
            let mut changes = Vec::new();
            differences("", &old, &new, &mut changes);
            Some(json!({ "from": from, "to": unit.revision, "changes": changes }))
        });
        json!({
            "unit": self.view_of(id, unit),
            "spec": unit.spec,
            "digest": unit.digest,
            "revisions": unit.history,
            "diff": diff,
            "rollout": unit.rollout,
            "scaling": unit.scaling,
            "containers": containers,
            "ports": ports,
            "volumes": self.volumes_of(id, unit),
            "held": unit.held,
        })
    }

    /// What the containers of a Service reserve.
    fn reserved_by(&self, service: &crate::name::Name) -> Value {
        let (mut containers, mut cpu, mut memory) = (0_u64, 0_u64, 0_u64);
        for record in self.containers.values().filter(|record| record.unit.service == *service && !record.is_done()) {
            let Some(unit) = self.units.get(&record.unit) else { continue };
            let reserved = unit.template(record.revision).resources;
            containers += 1;
            cpu = cpu.saturating_add(reserved.cpu.0);
            memory = memory.saturating_add(reserved.memory.0);
        }
        json!({ "containers": containers, "cpu_millis": cpu, "memory_bytes": memory })
    }

    /// The volumes of every Unit, without what only the servers know.
    pub fn volume_views(&self) -> Vec<VolumeView> {
        self.units.iter().flat_map(|(id, unit)| self.volumes_of(id, unit)).collect()
    }

    /// The volumes of a Unit: one for each container where they are not shared.
    fn volumes_of(&self, id: &UnitId, unit: &Unit) -> Vec<VolumeView> {
        let mut views: Vec<VolumeView> = Vec::new();
        for record in self.of(unit) {
            let template = unit.template(record.revision);
            for (name, volume) in &template.volumes {
                let path = super::routes::volume_path(record, name, volume).display().to_string();
                let known = views.iter_mut().find(|view| view.path == path && view.server == record.server.as_str());
                if let Some(known) = known {
                    known.containers.push(record.id.to_string());
                    continue;
                }
                views.push(VolumeView {
                    service: id.service.to_string(),
                    map: id.map.to_string(),
                    unit: id.unit.to_string(),
                    name: name.to_string(),
                    kind: kind(volume.kind).into(),
                    path,
                    used_bytes: None,
                    size_bytes: volume.size.map(|size| size.0),
                    server: record.server.to_string(),
                    containers: vec![record.id.to_string()],
                });
            }
        }
        views
    }
}

fn kind(kind: VolumeKind) -> &'static str {
    match kind {
        VolumeKind::Exclusive => "exclusive",
        VolumeKind::Shared => "shared",
        VolumeKind::Ephemeral => "ephemeral",
        VolumeKind::Bind => "bind",
    }
}

/// The leaves in which two values differ.
fn differences(key: &str, old: &Value, new: &Value, changes: &mut Vec<Value>) {
    if old == new || changes.len() >= DIFFERENCES {
        return;
    }
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in keys {
                let below = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                let of = |members: &serde_json::Map<String, Value>| members.get(name).cloned().unwrap_or(Value::Null);
                differences(&below, &of(old), &of(new), changes);
            }
        }
        _ => changes.push(json!({ "key": key, "from": old, "to": new })),
    }
}
