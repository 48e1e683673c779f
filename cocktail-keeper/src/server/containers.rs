//! A worker's record, from `prepare` to `remove`.
//!
//! Start at [`Phase`]. A record only moves forward within one generation; [`prepare`] with a higher generation begins
//! anew in the same record. Who waits for a change of phase waits on [`Container::changed`].

use std::{
    ffi::CString,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal as Signo, kill_process};
use tokio::{sync::Notify, time::Instant};

use super::{
    Server,
    cgroup::Cgroup,
    ending, io_refusal,
    ports::{self, Proof},
    reaper,
    spawner::{Job, candidates, no_stdio},
};
use crate::{
    logs::{Logs, Sink},
    procfs,
    protocol::{
        ContainerInfo, ContainerState, ENV_CONTAINER, ENV_GENERATION, ENV_MARKER, Exit, Listing, PortSpec, Prepare,
        Refusal, Remove, Reply, RlimitKind, Signal, Start, StartError, StartOutcome, Started, StopPolicy,
    },
    sys::spawn::{Command, MAX_DESCRIPTORS},
};

/// Containers that one keeper holds.
const MOST: usize = 20_000;

/// One container that the keeper knows.
pub(super) struct Container {
    pub(super) id: String,
    pub(super) record: std::cell::RefCell<Record>,
    /// Told after each change of phase.
    pub(super) changed: Notify,
    /// Told when the end shall come sooner.
    pub(super) hurry: Notify,
    pub(super) sink: Arc<Sink>,
}

/// What is known of it.
pub(super) struct Record {
    pub(super) generation: u64,
    pub(super) phase: Phase,
    pub(super) ports: Vec<PortSpec>,
    /// Until the worker starts.
    proof: Proof,
    pub(super) spec: Rc<Spec>,
    pub(super) leftovers: StopPolicy,
    /// Signal for what is left, and when `KILL` follows.
    pub(super) last_call: Option<(i32, Instant)>,
    /// Started by an earlier keeper: not our child, and neither are its orphans.
    pub(super) adopted: bool,
    pub(super) cgroup: Option<Cgroup>,
    /// Device and inode of its pipes: who writes to them belongs to it.
    pub(super) pipes: Vec<(u64, u64)>,
}

/// Where a worker is in its life.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    Prepared,
    Starting,
    Running(Started),
    /// The main process ended; what it left behind is being ended.
    Ending(Started),
    Exited(Exit),
}

/// What `exec` needs to know.
#[derive(Default)]
pub(super) struct Spec {
    /// `NAME=value`, each ended by a zero byte: one allocation for each worker.
    pub(super) env: Box<[u8]>,
    pub(super) cwd: PathBuf,
    pub(super) user: Option<String>,
}

impl Spec {
    pub(super) fn new<'a>(
        env: impl IntoIterator<Item = (&'a str, &'a str)>,
        cwd: PathBuf,
        user: Option<String>,
    ) -> Self {
        let mut bytes = Vec::new();
        for (name, value) in env {
            for part in [name.as_bytes(), b"=", value.as_bytes(), b"\0"] {
                bytes.extend_from_slice(part);
            }
        }
        Self { env: bytes.into(), cwd, user }
    }

    /// What can be seen of a running process.
    pub(super) fn of_process(pid: u32) -> Self {
        let env = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_else(|_| "/".into());
        Self { env: env.into(), cwd, user: None }
    }

    /// The entries, without their zero bytes.
    pub(super) fn entries(&self) -> impl Iterator<Item = &[u8]> {
        self.env.split(|byte| *byte == 0).filter(|entry| !entry.is_empty())
    }
}

impl Container {
    pub(super) fn new(id: &str, generation: u64) -> Rc<Self> {
        let record = Record {
            generation,
            phase: Phase::Prepared,
            ports: Vec::new(),
            proof: Proof::new(),
            spec: Rc::default(),
            leftovers: StopPolicy::default(),
            last_call: None,
            adopted: false,
            cgroup: None,
            pipes: Vec::new(),
        };
        Rc::new(Self {
            id: id.to_owned(),
            record: record.into(),
            changed: Notify::new(),
            hurry: Notify::new(),
            sink: Logs::sink(id),
        })
    }

    pub(super) fn phase(&self) -> Phase {
        self.record.borrow().phase.clone()
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.record.borrow_mut().phase = phase;
        self.changed.notify_waiters();
    }

    pub(super) fn generation(&self) -> u64 {
        self.record.borrow().generation
    }

