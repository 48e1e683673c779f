//! The mark of one data dir, which its keeper and its workers carry.
//!
//! The store's id alone would not do: a copied data dir has the same one, and its Manager would take over, and end,
//! workers of the original. So the mark names the folder as well. A keeper of the same folder has the same mark; where a
//! keeper is started anew, workers of the same store under another mark are looked for, and the start is refused.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cocktail_core::error::{Error, Result};
use cocktail_core::id::StoreId;
use cocktail_keeper::protocol::{ENV_CONTAINER, ENV_MARKER};

/// Workers that a sentence names.
const NAMED: usize = 3;

/// What tells the workers of this store in this folder from all others on the machine.
pub(crate) fn of(store: &StoreId, data_dir: &Path) -> io::Result<String> {
    let meta = fs::metadata(data_dir)?;
    Ok(format!("{store}@{:x}.{:x}", meta.dev(), meta.ino()))
}

/// The store that a mark names.
pub(crate) fn store(mark: &str) -> &str {
    mark.split_once('@').map_or(mark, |(store, _)| store)
}

/// Makes sure that no worker of the same store runs for another folder. Looks at every process that may be looked at.
///
/// # Errors
/// `Refused` with some of those workers.
pub(crate) fn check_alone(mark: &str) -> Result<()> {
    let Ok(entries) = fs::read_dir("/proc") else { return Ok(()) };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let others: Vec<String> = pids.filter_map(|pid| other(pid, mark)).collect();
    if others.is_empty() {
        return Ok(());
    }
    let more = if others.len() > NAMED { ", …" } else { "" };
    Err(Error::refused(format!(
        "workers of this store run for another data dir ({}{more}), so this one is a copy, or was put back while they \
         ran; they and their ports were not touched: use the data dir that they belong to, or end them first",
        others[..others.len().min(NAMED)].join(", ")
    )))
}

/// A worker of the same store under another mark.
fn other(pid: u32, mark: &str) -> Option<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let theirs = variable(&environ, ENV_MARKER)?;
    if theirs == mark || store(theirs) != store(mark) {
        return None;
    }
    Some(format!("{} with pid {pid}", variable(&environ, ENV_CONTAINER)?))
}

fn variable<'a>(environ: &'a [u8], name: &str) -> Option<&'a str> {
    let values = environ.split(|&byte| byte == 0);
    let mut found = values.filter_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    std::str::from_utf8(found.next()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_another_mark_of_the_same_store() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = StoreId::new("abc");
        let marks = [of(&id, one.path()).unwrap(), of(&id, two.path()).unwrap()];
        assert_ne!(marks[0], marks[1]);
        assert_eq!(marks[0], of(&id, one.path()).unwrap());
        assert!(marks.iter().all(|mark| store(mark) == "abc"));
    }

    #[test]
    fn variables_are_found_whole() {
        let environ = b"XCOCKTAIL_MARKER=no\0COCKTAIL_MARKERX=no\0COCKTAIL_MARKER=abc@1.2\0";
        assert_eq!(variable(environ, ENV_MARKER), Some("abc@1.2"));
        assert_eq!(variable(environ, ENV_CONTAINER), None);
    }
}
