//! What the agent of a server and the Manager say to each other, and how large it may be.
//!
//! The messages are documented in `proto/agent.proto`; what is in a frame is `cocktail_core::session`.

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "written by a generator; the documentation is that of the .proto"
)]
#[rustfmt::skip]
mod generated;

use std::fmt;

use cocktail_core::error::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::generated::*;

/// Bytes of the largest message of either end: some thousand containers of one server in one listing.
pub const MESSAGE_LIMIT: usize = 4 << 20;

/// Bytes that one stream of a connection may have under way before they are read.
#[cfg(any(feature = "agent", feature = "gate"))]
pub(crate) const STREAM_WINDOW: u32 = 256 << 10;

/// Bytes that all streams of a connection may have under way before they are read: what each of them may. So those that
/// nobody reads take nothing from the session, on which the lease of all containers hangs.
#[cfg(any(feature = "agent", feature = "gate"))]
pub(crate) fn connection_window(streams: u32) -> u32 {
    /// What HTTP/2 can say.
    const MOST: u32 = (1 << 31) - 1;
    STREAM_WINDOW.saturating_mul(streams).min(MOST)
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest")
            .field("server", &self.server)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("bytes", &self.json.len()).finish()
    }
}

impl Frame {
    /// A frame of this.
    ///
    /// # Errors
    /// `InvalidConfig` for one that is larger than any end takes.
    pub fn of(frame: &impl Serialize) -> Result<Self> {
        let json = serde_json::to_vec(frame).map_err(|error| Error::unexpected("a frame is no JSON").because(error))?;
        if json.len() > MESSAGE_LIMIT - 64 {
            return Err(Error::invalid(format!("a message of {} bytes is too large for an agent", json.len())));
        }
        Ok(Self { json })
    }

    /// What is in it; `None` for what this version does not know.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.json).ok()
    }
}
