//! Messages of a session on their way: in parts that fit what a stream holds anyway, so that neither end needs room for a
//! large one that is not there, and bounded by their bytes rather than by their number.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use cocktail_core::error::{Error, Result};
use futures_util::Stream;
use serde::Serialize;
use tokio::sync::mpsc;

use super::Frame;

/// Bytes of the largest message of a session: what ten thousand containers of one server are, and more than any has.
pub const LARGEST: usize = 32 << 20;
/// Bytes of a part: two of them fit the 8 KiB that gRPC holds for each stream and never gives back once they were more.
const PART: usize = 4_000;

/// Where messages go, and what comes out in parts.
pub(crate) fn parts() -> (Outgoing, Parts) {
    let (messages, waiting) = mpsc::unbounded_channel();
    let bytes = Arc::new(AtomicUsize::new(0));
    let parts = Parts { waiting, bytes: bytes.clone(), current: Vec::new(), sent: 0, at_once: 0 };
    (Outgoing { messages, bytes }, parts)
}

/// Sends messages over one session.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    messages: mpsc::UnboundedSender<Vec<u8>>,
    /// Of what waits.
    bytes: Arc<AtomicUsize>,
}

impl Outgoing {
    /// Sends a message. What waits is [`LARGEST`] bytes at most, and one message.
    ///
    /// # Errors
    /// `Unavailable` when the other end does not keep up or is gone; `InvalidConfig` for a message that is too large.
    pub(crate) fn send(&self, message: &impl Serialize) -> Result<()> {
        let json =
            serde_json::to_vec(message).map_err(|error| Error::unexpected("a message is no JSON").because(error))?;
        let size = json.len();
        if size > LARGEST {
            return Err(Error::invalid(format!("a message of {size} bytes is too large: {LARGEST} at most")));
        }
        if self.bytes.fetch_add(size, Ordering::Relaxed) > LARGEST {
            return Err(Error::unavailable("the other end does not keep up"));
        }
        self.messages.send(json).map_err(|_| Error::unavailable("the session is over"))
    }
}

/// What is to be sent, in order.
#[derive(Debug)]
pub(crate) struct Parts {
    waiting: mpsc::UnboundedReceiver<Vec<u8>>,
    bytes: Arc<AtomicUsize>,
    current: Vec<u8>,
    sent: usize,
    /// Bytes since the last pause.
    at_once: usize,
}

impl Stream for Parts {
    type Item = Frame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        if self.at_once >= PART {
            // What comes without a pause gRPC puts together, up to 32 KiB, and the other end holds it.
            self.at_once = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.current.is_empty() {
            let Some(message) = ready!(self.waiting.poll_recv(context)) else { return Poll::Ready(None) };
            (self.current, self.sent) = (message, 0);
        }
        let left = self.current.len() - self.sent;
        let size = left.min(PART);
        self.bytes.fetch_sub(size, Ordering::Relaxed);
        let json = match (self.sent, left <= PART) {
            (0, true) => std::mem::take(&mut self.current),
            (sent, _) => self.current[sent..sent + size].to_vec(),
        };
        self.sent += size;
        self.at_once += size;
        let more = left > PART;
        if !more {
            self.current = Vec::new();
        }
        Poll::Ready(Some(Frame { json, more }))
    }
}

/// Puts messages together again.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    message: Vec<u8>,
}

impl Incoming {
    /// Takes a part, and gives the message when it was the last one.
    ///
    /// # Errors
    /// `InvalidConfig` for more than [`LARGEST`] bytes: the session is over.
    pub(crate) fn take(&mut self, part: Frame) -> Result<Option<Vec<u8>>> {
        if self.message.len() + part.json.len() > LARGEST {
            return Err(Error::invalid(format!("a message of more than {LARGEST} bytes is too large")));
        }
        if self.message.is_empty() && !part.more {
            return Ok(Some(part.json));
        }
        self.message.extend_from_slice(&part.json);
        Ok((!part.more).then(|| std::mem::take(&mut self.message)))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _};

    use super::*;

    fn text(size: usize) -> String {
        "x".repeat(size)
    }

    /// Everything that waits.
    fn taken(parts: &mut Parts) -> Vec<Frame> {
        let next = |parts: &mut Parts| parts.next().now_or_never().flatten();
        // It pauses after each part.
        std::iter::from_fn(|| next(parts).or_else(|| next(parts))).collect()
    }

    #[test]
    fn messages_of_any_size_come_whole_and_in_order() {
        let (outgoing, mut parts) = parts();
        // Two quotes are around each.
        let sizes = [0, 1, PART - 3, PART - 2, PART - 1, 2 * PART - 2, 2 * PART - 1, 5 * PART, 10];
        sizes.iter().for_each(|size| outgoing.send(&text(*size)).unwrap());
        let frames = taken(&mut parts);
        assert!(frames.iter().all(|frame| frame.json.len() <= PART));
        assert_eq!(frames.len(), 4 + 2 + 2 + 3 + 6 + 1);
        let mut incoming = Incoming::default();
        let whole: Vec<_> = frames.into_iter().filter_map(|frame| incoming.take(frame).unwrap()).collect();
        let read: Vec<String> = whole.iter().map(|json| serde_json::from_slice(json).unwrap()).collect();
        assert_eq!(read.iter().map(String::len).collect::<Vec<_>>(), sizes);
        assert_eq!(outgoing.bytes.load(Ordering::Relaxed), 0, "nothing waits any more");
    }

    #[test]
    fn what_waits_is_bounded_by_its_bytes_and_not_by_its_number() {
        let (outgoing, mut parts) = parts();
        (0..10_000).for_each(|_| outgoing.send(&text(10)).unwrap());
        assert_eq!(taken(&mut parts).len(), 10_000);
        let large = text(LARGEST / 2 + 1);
        outgoing.send(&large).unwrap();
        outgoing.send(&large).unwrap();
        let late = outgoing.send(&text(1)).unwrap_err();
        assert_eq!(late.message(), "the other end does not keep up");
        assert!(outgoing.send(&text(LARGEST)).unwrap_err().message().contains("too large"));
    }

    #[test]
    fn a_message_without_end_is_refused() {
        let mut incoming = Incoming::default();
        let part = || Frame { json: vec![b'x'; 1 << 20], more: true };
        for _ in 0..LARGEST >> 20 {
            assert_eq!(incoming.take(part()).unwrap(), None);
        }
        assert!(incoming.take(part()).is_err());
    }
}