    /// The main process, while it is there.
    pub(super) fn running(&self) -> Option<Started> {
        match &self.record.borrow().phase {
            Phase::Running(started) => Some(started.clone()),
            _ => None,
        }
    }

    /// Has its pipes read; the flag says which is stderr.
    pub(super) fn attach(&self, server: &Server, pipes: Vec<(OwnedFd, bool)>) {
        let ids = pipes.iter().filter_map(|(pipe, _)| rustix::fs::fstat(pipe).ok());
        self.record.borrow_mut().pipes = ids.map(|stat| (stat.st_dev, stat.st_ino)).collect();
        server.logs.attach(&self.sink, pipes);
    }

    pub(super) fn check_generation(&self, generation: u64) -> Result<(), Refusal> {
        let current = self.generation();
        if current == generation {
            return Ok(());
        }
        Err(Refusal::Generation { container: self.id.clone(), current })
    }
}

/// Whether a name may become part of a path.
pub(super) fn check_name(id: &str) -> Result<(), Refusal> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = id.as_bytes();
    let good = bytes.first().is_some_and(|byte| inner(*byte))
        && bytes.last().is_some_and(|byte| inner(*byte))
        && bytes.len() <= 63
        && bytes.iter().all(|byte| inner(*byte) || *byte == b'-');
    if good { Ok(()) } else { Err(Refusal::BadRequest { why: "a container id of wrong form".to_owned() }) }
}

pub(super) async fn prepare(server: Rc<Server>, request: Prepare) -> Result<Reply, Refusal> {
    check_name(&request.container)?;
    if request.ports.len() > MAX_DESCRIPTORS - 3 {
        return Err(Refusal::Limit { what: "ports of one container".to_owned() });
    }
    let known = server.containers.borrow().get(&request.container).cloned();
    if let Some(known) = &known {
        let current = known.generation();
        if current == request.generation {
            return Ok(Reply::Done);
        }
        if current > request.generation {
            return Err(Refusal::Generation { container: request.container, current });
        }
        ending::end(&server, known, StopPolicy { signal: 9, grace_ms: 0 }).await?;
    } else if server.containers.borrow().len() >= MOST {
        return Err(Refusal::Limit { what: "containers".to_owned() });
    }
    let proof = ports::prove(&server, &request.container, &request.ports)?;
    let container = known.unwrap_or_else(|| Container::new(&request.container, request.generation));
    {
        let mut record = container.record.borrow_mut();
        record.generation = request.generation;
        record.phase = Phase::Prepared;
        record.ports = request.ports;
        record.proof = proof;
        record.last_call = None;
        record.adopted = false;
    }
    container.changed.notify_waiters();
    server.containers.borrow_mut().insert(request.container, container);
    Ok(Reply::Done)
}

pub(super) async fn start(server: Rc<Server>, request: Box<Start>) -> Result<Reply, Refusal> {
    let known = server.containers.borrow().get(&request.container).cloned();
    let not_prepared = || Refusal::NotPrepared { container: request.container.clone(), generation: request.generation };
    let container = known.ok_or_else(not_prepared)?;
    loop {
        let changed = container.changed.notified();
        let current = container.generation();
        if current < request.generation {
            return Err(not_prepared());
        }
        container.check_generation(request.generation)?;
        match container.phase() {
            Phase::Prepared => break,
            Phase::Running(started) => return Ok(Reply::Start(StartOutcome::Started(started))),
            Phase::Exited(exit) => return Ok(Reply::Start(StartOutcome::Exited(exit))),
            Phase::Starting | Phase::Ending(..) => changed.await,
        }
    }
    // What runs when a lease ends is ended then: what would begin after that must not begin.
    if super::lease::is_over(&server) {
        return Err(Refusal::LeaseOver);
    }
    let (job, spec, cgroup, cgroup_note) = plan(&server, &container, &request)?;
    {
        let mut record = container.record.borrow_mut();
        record.phase = Phase::Starting;
        // Now the ports are the worker's to bind.
        record.proof = Proof::new();
        record.leftovers = request.leftovers;
        record.spec = Rc::new(spec);
        record.cgroup = cgroup;
    }
    let in_flight = server.spawner.begin();
    let spawned = server.spawner.spawn(job).await;
    let spawned = match spawned {
        Ok(spawned) => spawned,
        Err(e) => {
            drop(in_flight);
            let cgroup = container.record.borrow_mut().cgroup.take();
            drop(cgroup);
            container.set_phase(Phase::Prepared);
            reaper::reap(&server);
            return Err(Refusal::Start(e));
        }
    };
    let started =
        Started { pid: spawned.pid, start_time: spawned.start_time, boot_id: server.boot_id.clone(), cgroup_note };
    container.set_phase(Phase::Running(started.clone()));
    if let Some([out, err]) = spawned.pipes {
        container.attach(&server, vec![(out, false), (err, true)]);
    }
    reaper::register_main(&server, spawned.pid, &container);
    drop(in_flight);
    reaper::reap_deferred(&server);
    Ok(Reply::Start(StartOutcome::Started(started)))
}

