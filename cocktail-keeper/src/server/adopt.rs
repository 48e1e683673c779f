//! Workers of a keeper that is gone.
//!
//! A worker is the one that is meant when pid, start time and boot are the same; marks in its environment that name
//! another container make it unknown. What cannot be read is unknown too, and is left alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    rc::Rc,
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::{io::Interest, task::spawn_local};

use super::{
    Server,
    containers::{Container, Phase, Spec, check_name},
    ending, handover,
};
use crate::{
    procfs::{self, Marks, Stat},
    protocol::{
        Adopt, AdoptContainer, AdoptOutcome, Adoption, ExitStatus, Found, PortSpec, Refusal, Reply, Started, StopPolicy,
    },
    sys,
};

pub(super) async fn adopt(server: Rc<Server>, request: Adopt) -> Result<Reply, Refusal> {
    let mut adoption = Adoption::default();
    let scan = server.scans.fresh().await;
    for wanted in request.containers {
        check_name(&wanted.container)?;
        let outcome = adopt_one(&server, &wanted, &scan);
        adoption.outcomes.insert(wanted.container, outcome);
    }
    let store = server.store();
    let mut groups: BTreeMap<(String, u64), BTreeSet<u32>> = BTreeMap::new();
    for (stat, marks) in scan.iter().filter(|(stat, _)| stat.lives()) {
        if let Some(marks) = marks.as_ref().filter(|marks| marks.store == store) {
            groups.entry((marks.container.clone(), marks.generation)).or_default().insert(stat.pid);
        }
    }
    for ((container, generation), pids) in groups {
        if check_name(&container).is_err() || server.containers.borrow().contains_key(&container) {
            continue;
        }
        // The main process leads its session; what else is there are children, which the main one answers for.
        let leaders = scan.iter().filter(|(stat, _)| pids.contains(&stat.pid) && stat.session == stat.pid);
        let Some((stat, _)) = leaders.min_by_key(|(stat, _)| stat.start_time) else { continue };
        let started =
            Started { pid: stat.pid, start_time: stat.start_time, boot_id: server.boot_id.clone(), cgroup_note: None };
        let worker = Worker {
            id: &container,
            generation,
            started: &started,
            ports: Vec::new(),
            spec: Spec::of_process(stat.pid),
            leftovers: StopPolicy::default(),
        };
        if take(&server, worker, &scan) {
            adoption.found.push(Found { container, generation, started });
        }
    }
    Ok(Reply::Adoption(adoption))
}

fn adopt_one(server: &Rc<Server>, wanted: &AdoptContainer, scan: &[(Stat, Option<Marks>)]) -> AdoptOutcome {
    if let Ok(known) = server.container(&wanted.container) {
        return match known.phase() {
            Phase::Running(started) if started.pid == wanted.pid => AdoptOutcome::Adopted,
            Phase::Exited(_) => AdoptOutcome::Gone,
            _ => AdoptOutcome::Unknown,
        };
    }
    if wanted.boot_id != server.boot_id {
        return AdoptOutcome::Gone;
    }
    match procfs::stat(wanted.pid) {
        Ok(Some(stat)) if stat.start_time == wanted.start_time && stat.lives() => {}
        Ok(_) => return AdoptOutcome::Gone,
        Err(_) => return AdoptOutcome::Unknown,
    }
    match procfs::marks(wanted.pid) {
        Ok(Some(marks)) if marks.container != wanted.container || marks.store != server.store() => {
            return AdoptOutcome::Unknown;
        }
        // A program that wrote over its environment is still the same process.
        Ok(_) => {}
        Err(_) => return AdoptOutcome::Unknown,
    }
    let started =
        Started { pid: wanted.pid, start_time: wanted.start_time, boot_id: wanted.boot_id.clone(), cgroup_note: None };
    let env = wanted.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let spec = Spec::new(env, wanted.cwd.clone(), wanted.user.clone());
    let worker = Worker {
        id: &wanted.container,
        generation: wanted.generation,
        started: &started,
        ports: wanted.ports.clone(),
        spec,
        leftovers: wanted.leftovers,
    };
    if take(server, worker, scan) { AdoptOutcome::Adopted } else { AdoptOutcome::Gone }
}

