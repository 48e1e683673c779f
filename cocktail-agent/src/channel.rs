//! The way to whoever runs workers: a connection, and the pauses before the next one.

use std::path::Path;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// First and longest pause before a connection is opened again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How often a connection in which nothing is said is tried.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Connects to a socket.
pub(crate) async fn open(socket: &Path) -> Result<Channel, Status> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))
        .map_err(|error| Status::failed_precondition(error.to_string()))?
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))
}

/// Pauses between attempts that fail one after the other.
#[derive(Debug)]
pub(crate) struct Pauses(ExponentialBackoff);

impl Pauses {
    pub(crate) fn new() -> Self {
        let (first, longest) = PAUSE;
        let pauses = ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest);
        Self(pauses.with_jitter().without_max_times().build())
    }

    /// Waits before the next attempt; for a short time again after one that `lasted`.
    pub(crate) async fn wait(&mut self, lasted: bool) {
        if lasted {
            *self = Self::new();
        }
        tokio::time::sleep(self.0.next().unwrap_or(PAUSE.1)).await;
    }
}
