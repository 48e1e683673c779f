//! A store as it was at one moment, for looking back: nothing in its data dir is touched.
//!
//! Start at [`StoreCopy::of`]. Opening a file with redb may write to it, and a Manager that runs keeps it locked and goes
//! on writing; so the file is read into memory and opened there, without any lock. A copy that was made while something
//! was written may be torn. The checksums over the whole file tell, and then it is copied again.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cocktail_core::contract::{Loaded, TurnRow};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::{Seq, StoreId};
use redb::{ReadTransaction, ReadableDatabase};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::backend::{Backend, Health};
use crate::engine;
use crate::error::{Failure, disk};
use crate::file::{Facts, Open, guarded, open_backend};

/// Copies that are made before a damaged one is believed. The pages that a commit frees are used again by the second one
/// after it, so that a copy of a few MiB is nearly always whole; a large file of a busy Manager takes some.
const ATTEMPTS: usize = 20;

/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(50);

/// Age from which the time of a file's last write can be told from that of a later one.
const YOUNG: Duration = Duration::from_secs(1);

/// The content of a store's file at one moment: that of the last turn that was on disk, or of the one before it.
#[derive(Debug)]
pub struct StoreCopy {
    path: PathBuf,
    open: Open,
}

impl StoreCopy {
    /// Copies the store of `data_dir`, whether or not a Manager uses it, and checks the copy. Blocks meanwhile, and takes
    /// as much memory as the file has bytes. Neither the file nor any other in the data dir is changed, made or locked.
    ///
    /// # Errors
    /// `NotFound` where there is no store; `Denied` or `Unavailable` for what the system says; `Refused` for a store of a
    /// newer version; `Unavailable` when it was written to during each of several attempts; `Unexpected` for a damaged
    /// file.
    pub fn of(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join("store.redb");
        Self::of_copies(&path, || copy(&path))
    }

    /// Takes the first whole copy that `make` makes; it says with each whether the file was written to meanwhile.
    fn of_copies(path: &Path, mut make: impl FnMut() -> io::Result<(File, bool)>) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let (file, changed) = make().map_err(|error| match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                    Error::not_found(format!("there is no store {}", path.display()))
                }
                io::ErrorKind::PermissionDenied => {
                    Error::new(ErrorKind::Denied, format!("no right to read {}", path.display())).because(error)
                }
                _ => disk(error, path, ErrorKind::Unavailable),
            })?;
            match open_backend(Backend::over(file, Arc::new(Health::default()))) {
                Ok(open) => return Ok(Self { path: path.to_owned(), open }),
                Err(Failure::Damaged(_)) if changed && attempt < ATTEMPTS => attempt += 1,
                Err(Failure::Damaged(what)) if changed => {
                    let text = format!("no whole copy of {} could be made while it is written to", path.display());
                    let text = format!("{text} ({what}): try again when less happens, or end its Manager first");
                    return Err(Error::new(ErrorKind::Unavailable, text));
                }
                Err(failure) => return Err(failure.into_error(path, ErrorKind::Unavailable)),
            }
            // Turns come in bursts.
            thread::sleep(PAUSE);
        }
    }

    /// The store's id.
    pub fn id(&self) -> StoreId {
        self.open.facts.id.clone()
    }

    /// The newest snapshot and every turn after it.
    ///
    /// # Errors
    /// `Unexpected` where a turn is missing.
    pub fn load(&self) -> Result<Loaded> {
        self.read(engine::load)
    }

    /// Up to `limit` turns from `from` on, in order. Turns that were dropped are missing.
    ///
    /// # Errors
    /// `Unexpected` for a row that no store wrote.
    pub fn turns(&self, from: Seq, limit: usize) -> Result<Vec<TurnRow>> {
        self.read(|txn, _| engine::turns(txn, from, limit))
    }

    fn read<T>(&self, look: impl FnOnce(&ReadTransaction, &Facts) -> Result<T, Failure>) -> Result<T> {
        let looked = guarded(|| look(&self.open.database.begin_read()?, &self.open.facts));
        looked.map_err(|failure| failure.into_error(&self.path, ErrorKind::Unavailable))
    }
}

/// A file in memory with what is in the file at `path`, and whether that was written to meanwhile.
fn copy(path: &Path) -> io::Result<(File, bool)> {
    let mut source = File::open(path)?;
    let before = source.metadata()?;
    let mut file = File::from(memfd_create("cocktail-store", MemfdFlags::CLOEXEC)?);
    io::copy(&mut source, &mut file)?;
    let after = source.metadata()?;
    // Times of files are as coarse as the kernel's tick: one that is young may stand for two writes.
    let young = before.modified()?.elapsed().map_or(true, |age| age < YOUNG);
    let changed = young || before.len() != after.len() || before.modified()? != after.modified()?;
    Ok((file, changed))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::RedbStore;

    fn half(path: &Path) -> io::Result<(File, bool)> {
        let bytes = std::fs::read(path)?;
        let mut file = File::from(memfd_create("half", MemfdFlags::CLOEXEC)?);
        file.write_all(&bytes[..bytes.len() / 2])?;
        Ok((file, true))
    }

    #[test]
    fn a_torn_copy_is_made_again_and_many_of_them_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let id = cocktail_core::contract::Store::id(&RedbStore::open(folder.path()).unwrap());
        let path = folder.path().join("store.redb");
        let mut made = 0;
        let copied = StoreCopy::of_copies(&path, || {
            made += 1;
            if made < 3 { half(&path) } else { copy(&path) }
        });
        assert_eq!((copied.unwrap().id(), made), (id, 3));
        let refused = StoreCopy::of_copies(&path, || half(&path)).unwrap_err();
        assert_eq!(*refused.kind(), ErrorKind::Unavailable);
        assert!(refused.to_string().contains("end its Manager first"), "{refused}");
    }
}
