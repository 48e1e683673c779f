//! What goes over the wire: greetings, requests and replies by number, events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    VERSIONS,
    records::{Adopt, Adoption, ContainerUsage, Listing},
    refusal::Refusal,
    services::{BindOutcome, Listen, ServiceInfo, SetServices},
    streams::{ExecRequest, LogsRequest},
    workers::{Exit, Ports, Prepare, Remove, SetLease, Shutdown, Signal, Start, StartOutcome, Stop},
};

/// First frame of every connection, from the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireHello {
    /// Oldest and newest version that the client speaks.
    pub versions: (u32, u32),
    /// The store that the client acts for.
    pub store: String,
    /// The client's epoch.
    pub epoch: u64,
    /// Key of the client's lease. Without it the epoch alone decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// Keys of the leases that this one descends from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<String>,
    /// Why the client comes.
    #[serde(default, skip_serializing_if = "Intent::is_lead")]
    pub intent: Intent,
}

/// Why a client comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// To have what runs come under its lease although that does not descend from the one in command: a user said that
    /// this copy of the store is the one to go on with.
    Adopt,
    /// To end everything, whatever store and lease it belongs to: a user said so.
    Release,
    /// To act for its store by its lease; also what a keeper takes an intent for that it does not know.
    #[default]
    #[serde(other)]
    Lead,
}

impl Intent {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_lead(&self) -> bool {
        *self == Self::Lead
    }
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
    /// The keeper has obeyed an earlier lease that the client's descends from, or the client's own: so the client's store
    /// is no older copy. False where the keeper remembers none.
    pub descended: bool,
    /// The keeper runs the guard of a lease when that is over.
    pub guards: bool,
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
            descended: false,
            guards: false,
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
    /// What is left of the lease that was set last.
    Lease,
    /// See [`Shutdown`].
    Shutdown(Shutdown),
    /// Turns the connection into a stream of log records.
    Logs(LogsRequest),
    /// Turns the connection into the streams of a command.
    Exec(Box<ExecRequest>),
}

impl Request {
    /// Whether it changes what runs or who may be reached. Looking and attaching do not.
    pub(crate) fn is_order(&self) -> bool {
        match self {
            Self::Prepare(_)
            | Self::Start(_)
            | Self::Stop(_)
            | Self::Signal(_)
            | Self::Remove(_)
            | Self::ReleasePort(_)
            | Self::SetServices(_)
            | Self::SetLease(_)
            | Self::Shutdown(_)
            | Self::Exec(_) => true,
            Self::List
            | Self::Lease
            | Self::Adopt(_)
            | Self::Usage
            | Self::CheckListen(_)
            | Self::Connections
            | Self::Subscribe(_)
            | Self::Logs(_) => false,
        }
    }
}

/// Asks for events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subscribe {
    /// The first number wanted; 0 means from now on.
    pub from_seq: u64,
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
    /// To [`Request::Lease`]: without a time where there is none, and with zero where it is over.
    Lease(SetLease),
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
    /// The first client waits at a service that has no backend.
    ClientWaiting {
        /// The service.
        service: String,
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
