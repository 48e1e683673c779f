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
