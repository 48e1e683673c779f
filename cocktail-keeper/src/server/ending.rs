//! The end of a worker: its main process, then everything that it left behind.
//!
//! Start at [`end`] for ends that were asked for and at [`main_ended`] for those that happen. A worker has ended when
//! nothing of it is left: processes of its session, those that its orphans descend from, those that carry its marks, those
//! that write to its pipes, those of its cgroup. Only then its exit is told. A process is signalled through a pidfd
//! after its start time was compared, so never somebody else who got its pid.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use tokio::{
    io::Interest,
    sync::Notify,
    task::{spawn_blocking, spawn_local},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Mode, Server,
    containers::{Container, Phase, main_pid, signo},
    now_ms,
};
use crate::{
    procfs::{self, Marks, Stat},
    protocol::{Event, Exit, ExitStatus, Refusal, Reply, Shutdown, Started, Stop, StopPolicy},
    sys,
};

/// How long killed processes may take to go before callers are told; the keeper goes on trying.
const UNKILLABLE: Duration = Duration::from_secs(15);
/// How long the last output may take to reach the disk.
const LAST_OUTPUT: Duration = Duration::from_millis(500);
/// Leftovers waited for at a time.
const WATCHED: usize = 64;

pub(super) async fn stop(server: Rc<Server>, request: Stop) -> Result<Reply, Refusal> {
    let container = server.container(&request.container)?;
    container.check_generation(request.generation)?;
    signo(request.policy.signal)?;
    if matches!(container.phase(), Phase::Prepared) {
        return Err(Refusal::NotRunning { container: request.container });
    }
    let exit = end(&server, &container, request.policy).await?;
    Ok(Reply::Exit(exit.unwrap_or(Exit { status: ExitStatus::Unknown, at_ms: now_ms() })))
}

/// Ends a container and waits until nothing is left. `None` for one that never started.
pub(super) async fn end(
    server: &Rc<Server>,
    container: &Rc<Container>,
    policy: StopPolicy,
) -> Result<Option<Exit>, Refusal> {
    let generation = container.generation();
    let signal = signo(policy.signal)?;
    let deadline = Instant::now() + Duration::from_millis(policy.grace_ms);
    let mut called = false;
    let mut killed = false;
    loop {
        let changed = container.changed.notified();
        if container.generation() != generation {
            return Ok(None);
        }
        let phase = container.phase();
        match &phase {
            Phase::Prepared => return Ok(None),
            Phase::Exited(exit) => return Ok(Some(*exit)),
            Phase::Starting => {
                changed.await;
                continue;
            }
            Phase::Running(started) => {
                if !called {
                    call(container, policy.signal, deadline);
                    signal_group(container, started, signal);
                    called = true;
                }
            }
            Phase::Ending(..) => {
                if !called {
                    call(container, policy.signal, deadline);
                    called = true;
                }
            }
        }
        if !killed && timeout_at(deadline, changed).await {
            killed = true;
            if let Phase::Running(started) = container.phase() {
                kill_all(server, container, &started).await;
            }
        } else if killed && timeout_at(deadline + UNKILLABLE, container.changed.notified()).await {
            let pids = leftovers(server, container).await.into_iter().map(|stat| stat.pid).collect();
            return Err(Refusal::Unkillable { container: container.id.clone(), pids });
        }
    }
}

/// True when the time came first.
async fn timeout_at(deadline: Instant, changed: impl Future<Output = ()>) -> bool {
    tokio::time::timeout_at(deadline, changed).await.is_err()
}

/// Says what leftovers get and until when they have; a later call can only shorten it.
fn call(container: &Container, signal: i32, deadline: Instant) {
    let mut record = container.record.borrow_mut();
    let deadline = record.last_call.map_or(deadline, |(_, earlier)| earlier.min(deadline));
    record.last_call = Some((signal, deadline));
    container.hurry.notify_waiters();
}

fn signal_group(container: &Container, started: &Started, signal: Signal) {
    if let Some(pid) = main_pid(container, started) {
        // Gone meanwhile is what is wanted.
        let _ = kill_process_group(pid, signal);
    }
}

async fn kill_all(server: &Rc<Server>, container: &Rc<Container>, started: &Started) {
    if let Some(cgroup) = &container.record.borrow().cgroup {
        cgroup.kill();
    }
    // Descendants first: the main process could otherwise replace them, and its end makes them harder to find.
    let rest = leftovers(server, container).await;
    signal_group(container, started, Signal::KILL);
    if let Some(pid) = main_pid(container, started) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    for stat in &rest {
        send(stat, Signal::KILL);
    }
}

