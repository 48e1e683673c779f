//! The words for what goes wrong: with an archive, which is for its author to mend, or with this machine.

use std::io;

use cocktail_core::error::{Error, ErrorKind};

/// A failure of this machine's disk.
pub(super) fn local(what: &str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::Refused
        }
        _ => ErrorKind::Unexpected,
    };
    Error::new(kind, format!("cannot {what}")).because(error)
}

/// An entry that is not taken.
pub(super) fn entry(name: &[u8], why: &str) -> Error {
    Error::invalid(format!("the artifact's entry `{}` {why}", shown(name)))
}

/// An archive that cannot be read on.
pub(super) fn damaged(after: Option<&[u8]>, error: io::Error) -> Error {
    let place = after.map_or_else(|| "at its beginning".to_owned(), |name| format!("after `{}`", shown(name)));
    Error::invalid(format!("the artifact is damaged or ends too early, {place}")).because(error)
}

/// A stranger's name as it may stand in a message: short, and without control characters.
fn shown(name: &[u8]) -> String {
    const LONGEST: usize = 120;
    let text = String::from_utf8_lossy(name);
    let short: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() { format!("{short}…") } else { short }
}
