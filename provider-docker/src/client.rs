//! The engine's API: each call with its own bound of time, its failure in our kinds, and what it answers in our words.
//!
//! Start at [`Engine`]. It connects when it is first used, and agrees on a version of the API then.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as EngineError;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary,
    ContainerSummaryStateEnum, SystemInfo,
};
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder, KillContainerOptionsBuilder,
    ListContainersOptions, RemoveContainerOptionsBuilder,
};
use cocktail_core::contract::Exit;
use cocktail_core::error::{Error, ErrorKind, Result};
use futures_util::StreamExt;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::config::EngineConfig;
use crate::error::{self, Call};
use crate::{label, times, tls};

/// What came of waiting for the end of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It runs.
    NotYet,
    /// It ended with this code, or had before it was waited for.
    Code(i32),
    /// It is gone, or nobody knows.
    Somehow,
}

/// The code of what was ended by SIGKILL.
const KILLED: i32 = 128 + 9;

/// One engine.
pub(crate) struct Engine {
    config: EngineConfig,
    agreed: Mutex<Agreed>,
}

/// What came of reaching an engine.
#[derive(Default)]
enum Agreed {
    #[default]
    Nothing,
    /// In the version that both speak.
    On(Docker),
    /// It did not answer then, for this reason.
    Failed(Instant, Error),
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("url", &self.config.url).finish_non_exhaustive()
    }
}

/// Where a container of the engine is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Made, never started.
    Created,
    /// It runs, with this main process as the engine's machine numbers it.
    Running(u32),
    /// It ended.
    Exited(Exit),
    /// It is being removed.
    Leaving,
}

/// A container of the engine, looked at.
#[derive(Debug, Clone)]
pub(crate) struct Looked {
    pub(crate) id: String,
    pub(crate) labels: HashMap<String, String>,
    pub(crate) condition: Condition,
    /// It runs, and nothing in it does anything.
    pub(crate) paused: bool,
    /// The program that it starts, and its environment.
    pub(crate) path: String,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
}

impl Engine {
    pub(crate) fn new(config: &EngineConfig) -> Result<Self> {
        tls::check(config)?;
        Ok(Self { config: config.clone(), agreed: Mutex::default() })
    }

    /// The API in the version that both speak.
    ///
    /// # Errors
    /// `Unavailable` when the engine does not answer.
    pub(crate) async fn api(&self) -> Result<Docker> {
        let mut agreed = self.agreed.lock().await;
        match &*agreed {
            Agreed::On(docker) => return Ok(docker.clone()),
            // Who has waited for somebody else's attempt has that one's answer.
            Agreed::Failed(at, error) if at.elapsed() < times::AGAIN.1 / 10 => return Err(error.clone()),
            Agreed::Failed(..) | Agreed::Nothing => {}
        }
        let what = format!("reach the engine at {}", self.config.url);
        let connected = match tls::connect(&self.config) {
            Ok(docker) => bounded(times::LOOK, Call::Reads, &what, docker.negotiate_version()).await,
            Err(error) => Err(error),
        };
        *agreed = match &connected {
            Ok(docker) => Agreed::On(docker.clone()),
            Err(error) => Agreed::Failed(Instant::now(), error.clone()),
        };
        connected
    }

    /// Where it listens, as it was written down.
    pub(crate) fn url(&self) -> &str {
        &self.config.url
    }

    /// That it answers now.
    pub(crate) async fn reached(&self) -> Result<()> {
        let docker = self.api().await?;
        bounded(times::LOOK, Call::Reads, &format!("reach the engine at {}", self.config.url), docker.ping())
            .await
            .map(drop)
    }

    /// What the engine says of itself and its machine.
    pub(crate) async fn info(&self) -> Result<SystemInfo> {
        let docker = self.api().await?;
        bounded(times::LOOK, Call::Reads, &format!("look at the engine at {}", self.config.url), docker.info()).await
    }

    /// Containers with these labels, running or not.
    pub(crate) async fn list(&self, labels: &[(&str, &str)]) -> Result<Vec<ContainerSummary>> {
        let docker = self.api().await?;
        let filters = Some(label::filter(labels));
        let options = ListContainersOptions { all: true, filters, ..ListContainersOptions::default() };
        bounded(times::CONTROL, Call::Reads, "list containers", docker.list_containers(Some(options))).await
    }

