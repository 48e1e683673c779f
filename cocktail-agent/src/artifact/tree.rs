//! Writes files below one folder, and nowhere else.
//!
//! Every step goes from an open folder to a name in it and follows no link, so what a link says plays no part in where
//! something is written. Nothing that is there is ever replaced. What a link may say is [`link_problem`]'s business: programs
//! follow it later.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::Limits;

/// A folder that is being filled.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// How many folders were made on the way to something else.
    made: u64,
}

/// A name that does not fit with what is there already.
#[derive(Debug)]
pub(super) enum Problem {
    /// It is the archive's fault.
    Refused(&'static str),
    /// It is the disk's.
    Disk(io::Error),
}

impl From<Errno> for Problem {
    fn from(error: Errno) -> Self {
        match error {
            Errno::EXIST => Self::Refused("stands in the archive twice"),
            Errno::NOTDIR | Errno::LOOP => Self::Refused("leads through something that is no folder"),
            Errno::NAMETOOLONG => Self::Refused("has a name that is too long"),
            error => Self::Disk(error.into()),
        }
    }
}

impl Tree {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(root, FOLDER, Mode::empty())?;
        Ok(Self { root, made: 0 })
    }

    /// How many folders it made without being told of each.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    /// Makes a folder, or sets the mode of one that is there.
    pub(super) fn folder(&mut self, parts: &[&[u8]], mode: u32) -> Result<(), Problem> {
        let Some((name, above)) = parts.split_last() else { return Ok(()) };
        let parent = self.parent(above)?;
        let name = OsStr::from_bytes(name);
        match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
            Ok(()) => {}
            // The second time is no problem for a folder, and one for anything else.
            Err(Errno::EXIST) if kind(&parent, name)? == FileType::Directory => {}
            Err(error) => return Err(error.into()),
        }
        let folder = rustix::fs::openat(&parent, name, FOLDER, Mode::empty())?;
        Ok(rustix::fs::fchmod(folder, Mode::from_raw_mode(mode | 0o700))?)
    }

    /// Makes an empty file, open for writing.
    pub(super) fn file(&mut self, parts: &[&[u8]]) -> Result<File, Problem> {
        let (parent, name) = self.place(parts)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Makes a symbolic link.
    pub(super) fn link(&mut self, parts: &[&[u8]], target: &[u8]) -> Result<(), Problem> {
        let (parent, name) = self.place(parts)?;
        Ok(rustix::fs::symlinkat(OsStr::from_bytes(target), &parent, name)?)
    }

    /// Gives a file that was written before a second name.
    pub(super) fn second_name(&mut self, parts: &[&[u8]], of: &[&[u8]]) -> Result<(), Problem> {
        const NO_FILE: Problem = Problem::Refused("is a second name of something that is no file before it");
        let Some((old, above)) = of.split_last() else { return Err(NO_FILE) };
        let old = OsStr::from_bytes(old);
        let Ok(from) = walk(&self.root, above, |_, _| Err(Errno::NOENT)) else { return Err(NO_FILE) };
        if !matches!(kind(&from, old), Ok(FileType::RegularFile)) {
            return Err(NO_FILE);
        }
        let (parent, name) = self.place(parts)?;
        match rustix::fs::linkat(&from, old, &parent, name, AtFlags::empty()) {
            Err(Errno::MLINK) => Err(Problem::Refused("is one name too many of one file")),
            outcome => Ok(outcome?),
        }
    }

    /// The folder that something is written to, and its name there.
    fn place<'p>(&mut self, parts: &[&'p [u8]]) -> Result<(OwnedFd, &'p OsStr), Problem> {
        let Some((name, above)) = parts.split_last() else {
            return Err(Problem::Refused("stands for the whole archive and is no folder"));
        };
        Ok((self.parent(above)?, OsStr::from_bytes(name)))
    }

    /// Opens a folder, and makes it where it has no entry of its own.
    fn parent(&mut self, parts: &[&[u8]]) -> Result<OwnedFd, Problem> {
        let made = &mut self.made;
        let make = |parent: &OwnedFd, name: &OsStr| {
            *made += 1;
            rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
            let folder = rustix::fs::openat(parent, name, FOLDER, Mode::empty())?;
            rustix::fs::fchmod(&folder, Mode::from_raw_mode(0o755))?;
            Ok(folder)
        };
        Ok(walk(&self.root, parts, make)?)
    }
}

/// How folders are opened: as what they are, not as what a link leads to.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Goes down from `root` without following a link; `missing` says what becomes of a folder that is not there.
fn walk(
    root: &OwnedFd,
    parts: &[&[u8]],
    mut missing: impl FnMut(&OwnedFd, &OsStr) -> Result<OwnedFd, Errno>,
) -> Result<OwnedFd, Errno> {
    let mut here = rustix::fs::openat(root, ".", FOLDER, Mode::empty())?;
    for name in parts {
        let name = OsStr::from_bytes(name);
        here = match rustix::fs::openat(&here, name, FOLDER, Mode::empty()) {
            Err(Errno::NOENT) => missing(&here, name)?,
            opened => opened?,
        };
    }
    Ok(here)
}

fn kind(parent: &OwnedFd, name: &OsStr) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode))
}

/// Sets mode and time of a file that was written.
pub(super) fn finish(file: &File, mode: u32, mtime: u64) -> io::Result<()> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    let at = Timespec { tv_sec: i64::try_from(mtime).unwrap_or(0), tv_nsec: 0 };
    // A time that the file system has no room for is no reason to refuse an archive.
    match rustix::fs::futimens(file, &Timestamps { last_access: at, last_modification: at }) {
        Err(Errno::INVAL | Errno::OVERFLOW) => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// The names that a path consists of, or why it is not taken. `.` and doubled slashes mean nothing.
pub(super) fn parts<'p>(path: &'p [u8], limits: &Limits) -> Result<Vec<&'p [u8]>, &'static str> {
    if path.is_empty() {
        return Err("has no name");
    }
    if path.len() > limits.path {
        return Err("has a path that is too long");
    }
    if path.contains(&0) {
        return Err("has a NUL in its path");
    }
    if path.starts_with(b"/") {
        return Err("has an absolute path");
    }
    let parts: Vec<_> = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&b"..".as_slice()) {
        return Err("has `..` in its path");
    }
    if parts.len() > limits.depth {
        return Err("lies too deep");
    }
    Ok(parts)
}

/// Why a link in a folder `depth` below the root may not say `target`.
///
/// `..` may only stand at its beginning, and at most `depth` times. The folder of a link is a real one, so that much of it
/// stays inside whatever other links there are; and what follows goes down, or through links for which the same holds.
pub(super) fn link_problem(depth: usize, target: &[u8], limits: &Limits) -> Option<&'static str> {
    if target.is_empty() || target.contains(&0) {
        return Some("is a link to nothing");
    }
    if target.len() > limits.path {
        return Some("is a link that is too long");
    }
    if target.starts_with(b"/") {
        return Some("is a link to an absolute path");
    }
    let (mut above, mut down) = (0, false);
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if down => return Some("is a link with `..` after a name"),
            b".." => above += 1,
            _ => down = true,
        }
    }
    (above > depth).then_some("is a link that leads outside")
}
