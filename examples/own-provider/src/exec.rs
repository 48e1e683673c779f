//! Commands beside a container.

use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use cocktail_core::contract::{ExecInput, ExecOutput, ExecSession, ExecSpec, Launch};
use cocktail_core::error::{Error, ErrorKind, Result};
use futures_util::{StreamExt, sink, stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::ChildStdin;
use tokio::sync::mpsc;

use crate::error::{of_io, of_spawn};
use crate::worker::{Group, command, exit_of};

/// Longest time that a command has where none is set: as good as for ever.
const UNLIMITED: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Starts a command in the container's folder and environment. It ends with its session.
pub(crate) fn session(launch: &Launch, spec: &ExecSpec) -> Result<ExecSession> {
    if spec.tty.is_some() {
        return Err(Error::new(ErrorKind::Unsupported, "there are no terminals here"));
    }
    let mut command = command(launch, &spec.command)?;
    let mut child = command.stdin(Stdio::piped()).spawn().map_err(|error| of_spawn(&spec.command[0], error))?;
    let group = Group::of(&child)?;
    let input = sink::unfold(child.stdin.take(), write);
    let (sender, output) = mpsc::channel(16);
    let limit = spec.timeout.unwrap_or(UNLIMITED);
    tokio::spawn(async move {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let running = async {
            tokio::join!(read(stdout, &sender, ExecOutput::Stdout), read(stderr, &sender, ExecOutput::Stderr));
            Ok(ExecOutput::Exit(exit_of(child.wait().await)))
        };
        let last = tokio::select! {
            ended = running => ended,
            () = sender.closed() => return,
            () = tokio::time::sleep(limit) => {
                Err(Error::new(ErrorKind::Deadline, format!("the command did not end within {limit:?}")))
            }
        };
        drop(group);
        let _nobody_listens = sender.send(last).await;
    });
    let output = stream::unfold(output, |mut output| async move { Some((output.recv().await?, output)) });
    Ok(ExecSession { input: Box::pin(input), output: output.boxed() })
}

async fn write(stdin: Option<ChildStdin>, item: ExecInput) -> Result<Option<ChildStdin>> {
    match (item, stdin) {
        (ExecInput::Stdin(bytes), Some(mut stdin)) => {
            stdin.write_all(&bytes).await.map_err(|error| of_io("write to the command", error))?;
            Ok(Some(stdin))
        }
        (ExecInput::Eof, _) => Ok(None),
        (_, stdin) => Ok(stdin),
    }
}

async fn read(
    pipe: Option<impl AsyncRead + Unpin>,
    to: &mpsc::Sender<Result<ExecOutput>>,
    kind: impl Fn(Bytes) -> ExecOutput,
) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 8 << 10];
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        if to.send(Ok(kind(Bytes::copy_from_slice(&buffer[..length])))).await.is_err() {
            return;
        }
    }
}
