//! The workers' output: two pipes in, one file of timed records out.
//!
//! Start at [`Logs`]. A *pump* thread empties all pipes into a bounded queue, a *writer* thread puts the queue on disk.
//! A worker is never blocked for longer than [`pump::PATIENCE`]: when the writer does not keep up, output is dropped and
//! counted. Memory is bounded: one read buffer, at most one unfinished line a pipe, and the queue. Both threads sleep
//! while nothing is written. Readers ([`reader`]) read the files, so a slow reader costs the writer nothing.

mod pump;
pub(crate) mod reader;
mod record;
mod writer;

use std::{
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

pub(crate) use record::timestamp;
use tokio::sync::{Notify, mpsc::UnboundedSender, oneshot};
pub(crate) use writer::private_dir;

/// One container's log, shared by pump, writer and readers.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) container: String,
    written: AtomicU64,
    dropped: AtomicU64,
    queued: AtomicUsize,
    /// Whether nothing more will be written, because the container was removed.
    ended: AtomicBool,
    /// Told after each write, and at the end.
    pub(crate) changed: Notify,
}

impl Sink {
    /// Tells readers that follow that nothing more will come.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Whether nothing more will be written.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Bytes written to disk.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Bytes that the worker wrote and that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Bounds of the files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) file_bytes: u64,
    pub(crate) files: u32,
}

/// Handle of the two threads. They end when it is dropped.
#[derive(Debug)]
pub(crate) struct Logs {
    pump: Arc<pump::Shared>,
    queue: Arc<writer::Queue>,
}

impl Logs {
    /// Starts the threads. `dropping` gets a sink when output of it was dropped, at most once a second for each.
    pub(crate) fn start(dir: &Path, bounds: Bounds, dropping: UnboundedSender<Arc<Sink>>) -> io::Result<Self> {
        let pump = Arc::new(pump::Shared::new()?);
        let queue = Arc::new(writer::Queue::default());
        writer::Writer::new(dir, bounds)?.run(Arc::clone(&queue), Arc::clone(&pump))?;
        pump::run(Arc::clone(&pump), Arc::clone(&queue), dropping)?;
        Ok(Self { pump, queue })
    }

    /// A log for a container. Touches no file until something is written.
    pub(crate) fn sink(container: &str) -> Arc<Sink> {
        Arc::new(Sink {
            container: container.to_owned(),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            queued: AtomicUsize::new(0),
            changed: Notify::new(),
        })
    }

    /// Begins to empty a worker's pipes, whose reading ends must be non-blocking; the flags say which is
    /// stderr.
    pub(crate) fn attach(&self, sink: &Arc<Sink>, pipes: Vec<(OwnedFd, bool)>) {
        self.pump.send(pump::Order::Attach { sink: Arc::clone(sink), pipes });
    }

    /// Empties a worker's pipes a last time and closes them. Answers when that is on disk.
    pub(crate) fn drain(&self, sink: &Arc<Sink>) -> oneshot::Receiver<()> {
        let (done, answer) = oneshot::channel();
        self.pump.send(pump::Order::Drain { sink: Arc::clone(sink), done });
        answer
    }

    /// Closes a log's file and, unless `keep`, removes its files.
    pub(crate) fn remove(&self, container: &str, keep: bool) -> oneshot::Receiver<()> {
        let (done, answer) = oneshot::channel();
        self.queue.push(writer::Work::Close { container: container.to_owned(), keep, done });
        answer
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.pump.send(pump::Order::End);
        self.queue.push(writer::Work::End);
    }
}
