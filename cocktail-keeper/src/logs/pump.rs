//! The thread that empties pipes.
//!
//! It waits on all of them at once and never on the disk. When a log's share of the queue is full its pipes are left
//! alone for [`PATIENCE`], so that a burst from a worker survives a slow moment of the disk; after that their output is
//! read and dropped until there is room.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{EventfdFlags, Timespec, epoll, eventfd},
    io::Errno,
};
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use super::{
    Sink,
    record::{Splitter, timestamp},
    writer::{Queue, Work},
};

/// How long a worker may wait for the disk before its output is dropped.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);
/// How often the drop of a log's output is told.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// One pipe holds no more than this at a time, so one read empties it.
const CHUNK: usize = 64 * 1024;
/// A last drain reads at most this much from each pipe, in case a process that got away goes on writing.
const LAST: usize = 1024 * 1024;
const WAKE: u64 = u64::MAX;

/// What the pump is told to do.
#[derive(Debug)]
pub(super) enum Order {
    Attach { sink: Arc<Sink>, pipes: Vec<(OwnedFd, bool)> },
    Drain { sink: Arc<Sink>, done: oneshot::Sender<()> },
    End,
}

/// What others reach of the pump.
#[derive(Debug)]
pub(super) struct Shared {
    orders: Mutex<Vec<Order>>,
    wake: OwnedFd,
    /// Some pipe waits for room in the queue.
    waiting: AtomicBool,
}

impl Shared {
    pub(super) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { orders: Mutex::default(), wake, waiting: AtomicBool::new(false) })
    }

    pub(super) fn send(&self, order: Order) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        self.ring();
    }

    /// Called by the writer when the queue got shorter.
    pub(super) fn room(&self) {
        if self.waiting.load(Ordering::Acquire) {
            self.ring();
        }
    }

    fn ring(&self) {
        // A full counter means that a wake-up is pending already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

struct Pipe {
    fd: OwnedFd,
    sink: Arc<Sink>,
    splitter: Splitter,
    /// Registered with epoll.
    watched: bool,
    waiting_since: Option<Instant>,
    told: Option<Instant>,
    dropping: bool,
}

struct Pump {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    dropping: UnboundedSender<Arc<Sink>>,
    epoll: OwnedFd,
    pipes: Vec<Option<Pipe>>,
    buf: Vec<u8>,
}

pub(super) fn run(shared: Arc<Shared>, queue: Arc<Queue>, dropping: UnboundedSender<Arc<Sink>>) -> io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &shared.wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
    let mut pump = Pump { shared, queue, dropping, epoll, pipes: Vec::new(), buf: Vec::with_capacity(CHUNK) };
    thread::Builder::new().name("log-pump".to_owned()).stack_size(256 * 1024).spawn(move || pump.pump())?;
    Ok(())
}

