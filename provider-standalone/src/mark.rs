//! The mark of one data dir, which its keeper and its workers carry.
//!
//! The store's id alone would not do: a copied data dir has the same one, and its Manager would take over, and end,
//! workers of the original. So the mark names the folder as well. A keeper of the same folder has the same mark; where a
//! keeper is started anew, workers that it would take from others or cut off are looked for ([`check_alone`]), and the
//! start is refused.

use std::collections::BTreeSet;
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

/// Makes sure that no worker is left alone: none of the same store for another folder, which a keeper here would take
/// over, and none of another store in this folder, which nobody would find again. Looks at every process that may be
/// looked at. `run` is the keeper's folder.
///
/// # Errors
/// `Refused` with some of those workers.
pub(crate) fn check_alone(mark: &str, run: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir("/proc") else { return Ok(()) };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let others: Vec<Worker> = pids.filter_map(|pid| Worker::find(pid, mark)).collect();
    let (copied, foreign): (Vec<_>, Vec<_>) = others.into_iter().partition(|worker| store(&worker.mark) == store(mark));
    if !copied.is_empty() {
        let keepers = copied.iter().filter_map(Worker::keeper).collect();
        return Err(Error::refused(format!(
            "workers of this store run for another data dir ({}), so this one is a copy, or was put back while they \
             ran; they and their ports were not touched: use the data dir that they belong to, or end them first: with \
             `cocktail release` and its `--data-dir`, or, where it is gone, with `kill {}`",
            named(&copied),
            all_pids(keepers, &copied)
        )));
    }
    let with_keeper = foreign.into_iter().filter_map(|worker| Some((worker.keeper()?, worker)));
    let (keepers, here): (BTreeSet<u32>, Vec<_>) =
        with_keeper.filter(|(keeper, _)| holds_file_in(*keeper, run)).unzip();
    if let Some(worker) = here.first() {
        return Err(Error::refused(format!(
            "workers of another store ({}) run for this data dir ({}), so it was emptied or exchanged while they ran; \
             they and their ports were not touched: use another data dir, or end them first with `kill {}`",
            store(&worker.mark),
            named(&here),
            all_pids(keepers, &here)
        )));
    }
    Ok(())
}

/// Everything that has to end. A keeper alone would keep its service ports, so it is ended, too, and first.
fn all_pids(keepers: BTreeSet<u32>, workers: &[Worker]) -> String {
    let pids = keepers.into_iter().chain(workers.iter().map(|worker| worker.pid));
    pids.map(|pid| pid.to_string()).collect::<Vec<_>>().join(" ")
}

/// Whether any worker carries this mark, as far as processes may be looked at.
pub(crate) fn is_carried(mark: &str) -> bool {
    let Ok(entries) = fs::read_dir("/proc") else { return false };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| fs::read(format!("/proc/{pid}/environ")).ok())
        .any(|environ| variable(&environ, ENV_MARKER) == Some(mark))
}

/// A process that carries another mark.
struct Worker {
    pid: u32,
    container: String,
    mark: String,
}

impl Worker {
    fn find(pid: u32, own: &str) -> Option<Self> {
        let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let mark = variable(&environ, ENV_MARKER).filter(|mark| *mark != own)?;
        Some(Self { pid, container: variable(&environ, ENV_CONTAINER)?.to_owned(), mark: mark.to_owned() })
    }

    /// The keeper that it is a child of.
    fn keeper(&self) -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
        let name = fs::read_to_string(format!("/proc/{parent}/comm")).ok()?;
        (name.trim() == "cocktail-keeper").then_some(parent)
    }
}

/// Whether a process has a file of that folder open, be it deleted: a keeper holds its lock as long as it lives.
fn holds_file_in(pid: u32, folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(folder)))
}

/// Some of the workers, for people.
fn named(workers: &[Worker]) -> String {
    let shown = workers.iter().take(NAMED).map(|worker| format!("{} with pid {}", worker.container, worker.pid));
    let more = if workers.len() > NAMED { ", …" } else { "" };
    format!("{}{more}", shown.collect::<Vec<_>>().join(", "))
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
