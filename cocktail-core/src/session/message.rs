//! What the two ends say to one another.
//!
//! Start at [`ToManager`] and [`ToAgent`]. A session opens in three steps: [`Hello`], [`Welcome`],
//! [`ToManager::Confirm`]. From then on the agent beats and the Manager answers; orders go one way and reports the other,
//! each numbered from 1 in its session, taken in order, and sent again until the other end says that it has them.
//! Everything that belongs to a session names it, so that what comes from an earlier one changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BootId, SessionId};
use crate::contract::{Exit, Launch, Lease, StopOrder};
use crate::error::ErrorKind;
use crate::id::{ContainerId, Epoch, Generation, ServerId, StoreId};

/// Lowest and highest version of these messages that this code speaks.
pub const VERSIONS: (u32, u32) = (1, 1);

/// From an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToManager {
    /// Asks for a session.
    Hello(Hello),
    /// The welcome comes from a Manager that this agent may not follow.
    Declined {
        /// Which hello was answered.
        attempt: Attempt,
        /// Why.
        why: Decline,
    },
    /// Takes the session, and says everything that is here.
    Confirm {
        /// The session.
        session: SessionId,
        /// Reports up to this one are in what follows.
        as_of: u64,
        /// Every container that is known here, removed ones too as long as they are remembered.
        containers: BTreeMap<ContainerId, Held>,
    },
    /// I live. Its answer extends the lease.
    Beat {
        /// The session.
        session: SessionId,
        /// From 1 in the session.
        number: u64,
        /// Highest beat whose answer arrived; 0 for none.
        heard: u64,
        /// Orders up to this one were taken.
        taken: u64,
    },
    /// What happened here.
    Reports {
        /// The session.
        session: SessionId,
        /// Orders up to this one were taken.
        taken: u64,
        /// Number of the first report that follows.
        first: u64,
        /// In order; may be none.
        reports: Vec<Report>,
    },
}

/// From a Manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToAgent {
    /// Offers a session. Extends the lease.
    Welcome(Welcome),
    /// Offers none.
    Refused {
        /// Which hello is answered.
        attempt: Attempt,
        /// Why.
        why: Refusal,
        /// When asking again may help.
        retry_after: Duration,
    },
    /// Answers a beat. Extends the lease.
    Renew {
        /// The session.
        session: SessionId,
        /// Which beat.
        beat: u64,
        /// Reports up to this one were received.
        received: u64,
    },
    /// Acknowledges reports.
    Received {
        /// The session.
        session: SessionId,
        /// Reports up to this one were received.
        received: u64,
    },
    /// What to do.
    Orders {
        /// The session.
        session: SessionId,
        /// Number of the first order that follows.
        first: u64,
        /// In order.
        orders: Vec<Order>,
    },
}

/// Counts an agent's hellos: over its processes, and within one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attempt {
    /// How often an agent was started on this memory.
    pub start: u64,
    /// From 1 within that start.
    pub number: u64,
}

/// Who asks for a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Lowest and highest version that the agent speaks.
    pub versions: (u32, u32),
    /// Which server it is.
    pub server: ServerId,
    /// Which boot of it.
    pub boot: BootId,
    /// Which hello this is.
    pub attempt: Attempt,
    /// The highest session that this agent confirmed. One before the last that the Manager knows is that of a copy.
    pub last: Option<SessionId>,
    /// The store that it belongs to, once it obeyed a Manager.
    pub store: Option<StoreId>,
    /// The epoch that it obeyed last.
    pub obeyed: Option<Epoch>,
}

/// A session is offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Which hello is answered: the lease runs from when it was sent.
    pub attempt: Attempt,
    /// The session.
    pub session: SessionId,
    /// By which right the Manager commands.
    pub lease: Lease,
    /// The spans that hold in the session.
    pub terms: Terms,
}

/// Spans that a Manager sets for an agent, each to be measured by the agent's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Between two beats.
    pub beat: Duration,
    /// From the sending of an answered beat.
    pub lease: Duration,
    /// What containers get to end in when the lease is over.
    pub fence: Duration,
    /// Silence after which the connection is given up.
    pub patience: Duration,
}

