//! Why a command ended badly, and the exit code that says so to scripts.
//!
//! Start at [`Failure`]. Every error of a command becomes one of these, is printed once (by `main`, to stderr), and is
//! turned into an exit code in one place, [`Failure::code`].

use std::io;

use cocktail_core::error::{Error, ErrorKind};

/// The result of a command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why a command ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// What the Manager answered.
    #[error("{}", .0.chain())]
    Manager(#[from] Error),
    /// It did not do what it should.
    #[error("{0}")]
    Failed(String),
    /// Usage that clap cannot judge.
    #[error("{0}")]
    Usage(String),
    /// A file that cannot be a manifest or settings.
    #[error("{0}")]
    Manifest(String),
    /// Problems of manifests or settings, drawn where the texts are known.
    #[error("{0}")]
    Diagnosed(String),
    /// A deadline passed.
    #[error("{0}")]
    Deadline(String),
    /// No Manager can be reached.
    #[error("{0}")]
    NoManager(String),
    /// Writing data failed.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// Whoever read our output has gone: no error, there is nobody to tell.
    #[error("nobody reads the output")]
    BrokenPipe,
    /// A Manager in the background ended with this exit code before it answered.
    #[error("{1}")]
    Background(u8, String),
    /// The exit code of the command that `exec` ran. Nothing is printed.
    #[error("the command ended with {0}")]
    Exit(u8),
}

impl Failure {
    /// The exit code of the program.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Manager(error) => code_of_kind(error.kind()),
            Self::Failed(_) | Self::Output(_) => 1,
            Self::Usage(_) | Self::Manifest(_) | Self::Diagnosed(_) => 2,
            Self::Deadline(_) => 5,
            Self::NoManager(_) => 6,
            Self::BrokenPipe => 0,
            Self::Background(code, _) | Self::Exit(code) => *code,
        }
    }

    /// What is printed to stderr; nothing for what is no error of ours.
    pub(crate) fn report(&self) -> Option<String> {
        match self {
            Self::BrokenPipe | Self::Exit(_) => None,
            other => Some(other.to_string()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::BrokenPipe } else { Self::Output(error) }
    }
}

/// The exit code that a kind of error stands for.
fn code_of_kind(kind: &ErrorKind) -> u8 {
    match kind {
        ErrorKind::InvalidConfig => 2,
        ErrorKind::NotFound => 3,
        ErrorKind::Conflict | ErrorKind::Refused | ErrorKind::Denied | ErrorKind::Quota { .. } => 4,
        ErrorKind::Deadline => 5,
        ErrorKind::Unavailable => 6,
        // What is left has no code of its own; a kind that is added later failed, too.
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_the_promised_exit_code() {
        let quota = ErrorKind::Quota { scope: "vcpu".into() };
        let full = ErrorKind::InsufficientCapacity { offering: "m".into(), retry_after: None };
        for (kind, code) in [
            (ErrorKind::Unexpected, 1),
            (ErrorKind::Unsupported, 1),
            (ErrorKind::OutcomeUnknown, 1),
            (full, 1),
            (ErrorKind::InvalidConfig, 2),
            (ErrorKind::NotFound, 3),
            (ErrorKind::Conflict, 4),
            (ErrorKind::Refused, 4),
            (ErrorKind::Denied, 4),
            (quota, 4),
            (ErrorKind::Deadline, 5),
            (ErrorKind::Unavailable, 6),
        ] {
            assert_eq!(Failure::from(Error::new(kind.clone(), "x")).code(), code, "{kind:?}");
        }
    }

    #[test]
    fn a_broken_pipe_is_no_error() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.code(), failure.report()), (0, None));
        let failure = Failure::from(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(failure.code(), 1);
    }

    #[test]
    fn the_whole_chain_is_printed_once() {
        let below = io::Error::from(io::ErrorKind::PermissionDenied);
        let failure = Failure::from(Error::refused("the store cannot be written").because(below));
        assert_eq!(failure.report().unwrap(), "the store cannot be written: permission denied");
    }
}
