//! One session's connection, as the Manager has it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cocktail_core::contract::{Aside, Link, LinkSender};
use cocktail_core::error::{ErrorKind, Result};
use cocktail_core::id::ServerId;
use cocktail_core::session::{AgentFrame, ManagerFrame};
use futures_util::{Stream, StreamExt as _, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::{debug, warn};

use super::Shared;
use super::listen::Peer;
use crate::wire::{Frame, Incoming, Outgoing, parts};

/// A link, and what goes back over the call.
pub(super) fn open(
    shared: &Arc<Shared>,
    server: ServerId,
    peer: &Peer,
    incoming: Streaming<Frame>,
) -> (Link, impl Stream<Item = Result<Frame, Status>> + Send + use<>) {
    let (frames, outgoing) = parts();
    // It ends with its connection at the latest.
    let over = peer.cut.child_token();
    let guard = over.clone().drop_guard();
    let start = (incoming, Incoming::default(), over.clone(), guard);
    let incoming = stream::unfold(start, |(mut incoming, mut whole, over, guard)| async move {
        loop {
            let next = tokio::select! {
                () = over.cancelled() => return None,
                next = incoming.message() => next,
            };
            let Ok(Some(part)) = next else { return None };
            match whole.take(part) {
                Ok(None) => {}
                Ok(Some(message)) => match serde_json::from_slice::<AgentFrame>(&message) {
                    Ok(frame) => return Some((frame, (incoming, whole, over, guard))),
                    Err(_) => debug!("a message of a later version was left out"),
                },
                Err(error) => {
                    warn!(error = error.chain(), "a session is over");
                    return None;
                }
            }
        }
    });
    let sender = GateLink { shared: shared.clone(), server: server.clone(), frames, over: over.clone() };
    let link = Link { server, peer: peer.address, frames: incoming.boxed(), sender: Arc::new(sender) };
    let back = stream::unfold((outgoing, over), |(mut outgoing, over)| async move {
        tokio::select! {
            biased;
            part = outgoing.next() => Some((Ok(part?), (outgoing, over))),
            () = over.cancelled() => None,
        }
    });
    (link, back)
}

struct GateLink {
    shared: Arc<Shared>,
    server: ServerId,
    frames: Outgoing,
    over: CancellationToken,
}

impl fmt::Debug for GateLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GateLink").field("server", &self.server).finish_non_exhaustive()
    }
}

#[async_trait]
impl LinkSender for GateLink {
    fn send(&self, frame: ManagerFrame) {
        let Err(error) = self.frames.send(&frame) else { return };
        match error.kind() {
            // It does not keep up, or is gone.
            ErrorKind::Unavailable => self.over.cancel(),
            _ => warn!(server = %self.server, error = error.chain(), "a message was not sent"),
        }
    }

    fn close(&self) {
        self.over.cancel();
    }

    async fn aside(&self, number: u64) -> Result<Aside> {
        self.shared.asides.wait(&self.server, number, &self.over).await
    }
}
