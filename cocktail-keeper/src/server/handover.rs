//! Listening sockets that only workers have, after the keeper that made them died.
//!
//! A descriptor is taken through a pidfd, so from exactly the process that was looked at, and it is the same socket:
//! what waits in its queue waits for whoever accepts next. Only workers that were given the port are asked.

use std::{
    fs,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::Socket;

use super::{Server, containers::Phase};
use crate::{
    procfs::{self, Stat},
    protocol::{PortSpec, Started},
};

/// Descriptors of one process that are looked at: a socket that listens is among the first ones it had.
const LOOKED_AT: usize = 4096;

/// The listening socket of an inherited port, from a worker of ours that has it. Otherwise the containers that may have
/// it and could not be asked, for people.
pub(super) fn from_workers(server: &Server, port: &PortSpec) -> Result<OwnedFd, Option<String>> {
    let holders = holders(server, port);
    if holders.is_empty() {
        return Err(None);
    }
    let processes = procfs::scan().unwrap_or_default();
    let found = holders.iter().find_map(|(_, started)| from_session(started, port.socket_addr(), &processes));
    found.ok_or_else(|| {
        let names: Vec<&str> = holders.iter().map(|(name, _)| name.as_str()).collect();
        Some(format!("container {}, whose listening socket could not be had", names.join(", ")))
    })
}

/// Running containers that were given a port to inherit, or of which nobody knows what they were given.
fn holders(server: &Server, port: &PortSpec) -> Vec<(String, Started)> {
    let running = server.all_containers().into_iter().filter_map(|container| {
        let record = container.record.borrow();
        let (Phase::Running(started) | Phase::Ending(started)) = &record.phase else { return None };
        let given = record.ports.iter().any(|own| own.inherit && own.port == port.port);
        let unknown = record.adopted && record.ports.is_empty();
        (given || unknown).then(|| (container.id.clone(), started.clone()))
    });
    running.collect()
}

/// The socket that listens at an address, from the main process of a worker or another one of its session.
pub(super) fn from_session<'a>(
    main: &Started,
    at: SocketAddr,
    processes: impl IntoIterator<Item = &'a Stat>,
) -> Option<OwnedFd> {
    let mut members: Vec<&Stat> = processes.into_iter().filter(|stat| stat.session == main.pid).collect();
    members.retain(|stat| stat.lives() && (stat.pid != main.pid || stat.start_time == main.start_time));
    members.sort_by_key(|stat| (stat.pid != main.pid, stat.start_time));
    members.into_iter().find_map(|stat| from_process(stat, at))
}

fn from_process(stat: &Stat, at: SocketAddr) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(stat.pid.cast_signed())?, PidfdFlags::NONBLOCK).ok()?;
    // Only now is the process pinned.
    if procfs::stat(stat.pid).ok().flatten()?.start_time != stat.start_time {
        return None;
    }
    let entries = fs::read_dir(format!("/proc/{}/fd", stat.pid)).ok()?.flatten().take(LOOKED_AT);
    let sockets = entries.filter(|entry| {
        fs::read_link(entry.path()).is_ok_and(|link| link.to_str().is_some_and(|link| link.starts_with("socket:")))
    });
    let numbers = sockets.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.into_iter().find_map(|fd| {
        let socket = Socket::from(pidfd_getfd(pidfd.as_fd(), fd, PidfdGetfdFlags::empty()).ok()?);
        let same = socket.is_listener().unwrap_or(false) && socket.local_addr().ok()?.as_socket()? == at;
        same.then(|| socket.into())
    })
}
