//! Probes: small checks of running containers, one task each. Providers whose runtimes run probes themselves share them.
//!
//! Start at [`run`] and [`Subject`], which is what a runtime brings: the container, a way to it, and who is told. A result
//! is told when it is first known, when it changes, and while it is bad whenever what was seen changes. One success makes
//! it good; consecutive failures, a pause apart, make it bad. Before the first success a readiness probe looks more often
//! than it is asked to, so that a quick worker takes traffic at once; those looks count for success only. Liveness waits
//! until a worker that was just started has been ready once.
//!
//! Nothing here knows what a container is made of.

mod http;
mod numbers;
mod tcp;
mod verdict;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use cocktail_core::contract::{ExecOutput, ExecSession, ExecSpec, Exit, LaunchProbe, ProbeKind, RuntimeEvent};
use cocktail_core::error::ErrorKind;
use cocktail_core::id::{ContainerId, Generation};
use cocktail_core::spec::Check;
use cocktail_core::time::human;
use futures_util::StreamExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

pub use numbers::Numbers;
pub use tcp::open;

use verdict::Verdict;

/// First pause of a readiness probe before its first success.
const EAGER: Duration = Duration::from_millis(5);
/// Further pauses are this share of the time since the start: nobody waits much longer than the worker takes.
const EAGERNESS: u32 = 12;
/// How often it is looked up why nobody answers: that may read the process table.
const EXPLAIN: Duration = Duration::from_secs(2);

/// One container, as far as probing goes.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The container.
    fn container(&self) -> &ContainerId;

    /// Which start of it.
    fn generation(&self) -> Generation;

    /// Where it listens, as we reach it.
    fn address(&self) -> IpAddr;

    /// Whether anybody still wants to know.
    fn is_wanted(&self) -> bool;

    /// Connects for a check, in time; what was seen where that fails.
    async fn connect(&self, look: &Look) -> Result<TcpStream, Seen>;

    /// Runs the command of a check beside the container; what was seen where it cannot be begun.
    async fn exec(&self, spec: &ExecSpec) -> Result<ExecSession, Seen>;

    /// What more can be said where nobody answers at an address, to be put after the sentence that says so.
    async fn explain(&self, at: SocketAddr) -> String {
        let _ = at;
        String::new()
    }

    /// A readiness probe found numbers, or none where there were some.
    fn report(&self, numbers: Numbers);

    /// Tells of a result.
    fn tell(&self, event: RuntimeEvent);
}

/// One look at a port.
#[derive(Debug)]
pub struct Look {
    /// Where.
    pub at: SocketAddr,
    /// The time that it has, as the manifest says it.
    pub timeout: Duration,
    /// When that is over.
    pub deadline: Instant,
    /// Whether a good result is the first proof that the container is ready.
    pub proves: bool,
    /// Whether the connection alone is the check: nothing is asked over it.
    pub bare: bool,
}

/// What one check found.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// As it should be.
    Good(String),
    /// Not so.
    Bad(String),
    /// Nobody answered at an address.
    Silent(SocketAddr, String),
    /// It could not be done for a reason that is not the worker's.
    Nothing,
}

/// What one check found, with what the worker reported.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) seen: Seen,
    pub(crate) numbers: Option<Numbers>,
}

impl From<Seen> for Looked {
    fn from(seen: Seen) -> Self {
        Self { seen, numbers: None }
    }
}

/// Checks until the task is aborted or nobody wants to know any more. `up` says whether the container was ready once.
pub async fn run(subject: impl Subject, probe: LaunchProbe, up: watch::Sender<bool>) {
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
    while subject.is_wanted() {
        let eager = probe.kind == ProbeKind::Ready && !came_up;
        let pause = if eager { (began.elapsed() / EAGERNESS).max(EAGER).min(probe.every) } else { probe.every };
        let Looked { seen, numbers } = check(&subject, &probe, came_up).await;
        // An answer without numbers takes back what an earlier one said.
        if seen != Seen::Nothing && (numbers.is_some() || reports) {
            reports = numbers.is_some();
            subject.report(numbers.unwrap_or_default());
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
                    explained = Some((Instant::now(), subject.explain(at).await));
                }
                let why = explained.as_ref().map_or("", |(_, why)| why);
                (false, format!("{detail}{why}"))
            }
            Seen::Nothing => {
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
            let (container, generation) = (subject.container().clone(), subject.generation());
            subject.tell(RuntimeEvent::Probe { container, generation, kind: probe.kind, ok, detail });
        }
        tokio::time::sleep(pause).await;
    }
}

async fn check(subject: &impl Subject, probe: &LaunchProbe, came_up: bool) -> Looked {
    let path = match (&probe.check, probe.port) {
        (Check::Exec { command }, _) => return exec_check(subject, command, probe.timeout).await.into(),
        (Check::Worker, _) => return Seen::Nothing.into(),
        (_, None) => return Seen::Bad("the unit has no port to probe".into()).into(),
        (Check::Tcp { .. }, Some(_)) => None,
        (Check::Http { path, .. }, Some(_)) => Some(path),
    };
    let at = SocketAddr::new(subject.address(), probe.port.unwrap_or_default());
    let (timeout, deadline) = (probe.timeout, Instant::now() + probe.timeout);
    let proves = !came_up && probe.kind == ProbeKind::Ready;
    let stream = subject.connect(&Look { at, timeout, deadline, proves, bare: path.is_none() }).await;
    match (stream, path) {
        (Err(seen), _) => seen.into(),
        (Ok(_), None) => Seen::Good(format!("connected to {at}")).into(),
        (Ok(stream), Some(path)) => {
            http::check(stream, at, path, (timeout, deadline), probe.kind == ProbeKind::Ready).await
        }
    }
}

/// Runs a command beside the container; 0 is good.
async fn exec_check(subject: &impl Subject, command: &[String], timeout: Duration) -> Seen {
    let spec = ExecSpec { command: command.to_vec(), tty: None, timeout: Some(timeout) };
    let program = command.first().map_or("", String::as_str);
    let mut session = match subject.exec(&spec).await {
        Ok(session) => session,
        Err(seen) => return seen,
    };
    loop {
        match session.output.next().await {
            // Only the end matters; a probe that talks without end is ended by its time.
            Some(Ok(ExecOutput::Stdout(_) | ExecOutput::Stderr(_))) => {}
            Some(Ok(ExecOutput::Exit(Exit::Code(0)))) => return Seen::Good(format!("{program} exited with code 0")),
            Some(Ok(ExecOutput::Exit(exit))) => return Seen::Bad(format!("{program} {exit}")),
            Some(Err(error)) if *error.kind() == ErrorKind::Deadline => {
                return Seen::Bad(format!("{program} did not end within {}", human(timeout)));
            }
            Some(Err(_)) | None => return Seen::Nothing,
        }
    }
}
