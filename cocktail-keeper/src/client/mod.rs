//! The Manager's end of the connection.
//!
//! Start at [`KeeperClient`]. Many calls may be in flight; replies find their call by number. Frames of calls made at the
//! same time leave in one write. When the connection is lost every call ends with [`KeeperError::Disconnected`], and
//! whether it was carried out is unknown: connect again, list, and repeat what is missing (every request may be repeated).

mod connection;
mod streams;

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc};

use crate::{
    error::{KeeperError, Result},
    protocol::{
        Adopt, Adoption, BindOutcome, ContainerUsage, ExecRequest, Exit, Intent, Listen, Listing, LogsRequest, Ports,
        Prepare, Remove, Reply, Request, ServiceInfo, SetLease, SetServices, Shutdown, Signal, Start, StartOutcome,
        Stop, StopPolicy, Subscribe, Welcome,
    },
};

pub use connection::EventStream;
use connection::{Connection, Guard};
pub(crate) use streams::kind;
pub use streams::{ExecInput, ExecOutput, ExecSession, LogItem, LogRecord, LogStream};

/// Who connects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hello {
    /// The store that the caller acts for. The first hello binds the keeper to it.
    pub store: String,
    /// The caller's epoch. A higher one takes command, a lower one is refused.
    pub epoch: u64,
    /// Key of the caller's lease. With one, command is taken only from the same lease or one in `earlier`.
    pub lease: Option<String>,
    /// Keys of the leases that this one descends from.
    pub earlier: Vec<String>,
    /// Why the caller comes: nearly always to lead.
    pub intent: Intent,
}

/// A connection to a keeper. Clones share it; it closes when the last one is dropped.
#[derive(Debug, Clone)]
pub struct KeeperClient {
    connection: Arc<Connection>,
    _guard: Arc<Guard>,
}

impl KeeperClient {
    /// Connects to `DIR/keeper.sock`. Must be called within a tokio runtime, on which two tasks serve the connection.
    ///
    /// # Errors
    /// [`KeeperError::Unreachable`] when nobody listens; [`KeeperError::Refused`] for another store, an older epoch, a
    /// lease that does not descend from the one in command, an unknown version or a foreign user.
    pub async fn connect(path: impl AsRef<Path>, hello: Hello) -> Result<(Self, EventStream)> {
        let (connection, guard, events) = Connection::open(path.as_ref().to_owned(), hello).await?;
        Ok((Self { connection, _guard: Arc::new(guard) }, events))
    }

    /// What the keeper said of itself.
    pub fn welcome(&self) -> &Welcome {
        self.connection.welcome()
    }

    /// Whether the connection is lost. A lost connection does not come back: connect again.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Returns when the connection is lost.
    pub async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Makes the container's pipes and proves its ports.
    ///
    /// # Errors
    /// `PortTaken`, with nothing held; `Generation` when the keeper knows a newer one; `Running` is not an error: the same
    /// container and generation again succeeds.
    pub async fn prepare(&self, request: Prepare) -> Result<()> {
        self.done(Request::Prepare(request)).await
    }

    /// Starts a prepared worker; the same generation again answers with the same process or its exit.
    ///
    /// # Errors
    /// `Start(StartError)` when it cannot be started, `NotPrepared` when [`prepare`](Self::prepare) did not come first.
    pub async fn start(&self, request: Start) -> Result<StartOutcome> {
        match self.connection.call(Request::Start(Box::new(request))).await? {
            Reply::Start(outcome) => Ok(outcome),
            other => Err(unexpected(&other)),
        }
    }

    /// Stops a worker and everything that belongs to it; returns when nothing is left. Already gone is success.
    ///
    /// # Errors
    /// `NoSuchContainer`, `Generation`, `NotRunning` for one that never started, `Unkillable`.
    pub async fn stop(&self, container: &str, generation: u64, policy: StopPolicy) -> Result<Exit> {
        let stop = Stop { container: container.to_owned(), generation, policy };
        match self.connection.call(Request::Stop(stop)).await? {
            Reply::Exit(exit) => Ok(exit),
            other => Err(unexpected(&other)),
        }
    }

    /// [`stop`](Self::stop) without grace.
    pub async fn kill(&self, container: &str, generation: u64) -> Result<Exit> {
        self.stop(container, generation, StopPolicy { signal: 9, grace_ms: 0 }).await
    }

    /// Sends a signal to the main process.
    pub async fn signal(&self, container: &str, generation: u64, signal: i32) -> Result<()> {
        self.done(Request::Signal(Signal { container: container.to_owned(), generation, signal })).await
    }

