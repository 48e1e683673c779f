//! The caller's end of a session.

use cocktail_core::contract::{ExecInput, ExecOutput, ExecSession};
use cocktail_core::error::{Error, Result};
use futures_util::stream::{self, StreamExt};
use futures_util::{SinkExt, future};
use hyper::upgrade::Parts;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_util::codec::{Framed, FramedParts};

use crate::frame::{Frame, FrameCodec, FrameError};

/// A session on a connection that was taken over. The connection closes, and the command ends, when both halves
/// are dropped.
pub(super) fn session(parts: Parts<TokioIo<UnixStream>>) -> ExecSession {
    let mut framed = FramedParts::new(parts.io.into_inner(), FrameCodec);
    framed.read_buf.extend_from_slice(&parts.read_buf);
    let (sink, frames) = Framed::from_parts(framed).split();
    let input = sink
        .with(|input: ExecInput| future::ready(Ok::<_, FrameError>(Frame::from(input))))
        .sink_map_err(|error| Error::unavailable("the session takes no more input").because(error));
    let output = stream::unfold(Some(frames), |frames| async {
        let mut frames = frames?;
        let item = next(frames.next().await);
        let last = !matches!(item, Ok(ExecOutput::Stdout(_) | ExecOutput::Stderr(_)));
        Some((item, (!last).then_some(frames)))
    });
    ExecSession { input: Box::pin(input), output: output.boxed() }
}

/// What a frame means; a session that ends without saying how the command ended has failed.
fn next(frame: Option<Result<Frame, FrameError>>) -> Result<ExecOutput> {
    match frame {
        Some(Ok(frame)) => frame
            .into_output()
            .unwrap_or_else(|| Err(Error::unexpected("the Manager sent a frame that only clients send"))),
        Some(Err(error @ FrameError::Malformed(_))) => {
            Err(Error::unexpected("the Manager does not keep to the protocol of sessions").because(error))
        }
        Some(Err(error @ FrameError::Io(_))) => {
            Err(Error::unavailable("the Manager went away before the command ended").because(error))
        }
        None => Err(Error::unavailable("the Manager went away before the command ended")),
    }
}
