//! The file of the socket: made with the right mode at once, replaced if its owner is dead, removed when done.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cocktail_core::error::{Error, ErrorKind, Result};
use tokio::net::{UnixListener, UnixStream};

use crate::address::{Address, data_dir};

/// The file of a socket that we made. Dropping removes it, unless another one has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the socket of the API");
        }
    }
}

/// Listens on `socket`. See [`Api::bind`](super::Api::bind).
pub(super) async fn listen(socket: &Path) -> Result<(UnixListener, SocketFile)> {
    refuse_if_taken(socket).await?;
    // Bound beside and moved into place: nobody ever sees it with another mode or without a listener.
    let mut beside = socket.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let bound = bind(&beside).and_then(|(listener, identity)| {
        fs::rename(&beside, socket)?;
        Ok((listener, SocketFile { path: socket.to_owned(), identity }))
    });
    bound.map_err(|error| {
        let _ = fs::remove_file(&beside);
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorKind::InvalidConfig,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, format!("cannot listen on {}", socket.display())).because(error)
    })
}

fn bind(path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(Address::of(path)?.path())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let made = fs::symlink_metadata(path)?;
    Ok((listener, (made.dev(), made.ino())))
}

async fn refuse_if_taken(socket: &Path) -> Result<()> {
    let found = match fs::symlink_metadata(socket) {
        Ok(found) => found,
        // Whatever else is wrong with the path, binding says it better.
        Err(_) => return Ok(()),
    };
    let conflict = |why: String| Err(Error::new(ErrorKind::Conflict, why));
    if !found.file_type().is_socket() {
        return conflict(format!("{} is in the way: it is no socket", socket.display()));
    }
    let probe = match Address::of(socket) {
        Ok(address) => UnixStream::connect(address.path()).await,
        Err(error) => Err(error),
    };
    match probe {
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        // An error that does not prove that nobody listens is taken as somebody.
        Ok(_) | Err(_) => conflict(format!("a Manager runs already for {}", data_dir(socket))),
    }
}
