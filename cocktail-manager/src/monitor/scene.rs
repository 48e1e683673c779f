//! What there is to look at, copied out of the state between turns.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use cocktail_core::container::{Container, ContainerState};
use cocktail_core::error::Result;
use cocktail_core::id::{ContainerId, ServerId, UnitId};
use cocktail_core::spec::Scrape;
use cocktail_core::state::State;
use cocktail_core::unit::Unit;

use super::scrape::Target;
use crate::shared::Shared;

/// Containers that are copied at once, if they are not all of one Unit: what the writer does in a few milliseconds.
const AT_ONCE: usize = 1024;

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
    /// Copies everything, some Units at a time: turns go on between two looks.
    ///
    /// # Errors
    /// The Manager has ended.
    pub(super) async fn survey(shared: &Shared) -> Result<Self> {
        let sizes = |state: &State| -> Vec<(UnitId, usize)> {
            state.units.iter().map(|(id, unit)| (id.clone(), unit.containers.len())).collect()
        };
        let (listens, sizes) = shared.look(move |state, _| (state.service_addresses(), sizes(state))).await?;
        let mut scene = Self { listens, ..Self::default() };
        let mut rest = &sizes[..];
        while !rest.is_empty() {
            let sums = rest.iter().scan(0, |sum, (_, size)| {
                *sum += size;
                Some(*sum)
            });
            let (some, others) = rest.split_at(sums.take_while(|sum| *sum <= AT_ONCE).count().max(1).min(rest.len()));
            rest = others;
            let ids: Vec<UnitId> = some.iter().map(|(id, _)| id.clone()).collect();
            let part = shared.look(move |state, _| Self::of(state, &ids)).await?;
            scene.units.extend(part.units);
            scene.containers.extend(part.containers);
            scene.targets.extend(part.targets);
        }
        Ok(scene)
    }

    /// Copies some Units, as far as they are still there.
    fn of(state: &State, ids: &[UnitId]) -> Self {
        let mut scene = Self::default();
        for (id, unit) in ids.iter().filter_map(|id| state.units.get_key_value(id)) {
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
