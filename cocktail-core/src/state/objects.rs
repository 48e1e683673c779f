//! Names that people type: `service/map/unit` or any unambiguous tail, ids or unique prefixes.

use std::collections::BTreeSet;

use super::State;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ContainerId, ServerId, UnitId};
use crate::name::Name;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// A Service.
    Service(Name),
    /// A map of a Service.
    Map(Name, Name),
    /// A Unit.
    Unit(UnitId),
    /// A container.
    Container(ContainerId),
    /// A server.
    Server(ServerId),
}

impl State {
    /// Finds what `name` stands for. A whole name or id comes before a tail or prefix; a Unit before a map before a
    /// Service of the same name.
    ///
    /// # Errors
    /// `NotFound` with the names that exist; `Conflict` with the names that it could mean.
    pub fn object(&self, name: &str) -> Result<Object> {
        if let Some(container) = self.containers.keys().find(|id| id.as_str() == name) {
            return Ok(Object::Container(container.clone()));
        }
        if let Some(server) = self.servers.keys().find(|id| id.as_str() == name) {
            return Ok(Object::Server(server.clone()));
        }
        for found in [self.units_named(name), self.maps_named(name), self.services_named(name)] {
            if let Some(object) = one(name, found)? {
                return Ok(object);
            }
        }
        let containers = self.containers.keys().filter(|id| id.as_str().starts_with(name));
        let servers = self.servers.keys().filter(|id| id.as_str().starts_with(name));
        let prefixed: BTreeSet<Object> = containers
            .map(|id| Object::Container(id.clone()))
            .chain(servers.map(|id| Object::Server(id.clone())))
            .collect();
        if !name.is_empty()
            && let Some(object) = one(name, prefixed)?
        {
            return Ok(object);
        }
        Err(self.missing(name, "object"))
    }

    /// Finds a Unit.
    ///
    /// # Errors
    /// As [`State::object`].
    pub fn unit_named(&self, name: &str) -> Result<UnitId> {
        match one(name, self.units_named(name))? {
            Some(Object::Unit(id)) => Ok(id),
            _ => Err(self.missing(name, "unit")),
        }
    }

    /// Finds a container.
    ///
    /// # Errors
    /// As [`State::object`]; `Conflict` for a Unit with several containers.
    pub fn container_named(&self, name: &str) -> Result<ContainerId> {
        match self.object(name)? {
            Object::Container(id) => Ok(id),
            Object::Unit(unit) => {
                let ids: Vec<&ContainerId> =
                    self.units.get(&unit).map(|unit| unit.containers.iter().collect()).unwrap_or_default();
                match ids[..] {
                    [only] => Ok(only.clone()),
                    [] => Err(Error::not_found(format!("unit {unit} has no container"))),
                    _ => Err(Error::new(
                        ErrorKind::Conflict,
                        format!("unit {unit} has {} containers: name one of {}", ids.len(), list(&ids)),
                    )),
                }
            }
            _ => Err(Error::not_found(format!("{name:?} is no container"))),
        }
    }

    /// Finds a server by id or unique prefix.
    ///
    /// # Errors
    /// `NotFound` with the servers that exist; `Conflict` with the ones that it could mean.
    pub fn server_named(&self, name: &str) -> Result<ServerId> {
        if let Some(server) = self.servers.keys().find(|id| id.as_str() == name) {
            return Ok(server.clone());
        }
        let prefixed = self.servers.keys().filter(|id| !name.is_empty() && id.as_str().starts_with(name));
        match one(name, prefixed.map(|id| Object::Server(id.clone())).collect())? {
            Some(Object::Server(id)) => Ok(id),
            _ => {
                let servers: Vec<&ServerId> = self.servers.keys().collect();
                let known = match servers[..] {
                    [] => "there is none".to_owned(),
                    _ => format!("there are {}", list(&servers)),
                };
                Err(Error::not_found(format!("no server {name:?}: {known}")))
            }
        }
    }

    /// The Units that an object stands for.
    pub fn units_of(&self, object: &Object) -> Vec<UnitId> {
        let all = self.units.keys();
        match object {
            Object::Service(service) => all.filter(|id| id.service == *service).cloned().collect(),
            Object::Map(service, map) => all.filter(|id| id.service == *service && id.map == *map).cloned().collect(),
            Object::Unit(unit) => vec![unit.clone()],
            Object::Container(container) => {
                self.containers.get(container).map(|record| vec![record.unit.clone()]).unwrap_or_default()
            }
            Object::Server(_) => Vec::new(),
        }
    }

    fn units_named(&self, name: &str) -> BTreeSet<Object> {
        let tail = format!("/{name}");
        self.units
            .keys()
            .filter(|id| {
                let full = id.to_string();
                full == name || full.ends_with(&tail)
            })
            .map(|id| Object::Unit(id.clone()))
            .collect()
    }

    fn maps_named(&self, name: &str) -> BTreeSet<Object> {
        self.units
            .keys()
            .filter(|id| id.map.as_str() == name || format!("{}/{}", id.service, id.map) == name)
            .map(|id| Object::Map(id.service.clone(), id.map.clone()))
            .collect()
    }

    fn services_named(&self, name: &str) -> BTreeSet<Object> {
        self.units
            .keys()
            .filter(|id| id.service.as_str() == name)
            .map(|id| Object::Service(id.service.clone()))
            .collect()
    }

    fn missing(&self, name: &str, what: &str) -> Error {
        let units: Vec<&UnitId> = self.units.keys().collect();
        let known = if units.is_empty() {
            "there is no unit".to_owned()
        } else {
            format!("there are the units {}", list(&units))
        };
        Error::not_found(format!("no {what} {name:?}: {known}"))
    }
}

fn one(name: &str, mut found: BTreeSet<Object>) -> Result<Option<Object>> {
    if found.len() > 1 {
        let names: Vec<String> = found.iter().map(ToString::to_string).collect();
        let names: Vec<&String> = names.iter().collect();
        return Err(Error::new(ErrorKind::Conflict, format!("{name:?} could be {}", list(&names))));
    }
    Ok(found.pop_first())
}

/// The first few of a list, for messages.
fn list<T: ToString>(items: &[&T]) -> String {
    const SHOWN: usize = 8;
    let mut text = items.iter().take(SHOWN).map(|item| item.to_string()).collect::<Vec<_>>().join(", ");
    if items.len() > SHOWN {
        text.push_str(&format!(" and {} more", items.len() - SHOWN));
    }
    text
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service(service) => write!(f, "{service}"),
            Self::Map(service, map) => write!(f, "{service}/{map}"),
            Self::Unit(unit) => write!(f, "{unit}"),
            Self::Container(container) => write!(f, "{container}"),
            Self::Server(server) => write!(f, "{server}"),
        }
    }
}
