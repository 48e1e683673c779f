//! The thread that puts records on disk, and the queue before it.
//!
//! A worker's name never becomes a path by joining texts: directories are opened one by one without following links,
//! and they are not writable for the worker's user. A failed write is a drop, counted like any other; the next one
//! tries again, so a disk that has space again is used again without anybody's doing.

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File},
    io::{self, Write},
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, mkdirat, open, openat, renameat, unlinkat},
    io::Errno,
};
use tokio::sync::oneshot;

use super::{Bounds, Sink, pump};

/// Share of one log in the queue, in bytes.
const SINK_SHARE: usize = 256 * 1024;
/// The whole queue, in bytes.
const WHOLE: usize = 4 * 1024 * 1024;
/// Files kept open at a time; idle logs give theirs back.
const OPEN_FILES: usize = 64;

/// Name of the file that is written now; `current.1` is the one before.
pub(super) const CURRENT: &str = "current";

/// One piece of work for the writer.
#[derive(Debug)]
pub(super) enum Work {
    Write { sink: Arc<Sink>, records: Vec<u8> },
    Flush { done: oneshot::Sender<()> },
    Close { container: String, keep: bool, done: oneshot::Sender<()> },
    End,
}

/// What waits for the disk.
#[derive(Debug, Default)]
pub(super) struct Queue {
    work: Mutex<VecDeque<Work>>,
    bytes: AtomicUsize,
    more: Condvar,
}

impl Queue {
    pub(super) fn push(&self, work: Work) {
        self.work.lock().unwrap_or_else(PoisonError::into_inner).push_back(work);
        self.more.notify_one();
    }

    pub(super) fn write(&self, sink: &Arc<Sink>, records: Vec<u8>) {
        if records.is_empty() {
            return;
        }
        sink.queued.fetch_add(records.len(), Ordering::Relaxed);
        self.bytes.fetch_add(records.len(), Ordering::Relaxed);
        self.push(Work::Write { sink: Arc::clone(sink), records });
    }

    pub(super) fn has_room(&self, sink: &Sink) -> bool {
        sink.queued.load(Ordering::Relaxed) < SINK_SHARE && self.bytes.load(Ordering::Relaxed) < WHOLE
    }

    fn next(&self) -> Work {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(next) = work.pop_front() {
                if work.is_empty() && work.capacity() > 1024 {
                    *work = VecDeque::new();
                }
                return next;
            }
            work = self.more.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

struct Open {
    file: File,
    dir: OwnedFd,
    size: u64,
    /// The last write ended within a record.
    torn: bool,
    used: u64,
}

pub(super) struct Writer {
    root: OwnedFd,
    bounds: Bounds,
    files: HashMap<String, Open>,
    clock: u64,
}

const DIR: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Writer {
    pub(super) fn new(dir: &Path, bounds: Bounds) -> io::Result<Self> {
        let root = open(dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, bounds, files: HashMap::new(), clock: 0 })
    }

    pub(super) fn run(mut self, queue: Arc<Queue>, pump: Arc<pump::Shared>) -> io::Result<()> {
        let thread = thread::Builder::new().name("log-writer".to_owned()).stack_size(256 * 1024);
        thread.spawn(move || {
            loop {
                match queue.next() {
                    Work::Write { sink, records } => {
                        let length = records.len();
                        if self.write(&sink.container, &records).is_ok() {
                            sink.written.fetch_add(length as u64, Ordering::Relaxed);
                        } else {
                            sink.dropped.fetch_add(length as u64, Ordering::Relaxed);
                        }
                        sink.queued.fetch_sub(length, Ordering::Relaxed);
                        queue.bytes.fetch_sub(length, Ordering::Relaxed);
                        pump.room();
                        sink.changed.notify_waiters();
                    }
                    // Whoever asked may have stopped waiting.
                    Work::Flush { done } => _ = done.send(()),
                    Work::Close { container, keep, done } => {
                        self.files.remove(&container);
                        if !keep {
                            remove(&self.root, &container);
                        }
                        let _ = done.send(());
                    }
                    Work::End => return,
                }
            }
        })?;
        Ok(())
    }

    fn write(&mut self, container: &str, records: &[u8]) -> io::Result<()> {
        self.clock += 1;
        if !self.files.contains_key(container) {
            self.make_room();
            self.files.insert(container.to_owned(), open_log(&self.root, container)?);
        }
        let (bounds, clock) = (self.bounds, self.clock);
        let open = self.files.get_mut(container).expect("inserted above");
        open.used = clock;
        if open.size > 0 && open.size + records.len() as u64 > bounds.file_bytes {
            rotate(open, bounds)?;
        }
        if open.torn {
            open.file.write_all(b"\n")?;
            open.torn = false;
        }
        let before = open.size;
        let result = write_counting(open, records);
        open.torn = result.is_err() && open.size > before;
        result
    }

    fn make_room(&mut self) {
        if self.files.len() >= OPEN_FILES
            && let Some(oldest) = self.files.iter().min_by_key(|(_, open)| open.used).map(|(name, _)| name.clone())
        {
            self.files.remove(&oldest);
        }
    }
}

fn write_counting(open: &mut Open, mut records: &[u8]) -> io::Result<()> {
    while !records.is_empty() {
        match open.file.write(records) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => {
                open.size += length as u64;
                records = &records[length..];
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn open_log(root: &OwnedFd, container: &str) -> io::Result<Open> {
    match mkdirat(root, container, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    let dir = openat(root, container, DIR, Mode::empty())?;
    let (file, size) = open_current(&dir)?;
    Ok(Open { file, dir, size, torn: false, used: 0 })
}

fn open_current(dir: &OwnedFd) -> io::Result<(File, u64)> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(openat(dir, CURRENT, flags, Mode::RUSR | Mode::WUSR)?);
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn rotate(open: &mut Open, bounds: Bounds) -> io::Result<()> {
    let name = |number: u32| if number == 0 { CURRENT.to_owned() } else { format!("{CURRENT}.{number}") };
    let oldest = bounds.files.max(1) - 1;
    if oldest == 0 {
        unlinkat(&open.dir, CURRENT, AtFlags::empty())?;
    }
    for number in (0..oldest).rev() {
        match renameat(&open.dir, name(number), &open.dir, name(number + 1)) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    (open.file, open.size) = open_current(&open.dir)?;
    open.torn = false;
    Ok(())
}

/// Removes a log's files. What cannot be removed stays; the next removal tries again.
fn remove(root: &OwnedFd, container: &str) {
    let Ok(dir) = openat(root, container, DIR, Mode::empty()) else { return };
    if let Ok(entries) = rustix::fs::Dir::read_from(&dir) {
        for entry in entries.flatten() {
            let _ = unlinkat(&dir, entry.file_name(), AtFlags::empty());
        }
    }
    let _ = unlinkat(root, container, AtFlags::REMOVEDIR);
}

/// Makes a directory that only its owner may enter, with its parents.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}
