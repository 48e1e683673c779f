//! The files of a build: which ones of a folder an engine gets, and in which form.
//!
//! Start at [`write()`]. It makes a tar archive in which equal files are equal bytes: sorted by name, without times and
//! owners. It goes from open folder to open folder and follows no link on the way, so nothing outside is ever read, whatever
//! becomes of the folder meanwhile; a link is sent as a link. What `.dockerignore` names stays here, by the rules of
//! `docker build`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cocktail_core::error::{Error, Result};
use cocktail_core::quantity::Bytes;
use globset::{GlobBuilder, GlobMatcher};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, readlinkat, statat};
use tar::{Builder, EntryType, Header};

/// Most files, folders and links.
const MOST_ENTRIES: usize = 200_000;
/// Deepest folder.
const DEEPEST: usize = 64;
/// Bytes of the longest `.dockerignore`.
const IGNORE: u64 = 1 << 20;
/// What says which files stay here.
const IGNORE_FILE: &str = ".dockerignore";

/// Writes a folder as an archive, without what its `.dockerignore` names. `dockerfile` is below it and always sent. Waits for
/// a disk.
///
/// # Errors
/// `InvalidConfig` for what cannot be read, for a folder without that file, and for more than `most` bytes. What is written by
/// then is of no use.
pub(crate) fn write(folder: &Path, dockerfile: &Path, most: Bytes, to: &mut dyn Write) -> Result<()> {
    let shown = folder.display();
    let open = openat(CWD, folder, FOLDER.difference(OFlags::NOFOLLOW), Mode::empty());
    let open = open.map_err(|error| Error::invalid(format!("the folder {shown} cannot be read")).because(io(error)))?;
    let mut walk = Walk {
        archive: Builder::new(to),
        ignored: Ignored::read(open.as_fd(), folder)?,
        folder,
        dockerfile,
        most,
        bytes: 0,
        entries: 0,
        has_dockerfile: false,
    };
    walk.folder(open, Path::new(""), 0)?;
    if !walk.has_dockerfile {
        return Err(Error::invalid(format!("the folder {shown} has no file {}", dockerfile.display())));
    }
    walk.archive.into_inner().map(drop).map_err(|error| unwritten(&error))
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Opening a pipe would wait for its other end.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

struct Walk<'a> {
    archive: Builder<&'a mut dyn Write>,
    ignored: Ignored,
    folder: &'a Path,
    dockerfile: &'a Path,
    most: Bytes,
    bytes: u64,
    entries: usize,
    has_dockerfile: bool,
}

