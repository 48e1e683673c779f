//! The folder of all artifacts. What is finished has the hash as its name; everything else has a name that begins with a
//! dot, and is removed when the next process begins.

use std::fs::{self, DirBuilder, File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use cocktail_core::error::{Error, ErrorKind, Result};
use rustix::fs::FlockOperation;

use super::error::local;

/// What names of unfinished folders begin with.
const DRAFT: &str = ".draft-";
/// The unpacked files.
const FILES: &str = "files";
/// The archive, while it is needed.
const ARCHIVE: &str = "archive";
/// How many bytes the files are.
const BYTES: &str = "bytes";

/// The folder of all artifacts.
#[derive(Debug)]
pub(super) struct Shelf {
    root: PathBuf,
    /// Held, and locked, for as long as this process has the folder.
    folder: File,
    next: AtomicU64,
}

/// A finished artifact.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) hash: String,
    pub(super) bytes: u64,
    pub(super) used: SystemTime,
}

/// An unfinished folder, which goes when this does.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    finished: bool,
}

impl Shelf {
    pub(super) fn open(root: PathBuf) -> Result<Self> {
        // Workers under other users pass through, and see no names but those that they were given.
        let failed = |error| local("use the folder of artifacts", error);
        DirBuilder::new().recursive(true).mode(0o711).create(&root).map_err(failed)?;
        let folder = File::open(&root).map_err(failed)?;
        rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => {
                Error::new(ErrorKind::Conflict, "another process has the folder of artifacts")
                    .with("path", root.display())
            }
            error => failed(error.into()),
        })?;
        for entry in fs::read_dir(&root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().as_encoded_bytes().starts_with(DRAFT.as_bytes()) {
                fs::remove_dir_all(entry.path()).map_err(|error| local("remove a half unpacked artifact", error))?;
            }
        }
        Ok(Self { root, folder, next: AtomicU64::new(0) })
    }

    /// The files of an artifact that is finished; notes that they are used.
    pub(super) fn find(&self, hash: &str) -> Option<PathBuf> {
        let folder = self.root.join(hash);
        let files = folder.join(FILES);
        if !files.is_dir() {
            return None;
        }
        // Only the order of removal depends on it.
        let used = FileTimes::new().set_modified(SystemTime::now());
        if let Err(error) = File::open(&folder).and_then(|folder| folder.set_times(used)) {
            tracing::debug!(%error, hash, "the last use of an artifact was not noted");
        }
        Some(files)
    }

    /// A new, empty folder.
    pub(super) fn draft(&self) -> Result<Draft> {
        let path = self.unused();
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| local("begin an artifact", error))?;
        Ok(Draft { path, finished: false })
    }

    /// Gives the draft the name of its hash, once all of it is on the disk.
    pub(super) fn finish(&self, mut draft: Draft, hash: &str, bytes: u64) -> Result<PathBuf> {
        let failed = |error| local("finish an artifact", error);
        fs::remove_file(draft.path.join(ARCHIVE)).map_err(failed)?;
        fs::write(draft.path.join(BYTES), bytes.to_string()).map_err(failed)?;
        fs::set_permissions(&draft.path, Permissions::from_mode(0o711)).map_err(failed)?;
        // One call for all files, instead of one for each.
        rustix::fs::syncfs(&self.folder).map_err(|error| failed(error.into()))?;
        let place = self.root.join(hash);
        fs::rename(&draft.path, &place).map_err(failed)?;
        draft.finished = true;
        self.folder.sync_all().map_err(failed)?;
        Ok(place.join(FILES))
    }

    /// Everything that is finished.
    pub(super) fn list(&self) -> Result<Vec<Kept>> {
        let failed = |error| local("list artifacts", error);
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(hash) = entry.file_name().into_string() else { continue };
            if hash.starts_with('.') {
                continue;
            }
            let used = entry.metadata().and_then(|about| about.modified()).map_err(failed)?;
            // What says nothing of its size is taken for large, so that it goes.
            let text = fs::read_to_string(entry.path().join(BYTES)).unwrap_or_default();
            kept.push(Kept { hash, bytes: text.parse().unwrap_or(u64::MAX), used });
        }
        Ok(kept)
    }

    /// Removes a finished artifact. Its name goes first, so that no half of it passes for the whole.
    pub(super) fn remove(&self, hash: &str) -> Result<()> {
        let failed = |error| local("remove an artifact", error);
        let old = self.unused();
        match fs::rename(self.root.join(hash), &old) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            outcome => outcome.map_err(failed)?,
        }
        self.folder.sync_all().map_err(failed)?;
        fs::remove_dir_all(&old).map_err(failed)
    }

    fn unused(&self) -> PathBuf {
        self.root.join(format!("{DRAFT}{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Draft {
    /// The file that the archive is written to.
    pub(super) fn archive(&mut self) -> Result<File> {
        let path = self.path.join(ARCHIVE);
        let opened = File::options().read(true).write(true).create_new(true).open(path);
        opened.map_err(|error| local("begin an artifact", error))
    }

    /// The folder that the archive is unpacked to.
    pub(super) fn files(&self) -> Result<PathBuf> {
        let path: &Path = &self.path.join(FILES);
        let made = DirBuilder::new().mode(0o755).create(path);
        made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)))
            .map_err(|error| local("begin to unpack an artifact", error))?;
        Ok(path.to_owned())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "a half unpacked artifact stays until the next start");
        }
    }
}
