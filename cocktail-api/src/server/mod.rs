//! The Manager's end: a router over a Unix socket.
//!
//! Start at [`Api`]; [`routes`] says what there is to ask, [`connection`] how one connection is served.
//!
//! Everything is bounded by [`ApiLimits`]: connections, streams, sessions, headers, bodies, and the time in which a
//! client must send and take what is due. A client that does not keep to them loses its connection; the Manager is
//! asked only for what somebody is taking. Connections are served on the caller's runtime.

mod commands;
mod connection;
mod exec;
mod extract;
mod failure;
mod limits;
mod metrics;
mod queries;
mod routes;
mod shared;
mod socket;
mod stall;
mod streams;

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cocktail_core::contract::Manager;
use cocktail_core::error::Result;
use tokio::net::{UnixListener, UnixStream};

pub use limits::ApiLimits;
pub use metrics::{MetricsListener, metrics};

use connection::Door;
use shared::Shared;
use socket::SocketFile;

/// Answers for `manager` on `socket` until `shutdown` comes. The same as [`Api::bind`] and [`Api::run`].
///
/// # Errors
/// Those of [`Api::bind`].
pub async fn serve(
    manager: Arc<dyn Manager>,
    socket: &Path,
    limits: ApiLimits,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    Api::bind(socket).await?.with_limits(limits).run(manager, shutdown).await;
    Ok(())
}

/// A socket that is listened on, before anybody answers.
///
/// Made before the Manager does anything, so that a second one fails early; clients that connect meanwhile wait.
/// Dropping it removes the socket's file.
pub struct Api {
    listener: UnixListener,
    file: SocketFile,
    limits: ApiLimits,
}

impl Api {
    /// Listens on `socket`, whose folder must exist, with mode 0600.
    ///
    /// The file of a Manager that is dead is replaced. Two callers that do this at the same moment are kept apart by
    /// the lock of the data dir, which the caller holds.
    ///
    /// # Errors
    /// `Conflict` when somebody answers on the socket, or when the path is something else than a socket;
    /// `InvalidConfig` when its folder does not exist; `Denied` or `Unavailable` when the system refuses.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O.
    pub async fn bind(socket: &Path) -> Result<Self> {
        let (listener, file) = socket::listen(socket).await?;
        Ok(Self { listener, file, limits: ApiLimits::default() })
    }

    /// Replaces the limits.
    #[must_use]
    pub fn with_limits(mut self, limits: ApiLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        self.file.path()
    }

    /// Answers until `shutdown` comes. Then the socket's file goes, streams and sessions end with `Unavailable`, and
    /// requests that were accepted get [`ApiLimits::grace`] to be answered.
    ///
    /// A `shutdown` command is one of those requests: let this return before the process ends, and its caller
    /// learns how it went. Dropping the future closes every connection at once.
    pub async fn run(self, manager: Arc<dyn Manager>, shutdown: impl Future<Output = ()> + Send) {
        let Self { listener, file, limits } = self;
        let shared = Shared::new(manager, limits);
        let _close_all = shared.close_on_drop();
        let door = Door::new(shared.clone());
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                stream = accept(&listener) => door.admit(stream),
            }
        }
        drop(listener);
        drop(file);
        shared.end().await;
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("socket", &self.file.path()).finish_non_exhaustive()
    }
}

/// The next connection. A failure to accept (no descriptors left) passes, so it is waited out and never ends the API.
async fn accept(listener: &UnixListener) -> UnixStream {
    let mut backoff = Duration::from_millis(50);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the API");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(Duration::from_secs(5));
            }
        }
    }
}
