//! What users call: in process by the `Orchestrator`, from elsewhere by the API client.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Sink;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::exit::Exit;
use crate::error::{Error, ErrorKind, Result};
use crate::fleet::Late;
use crate::id::{Seq, UnitId};
use crate::manifest::Diagnostic;
use crate::time::WallTime;
use crate::view::{
    BuildLine, ContainerView, EndpointView, EventView, HistoryView, ManagerView, OperationView, PlanView, RolloutView,
    ServerView, UnitView, UsageReport, VolumeView, WhyView,
};

/// Everything that can be asked of a Manager.
///
/// A command returns when its intent is durable, not when it has come true; [`Manager::units`] and
/// [`Manager::events`] show the rest. Repeating a command changes nothing more. Objects are named `service/map/unit`,
/// or by any unambiguous tail of it; containers and servers by id or unique prefix.
///
/// # Errors
/// Common to all: `NotFound` for no such object, `Conflict` for an ambiguous name, `Refused` while frozen or while
/// the store cannot be written, `Unavailable` when the Manager cannot be reached.
#[async_trait]
pub trait Manager: fmt::Debug + Send + Sync {
    /// Takes manifests as the desired state of the maps that they name. What left a map is removed.
    ///
    /// All files are applied in one step or none is. Applying the same again changes nothing.
    ///
    /// An image that is new in a Unit is pinned to what its reference stands for now, see [`Image`](crate::spec::Image).
    ///
    /// # Errors
    /// `InvalidConfig` with diagnostics that point into the files; `Denied` and `Refused` for an image that a registry does
    /// not give to us, or does not answer about.
    async fn apply(&self, sources: &[ManifestSource], actor: &Actor) -> Result<Applied>;

    /// What [`Manager::apply`] would do, and why, without doing it.
    async fn plan(&self, sources: &[ManifestSource]) -> Result<PlanView>;

    /// [`Manager::apply`] with options.
    ///
    /// # Errors
    /// As [`Manager::apply`]; `Unsupported` for an option that this Manager does not know.
    async fn apply_with(&self, sources: &[ManifestSource], options: ApplyOptions, actor: &Actor) -> Result<Applied> {
        options.refuse()?;
        self.apply(sources, actor).await
    }

    /// What [`Manager::apply_with`] would do.
    ///
    /// # Errors
    /// As [`Manager::apply_with`].
    async fn plan_with(&self, sources: &[ManifestSource], options: ApplyOptions) -> Result<PlanView> {
        options.refuse()?;
        self.plan(sources).await
    }

    /// Sets the count of a Unit. An unrelated apply does not undo it.
    async fn scale(&self, unit: &str, count: u32, actor: &Actor) -> Result<UnitView>;

    /// Adds `by` containers to a Unit.
    async fn extend(&self, unit: &str, by: u32, actor: &Actor) -> Result<UnitView>;

    /// Takes `by` containers from a Unit.
    async fn reduce(&self, unit: &str, by: u32, actor: &Actor) -> Result<UnitView>;

    /// Stops a Unit, all Units of a map, or of a Service, and remembers that they are stopped.
    async fn stop(&self, object: &str, actor: &Actor) -> Result<Vec<UnitId>>;

    /// Starts what [`Manager::stop`] stopped.
    async fn start(&self, object: &str, actor: &Actor) -> Result<Vec<UnitId>>;

    /// Replaces every container of a Unit or map, or one container: the replacement is ready first.
    async fn restart(&self, object: &str, actor: &Actor) -> Result<Vec<UnitId>>;

    /// Where the last rollout of a Unit stands.
    async fn rollout(&self, unit: &str) -> Result<RolloutView>;

    /// Steers the open rollout of a Unit.
    ///
    /// # Errors
    /// `Conflict` when there is none.
    async fn steer(&self, unit: &str, action: RolloutAction, actor: &Actor) -> Result<RolloutView>;

    /// Makes an earlier revision the one that runs: `to`, or the one that served before. Extends first like an update.
    ///
    /// # Errors
    /// `NotFound` for a revision that is not kept; `Conflict` when no earlier one served.
    async fn rollback(&self, unit: &str, to: Option<u64>, actor: &Actor) -> Result<RolloutView>;

    /// Volumes with what they hold, also those that nobody uses any more.
    async fn volumes(&self) -> Result<Vec<VolumeView>>;

    /// What an object did during the last hour: a Unit or a container.
    async fn history(&self, object: &str) -> Result<HistoryView>;

    /// What every Unit and container does now.
    async fn usage(&self) -> Result<UsageReport>;

    /// Removes a Unit, a map or a Service with its containers. Volumes stay.
    async fn remove(&self, object: &str, actor: &Actor) -> Result<Vec<UnitId>>;

