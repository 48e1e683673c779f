//! One process of a container, and whatever it starts itself.
//!
//! A worker leads a process group. Its end is told when the group is gone and all of its output was read. What leaves
//! the group on purpose escapes; a provider for real use needs a control group, or a keeper.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cocktail_core::contract::{Exit, Handle, Launch, UsageReading};
use cocktail_core::error::{Error, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::error::of_spawn;
use crate::output::Output;

/// What every worker gets of this process' environment.
const PASSED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];
/// How long output is waited for that is held open by something that left the group.
const ESCAPED: Duration = Duration::from_secs(5);

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Worker {
    group: Group,
    exit: watch::Receiver<Option<Exit>>,
    /// When cpu was read last, and how many clock ticks had been used then.
    read: Mutex<(Instant, u64)>,
}

/// A process group, which ends with this value.
#[derive(Debug)]
pub(crate) struct Group(Pid);

impl Group {
    pub(crate) fn of(child: &Child) -> Result<Self> {
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        pid.map(Self).ok_or_else(|| Error::unexpected("a process that was just started has no id"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // There is nobody left to signal: that is what is wanted.
        let _gone = kill_process_group(self.0, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// A command in the container's folder and environment, in a group of its own that ends with the child.
pub(crate) fn command(launch: &Launch, argv: &[String]) -> Result<Command> {
    let (program, arguments) = argv.split_first().ok_or_else(|| Error::invalid("the command is empty"))?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&launch.cwd).process_group(0).kill_on_drop(true).env_clear();
    for name in PASSED.into_iter().chain(launch.env_from.iter().map(String::as_str)) {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(&launch.env).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

pub(crate) fn exit_of(status: std::io::Result<ExitStatus>) -> Exit {
    let Ok(status) = status else { return Exit::Unknown };
    status.code().map(Exit::Code).or_else(|| status.signal().map(Exit::Signal)).unwrap_or(Exit::Unknown)
}

impl Worker {
    /// Starts the process. `told` is called once, when nothing of it is left.
    pub(crate) fn start(
        launch: &Launch,
        output: Arc<Output>,
        told: impl FnOnce(Exit) + Send + 'static,
    ) -> Result<Self> {
        let mut command = command(launch, &launch.argv)?;
        let mut child = command.spawn().map_err(|error| of_spawn(&launch.argv[0], error))?;
        let (group, leftovers) = (Group::of(&child)?, Group::of(&child)?);
        let (sender, exit) = watch::channel(None);
        tokio::spawn(async move {
            let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
            let reading = tokio::spawn(async move {
                let stdout = async {
                    if let Some(pipe) = stdout {
                        output.read(pipe, false).await
                    }
                };
                let stderr = async {
                    if let Some(pipe) = stderr {
                        output.read(pipe, true).await
                    }
                };
                tokio::join!(stdout, stderr);
            });
            let exit = exit_of(child.wait().await);
            drop(leftovers);
            // Pipes end when the last one that holds them has ended.
            let _escaped = tokio::time::timeout(ESCAPED, reading).await;
            told(exit);
            sender.send_replace(Some(exit));
        });
        Ok(Self { group, exit, read: Mutex::new((Instant::now(), 0)) })
    }

    pub(crate) fn handle(&self) -> Handle {
        Handle { pid: self.group.0.as_raw_nonzero().get().try_into().ok(), ..Handle::default() }
    }

    /// How it ended, once nothing of it is left.
    pub(crate) async fn ended(&self) -> Exit {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await;
        ended.ok().and_then(|exit| *exit).unwrap_or(Exit::Unknown)
    }

    /// Asks it to end, and ends it by force after the grace.
    pub(crate) async fn end(&self, signal: i32, grace: Duration) -> Exit {
        self.group.signal(Signal::from_named_raw(signal).unwrap_or(Signal::TERM));
        if let Ok(exit) = tokio::time::timeout(grace, self.ended()).await {
            return exit;
        }
        self.group.signal(Signal::KILL);
        self.ended().await
    }

    /// What its main process uses; `None` once that has ended.
    pub(crate) fn usage(&self) -> Option<UsageReading> {
        let pid = self.group.0.as_raw_nonzero();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything; after it come the state and numbers.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        let pages: u64 = fields.get(21)?.parse().ok()?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, now) = (*read, Instant::now());
        *read = (now, ticks);
        let micros = (now - before.0).as_micros().max(1);
        let used = u128::from(ticks.saturating_sub(before.1)) * 1_000_000
            / u128::from(rustix::param::clock_ticks_per_second());
        let cpu_millis = u64::try_from(used * 1_000 / micros).unwrap_or(u64::MAX);
        Some(UsageReading { cpu_millis, memory_bytes: pages * rustix::param::page_size() as u64 })
    }
}
