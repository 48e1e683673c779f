//! The words that a keeper and its Manager exchange.
//!
//! Start at [`Request`] and [`Reply`]; [`Refusal`] is every "no" that a keeper can say. The types are the keeper's own and
//! not core's, because a keeper outlives upgrades of the program that started it: unknown fields are ignored, missing
//! ones have defaults, and [`VERSIONS`] is negotiated before anything else is said.
//! Every request may be repeated; what repeating does stands beside it. Times are milliseconds since the Unix epoch
//! (`at_ms`) or kernel ticks since boot (`start_time`), sizes are bytes.

mod records;
mod refusal;
mod services;
mod streams;
mod wire;
mod workers;

pub use records::{
    Adopt, AdoptContainer, AdoptOutcome, Adoption, ContainerInfo, ContainerState, ContainerUsage, Found, Listing,
};
pub use refusal::{Refusal, StartError};
pub use services::{Backend, BackendInfo, BindOutcome, Listen, Service, ServiceInfo, SetServices};
pub use streams::{ExecRequest, LogsRequest};
pub use wire::{Event, EventFrame, Intent, Reply, Request, RequestFrame, ServerFrame, Subscribe, Welcome, WireHello};
pub use workers::{
    CgroupLimits, Exit, ExitStatus, PortSpec, Ports, Prepare, Remove, Rlimit, RlimitKind, SetLease, Shutdown, Signal,
    Start, StartOutcome, Started, Stop, StopPolicy,
};

/// The oldest and the newest protocol version that this build speaks.
pub const VERSIONS: (u32, u32) = (1, 1);
/// The longest frame that either side accepts; a longer length prefix closes the connection.
pub const MAX_FRAME: usize = 8 * 1024 * 1024;
/// Environment variable that carries the store id of whoever started a worker. The keeper always sets it.
pub const ENV_MARKER: &str = "COCKTAIL_MARKER";
/// Environment variable that carries the container's id. The keeper always sets it.
pub const ENV_CONTAINER: &str = "COCKTAIL_CONTAINER";
/// Environment variable that carries the container's generation. The keeper always sets it.
pub const ENV_GENERATION: &str = "COCKTAIL_GENERATION";
