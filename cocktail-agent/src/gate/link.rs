//! One session's connection, as the Manager has it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cocktail_core::contract::{Aside, Link, LinkSender};
use cocktail_core::error::Result;
use cocktail_core::id::ServerId;
use cocktail_core::session::{AgentFrame, ManagerFrame};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::{debug, warn};

use super::Shared;
use super::listen::Peer;
use crate::wire::Frame;

/// Frames that wait to be sent to one agent.
const OUTGOING: usize = 1_024;

/// A link, and what goes back over the call.
pub(super) fn open(
    shared: &Arc<Shared>,
    server: ServerId,
    peer: &Peer,
    incoming: Streaming<Frame>,
) -> (Link, impl Stream<Item = Result<Frame, Status>> + Send + use<>) {
    let (frames, outgoing) = mpsc::channel(OUTGOING);
    // It ends with its connection at the latest.
    let over = peer.cut.child_token();
    let guard = over.clone().drop_guard();
    let incoming = stream::unfold((incoming, over.clone(), guard), |(mut incoming, over, guard)| async move {
        loop {
            let next = tokio::select! {
                () = over.cancelled() => return None,
                next = incoming.message() => next,
            };
            match next {
                Ok(Some(frame)) => match frame.read::<AgentFrame>() {
                    Some(frame) => return Some((frame, (incoming, over, guard))),
                    None => debug!("a frame of a later version was left out"),
                },
                Ok(None) | Err(_) => return None,
            }
        }
    });
    let sender = GateLink { shared: shared.clone(), server: server.clone(), frames, over: over.clone() };
    let link = Link { server, peer: peer.address, frames: incoming.boxed(), sender: Arc::new(sender) };
    let back = stream::unfold((outgoing, over), |(mut outgoing, over)| async move {
        tokio::select! {
            biased;
            frame = outgoing.recv() => Some((Ok(frame?), (outgoing, over))),
            () = over.cancelled() => None,
        }
    });
    (link, back)
}

struct GateLink {
    shared: Arc<Shared>,
    server: ServerId,
    frames: mpsc::Sender<Frame>,
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
        match Frame::of(&frame) {
            Ok(frame) => {
                if self.frames.try_send(frame).is_err() {
                    // It does not keep up, or is gone.
                    self.over.cancel();
                }
            }
            Err(error) => warn!(server = %self.server, error = error.chain(), "a message was not sent"),
        }
    }

    fn close(&self) {
        self.over.cancel();
    }

    async fn aside(&self, number: u64) -> Result<Aside> {
        self.shared.asides.wait(&self.server, number, &self.over).await
    }
}
