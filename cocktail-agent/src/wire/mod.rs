//! What the agent of a server and the Manager say to each other, and how large it may be.
//!
//! The messages are documented in `proto/agent.proto`; what is in a frame is `cocktail_core::session`.

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

pub use self::generated::*;
pub use self::parts::LARGEST;
pub(crate) use self::parts::{Incoming, Outgoing, parts};

/// Bytes of the largest message of gRPC; those of a session come in smaller parts.
pub const MESSAGE_LIMIT: usize = 1 << 20;

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
