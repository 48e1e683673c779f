//! `exec`: a command beside a container. Its exit code becomes ours, which is the one exception to our own codes.

use std::io::{self, Read};

use bytes::Bytes;
use cocktail_core::contract::{Actor, ExecInput, ExecOutput, ExecSession, ExecSpec, Exit, Manager};
use futures_util::{SinkExt, StreamExt};
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;

use crate::args::ExecArgs;
use crate::failure::{Failure, Outcome};
use crate::interrupt;
use crate::output::Ui;
use crate::terminal::{self, Raw};

/// Runs a command and hands its streams through.
///
/// # Errors
/// [`Failure::Exit`] unless the command ended with code 0.
pub(crate) async fn exec(manager: &dyn Manager, actor: &Actor, args: ExecArgs, ui: &mut Ui) -> Outcome {
    let tty = args.tty.then(terminal::size);
    let spec = ExecSpec { command: args.command, tty, timeout: args.timeout };
    let session = manager.exec(&args.container, &spec, actor).await?;
    let mut terminate = interrupt::on(SignalKind::terminate())?;
    let mut hang_up = interrupt::on(SignalKind::hangup())?;
    let (feed, input) = mpsc::channel(8);
    // Raw mode only once the command runs, so that an error before is readable and Ctrl-C still ends us.
    let raw = if args.tty && args.interactive {
        Raw::begin().map_err(|error| Failure::Failed(format!("cannot make the terminal raw: {error}")))?
    } else {
        None
    };
    if args.tty {
        let sizes = feed.clone();
        let mut changes = interrupt::on(SignalKind::window_change())?;
        tokio::spawn(async move {
            while changes.recv().await.is_some() {
                let (rows, columns) = terminal::size();
                if sizes.send(ExecInput::Resize(rows, columns)).await.is_err() {
                    return;
                }
            }
        });
    }
    if args.interactive {
        // A thread of its own, since a read from a terminal cannot be given up; it ends with the process.
        std::thread::spawn(move || pump(io::stdin(), &feed));
    } else {
        let _ = feed.send(ExecInput::Eof).await;
    }
    let ended = tokio::select! {
        ended = converse(session, input, ui) => ended,
        _ = terminate.recv() => Err(Failure::Exit(143)),
        _ = hang_up.recv() => Err(Failure::Exit(129)),
    };
    drop(raw);
    match code(ended?) {
        0 => Ok(()),
        code => Err(Failure::Exit(code)),
    }
}

/// Our exit code for the end of a command, as shells give it.
fn code(exit: Exit) -> u8 {
    match exit {
        Exit::Code(code) => u8::try_from(code & 0xff).unwrap_or(1),
        Exit::Signal(signal) => u8::try_from(128 + signal).unwrap_or(255),
        Exit::OutOfMemory => 137,
        Exit::Unknown => 1,
    }
}

/// Reads all input into the channel, then says that there is no more.
fn pump(mut from: impl Read, to: &mpsc::Sender<ExecInput>) {
    let mut buffer = [0; 8192];
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(read) if read > 0 => read,
            _ => break,
        };
        if to.blocking_send(ExecInput::Stdin(Bytes::copy_from_slice(&buffer[..read]))).is_err() {
            return;
        }
    }
    let _ = to.blocking_send(ExecInput::Eof);
}

/// Carries input and output until the command has ended. Input that nobody takes never keeps output waiting.
async fn converse(session: ExecSession, mut input: mpsc::Receiver<ExecInput>, ui: &mut Ui) -> Outcome<Exit> {
    let ExecSession { input: mut sink, mut output } = session;
    let feed = async {
        while let Some(item) = input.recv().await {
            if sink.send(item).await.is_err() {
                break;
            }
        }
        // The sink stays: dropping it may end the command before its output is complete.
        std::future::pending::<()>().await;
    };
    tokio::pin!(feed);
    loop {
        let item = tokio::select! {
            item = output.next() => item,
            () = &mut feed => None,
        };
        match item {
            Some(Ok(ExecOutput::Stdout(bytes))) => ui.bytes(&bytes)?,
            Some(Ok(ExecOutput::Stderr(bytes))) => ui.error_bytes(&bytes),
            Some(Ok(ExecOutput::Exit(exit))) => return Ok(exit),
            Some(Err(error)) => return Err(error.into()),
            None => return Err(Failure::Failed("the session ended before the command did".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;
    use crate::output::testing::{closed, ui};
    use crate::testing::{FakeManager, said};

    fn args() -> ExecArgs {
        ExecArgs {
            interactive: false,
            tty: false,
            timeout: None,
            container: "web-1".into(),
            command: vec!["ls".into(), "-l".into()],
        }
    }

    async fn run(output: Vec<ExecOutput>) -> (Outcome, String, String) {
        let manager = FakeManager { exec: output, ..FakeManager::default() };
        let (mut ui, data, people) = ui(Format::Table);
        let outcome = exec(&manager, &Actor::uid(0), args(), &mut ui).await;
        assert_eq!(manager.calls(), ["exec web-1 [\"ls\", \"-l\"] tty=None"]);
        (outcome, data.text(), people.text())
    }

    #[tokio::test]
    async fn output_is_handed_through_and_the_exit_code_is_ours() {
        let mut output = said("out\n", Exit::Code(7));
        output.insert(0, ExecOutput::Stderr(Bytes::from_static(b"err\n")));
        let (outcome, data, people) = run(output).await;
        assert_eq!((data.as_str(), people.as_str()), ("out\n", "err\n"));
        let failure = outcome.unwrap_err();
        assert_eq!((failure.code(), failure.report()), (7, None));
        assert!(run(said("", Exit::Code(0))).await.0.is_ok());
        assert_eq!(run(said("", Exit::Signal(9))).await.0.unwrap_err().code(), 137);
    }

    #[tokio::test]
    async fn a_session_that_breaks_off_is_a_failure() {
        assert_eq!(run(Vec::new()).await.0.unwrap_err().code(), 1);
    }

    #[tokio::test]
    async fn a_reader_that_has_gone_ends_the_session_quietly() {
        let manager = FakeManager { exec: said("x", Exit::Code(0)), ..FakeManager::default() };
        let failure = exec(&manager, &Actor::uid(0), args(), &mut closed()).await.unwrap_err();
        assert_eq!((failure.code(), failure.report()), (0, None));
    }

    #[test]
    fn input_ends_with_the_word_that_it_has_ended() {
        let (sender, mut receiver) = mpsc::channel(8);
        pump(&b"hello"[..], &sender);
        assert_eq!(receiver.try_recv().unwrap(), ExecInput::Stdin(Bytes::from_static(b"hello")));
        assert_eq!(receiver.try_recv().unwrap(), ExecInput::Eof);
    }
}
