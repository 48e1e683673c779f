//! The SDK of workers: a program says which microservices it has, and runs.
//!
//! Start at [`Worker`]. It registers with whoever started it, loads what it is told, says what became of that, and goes on
//! serving while the other end is away.
//!
//! ```no_run
//! use cocktail_agent::worker::{BoxError, Context, MicroService, Worker, async_trait};
//!
//! struct Hello;
//!
//! #[async_trait]
//! impl MicroService for Hello {
//!     async fn init(&mut self, context: Context) -> Result<(), BoxError> {
//!         tracing::info!(unit = %context.unit(), "loaded");
//!         Ok(())
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), cocktail_agent::worker::Error> {
//!     Worker::new().register("hello", || Hello).run().await
//! }
//! ```

mod context;
mod in_flight;
mod link;
mod loaded;
mod service;
mod sockets;
mod standing;

use std::path::PathBuf;
use std::sync::Arc;
use std::{env, fmt};

pub use async_trait::async_trait;
use tokio::signal::unix::{SignalKind, signal};

pub use self::context::Context;
pub use self::in_flight::{Answer, Counted, CountedBody, InFlight, Request};
pub use self::service::{BoxError, MicroService};

use self::link::{Identity, Link};
use self::loaded::Loader;
use self::service::Register;
use self::sockets::Sockets;
use self::standing::Standing;
use crate::protocol;

/// Why a worker does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody started it as a worker.
    #[error("{0} is not set: this program is a worker, and is started by a cocktail manager")]
    NoManager(&'static str),
    /// Whoever started it does not take it.
    #[error("the manager refuses this worker: {0}")]
    Refused(String),
    /// A socket that it was started with cannot be used.
    #[error("the inherited sockets cannot be used")]
    Sockets(#[source] std::io::Error),
    /// Signals cannot be waited for.
    #[error("signals cannot be waited for")]
    Signals(#[source] std::io::Error),
}

/// A worker: the microservices that it can load.
#[derive(Debug, Default)]
pub struct Worker {
    register: Register,
    build: String,
}

impl Worker {
    /// A worker that can load nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a microservice; `make` makes one each time it is loaded. The same name again replaces it.
    #[must_use]
    pub fn register<S: MicroService>(
        mut self,
        name: impl Into<String>,
        make: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self {
        self.register.insert(name.into(), make);
        self
    }

    /// What `inspect` shows about the build of this program, such as its version.
    #[must_use]
    pub fn build(mut self, build: impl Into<String>) -> Self {
        self.build = protocol::shortened(build.into());
        self
    }

    /// Runs until SIGTERM or SIGINT: then new requests are refused, those in flight finish, everything is closed.
    ///
    /// # Errors
    /// It was not started as a worker, or whoever started it does not take it (any more).
    pub async fn run(self) -> Result<(), Error> {
        #[expect(clippy::disallowed_methods, reason = "a worker is a program of its own, and this is how it is ended")]
        let (mut term, mut int) = (
            signal(SignalKind::terminate()).map_err(Error::Signals)?,
            signal(SignalKind::interrupt()).map_err(Error::Signals)?,
        );
        let ended = async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        };
        self.run_until(ended).await
    }

    /// As [`Worker::run`], until a future of the program's own is ready.
    ///
    /// # Errors
    /// As [`Worker::run`].
    pub async fn run_until(self, ended: impl Future<Output = ()> + Send) -> Result<(), Error> {
        self.run_at(Place::from_env()?, ended).await
    }

    /// As [`Worker::run_until`], at a place that is not that of the environment: for tests of microservices, and programs
    /// that are several workers.
    ///
    /// # Errors
    /// As [`Worker::run`].
    pub async fn run_at(self, place: Place, ended: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let Place { socket, token, container } = place;
        let sockets = Arc::new(Sockets::take().map_err(Error::Sockets)?);
        let register = protocol::Register {
            container: container.clone(),
            token,
            pid: std::process::id(),
            build: self.build,
            microservices: self.register.names().map(str::to_owned).collect(),
        };
        let (told, telling) = tokio::sync::mpsc::channel(TELLING);
        let loader = Loader { container, socket: socket.clone(), register: Arc::new(self.register), sockets, told };
        let (assignment, assigned) = tokio::sync::watch::channel(0);
        let link = Link::open(Identity { socket, register }, assigned);
        Standing::new(loader, assignment).run(link, telling, ended).await
    }
}

/// Requests for help and reports that wait to be sent; more are dropped.
const TELLING: usize = 32;

/// Where a worker finds whoever started it, and as whom.
#[derive(Clone)]
pub struct Place {
    /// The socket (`COCKTAIL_SOCKET`).
    pub socket: PathBuf,
    /// What it proves itself with, once (`COCKTAIL_TOKEN`).
    pub token: String,
    /// The container that it is (`COCKTAIL_CONTAINER`).
    pub container: String,
}

impl Place {
    /// The place that the environment names.
    ///
    /// # Errors
    /// [`Error::NoManager`] with the first variable that is missing.
    pub fn from_env() -> Result<Self, Error> {
        let variable = |name| env::var(name).map_err(|_| Error::NoManager(name));
        let (socket, token) = (variable("COCKTAIL_SOCKET")?.into(), variable("COCKTAIL_TOKEN")?);
        Ok(Self { socket, token, container: variable("COCKTAIL_CONTAINER")? })
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { socket, token: _, container } = self;
        f.debug_struct("Place").field("socket", socket).field("container", container).finish_non_exhaustive()
    }
}