/// Sends a signal to exactly this process; hands its pidfd back while it is still there.
fn send(stat: &Stat, signal: Signal) -> Option<std::os::fd::OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(stat.pid.cast_signed())?, PidfdFlags::NONBLOCK).ok()?;
    // The pidfd pins the process, so what is compared now is what gets the signal.
    let now = procfs::stat(stat.pid).ok().flatten()?;
    if now.start_time != stat.start_time || !now.lives() {
        return None;
    }
    pidfd_send_signal(&pidfd, signal).ok()?;
    Some(pidfd)
}

/// The main process is gone: ends what it left behind, then tells its exit.
pub(super) fn main_ended(server: &Rc<Server>, container: &Rc<Container>, pid: u32, status: ExitStatus) {
    let started = match container.phase() {
        Phase::Running(started) if started.pid == pid => started,
        _ => return,
    };
    let exit = Exit { status, at_ms: now_ms() };
    container.set_phase(Phase::Ending(started));
    spawn_local(finish(Rc::clone(server), Rc::clone(container), exit));
}

async fn finish(server: Rc<Server>, container: Rc<Container>, exit: Exit) {
    sweep(&server, &container).await;
    // A disk that hangs must not keep the exit secret.
    let _ = timeout(LAST_OUTPUT, server.logs.drain(&container.sink)).await;
    let generation = {
        let mut record = container.record.borrow_mut();
        record.cgroup = None;
        record.last_call = None;
        record.generation
    };
    container.set_phase(Phase::Exited(exit));
    server.push_event(Event::Exited { container: container.id.clone(), generation, exit });
}

/// Ends what is left of a container whose main process is gone: its signal, then `KILL` until nothing is left.
async fn sweep(server: &Rc<Server>, container: &Rc<Container>) {
    let mut told = BTreeSet::new();
    loop {
        let hurry = container.hurry.notified();
        let left = leftovers(server, container).await;
        if left.is_empty() {
            return;
        }
        let policy = container.record.borrow().leftovers;
        let (signal, deadline) = *container
            .record
            .borrow_mut()
            .last_call
            .get_or_insert_with(|| (policy.signal, Instant::now() + Duration::from_millis(policy.grace_ms)));
        let kill = Instant::now() >= deadline;
        if kill && let Some(cgroup) = &container.record.borrow().cgroup {
            cgroup.kill();
        }
        let mut pidfds = Vec::new();
        for stat in &left {
            let first = told.insert((stat.pid, stat.start_time));
            let signal = if kill { Some(Signal::KILL) } else { Signal::from_named_raw(signal).filter(|_| first) };
            let pidfd = match signal {
                Some(signal) => send(stat, signal),
                None => {
                    Pid::from_raw(stat.pid.cast_signed()).and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok())
                }
            };
            if pidfds.len() < WATCHED {
                pidfds.extend(pidfd);
            }
        }
        let gone = async {
            for pidfd in pidfds {
                if let Ok(pidfd) = sys::watch(pidfd, Interest::READABLE) {
                    let _ = pidfd.readable().await;
                }
            }
        };
        // Killed processes are looked at again soon: a fork may have slipped through.
        let until = if kill { Instant::now() + Duration::from_millis(500) } else { deadline };
        tokio::select! {
            () = gone => {}
            () = sleep_until(until) => {}
            () = hurry => {}
        }
    }
}

/// Every process that belongs to a container, but for its main process while that lives.
async fn leftovers(server: &Rc<Server>, container: &Rc<Container>) -> Vec<Stat> {
    let (main, adopted) = {
        let record = container.record.borrow();
        let main = match &record.phase {
            Phase::Running(started) | Phase::Ending(started) => Some(started.pid),
            _ => None,
        };
        (main, record.adopted)
    };
    let main_lives = matches!(container.phase(), Phase::Running(_));
    let Some(main) = main else { return Vec::new() };
    // Orphans of our own children are our children: when none of them is of this container, nothing is left of it.
    if server.mode == Mode::Detached
        && !adopted
        && !main_lives
        && container.record.borrow().cgroup.is_none()
        && let Some(children) = procfs::own_children()
    {
        let others = children.into_iter().filter(|pid| !server.children.is_main(*pid));
        let stats = others.filter_map(|pid| procfs::stat(pid).ok().flatten()).filter(Stat::lives);
        let store = server.store();
        let ours = stats.into_iter().any(|stat| {
            let marks = procfs::marks(stat.pid).ok().flatten();
            belongs(server, container, &store, main, &stat, marks.as_ref())
        });
        if !ours {
            return Vec::new();
        }
    }
    let scan = server.scans.fresh().await;
    let store = server.store();
    let in_cgroup = container.record.borrow().cgroup.as_ref().map(|cgroup| cgroup.pids()).unwrap_or_default();
    let mut members: BTreeMap<u32, Stat> = BTreeMap::new();
    for (stat, marks) in scan.iter() {
        if in_cgroup.contains(&stat.pid) || belongs(server, container, &store, main, stat, marks.as_ref()) {
            members.insert(stat.pid, *stat);
        }
    }
    // And everything that descends from them, or from a main process that still lives.
    loop {
        let before = members.len();
        for (stat, _) in scan.iter() {
            if members.contains_key(&stat.ppid) || (main_lives && stat.ppid == main) {
                members.insert(stat.pid, *stat);
            }
        }
        if members.len() == before {
            break;
        }
    }
    let own = std::process::id();
    members.retain(|pid, stat| *pid != own && *pid != 1 && *pid != main && stat.lives());
    // A worker of ours that another worker started by our own name would be both; its own record decides.
    members.retain(|pid, _| !server.children.is_main(*pid));
    members.into_values().collect()
}

