//! What the writer, the executor and the handles share: the ways to the writer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use cocktail_core::command::{Command, Commanded};
use cocktail_core::contract::{
    Actor, ClaimOutcome, Connection, Forwarder, Interruption, Listing, Observation as Seen, Provider, Runtime,
    RuntimeEvent, ServerListing, ServerObservation, Store,
};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::event::{Event, Soft, Turn};
use cocktail_core::id::{ContainerId, OperationId, Seq, ServerId, UnitId};
use cocktail_core::name::Name;
use cocktail_core::operation::Failure;
use cocktail_core::state::State;
use cocktail_core::time::ManagerTime;
use cocktail_core::view::BuildLine;
use futures_util::stream::BoxStream;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::agents::Agents;
use crate::endpoints::Endpoints;
use crate::monitor::Monitor;

/// Observations that wait for the writer at most; senders wait beyond that.
pub(crate) const OBSERVATIONS: usize = 16_384;
/// Turns that a follower may lag behind before it reads the journal again.
pub(crate) const FOLLOWED: usize = 1024;
/// Lines of builds that wait for a slow reader.
const BUILD_LINES: usize = 1024;

/// What the writer is asked by users.
pub(crate) enum Request {
    /// Something to do.
    Command { command: Command, actor: Actor, reply: oneshot::Sender<Result<Commanded>>, show: Show },
    /// A look at the state.
    Look(Look),
    /// End without or with the containers.
    Halt(oneshot::Sender<()>),
    /// End the loop; answered when the last turn is durable.
    Close(oneshot::Sender<()>),
}

/// Reads the state between two turns and sends what it found to whoever asked.
pub(crate) type Look = Box<dyn FnOnce(&State, &Health) + Send>;

/// Shows whoever gave a command the state that its turn leads to, as soon as that is decided. The answer comes when the turn
/// is durable: nobody sees it before.
pub(crate) type Show = Box<dyn FnOnce(&State, &Commanded) + Send>;

/// What the writer is told by the outside.
#[derive(Debug)]
pub(crate) enum Observation {
    /// Something durable that follows from an outcome.
    Event(Event),
    /// As before; whoever tells it waits until it is durable.
    Durable(Event, oneshot::Sender<Result<Commanded>>),
    /// Something soft.
    Soft(Soft),
    /// A start did not happen.
    StartFailed(OperationId, Failure),
    /// A removal is done.
    Removed(ContainerId),
    /// From a server's runtime.
    Runtime(ServerId, RuntimeEvent),
    /// A listing of a server's runtime; `attached` where it followed from attaching anew.
    Listed { found: Found, attached: bool },
    /// A server can be called: its runtime, and what that found there.
    Connected { attached: Attached, found: Found },
    /// What a provider that buys no servers says of one that was attached to again.
    Seen(Name, ServerObservation),
    /// A provider's listing, asked for at the given time.
    ProviderListed { provider: Name, asked: ManagerTime, listing: ServerListing },
    /// Servers that a provider will take away.
    Interrupted(Name, Vec<Interruption>),
    /// A provider's answer to a call for servers.
    Provisioned(OperationId, Result<Vec<ClaimOutcome>>),
    /// A provider's answer to whether it would let servers go.
    Cleared(OperationId, Result<()>),
    /// A provider's answer to a call that gives servers back.
    Terminated(OperationId, Result<()>),
    /// Which service ports do not listen, and why.
    Routes(BTreeMap<SocketAddr, String>),
}

/// What a server's runtime listed, when it was asked, and the containers that were known there then.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) server: ServerId,
    pub(crate) asked: ManagerTime,
    pub(crate) before: BTreeSet<ContainerId>,
    pub(crate) listing: Listing,
}

/// A server's runtime, and what it tells from before it was listed.
pub(crate) struct Attached {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) streamed: BoxStream<'static, RuntimeEvent>,
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").field("runtime", &self.runtime).finish_non_exhaustive()
    }
}

