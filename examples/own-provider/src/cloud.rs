//! The outside world: a folder of servers. Nothing above this file knows of files.
//!
//! A server is there as a whole or not at all: it is made under a name that no listing looks at, and renamed. Making one
//! that is there already and deleting one that is not are successes, so every call may be repeated.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cocktail_core::error::{Error, Result};
use cocktail_core::id::{OperationId, ServerId, StoreId};
use serde::{Deserialize, Serialize};

use crate::error::of_io;

/// What a server's folder says of itself: our tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tag {
    pub(crate) store: StoreId,
    pub(crate) operation: OperationId,
    pub(crate) server: ServerId,
    pub(crate) offering: String,
}

/// What a listing found: servers by the cloud's own id, and whether there can be no others.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) servers: Vec<(String, Tag)>,
    pub(crate) complete: bool,
}

/// An account.
#[derive(Debug, Clone)]
pub(crate) struct Cloud {
    root: PathBuf,
}

/// Name of the file that a server's tag is in.
const TAG: &str = "server.json";
/// Name of the file in the account that says how many servers it may have; no limit without it.
const QUOTA: &str = "quota";

impl Cloud {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// An id that no server has.
    pub(crate) fn new_id() -> Result<String> {
        let mut bytes = [0; 8];
        let drawn = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        drawn.map_err(|error| Error::unavailable("no random id can be drawn").because(error))?;
        Ok(format!("srv-{:016x}", u64::from_ne_bytes(bytes)))
    }

    /// Makes a server; false where the account has no room for it. One that is there already stays as it is.
    pub(crate) async fn create(&self, id: &str, tag: &Tag, join: &[u8]) -> Result<bool> {
        let (cloud, id, join) = (self.clone(), id.to_owned(), join.to_owned());
        let tag = serde_json::to_vec(tag).map_err(|error| Error::unexpected("the tag is no json").because(error))?;
        self.call("make a server", move || {
            let home = cloud.root.join(&id);
            if home.exists() {
                return Ok(true);
            }
            if cloud.quota()?.is_some_and(|quota| cloud.ids().is_ok_and(|ids| ids.len() >= quota)) {
                return Ok(false);
            }
            let half = tempdir(&cloud.root)?;
            for (name, content) in [(TAG, &tag), ("join", &join)] {
                let mut file = File::create(half.join(name))?;
                file.write_all(content)?;
                file.sync_all()?;
            }
            match fs::rename(&half, &home) {
                // Another attempt was faster.
                Err(_) if home.exists() => fs::remove_dir_all(&half)?,
                renamed => renamed?,
            }
            Ok(true)
        })
        .await
    }

    /// All servers of the account, whosever they are. One that cannot be read makes the listing incomplete.
    pub(crate) async fn list(&self) -> Result<Found> {
        let cloud = self.clone();
        self.call("list servers", move || {
            let mut found = Found { complete: true, ..Found::default() };
            for id in cloud.ids()? {
                match fs::read(cloud.root.join(&id).join(TAG)).map(|bytes| serde_json::from_slice(&bytes)) {
                    Ok(Ok(tag)) => found.servers.push((id, tag)),
                    // It was deleted while we looked.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && !cloud.root.join(&id).exists() => {}
                    _ => found.complete = false,
                }
            }
            Ok(found)
        })
        .await
    }

    /// Deletes a server.
    pub(crate) async fn delete(&self, id: &str) -> Result<()> {
        let (cloud, id) = (self.clone(), id.to_owned());
        self.call("delete a server", move || {
            let half = tempdir(&cloud.root)?;
            match fs::rename(cloud.root.join(id), half.join("gone")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::remove_dir_all(half)
        })
        .await
    }

    fn quota(&self) -> io::Result<Option<usize>> {
        match fs::read_to_string(self.root.join(QUOTA)) {
            Ok(text) => text.trim().parse().map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn ids(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.root)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names = names.collect::<io::Result<Vec<_>>>()?;
        Ok(names.into_iter().filter(|name| name.starts_with("srv-")).collect())
    }

    /// Work on files may wait for a disk. It runs to its end also when the caller is gone, as a request does that was sent.
    async fn call<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let done = tokio::task::spawn_blocking(work).await;
        let done = done.map_err(|error| Error::unexpected("work on files panicked").because(error))?;
        done.map_err(|error| of_io(what, error))
    }
}

/// A folder that no listing looks at.
fn tempdir(root: &Path) -> io::Result<PathBuf> {
    let id = Cloud::new_id().map_err(io::Error::other)?;
    let folder = root.join(format!(".half-{id}"));
    fs::create_dir(&folder)?;
    Ok(folder)
}
