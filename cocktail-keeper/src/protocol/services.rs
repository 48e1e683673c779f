//! Service ports: the forwarder's table and its counts.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A set of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listen {
    /// The addresses.
    pub addrs: Vec<SocketAddr>,
}

/// The whole table of the forwarder. What it does not name any more is closed; its connections finish.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetServices {
    /// Version of the table, for the log only.
    pub version: u64,
    /// The services.
    pub services: Vec<Service>,
}

/// One stable address and where its connections go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Name of the service, unique in the table.
    pub key: String,
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Above this many connections accepting stops until one ends.
    pub max_connections: u32,
    /// How long a client waits, in milliseconds, while there is no backend.
    pub hold_ms: u64,
    /// The containers that may take connections.
    pub backends: Vec<Backend>,
}

impl Default for Service {
    fn default() -> Self {
        Self { key: String::new(), listen: Vec::new(), max_connections: 4096, hold_ms: 5_000, backends: Vec::new() }
    }
}

/// One backend of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Backend {
    /// Container id.
    pub container: String,
    /// Where it listens.
    pub addr: SocketAddr,
}

/// Whether an address could be listened on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BindOutcome {
    /// It is ours.
    Bound,
    /// Another process has it.
    AddrInUse {
        /// The address.
        addr: SocketAddr,
        /// Process name and pid, when they could be found.
        holder: Option<String>,
    },
    /// The keeper may not listen there.
    Denied {
        /// The address.
        addr: SocketAddr,
        /// What the kernel said.
        errno: i32,
    },
}

/// One service of the forwarder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceInfo {
    /// Name of the service.
    pub key: String,
    /// Addresses that it listens on now.
    pub listen: Vec<SocketAddr>,
    /// Open connections, waiting clients included.
    pub active: u64,
    /// Clients that wait for a backend.
    pub waiting: u64,
    /// Connections since the service was set.
    pub total: u64,
    /// Clients that were closed without a backend.
    pub refused: u64,
    /// Requests that were answered since the service was set.
    pub requests: u64,
    /// Its backends; removed ones stay until their last connection ends.
    pub backends: Vec<BackendInfo>,
}

/// One backend of the forwarder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendInfo {
    /// Container id.
    pub container: String,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Open connections.
    pub active: u64,
    /// Connections since it was added.
    pub total: u64,
    /// Connections that it refused.
    pub refused: u64,
    /// It refused and gets nothing until the next table.
    pub ejected: bool,
    /// The table does not name it any more.
    pub removed: bool,
    /// Requests without an answer.
    #[serde(default)]
    pub in_flight: u64,
    /// Requests that were answered since it was added.
    #[serde(default)]
    pub requests: u64,
    /// Answers by the time to their first byte: entry `n` counts those below `2^(n+6)` microseconds that are not in an
    /// entry before, the last one all others.
    #[serde(default)]
    pub latencies: Vec<u64>,
}
