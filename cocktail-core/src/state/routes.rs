//! What follows from the state for the outside: the routing table, and starts as a runtime needs them.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::State;
use crate::container::{Container, ContainerState};
use crate::contract::{
    Backend, Known, Launch, LaunchAssignment, LaunchImage, LaunchPort, LaunchProbe, LaunchVolume, LaunchWorker,
    ProbeKind, Route, RoutingTable, StopOrder, UnloadOrder,
};
use crate::error::{Error, Result};
use crate::id::{ContainerId, ServerId, UnitId};
use crate::manifest;
use crate::name::Name;
use crate::operation::{Operation, OperationKind};
use crate::spec::{Check, Image, Probe, Template, VolumeKind, VolumeSpec};

impl State {
    /// Every service port with its ready containers, in the order of Units and ports.
    pub fn routing_table(&self) -> RoutingTable {
        let mut routes = Vec::new();
        for (id, unit) in &self.units {
            if unit.removing && unit.containers.is_empty() {
                continue;
            }
            for port in &unit.spec.template.ports {
                let Some(service) = port.service else { continue };
                let backends = unit
                    .containers
                    .iter()
                    .filter_map(|container| self.containers.get(container))
                    .filter(|container| container.state == ContainerState::Ready)
                    .filter_map(|container| {
                        let lease = container.ports.iter().find(|lease| lease.name == port.name)?;
                        let host = self.host_of(&container.server);
                        Some(Backend { container: container.id.clone(), address: SocketAddr::new(host, lease.port?) })
                    })
                    .collect();
                routes.push(Route {
                    unit: id.clone(),
                    port_name: port.name.clone(),
                    listen: SocketAddr::new(port.address, service),
                    // A Unit that may have no container gets the time to start one.
                    hold: if unit.limits().0 == 0 { unit.spec.update.progress } else { std::time::Duration::ZERO },
                    backends,
                });
            }
        }
        RoutingTable { routes }
    }

    /// Address of a server's containers as the Manager's host reaches them.
    pub fn host_of(&self, server: &ServerId) -> IpAddr {
        self.servers.get(server).map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |server| server.address)
    }

    /// A start of a container, fully specified: byte for byte the same at each call for the same generation and
    /// assignment.
    ///
    /// # Errors
    /// `NotFound` when the container or its Unit is gone; `Conflict` while it has no port; `InvalidConfig` for a
    /// substitution that names nothing.
    pub fn launch(&self, container: &ContainerId) -> Result<Launch> {
        let record = self.containers.get(container).ok_or_else(|| Error::not_found(format!("no {container}")))?;
        let unit = self.units.get(&record.unit).ok_or_else(|| Error::not_found(format!("no unit {}", record.unit)))?;
        let template = unit.template(record.revision);
        let ports = launch_ports(record, template)?;
        let variables = LazyCell::new(|| variables(record, &ports));
        let substitute = |text: &String| match text.contains('$') {
            true => manifest::substitute(text, &variables).map_err(|error| Error::invalid(error.to_string())),
            false => Ok(text.clone()),
        };
        let volumes = launch_volumes(record, template, unit.desired);
        let mut env = BTreeMap::new();
        for (key, value) in &template.env {
            env.insert(key.clone(), substitute(value)?);
        }
        if let Some(first) = ports.first() {
            env.insert("PORT".into(), first.inside().to_string());
        }
        for port in &ports {
            env.insert(format!("COCKTAIL_PORT_{}", port.name.to_env()), port.inside().to_string());
        }
        env.insert("COCKTAIL_CONTAINER".into(), record.id.to_string());
        env.insert("COCKTAIL_SERVER".into(), record.server.to_string());
        let paused = record.is_spare() && template.image.is_some();
        if paused || !record.is_spare() {
            env.insert("COCKTAIL_UNIT".into(), record.unit.to_string());
            env.insert("COCKTAIL_REVISION".into(), record.revision.to_string());
        }
        let probes = [(ProbeKind::Ready, &template.ready), (ProbeKind::Live, &template.live)]
            .into_iter()
            .filter_map(|(kind, probe)| {
                probe.as_ref().filter(|_| paused || !record.is_spare()).map(|probe| (kind, probe))
            })
            .map(|(kind, probe)| launch_probe(kind, probe, &ports, &substitute))
            .collect::<Result<_>>()?;
        let image = match &template.image {
            Some(image) => Some(launch_image(image, &record.unit, &substitute)?),
            None => None,
        };
        Ok(Launch {
            container: record.id.clone(),
            generation: record.generation,
            store: self.store.clone(),
            epoch: self.epoch,
            argv: template.command.iter().map(substitute).collect::<Result<_>>()?,
            env,
            env_from: template.env_from.clone(),
            secrets: template.secrets.clone(),
            cwd: template.cwd.clone(),
            user: template.user.clone(),
            ports,
            resources: template.resources,
            rlimits: template.rlimits.clone(),
            volumes,
            probes,
            outlives_lease: record.outlives_lease,
            paused,
            worker: record.worker.as_ref().filter(|_| !paused).map(|worker| LaunchWorker {
                assignment: (!worker.spare).then(|| LaunchAssignment {
                    number: worker.assignment,
                    unit: record.unit.clone(),
                    revision: record.revision,
                    microservices: template.microservices.clone(),
                }),
            }),
            image,
            artifact: template.artifact.clone(),
        })
    }

    /// The order that a stop operation stands for.
    pub fn stop_order(&self, operation: &Operation) -> Option<StopOrder> {
        let OperationKind::Stop { signal, grace } = operation.kind else { return None };
        Some(StopOrder { container: operation.container.clone(), generation: operation.generation, signal, grace })
    }

    /// The order that an unload operation stands for.
    pub fn unload_order(&self, operation: &Operation) -> Option<UnloadOrder> {
        let OperationKind::Unload { grace, .. } = operation.kind else { return None };
        let (container, generation) = (operation.container.clone(), operation.generation);
        let assignment = self.containers.get(&container)?.worker.as_ref()?.assignment;
        Some(UnloadOrder { container, generation, assignment, grace })
    }

    /// What a runtime is told of a server's containers when the Manager attaches to it.
    pub fn known(&self, server: &ServerId) -> Vec<Known> {
        self.on(server)
            .filter(|container| container.state.may_run())
            .filter_map(|container| {
                let launch = self.launch(&container.id).ok()?;
                Some(Known { launch, handle: container.handle.clone() })
            })
            .collect()
    }
}

