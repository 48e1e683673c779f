//! The lease under which workers may run, on a clock that goes on while the machine sleeps.

use std::{io, rc::Rc};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::oneshot,
    task::spawn_local,
};

use super::{Server, ending, guard, io_refusal};
use crate::{
    protocol::{Event, Refusal, Reply, SetLease},
    sys,
};

/// The lease as it was set last.
#[derive(Debug)]
pub(super) struct Held {
    /// Dropping it ends the task that waits for the timer.
    _renewed: oneshot::Sender<()>,
    /// When it is over, in milliseconds since boot.
    until: u64,
    set: SetLease,
    /// There is a guard, and it has not done its work.
    guarded: bool,
}

/// Sets, renews or removes the lease.
pub(super) fn set(server: &Rc<Server>, request: SetLease) -> Result<Reply, Refusal> {
    let Some(ttl) = request.ttl_ms else {
        *server.lease.borrow_mut() = None;
        return Ok(Reply::Done);
    };
    let timer = timer(ttl).map_err(io_refusal("setting the lease's timer"))?;
    let (renewed, replaced) = oneshot::channel();
    let (guarded, set) = (!request.guard.is_empty(), request.clone());
    let held = Held { _renewed: renewed, until: since_boot().saturating_add(ttl), set, guarded };
    *server.lease.borrow_mut() = Some(held);
    spawn_local(wait(Rc::clone(server), timer, replaced, request));
    Ok(Reply::Done)
}

/// Whether somebody relies on the guard of a lease: it has not done its work.
pub(super) fn is_guarded(server: &Server) -> bool {
    server.lease.borrow().as_ref().is_some_and(|held| held.guarded)
}

/// The guard has done its work.
pub(super) fn guarded(server: &Server) {
    if let Some(held) = server.lease.borrow_mut().as_mut() {
        held.guarded = false;
    }
    server.activity.notify_one();
}

/// What is left of it.
pub(super) fn left(server: &Server) -> SetLease {
    let now = since_boot();
    match &*server.lease.borrow() {
        // What is to be kept is to be kept also when it is over.
        Some(held) => SetLease { ttl_ms: Some(held.until.saturating_sub(now)), ..held.set.clone() },
        None => SetLease::default(),
    }
}

/// Whether there was one, and its time has come without a renewal.
pub(super) fn is_over(server: &Server) -> bool {
    let now = since_boot();
    server.lease.borrow().as_ref().is_some_and(|held| held.until <= now)
}

fn since_boot() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000)
}

fn timer(ttl_ms: u64) -> io::Result<AsyncFd<std::os::fd::OwnedFd>> {
    let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    let ttl_ms = ttl_ms.max(1);
    let value = Timespec {
        tv_sec: i64::try_from(ttl_ms / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(ttl_ms % 1000).unwrap_or(0) * 1_000_000,
    };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once)?;
    sys::watch(timer, Interest::READABLE)
}

async fn wait(
    server: Rc<Server>,
    timer: AsyncFd<std::os::fd::OwnedFd>,
    mut replaced: oneshot::Receiver<()>,
    request: SetLease,
) {
    tokio::select! {
        biased;
        _ = &mut replaced => return,
        _ = timer.readable() => {}
    }
    server.push_event(Event::LeaseExpired);
    let SetLease { policy, keep, guard, .. } = request;
    let workers = ending::end_all(&server, policy, &keep);
    // What cannot be killed is in the listing; there is nobody to tell.
    let _ = tokio::join!(workers, guard::run(&server, &guard, policy.grace_ms, replaced));
}
