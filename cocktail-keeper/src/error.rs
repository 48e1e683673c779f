//! What can go wrong between a program and its keeper.

use std::io;

use crate::protocol::Refusal;

/// Failure of a call to a keeper.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// `cocktail_keeper::init()` is not the first line of this program's `main`. Starting a keeper would run `main` again.
    #[error(
        "the program did not call cocktail::init() as the first line of its main, so it cannot become its own keeper"
    )]
    NotInitialised,
    /// The keeper process did not come up.
    #[error("the keeper did not start: {why}")]
    NotStarted {
        /// What it said before it ended.
        why: String,
    },
    /// Nobody listens, or the socket cannot be reached.
    #[error("no keeper answers at the socket")]
    Unreachable {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The connection was lost: whether the request was carried out is unknown.
    #[error("the connection to the keeper was lost")]
    Disconnected,
    /// The other side does not speak this protocol.
    #[error("the keeper broke the protocol: {why}")]
    Protocol {
        /// What was unexpected.
        why: String,
    },
    /// The request is larger than a frame may be; it was not sent.
    #[error("a request of {bytes} bytes is larger than a frame may be")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The keeper said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The operating system said no on this side.
    #[error("{what} failed")]
    Io {
        /// The step.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Result of a call to a keeper.
pub type Result<T, E = KeeperError> = std::result::Result<T, E>;

impl KeeperError {
    /// The keeper's refusal, if that is what this is.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
