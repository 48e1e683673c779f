//! What users ask for, checked against the state and turned into events.
//!
//! Start at [`State::command`]. It changes nothing: the events that it returns are committed first. A command that
//! asks for what is the case already returns no events.

mod servers;
mod workers;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::container::{Container, ContainerState};
use crate::contract::{Actor, RearrangeOptions, RolloutAction};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::id::{Revision, ServerId, UnitId};
use crate::quantity::Bytes;
use crate::rollout::{RolloutState, RolloutStep};
use crate::spec::{Resources, ServiceSpec};
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
    /// Steer the rollout of a Unit.
    Rollout {
        /// The Unit by name.
        unit: String,
        /// How.
        action: RolloutAction,
    },
    /// Go back to an earlier revision.
    Rollback {
        /// The Unit by name.
        unit: String,
        /// To which; the one that served before when `None`.
        to: Option<Revision>,
    },
    /// Refuse the agent of a server, or let it in again.
    Revoke {
        /// The server by name.
        server: String,
        /// Why; `None` lets it in again.
        because: Option<String>,
    },
    /// Make a token with which the agent of a server may join.
    JoinToken {
        /// The server by name.
        server: String,
        /// How long it is good.
        ttl: std::time::Duration,
    },
    /// Remove what an object stands for.
    Remove {
        /// The object by name.
        object: String,
    },
    /// Remove everything.
    Down,
    /// Place nothing new on a server, or place again.
    Cordon {
        /// The server by id or unique prefix.
        server: String,
        /// Nothing new, or again.
        cordoned: bool,
    },
    /// Empty a server: others serve first.
    Rearrange {
        /// The server by id or unique prefix.
        server: String,
        /// How.
        options: RearrangeOptions,
    },
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

/// The events that a command leads to, and what it is about.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Commanded {
    /// To be committed and applied.
    pub events: Vec<Event>,
    /// Units that the command is about.
    pub units: Vec<UnitId>,
    /// The server that the command is about.
    pub server: Option<ServerId>,
}

impl Commanded {
    fn of_units(events: Vec<Event>, units: Vec<UnitId>) -> Self {
        Self { events, units, server: None }
    }

    fn of_server(events: Vec<Event>, server: ServerId) -> Self {
        Self { events, units: Vec::new(), server: Some(server) }
    }
}

