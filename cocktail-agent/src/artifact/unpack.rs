//! Unpacks an archive whose hash was right. That says who made it, not that it means well: every entry is looked at before
//! anything of it is written, and one that is refused ends it all.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use cocktail_core::error::{Error, Result};
use tar::{Archive, Entry, EntryType};

use super::archive::{Allowance, Metered, open};
use super::error::{damaged, entry as refused, local};
use super::tree::{Problem, Tree, finish, link_problem, parts};
use super::{Limits, download};

/// Most that is read to learn of one entry: its headers, long names, attributes, the map of its holes. The reader keeps
/// them in memory.
const HEADERS: u64 = 1 << 20;

/// Attributes of entries that are another form of holes, which the reader does not know: it would take the map for data.
const HOLES: &[u8] = b"GNU.sparse.";

type Incoming<'a> = Entry<'a, Metered<Box<dyn Read>>>;

/// What was taken from the archive so far.
struct Unpacking<'l> {
    tree: Tree,
    limits: &'l Limits,
    entries: u64,
    bytes: u64,
    piece: Vec<u8>,
}

/// Unpacks `archive` into the empty folder `files`, and returns how many bytes that are.
pub(super) fn unpack(archive: File, files: &Path, limits: &Limits) -> Result<u64> {
    let tree = Tree::open(files).map_err(|error| local("unpack an artifact", error))?;
    let mut unpacking = Unpacking { tree, limits, entries: 0, bytes: 0, piece: vec![0; download::PIECE] };
    let allowance = Allowance::default();
    let mut archive = Archive::new(Metered::new(open(archive)?, allowance.clone()));
    let mut last: Option<Vec<u8>> = None;
    let mut entries = archive.entries().map_err(|error| damaged(None, error))?;
    loop {
        allowance.set(HEADERS);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(|error| damaged(last.as_deref(), error))?;
        let name = entry.path_bytes().into_owned();
        // What is read from here on is the content, whose size is looked at first.
        allowance.set(u64::MAX);
        unpacking.take(&mut entry, &name)?;
        last = Some(name);
    }
    Ok(unpacking.bytes)
}

impl Unpacking<'_> {
    fn take(&mut self, entry: &mut Incoming<'_>, name: &[u8]) -> Result<()> {
        self.entries += 1;
        self.count(name)?;
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            // What `git archive` writes its commit to.
            return self.skip(entry, name);
        }
        if has_unknown_holes(entry).map_err(|error| damaged(Some(name), error))? {
            return Err(refused(name, "has holes in a form that is not known: make the archive without them"));
        }
        let parts = parts(name, self.limits).map_err(|why| refused(name, why))?;
        let mode = entry.header().mode().map_err(|error| damaged(Some(name), error))?;
        let done = match kind {
            EntryType::Directory => self.tree.folder(&parts, mode & 0o755),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse if !name.ends_with(b"/") => {
                return self.file(entry, name, &parts, mode);
            }
            EntryType::Symlink => {
                let target = target(entry);
                if let Some(why) = link_problem(parts.len().saturating_sub(1), &target, self.limits) {
                    return Err(refused(name, why));
                }
                self.tree.link(&parts, &target)
            }
            EntryType::Link => {
                let target = target(entry);
                let of = super::tree::parts(&target, self.limits);
                let of = of.map_err(|_| refused(name, "is a second name of something outside"))?;
                self.tree.second_name(&parts, &of)
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                return Err(refused(name, "is a device or a pipe"));
            }
            _ => return Err(refused(name, "is neither a file, nor a folder, nor a link")),
        };
        done.map_err(|problem| said(name, problem))?;
        self.count(name)?;
        self.skip(entry, name)
    }

    fn file(&mut self, entry: &mut Incoming<'_>, name: &[u8], parts: &[&[u8]], mode: u32) -> Result<()> {
        let size = entry.size();
        self.bytes = self.bytes.saturating_add(size);
        if size > self.limits.file {
            return Err(refused(name, &format!("has {size} bytes; at most {} are taken", self.limits.file)));
        }
        if self.bytes > self.limits.unpacked {
            return Err(refused(name, &format!("makes it more than {} bytes in all", self.limits.unpacked)));
        }
        let mtime = entry.header().mtime().unwrap_or(0);
        let mut file = self.tree.file(parts).map_err(|problem| said(name, problem))?;
        self.count(name)?;
        let mut left = size;
        while left > 0 {
            let read = match entry.read(&mut self.piece) {
                Ok(0) => return Err(damaged(Some(name), io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => read,
                Err(error) => return Err(damaged(Some(name), error)),
            };
            left = left.saturating_sub(read as u64);
            file.write_all(&self.piece[..read]).map_err(|error| local("write a file of an artifact", error))?;
        }
        // Never more than the archive said, no setuid, and always readable by its owner.
        finish(&file, (mode & 0o755) | 0o600, mtime).map_err(|error| local("finish a file of an artifact", error))
    }

    /// Entries, and the folders that were made on the way to them, are bounded together.
    fn count(&self, name: &[u8]) -> Result<()> {
        let most = self.limits.entries;
        if self.entries.saturating_add(self.tree.made()) > most {
            return Err(refused(name, &format!("is one too many: at most {most} entries and folders are taken")));
        }
        Ok(())
    }

    /// Leaves content aside where none should be. The reader skips it within what describes the next entry.
    fn skip(&self, entry: &Incoming<'_>, name: &[u8]) -> Result<()> {
        match entry.size() {
            size if size > HEADERS => Err(refused(name, "has content, and is no file")),
            _ => Ok(()),
        }
    }
}

fn target(entry: &Incoming<'_>) -> Vec<u8> {
    entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default()
}

fn has_unknown_holes(entry: &mut Incoming<'_>) -> io::Result<bool> {
    let Some(attributes) = entry.pax_extensions()? else { return Ok(false) };
    for attribute in attributes {
        if attribute?.key_bytes().starts_with(HOLES) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn said(name: &[u8], problem: Problem) -> Error {
    match problem {
        Problem::Refused(why) => refused(name, why),
        Problem::Disk(error) => local("write an entry of an artifact", error),
    }
}