    /// A container by id or name; `None` where there is none.
    pub(crate) async fn inspect(&self, container: &str) -> Result<Option<Looked>> {
        let docker = self.api().await?;
        let what = format!("inspect container {container}");
        let seen = bounded(times::CONTROL, Call::Reads, &what, docker.inspect_container(container, None)).await;
        match seen {
            Ok(seen) => Ok(Some(looked(seen))),
            Err(error) if *error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a container; its id.
    pub(crate) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<String> {
        let docker = self.api().await?;
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let what = format!("create container {name}");
        let made = bounded(times::START, Call::Acts, &what, docker.create_container(Some(options), body)).await?;
        Ok(made.id)
    }

    /// Starts a container. One that runs already is success.
    pub(crate) async fn start(&self, id: &str) -> Result<()> {
        let docker = self.api().await?;
        let what = format!("start container {}", short(id));
        bounded(times::START, Call::Acts, &what, docker.start_container(id, None)).await
    }

    /// Sends a signal. Says whether it ran.
    pub(crate) async fn kill(&self, id: &str, signal: i32) -> Result<bool> {
        let docker = self.api().await?;
        let options = KillContainerOptionsBuilder::new().signal(&signal.to_string()).build();
        let what = format!("signal container {}", short(id));
        match bounded(times::CONTROL, Call::Acts, &what, docker.kill_container(id, Some(options))).await {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => Ok(false),
            // Some versions say so with a 500.
            Err(error) if error.to_string().contains("is not running") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Pauses a container.
    pub(crate) async fn pause(&self, id: &str) -> Result<()> {
        let docker = self.api().await?;
        let what = format!("pause container {}", short(id));
        bounded(times::CONTROL, Call::Acts, &what, docker.pause_container(id)).await
    }

    /// Has a paused container go on. Says whether it was paused.
    pub(crate) async fn unpause(&self, id: &str) -> Result<bool> {
        let docker = self.api().await?;
        let what = format!("unpause container {}", short(id));
        match bounded(times::CONTROL, Call::Acts, &what, docker.unpause_container(id)).await {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => Ok(false),
            // Some versions say so with a 500.
            Err(error) if ["is not paused", "is not running"].iter().any(|why| error.to_string().contains(why)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until a container does not run, and for so long at most.
    pub(crate) async fn ended(&self, id: &str, limit: Duration) -> Result<Ended> {
        let docker = self.api().await?;
        let mut waiting = Box::pin(docker.wait_container(id, None));
        let code = |code: i64| i32::try_from(code).map_or(Ended::Somehow, Ended::Code);
        match tokio::time::timeout(limit, waiting.next()).await {
            Err(_) => Ok(Ended::NotYet),
            Ok(Some(Ok(answer))) => Ok(code(answer.status_code)),
            // A code other than 0 is told as an error.
            Ok(Some(Err(EngineError::DockerContainerWaitError { code: other, .. }))) => Ok(code(other)),
            Ok(None) => Ok(Ended::Somehow),
            Ok(Some(Err(error))) if error::status(&error) == Some(404) => Ok(Ended::Somehow),
            Ok(Some(Err(error))) => Err(error::of(&error, Call::Reads, &format!("wait for container {}", short(id)))),
        }
    }

    /// Removes a container with its anonymous volumes; with `force` also one that runs. A missing one is success.
    pub(crate) async fn remove(&self, id: &str, force: bool) -> Result<()> {
        let docker = self.api().await?;
        let what = format!("remove container {}", short(id));
        let options = || RemoveContainerOptionsBuilder::new().v(true).force(force).build();
        let began = Instant::now();
        let mut pauses = crate::shared::pauses();
        loop {
            let removed = bounded(times::REMOVE, Call::Acts, &what, docker.remove_container(id, Some(options()))).await;
            match removed {
                Ok(()) => return Ok(()),
                Err(error) if *error.kind() == ErrorKind::NotFound => return Ok(()),
                // Somebody else removes it at this moment: it is gone when nobody finds it any more.
                Err(error) if error.to_string().contains("already in progress") => {
                    if began.elapsed() >= times::REMOVE {
                        return Err(Error::unavailable(format!("{what}: its removal does not come to an end")));
                    }
                    tokio::time::sleep(pauses.next().unwrap_or(times::AGAIN.1)).await;
                    if self.inspect(id).await?.is_none() {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether a container has a file of this name.
    pub(crate) async fn has_file(&self, id: &str, path: &str) -> Result<bool> {
        let docker = self.api().await?;
        let options = ContainerArchiveInfoOptionsBuilder::new().path(path).build();
        let what = format!("look for {path} in container {}", short(id));
        let found = docker.get_container_archive_info(id, Some(options));
        match bounded(times::CONTROL, Call::Reads, &what, found).await {
            Ok(_) => Ok(true),
            Err(error) if *error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A call that ends in time.
pub(crate) async fn bounded<T>(
    limit: Duration,
    call: Call,
    what: &str,
    work: impl Future<Output = Result<T, EngineError>>,
) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done.map_err(|error| error::of(&error, call, what)),
        Err(_) => Err(error::timed_out(call, what)),
    }
}

/// An id as people see it.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn looked(seen: ContainerInspectResponse) -> Looked {
    let (config, state) = (seen.config.unwrap_or_default(), seen.state.unwrap_or_default());
    Looked {
        id: seen.id.unwrap_or_default(),
        labels: config.labels.unwrap_or_default(),
        condition: condition(&state),
        paused: state.status == Some(ContainerStateStatusEnum::PAUSED),
        path: seen.path.unwrap_or_default(),
        env: config.env.unwrap_or_default(),
        cwd: config.working_dir.unwrap_or_default(),
    }
}

/// What the engine says of a container's life. It tells a signal as 128 and its number, and a program that ended with that
/// code in the same way, so both are codes here.
fn condition(state: &ContainerState) -> Condition {
    use ContainerStateStatusEnum as Status;
    match state.status {
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING | Status::STOPPING) => {
            Condition::Running(state.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default())
        }
        Some(Status::CREATED) => Condition::Created,
        Some(Status::REMOVING) => Condition::Leaving,
        Some(Status::EXITED | Status::DEAD | Status::EMPTY) | None => {
            let code = state.exit_code.and_then(|code| i32::try_from(code).ok());
            // The flag stays where a process beside the main one was ended, which goes on.
            let memory = state.oom_killed == Some(true) && code == Some(KILLED);
            Condition::Exited(if memory { Exit::OutOfMemory } else { code.map_or(Exit::Unknown, Exit::Code) })
        }
    }
}

/// What a list says of a container's life, as far as it does: not which process, and not how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rough {
    Created,
    Running,
    Ended,
    Leaving,
}

pub(crate) fn rough(summary: &ContainerSummary) -> Rough {
    use ContainerSummaryStateEnum as State;
    match summary.state {
        Some(State::CREATED) => Rough::Created,
        Some(State::RUNNING | State::PAUSED | State::RESTARTING | State::STOPPING) => Rough::Running,
        Some(State::REMOVING) => Rough::Leaving,
        _ => Rough::Ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_has_its_code_and_what_is_not_told_is_unknown() {
        let state = |status, exit_code| ContainerState { status: Some(status), exit_code, ..ContainerState::default() };
        use ContainerStateStatusEnum as Status;
        assert_eq!(condition(&state(Status::EXITED, Some(137))), Condition::Exited(Exit::Code(137)));
        let memory = |code| ContainerState { oom_killed: Some(true), ..state(Status::EXITED, Some(code)) };
        assert_eq!(condition(&memory(137)), Condition::Exited(Exit::OutOfMemory));
        assert_eq!(condition(&memory(3)), Condition::Exited(Exit::Code(3)), "one of its children was ended");
        assert_eq!(condition(&state(Status::DEAD, None)), Condition::Exited(Exit::Unknown));
        assert_eq!(condition(&state(Status::CREATED, Some(128))), Condition::Created);
        assert_eq!(condition(&ContainerState::default()), Condition::Exited(Exit::Unknown));
    }
}
