//! Paths of sockets, of any length.
//!
//! A socket's address holds 107 bytes of path, a project may lie deeper than that. A longer path is reached through
//! the open folder that it lies in, which the kernel offers under a short name.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What fits into `sun_path` beside the zero at its end.
const LONGEST: usize = 107;

/// A path that fits into an address, valid as long as this value lives.
#[derive(Debug)]
pub(crate) struct Address {
    path: PathBuf,
    _folder: Option<File>,
}

impl Address {
    /// Shortens `socket` if need be. The folder must exist then.
    pub(crate) fn of(socket: &Path) -> io::Result<Self> {
        if socket.as_os_str().as_bytes().len() <= LONGEST {
            return Ok(Self { path: socket.to_owned(), _folder: None });
        }
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "the path of the socket names no file in a folder");
        let folder = File::open(socket.parent().ok_or_else(wrong)?)?;
        let mut short = OsString::from(format!("/proc/self/fd/{}/", folder.as_raw_fd()));
        short.push(socket.file_name().ok_or_else(wrong)?);
        Ok(Self { path: short.into(), _folder: Some(folder) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The data dir that a socket belongs to, for messages.
pub(crate) fn data_dir(socket: &Path) -> std::path::Display<'_> {
    socket.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).display()
}
