//! Workers: how one is prepared, started, stopped and forgotten.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

/// Makes a container's pipes and proves its ports. The same container and generation again succeeds without effect;
/// a higher generation first kills what is left of the older one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prepare {
    /// Container id, `[a-z0-9]` and inner dashes, at most 63 characters.
    pub container: String,
    /// Which start of the container this is.
    pub generation: u64,
    /// Ports that the worker is going to listen on.
    pub ports: Vec<PortSpec>,
}

/// One port of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortSpec {
    /// The port's name in the manifest; goes to `LISTEN_FDNAMES`.
    pub name: String,
    /// The number, never 0.
    pub port: u16,
    /// The keeper listens and hands the socket over (`LISTEN_FDS`); otherwise the worker binds it.
    pub inherit: bool,
    /// Address of an inherited socket; 127.0.0.1 when absent.
    pub address: Option<IpAddr>,
}

impl PortSpec {
    /// Where an inherited socket listens.
    pub(crate) fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), self.port)
    }
}

/// Starts the prepared worker. The same container and generation again answers with the same process or its exit.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Start {
    /// Container id.
    pub container: String,
    /// As prepared.
    pub generation: u64,
    /// The program and its arguments; a name without slash is looked up in `PATH` of `env`. There is no shell.
    pub argv: Vec<String>,
    /// The whole environment, to which the keeper adds only its three markers and `LISTEN_*`.
    pub env: BTreeMap<String, String>,
    /// Working directory, absolute.
    pub cwd: PathBuf,
    /// User name or numeric id; the keeper's own user when absent.
    pub user: Option<String>,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// Limits by cgroup v2; ignored with a note in [`Started`] where the controllers do not exist.
    pub cgroup: Option<CgroupLimits>,
    /// File creation mask; 0o077 when absent.
    pub umask: Option<u32>,
    /// What processes get that the worker leaves behind when it exits by itself.
    pub leftovers: StopPolicy,
}

/// The environment may hold secrets, so only its names are shown.
impl std::fmt::Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start")
            .field("container", &self.container)
            .field("generation", &self.generation)
            .field("program", &self.argv.first())
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("cwd", &self.cwd)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A signal and how long it is given to work before `KILL` follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StopPolicy {
    /// Signal number.
    pub signal: i32,
    /// Milliseconds.
    pub grace_ms: u64,
}

impl Default for StopPolicy {
    fn default() -> Self {
        Self { signal: 15, grace_ms: 2_000 }
    }
}

/// One resource limit; `None` means unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Which resource.
    pub resource: RlimitKind,
    /// The limit in force.
    pub soft: Option<u64>,
    /// How far the worker may raise it.
    pub hard: Option<u64>,
}

/// Resources that can be limited, as in `setrlimit(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of setrlimit(2)")]
pub enum RlimitKind {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Memlock,
    Nofile,
    Nproc,
    Stack,
}

/// Limits by cgroup v2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CgroupLimits {
    /// Thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
}

/// What identifies a running process for good.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Started {
    /// Process id, also its session and process group.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`.
    pub start_time: u64,
    /// The boot that both belong to.
    pub boot_id: String,
    /// Why cgroup limits were asked for but are not in force.
    pub cgroup_note: Option<String>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It is gone and nobody could tell how.
    Unknown,
}

/// The end of a container's process and of everything that it left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// How the main process ended.
    pub status: ExitStatus,
    /// When its end was seen.
    pub at_ms: i64,
}

/// Answer to [`Start`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartOutcome {
    /// It runs.
    Started(Started),
    /// This generation ran before and ended.
    Exited(Exit),
}

/// Stops a container: `signal` to the process group of its main process, after `grace_ms` `KILL` to everything that
/// belongs to it. Answers when nothing is left. Already gone succeeds with the recorded status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stop {
    /// Container id.
    pub container: String,
    /// A generation other than the running one is refused.
    pub generation: u64,
    /// Signal and grace; grace 0 kills at once.
    pub policy: StopPolicy,
}

/// Sends a signal to the main process. A process that is gone is refused as [`Refusal::NotRunning`](super::Refusal::NotRunning).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Signal {
    /// Container id.
    pub container: String,
    /// A generation other than the running one is refused.
    pub generation: u64,
    /// Signal number.
    pub signal: i32,
}

/// Forgets a container that does not run. A missing one is success. Its ports stay held until released.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remove {
    /// Container id.
    pub container: String,
    /// Keeps its log files.
    pub keep_logs: bool,
}

/// A set of ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ports {
    /// The numbers.
    pub ports: Vec<u16>,
}

/// Ends all workers when the time runs out (on `CLOCK_BOOTTIME`) without a renewal; `None` removes the lease.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetLease {
    /// Milliseconds from now.
    pub ttl_ms: Option<u64>,
    /// How workers are stopped then.
    pub policy: StopPolicy,
    /// Containers that run on then.
    pub keep: BTreeSet<String>,
    /// What ends that which is not the keeper's own to end, such as containers of an engine: this program, run again with
    /// these arguments and the grace in milliseconds as the last one, until it exits with 0. Nothing is run where there are
    /// none. A keeper that does not say [`Welcome::guards`](super::Welcome::guards) runs nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub guard: Vec<String>,
}

/// Ends the keeper.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shutdown {
    /// Stop all workers first and remove the runtime directory's files; otherwise workers go on without a keeper.
    pub kill: bool,
    /// How workers are stopped.
    pub policy: StopPolicy,
}
