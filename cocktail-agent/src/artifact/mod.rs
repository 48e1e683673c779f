//! The files of a Unit's command on a server that is not the Manager's own: fetched, held against their hash, unpacked,
//! kept as long as they are of use.
//!
//! Start at [`Artifacts::ready`]. Where the bytes come from is a [`Source`]'s business: [`HttpSource`] reads URLs, the
//! session with a Manager has one of its own. [`Limits`] says how much of everything is taken.
//!
//! What always holds: nothing is unpacked before the hash of the whole archive is right; unpacking writes below a temporary
//! folder and nowhere else, whatever the archive says; a folder that [`Artifacts::ready`] returns is complete and on the disk,
//! because it gets its name only then, in one rename. So whatever ends this process leaves nothing that passes for finished.
//! What it does leave is removed when the next one begins. The containers of a server share the folder of an artifact.
//!
//! | file | does |
//! | --- | --- |
//! | `shelf.rs` | folders on the disk: temporary, finished, removed |
//! | `download.rs` | bytes into a file, counted and hashed |
//! | `archive.rs` | which kind an archive is, by its first bytes, and how it is read |
//! | `unpack.rs`, `tree.rs` | what of an entry is allowed; writing it without following a link |
//! | `http.rs` | URLs |

mod archive;
mod download;
mod error;
mod http;
mod limits;
mod shelf;
mod tree;
mod unpack;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cocktail_core::error::{Error, Result};
use cocktail_core::spec::{Artifact, ArtifactSource};
use tokio::io::AsyncRead;
use tokio::sync::OwnedMutexGuard;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

pub use http::{HttpConfig, HttpSource};
pub use limits::Limits;
use shelf::Shelf;

/// Where the bytes of an artifact come from.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync {
    /// Opens the archive for reading from its beginning.
    ///
    /// # Behaviour
    /// - Each call begins anew; what an earlier reader got plays no part.
    /// - The bytes are not believed: whoever calls holds them against the artifact's hash.
    /// - The reader ends where the archive does. A connection that ends before is an error of the reader.
    ///
    /// # Errors
    /// `Unavailable` where the bytes cannot be had now; `InvalidConfig` where the artifact names a place that this source
    /// will never read.
    async fn open(&self, artifact: &Artifact) -> Result<Box<dyn AsyncRead + Send + Unpin>>;
}

/// The unpacked artifacts of a server, below one folder.
#[derive(Debug)]
pub struct Artifacts {
    shelf: Arc<Shelf>,
    limits: Limits,
    books: Mutex<Books>,
}

/// What is going on, by hash.
#[derive(Debug, Default)]
struct Books {
    slots: BTreeMap<String, Arc<Slot>>,
    /// When an artifact was handed out last.
    handed: BTreeMap<String, Instant>,
}

/// Lets one caller at a time work on a hash, and tells those who waited meanwhile what became of it.
#[derive(Debug, Default)]
struct Slot {
    turn: Arc<tokio::sync::Mutex<()>>,
    failures: Mutex<Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    count: u64,
    last: Option<(ArtifactSource, Error)>,
}

impl Artifacts {
    /// Takes the folder `root` for itself, creates it if need be, and removes what an earlier process left half done.
    ///
    /// It reads and writes the disk: call it where that is allowed.
    ///
    /// # Errors
    /// `Conflict` while another process has the folder; `Refused` on a full disk; `Unexpected` if it cannot be used.
    pub fn new(root: PathBuf, limits: Limits) -> Result<Self> {
        Ok(Self { shelf: Arc::new(Shelf::open(root)?), limits, books: Mutex::default() })
    }