/// How the Manager is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    /// Why commands are refused, while the store cannot be written safely.
    pub(crate) degraded: Option<String>,
    /// Last turn that is durable.
    pub(crate) seq: Seq,
    /// Steps of ours that broke the floor of a Unit.
    pub(crate) anomalies: u64,
    /// Service ports that do not listen, and why.
    pub(crate) routes: BTreeMap<SocketAddr, String>,
    /// What runs on a server for our store although the state does not know it. It is shown, and never ended.
    pub(crate) unknown: BTreeMap<ServerId, BTreeMap<ContainerId, Seen>>,
}

impl Health {
    /// Takes what the last listing of a server named and the state does not know; each is warned of once.
    pub(crate) fn note_unknown(&mut self, server: &ServerId, unknown: BTreeMap<ContainerId, Seen>) {
        let before = self.unknown.remove(server).unwrap_or_default();
        for (container, seen) in unknown.iter().filter(|(id, _)| !before.contains_key(*id)) {
            let Seen { generation, sighting } = seen;
            warn!(%server, %container, %generation, ?sighting, "runs for this store and is not known to it; left alone");
        }
        if !unknown.is_empty() {
            self.unknown.insert(server.clone(), unknown);
        }
    }
}

/// One committed turn, for followers.
#[derive(Debug, Clone)]
pub(crate) struct Committed {
    pub(crate) seq: Seq,
    pub(crate) turn: Arc<Turn>,
}

/// What is connected: one provider and runtime per server.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    runtimes: Mutex<BTreeMap<ServerId, Arc<dyn Runtime>>>,
}

impl Servers {
    pub(crate) fn add(&self, server: ServerId, runtime: Arc<dyn Runtime>) {
        self.lock().insert(server, runtime);
    }

    /// Forgets a server that is gone; its runtime ends with the last call on it.
    pub(crate) fn remove(&self, server: &ServerId) {
        self.lock().remove(server);
    }

    pub(crate) fn get(&self, server: &ServerId) -> Option<Arc<dyn Runtime>> {
        self.lock().get(server).cloned()
    }

    pub(crate) fn all(&self) -> Vec<(ServerId, Arc<dyn Runtime>)> {
        self.lock().iter().map(|(id, runtime)| (id.clone(), runtime.clone())).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ServerId, Arc<dyn Runtime>>> {
        // The map is whole after any panic: a single insert or read is all that happens under the lock.
        self.runtimes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Tells whoever listens what builds of images say, and keeps images from being made and removed at the same time.
#[derive(Debug, Clone)]
pub(crate) struct Builds {
    lines: broadcast::Sender<BuildLine>,
    /// Shared by those that may come to need another image, held alone by who removes images.
    making: Arc<RwLock<()>>,
}

impl Default for Builds {
    fn default() -> Self {
        Self { lines: broadcast::Sender::new(BUILD_LINES), making: Arc::default() }
    }
}

impl Builds {
    /// Takes the lines of one build.
    pub(crate) fn teller(&self, unit: &UnitId, server: &ServerId) -> impl Fn(&str) + Send + Sync + use<> {
        let (lines, unit, server) = (self.lines.clone(), unit.to_string(), server.to_string());
        move |line| {
            let _nobody_listens =
                lines.send(BuildLine { unit: unit.clone(), server: server.clone(), line: line.to_owned() });
        }
    }

    /// The lines of all builds from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<BuildLine> {
        self.lines.subscribe()
    }

    /// While this is held, no image is removed.
    pub(crate) async fn making(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.making).read_owned().await
    }

    /// While this is held, nobody comes to need another image. `None` where somebody is about to: it is not waited for.
    pub(crate) fn alone(&self) -> Option<OwnedRwLockWriteGuard<()>> {
        Arc::clone(&self.making).try_write_owned().ok()
    }
}

/// What everybody needs.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) observations: mpsc::Sender<Observation>,
    pub(crate) committed: broadcast::Sender<Committed>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) providers: Arc<Vec<Arc<dyn Provider>>>,
    pub(crate) forwarder: Option<Arc<dyn Forwarder>>,
    pub(crate) servers: Arc<Servers>,
    /// Servers that agents drive, where agents may connect.
    pub(crate) agents: Option<Agents>,
    pub(crate) monitor: Monitor,
    pub(crate) endpoints: Endpoints,
    pub(crate) builds: Builds,
    /// Cancelled when the writer has ended.
    pub(crate) ended: CancellationToken,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Command { command, .. } => f.debug_tuple("Command").field(command).finish(),
            Self::Look(_) => f.write_str("Look"),
            Self::Halt(_) => f.write_str("Halt"),
            Self::Close(_) => f.write_str("Close"),
        }
    }
}

