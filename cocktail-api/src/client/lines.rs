//! Streams of JSON, one item a line.

use bytes::{Bytes, BytesMut};
use cocktail_core::error::{Error, Result};
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::wire::{Line, error_from};

/// Longest line that is taken, in bytes.
const LONGEST_LINE: usize = 16 << 20;

/// The items of a body. Ends with `Unavailable` when the body is cut off, that is, when the Manager is gone.
pub(super) fn items<T: DeserializeOwned + Send + 'static>(body: Incoming) -> BoxStream<'static, Result<T>> {
    let open = Some(Reader { body, read: BytesMut::new(), searched: 0 });
    stream::unfold(open, |open| async {
        let mut reader = open?;
        match reader.line().await {
            Ok(None) => None,
            Ok(Some(line)) => {
                let item = match Line::read(&line) {
                    Ok(Line::Item(item)) => Ok(item),
                    Ok(Line::Failed(view)) => Err(error_from(view)),
                    Err(error) => Err(error),
                };
                Some((item, Some(reader)))
            }
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

struct Reader {
    body: Incoming,
    read: BytesMut,
    /// Bytes of `read` that are known to hold no end of a line.
    searched: usize,
}

impl Reader {
    /// The next line that is not empty. Whatever was read stays read when the future is dropped.
    async fn line(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(end) = self.read[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(self.searched + end + 1).freeze();
                self.searched = 0;
                if line.len() > 1 {
                    return Ok(Some(line));
                }
                continue;
            }
            self.searched = self.read.len();
            if self.searched > LONGEST_LINE {
                return Err(Error::unexpected("the Manager sent a line that is too long"));
            }
            match self.body.frame().await {
                None if self.read.is_empty() => return Ok(None),
                None => return Err(Error::unavailable("the Manager went away in the middle of a line")),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.read.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => return Err(Error::unavailable("the Manager went away").because(error)),
            }
        }
    }
}
