//! What users ask for, checked against the state and turned into events.
//!
//! Start at [`State::command`]. It changes nothing: the events that it returns are committed first. A command that
//! asks for what is the case already returns no events.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::container::{Container, ContainerState};
use crate::contract::Actor;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::UnitId;
use crate::spec::ServiceSpec;
use crate::state::{Object, State};

/// What users ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Take these as the desired state of the maps that they name.
    Apply(Vec<ServiceSpec>),
    /// Set the count of a Unit.
    Scale {
        /// The Unit by name.
        unit: String,
        /// The count.
        count: Count,
    },
    /// Stop or start what an object stands for.
    Switch {
        /// The object by name.
        object: String,
        /// Stop, or start.
        stopped: bool,
    },
    /// Replace the containers that an object stands for.
    Restart {
        /// The object by name.
        object: String,
    },
    /// Remove what an object stands for.
    Remove {
        /// The object by name.
        object: String,
    },
    /// Remove everything.
    Down,
}

/// A count, or a change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// That many.
    Exactly(u32),
    /// That many more.
    More(u32),
    /// That many fewer.
    Fewer(u32),
}

/// The events that a command leads to, and the Units that it is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commanded {
    /// To be committed and applied.
    pub events: Vec<Event>,
    /// What the command is about.
    pub units: Vec<UnitId>,
}

impl State {
    /// Checks a command and says what it leads to.
    ///
    /// # Errors
    /// `NotFound` and `Conflict` as [`State::object`]; `Refused` beyond a limit; `Conflict` for a service port that
    /// another Unit has.
    pub fn command(&self, command: &Command, actor: &Actor) -> Result<Commanded> {
        match command {
            Command::Apply(services) => self.apply_command(services, actor),
            Command::Scale { unit, count } => self.scale_command(unit, *count, actor),
            Command::Switch { object, stopped } => {
                let units = self.units_of(&self.deployed(object)?);
                let events = units
                    .iter()
                    .filter(|id| self.units.get(id).is_some_and(|unit| unit.stopped != *stopped))
                    .map(|unit| Event::Switched { unit: unit.clone(), stopped: *stopped, actor: actor.to_string() })
                    .collect();
                Ok(Commanded { events, units })
            }
            Command::Restart { object } => {
                let object = self.object(object)?;
                let units = self.units_of(&object);
                if let Object::Server(server) = &object {
                    return Err(Error::invalid(format!("{server} is a server: only containers are restarted")));
                }
                let because = format!("{actor} asked for a restart");
                let events = units
                    .iter()
                    .filter_map(|id| self.units.get(id))
                    .flat_map(|unit| self.of(unit))
                    .filter(|container| container.is_wanted() && has_started(container))
                    .filter(|container| !matches!(&object, Object::Container(only) if *only != container.id))
                    .map(|container| Event::ReplaceAsked { container: container.id.clone(), because: because.clone() })
                    .collect();
                Ok(Commanded { events, units })
            }
            Command::Remove { object } => match self.object(object)? {
                Object::Container(container) => {
                    // The Unit keeps its count: a removed container is one that is replaced.
                    let because = format!("{actor} removed it");
                    let wanted = self.containers.get(&container).filter(|record| record.is_wanted());
                    let units = self.units_of(&Object::Container(container.clone()));
                    let events = wanted.map(|_| Event::ReplaceAsked { container, because }).into_iter().collect();
                    Ok(Commanded { events, units })
                }
                Object::Server(server) => {
                    Err(Error::invalid(format!("{server} is a server: rearrange or cordon it instead")))
                }
                other => Ok(self.remove_units(self.units_of(&other), actor)),
            },
            Command::Down => Ok(self.remove_units(self.units.keys().cloned().collect(), actor)),
        }
    }

    /// The addresses of service ports by the Unit that has them.
    pub fn service_addresses(&self) -> BTreeMap<SocketAddr, UnitId> {
        let mut addresses = BTreeMap::new();
        for (id, unit) in &self.units {
            for port in &unit.spec.template.ports {
                if let Some(service) = port.service {
                    addresses.insert(SocketAddr::new(port.address, service), id.clone());
                }
            }
        }
        addresses
    }

