//! Children that ended.
//!
//! A detached keeper is the subreaper of its workers, so orphans become its children and are reaped here too. A child is
//! looked at first and reaped only when it is clear whose it is: one that ends before its start is recorded waits.
//! An in-process keeper waits for its own children one by one, by pidfd, and never for anybody else's.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    rc::Rc,
};

use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};
use tokio::{
    io::Interest,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    task::spawn_local,
};

use super::{Mode, Server, containers::Container, ending};
use crate::{protocol::ExitStatus, sys};

/// Children that somebody waits for, by pid.
#[derive(Default)]
pub(super) struct Children {
    known: RefCell<HashMap<u32, Child>>,
    /// A child that nobody knew, and how many starts had begun when it was seen.
    deferred: Cell<Option<(u32, u64)>>,
}

enum Child {
    Main(Rc<Container>),
    Exec { container: String, done: oneshot::Sender<ExitStatus> },
}

impl Children {
    /// Whether this is the main process of some container.
    pub(super) fn is_main(&self, pid: u32) -> bool {
        matches!(self.known.borrow().get(&pid), Some(Child::Main(_)))
    }

    /// Whether this child is still to be reaped.
    pub(super) fn is_known(&self, pid: u32) -> bool {
        self.known.borrow().contains_key(&pid)
    }

    /// Whether this is a command that runs beside the container.
    pub(super) fn is_exec_of(&self, pid: u32, id: &str) -> bool {
        matches!(self.known.borrow().get(&pid), Some(Child::Exec { container, .. }) if container == id)
    }
}

/// Begins to reap on child signals.
#[expect(clippy::disallowed_methods, reason = "this runs in the keeper's own process, never in a host's")]
pub(super) fn start(server: &Rc<Server>) -> io::Result<()> {
    let mut signals = signal(SignalKind::child())?;
    let server = Rc::clone(server);
    spawn_local(async move {
        while signals.recv().await.is_some() {
            reap(&server);
        }
    });
    Ok(())
}

pub(super) fn register_main(server: &Rc<Server>, pid: u32, container: &Rc<Container>) {
    register(server, pid, Child::Main(Rc::clone(container)));
}

pub(super) fn register_exec(server: &Rc<Server>, pid: u32, container: &str) -> oneshot::Receiver<ExitStatus> {
    let (done, status) = oneshot::channel();
    register(server, pid, Child::Exec { container: container.to_owned(), done });
    status
}

fn register(server: &Rc<Server>, pid: u32, child: Child) {
    server.children.known.borrow_mut().insert(pid, child);
    if server.mode == Mode::InProcess {
        let server = Rc::clone(server);
        spawn_local(async move {
            wait_for(pid).await;
            let status = take(pid);
            deliver(&server, pid, status);
        });
    }
}

/// Waits until a child of ours can be reaped.
async fn wait_for(pid: u32) {
    let Some(pid) = Pid::from_raw(pid.cast_signed()) else { return };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::NONBLOCK) else { return };
    if let Ok(pidfd) = sys::watch(pidfd, Interest::READABLE) {
        // An error would say that the runtime ends.
        let _ = pidfd.readable().await;
    }
}

fn take(pid: u32) -> ExitStatus {
    let pid = Pid::from_raw(pid.cast_signed());
    match waitpid(pid, WaitOptions::NOHANG) {
        Ok(Some((_, status))) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExitStatus::Code(code),
            (None, Some(signal)) => ExitStatus::Signal(signal),
            (None, None) => ExitStatus::Unknown,
        },
        Ok(None) | Err(_) => ExitStatus::Unknown,
    }
}

fn deliver(server: &Rc<Server>, pid: u32, status: ExitStatus) {
    match server.children.known.borrow_mut().remove(&pid) {
        Some(Child::Main(container)) => ending::main_ended(server, &container, pid, status),
        // The session may have been closed.
        Some(Child::Exec { done, .. }) => _ = done.send(status),
        None => {}
    }
}

/// Looks again at a child that nobody knew, after a start was recorded.
pub(super) fn reap_deferred(server: &Rc<Server>) {
    if server.children.deferred.get().is_some() {
        reap(server);
    }
}

/// Reaps everything that can be reaped. Does nothing in a host's process.
pub(super) fn reap(server: &Rc<Server>) {
    if server.mode == Mode::InProcess {
        return;
    }
    while let Some(pid) = sys::peek_ended_child() {
        let known = server.children.known.borrow().contains_key(&pid);
        if !known {
            let begun = match server.children.deferred.get() {
                Some((deferred, begun)) if deferred == pid => begun,
                _ => server.spawner.begun(),
            };
            if server.spawner.may_deliver(begun) {
                server.children.deferred.set(Some((pid, begun)));
                return;
            }
        }
        server.children.deferred.set(None);
        let status = take(pid);
        deliver(server, pid, status);
    }
}
