//! Turns what the keeper says into our kinds.

use cocktail_core::error::{Error, ErrorKind};
use cocktail_keeper::KeeperError;
use cocktail_keeper::protocol::{Refusal, StartError};
use rustix::io::Errno;

use crate::mark;

/// What a lost connection means for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// It changes nothing: it may simply be repeated.
    Reads,
    /// It may have acted.
    Acts,
}

/// The error of a call to the keeper.
pub(crate) fn of_keeper(error: KeeperError, call: Call) -> Error {
    match error {
        KeeperError::NotInitialised => Error::new(ErrorKind::Unsupported, KeeperError::NotInitialised.to_string()),
        KeeperError::NotStarted { .. } | KeeperError::Unreachable { .. } | KeeperError::Io { .. } => {
            Error::unavailable("the keeper cannot be reached").because(error)
        }
        KeeperError::Disconnected => {
            let kind = if call == Call::Reads { ErrorKind::Unavailable } else { ErrorKind::OutcomeUnknown };
            Error::new(kind, "the connection to the keeper was lost")
        }
        KeeperError::TooLarge { .. } => {
            Error::invalid("the container's environment and arguments are too large").because(error)
        }
        KeeperError::Refused(refusal) => of_refusal(refusal),
        error => Error::unexpected("the keeper does not behave as it should").because(error),
    }
}

fn of_refusal(refusal: Refusal) -> Error {
    match &refusal {
        Refusal::WrongStore { owner } => Error::refused(format!(
            "the workers of this data dir belong to another store ({owner}), so the data dir was emptied or exchanged \
             while they ran; they and their ports were not touched: put the store of {owner} back; or use another data \
             dir; or run `cocktail release` with `--data-dir` of this data dir to end them",
            owner = mark::store(owner)
        )),
        Refusal::StaleEpoch { current } => Error::refused(format!(
            "the workers of this data dir take orders from a newer Manager (epoch {current}), so the data dir is an \
             older copy; workers and ports were not touched: put the newer copy back, or use another data dir"
        )),
        Refusal::OlderCopy { .. } => Error::refused(
            "the data dir is an older copy than the one that the running workers belong to; workers and ports were not \
             touched: put the newer copy back; or run `cocktail adopt` to go on with this one and keep them, or \
             `cocktail release` to end them, each with `--data-dir` of this data dir",
        ),
        Refusal::Version { min, max } => Error::refused(format!(
            "the keeper that holds the workers of this data dir speaks protocol {min} to {max}, which this version does \
             not: run the version that started it, and stop it before changing to this one"
        )),
        Refusal::Peer { .. } => {
            Error::new(ErrorKind::Denied, "the keeper of this data dir runs as another user").because(refusal)
        }
        Refusal::PortTaken { port, .. } => Error::new(ErrorKind::Conflict, refusal.to_string()).with("port", port),
        Refusal::Start(error) => of_start(error),
        Refusal::NoSuchContainer { .. } | Refusal::NotRunning { .. } => Error::not_found(refusal.to_string()),
        Refusal::NotPrepared { .. } | Refusal::Generation { .. } | Refusal::Running { .. } => {
            Error::new(ErrorKind::Conflict, refusal.to_string())
        }
        Refusal::LeaseOver => Error::unavailable(refusal.to_string()),
        Refusal::Limit { .. } => Error::new(ErrorKind::Throttled { retry_after: None }, refusal.to_string()),
        Refusal::BadRequest { .. } => Error::unexpected("the keeper did not take a request").because(refusal),
        Refusal::Unkillable { .. } | Refusal::Gap { .. } | Refusal::Io { .. } | Refusal::Ending => {
            Error::unavailable(refusal.to_string())
        }
    }
}

fn of_start(error: &StartError) -> Error {
    let kind = match error {
        // The machine is out of something for now; the program may be well.
        StartError::Other { errno, .. } if BUSY.iter().any(|busy| busy.raw_os_error() == *errno) => {
            ErrorKind::Unavailable
        }
        StartError::NotFound { .. }
        | StartError::PermissionDenied { .. }
        | StartError::NoSuchUser { .. }
        | StartError::UserDenied { .. }
        | StartError::Cwd { .. }
        | StartError::Other { .. } => ErrorKind::InvalidConfig,
    };
    Error::new(kind, error.to_string())
}

/// What the kernel says when it lacks memory, processes or descriptors.
const BUSY: [Errno; 4] = [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE];
