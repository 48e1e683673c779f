//! Commands beside a container, between the engine's session and core's.
//!
//! An engine begins commands and never ends them. So each has a mark in its environment, and is ended by a second command
//! that looks for the mark and kills who has it. That needs `sh`, `tr` and `kill` in the image; where they are missing, a
//! command that nobody waits for any more goes on until its container ends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error as EngineError;
use bollard::exec::{ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use cocktail_core::contract::{ExecInput, ExecOutput, ExecSession, ExecSpec, Exit};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::time::human;
use futures_util::stream::{self, BoxStream};
use futures_util::{Sink, StreamExt, sink};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::{bounded, short};
use crate::error::{self, Call};
use crate::shared::Shared;
use crate::times;

/// The mark of a command.
const MARK: &str = "COCKTAIL_EXEC";
/// Kills who has the mark that stands for `{}`.
const KILL: &str = "for p in /proc/[0-9]*; do case \"$(tr '\\0' '\\n' <\"$p/environ\" 2>/dev/null)\" in \
                    *COCKTAIL_EXEC={}*) kill -9 \"${p#/proc/}\";; esac; done";

/// The writing side, which a deadline takes away from its user, also in the middle of a write.
#[derive(Clone)]
struct Input {
    open: Arc<Mutex<Pin<Box<dyn AsyncWrite + Send>>>>,
    over: CancellationToken,
}

/// Begins a command beside a container of the engine. `held` is kept for as long as it is read.
///
/// # Errors
/// `NotFound` for a container that does not run; `InvalidConfig` for a command that cannot be.
pub(crate) async fn begin(
    shared: &Shared,
    id: &str,
    spec: &ExecSpec,
    held: impl Send + 'static,
) -> Result<ExecSession> {
    let docker = shared.engine.api().await?;
    let mark = mark();
    let (rows, cols) = spec.tty.unwrap_or_default();
    let config = ExecConfig {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(spec.tty.is_some()),
        console_size: spec.tty.map(|_| vec![usize::from(rows), usize::from(cols)]),
        cmd: Some(spec.command.clone()),
        env: Some(vec![format!("{MARK}={mark}")]),
        ..ExecConfig::default()
    };
    let what = format!("run a command beside container {}", short(id));
    let made = match bounded(times::CONTROL, Call::Acts, &what, docker.create_exec(id, config)).await {
        Err(error) if *error.kind() == ErrorKind::Conflict => return Err(Error::not_found(error.to_string())),
        made => made?,
    };
    let options = StartExecOptions { detach: false, tty: spec.tty.is_some(), output_capacity: None };
    let began = bounded(times::START, Call::Acts, &what, docker.start_exec(&made.id, Some(options))).await?;
    let StartExecResults::Attached { output, input } = began else {
        return Err(Error::unexpected(format!("{what}: the engine attached nothing")));
    };
    let command = Arc::new(Command { docker, container: id.to_owned(), exec: made.id, mark, ended: false.into() });
    if spec.tty.is_some() {
        // Engines that do not take a size at the beginning take it now.
        command.resize(rows, cols).await;
    }
    let input = Input { open: Arc::new(Mutex::new(input)), over: CancellationToken::new() };
    let running = Running {
        command: Arc::clone(&command),
        output: Some(output.boxed()),
        input: input.clone(),
        deadline: spec.timeout.map(|timeout| (Instant::now() + timeout, timeout)),
        what,
    };
    let output = stream::unfold((running, held), |(mut running, held)| async move {
        let output = running.next().await?;
        Some((output, (running, held)))
    });
    Ok(ExecSession { input: writer(input, command), output: output.boxed() })
}

/// A value that no other command has.
fn mark() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // With an end of its own, so that none is the beginning of another.
    format!("{:x}-{:x}-{count:x}.", std::process::id(), since.as_nanos())
}

/// One command, which ends with the last who has it.
struct Command {
    docker: Docker,
    container: String,
    exec: String,
    mark: String,
    ended: AtomicBool,
}

impl Command {
    async fn resize(&self, rows: u16, cols: u16) {
        let options = ResizeExecOptions { height: rows, width: cols };
        let what = "resize the terminal of a command";
        let resized = self.docker.resize_exec(&self.exec, options);
        if let Err(error) = bounded(times::LOOK, Call::Acts, what, resized).await {
            tracing::debug!(error = %error.chain(), "a terminal keeps its size");
        }
    }