impl State {
    /// Checks a command and says what it leads to.
    ///
    /// # Errors
    /// `NotFound` and `Conflict` as [`State::object`]; `Refused` beyond a limit; `Conflict` for a service port that
    /// another Unit has, and for a server that is in no state for it.
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
                Ok(Commanded::of_units(events, units))
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
                    .filter(|container| container.replace.is_none())
                    .filter(|container| container.is_done() || container.is_wanted() && has_started(container))
                    .filter(|container| !matches!(&object, Object::Container(only) if *only != container.id))
                    .map(|container| Event::ReplaceAsked { container: container.id.clone(), because: because.clone() })
                    .collect();
                Ok(Commanded::of_units(events, units))
            }
            Command::Rollout { unit, action } => self.rollout_command(unit, *action, actor),
            Command::Rollback { unit, to } => self.rollback_command(unit, *to, actor),
            Command::Remove { object } => match self.object(object)? {
                Object::Container(container) => {
                    // The Unit keeps its count: a removed container is one that is replaced.
                    let because = format!("{actor} removed it");
                    let wanted = self.containers.get(&container).filter(|record| record.is_wanted());
                    let units = self.units_of(&Object::Container(container.clone()));
                    let events = wanted.map(|_| Event::ReplaceAsked { container, because }).into_iter().collect();
                    Ok(Commanded::of_units(events, units))
                }
                Object::Server(server) => Err(Error::invalid(format!(
                    "{server} is a server: `rearrange` empties it, `cordon` keeps it from new containers"
                ))),
                other => Ok(self.remove_units(self.units_of(&other), actor)),
            },
            Command::Down => Ok(self.remove_units(self.units.keys().cloned().collect(), actor)),
            Command::Revoke { server, because } => self.revoke_command(server, because.as_deref(), actor),
            Command::JoinToken { server, ttl } => self.join_token_command(server, *ttl, actor),
            Command::Cordon { server, cordoned: true } => self.cordon_command(server, actor),
            Command::Cordon { server, cordoned: false } => self.uncordon_command(server, actor),
            Command::Rearrange { server, options } => self.rearrange_command(server, *options, actor),
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
        let Some(known) = self.services.get(&service.name) else { return true };
        if known.quota != service.quota || known.labels != service.labels {
            return true;
        }
        service.maps.iter().any(|(map, spec)| {
            if known.maps.get(map) != Some(&spec.labels) {
                return true;
            }
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
            && let Some(most) = self.quota(&id.service).and_then(|quota| quota.containers)
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
        if desired > unit.desired {
            self.check_quota(&id, unit.spec.template.resources, desired)?;
        }
        let events = if desired == unit.desired {
            Vec::new()
        } else {
            vec![Event::Scaled { unit: id.clone(), desired, actor: actor.to_string() }]
        };
        Ok(Commanded::of_units(events, vec![id]))
    }

    /// Whether `desired` containers of a Unit fit the reservations that its Service may make.
    fn check_quota(&self, id: &UnitId, resources: Resources, desired: u32) -> Result<()> {
        let Some(quota) = self.quota(&id.service) else { return Ok(()) };
        let others = self.units.iter().filter(|(other, _)| other.service == id.service && *other != id);
        let (mut cpu, mut memory) = (0_u64, 0_u64);
        let all = others.map(|(_, unit)| (unit.spec.template.resources, unit.goal())).chain([(resources, desired)]);
        for (resources, count) in all {
            cpu = cpu.saturating_add(resources.cpu.0.saturating_mul(count.into()));
            memory = memory.saturating_add(resources.memory.0.saturating_mul(count.into()));
        }
        if let Some(most) = quota.cpu.filter(|most| cpu > most.0) {
            let service = &id.service;
            return Err(Error::refused(format!(
                "the quota of service {service} allows {}m cpu; {desired} containers of {id} make it {cpu}m",
                most.0
            )));
        }
        if let Some(most) = quota.memory.filter(|most| memory > most.0) {
            let (service, memory) = (&id.service, Bytes(memory));
            return Err(Error::refused(format!(
                "the quota of service {service} allows {most} of memory; {desired} containers of {id} make it {memory}"
            )));
        }
        Ok(())
    }

    fn rollout_command(&self, name: &str, action: RolloutAction, actor: &Actor) -> Result<Commanded> {
        let id = self.unit_named(name)?;
        let unit = self.units.get(&id).ok_or_else(|| Error::not_found(format!("no unit {id}")))?;
        let Some(rollout) = unit.rollout.as_ref().filter(|rollout| rollout.state.is_open()) else {
            let state = unit.rollout.as_ref().map_or("completed", |rollout| rollout.state.as_str());
            let because = format!("{id} has no rollout to {action}: the last one is {state}");
            return Err(Error::new(ErrorKind::Conflict, because));
        };
        let stepped = |step| {
            let (unit, because) = (id.clone(), format!("{actor} asked to {action} it"));
            vec![Event::RolloutStepped { unit, step, failed: false, because }]
        };
        let events = match action {
            RolloutAction::Pause if rollout.state == RolloutState::Paused => Vec::new(),
            RolloutAction::Pause => stepped(RolloutStep::Pause),
            RolloutAction::Resume if rollout.state != RolloutState::Paused => Vec::new(),
            RolloutAction::Resume => stepped(RolloutStep::Resume),
            RolloutAction::Promote if rollout.canary == 0 => Vec::new(),
            RolloutAction::Promote if rollout.state == RolloutState::Paused => {
                let because = format!("the rollout of {id} is paused: resume it first");
                return Err(Error::new(ErrorKind::Conflict, because));
            }
            RolloutAction::Promote => {
                vec![Event::Promoted { unit: id.clone(), because: format!("promoted by {actor}") }]
            }
            RolloutAction::Abort => return self.rollback_command(name, None, actor),
        };
        Ok(Commanded::of_units(events, vec![id]))
    }

    fn rollback_command(&self, name: &str, to: Option<Revision>, actor: &Actor) -> Result<Commanded> {
        let id = self.unit_named(name)?;
        let unit = self.units.get(&id).ok_or_else(|| Error::not_found(format!("no unit {id}")))?;
        if let Some(rollout) = &unit.rollout
            && rollout.state == RolloutState::RollingBack
            && to.is_none_or(|to| to == rollout.to)
        {
            return Ok(Commanded::of_units(Vec::new(), vec![id]));
        }
        let Some(to) = to.or_else(|| unit.previous()) else {
            let because = format!("{id} has no earlier revision that served: apply the manifest that you want back");
            return Err(Error::new(ErrorKind::Conflict, because));
        };
        if !unit.templates.contains_key(&to) {
            let kept: Vec<String> = unit.templates.keys().map(ToString::to_string).collect();
            return Err(Error::not_found(format!("{id} has no revision {to}; it has {}", kept.join(", "))));
        }
        let events = if to == unit.revision {
            Vec::new()
        } else {
            let because = format!("{actor} asked to go back to revision {to}");
            let step = RolloutStep::RollBack { to };
            vec![Event::RolloutStepped { unit: id.clone(), step, failed: false, because }]
        };
        Ok(Commanded::of_units(events, vec![id]))
    }

    fn remove_units(&self, units: Vec<UnitId>, actor: &Actor) -> Commanded {
        let events = units
            .iter()
            .filter(|id| self.units.get(id).is_some_and(|unit| !unit.removing))
            .map(|unit| Event::UnitRemoved { unit: unit.clone(), actor: actor.to_string() })
            .collect();
        Commanded::of_units(events, units)
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