    /// Removes everything.
    async fn down(&self, actor: &Actor) -> Result<Vec<UnitId>>;

    /// Places nothing new on a server; what runs there stays. One that is being emptied is so already.
    ///
    /// # Errors
    /// `Conflict` for a server that has not come up, is lost, or is leaving.
    async fn cordon(&self, server: &str, actor: &Actor) -> Result<ServerView>;

    /// Places containers on a server again, and calls off that it is emptied: what has not moved stays.
    ///
    /// # Errors
    /// As [`Manager::cordon`].
    async fn uncordon(&self, server: &str, actor: &Actor) -> Result<ServerView>;

    /// Empties a server: nothing there ends before others serve. It then stays empty until [`Manager::uncordon`], unless
    /// it is given back. Asking again replaces how; a deadline begins anew.
    ///
    /// # Errors
    /// As [`Manager::cordon`]; `InvalidConfig` to give back what its provider has for good, and for force without a
    /// deadline.
    async fn rearrange(&self, server: &str, options: RearrangeOptions, actor: &Actor) -> Result<ServerView>;

    /// Makes a token with which the agent of a server may join within `ttl`; one from before is void. Whoever has it can join
    /// as that server, once.
    ///
    /// # Errors
    /// `NotFound`; `InvalidConfig` for a server that no agent drives; `Unsupported` where agents cannot connect.
    async fn join_token(&self, server: &str, ttl: Duration, actor: &Actor) -> Result<JoinTicket> {
        let _ = (server, ttl, actor);
        Err(no_agents())
    }

    /// Refuses the agent of a server from now on, and cuts its connection; with `None` it is let in again. What runs there
    /// ends with its lease.
    ///
    /// # Errors
    /// As [`Manager::join_token`]; `Unavailable` when it cannot be made durable.
    async fn revoke(&self, server: &str, because: Option<&str>, actor: &Actor) -> Result<ServerView> {
        let _ = (server, because, actor);
        Err(no_agents())
    }

    /// Signs certificates of agents with a new authority from now on; with `finish` the old one is trusted no longer. In
    /// between every agent has to have renewed its certificate.
    ///
    /// # Errors
    /// `Refused` for a second rotation before the first has ended; `Unsupported` where agents cannot connect.
    async fn rotate_authority(&self, finish: bool, actor: &Actor) -> Result<()> {
        let _ = (finish, actor);
        Err(no_agents())
    }

    /// All Units.
    async fn units(&self) -> Result<Vec<UnitView>>;

    /// All containers.
    async fn containers(&self) -> Result<Vec<ContainerView>>;

    /// All servers.
    async fn servers(&self) -> Result<Vec<ServerView>>;

    /// The routing table.
    async fn endpoints(&self) -> Result<Vec<EndpointView>>;

    /// The endpoints of the Units with a name (`service/map/unit`, or the end of that), or all of them: as they are now, and
    /// as they are after each change. Whoever reads slowly gets the newest and misses what was in between. A name that
    /// nothing has yet is no error. The stream ends with the Manager.
    async fn watch_endpoints(&self, unit: Option<&str>) -> Result<EndpointStream>;

    /// What builds of images say from now on, of all Units. Whoever reads slowly misses some. The stream ends with the Manager.
    async fn builds(&self) -> Result<BuildStream> {
        Ok(Box::pin(futures_util::stream::empty()))
    }

    /// Operations: open ones and the last that ended.
    async fn operations(&self) -> Result<Vec<OperationView>>;

    /// Events of the journal in order; with `follow`, the stream goes on with what happens.
    async fn events(&self, filter: &EventFilter) -> Result<BoxStream<'static, Result<EventView>>>;

    /// Everything known about an object.
    async fn inspect(&self, object: &str) -> Result<serde_json::Value>;

    /// The decisions about an object, with reasons, newest last; including why nothing happens.
    async fn why(&self, object: &str) -> Result<Vec<WhyView>>;

    /// Output of a container, or of all containers of a Unit.
    async fn logs(&self, object: &str, options: &LogOptions) -> Result<LogStream>;

    /// Runs a command beside a container.
    async fn exec(&self, container: &str, spec: &ExecSpec, actor: &Actor) -> Result<ExecSession>;

    /// The Manager itself.
    async fn about(&self) -> Result<ManagerView>;

    /// Ends the Manager; explicit, since a destructor can neither wait nor report.
    async fn shutdown(&self, mode: ShutdownMode) -> Result<()>;
}

/// What happens to the workers at a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShutdownMode {
    /// They run on for the next Manager to adopt.
    Leave,
    /// They are stopped; the next Manager starts them again.
    Stop,
}