type Planned = (Job, Spec, Option<Cgroup>, Option<String>);

/// Turns a request into a command.
fn plan(server: &Server, container: &Container, request: &Start) -> Result<Planned, Refusal> {
    let bad = |why: &str| Refusal::BadRequest { why: why.to_owned() };
    let text = |text: &[u8], what: &str| CString::new(text).map_err(|_| bad(&format!("a zero byte in {what}")));
    let program = request.argv.first().filter(|program| !program.is_empty()).ok_or_else(|| bad("an empty command"))?;
    if !request.cwd.is_absolute() {
        return Err(bad("a relative working directory"));
    }
    let mut env = request.env.clone();
    if env.keys().any(|name| name.is_empty() || name.contains('=')) {
        return Err(bad("an environment variable with a wrong name"));
    }
    env.insert(ENV_MARKER.to_owned(), server.store());
    env.insert(ENV_CONTAINER.to_owned(), container.id.clone());
    env.insert(ENV_GENERATION.to_owned(), request.generation.to_string());
    let pairs = || env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let spec = Spec::new(pairs(), request.cwd.clone(), request.user.clone());

    let ports = container.record.borrow().ports.clone();
    let sockets = ports::inherited(server, &container.id, &ports)?;
    let mut entries = pairs()
        .map(|(name, value)| text(format!("{name}={value}").as_bytes(), "the environment"))
        .collect::<Result<Vec<_>, _>>()?;
    if !sockets.is_empty() {
        let names: Vec<&str> = sockets.iter().map(|(name, _)| name.as_str()).collect();
        entries.push(text(format!("LISTEN_FDS={}", sockets.len()).as_bytes(), "a count")?);
        entries.push(text(format!("LISTEN_FDNAMES={}", names.join(":")).as_bytes(), "a port name")?);
    }
    let (cgroup, cgroup_note) = match request.cgroup {
        Some(limits) => {
            // A host is not ours to move.
            let move_self = server.mode == super::Mode::Detached;
            match Cgroup::make(&server.store(), &container.id, limits, move_self) {
                Ok(cgroup) => (Some(cgroup), None),
                Err(why) => (None, Some(why)),
            }
        }
        None => (None, None),
    };
    let keep: Vec<_> = sockets.into_iter().map(|(_, socket)| socket).collect();
    let command = Command {
        programs: candidates(program, env.get("PATH").map(String::as_str)),
        argv: request.argv.iter().map(|arg| text(arg.as_bytes(), "an argument")).collect::<Result<_, _>>()?,
        env: entries,
        cwd: text(request.cwd.as_os_str().as_bytes(), "the working directory")?,
        stdio: no_stdio(),
        listen: keep.iter().map(|socket| std::os::fd::AsRawFd::as_raw_fd(&**socket)).collect(),
        user: None,
        rlimits: limits(request)?,
        cgroup: cgroup.as_ref().map(|cgroup| text(cgroup.procs().as_os_str().as_bytes(), "a path")).transpose()?,
        umask: request.umask.unwrap_or(0o077),
        die_with_parent: false,
        terminal: false,
    };
    let job = Job { command, user: request.user.clone(), pipes: true, keep };
    Ok((job, spec, cgroup, cgroup_note))
}

fn limits(request: &Start) -> Result<Vec<(i32, libc::rlimit64)>, Refusal> {
    let mut limits = inherited_limits();
    for limit in &request.rlimits {
        let resource = match limit.resource {
            RlimitKind::As => libc::RLIMIT_AS,
            RlimitKind::Core => libc::RLIMIT_CORE,
            RlimitKind::Cpu => libc::RLIMIT_CPU,
            RlimitKind::Data => libc::RLIMIT_DATA,
            RlimitKind::Fsize => libc::RLIMIT_FSIZE,
            RlimitKind::Memlock => libc::RLIMIT_MEMLOCK,
            RlimitKind::Nofile => libc::RLIMIT_NOFILE,
            RlimitKind::Nproc => libc::RLIMIT_NPROC,
            RlimitKind::Stack => libc::RLIMIT_STACK,
        };
        let value = |value: Option<u64>| value.unwrap_or(libc::RLIM64_INFINITY);
        let (soft, hard) = (value(limit.soft), value(limit.hard));
        if soft > hard {
            return Err(Refusal::BadRequest { why: "a soft limit above its hard limit".to_owned() });
        }
        limits.push((resource.cast_signed(), libc::rlimit64 { rlim_cur: soft, rlim_max: hard }));
    }
    Ok(limits)
}

