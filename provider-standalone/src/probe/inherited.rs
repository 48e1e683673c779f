//! Connections to a port whose listening socket a worker inherited.
//!
//! Such a socket listens before its worker runs, and an old container and its replacement accept from the same one. So
//! a connection says nothing of this worker until somebody accepted it, and nothing either if another container did.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cocktail_core::time::human;
use cocktail_probe::Seen;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Target;
use crate::accepted::{Accepted, accepted};
use crate::shared::Shared;

/// Shortest and longest pause before it is looked again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// A connection that the target accepted. Asks again for as long as others take it.
pub(super) async fn open(
    shared: &Arc<Shared>,
    target: &Target,
    at: SocketAddr,
    time: (Duration, Instant),
) -> Result<TcpStream, Seen> {
    let mut pause = PAUSES.0;
    loop {
        let stream = cocktail_probe::open(at, time).await?;
        let Ok(ours) = stream.local_addr() else { return Err(Seen::Nothing) };
        loop {
            let (own, others) = (target.pid, shared.others_at(&target.container, at.port()));
            let look = tokio::task::spawn_blocking(move || accepted(at, ours, own, &others));
            match look.await {
                // What cannot be told is believed, as it is of a socket of the worker's own.
                Ok(Accepted::Own | Accepted::Unknown) => return Ok(stream),
                Ok(Accepted::Other) => break,
                Ok(Accepted::Waits) if Instant::now() + pause >= time.1 => {
                    let detail = format!("nobody accepted a connection at {at} within {}", human(time.0));
                    return Err(Seen::Bad(detail));
                }
                Ok(Accepted::Waits) => {}
                Err(_) => return Err(Seen::Nothing),
            }
            tokio::time::sleep(pause).await;
            pause = PAUSES.1.min(pause * 2);
        }
        drop(stream);
        if Instant::now() + pause >= time.1 {
            return Err(Seen::Nothing);
        }
        tokio::time::sleep(pause).await;
        pause = PAUSES.1.min(pause * 2);
    }
}
