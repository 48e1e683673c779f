//! What the agent of a server and the Manager say to each other, and how large it may be.
//!
//! The messages are documented in `proto/agent.proto`; what is in a frame is `cocktail_core::session`.

#[cfg(any(feature = "agent", feature = "gate"))]
mod codec;
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
mod parts;

use std::fmt;

#[cfg(any(feature = "agent", feature = "gate"))]
pub(crate) use self::codec::LeanCodec;
pub use self::generated::*;
pub use self::parts::LARGEST;
#[cfg(any(feature = "agent", feature = "gate"))]
pub(crate) use self::parts::Outgoing;
pub(crate) use self::parts::{Incoming, parts};

/// Bytes of the largest message of gRPC; those of a session come in smaller parts.
pub const MESSAGE_LIMIT: usize = 1 << 20;

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