/// What `${…}` stands for in the command and the environment.
fn variables(record: &Container, ports: &[LaunchPort]) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::from([
        ("CONTAINER".to_owned(), record.id.to_string()),
        ("SERVER".to_owned(), record.server.to_string()),
        ("UNIT".to_owned(), record.unit.to_string()),
    ]);
    if let Some(first) = ports.first() {
        variables.insert("PORT".into(), first.inside().to_string());
    }
    for port in ports {
        variables.insert(format!("PORT_{}", port.name.to_env()), port.inside().to_string());
    }
    variables
}

fn launch_ports(record: &Container, template: &Template) -> Result<Vec<LaunchPort>> {
    record
        .ports
        .iter()
        .map(|lease| {
            let port = lease.port.ok_or_else(|| {
                Error::new(
                    crate::error::ErrorKind::Conflict,
                    format!("port {} of {} is not leased", lease.name, record.id),
                )
            })?;
            let spec = template.ports.iter().find(|spec| spec.name == lease.name);
            let inherit = spec.is_some_and(|spec| spec.inherit);
            let container = spec.and_then(|spec| spec.container);
            Ok(LaunchPort { name: lease.name.clone(), port, inherit, container })
        })
        .collect()
}

fn launch_image(image: &Image, unit: &UnitId, substitute: &impl Fn(&String) -> Result<String>) -> Result<LaunchImage> {
    let entrypoint = image.entrypoint.as_ref().map(|parts| parts.iter().map(substitute).collect::<Result<_>>());
    Ok(LaunchImage {
        reference: image.exact(),
        entrypoint: entrypoint.transpose()?,
        read_only: image.read_only,
        unit: unit.clone(),
    })
}

fn launch_volumes(record: &Container, template: &Template, wanted: u32) -> Vec<LaunchVolume> {
    template
        .volumes
        .iter()
        .map(|(name, volume)| {
            let path = volume_path(record, name, volume);
            // Several containers share the working directory; a link of their own is made only where there is one.
            let own =
                template.image.is_some() || wanted <= 1 || matches!(volume.kind, VolumeKind::Shared | VolumeKind::Bind);
            LaunchVolume { name: name.clone(), path, link: own.then(|| volume.mount.clone()), kind: volume.kind }
        })
        .collect()
}

/// Where a container's volume is below the data dir's volumes; of a bind, its source.
pub(super) fn volume_path(record: &Container, name: &Name, volume: &VolumeSpec) -> PathBuf {
    let unit = &record.unit;
    let home = PathBuf::from(unit.service.as_str()).join(unit.map.as_str()).join(unit.unit.as_str());
    match volume.kind {
        VolumeKind::Shared => home.join(name.as_str()),
        VolumeKind::Exclusive => home.join(format!("{name}.{}", record.slot.unwrap_or_default())),
        VolumeKind::Ephemeral => home.join(format!("{name}.{}", record.id)),
        VolumeKind::Bind => volume.source.clone().unwrap_or_default(),
    }
}

fn launch_probe(
    kind: ProbeKind,
    probe: &Probe,
    ports: &[LaunchPort],
    substitute: &impl Fn(&String) -> Result<String>,
) -> Result<LaunchProbe> {
    let named = |name: &Option<Name>| match name {
        Some(name) => ports.iter().find(|port| port.name == *name).map(|port| port.port),
        None => ports.first().map(|port| port.port),
    };
    let port = match &probe.check {
        Check::Tcp { port } | Check::Http { port, .. } => named(port),
        Check::Exec { .. } | Check::Worker => None,
    };
    let check = match &probe.check {
        Check::Exec { command } => Check::Exec { command: command.iter().map(substitute).collect::<Result<_>>()? },
        other => other.clone(),
    };
    Ok(LaunchProbe { kind, check, port, every: probe.every, timeout: probe.timeout, failures: probe.failures })
}
