//! What a keeper knows: listings, adoption after a keeper died, use of resources.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    services::ServiceInfo,
    workers::{Exit, PortSpec, Started, StopPolicy},
};

/// What a container's record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Everything done but the start.
    Prepared,
    /// The main process runs.
    Running(Started),
    /// The main process ended and what it left behind is being ended.
    Ending(Started),
    /// Nothing of it is left.
    Exited(Exit),
}

/// One container that the keeper knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInfo {
    /// Container id.
    pub container: String,
    /// The generation of the record.
    pub generation: u64,
    /// Its state.
    pub state: ContainerState,
    /// The ports that it was prepared with.
    #[serde(default)]
    pub ports: Vec<PortSpec>,
    /// Bytes written to its log.
    #[serde(default)]
    pub log_bytes: u64,
    /// Bytes of output that were dropped.
    #[serde(default)]
    pub log_dropped: u64,
}

/// Everything the keeper holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listing {
    /// Every record, by container id.
    pub containers: Vec<ContainerInfo>,
    /// Every service of the forwarder, by key.
    pub services: Vec<ServiceInfo>,
    /// Ports that are held, by number.
    pub ports: Vec<u16>,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The number of the last event that this listing contains.
    pub seq: u64,
    /// Nothing is missing from this listing. Absent from an older keeper means it may be.
    pub complete: bool,
}

/// Hands containers of a dead keeper to this one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Adopt {
    /// What the Manager's ledger knows.
    pub containers: Vec<AdoptContainer>,
}

/// One container to adopt; the fields are those of its [`Start`](super::Start) and [`Started`].
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdoptContainer {
    /// Container id.
    pub container: String,
    /// Its generation.
    pub generation: u64,
    /// Main process.
    pub pid: u32,
    /// Its start time.
    pub start_time: u64,
    /// The boot of both.
    pub boot_id: String,
    /// Its ports, to be held again.
    pub ports: Vec<PortSpec>,
    /// Its environment, for later `exec`.
    pub env: BTreeMap<String, String>,
    /// Its working directory, for later `exec`.
    pub cwd: PathBuf,
    /// Its user, for later `exec`.
    pub user: Option<String>,
    /// As in [`Start`](super::Start).
    pub leftovers: StopPolicy,
}

/// The environment may hold secrets, so it is not shown.
impl std::fmt::Debug for AdoptContainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdoptContainer")
            .field("container", &self.container)
            .field("generation", &self.generation)
            .field("pid", &self.pid)
            .field("start_time", &self.start_time)
            .finish_non_exhaustive()
    }
}

/// Answer to [`Adopt`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Adoption {
    /// One per container asked for, by container id.
    pub outcomes: BTreeMap<String, AdoptOutcome>,
    /// Workers of this store that run although nobody asked for them: their start was never acknowledged.
    /// They are recorded and watched as if they had been asked for.
    pub found: Vec<Found>,
}

/// What became of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdoptOutcome {
    /// It runs and is held by this keeper, or was already.
    Adopted,
    /// It does not run any more: no such process, or the pid is another process now.
    Gone,
    /// It cannot be told; it is left alone.
    Unknown,
}

/// A worker of this store that was found running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Container id.
    pub container: String,
    /// Its generation.
    pub generation: u64,
    /// The process.
    pub started: Started,
}

/// Use of resources by one container: all processes of its session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerUsage {
    /// CPU time since its start, in nanoseconds.
    pub cpu_ns: u64,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
    /// Number of processes.
    pub processes: u32,
}
