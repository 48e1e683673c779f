//! The guard of a lease: a run of this program that ends what is not the keeper's own to end, such as containers of an
//! engine. It is run when the lease is over, again and again until it has done its work or the lease is renewed.

use std::{ffi::CString, rc::Rc, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{sync::oneshot, time::sleep};

use super::{Server, containers::inherited_limits, lease, reaper, spawner::Job};
use crate::{
    protocol::ExitStatus,
    sys::spawn::{Command, Stdio},
};

/// Pause before another attempt, and the longest after many.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// What an attempt may take beyond the grace: one that hangs is ended, and another one is made.
const LATE: Duration = Duration::from_secs(30);
/// The standard error of this process: where its own log goes.
const STDERR: i32 = 2;

/// Runs the guard until it has done its work, or until the lease is `replaced`.
pub(super) async fn run(
    server: &Rc<Server>,
    arguments: &[String],
    mut grace_ms: u64,
    mut replaced: oneshot::Receiver<()>,
) {
    if arguments.is_empty() {
        return;
    }
    let (mut pause, slowest) = AGAIN;
    loop {
        match once(server, arguments, grace_ms, &mut replaced).await {
            None => return,
            Some(ExitStatus::Code(0)) => return lease::guarded(server),
            Some(_) => {}
        }
        // Whatever can be asked to end was asked already.
        grace_ms = 0;
        tokio::select! {
            biased;
            _ = &mut replaced => return,
            () = sleep(pause) => pause = (pause * 2).min(slowest),
        }
    }
}

/// One attempt; how it ended, or `None` where the lease was renewed meanwhile: nothing that begins then may be ended by it.
async fn once(
    server: &Rc<Server>,
    arguments: &[String],
    grace_ms: u64,
    replaced: &mut oneshot::Receiver<()>,
) -> Option<ExitStatus> {
    let Ok(job) = job(arguments, grace_ms) else { return Some(ExitStatus::Unknown) };
    let in_flight = server.spawner.begin();
    let Ok(spawned) = server.spawner.spawn(job).await else { return Some(ExitStatus::Unknown) };
    let ended = reaper::register_exec(server, spawned.pid, "");
    drop(in_flight);
    reaper::reap_deferred(server);
    let kill = || {
        // It is our unreaped child for as long as it is registered.
        if server.children.is_known(spawned.pid)
            && let Some(pid) = Pid::from_raw(spawned.pid.cast_signed())
        {
            let _ = kill_process(pid, Signal::KILL);
        }
    };
    tokio::select! {
        biased;
        _ = replaced => {
            kill();
            None
        }
        status = ended => Some(status.unwrap_or(ExitStatus::Unknown)),
        () = sleep(Duration::from_millis(grace_ms) + LATE) => {
            kill();
            Some(ExitStatus::Unknown)
        }
    }
}

fn job(arguments: &[String], grace_ms: u64) -> Result<Job, std::ffi::NulError> {
    let grace = grace_ms.to_string();
    let name = "cocktail-guard";
    let argv = [name].into_iter().chain(arguments.iter().map(String::as_str)).chain([grace.as_str()]);
    let null = |flags| Stdio::Path(c"/dev/null".to_owned(), flags);
    let command = Command {
        // The file may have another name by now, or none.
        programs: vec![c"/proc/self/exe".to_owned()],
        argv: argv.map(CString::new).collect::<Result<_, _>>()?,
        env: Vec::new(),
        cwd: c"/".to_owned(),
        stdio: [null(libc::O_RDONLY), null(libc::O_WRONLY), Stdio::Fd(STDERR)],
        listen: Vec::new(),
        user: None,
        rlimits: inherited_limits(),
        cgroup: None,
        umask: 0o077,
        die_with_parent: false,
        terminal: false,
    };
    Ok(Job { command, user: None, pipes: false, keep: Vec::new() })
}
