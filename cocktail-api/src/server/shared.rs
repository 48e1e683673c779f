//! What all connections share: the Manager, the limits, and the signals that end them.

use std::future::Future;
use std::sync::Arc;

use cocktail_core::contract::Manager;
use cocktail_core::error::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::limits::ApiLimits;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Shared(Arc<Inner>);

struct Inner {
    manager: Arc<dyn Manager>,
    limits: ApiLimits,
    streams: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
    tasks: TaskTracker,
    ending: CancellationToken,
    closed: CancellationToken,
}

impl Shared {
    pub(super) fn new(manager: Arc<dyn Manager>, limits: ApiLimits) -> Self {
        Self(Arc::new(Inner {
            manager,
            limits,
            streams: Arc::new(Semaphore::new(limits.streams)),
            sessions: Arc::new(Semaphore::new(limits.sessions)),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
            closed: CancellationToken::new(),
        }))
    }

    pub(super) fn manager(&self) -> &Arc<dyn Manager> {
        &self.0.manager
    }

    pub(super) fn limits(&self) -> &ApiLimits {
        &self.0.limits
    }

    /// Comes when the API ends: streams say so and stop, connections take no more requests.
    pub(super) fn ending(&self) -> &CancellationToken {
        &self.0.ending
    }

    /// Room for one more stream, held as long as it is open.
    pub(super) fn stream(&self) -> Result<OwnedSemaphorePermit> {
        take(&self.0.streams, "streams of events and logs", self.0.limits.streams)
    }

    /// Room for one more session, held as long as it is open.
    pub(super) fn session(&self) -> Result<OwnedSemaphorePermit> {
        take(&self.0.sessions, "sessions", self.0.limits.sessions)
    }

    /// Runs a task that serves a client. It is dropped where it stands when the API's time is over.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let closed = self.0.closed.clone();
        self.0.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = closed.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Runs a command to its end, whether or not the client waits for it: half a command is nobody's wish.
    pub(super) async fn complete<T: Send + 'static>(
        &self,
        command: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.0.tasks.spawn(command).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Error::unexpected("the Manager failed while it carried out the command").because(error)),
        }
    }

    /// Closes everything that is still open when the guard goes.
    pub(super) fn close_on_drop(&self) -> DropGuard {
        self.0.closed.clone().drop_guard()
    }

    /// Asks everything to end and waits for it, as long as the grace lasts.
    pub(super) async fn end(&self) {
        self.0.ending.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(self.0.limits.grace, self.0.tasks.wait()).await.is_err() {
            tracing::debug!(open = self.0.tasks.len(), "closing API connections that did not end in time");
        }
    }
}

fn take(room: &Arc<Semaphore>, what: &str, limit: usize) -> Result<OwnedSemaphorePermit> {
    Arc::clone(room)
        .try_acquire_owned()
        .map_err(|_| Error::unavailable(format!("{limit} {what} are open already, which is the limit")))
}
