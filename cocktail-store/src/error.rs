//! Turns what redb and the disk say into our kinds.

use std::io;
use std::path::Path;

use cocktail_core::error::{Error, ErrorKind};
use rustix::io::Errno;

/// What a failure of the file below means.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The disk refused: full, read-only, broken.
    Disk(io::Error),
    /// The file holds what no store wrote.
    Damaged(String),
    /// Another process has the file open.
    InUse,
    /// Our own answer, not a failure of the disk.
    Answer(Error),
}

impl From<redb::Error> for Failure {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock => Self::InUse,
            redb::Error::Io(error)
                if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(error) => Self::Disk(error),
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            redb::Error::PreviousIo => Self::Disk(io::Error::other("an earlier write failed")),
            other => Self::Damaged(other.to_string()),
        }
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for Failure {
            fn from(error: redb::$error) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}

from_redb!(CommitError, DatabaseError, StorageError, TableError, TransactionError);

impl Failure {
    /// Whether giving up the reserve can help.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Disk(error) if is_full(error))
    }

    /// The answer to a caller. `kind` is how a failure of the disk is to be taken.
    pub(crate) fn into_error(self, path: &Path, kind: ErrorKind) -> Error {
        let file = path.display();
        match self {
            Self::Answer(error) => error,
            Self::Disk(error) => disk(error, path, kind),
            Self::InUse => {
                let error = Error::refused(format!("the store {file} is in use by another process"));
                error.with("held_by", "another process")
            }
            Self::Damaged(what) => Error::unexpected(format!(
                "the store {file} is damaged ({what}): put back a copy of the data dir, or move the file away to \
                 begin with an empty store; running workers were not touched"
            )),
        }
    }
}

/// An error of the disk under `path`.
pub(crate) fn disk(error: io::Error, path: &Path, kind: ErrorKind) -> Error {
    let path = path.display();
    let message = match Errno::from_io_error(&error) {
        _ if is_full(&error) => format!("the disk under {path} is full"),
        Some(Errno::ROFS) => format!("the disk under {path} is read-only"),
        Some(Errno::ACCESS | Errno::PERM) => format!("no right to write {path}"),
        _ => format!("the disk under {path} fails"),
    };
    Error::new(kind, message).because(error)
}

fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG))
}