    /// How it ended. The engine writes that down a moment after the last output.
    async fn exit(&self, what: &str) -> Result<Exit> {
        let began = Instant::now();
        let mut pauses = crate::shared::pauses();
        loop {
            let seen = bounded(times::CONTROL, Call::Reads, what, self.docker.inspect_exec(&self.exec)).await?;
            if seen.running != Some(true) {
                let code = seen.exit_code.and_then(|code| i32::try_from(code).ok());
                return Ok(code.map_or(Exit::Unknown, Exit::Code));
            }
            if began.elapsed() >= times::KILLED {
                return Ok(Exit::Unknown);
            }
            tokio::time::sleep(pauses.next().unwrap_or(times::AGAIN.1)).await;
        }
    }

    fn is_over(&self) -> bool {
        self.ended.swap(true, Ordering::AcqRel)
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.is_over() {
            runtime.spawn(kill(self.docker.clone(), self.container.clone(), self.mark.clone()));
        }
    }
}

/// Ends whatever has the mark.
async fn kill(docker: Docker, container: String, mark: String) {
    let script = KILL.replace("{}", &mark);
    let config = ExecConfig {
        attach_stdout: Some(true),
        cmd: Some(["sh", "-c", &script].map(str::to_owned).to_vec()),
        ..ExecConfig::default()
    };
    let killing = async {
        let made = docker.create_exec(&container, config).await?;
        if let StartExecResults::Attached { mut output, .. } = docker.start_exec(&made.id, None).await? {
            while output.next().await.is_some() {}
        }
        Ok::<_, EngineError>(docker.inspect_exec(&made.id).await?.exit_code)
    };
    match bounded(times::CONTROL, Call::Acts, "end a command", killing).await {
        Ok(Some(0)) => {}
        // A container that has ended has no command either.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
        failed => tracing::warn!(container = short(&container), ?failed, "a command beside a container may go on"),
    }
}

fn writer(input: Input, command: Arc<Command>) -> Pin<Box<dyn Sink<ExecInput, Error = Error> + Send>> {
    Box::pin(sink::unfold((input, command), |(input, command), item| async move {
        match item {
            ExecInput::Resize(rows, cols) => command.resize(rows, cols).await,
            ExecInput::Stdin(_) | ExecInput::Eof => {
                let mut open = input.open.lock().await;
                let sending = async {
                    match item {
                        ExecInput::Stdin(bytes) => {
                            open.write_all(&bytes).await?;
                            open.flush().await
                        }
                        _ => open.shutdown().await,
                    }
                };
                let sent = input.over.run_until_cancelled(sending).await;
                drop(open);
                let over = || Error::not_found("the command has ended");
                sent.ok_or_else(over)?.map_err(|error| over().because(error))?;
            }
        }
        Ok((input, command))
    }))
}

struct Running {
    command: Arc<Command>,
    output: Option<BoxStream<'static, Result<LogOutput, EngineError>>>,
    input: Input,
    deadline: Option<(Instant, Duration)>,
    what: String,
}

impl Running {
    async fn next(&mut self) -> Option<Result<ExecOutput>> {
        let output = self.output.as_mut()?;
        let next = match self.deadline {
            None => output.next().await,
            Some((deadline, limit)) => match tokio::time::timeout_at(deadline, output.next()).await {
                Ok(next) => next,
                Err(_) => {
                    let Command { docker, container, mark, .. } = &*self.command;
                    if !self.command.is_over() {
                        tokio::spawn(kill(docker.clone(), container.clone(), mark.clone()));
                    }
                    self.end();
                    let message = format!("the command did not end within {}", human(limit));
                    return Some(Err(Error::new(ErrorKind::Deadline, message)));
                }
            },
        };
        match next {
            Some(Ok(LogOutput::StdErr { message })) => Some(Ok(ExecOutput::Stderr(message))),
            Some(Ok(output)) => Some(Ok(ExecOutput::Stdout(output.into_bytes()))),
            Some(Err(failed)) => {
                self.end();
                Some(Err(error::of(&failed, Call::Acts, &self.what)))
            }
            None => {
                let exit = self.command.exit(&self.what).await;
                if matches!(exit, Ok(Exit::Code(_))) {
                    self.command.is_over();
                }
                self.end();
                Some(exit.map(ExecOutput::Exit))
            }
        }
    }

    /// Takes the writing side away.
    fn end(&mut self) {
        self.output = None;
        self.input.over.cancel();
    }
}
