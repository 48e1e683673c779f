//! What a runtime is told of one start.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{ContainerId, Epoch, Generation, Revision, StoreId, UnitId};
use crate::name::Name;
use crate::spec::{Artifact, Check, MicroserviceSpec, Resources, SecretSource, VolumeKind};

/// One start, fully specified: names, ports and arguments are chosen already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The container.
    pub container: ContainerId,
    /// Which start of it.
    pub generation: Generation,
    /// Whose it is.
    pub store: StoreId,
    /// The Manager's lease.
    pub epoch: Epoch,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment that the plan determines.
    pub env: BTreeMap<String, String>,
    /// Names to take from the Manager's environment at start.
    pub env_from: Vec<String>,
    /// Variables whose values are resolved at start.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Working directory.
    pub cwd: PathBuf,
    /// User to run as.
    pub user: Option<String>,
    /// Ports in the manifest's order.
    pub ports: Vec<LaunchPort>,
    /// What is enforced where the system can.
    pub resources: Resources,
    /// Limits of the process by name.
    pub rlimits: BTreeMap<String, u64>,
    /// Volumes by name: folder name in the data dir, link name, kind.
    pub volumes: Vec<LaunchVolume>,
    /// Probes that the runtime runs from now on.
    pub probes: Vec<LaunchProbe>,
    /// What the program is told, if it is a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<LaunchWorker>,
    /// It is to wait: when it is up (its readiness probe is good once) it is paused, which is told as
    /// [`WorkerSaid::Waiting`](super::WorkerSaid::Waiting). Only of images.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// It runs on when the lease of its server's agent ends, see [`Hold::keep`](super::Hold::keep).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outlives_lease: bool,
    /// The image that it is run from, for a runtime of images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<LaunchImage>,
    /// Where the files of the command come from on a server that is not the Manager's own. There the unpacked folder is the
    /// working directory, instead of `cwd`. The Manager's own machine has no use for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
}

/// The image of a [`Launch`]. `argv` replaces its command, and `cwd` its folder, where they are not empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchImage {
    /// Where it is: `name@sha256:…`, or `registry/name:tag` where nobody knows more.
    pub reference: String,
    /// What replaces its entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Whether its files can only be read; what the provider says when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// Whose container it is: Units of one map reach each other by their names.
    pub unit: UnitId,
}

/// A program that is told what to load.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchWorker {
    /// What it is told when it has registered; nothing for one that waits.
    pub assignment: Option<LaunchAssignment>,
}

/// What a worker is told. Its ports are those of the [`Launch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchAssignment {
    /// Counts the assignments of the container, from 1.
    pub number: u64,
    /// Whose it is.
    pub unit: UnitId,
    /// Which version of the Unit.
    pub revision: Revision,
    /// What it loads, in this order.
    pub microservices: Vec<MicroserviceSpec>,
}

/// A volume of a [`Launch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchVolume {
    /// The volume's name in the manifest.
    pub name: Name,
    /// Path below the data dir's volumes, or the source of a bind.
    pub path: PathBuf,
    /// Link in the working directory; none where several containers would share it.
    pub link: Option<PathBuf>,
    /// Who shares it.
    pub kind: VolumeKind,
}

/// A port of a [`Launch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchPort {
    /// Its name.
    pub name: Name,
    /// The number.
    pub port: u16,
    /// Whether the worker gets the listening socket.
    pub inherit: bool,
    /// What the program listens on inside its container, if that is another number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<u16>,
}

impl LaunchPort {
    /// The number that the program listens on.
    pub fn inside(&self) -> u16 {
        self.container.unwrap_or(self.port)
    }
}

/// A probe of a [`Launch`], with port and command resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchProbe {
    /// Readiness or liveness.
    pub kind: ProbeKind,
    /// What is done.
    pub check: Check,
    /// The port that it goes to.
    pub port: Option<u16>,
    /// Pause between two checks.
    pub every: Duration,
    /// Longest that one check may take.
    pub timeout: Duration,
    /// Consecutive failures that turn the result to bad.
    pub failures: u32,
}

/// What a probe decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeKind {
    /// May take traffic.
    Ready,
    /// Must be replaced when it fails.
    Live,
}