    /// The folder with the files of `artifact`, `ROOT/SHA256/files`; fetches and unpacks it if it is not there.
    ///
    /// # Behaviour
    /// - Calls for the same hash at the same time do the work once. Those that wait for one with the same source that fails
    ///   get its error.
    /// - Dropping the future ends a download. Unpacking goes on beside it; the next call finds the result.
    /// - The folder stays for [`Limits::rest`] at least, and for as long as [`Self::prune`] is told to keep it.
    ///
    /// # Errors
    /// `InvalidConfig` where the hash is another, or where the archive is refused: it names the entry and says why.
    /// `Unavailable` where the source fails or stalls, `Refused` on a full disk.
    pub async fn ready(&self, artifact: &Artifact, source: &dyn Source) -> Result<PathBuf> {
        let hash = artifact.sha256.as_str();
        // It becomes the name of a folder, and comes from another machine.
        if hash.len() != 64 || !hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Error::invalid("the hash of the artifact is no SHA-256 in lower case"));
        }
        let slot = Arc::clone(self.books().slots.entry(hash.to_owned()).or_default());
        let before = locked(&slot.failures).count;
        let turn = Arc::clone(&slot.turn).lock_owned().await;
        {
            let failures = locked(&slot.failures);
            if let Some((tried, error)) = failures.last.as_ref().filter(|_| failures.count > before)
                && *tried == artifact.source
            {
                return Err(error.clone());
            }
        }
        match self.found_or_fetched(artifact, source, turn).await {
            Ok((files, _turn)) => {
                // Still in its turn, so that nobody takes the folder for unused before.
                self.books().handed.insert(hash.to_owned(), Instant::now());
                Ok(files)
            }
            Err(error) => {
                let mut failures = locked(&slot.failures);
                failures.count += 1;
                failures.last = Some((artifact.source.clone(), error.clone()));
                Err(error)
            }
        }
    }

    async fn found_or_fetched(
        &self,
        artifact: &Artifact,
        source: &dyn Source,
        turn: OwnedMutexGuard<()>,
    ) -> Result<(PathBuf, OwnedMutexGuard<()>)> {
        let (shelf, hash) = (Arc::clone(&self.shelf), artifact.sha256.clone());
        if let Some(found) = blocking(move || Ok(shelf.find(&hash))).await? {
            return Ok((found, turn));
        }
        let shelf = Arc::clone(&self.shelf);
        let mut draft = blocking(move || shelf.draft()).await?;
        let from = source.open(artifact).await?;
        let archive = download::download(from, draft.archive()?, &artifact.sha256, &self.limits).await?;
        let (shelf, hash, limits) = (Arc::clone(&self.shelf), artifact.sha256.clone(), self.limits.clone());
        blocking(move || {
            let unpacked = unpack::unpack(archive, &draft.files()?, &limits)?;
            // The turn ends only here, even if who asked has gone: nobody else begins with this hash before.
            Ok((shelf.finish(draft, &hash, unpacked)?, turn))
        })
        .await
    }

    /// Removes what no container uses, least recently used first, until the rest of it fits into [`Limits::spare`].
    /// Returns the hashes of what was removed.
    ///
    /// What is in `keep`, what is being fetched, and what was handed out within [`Limits::rest`] always stays, so that a
    /// container that is about to start finds its files although `keep` does not know it yet.
    ///
    /// # Errors
    /// The first folder that could not be removed; the others were tried all the same.
    pub async fn prune(&self, keep: &BTreeSet<String>) -> Result<Vec<String>> {
        let shelf = Arc::clone(&self.shelf);
        let all = blocking(move || shelf.list()).await?;
        let mut unused: Vec<_> = all.into_iter().filter(|kept| !keep.contains(&kept.hash)).collect();
        unused.sort_by_key(|kept| kept.used);
        let mut bytes = unused.iter().fold(0_u64, |sum, kept| sum.saturating_add(kept.bytes));
        let (mut removed, mut failed) = (Vec::new(), None);
        for kept in unused {
            if bytes <= self.limits.spare {
                break;
            }
            let Some(turn) = self.may_remove(&kept.hash) else { continue };
            let (shelf, hash) = (Arc::clone(&self.shelf), kept.hash.clone());
            let outcome = blocking(move || {
                let _turn = turn;
                shelf.remove(&hash)
            });
            match outcome.await {
                Ok(()) => {
                    bytes = bytes.saturating_sub(kept.bytes);
                    removed.push(kept.hash);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        self.forget();
        failed.map_or(Ok(removed), Err)
    }

    /// The turn of a hash that nobody works on or was given lately.
    fn may_remove(&self, hash: &str) -> Option<OwnedMutexGuard<()>> {
        let mut books = self.books();
        let turn = Arc::clone(&books.slots.entry(hash.to_owned()).or_default().turn).try_lock_owned().ok()?;
        let fresh = books.handed.get(hash).is_some_and(|at| at.elapsed() < self.limits.rest);
        (!fresh).then_some(turn)
    }

    /// Forgets hashes that nobody waits for, so that the books do not grow with every artifact that ever was.
    fn forget(&self) {
        let mut books = self.books();
        books.slots.retain(|_, slot| Arc::strong_count(slot) > 1 || Arc::strong_count(&slot.turn) > 1);
        let rest = self.limits.rest;
        books.handed.retain(|_, at| at.elapsed() < rest);
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        locked(&self.books)
    }
}

/// Nothing is left half changed where one of these is held, so a panic elsewhere spoils nothing.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs what waits for the disk. It ends by itself, also when nobody waits for it any more.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|why| Err(Error::unexpected("work on an artifact was cut off").because(why)))
}