/// Why an agent gets no session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// There is no common version.
    #[error("the manager speaks versions {from} to {to}")]
    Version {
        /// Lowest.
        from: u32,
        /// Highest.
        to: u32,
    },
    /// The connection leads to another server's end.
    #[error("this is the session of server {expected}")]
    OtherServer {
        /// Whose it is.
        expected: ServerId,
    },
    /// It obeys Managers of another store.
    #[error("the agent belongs to another store than {store}")]
    OtherStore {
        /// Ours.
        store: StoreId,
    },
    /// Another boot of this server has a lease that may still run.
    #[error("another boot of this server may still be alive")]
    Occupied,
    /// Another boot, or a copy of this one, took over from it: for good.
    #[error("another boot or a copy of this agent took over")]
    Superseded,
    /// The server is to run something else than this agent does.
    #[error("this agent runs {}, and the manager's settings say that its server runs {}", what(*.images), what(!*.images))]
    OtherKind {
        /// The agent runs images.
        images: bool,
    },
    /// Earlier answers did not arrive, and what they promised has to pass first.
    #[error("earlier answers did not arrive")]
    Unheard,
}

fn what(images: bool) -> &'static str {
    if images { "images" } else { "programs" }
}

/// Why an agent does not follow a Manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Decline {
    /// It belongs to another store.
    #[error("the agent belongs to store {owner}")]
    OtherStore {
        /// Whose it is.
        owner: StoreId,
    },
    /// A later lease of the store was there already.
    #[error("the agent obeys epoch {current}, which came later")]
    Stale {
        /// The later one.
        current: Epoch,
    },
    /// The store is a copy from before the lease that was obeyed.
    #[error("the store is an older copy: it knows nothing of the lease of epoch {current}, which the agent obeyed")]
    OlderCopy {
        /// What was obeyed.
        current: Epoch,
    },
}

/// What to do with a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Start a generation. What is left of an older one is ended first; the same one again never makes two processes.
    Start {
        /// What to start.
        launch: Arc<Launch>,
        /// What to do with it when the lease ends.
        at_lease_end: LeaseEnd,
    },
    /// End this generation and any older one; none of them can be started any more.
    Stop(StopOrder),
    /// Forget a container that has ended. A missing one is success.
    Remove {
        /// The container.
        container: ContainerId,
    },
    /// Let a container that was blocked serve again.
    Admit {
        /// The container.
        container: ContainerId,
        /// Which start of it.
        generation: Generation,
    },
}

impl Order {
    /// Which container it is about.
    pub fn container(&self) -> &ContainerId {
        match self {
            Self::Start { launch, .. } => &launch.container,
            Self::Stop(stop) => &stop.container,
            Self::Remove { container } | Self::Admit { container, .. } => container,
        }
    }
}

/// What happens to a container when its agent's lease ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseEnd {
    /// It runs on, cut off from traffic until a Manager admits it again.
    Keep,
    /// It is ended.
    #[default]
    End,
}

/// A container as its agent holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Highest generation that was ever seen.
    pub generation: Generation,
    /// Where that one is.
    pub phase: Phase,
    /// It gets no traffic until it is admitted.
    pub blocked: bool,
    /// An older generation that has not ended yet.
    pub older: Option<Generation>,
}

/// Where a generation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is started when the older one has ended.
    Waiting,
    /// It is being started.
    Starting,
    /// It runs.
    Running,
    /// It was told to end.
    Ending,
    /// Nothing of it is left; `None` where nobody saw it run.
    Ended(Option<Exit>),
    /// It could not be started.
    Failed(Failure),
    /// It was forgotten, but for its generation.
    Removed,
}

impl Held {
    /// Whether any process of any generation may be there.
    pub fn is_alive(&self) -> bool {
        self.older.is_some() || matches!(self.phase, Phase::Starting | Phase::Running | Phase::Ending)
    }
}

/// Why a start failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The reaction that it asks for.
    pub kind: ErrorKind,
    /// For people.
    pub text: String,
    /// The port that another program has, if that was it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The engine that does not answer, if that was it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
}

/// What an agent tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// An order of this session is done or will not be done.
    Outcome {
        /// Its number.
        order: u64,
        /// What came of it.
        outcome: Outcome,
    },
    /// A container is no longer as it was.
    Changed {
        /// The container.
        container: ContainerId,
        /// As it is now.
        held: Held,
    },
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It runs.
    Started,
    /// Nothing of it is left; `None` where nobody saw it run.
    Ended(Option<Exit>),
    /// It is forgotten.
    Removed,
    /// It may serve again.
    Admitted,
    /// It could not be started.
    Failed(Failure),
    /// It was not done.
    Refused(OrderRefusal),
}

/// Why an order was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum OrderRefusal {
    /// A newer generation was seen.
    #[error("generation {newest} of the container was seen already")]
    OlderGeneration {
        /// The highest that was seen.
        newest: Generation,
    },
    /// This generation has ended already.
    #[error("this generation has ended already")]
    AlreadyEnded,
    /// It has not ended.
    #[error("the container has not ended")]
    StillRuns,
    /// There is no such generation that runs.
    #[error("no such generation runs")]
    NotRunning,
}