/// Whether a process shows that it belongs to a container.
fn belongs(server: &Server, container: &Container, store: &str, main: u32, stat: &Stat, marks: Option<&Marks>) -> bool {
    if let Some(marks) = marks {
        return marks.store == store && marks.container == container.id;
    }
    // Without marks (it changed its environment, or it may not be read) only an orphan of ours is believed: its
    // session is that of the main process, or it writes to the container's pipes.
    let orphan = server.mode == Mode::Detached && stat.ppid == std::process::id();
    orphan
        && (stat.session == main
            || server.children.is_exec_of(stat.pid, &container.id)
            || procfs::writes_to(stat.pid, &container.record.borrow().pipes))
}

type Scan = Arc<Vec<(Stat, Option<Marks>)>>;

/// Passes over the process table, shared by all who ask while one is under way.
#[derive(Default)]
pub(super) struct Scans {
    running: Cell<bool>,
    begun: Cell<u64>,
    done: RefCell<Option<(u64, Scan)>>,
    finished: Notify,
}

impl Scans {
    /// A pass that began after this call.
    pub(super) async fn fresh(&self) -> Scan {
        let wanted = self.begun.get() + 1;
        loop {
            if let Some((number, scan)) = &*self.done.borrow()
                && *number >= wanted
            {
                return Arc::clone(scan);
            }
            if self.running.get() {
                self.finished.notified().await;
                continue;
            }
            self.running.set(true);
            let number = self.begun.get() + 1;
            self.begun.set(number);
            let guard = Running(self);
            let scan = spawn_blocking(scan_marks).await.unwrap_or_default();
            *self.done.borrow_mut() = Some((number, Arc::new(scan)));
            drop(guard);
        }
    }

    /// Forgets the last pass.
    fn clear(&self) {
        if !self.running.get() {
            self.done.borrow_mut().take();
        }
    }
}

/// Lets the next one scan also when this one was cancelled.
struct Running<'a>(&'a Scans);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.set(false);
        self.0.finished.notify_waiters();
    }
}

fn scan_marks() -> Vec<(Stat, Option<Marks>)> {
    let stats = procfs::scan().unwrap_or_default();
    stats.into_iter().map(|stat| (stat, procfs::marks(stat.pid).ok().flatten())).collect()
}

/// Stops every container but those to `keep`, and waits until nothing of them is left.
pub(super) async fn end_all(server: &Rc<Server>, policy: StopPolicy, keep: &BTreeSet<String>) -> Result<(), Refusal> {
    let ends: Vec<_> = server
        .all_containers()
        .into_iter()
        .filter(|container| !keep.contains(&container.id))
        .map(|container| {
            let server = Rc::clone(server);
            spawn_local(async move { end(&server, &container, policy).await.map(|_| ()) })
        })
        .collect();
    let mut result = Ok(());
    for end in ends {
        result = result.and(end.await.unwrap_or(Err(Refusal::Ending)));
    }
    if keep.is_empty() {
        server.scans.clear();
    }
    result
}

pub(super) async fn shutdown(server: &Rc<Server>, request: Shutdown) -> Result<Reply, Refusal> {
    if request.kill {
        end_all(server, request.policy, &BTreeSet::new()).await?;
        // The lock goes last, with the process; the directory itself belongs to whoever made it.
        let _ = std::fs::remove_file(server.options.socket());
    }
    Ok(Reply::Done)
}
