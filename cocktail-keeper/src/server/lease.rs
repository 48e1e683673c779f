//! The lease under which workers may run, on a clock that goes on while the machine sleeps.

use std::{io, rc::Rc};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::oneshot,
    task::spawn_local,
};

use super::{Server, ending, io_refusal};
use crate::{
    protocol::{Event, Refusal, Reply, SetLease, StopPolicy},
    sys,
};

/// Sets, renews or removes the lease.
pub(super) fn set(server: &Rc<Server>, request: SetLease) -> Result<Reply, Refusal> {
    let timer = match request.ttl_ms {
        Some(ttl) => Some(timer(ttl).map_err(io_refusal("setting the lease's timer"))?),
        None => None,
    };
    // Replacing the sender ends the task that waits for the old timer.
    let (renewed, replaced) = oneshot::channel();
    *server.lease.borrow_mut() = Some(renewed);
    if let Some(timer) = timer {
        spawn_local(wait(Rc::clone(server), timer, replaced, request.policy));
    }
    Ok(Reply::Done)
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
    replaced: oneshot::Receiver<()>,
    policy: StopPolicy,
) {
    tokio::select! {
        biased;
        _ = replaced => return,
        _ = timer.readable() => {}
    }
    server.push_event(Event::LeaseExpired);
    // What cannot be killed is in the listing; there is nobody to tell.
    let _ = ending::end_all(&server, policy).await;
}
