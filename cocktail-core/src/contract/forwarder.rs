//! Service ports: the stable addresses of Units on the Manager's host.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::id::{ContainerId, UnitId};
use crate::name::Name;

/// Forwards service ports to ready containers.
///
/// The whole table is given each time; what it no longer names is closed, connections of a backend that left the
/// table go on until they end. Repeating a table changes nothing.
#[async_trait]
pub trait Forwarder: fmt::Debug + Send + Sync {
    /// Proves that every address can be listened on, and holds them for the table that follows.
    /// Addresses that this forwarder serves already are free for it.
    ///
    /// Returns a sentence for each address that is taken.
    async fn check(&self, addresses: &[SocketAddr]) -> Result<Vec<(SocketAddr, String)>>;

    /// Replaces the table.
    async fn set(&self, table: &RoutingTable) -> Result<Vec<RouteOutcome>>;

    /// Connections by service and backend.
    async fn traffic(&self) -> Result<Vec<RouteTraffic>>;
}

/// Everything that is forwarded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingTable {
    /// One route per service port.
    pub routes: Vec<Route>,
}

/// One service port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The Unit.
    pub unit: UnitId,
    /// Which of its ports.
    pub port_name: Name,
    /// Where it listens.
    pub listen: SocketAddr,
    /// How long a client is held while no container is ready, at least.
    #[serde(default)]
    pub hold: Duration,
    /// Ready containers.
    pub backends: Vec<Backend>,
}

/// One ready container behind a service port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Backend {
    /// The container.
    pub container: ContainerId,
    /// Its address.
    pub address: SocketAddr,
}

/// Whether a route listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteOutcome {
    /// Where.
    pub listen: SocketAddr,
    /// Why not, if not.
    pub error: Option<String>,
}

/// Connections of one route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTraffic {
    /// Where it listens.
    pub listen: SocketAddr,
    /// By container, also of those that left the table.
    pub backends: BTreeMap<ContainerId, BackendTraffic>,
    /// Clients that wait for a backend.
    pub waiting: u64,
    /// Connections since the route was made.
    pub total: u64,
    /// Connections that found no backend in time.
    pub refused: u64,
}

/// Traffic of one backend. A request is what a client sends until the backend begins to answer, so of protocols that
/// answer before they are asked, or ask again before they are answered, there are fewer than it seems.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendTraffic {
    /// Open connections.
    pub connections: u64,
    /// Requests that are not answered yet.
    pub in_flight: u64,
    /// Requests that were answered since the backend was added.
    pub requests: u64,
    /// Answered requests by the time to the first byte of the answer: entry `n` counts those below `2^(n+6)`
    /// microseconds that are not in an entry before; the last one all others.
    pub latencies: Vec<u64>,
}