/// A worker that is to be recorded.
struct Worker<'a> {
    id: &'a str,
    generation: u64,
    started: &'a Started,
    ports: Vec<PortSpec>,
    spec: Spec,
    leftovers: StopPolicy,
}

/// Records and watches a worker; false when it ended meanwhile.
fn take(server: &Rc<Server>, worker: Worker<'_>, scan: &[(Stat, Option<Marks>)]) -> bool {
    let Worker { id, generation, started, ports, spec, leftovers } = worker;
    let pid = Pid::from_raw(started.pid.cast_signed());
    let Some(Ok(pidfd)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK)) else { return false };
    // Only now is the process pinned; compare once more.
    if procfs::stat(started.pid).ok().flatten().is_none_or(|stat| stat.start_time != started.start_time) {
        return false;
    }
    for port in &ports {
        let processes = scan.iter().map(|(stat, _)| stat);
        let lacking = server.ports.borrow().lacks_socket(port);
        let socket = lacking.then(|| handover::from_session(started, port.socket_addr(), processes)).flatten();
        server.ports.borrow_mut().adopt(id, port, socket);
    }
    let container = Container::new(id, generation);
    {
        let mut record = container.record.borrow_mut();
        record.phase = Phase::Running(started.clone());
        record.adopted = true;
        record.ports = ports;
        record.spec = Rc::new(spec);
        record.leftovers = leftovers;
    }
    container.attach(server, pipes(started.pid, id, &server.store(), scan));
    server.containers.borrow_mut().insert(id.to_owned(), Rc::clone(&container));
    let server = Rc::clone(server);
    let pid = started.pid;
    spawn_local(async move {
        let status = watch(pidfd).await;
        ending::main_ended(&server, &container, pid, status);
    });
    true
}

/// The reading ends of a worker's pipes: those of its main process or, where that went elsewhere with its output, of
/// another process with its marks.
fn pipes(main: u32, id: &str, store: &str, scan: &[(Stat, Option<Marks>)]) -> Vec<(OwnedFd, bool)> {
    let marked = scan
        .iter()
        .filter(|(_, marks)| marks.as_ref().is_some_and(|marks| marks.container == id && marks.store == store));
    let pids: Vec<u32> = std::iter::once(main).chain(marked.map(|(stat, _)| stat.pid)).collect();
    let mut seen = BTreeSet::new();
    let mut pipes = Vec::new();
    for (fd, stderr) in [(1, false), (2, true)] {
        let found = pids.iter().find_map(|pid| {
            let pipe = procfs::worker_pipe(*pid, fd)?;
            // Both streams may be one pipe, which must not be read twice.
            let stat = rustix::fs::fstat(&pipe).ok()?;
            seen.insert((stat.st_dev, stat.st_ino)).then_some(pipe)
        });
        pipes.extend(found.map(|pipe| (pipe, stderr)));
    }
    pipes
}

/// Waits for the end of a process that is nobody's child here, and asks the kernel how it ended.
async fn watch(pidfd: OwnedFd) -> ExitStatus {
    use std::os::fd::AsFd;
    let Ok(pidfd) = sys::watch(pidfd, Interest::READABLE) else { return ExitStatus::Unknown };
    let _ = pidfd.readable().await;
    // The status is there once its parent reaped it, which is a matter of moments and not ours to hasten.
    for _ in 0..50 {
        if let Some(status) = sys::pidfd_exit_status(pidfd.get_ref().as_fd()) {
            return match status & 0x7f {
                0 => ExitStatus::Code((status >> 8) & 0xff),
                signal => ExitStatus::Signal(signal),
            };
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ExitStatus::Unknown
}
