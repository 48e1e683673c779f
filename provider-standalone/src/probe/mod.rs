//! Probes: small checks of running containers, one task each.
//!
//! Start at [`run`]. A result is told when it is first known, when it changes, and while it is bad whenever what was
//! seen changes. One success makes it good; consecutive failures, a pause apart, make it bad. Before the first success a
//! readiness probe looks more often than it is asked to, so that a quick worker takes traffic at once; those looks count
//! for success only. Liveness waits until a worker that was just started has been ready once.

mod http;
mod inherited;
mod numbers;
mod tcp;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use cocktail_core::contract::{ExecOutput, ExecSpec, LaunchProbe, ProbeKind, RuntimeEvent};
use cocktail_core::id::{ContainerId, Generation};
use cocktail_core::spec::Check;
use cocktail_core::time::human;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::exec;
use crate::shared::Shared;
use crate::sockets;

pub(crate) use numbers::Numbers;

/// First pause of a readiness probe before its first success.
const EAGER: Duration = Duration::from_millis(5);
/// Further pauses are this share of the time since the start: nobody waits much longer than the worker takes.
const EAGERNESS: u32 = 12;
/// How often it is looked up where a worker listens instead: that reads the process table.
const EXPLAIN: Duration = Duration::from_secs(2);

/// What is probed.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) container: ContainerId,
    pub(crate) generation: Generation,
    /// Its main process, which leads its session.
    pub(crate) pid: u32,
    /// Where workers listen.
    pub(crate) address: IpAddr,
    /// Ports whose listening socket it inherited.
    pub(crate) inherited: Vec<u16>,
}

/// What one check found.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Good(String),
    Bad(String),
    /// Nobody answered at an address.
    Silent(SocketAddr, String),
    /// It could not be done for a reason that is not the worker's.
    Nothing,
}

/// What one check found, with what the worker reported.
#[derive(Debug)]
struct Looked {
    seen: Seen,
    numbers: Option<Numbers>,
}

impl From<Seen> for Looked {
    fn from(seen: Seen) -> Self {
        Self { seen, numbers: None }
    }
}

/// Checks until the task is aborted or the runtime is gone. `up` says whether the container was ready once.
pub(crate) async fn run(shared: Weak<Shared>, target: Target, probe: LaunchProbe, up: watch::Sender<bool>) {
    if probe.kind == ProbeKind::Live {
        let mut waiting = up.subscribe();
        // The sender is held here, so waiting cannot fail.
        let _came_up = waiting.wait_for(|up| *up).await.is_ok();
        tokio::time::sleep(probe.every).await;
    }
    let mut verdict = Verdict::new(probe.failures);
    let began = Instant::now();
    let mut counted = began;
    let mut explained: Option<(Instant, String)> = None;
    let (mut reports, mut came_up) = (false, false);
    loop {
        let eager = probe.kind == ProbeKind::Ready && !came_up;
        let pause = if eager { (began.elapsed() / EAGERNESS).max(EAGER).min(probe.every) } else { probe.every };
        let Some(strong) = shared.upgrade() else { return };
        let Looked { seen, numbers } = check(&strong, &target, &probe, came_up).await;
        // An answer without numbers takes back what an earlier one said.
        if seen != Seen::Nothing && (numbers.is_some() || reports) {
            reports = numbers.is_some();
            strong.report(&target.container, target.generation, numbers.unwrap_or_default());
        }
        let (ok, detail) = match seen {
            Seen::Good(detail) => {
                up.send_replace(true);
                came_up = true;
                (true, detail)
            }
            Seen::Bad(detail) => (false, detail),
            Seen::Silent(at, detail) => {
                // Looked up only where it will be told.
                let due = explained.as_ref().is_none_or(|(when, _)| when.elapsed() >= EXPLAIN);
                if due && (!eager || counted.elapsed() >= probe.every) {
                    let pid = target.pid;
                    let why = tokio::task::spawn_blocking(move || sockets::explain(pid, at)).await;
                    explained = Some((Instant::now(), why.unwrap_or_default()));
                }
                let why = explained.as_ref().map_or("", |(_, why)| why);
                (false, format!("{detail}{why}"))
            }
            Seen::Nothing => {
                drop(strong);
                tokio::time::sleep(probe.every).await;
                continue;
            }
        };
        // Failures count a pause of the probe's own apart; eager looks between them for success only.
        let counts = ok || !eager || counted.elapsed() >= probe.every;
        if counts {
            counted = Instant::now();
        }
        if let Some(detail) = counts.then(|| verdict.take(ok, detail)).flatten() {
            let (container, generation) = (target.container.clone(), target.generation);
            strong.emit(RuntimeEvent::Probe { container, generation, kind: probe.kind, ok, detail });
        }
        drop(strong);
        tokio::time::sleep(pause).await;
    }
}

/// What is known of a container, and what was last told of it.
#[derive(Debug)]
struct Verdict {
    needed: u32,
    failures: u32,
    told: Option<(bool, String)>,
}

