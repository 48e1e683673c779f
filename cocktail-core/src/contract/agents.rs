//! Where agents of servers that are not this machine come in.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use super::launch::Launch;
use super::login::Login;
use super::manager::{ExecInput, ExecOutput, LogLine};
use crate::error::{Error, Result};
use crate::id::ServerId;
use crate::name::Name;
use crate::session::{AgentFrame, ManagerFrame, Values};

/// Takes the connections of agents. It has made sure of who each of them is before anybody hears of it.
#[async_trait]
pub trait Gate: fmt::Debug + Send + Sync {
    /// Connections as they come. Called once.
    fn links(&self, admission: Arc<dyn Admission>) -> BoxStream<'static, Link>;

    /// The variables of a start that come from this host: `env_from`, and secrets. May wait for a disk.
    ///
    /// # Errors
    /// `InvalidConfig` with the name, never the value, of what is missing or unreadable.
    fn values(&self, launch: &Launch) -> Result<Values>;

    /// What the registry of an image is shown when a Service wants something of it; `None` where no table of the settings
    /// is about it. Read anew at each call.
    ///
    /// # Errors
    /// `InvalidConfig` for a password that is not there, and `Denied`, `InvalidConfig` and `Unavailable` by a helper. They name
    /// the table.
    async fn login(&self, reference: &str, service: &Name) -> Result<Option<Login>>;

    /// The token of that number for a server, as text. It is the same at every call.
    ///
    /// # Errors
    /// `InvalidConfig` for a server whose id no certificate can have.
    fn token(&self, server: &ServerId, number: u64) -> Result<String>;

    /// Refuses a server from now on and cuts its connections, or lets it in again.
    ///
    /// # Errors
    /// `Unavailable` when that cannot be made durable: nothing has changed then.
    fn revoke(&self, server: &ServerId, because: Option<&str>) -> Result<()>;

    /// Signs with a new authority from now on, or trusts the old one no longer with `finish`.
    ///
    /// # Errors
    /// `Refused` for a second rotation before the first has ended; `Unavailable` when it cannot be made durable.
    fn rotate(&self, finish: bool) -> Result<()>;

    /// Where it listens.
    fn address(&self) -> std::net::SocketAddr;
}

/// Says who may join: what a gate has to ask the Manager.
#[async_trait]
pub trait Admission: fmt::Debug + Send + Sync {
    /// Whether a server may join with the secret of that number, which the gate has checked. It is used up, durably, when
    /// this returns.
    ///
    /// # Errors
    /// `Denied` with the reason for one that was used, has run out or was never given; `Unavailable` while that cannot be
    /// made durable.
    async fn join(&self, server: &ServerId, number: u64, instance: &str) -> Result<()>;

    /// The file of an artifact, by its hash, if a container of that server needs it.
    ///
    /// # Errors
    /// `NotFound` for any other.
    async fn artifact(&self, server: &ServerId, sha256: &str) -> Result<PathBuf>;

    /// Something about a server's identity is not as it should be: for the journal.
    async fn alert(&self, server: Option<&ServerId>, because: &str);
}

/// The connection of one agent.
pub struct Link {
    /// Which server it is.
    pub server: ServerId,
    /// Where it comes from, for people.
    pub peer: std::net::SocketAddr,
    /// What it sends; ends with the connection.
    pub frames: BoxStream<'static, AgentFrame>,
    /// The other direction.
    pub sender: Arc<dyn LinkSender>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("server", &self.server).field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Sends to one agent.
#[async_trait]
pub trait LinkSender: fmt::Debug + Send + Sync {
    /// Sends a frame, or drops it: a connection that does not keep up with what is sent is closed.
    fn send(&self, frame: ManagerFrame);

    /// Closes the connection, after what was sent.
    fn close(&self);

    /// The stream beside the session that the agent opens for this number, when it has. Streams end with the connection.
    ///
    /// # Errors
    /// `Unavailable` when the connection ends before; `Deadline` when the agent does not open it.
    async fn aside(&self, number: u64) -> Result<Aside>;
}

/// A stream beside a session: output of a container, or a command beside it.
pub struct Aside {
    /// What comes from the agent.
    pub output: BoxStream<'static, Result<AsideOutput>>,
    /// What goes to it.
    pub input: std::pin::Pin<Box<dyn futures_util::Sink<ExecInput, Error = Error> + Send>>,
}

impl fmt::Debug for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aside")
    }
}

/// What comes over a stream beside a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AsideOutput {
    /// A line of output.
    Line(LogLine),
    /// What a command says.
    Exec(ExecOutput),
}
