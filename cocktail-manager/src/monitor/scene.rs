//! What there is to look at, copied out of the state between two turns.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use cocktail_core::container::{Container, ContainerState};
use cocktail_core::id::{ContainerId, ServerId, UnitId};
use cocktail_core::spec::Scrape;
use cocktail_core::state::State;
use cocktail_core::unit::Unit;

use super::scrape::Target;

/// Everything that one look is about.
#[derive(Debug, Default)]
pub(super) struct Scene {
    pub(super) units: BTreeSet<UnitId>,
    pub(super) containers: BTreeMap<ContainerId, Watched>,
    /// Service ports by the Unit that has them.
    pub(super) listens: BTreeMap<SocketAddr, UnitId>,
    /// Endpoints of the workers' own metrics.
    pub(super) targets: Vec<Target>,
}

/// One container.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) unit: UnitId,
    pub(super) server: ServerId,
    pub(super) ready: bool,
    /// It may have a process, so there is something to read.
    pub(super) runs: bool,
    /// Its Unit has service ports.
    pub(super) routed: bool,
}

impl Scene {
    pub(super) fn of(state: &State) -> Self {
        let mut scene = Self { listens: state.service_addresses(), ..Self::default() };
        for (id, unit) in &state.units {
            scene.units.insert(id.clone());
            for record in state.of(unit) {
                let ready = record.state == ContainerState::Ready;
                scene.targets.extend(target(state, unit, record).filter(|_| ready));
                let watched = Watched {
                    unit: id.clone(),
                    server: record.server.clone(),
                    ready,
                    runs: record.handle.is_some() && record.state.may_run(),
                    routed: unit.is_routed(),
                };
                scene.containers.insert(record.id.clone(), watched);
            }
        }
        scene
    }
}

fn target(state: &State, unit: &Unit, record: &Container) -> Option<Target> {
    let scaling = unit.spec.replicas.scaling.as_ref()?;
    let Scrape { path, port } = scaling.scrape.as_ref()?;
    let lease = match port {
        Some(name) => record.ports.iter().find(|lease| lease.name == *name),
        None => record.ports.first(),
    };
    Some(Target {
        container: record.id.clone(),
        at: SocketAddr::new(state.host_of(&record.server), lease?.port?),
        path: path.clone(),
        wanted: scaling.targets.keys().cloned().collect(),
    })
}
