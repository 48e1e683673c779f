//! Room that is kept for emergencies: a file of real blocks, deleted when the disk is full.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

/// Size of the ballast. A restart of a worker takes a few KiB of journal, so this is enough for hundreds.
pub(crate) const SIZE: u64 = 4 << 20;

/// As much as is given up at a time: others may take what the store does not use at once.
const SLICE: u64 = SIZE / 16;

/// Its name in the data dir.
pub(crate) const FILE: &str = "ballast";

/// The ballast file of one data dir.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Deletes the ballast. Says whether there was any.
    pub(crate) fn give_up(&self) -> io::Result<bool> {
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives up a part of the ballast. Says whether there was any left.
    pub(crate) fn give_some(&self) -> io::Result<bool> {
        let file = match OpenOptions::new().write(true).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match file.metadata()?.len().saturating_sub(SLICE) {
            0 => self.give_up(),
            left => file.set_len(left).map(|()| true),
        }
    }

    /// Makes the ballast where it is missing and twice its size is free. Says whether it is there now.
    pub(crate) fn take(&self) -> io::Result<bool> {
        match fs::symlink_metadata(&self.path) {
            Ok(meta) if meta.blocks() * 512 >= SIZE => return Ok(true),
            // What is left of it is worth more than the room for a whole one that is not there.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let folder = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let room = statvfs(folder)?;
        if room.f_bavail.saturating_mul(room.f_frsize) < 2 * SIZE {
            return Ok(false);
        }
        self.give_up()?;
        match self.make() {
            Ok(()) => Ok(true),
            Err(error) => {
                // Half a ballast would fill the disk further.
                self.give_up()?;
                if Errno::from_io_error(&error) == Some(Errno::NOSPC) { Ok(false) } else { Err(error) }
            }
        }
    }

    fn make(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, SIZE) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let zeros = [0_u8; 64 << 10];
                (0..SIZE / zeros.len() as u64).try_for_each(|_| file.write_all(&zeros))?;
                file.sync_data()
            }
            Err(error) => Err(error.into()),
        }
    }
}
