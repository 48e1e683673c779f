//! The words that a keeper and its Manager exchange.
//!
//! Start at [`Request`] and [`Reply`]; [`Refusal`] is every "no" that a keeper can say. The types are the keeper's own and
//! not core's, because a keeper outlives upgrades of the program that started it: unknown fields are ignored, missing
//! ones have defaults, and [`VERSIONS`] is negotiated before anything else is said.
//! Every request may be repeated; what repeating does stands beside it. Times are milliseconds since the Unix epoch
//! (`at_ms`) or kernel ticks since boot (`start_time`), sizes are bytes.

use std::{collections::BTreeMap, net::IpAddr, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

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

/// First frame of every connection, from the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireHello {
    /// Oldest and newest version that the client speaks.
    pub versions: (u32, u32),
    /// The store that the client acts for.
    pub store: String,
    /// The client's epoch.
    pub epoch: u64,
}

/// The keeper's answer to an accepted hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Welcome {
    /// The version that both sides speak from now on.
    pub version: u32,
    /// Process id of the keeper.
    pub pid: u32,
    /// The kernel's boot id; pids and start times compare only within one boot.
    pub boot_id: String,
    /// Version of the program that the keeper runs.
    pub build: String,
    /// The store that the keeper is bound to.
    pub store: String,
    /// The epoch now in command.
    pub epoch: u64,
    /// When this keeper started; a new value means a new keeper, with empty records and events from 1.
    pub started_at_ms: i64,
    /// True for a keeper that runs inside the calling process.
    pub in_process: bool,
}

impl Default for Welcome {
    fn default() -> Self {
        Self {
            version: VERSIONS.0,
            pid: 0,
            boot_id: String::new(),
            build: String::new(),
            store: String::new(),
            epoch: 0,
            started_at_ms: 0,
            in_process: false,
        }
    }
}

/// One request with the number that its reply will carry.
#[derive(Debug, Serialize, Deserialize)]
pub struct RequestFrame {
    /// Chosen by the client, unique within the connection.
    pub id: u64,
    /// What is asked.
    pub req: Request,
}

/// Everything a keeper can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// See [`Prepare`].
    Prepare(Prepare),
    /// See [`Start`].
    Start(Box<Start>),
    /// See [`Stop`].
    Stop(Stop),
    /// See [`Signal`].
    Signal(Signal),
    /// See [`Remove`].
    Remove(Remove),
    /// Gives ports back; ports that are not held are ignored.
    ReleasePort(Ports),
    /// Everything the keeper holds.
    List,
    /// See [`Adopt`].
    Adopt(Adopt),
    /// CPU time and memory of every running container.
    Usage,
    /// See [`SetServices`].
    SetServices(SetServices),
    /// Reserves addresses for the next [`SetServices`], for 30 seconds.
    CheckListen(Listen),
    /// Connection counts of the forwarder.
    Connections,
    /// Sends events from this number on, over this connection.
    Subscribe(Subscribe),
    /// See [`SetLease`].
    SetLease(SetLease),
    /// See [`Shutdown`].
    Shutdown(Shutdown),
    /// Turns the connection into a stream of log records.
    Logs(LogsRequest),
    /// Turns the connection into the streams of a command.
    Exec(Box<ExecRequest>),
}

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

/// Why a worker could not be started. Nothing of it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum StartError {
    /// No such program, in `PATH` or at that path.
    #[error("program `{program}` was not found")]
    NotFound {
        /// As it was asked for.
        program: String,
    },
    /// The program may not be executed by that user.
    #[error("program `{program}` may not be executed")]
    PermissionDenied {
        /// As it was asked for.
        program: String,
    },
    /// The user does not exist on this machine.
    #[error("user `{user}` does not exist")]
    NoSuchUser {
        /// As it was asked for.
        user: String,
    },
    /// The keeper may not become that user.
    #[error("the keeper may not run processes as user `{user}`")]
    UserDenied {
        /// As it was asked for.
        user: String,
    },
    /// The working directory cannot be entered.
    #[error("working directory `{cwd}` cannot be entered (errno {errno})")]
    Cwd {
        /// As it was asked for.
        cwd: String,
        /// What the kernel said.
        errno: i32,
    },
    /// Anything else, with the step that failed.
    #[error("{step} failed (errno {errno})")]
    Other {
        /// The step of the start.
        step: String,
        /// What the kernel said.
        errno: i32,
    },
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

/// Sends a signal to the main process. A process that is gone is refused as [`Refusal::NotRunning`].
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

/// A set of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listen {
    /// The addresses.
    pub addrs: Vec<SocketAddr>,
}

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

/// One container to adopt; the fields are those of its [`Start`] and [`Started`].
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
    /// As in [`Start`].
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
}

/// Asks for events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subscribe {
    /// The first number wanted; 0 means from now on.
    pub from_seq: u64,
}

/// Ends all workers when the time runs out (on `CLOCK_BOOTTIME`) without a renewal; `None` removes the lease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetLease {
    /// Milliseconds from now.
    pub ttl_ms: Option<u64>,
    /// How workers are stopped then.
    pub policy: StopPolicy,
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

/// Asks for a container's log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogsRequest {
    /// Container id; one that is forgotten but whose files were kept works too.
    pub container: String,
    /// Go on with new records until the client closes.
    pub follow: bool,
    /// Only records at or after this time, in microseconds since the Unix epoch.
    pub since_us: Option<i64>,
    /// At most this many of the last records.
    pub tail: Option<u64>,
}