impl Shared {
    /// Runs something beside the writer that ends with it, so that nothing keeps the store open.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // On the heap once; else each of the futures around it holds it anew.
        let (ended, task) = (self.ended.clone(), Box::pin(task));
        tokio::spawn(async move { ended.run_until_cancelled(task).await });
    }

    /// Looks at the state between two turns.
    pub(crate) async fn look<T, F>(&self, look: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&State, &Health) -> T + Send + 'static,
    {
        self::look(&self.requests, look).await
    }

    /// Gives a command; returns when its events are durable.
    pub(crate) async fn command(&self, command: Command, actor: &Actor) -> Result<Commanded> {
        self.command_then(command, actor, |_, commanded| commanded.clone()).await
    }

    /// Gives a command, and returns what `show` makes of the state that follows from it, when that is durable.
    pub(crate) async fn command_then<T, F>(&self, command: Command, actor: &Actor, show: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&State, &Commanded) -> T + Send + 'static,
    {
        let (shows, shown) = oneshot::channel();
        let (reply, answer) = oneshot::channel();
        let show = Box::new(move |state: &State, commanded: &Commanded| {
            // The asker may have gone; then nobody wants the answer.
            let _ = shows.send(show(state, commanded));
        });
        let request = Request::Command { command, actor: actor.clone(), reply, show };
        self.requests.send(request).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())??;
        shown.await.map_err(|_| ended())
    }

    /// The runtime behind a connection, which is told where it may learn the endpoints.
    ///
    /// # Errors
    /// `Unavailable` for a server that an agent drives: it connects by itself.
    pub(crate) fn runtime_of(&self, connection: Connection) -> Result<Arc<dyn Runtime>> {
        match connection {
            Connection::Local(runtime) => {
                runtime.learn_endpoints_from(Arc::new(self.endpoints.clone()));
                Ok(runtime)
            }
            // Its agent connects by itself.
            Connection::Agent if self.agents.is_some() => Err(Error::unavailable("its agent has not joined yet")),
            Connection::Agent => {
                let message = "servers with agents need an address for these: set `listen` of [manager]";
                Err(Error::new(ErrorKind::Unsupported, message))
            }
        }
    }

    /// Tells the writer something that follows from an outcome; returns when it is durable.
    ///
    /// # Errors
    /// `Unavailable` when the Manager ends before.
    pub(crate) async fn durably(&self, event: Event) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.observations.send(Observation::Durable(event, reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?.map(|_| ())
    }

    /// Tells the writer something; lost only when the Manager has ended.
    pub(crate) async fn observe(&self, observation: Observation) {
        if let Ok(room) = self.observations.reserve().await {
            room.send(observation);
        }
    }
}

/// Looks at the state of the writer behind `requests`, between two turns.
pub(crate) async fn look<T, F>(requests: &mpsc::Sender<Request>, look: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce(&State, &Health) -> T + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let look = Box::new(move |state: &State, health: &Health| {
        // The asker may have gone; then nobody wants the answer.
        let _ = reply.send(look(state, health));
    });
    requests.send(Request::Look(look)).await.map_err(|_| ended())?;
    answer.await.map_err(|_| ended())
}

fn ended() -> Error {
    Error::unavailable("the manager has ended")
}
