//! What goes over the connection of an agent beside the session itself.
//!
//! Start at [`AgentFrame`] and [`ManagerFrame`]. The messages of the session say who may do what; everything else that a
//! [`Runtime`](crate::contract::Runtime) can be asked is a call with an answer, and what happens by itself is told. A
//! connection keeps the order of frames; what was on its way when it broke is lost, and is asked or told again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::message::{Failure, ToAgent, ToManager};
use crate::contract::{
    ExecSpec, Handle, Known, Launch, Listing, LogOptions, Login, Resolved, RuntimeEvent, UnloadOrder, UsageReading,
    VolumeFound,
};
use crate::error::Error;
use crate::id::{ContainerId, Generation};
use crate::name::Name;
use crate::spec::{Resources, Template};
use crate::view::EndpointView;

/// From an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentFrame {
    /// What it runs on; the first frame of a connection, before the hello.
    Facts(Facts),
    /// A message of the session.
    Session(ToManager),
    /// How to find a start; before the report that it runs.
    Runs {
        /// The container.
        container: ContainerId,
        /// Which start.
        generation: Generation,
        /// Where it is.
        handle: Handle,
    },
    /// Something happened. Ends are told by the session.
    Event(RuntimeEvent),
    /// What everything uses.
    Readings(Readings),
    /// The answer to a call.
    Answer {
        /// Which call.
        call: u64,
        /// What it led to.
        answer: Result<Answer, Failure>,
    },
}

/// From a Manager.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManagerFrame {
    /// A message of the session.
    Session {
        /// The message.
        message: ToAgent,
        /// Variables for the starts that it orders, resolved at this moment: they are never written.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        values: BTreeMap<ContainerId, Values>,
    },
    /// Asks for something.
    Call {
        /// Which call; the agent answers with it.
        call: u64,
        /// What for.
        ask: Box<Ask>,
    },
    /// Which containers serve, after each change: workers there may ask.
    Endpoints(Arc<Vec<EndpointView>>),
}

/// Names and values of variables that are not for logs.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Values(pub BTreeMap<String, String>);

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What an agent runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// What containers can reserve.
    pub capacity: Resources,
    /// Where its containers are reached; where its connection comes from if it does not say.
    pub address: Option<IpAddr>,
    /// Name of the host, for people.
    pub host: String,
    /// Version of the agent, for people.
    pub build: String,
    /// It runs images, and nothing else; programs and nothing else where it does not.
    #[serde(default)]
    pub images: bool,
}

/// What all containers of a server use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Readings {
    /// Cpu and memory.
    pub usage: BTreeMap<ContainerId, UsageReading>,
    /// What they report themselves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reported: BTreeMap<ContainerId, BTreeMap<String, f64>>,
}

/// What an agent is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// To watch what runs: as [`Runtime::recover`](crate::contract::Runtime::recover). What is known of probes and workers
    /// is told again before the answer.
    Recover(Vec<Known>),
    /// What runs.
    List,
    /// Which volumes there are.
    Volumes,
    /// What speaks against a template.
    Check(Box<Template>),
    /// To have here what a start comes from: as [`Runtime::fetch`](crate::contract::Runtime::fetch).
    Fetch {
        /// The start.
        launch: Box<Launch>,
        /// What the registry of its image is shown, which is never written.
        login: Option<Login>,
    },
    /// To wait no longer for what was to be fetched for a start.
    GiveUp {
        /// The container.
        container: ContainerId,
        /// Which start of it.
        generation: Generation,
    },
    /// What the reference of an image stands for: as [`Runtime::resolve`](crate::contract::Runtime::resolve).
    Resolve {
        /// The reference.
        reference: String,
        /// For which Service.
        service: Name,
        /// What its registry is shown, which is never written.
        login: Option<Login>,
    },
    /// To let go of ports.
    ReleasePorts(Vec<u16>),
    /// To tell a worker what to load.
    Assign(Box<Launch>),
    /// To have a worker close what it has loaded.
    Unload(UnloadOrder),
    /// Output of a container, as a stream beside the session.
    Logs {
        /// The container.
        container: ContainerId,
        /// Which output.
        options: LogOptions,
        /// The stream.
        aside: u64,
    },
    /// A command beside a container, as a stream beside the session.
    Exec {
        /// The container.
        container: ContainerId,
        /// The command.
        spec: ExecSpec,
        /// The stream.
        aside: u64,
    },
}

/// What an agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done.
    Done,
    /// What runs.
    Listing(Listing),
    /// Volumes.
    Volumes(Vec<VolumeFound>),
    /// Keys and problems.
    Problems(Vec<(String, String)>),
    /// What an image is.
    Resolved(Resolved),
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let port = error.context("port").and_then(|port| port.parse().ok());
        let engine = error.context("engine").map(str::to_owned);
        Self { kind: error.kind().clone(), text: error.chain(), port, engine }
    }
}

impl Failure {
    /// As whoever asked gets it.
    pub fn into_error(self) -> Error {
        let error = Error::new(self.kind, self.text);
        let error = match self.port {
            Some(port) => error.with("port", port),
            None => error,
        };
        match self.engine {
            Some(engine) => error.with("engine", engine),
            None => error,
        }
    }
}
