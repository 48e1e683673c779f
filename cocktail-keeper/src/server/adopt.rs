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

use rustix::{
    fs::{Mode as FileMode, OFlags, open},
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};
use tokio::{io::Interest, task::spawn_local};

use super::{
    Server,
    containers::{Container, Phase, Spec, check_name, make_fifo},
    ending,
};
use crate::{
    procfs,
    protocol::{
        Adopt, AdoptContainer, AdoptOutcome, Adoption, ExitStatus, Found, PortSpec, Refusal, Reply, Started, StopPolicy,
    },
    sys,
};

pub(super) async fn adopt(server: Rc<Server>, request: Adopt) -> Result<Reply, Refusal> {
    let mut adoption = Adoption::default();
    for wanted in request.containers {
        check_name(&wanted.container)?;
        let outcome = adopt_one(&server, &wanted);
        adoption.outcomes.insert(wanted.container, outcome);
    }
    let store = server.store();
    let scan = server.scans.fresh().await;
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
        let leader = scan.iter().find(|(stat, _)| pids.contains(&stat.pid) && stat.session == stat.pid);
        let Some((stat, _)) = leader else { continue };
        let started =
            Started { pid: stat.pid, start_time: stat.start_time, boot_id: server.boot_id.clone(), cgroup_note: None };
        let spec = Spec::of_process(stat.pid);
        if take(&server, &container, generation, &started, Vec::new(), spec, StopPolicy::default()) {
            adoption.found.push(Found { container, generation, started });
        }
    }
    Ok(Reply::Adoption(adoption))
}

fn adopt_one(server: &Rc<Server>, wanted: &AdoptContainer) -> AdoptOutcome {
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
    let ports = wanted.ports.clone();
    if take(server, &wanted.container, wanted.generation, &started, ports, spec, wanted.leftovers) {
        AdoptOutcome::Adopted
    } else {
        AdoptOutcome::Gone
    }
}

/// Records and watches a worker; false when it ended meanwhile.
fn take(
    server: &Rc<Server>,
    id: &str,
    generation: u64,
    started: &Started,
    ports: Vec<PortSpec>,
    spec: Spec,
    leftovers: StopPolicy,
) -> bool {
    let pid = Pid::from_raw(started.pid.cast_signed());
    let Some(Ok(pidfd)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK)) else { return false };
    // Only now is the process pinned; compare once more.
    if !procfs::stat(started.pid).ok().flatten().is_some_and(|stat| stat.start_time == started.start_time) {
        return false;
    }
    let mut inherited = 0;
    for port in &ports {
        let socket = port.inherit.then(|| {
            inherited += 1;
            listening(&pidfd, 2 + inherited, port.port)
        });
        server.ports.borrow_mut().adopt(id, port, socket.flatten());
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
    if let (Some(out), Some(err)) = (pipe(server, id, false), pipe(server, id, true)) {
        server.logs.attach(&container.sink, out, err);
    }
    server.containers.borrow_mut().insert(id.to_owned(), Rc::clone(&container));
    let server = Rc::clone(server);
    let pid = started.pid;
    spawn_local(async move {
        let status = watch(pidfd).await;
        ending::main_ended(&server, &container, pid, status);
    });
    true
}

fn pipe(server: &Server, id: &str, stderr: bool) -> Option<OwnedFd> {
    make_fifo(server, id, stderr).ok()?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    open(server.fifo(id, stderr), flags, FileMode::empty()).ok()
}

/// The listening socket that a worker was given as its descriptor `fd`, if it still has it there.
fn listening(pidfd: &OwnedFd, fd: i32, port: u16) -> Option<OwnedFd> {
    let socket = socket2::Socket::from(pidfd_getfd(pidfd, fd, PidfdGetfdFlags::empty()).ok()?);
    let own = socket.local_addr().ok()?.as_socket()?.port();
    (own == port).then(|| socket.into())
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
