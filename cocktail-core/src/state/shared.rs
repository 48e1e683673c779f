//! Texts that were read from a file are shared again with those that they repeat.
//!
//! Each id that is read is a text of its own. A million containers name few Units, servers and ports, and each of them
//! is named in several places.

use std::sync::Arc;

use super::{Containers, State};
use crate::container::{Container, ContainerPort};
use crate::id::{ServerId, UnitId};
use crate::name::Name;
use crate::spec::Template;

impl State {
    /// Shares the texts of everything that was read.
    pub(super) fn share_texts(&mut self) {
        let mut containers = Containers::default();
        for mut record in std::mem::take(&mut self.containers) {
            self.share_texts_of(Arc::make_mut(&mut record));
            containers.insert(record);
        }
        for unit in self.units.values_mut() {
            let ids = std::mem::take(&mut unit.containers).into_iter();
            unit.containers = ids.map(|id| containers.shared(id)).collect();
        }
        self.containers = containers;
    }

    fn share_texts_of(&self, record: &mut Container) {
        record.unit = self.shared_unit(&record.unit);
        record.server = self.shared_server(&record.server);
        if let Some(unit) = self.units.get(&record.unit) {
            let template = unit.template(record.revision);
            for ContainerPort { name, .. } in &mut record.ports {
                *name = shared_port(template, name);
            }
        }
    }

    /// The id with the text of the Unit's own.
    pub(super) fn shared_unit(&self, id: &UnitId) -> UnitId {
        let known = if id.is_long() { self.units.get_key_value(id) } else { None };
        known.map_or(id, |(known, _)| known).clone()
    }

    /// The id with the text of the server's own.
    pub(super) fn shared_server(&self, id: &ServerId) -> ServerId {
        let known = if id.is_long() { self.servers.get_key_value(id) } else { None };
        known.map_or(id, |(known, _)| known).clone()
    }
}

/// The name with the text of the template's own.
pub(super) fn shared_port(template: &Template, name: &Name) -> Name {
    let known = template.ports.iter().map(|port| &port.name).find(|known| name.is_long() && *known == name);
    known.unwrap_or(name).clone()
}