    /// Forgets a container that does not run, with its pipes and (unless `keep_logs`) its log. Missing is success.
    ///
    /// # Errors
    /// `Running`.
    pub async fn remove(&self, container: &str, keep_logs: bool) -> Result<()> {
        self.done(Request::Remove(Remove { container: container.to_owned(), keep_logs })).await
    }

    /// Gives ports back. Ports that are not held are ignored.
    pub async fn release_ports(&self, ports: Vec<u16>) -> Result<()> {
        self.done(Request::ReleasePort(Ports { ports })).await
    }

    /// Everything that the keeper holds.
    pub async fn list(&self) -> Result<Listing> {
        match self.connection.call(Request::List).await? {
            Reply::Listing(listing) => Ok(listing),
            other => Err(unexpected(&other)),
        }
    }

    /// Hands the workers of a dead keeper to this one, and finds those whose start was never acknowledged. What is
    /// already held stays as it is.
    pub async fn adopt(&self, request: Adopt) -> Result<Adoption> {
        match self.connection.call(Request::Adopt(request)).await? {
            Reply::Adoption(adoption) => Ok(adoption),
            other => Err(unexpected(&other)),
        }
    }

    /// CPU time and memory of every running container; one pass over the process table.
    pub async fn usage(&self) -> Result<BTreeMap<String, ContainerUsage>> {
        match self.connection.call(Request::Usage).await? {
            Reply::Usage(usage) => Ok(usage),
            other => Err(unexpected(&other)),
        }
    }

    /// Replaces the forwarder's whole table; answers per service key.
    pub async fn set_services(&self, request: SetServices) -> Result<BTreeMap<String, BindOutcome>> {
        match self.connection.call(Request::SetServices(request)).await? {
            Reply::Services(outcomes) => Ok(outcomes),
            other => Err(unexpected(&other)),
        }
    }

    /// Reserves addresses for the next [`set_services`](Self::set_services), for 30 seconds; answers in order.
    pub async fn check_listen(&self, addrs: Vec<SocketAddr>) -> Result<Vec<BindOutcome>> {
        match self.connection.call(Request::CheckListen(Listen { addrs })).await? {
            Reply::Listen(outcomes) => Ok(outcomes),
            other => Err(unexpected(&other)),
        }
    }

    /// Connection counts by service and backend.
    pub async fn connections(&self) -> Result<Vec<ServiceInfo>> {
        match self.connection.call(Request::Connections).await? {
            Reply::Connections(services) => Ok(services),
            other => Err(unexpected(&other)),
        }
    }

    /// Has events from `from_seq` on (0: from now on) sent to the [`EventStream`].
    ///
    /// # Errors
    /// `Gap` when they are gone, or when the number is ahead of this keeper's: list, then subscribe from `seq + 1`.
    pub async fn subscribe(&self, from_seq: u64) -> Result<()> {
        self.done(Request::Subscribe(Subscribe { from_seq })).await
    }

    /// Sets, renews or (`ttl_ms: None`) removes the lease under which workers may run.
    pub async fn set_lease(&self, request: SetLease) -> Result<()> {
        self.done(Request::SetLease(request)).await
    }

    /// What is left of the lease that was set last; `ttl_ms: None` where there is none, zero where it is over.
    pub async fn lease(&self) -> Result<SetLease> {
        match self.connection.call(Request::Lease).await? {
            Reply::Lease(lease) => Ok(lease),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends the keeper. With `kill` the answer comes when no worker is left.
    pub async fn shutdown(&self, request: Shutdown) -> Result<()> {
        self.done(Request::Shutdown(request)).await
    }

    /// A container's log, over a connection of its own.
    pub async fn logs(&self, request: LogsRequest) -> Result<LogStream> {
        streams::logs(&self.connection, request).await
    }

    /// Runs a command beside a container's main process, over a connection of its own.
    ///
    /// # Errors
    /// `NoSuchContainer`, `NotRunning`, `Limit`, `Start(StartError)`.
    pub async fn exec(&self, request: ExecRequest) -> Result<ExecSession> {
        streams::exec(&self.connection, request).await
    }

    async fn done(&self, request: Request) -> Result<()> {
        match self.connection.call(request).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(reply: &Reply) -> KeeperError {
    // The variant alone: a reply may hold what must not be printed.
    let text = format!("{reply:?}");
    let name = text.split(['(', ' ']).next().unwrap_or_default();
    KeeperError::Protocol { why: format!("unexpected reply {name}") }
}