impl Walk<'_> {
    fn folder(&mut self, open: OwnedFd, below: &Path, depth: usize) -> Result<()> {
        if depth > DEEPEST {
            let shown = self.folder.join(below);
            return Err(Error::invalid(format!("{} is deeper than {DEEPEST} folders", shown.display())));
        }
        for name in self.names(open.as_fd(), below)? {
            let path = below.join(OsStr::from_bytes(&name));
            let name = OsStr::from_bytes(&name);
            let seen = match statat(&open, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(seen) => seen,
                // Somebody removed it meanwhile.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(self.unread(&path, io(error))),
            };
            let ignored = self.ignored.has(&path) && path != self.dockerfile && path != Path::new(IGNORE_FILE);
            let mut header = header(seen.st_mode);
            match FileType::from_raw_mode(seen.st_mode) {
                FileType::Directory => {
                    if ignored && !self.ignored.has_exceptions && !self.dockerfile.starts_with(&path) {
                        continue;
                    }
                    let inner = openat(&open, name, FOLDER, Mode::empty());
                    let inner = inner.map_err(|error| self.unread(&path, io(error)))?;
                    if !ignored {
                        self.count()?;
                        header.set_entry_type(EntryType::Directory);
                        self.archive.append_data(&mut header, &path, io::empty()).map_err(|error| unwritten(&error))?;
                    }
                    self.folder(inner, &path, depth + 1)?;
                }
                FileType::RegularFile if !ignored => {
                    self.count()?;
                    let file = openat(&open, name, FILE, Mode::empty());
                    let file = file.map_err(|error| self.unread(&path, io(error)))?;
                    self.file(file.into(), &path, header)?;
                }
                FileType::Symlink if !ignored => {
                    self.count()?;
                    let target = readlinkat(&open, name, Vec::new());
                    let target = target.map_err(|error| self.unread(&path, io(error)))?;
                    header.set_entry_type(EntryType::Symlink);
                    let target = OsStr::from_bytes(target.as_bytes());
                    self.archive.append_link(&mut header, &path, target).map_err(|error| unwritten(&error))?;
                }
                // Sockets, pipes and devices are nothing that an image is made from.
                _ => {}
            }
        }
        Ok(())
    }

    /// What is in a folder, in an order that no disk decides.
    fn names(&self, open: BorrowedFd<'_>, below: &Path) -> Result<Vec<Vec<u8>>> {
        let unread = |error: rustix::io::Errno| self.unread(below, io(error));
        let mut names = Vec::new();
        for entry in Dir::read_from(open).map_err(unread)? {
            let entry = entry.map_err(unread)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
            if names.len() > MOST_ENTRIES {
                return Err(self.too_many());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn file(&mut self, file: File, path: &Path, mut header: Header) -> Result<()> {
        let seen = file.metadata().map_err(|error| self.unread(path, error))?;
        if !seen.is_file() {
            return Err(self.unread(path, io::Error::other("it has changed meanwhile")));
        }
        self.bytes = self.bytes.saturating_add(seen.len());
        if self.bytes > self.most.0 {
            let (folder, most) = (self.folder.display(), self.most);
            let message = format!(
                "the files of {folder} are larger than {most}: name in {IGNORE_FILE} what is not needed, or raise `build_bytes` of the provider"
            );
            return Err(Error::invalid(message));
        }
        header.set_entry_type(EntryType::Regular);
        header.set_size(seen.len());
        let mut data = Exactly { file, left: seen.len() };
        let written = self.archive.append_data(&mut header, path, &mut data);
        written.map_err(|error| self.unread(path, error))?;
        self.has_dockerfile |= path == self.dockerfile;
        Ok(())
    }

    fn count(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries > MOST_ENTRIES { Err(self.too_many()) } else { Ok(()) }
    }

    fn too_many(&self) -> Error {
        let folder = self.folder.display();
        Error::invalid(format!("{folder} has more than {MOST_ENTRIES} files: name in {IGNORE_FILE} what is not needed"))
    }

    fn unread(&self, path: &Path, error: io::Error) -> Error {
        Error::invalid(format!("{} cannot be read", self.folder.join(path).display())).because(error)
    }
}

/// A file as long as it was when it was opened.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.file.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::Error::other("it has become shorter while it was read"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// What is the same wherever the files come from.
fn header(mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(mode & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

/// The reader of the archive has gone, or says why.
fn unwritten(error: &io::Error) -> Error {
    Error::unavailable(format!("the archive of the files cannot be written: {error}"))
}

fn io(error: rustix::io::Errno) -> io::Error {
    error.into()
}

/// What stays here.
#[derive(Debug, Default)]
struct Ignored {
    /// In the order of the file: the last one that fits decides, and one with `!` takes back.
    patterns: Vec<(GlobMatcher, bool)>,
    has_exceptions: bool,
}

impl Ignored {
    fn read(folder: BorrowedFd<'_>, shown: &Path) -> Result<Self> {
        let shown = shown.join(IGNORE_FILE);
        let problem = |what: &str| Error::invalid(format!("{} {what}", shown.display()));
        let file: File = match openat(folder, IGNORE_FILE, FILE, Mode::empty()) {
            Ok(file) => file.into(),
            Err(rustix::io::Errno::NOENT) => return Ok(Self::default()),
            Err(error) => return Err(problem("cannot be read").because(io(error))),
        };
        let mut text = String::new();
        let read = file.take(IGNORE).read_to_string(&mut text);
        read.map_err(|error| problem("cannot be read as text").because(error))?;
        Self::parse(&text).map_err(|line| problem(&format!("has no pattern in line {line}")))
    }

    /// As `docker build` reads it; the number of a line that is no pattern.
    fn parse(text: &str) -> std::result::Result<Self, usize> {
        let mut ignored = Self::default();
        for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = if line.starts_with('#') { "" } else { line.trim() };
            let (line, exception) = line.strip_prefix('!').map_or((line, false), |rest| (rest.trim(), true));
            let pattern = clean(line);
            if pattern.is_empty() {
                continue;
            }
            let glob = GlobBuilder::new(&plain_braces(&pattern)).literal_separator(true).backslash_escape(true).build();
            ignored.patterns.push((glob.map_err(|_| at + 1)?.compile_matcher(), exception));
            ignored.has_exceptions |= exception;
        }
        Ok(ignored)
    }

    fn has(&self, path: &Path) -> bool {
        // What fits a folder fits all that is in it.
        let fits = |glob: &GlobMatcher| path.ancestors().any(|path| path != Path::new("") && glob.is_match(path));
        self.patterns.iter().rev().find(|(glob, _)| fits(glob)).is_some_and(|(_, exception)| !exception)
    }
}

/// A pattern as one from the folder itself, without detours.
fn clean(line: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in line.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Braces mean nothing to `docker build`.
fn plain_braces(pattern: &str) -> String {
    let mut plain = String::with_capacity(pattern.len());
    let (mut escaped, mut inside) = (false, false);
    for letter in pattern.chars() {
        match letter {
            _ if escaped => plain.push(letter),
            '{' | '}' if !inside => plain.extend(['[', letter, ']']),
            _ => plain.push(letter),
        }
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => inside = true,
            ']' => inside = false,
            _ => {}
        }
    }
    plain
}

/// Where a file is that is named relative to a folder, if that is below it.
pub(crate) fn below(file: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in file.components() {
        match part {
            std::path::Component::Normal(part) => plain.push(part),
            std::path::Component::CurDir => {}
            _ => return None,
        }
    }
    (!plain.as_os_str().is_empty()).then_some(plain)
}

#[cfg(test)]
#[path = "context_tests.rs"]
mod tests;