    fn apply_command(&self, services: &[ServiceSpec], actor: &Actor) -> Result<Commanded> {
        let mut commanded = Commanded::default();
        for service in services {
            for (map, spec) in &service.maps {
                for name in spec.units.keys() {
                    commanded.units.push(UnitId::new(service.name.clone(), map.clone(), name.clone()));
                }
            }
            if self.would_change(service) {
                let event = Event::Applied { service: Box::new(service.clone()), actor: actor.to_string() };
                commanded.events.push(event);
            }
        }
        Ok(commanded)
    }

    /// Whether applying a Service would change anything.
    fn would_change(&self, service: &ServiceSpec) -> bool {
        if self.quotas.get(&service.name) != Some(&service.quota) {
            return true;
        }
        service.maps.iter().any(|(map, spec)| {
            let of_map = |id: &&UnitId| id.service == service.name && id.map == *map;
            let left =
                self.units.iter().any(|(id, unit)| of_map(&id) && !unit.removing && !spec.units.contains_key(&id.unit));
            left || spec.units.iter().any(|(name, wanted)| {
                let id = UnitId::new(service.name.clone(), map.clone(), name.clone());
                self.units.get(&id).is_none_or(|unit| unit.removing || unit.spec != *wanted)
            })
        })
    }

    fn scale_command(&self, name: &str, count: Count, actor: &Actor) -> Result<Commanded> {
        let id = self.unit_named(name)?;
        let unit = self.units.get(&id).ok_or_else(|| Error::not_found(format!("no unit {id}")))?;
        let desired = match count {
            Count::Exactly(desired) => desired,
            Count::More(by) => unit.desired.saturating_add(by),
            Count::Fewer(by) => unit.desired.saturating_sub(by),
        };
        if unit.removing {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("{id} is being removed: apply its manifest again to have it back"),
            ));
        }
        let limits = &unit.spec.replicas;
        if desired < limits.min || desired > limits.max {
            return Err(Error::refused(format!(
                "{id} may have {} to {} containers, not {desired}: change scale.min or scale.max in the manifest",
                limits.min, limits.max
            )));
        }
        // Fewer are always allowed, also where a lower quota came after the containers.
        if desired > unit.desired
            && let Some(most) = self.quotas.get(&id.service).and_then(|quota| quota.containers)
        {
            let others = self
                .units
                .iter()
                .filter(|(other, _)| other.service == id.service && **other != id)
                .fold(0_u32, |sum, (_, unit)| sum.saturating_add(unit.goal()));
            if others.saturating_add(desired) > most {
                return Err(Error::refused(format!(
                    "the quota of service {} allows {most} containers; other units have {others}, so {id} may have {}",
                    id.service,
                    most.saturating_sub(others)
                )));
            }
        }
        let events = if desired == unit.desired {
            Vec::new()
        } else {
            vec![Event::Scaled { unit: id.clone(), desired, actor: actor.to_string() }]
        };
        Ok(Commanded { events, units: vec![id] })
    }

    fn remove_units(&self, units: Vec<UnitId>, actor: &Actor) -> Commanded {
        let events = units
            .iter()
            .filter(|id| self.units.get(id).is_some_and(|unit| !unit.removing))
            .map(|unit| Event::UnitRemoved { unit: unit.clone(), actor: actor.to_string() })
            .collect();
        Commanded { events, units }
    }

    /// An object that consists of Units.
    fn deployed(&self, name: &str) -> Result<Object> {
        match self.object(name)? {
            Object::Container(id) => Err(Error::invalid(format!(
                "{id} is a container: stop or scale its unit, or restart it to have it replaced"
            ))),
            Object::Server(id) => Err(Error::invalid(format!("{id} is a server, not a unit or map"))),
            object => Ok(object),
        }
    }
}

/// Whether there is something to restart. What has not started yet is new as it is, so that a restart that is asked
/// for twice is one.
fn has_started(container: &Container) -> bool {
    match container.state {
        ContainerState::Waiting
        | ContainerState::Loading
        | ContainerState::Ready
        | ContainerState::Backoff { .. }
        | ContainerState::Lost => true,
        ContainerState::Claimed
        | ContainerState::Preparing
        | ContainerState::Prepared
        | ContainerState::Starting
        | ContainerState::Draining
        | ContainerState::Stopped
        | ContainerState::Failed
        | ContainerState::Fenced => false,
    }
}