/// Runs a command beside a container's main process, with its environment, directory and user.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecRequest {
    /// Container id.
    pub container: String,
    /// The program and its arguments, as in [`Start`].
    pub argv: Vec<String>,
    /// Added to the container's environment.
    pub env: BTreeMap<String, String>,
    /// Give it a terminal.
    pub tty: bool,
    /// Rows of the terminal.
    pub rows: u16,
    /// Columns of the terminal.
    pub cols: u16,
}

impl std::fmt::Debug for ExecRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecRequest")
            .field("container", &self.container)
            .field("tty", &self.tty)
            .finish_non_exhaustive()
    }
}

/// What a keeper sends on a control connection after its [`Welcome`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerFrame {
    /// Answer to the first frame.
    Welcome(Welcome),
    /// Answer to a request that worked.
    Ok(u64, Reply),
    /// Answer to a request that did not; the id is 0 for a refused hello.
    Err(u64, Refusal),
    /// Something happened.
    Event(EventFrame),
}

/// The good answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Nothing more to say.
    Done,
    /// To [`Request::Start`].
    Start(StartOutcome),
    /// To [`Request::Stop`].
    Exit(Exit),
    /// To [`Request::List`].
    Listing(Listing),
    /// To [`Request::Adopt`].
    Adoption(Adoption),
    /// To [`Request::Usage`].
    Usage(BTreeMap<String, ContainerUsage>),
    /// To [`Request::SetServices`], by service key.
    Services(BTreeMap<String, BindOutcome>),
    /// To [`Request::CheckListen`], in the order asked.
    Listen(Vec<BindOutcome>),
    /// To [`Request::Connections`].
    Connections(Vec<ServiceInfo>),
}

/// Why a keeper did not do what it was asked. Nothing was changed unless the text says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The keeper belongs to another store.
    #[error("the keeper belongs to store {owner}")]
    WrongStore {
        /// Its store.
        owner: String,
    },
    /// A newer Manager is in command.
    #[error("epoch {current} is in command")]
    StaleEpoch {
        /// Its epoch.
        current: u64,
    },
    /// No common version.
    #[error("the keeper speaks protocol {min} to {max}")]
    Version {
        /// Oldest it speaks.
        min: u32,
        /// Newest it speaks.
        max: u32,
    },
    /// The peer's user is neither the keeper's nor root.
    #[error("user {uid} may not command this keeper")]
    Peer {
        /// The peer's user.
        uid: u32,
    },
    /// A port is not free.
    #[error("port {port} is taken by {}", holder.as_deref().unwrap_or("another process"))]
    PortTaken {
        /// The port.
        port: u16,
        /// Process name and pid, or another container, when that could be found.
        holder: Option<String>,
    },
    /// The worker could not be started.
    #[error(transparent)]
    Start(StartError),
    /// The keeper does not know that container.
    #[error("container {container} is not known to the keeper")]
    NoSuchContainer {
        /// The container.
        container: String,
    },
    /// That generation was not prepared.
    #[error("container {container} generation {generation} is not prepared")]
    NotPrepared {
        /// The container.
        container: String,
        /// The generation.
        generation: u64,
    },
    /// The record is of another generation.
    #[error("container {container} is at generation {current}")]
    Generation {
        /// The container.
        container: String,
        /// The generation of the record.
        current: u64,
    },
    /// The container runs.
    #[error("container {container} is running")]
    Running {
        /// The container.
        container: String,
    },
    /// The container does not run.
    #[error("container {container} is not running")]
    NotRunning {
        /// The container.
        container: String,
    },
    /// Something was killed and is still there: a process in uninterruptible sleep.
    #[error("processes of container {container} do not end: {pids:?}")]
    Unkillable {
        /// The container.
        container: String,
        /// What is left.
        pids: Vec<u32>,
    },
    /// The events asked for are gone; list, then subscribe from the listing's number.
    #[error("events before {oldest} are gone")]
    Gap {
        /// The oldest that is still there.
        oldest: u64,
    },
    /// A bound of the keeper is reached.
    #[error("limit reached: {what}")]
    Limit {
        /// Which bound.
        what: String,
    },
    /// The request makes no sense.
    #[error("bad request: {why}")]
    BadRequest {
        /// What is wrong with it.
        why: String,
    },
    /// The machine refused.
    #[error("{what} failed (errno {errno})")]
    Io {
        /// The step.
        what: String,
        /// What the kernel said.
        errno: i32,
    },
    /// The keeper is ending.
    #[error("the keeper is ending")]
    Ending,
}

/// One event with its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFrame {
    /// Grows by one from event to event, from 1 in every keeper.
    pub seq: u64,
    /// What happened.
    pub event: Event,
}

/// What a keeper tells unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A container ended, with everything it left behind.
    Exited {
        /// Container id.
        container: String,
        /// Its generation.
        generation: u64,
        /// How and when.
        exit: Exit,
    },
    /// A backend refused a connection and gets nothing until the next table.
    BackendRefused {
        /// The service.
        service: String,
        /// Container id.
        container: String,
    },
    /// The last connection of a removed backend ended.
    BackendIdle {
        /// The service.
        service: String,
        /// Container id.
        container: String,
    },
    /// Output was dropped; at most one a second for each container.
    LogDropped {
        /// Container id.
        container: String,
        /// Bytes dropped so far.
        bytes: u64,
    },
    /// The lease ran out and all workers are being stopped.
    LeaseExpired,
    /// The reader was too slow and events were lost on the way: list again.
    Gap,
    /// An event that this build does not know.
    #[serde(other)]
    Unknown,
}
