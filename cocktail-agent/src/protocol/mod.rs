//! What a worker and whoever runs it say to each other, and how large it may be.
//!
//! The messages are documented in `proto/worker.proto`. The limits belong to the protocol: a message that is larger ends the
//! session before any of it is kept.

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "written by a generator; the documentation is that of the .proto"
)]
#[rustfmt::skip]
mod generated;

pub use self::generated::*;

/// Bytes of the largest message that a worker may send.
pub const FROM_WORKER_LIMIT: usize = 64 << 10;
/// Bytes of the largest message that a worker takes: its configuration is in it.
pub const TO_WORKER_LIMIT: usize = 4 << 20;
/// Bytes of the largest table of endpoints that a worker takes: some hundred thousand containers.
pub const TABLE_LIMIT: usize = 32 << 20;
/// Bytes of a text that is meant for people; the rest is cut off.
pub const TEXT_LIMIT: usize = 4 << 10;
/// Numbers of its own that a worker may report.
pub const CUSTOM_LIMIT: usize = 64;
/// Microservices that a worker may name.
pub const NAMES_LIMIT: usize = 256;

/// A text for people, cut off at [`TEXT_LIMIT`] between two characters.
#[cfg(any(feature = "worker", feature = "hub"))]
pub(crate) fn shortened(mut text: String) -> String {
    let end = text.floor_char_boundary(TEXT_LIMIT);
    text.truncate(end);
    text
}

mod hidden {
    //! What proves who a worker is, and what its configuration may hold, is not for logs.

    use std::fmt;

    use super::generated::{Microservice, Register, Registered, Resume};

    impl fmt::Debug for Register {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let Self { container, token: _, pid, build, microservices } = self;
            let mut shown = f.debug_struct("Register");
            shown.field("container", container).field("pid", pid).field("build", build);
            shown.field("microservices", microservices).finish_non_exhaustive()
        }
    }

    impl fmt::Debug for Resume {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let Self { container, key: _, pid, assignment } = self;
            let mut shown = f.debug_struct("Resume");
            shown
                .field("container", container)
                .field("pid", pid)
                .field("assignment", assignment)
                .finish_non_exhaustive()
        }
    }

    impl fmt::Debug for Registered {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Registered").field("usage_every_ms", &self.usage_every_ms).finish_non_exhaustive()
        }
    }

    impl fmt::Debug for Microservice {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Microservice").field("name", &self.name).finish_non_exhaustive()
        }
    }
}
