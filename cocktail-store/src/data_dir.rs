//! The folder that holds everything of one Manager.
//!
//! [`DataDir::open`] proves that the folder is ours alone before anything is opened in it, and takes its lock. The lock
//! is held by the value, so keep it for as long as the Manager runs, longer than the store in it. Workers and the keeper
//! do not inherit the lock.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cocktail_core::error::{Error, ErrorKind, Result};

use crate::error::disk;
use crate::filesystem;
use crate::reserve::{self, Reserve};

/// The longest path that a Unix socket can have, without the zero at its end.
const SOCKET_PATH: usize = 107;

/// An opened and locked data dir. Dropping it removes `manager.pid` and gives the lock back.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Held open for its lock.
    _lock: File,
}

impl DataDir {
    /// Opens `path` for this process alone; with `create`, makes it (mode 0700) where it is missing.
    ///
    /// A folder that is ours, empty and open to others is closed to them.
    ///
    /// # Errors
    /// `NotFound` where it is missing and `create` is false; `Refused` with the context `held_by` where another Manager has it;
    /// `InvalidConfig` for a folder that is another user's, open to others, on a network file system, or so deep that
    /// no socket fits into it; `Unavailable` or `Denied` for what the system says.
    pub fn open(path: &Path, create: bool) -> Result<Self> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::PermissionDenied => disk(error, path, ErrorKind::Denied),
            _ => disk(error, path, ErrorKind::Unavailable),
        };
        if create {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        }
        let path = match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::not_found(format!("there is no data dir {}", path.display())));
            }
            other => other.map_err(failed)?,
        };
        check_socket_path(&path)?;
        if let Some(kind) = filesystem::network(&path).map_err(failed)? {
            return Err(Error::invalid(format!(
                "the data dir {} is on a network file system ({kind}), whose locks cannot keep two Managers apart: \
                 choose a folder on a disk of this machine",
                path.display()
            )));
        }
        close_to_others(&path)?;
        let lock = lock(&path)?;
        let dir = Self { path, _lock: lock };
        // A Manager must be able to start on a full disk, to restart what has died.
        match dir.write_pid() {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && dir.reserve().give_up().unwrap_or(false) => {
                dir.write_pid().map_err(failed)?;
            }
            other => other.map_err(failed)?,
        }
        Ok(dir)
    }

    /// The folder, absolute and without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The store's file.
    pub fn db(&self) -> PathBuf {
        self.path.join("store.redb")
    }

    /// The socket that commands reach the Manager through.
    pub fn socket(&self) -> PathBuf {
        self.path.join("cocktail.sock")
    }

    /// The file that holds the Manager's pid while it runs.
    pub fn pid_file(&self) -> PathBuf {
        self.path.join("manager.pid")
    }

    /// The keeper's folder.
    pub fn run(&self) -> PathBuf {
        self.path.join("run")
    }

    /// Output of containers.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Volumes of containers.
    pub fn volumes(&self) -> PathBuf {
        self.path.join("volumes")
    }

    pub(crate) fn reserve(&self) -> Reserve {
        Reserve::new(self.path.join(reserve::FILE))
    }

    /// Writes the pid beside its place and moves it there, so that nobody reads half of it.
    fn write_pid(&self) -> io::Result<()> {
        let draft = self.path.join("manager.pid.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        writeln!(file, "{}", std::process::id())?;
        fs::rename(draft, self.pid_file())
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(self.pid_file()) {
            tracing::debug!(%error, "the pid file could not be removed");
        }
    }
}

fn check_socket_path(path: &Path) -> Result<()> {
    let longest = ["cocktail.sock", "run/keeper.sock"].iter().map(|name| path.join(name).as_os_str().len()).max();
    let longest = longest.unwrap_or_default();
    if longest <= SOCKET_PATH {
        return Ok(());
    }
    let (given, possible) = (path.as_os_str().len(), path.as_os_str().len() - (longest - SOCKET_PATH));
    Err(Error::invalid(format!(
        "the path of the data dir {} is too long for a socket in it: it has {given} bytes, and {possible} are possible; \
         choose a shorter one",
        path.display()
    )))
}

/// Makes sure that the folder is ours and that nobody else can look into it or write to it.
fn close_to_others(path: &Path) -> Result<()> {
    let failed = |error| disk(error, path, ErrorKind::Unavailable);
    let shown = path.display();
    let meta = fs::metadata(path).map_err(failed)?;
    if !meta.is_dir() {
        return Err(Error::invalid(format!("the data dir {shown} is not a folder")));
    }
    let ours = rustix::process::geteuid().as_raw();
    if meta.uid() != ours {
        return Err(Error::invalid(format!(
            "the data dir {shown} belongs to uid {}, and this is uid {ours}: choose a folder of your own",
            meta.uid()
        )));
    }
    let mode = meta.mode() & 0o7777;
    // Passing through without looking is what a worker of another user needs to get to its volume.
    if mode & 0o066 == 0 {
        return Ok(());
    }
    // Anything in it may have been put there by others.
    if fs::read_dir(path).map_err(failed)?.next().is_some() {
        return Err(Error::invalid(format!(
            "the data dir {shown} is open to other users (mode {mode:03o}): close it with `chmod 700`, or choose another"
        )));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)
}

/// Takes the lock. The file stays when the lock is given back: removing it would let two processes lock two files.
fn lock(path: &Path) -> Result<File> {
    let file = path.join("manager.lock");
    let failed = |error| disk(error, &file, ErrorKind::Unavailable);
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&file)
        .map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(failed(error)),
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let read = lock.read_to_string(&mut pid);
            let holder = match pid.trim() {
                pid if read.is_ok() && pid.parse::<u32>().is_ok() => format!("the Manager with pid {pid}"),
                _ => "another Manager".to_owned(),
            };
            let message = format!("the data dir {} is in use by {holder}", path.display());
            return Err(Error::refused(message).with("held_by", holder));
        }
    }
    let written = lock
        .set_len(0)
        .and_then(|()| lock.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(lock, "{}", std::process::id()));
    // On a full disk the holder has no name, but it has the lock.
    if let Err(error) = written {
        tracing::debug!(%error, "the lock file could not take the pid");
    }
    Ok(lock)
}