impl Verdict {
    fn new(failures: u32) -> Self {
        Self { needed: failures.max(1), failures: 0, told: None }
    }

    /// Takes one result; the detail if it is to be told.
    fn take(&mut self, ok: bool, detail: String) -> Option<String> {
        if ok {
            self.failures = 0;
            if matches!(self.told, Some((true, _))) {
                return None;
            }
        } else {
            self.failures = self.failures.saturating_add(1);
            if self.failures < self.needed || self.told.as_ref().is_some_and(|told| *told == (false, detail.clone())) {
                return None;
            }
        }
        self.told = Some((ok, detail.clone()));
        Some(detail)
    }
}

async fn check(shared: &Arc<Shared>, target: &Target, probe: &LaunchProbe, came_up: bool) -> Looked {
    let path = match (&probe.check, probe.port) {
        (Check::Exec { command }, _) => return exec_check(shared, target, command, probe.timeout).await.into(),
        (Check::Worker, _) => return Seen::Nothing.into(),
        (_, None) => return Seen::Bad("the unit has no port to probe".into()).into(),
        (Check::Tcp { .. }, Some(_)) => None,
        (Check::Http { path, .. }, Some(_)) => Some(path),
    };
    let at = SocketAddr::new(target.address, probe.port.unwrap_or_default());
    let time = (probe.timeout, Instant::now() + probe.timeout);
    // A worker that never accepts must not come up by what others answer. Later looks are spared the effort.
    let proves = !came_up && probe.kind == ProbeKind::Ready && target.inherited.contains(&at.port());
    let stream = match proves && (path.is_none() || !shared.others_at(&target.container, at.port()).is_empty()) {
        true => inherited::open(shared, target, at, time).await,
        false => tcp::open(at, time).await,
    };
    match (stream, path) {
        (Err(seen), _) => seen.into(),
        (Ok(_), None) => Seen::Good(format!("connected to {at}")).into(),
        (Ok(stream), Some(path)) => http::check(stream, at, path, time, probe.kind == ProbeKind::Ready).await,
    }
}

/// Runs a command beside the container; 0 is good.
async fn exec_check(shared: &Arc<Shared>, target: &Target, command: &[String], timeout: Duration) -> Seen {
    let Ok(_turn) = shared.exec_probes.acquire().await else { return Seen::Nothing };
    let Ok(client) = shared.client().await else { return Seen::Nothing };
    let spec = ExecSpec { command: command.to_vec(), tty: None, timeout: Some(timeout) };
    let program = command.first().map_or("", String::as_str);
    let session = match client.exec(exec::request(&target.container, &spec)).await {
        Ok(session) => session,
        Err(cocktail_keeper::KeeperError::Refused(cocktail_keeper::protocol::Refusal::Start(error))) => {
            return Seen::Bad(error.to_string());
        }
        Err(_) => return Seen::Nothing,
    };
    let mut session = exec::session(session, spec.timeout);
    loop {
        match session.output.next().await {
            // Only the end matters; a probe that talks without end is ended by its time.
            Some(Ok(ExecOutput::Stdout(_) | ExecOutput::Stderr(_))) => {}
            Some(Ok(ExecOutput::Exit(cocktail_core::contract::Exit::Code(0)))) => {
                return Seen::Good(format!("{program} exited with code 0"));
            }
            Some(Ok(ExecOutput::Exit(exit))) => return Seen::Bad(format!("{program} {exit}")),
            Some(Err(error)) if *error.kind() == cocktail_core::error::ErrorKind::Deadline => {
                return Seen::Bad(format!("{program} did not end within {}", human(timeout)));
            }
            Some(Err(_)) | None => return Seen::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(verdict: &mut Verdict, results: &[bool]) -> Vec<Option<bool>> {
        results.iter().map(|&ok| verdict.take(ok, "seen".into()).map(|_| ok)).collect()
    }

    #[test]
    fn one_success_turns_good_and_several_failures_in_a_row_turn_bad() {
        let mut verdict = Verdict::new(3);
        assert_eq!(told(&mut verdict, &[false, true, true]), [None, Some(true), None]);
        assert_eq!(told(&mut verdict, &[false, false, true, false, false]), [None; 5]);
        assert_eq!(told(&mut verdict, &[false, false, true]), [Some(false), None, Some(true)]);
    }

    #[test]
    fn the_first_result_is_told_also_when_it_is_bad() {
        assert_eq!(told(&mut Verdict::new(2), &[false, false, false]), [None, Some(false), None]);
    }

    #[test]
    fn a_bad_result_is_told_again_when_something_else_was_seen() {
        let mut verdict = Verdict::new(1);
        assert!(verdict.take(false, "refused".into()).is_some());
        assert!(verdict.take(false, "refused".into()).is_none());
        assert!(verdict.take(false, "refused; listens on 8000 instead".into()).is_some());
    }
}
