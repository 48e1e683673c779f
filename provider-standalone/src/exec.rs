//! Commands beside a container, between the keeper's session and core's.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cocktail_core::contract::{ExecInput, ExecOutput, ExecSession, ExecSpec, Exit};
use cocktail_core::error::{Error, ErrorKind};
use cocktail_core::id::ContainerId;
use cocktail_core::time::human;
use cocktail_keeper::protocol::{ExecRequest, ExitStatus};
use futures_util::{Sink, StreamExt, sink, stream};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::{Call, of_keeper};

/// What the keeper is asked for.
pub(crate) fn request(container: &ContainerId, spec: &ExecSpec) -> ExecRequest {
    let (rows, cols) = spec.tty.unwrap_or_default();
    ExecRequest {
        container: container.to_string(),
        argv: spec.command.clone(),
        tty: spec.tty.is_some(),
        rows,
        cols,
        ..ExecRequest::default()
    }
}

pub(crate) fn exit(status: ExitStatus) -> Exit {
    match status {
        ExitStatus::Code(code) => Exit::Code(code),
        ExitStatus::Signal(signal) => Exit::Signal(signal),
        ExitStatus::Unknown => Exit::Unknown,
    }
}

/// The writing side, which a deadline takes away from its user: the command ends when both sides are gone.
type Input = Arc<Mutex<Option<cocktail_keeper::ExecInput>>>;

/// A session as users know it.
pub(crate) fn session(session: cocktail_keeper::ExecSession, timeout: Option<Duration>) -> ExecSession {
    session_with(session, timeout, ())
}

/// The same, with something that is held as long as it is read.
pub(crate) fn session_with(
    session: cocktail_keeper::ExecSession,
    timeout: Option<Duration>,
    held: impl Send + 'static,
) -> ExecSession {
    let input = Arc::new(Mutex::new(Some(session.input())));
    let running = Running {
        session: Some(session),
        input: Arc::clone(&input),
        deadline: timeout.map(|timeout| (Instant::now() + timeout, timeout)),
    };
    let output = stream::unfold((running, held), |(mut running, held)| async move {
        let output = running.next().await?;
        Some((output, (running, held)))
    });
    ExecSession { input: writer(input), output: output.boxed() }
}

fn writer(input: Input) -> Pin<Box<dyn Sink<ExecInput, Error = Error> + Send>> {
    Box::pin(sink::unfold(input, |input, item| async move {
        // Taken out of the lock: a write may wait for as long as the command does not read.
        let writer = input.lock().await.clone();
        let Some(writer) = writer else { return Err(Error::not_found("the command has ended")) };
        let sent = match item {
            ExecInput::Stdin(bytes) => writer.write(&bytes).await,
            ExecInput::Eof => writer.close().await,
            ExecInput::Resize(rows, cols) => writer.resize(rows, cols).await,
        };
        sent.map_err(|error| of_keeper(error, Call::Acts))?;
        Ok(input)
    }))
}

struct Running {
    session: Option<cocktail_keeper::ExecSession>,
    input: Input,
    deadline: Option<(Instant, Duration)>,
}

impl Running {
    async fn next(&mut self) -> Option<Result<ExecOutput, Error>> {
        let session = self.session.as_mut()?;
        let next = match self.deadline {
            None => session.next().await,
            Some((deadline, limit)) => match tokio::time::timeout_at(deadline, session.next()).await {
                Ok(next) => next,
                Err(_) => {
                    self.end().await;
                    let message = format!("the command did not end within {}", human(limit));
                    return Some(Err(Error::new(ErrorKind::Deadline, message)));
                }
            },
        };
        match next {
            Ok(cocktail_keeper::ExecOutput::Stdout(bytes)) => Some(Ok(ExecOutput::Stdout(bytes))),
            Ok(cocktail_keeper::ExecOutput::Stderr(bytes)) => Some(Ok(ExecOutput::Stderr(bytes))),
            Ok(cocktail_keeper::ExecOutput::Exit(status)) => {
                self.end().await;
                Some(Ok(ExecOutput::Exit(exit(status))))
            }
            Err(error) => {
                self.end().await;
                Some(Err(of_keeper(error, Call::Acts)))
            }
        }
    }

    async fn end(&mut self) {
        self.session = None;
        *self.input.lock().await = None;
    }
}