impl Pump {
    fn pump(&mut self) {
        let mut events = Vec::with_capacity(64);
        loop {
            let patience = self.shared.waiting.load(Ordering::Acquire).then(|| {
                let left = self.soonest().saturating_duration_since(Instant::now());
                Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()).max(1_000_000) }
            });
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), patience.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                // The epoll descriptor is ours and valid for as long as this thread runs.
                Err(_) => return,
            }
            for event in &events {
                match event.data.u64() {
                    WAKE => {
                        let _ = rustix::io::read(&self.shared.wake, &mut [0_u8; 8]);
                        if !self.obey() {
                            return;
                        }
                    }
                    key => self.empty(usize::try_from(key).unwrap_or(usize::MAX)),
                }
            }
            if self.shared.waiting.load(Ordering::Acquire) {
                self.look_again();
            }
        }
    }

    fn soonest(&self) -> Instant {
        let since = self.pipes.iter().flatten().filter_map(|pipe| pipe.waiting_since).min();
        since.unwrap_or_else(Instant::now) + PATIENCE
    }

    /// Carries out orders; false when it is time to end.
    fn obey(&mut self) -> bool {
        let orders = std::mem::take(&mut *self.shared.orders.lock().unwrap_or_else(PoisonError::into_inner));
        for order in orders {
            match order {
                Order::Attach { sink, pipes } => {
                    for (pipe, stderr) in pipes {
                        self.attach(Arc::clone(&sink), pipe, stderr);
                    }
                }
                Order::Drain { sink, done } => {
                    self.drain(&sink);
                    self.queue.push(Work::Flush { done });
                }
                Order::End => return false,
            }
        }
        true
    }

    fn attach(&mut self, sink: Arc<Sink>, fd: OwnedFd, stderr: bool) {
        let pipe = Pipe {
            fd,
            sink,
            splitter: Splitter::new(stderr),
            watched: false,
            waiting_since: None,
            told: None,
            dropping: false,
        };
        let key = self.pipes.iter().position(Option::is_none).unwrap_or(self.pipes.len());
        if key == self.pipes.len() {
            self.pipes.push(None);
        }
        self.pipes[key] = Some(pipe);
        self.watch(key);
    }

    fn watch(&mut self, key: usize) {
        if let Some(pipe) = self.pipes[key].as_mut().filter(|pipe| !pipe.watched) {
            let data = epoll::EventData::new_u64(key as u64);
            pipe.watched = epoll::add(&self.epoll, &pipe.fd, data, epoll::EventFlags::IN).is_ok();
        }
    }

    fn unwatch(&mut self, key: usize) {
        if let Some(pipe) = self.pipes[key].as_mut().filter(|pipe| pipe.watched) {
            pipe.watched = false;
            // It was added, so it can be deleted.
            let _ = epoll::delete(&self.epoll, &pipe.fd);
        }
    }

    /// Reads one pipe once.
    fn empty(&mut self, key: usize) {
        let Some(pipe) = self.pipes.get_mut(key).and_then(Option::as_mut) else { return };
        let room = self.queue.has_room(&pipe.sink);
        if room {
            pipe.dropping = false;
        } else if !pipe.dropping {
            pipe.waiting_since.get_or_insert_with(Instant::now);
            self.shared.waiting.store(true, Ordering::Release);
            self.unwatch(key);
            return;
        }
        self.buf.clear();
        match rustix::io::read(&pipe.fd, spare_capacity(&mut self.buf)) {
            // Every process closed it; the descriptor stays until the drain, but there is nothing to wait for.
            Ok(0) => self.unwatch(key),
            Ok(_) if room => {
                let at = timestamp(jiff::Timestamp::now());
                let mut out = Vec::with_capacity(self.buf.len() + 64);
                pipe.splitter.push(&self.buf, &at, &mut out);
                self.queue.write(&pipe.sink, out);
            }
            Ok(length) => {
                pipe.sink.dropped.fetch_add(length as u64, Ordering::Relaxed);
                if pipe.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                    pipe.told = Some(Instant::now());
                    // The keeper is ending when nobody listens.
                    let _ = self.dropping.send(Arc::clone(&pipe.sink));
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.unwatch(key),
        }
    }

    /// Watches waiting pipes again that have room now, or that waited long enough.
    fn look_again(&mut self) {
        let mut waiting = false;
        for key in 0..self.pipes.len() {
            let Some(pipe) = self.pipes[key].as_mut() else { continue };
            let Some(since) = pipe.waiting_since else { continue };
            let room = self.queue.has_room(&pipe.sink);
            if room || since.elapsed() >= PATIENCE {
                pipe.waiting_since = None;
                pipe.dropping = !room;
                self.watch(key);
            } else {
                waiting = true;
            }
        }
        self.shared.waiting.store(waiting, Ordering::Release);
        // Room made between the look and the store would go unnoticed for PATIENCE at most.
    }

    fn drain(&mut self, sink: &Arc<Sink>) {
        for key in 0..self.pipes.len() {
            if !self.pipes[key].as_ref().is_some_and(|pipe| Arc::ptr_eq(&pipe.sink, sink)) {
                continue;
            }
            self.unwatch(key);
            let Some(mut pipe) = self.pipes[key].take() else { continue };
            let at = timestamp(jiff::Timestamp::now());
            let mut out = Vec::new();
            let mut total = 0;
            while total < LAST {
                self.buf.clear();
                match rustix::io::read(&pipe.fd, spare_capacity(&mut self.buf)) {
                    Err(Errno::INTR) => {}
                    Ok(0) | Err(_) => break,
                    Ok(length) => {
                        total += length;
                        pipe.splitter.push(&self.buf, &at, &mut out);
                    }
                }
            }
            pipe.splitter.end(&at, &mut out);
            self.queue.write(&pipe.sink, out);
        }
    }
}
