//! The keeper itself: one thread that holds all records, and the helpers around it.
//!
//! Start at [`Server`]; [`session`] turns frames into calls, [`containers`] and [`ending`] are the life of a worker.
//! Everything here runs on one single-threaded runtime, so records need no locks and no borrow is held across an await.
//! Nothing polls: child signals, pidfds, pipes, sockets and timers drive it, and an idle keeper uses no CPU.
//! The same code serves as a process of its own and inside a program ([`Mode`]).

mod adopt;
mod cgroup;
mod command;
mod containers;
mod ending;
mod events;
mod exec;
mod guard;
mod handover;
mod lease;
mod logs;
mod ports;
mod reaper;
mod session;
mod spawner;
mod usage;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::UnixListener,
    sync::{Notify, mpsc},
    task::spawn_local,
};

use crate::{
    forward::Forwarder,
    logs::{Bounds, Logs, Sink},
    options::KeeperOptions,
    procfs,
    protocol::{Event, Refusal, StopPolicy},
};
use command::Command;
use containers::Container;
use events::EventLog;
use exec::ExecSlots;
use ports::PortTable;
use reaper::Children;
use session::Session;
use spawner::Spawner;

/// Connections at a time; each log and exec stream is one.
const SESSIONS: usize = 512;

/// How the keeper lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A process of its own, subreaper of its workers.
    Detached,
    /// A thread of a host. Workers end with the thread; no signal handler, no foreign child is reaped.
    InProcess,
}

/// Everything that a keeper holds.
pub(crate) struct Server {
    options: KeeperOptions,
    mode: Mode,
    boot_id: String,
    started_at_ms: i64,
    command: RefCell<Command>,
    containers: RefCell<BTreeMap<String, Rc<Container>>>,
    ports: RefCell<PortTable>,
    children: Children,
    spawner: Spawner,
    logs: Logs,
    events: EventLog,
    forwarder: Forwarder,
    exec_slots: ExecSlots,
    lease: RefCell<Option<lease::Held>>,
    scans: ending::Scans,
    sessions: RefCell<BTreeMap<u64, Rc<Session>>>,
    next_session: Cell<u64>,
    /// Told whenever something happened that may end or begin idleness.
    activity: Notify,
    /// Told once, when it is time to end.
    end: Notify,
    ending: Cell<bool>,
}

impl Server {
    /// Takes the listening socket over and makes what a keeper needs.
    pub(crate) fn new(options: KeeperOptions, mode: Mode) -> io::Result<Rc<Self>> {
        let (dropping, dropped) = mpsc::unbounded_channel::<Arc<Sink>>();
        let bounds = Bounds { file_bytes: options.log_bytes, files: options.log_files };
        let (forwarder, forwarded) = Forwarder::new();
        let server = Rc::new(Self {
            logs: Logs::start(&options.logs, bounds, dropping)?,
            exec_slots: ExecSlots::new(options.exec_sessions),
            options,
            mode,
            boot_id: procfs::boot_id(),
            started_at_ms: now_ms(),
            command: RefCell::default(),
            containers: RefCell::default(),
            ports: RefCell::default(),
            children: Children::default(),
            spawner: Spawner::new(mode),
            events: EventLog::default(),
            forwarder,
            lease: RefCell::default(),
            scans: ending::Scans::default(),
            sessions: RefCell::default(),
            next_session: Cell::new(1),
            activity: Notify::new(),
            end: Notify::new(),
            ending: Cell::new(false),
        });
        spawn_local(tell_drops(Rc::clone(&server), dropped));
        spawn_local(tell_forwards(Rc::clone(&server), forwarded));
        if mode == Mode::Detached {
            reaper::start(&server)?;
        }
        Ok(server)
    }

    /// Serves until it is time to end. Workers are left as they are.
    pub(crate) async fn run(self: Rc<Self>, listener: UnixListener) {
        let accepting = spawn_local(accept(Rc::clone(&self), listener));
        let idle = spawn_local(watch_idleness(Rc::clone(&self)));
        self.end.notified().await;
        accepting.abort();
        idle.abort();
    }

    /// Stops every worker and waits until nothing is left, as far as that can be had.
    pub(crate) async fn kill_all(self: &Rc<Self>, policy: StopPolicy) {
        self.ending.set(true);
        // What cannot be killed goes with the process.
        let _ = ending::end_all(self, policy, &BTreeSet::new()).await;
    }

    /// Ends the keeper soon.
    pub(crate) fn finish(&self) {
        self.ending.set(true);
        self.end.notify_one();
    }

    fn store(&self) -> String {
        self.command.borrow().owner().unwrap_or_default().to_owned()
    }

    fn container(&self, id: &str) -> Result<Rc<Container>, Refusal> {
        let found = self.containers.borrow().get(id).cloned();
        found.ok_or_else(|| Refusal::NoSuchContainer { container: id.to_owned() })
    }

    fn all_containers(&self) -> Vec<Rc<Container>> {
        self.containers.borrow().values().cloned().collect()
    }

    fn push_event(&self, event: Event) {
        self.events.push(event);
        for session in self.sessions.borrow().values() {
            session.wake();
        }
        self.activity.notify_one();
    }

    fn is_idle(&self) -> bool {
        let alone = self.sessions.borrow().is_empty() && self.containers.borrow().is_empty();
        alone && !self.forwarder.has_services() && !lease::is_guarded(self)
    }
}

async fn accept(server: Rc<Server>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if server.sessions.borrow().len() < SESSIONS => {
                spawn_local(session::serve(Rc::clone(&server), stream));
            }
            Ok(_) => {}
            // Out of descriptors, or a client that went away: neither may end the keeper.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn watch_idleness(server: Rc<Server>) {
    loop {
        server.activity.notified().await;
        while server.is_idle() {
            let quiet = tokio::time::timeout(server.options.idle_exit, server.activity.notified()).await.is_err();
            if quiet && server.is_idle() && server.mode == Mode::Detached {
                server.finish();
                return;
            }
        }
    }
}

async fn tell_drops(server: Rc<Server>, mut dropped: mpsc::UnboundedReceiver<Arc<Sink>>) {
    while let Some(sink) = dropped.recv().await {
        server.push_event(Event::LogDropped { container: sink.container.clone(), bytes: sink.dropped() });
    }
}

async fn tell_forwards(server: Rc<Server>, mut events: mpsc::UnboundedReceiver<Event>) {
    while let Some(event) = events.recv().await {
        server.push_event(event);
    }
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn io_refusal(what: &str) -> impl FnOnce(io::Error) -> Refusal {
    move |e| Refusal::Io { what: what.to_owned(), errno: e.raw_os_error().unwrap_or(0) }
}
