//! The one place that turns failures of the outside world into our kinds, which name what the caller does about them.

use std::io;

use cocktail_core::error::{Error, ErrorKind};

/// The error of a call to the cloud.
pub(crate) fn of_io(what: &str, error: io::Error) -> Error {
    let kind = match error.kind() {
        // Waiting never fixes these.
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Quota { scope: "disk".into() },
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        // Every call here may be repeated, so the same call again is the answer to whatever else happens.
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("cannot {what}")).because(error)
}

/// The error of a program that could not be run. The manifest is wrong, unless the machine is short of something.
pub(crate) fn of_spawn(program: &str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => ErrorKind::Unavailable,
        _ => ErrorKind::InvalidConfig,
    };
    Error::new(kind, format!("{program} cannot be run")).because(error)
}
