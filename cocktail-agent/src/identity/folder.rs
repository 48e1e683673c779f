//! A folder for secrets, and files that are replaced as a whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use cocktail_core::error::{Error, ErrorKind, Result};

use super::kept::VERSION;

/// No file of ours comes near this; one that does is something else.
const LARGEST: u64 = 16 << 20;

/// A folder that belongs to us and that nobody else can look into.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Takes a folder, and makes it where there is none.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |error| disk(error, "make the folder", path);
        if !path.try_exists().map_err(failed)? {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
            // A folder that is lost with its first file would be an authority that nobody knows any more.
            let above = path.canonicalize().map_err(failed)?;
            above.parent().map_or(Ok(()), |above| File::open(above)?.sync_all()).map_err(failed)?;
        }
        Self::existing(path)?.ok_or_else(|| Error::unavailable(format!("the folder {} went away", path.display())))
    }

    /// Takes a folder that is there.
    pub(super) fn existing(path: &Path) -> Result<Option<Self>> {
        let meta = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| disk(error, "look at the folder", path))?,
        };
        let shown = path.display();
        if !meta.is_dir() {
            return Err(Error::invalid(format!("{shown} is not a folder")));
        }
        ours(&meta, path, "700")?;
        Ok(Some(Self(path.to_owned())))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Waits until no other process writes here. The lock goes with what is returned, or with the process.
    ///
    /// The file stays: removing it would let two processes lock two files.
    pub(super) fn lock(&self) -> Result<File> {
        let path = self.path("lock");
        let failed = |error| disk(error, "lock", &path);
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(file)
    }

    /// The bytes of a file, or nothing where there is no such file.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(name);
        let failed = |error| disk(error, "read", &path);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() {
            return Err(Error::invalid(format!("{} is not a file", path.display())));
        }
        ours(&meta, &path, "600")?;
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }

    /// What a file of ours holds.
    pub(super) fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        // The source is left out: it could quote what is secret.
        let parsed = serde_json::from_slice(&bytes).map_err(|error| {
            self.damaged(name, &format!("line {}, column {} is not as it was written", error.line(), error.column()))
        })?;
        Ok(Some(parsed))
    }

    /// Replaces a file, or makes it. Afterwards the new one is on disk, and until then the old one is what is read.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (path, draft) = (self.path(name), self.path(&format!("{name}.new")));
        let written = (|| {
            // A draft that a crash has left may have another mode.
            match fs::remove_file(&draft) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(&self.0)?.sync_all()
        })();
        written.map_err(|error| disk(error, "write", &path))
    }

    /// [`write`](Self::write) for what [`read_json`](Self::read_json) reads.
    pub(super) fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(value)
            .map_err(|error| Error::unexpected("an identity could not be written").because(error))?;
        text.push(b'\n');
        self.write(name, &text)
    }

    /// Removes a file. One that is not there is as good as removed.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk(error, "remove", &self.path(name))),
            _ => Ok(()),
        }
    }

    /// A file was written by a later program.
    pub(super) fn foreign_version(&self, name: &str, found: u32) -> Error {
        let path = self.path(name);
        Error::invalid(format!("{} has form {found}, and this program reads {VERSION}", path.display()))
    }

    /// A file holds what we would never have written. It is left as it is: somebody may have a copy of it.
    pub(super) fn damaged(&self, name: &str, what: &str) -> Error {
        let path = self.path(name);
        Error::invalid(format!(
            "{} is damaged: {what}; put a copy in its place, or remove it to begin anew",
            path.display()
        ))
    }
}

/// Makes sure that a file or a folder is ours, and closed to others.
fn ours(meta: &fs::Metadata, path: &Path, wanted: &str) -> Result<()> {
    let shown = path.display();
    let us = rustix::process::geteuid().as_raw();
    if meta.uid() != us {
        return Err(Error::invalid(format!("{shown} belongs to uid {}, and this is uid {us}", meta.uid())));
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::invalid(format!(
            "{shown} is open to other users (mode {mode:03o}), and it is for keys: close it with `chmod {wanted} {shown}`"
        )));
    }
    Ok(())
}

fn disk(error: io::Error, verb: &str, path: &Path) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("could not {verb} {}", path.display())).because(error)
}
