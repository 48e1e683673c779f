//! [`Forwarder`] in the keeper, so that connections outlive the Manager.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use cocktail_core::contract::{BackendTraffic, Forwarder, Route, RouteOutcome, RouteTraffic, RoutingTable};
use cocktail_core::error::Result;
use cocktail_core::id::{ContainerId, UnitId};
use cocktail_core::name::Name;
use cocktail_keeper::protocol::{Backend, BindOutcome, Service, ServiceInfo, SetServices};

use crate::error::{Call, of_keeper};
use crate::shared::{Shared, lock};

/// Service ports of this machine.
#[derive(Debug)]
pub(crate) struct StandaloneForwarder {
    shared: Arc<Shared>,
}

impl StandaloneForwarder {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn service(&self, route: &Route) -> Service {
        let config = &self.shared.fixed.config;
        let backend = |backend: &cocktail_core::contract::Backend| Backend {
            container: backend.container.to_string(),
            addr: backend.address,
        };
        Service {
            key: key(route),
            listen: vec![route.listen],
            max_connections: config.max_connections,
            hold_ms: u64::try_from(config.hold.max(route.hold).as_millis()).unwrap_or(u64::MAX),
            backends: route.backends.iter().map(backend).collect(),
        }
    }
}

#[async_trait]
impl Forwarder for StandaloneForwarder {
    async fn check(&self, addresses: &[SocketAddr]) -> Result<Vec<(SocketAddr, String)>> {
        let reads = |error| of_keeper(error, Call::Reads);
        let client = self.shared.any_client().await?;
        let served: BTreeSet<SocketAddr> =
            client.connections().await.map_err(reads)?.into_iter().flat_map(|service| service.listen).collect();
        let asked: Vec<SocketAddr> = addresses.iter().filter(|address| !served.contains(address)).copied().collect();
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let outcomes = client.check_listen(asked.clone()).await.map_err(reads)?;
        Ok(asked
            .into_iter()
            .zip(outcomes)
            .filter_map(|(address, outcome)| Some((address, problem(&outcome)?)))
            .collect())
    }

    async fn set(&self, table: &RoutingTable) -> Result<Vec<RouteOutcome>> {
        let client = self.shared.any_client().await?;
        let services = table.routes.iter().map(|route| self.service(route)).collect();
        let request = SetServices { services, ..SetServices::default() };
        *lock(&self.shared.table) = Some(request.clone());
        let outcomes = client.set_services(request).await.map_err(|error| of_keeper(error, Call::Acts))?;
        let outcome = |route: &Route| {
            let error = match outcomes.get(&key(route)) {
                Some(outcome) => problem(outcome),
                None => Some("the keeper did not say whether it listens".to_owned()),
            };
            RouteOutcome { listen: route.listen, error }
        };
        Ok(table.routes.iter().map(outcome).collect())
    }

    async fn traffic(&self) -> Result<Vec<RouteTraffic>> {
        let client = self.shared.any_client().await?;
        let services = client.connections().await.map_err(|error| of_keeper(error, Call::Reads))?;
        Ok(services.iter().filter_map(traffic).collect())
    }
}

/// The name of a route for the keeper: unique in a table, the same for the same service port.
fn key(route: &Route) -> String {
    format!("{}:{}", route.unit, route.port_name)
}

/// The Unit of a service that [`key`] named.
pub(crate) fn unit_of(key: &str) -> Option<UnitId> {
    let (unit, _) = key.split_once(':')?;
    let mut names = unit.split('/').map(Name::new);
    let (service, map, name) = (names.next()?.ok()?, names.next()?.ok()?, names.next()?.ok()?);
    Some(UnitId::new(service, map, name))
}

/// Why an address cannot be listened on, if it cannot.
fn problem(outcome: &BindOutcome) -> Option<String> {
    match outcome {
        BindOutcome::Bound => None,
        BindOutcome::AddrInUse { addr, holder } => {
            let holder = holder.as_deref().unwrap_or("another process");
            Some(format!("{addr} is taken by {holder}"))
        }
        BindOutcome::Denied { addr, errno } => {
            let error = std::io::Error::from_raw_os_error(*errno);
            Some(format!("{addr} cannot be listened on: {error}"))
        }
    }
}

fn traffic(service: &ServiceInfo) -> Option<RouteTraffic> {
    let mut backends: BTreeMap<ContainerId, BackendTraffic> = BTreeMap::new();
    for backend in &service.backends {
        let traffic = backends.entry(ContainerId::new(backend.container.clone())).or_default();
        traffic.connections += backend.active;
        traffic.in_flight += backend.in_flight;
        traffic.requests += backend.requests;
        traffic.latencies.resize(traffic.latencies.len().max(backend.latencies.len()), 0);
        for (sum, count) in traffic.latencies.iter_mut().zip(&backend.latencies) {
            *sum += count;
        }
    }
    let listen = *service.listen.first()?;
    Some(RouteTraffic { listen, backends, waiting: service.waiting, total: service.total, refused: service.refused })
}