fn no_agents() -> Error {
    Error::new(ErrorKind::Unsupported, "no agents can connect to this manager: set `listen` of [manager]")
}

/// What the agent of a server needs to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTicket {
    /// The server.
    pub server: String,
    /// The token: not for logs.
    pub token: String,
    /// Where the Manager is, as `host:port`.
    pub managers: Vec<String>,
}

/// How a server is emptied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RearrangeOptions {
    /// Time until it has to be empty; as long as it takes when `None`.
    pub deadline: Option<Duration>,
    /// What happens then with what is still there.
    pub late: Late,
    /// It is given back to its provider once it is empty.
    pub give_back: bool,
}

/// What a user does to an open rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RolloutAction {
    /// Nothing is replaced until it is resumed.
    Pause,
    /// It goes on; what failed is tried again.
    Resume,
    /// The canary is good: the others follow.
    Promote,
    /// Back to what served before.
    Abort,
}

impl fmt::Display for RolloutAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Promote => "promote",
            Self::Abort => "abort",
        })
    }
}

/// Who gives a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor(pub String);

impl Actor {
    /// The embedding program itself.
    pub fn embedder() -> Self {
        Self("embedder".into())
    }
    /// A user of this machine by the uid of the socket's peer.
    pub fn uid(uid: u32) -> Self {
        Self(format!("uid {uid}"))
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One manifest as text, with where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestSource {
    /// The file, for messages.
    pub file: PathBuf,
    /// The folder that relative paths start from, absolute.
    pub base: PathBuf,
    /// The text.
    pub text: String,
}

/// What is asked of an apply beside what the manifests say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApplyOptions {
    /// Asks again what the references of images stand for. One that has moved is a new revision.
    pub pull: bool,
}

impl ApplyOptions {
    /// For a Manager that knows none of them.
    fn refuse(self) -> Result<()> {
        match self.pull {
            true => Err(Error::new(ErrorKind::Unsupported, "this manager does not ask again about images")),
            false => Ok(()),
        }
    }
}

/// What an apply led to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Units that the manifests name.
    pub units: Vec<UnitId>,
    /// Units whose template, count or existence changed.
    pub changed: Vec<UnitId>,
    /// Units that left the manifests and are being removed.
    pub removed: Vec<UnitId>,
    /// What was noticed on the way.
    pub warnings: Vec<Diagnostic>,
}

/// Which events are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFilter {
    /// First position; the oldest that is kept when `None`.
    pub from: Option<Seq>,
    /// Only the last that many of what is there.
    pub tail: Option<usize>,
    /// Go on with what happens.
    pub follow: bool,
    /// Only events of this object.
    pub object: Option<String>,
}

/// Which output is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// Go on with what is written.
    pub follow: bool,
    /// Only the last that many lines.
    pub tail: Option<u64>,
    /// Only lines from this time on.
    pub since: Option<WallTime>,
    /// Only lines that contain this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grep: Option<String>,
}

/// Endpoints as they are, and as they are after each change.
pub type EndpointStream = BoxStream<'static, Result<Vec<EndpointView>>>;

/// Lines of builds, as they come.
pub type BuildStream = BoxStream<'static, Result<BuildLine>>;

/// Lines of output, oldest first.
pub type LogStream = BoxStream<'static, Result<LogLine>>;

/// One line of output, or a part of a very long one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The container.
    pub container: String,
    /// When it was read.
    pub at: WallTime,
    /// Whether it came from stderr.
    pub stderr: bool,
    /// Whether the line goes on in the next one.
    pub partial: bool,
    /// The text; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// A command to run beside a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// With a terminal of this size (rows, columns).
    pub tty: Option<(u16, u16)>,
    /// Longest time for it; no limit when `None`.
    pub timeout: Option<Duration>,
}

/// A running command: input goes in, output comes out; dropping it ends the command.
pub struct ExecSession {
    /// What goes in.
    pub input: Pin<Box<dyn Sink<ExecInput, Error = Error> + Send>>,
    /// What comes out; the last item is [`ExecOutput::Exit`].
    pub output: BoxStream<'static, Result<ExecOutput>>,
}

impl fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExecSession")
    }
}

/// What goes into a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecInput {
    /// Bytes for its standard input.
    Stdin(Bytes),
    /// No more input.
    Eof,
    /// The terminal's new size (rows, columns).
    Resize(u16, u16),
}

/// What comes out of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutput {
    /// Bytes of its standard output, or of its terminal.
    Stdout(Bytes),
    /// Bytes of its standard error.
    Stderr(Bytes),
    /// It ended.
    Exit(Exit),
}