/// The limits that workers and commands start with where the keeper raised its own.
pub(super) fn inherited_limits() -> Vec<(i32, libc::rlimit64)> {
    crate::life::original_nofile()
        .map(|(soft, hard)| (libc::RLIMIT_NOFILE.cast_signed(), libc::rlimit64 { rlim_cur: soft, rlim_max: hard }))
        .into_iter()
        .collect()
}

/// A signal by its number, if it is one with a name.
pub(super) fn signo(number: i32) -> Result<Signo, Refusal> {
    Signo::from_named_raw(number).ok_or_else(|| Refusal::BadRequest { why: format!("no signal has number {number}") })
}

pub(super) fn signal(server: &Rc<Server>, request: &Signal) -> Result<Reply, Refusal> {
    let container = server.container(&request.container)?;
    container.check_generation(request.generation)?;
    let signal = signo(request.signal)?;
    let not_running = || Refusal::NotRunning { container: request.container.clone() };
    let started = container.running().ok_or_else(not_running)?;
    let pid = main_pid(&container, &started).ok_or_else(not_running)?;
    match kill_process(pid, signal) {
        Ok(()) => Ok(Reply::Done),
        Err(e) if procfs::gone(e) => Err(not_running()),
        Err(e) => Err(io_refusal("sending the signal")(e.into())),
    }
}

/// The main process's pid if it is still that process. A child of ours keeps its pid until it is reaped, which happens
/// on this thread; an adopted one is compared by its start time.
pub(super) fn main_pid(container: &Container, started: &Started) -> Option<Pid> {
    if container.record.borrow().adopted {
        let stat = procfs::stat(started.pid).ok().flatten()?;
        if stat.start_time != started.start_time {
            return None;
        }
    }
    Pid::from_raw(started.pid.cast_signed())
}

pub(super) async fn remove(server: Rc<Server>, request: Remove) -> Result<Reply, Refusal> {
    check_name(&request.container)?;
    let container = server.container(&request.container).ok();
    if let Some(container) = &container {
        match container.phase() {
            Phase::Prepared | Phase::Exited(_) => {}
            _ => return Err(Refusal::Running { container: request.container }),
        }
        server.containers.borrow_mut().remove(&request.container);
    }
    let closed = server.logs.remove(&request.container, request.keep_logs);
    // A disk that hangs must not hang the Manager.
    let _ = tokio::time::timeout(Duration::from_secs(1), closed).await;
    // Whoever follows the log has an open file and reads to its end first.
    if let Some(container) = container {
        container.sink.end();
    }
    server.activity.notify_one();
    Ok(Reply::Done)
}

pub(super) async fn list(server: Rc<Server>) -> Result<Reply, Refusal> {
    let services = server.forwarder.connections().await;
    let containers = server.all_containers().into_iter().map(|container| {
        let record = container.record.borrow();
        ContainerInfo {
            container: container.id.clone(),
            generation: record.generation,
            state: match &record.phase {
                Phase::Prepared | Phase::Starting => ContainerState::Prepared,
                Phase::Running(started) => ContainerState::Running(started.clone()),
                Phase::Ending(started) => ContainerState::Ending(started.clone()),
                Phase::Exited(exit) => ContainerState::Exited(*exit),
            },
            ports: record.ports.clone(),
            log_bytes: container.sink.written(),
            log_dropped: container.sink.dropped(),
        }
    });
    Ok(Reply::Listing(Listing {
        containers: containers.collect(),
        services,
        ports: server.ports.borrow().numbers(),
        boot_id: server.boot_id.clone(),
        seq: server.events.last(),
        complete: true,
    }))
}

/// A start that was refused for a reason of the machine's, for `exec`.
pub(super) fn refuse(e: StartError) -> Refusal {
    Refusal::Start(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_its_directory_is_refused() {
        for bad in ["", ".", "..", "a/b", "-a", "a-", "A", "a\0", "a.b", &"a".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "0", "web-1", &"a".repeat(63)] {
            assert_eq!(check_name(good), Ok(()));
        }
    }
}
