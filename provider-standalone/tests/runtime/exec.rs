//! Commands beside a container, and its output.

use std::time::Duration;

use bytes::Bytes;
use cocktail_core::contract::{ExecInput, ExecOutput, ExecSpec, Exit, LogOptions};
use cocktail_core::error::ErrorKind;
use cocktail_core::id::ContainerId;
use futures_util::{SinkExt, StreamExt};

use crate::machine::{Machine, PATIENCE, content, trials};

trials![
    a_command_sees_the_container_and_answers_with_its_code,
    a_command_on_a_terminal_sees_one,
    a_command_that_takes_too_long_is_ended,
    output_is_read_and_followed,
    a_container_that_is_not_there_is_not_found,
];

fn spec(command: &[&str]) -> ExecSpec {
    ExecSpec { command: command.iter().map(ToString::to_string).collect(), tty: None, timeout: None }
}

async fn a_command_sees_the_container_and_answers_with_its_code(machine: &mut Machine) {
    let mut launch = machine.launch("job-1", &["sleep", "600"]);
    launch.env.insert("GREETING".into(), "hi".into());
    machine.run(&launch).await;
    let script = "read line; echo \"$GREETING $line\"; echo oops >&2; exit 4";
    let mut session = machine.runtime().exec(&launch.container, &spec(&["sh", "-c", script])).await.unwrap();
    session.input.send(ExecInput::Stdin(Bytes::from_static(b"there\n"))).await.unwrap();
    // It reads one line and may have ended by now; what is sent to it then is lost, as in a pipe.
    let _ = session.input.send(ExecInput::Eof).await;
    let (mut out, mut err, mut exit) = (Vec::new(), Vec::new(), None);
    while let Some(output) = session.output.next().await {
        match output.unwrap() {
            ExecOutput::Stdout(bytes) => out.extend(bytes),
            ExecOutput::Stderr(bytes) => err.extend(bytes),
            ExecOutput::Exit(ended) => exit = Some(ended),
        }
    }
    assert_eq!((out.as_slice(), err.as_slice(), exit), (&b"hi there\n"[..], &b"oops\n"[..], Some(Exit::Code(4))));
}

async fn a_command_on_a_terminal_sees_one(machine: &mut Machine) {
    let launch = machine.launch("job-1", &["sleep", "600"]);
    machine.run(&launch).await;
    let spec = ExecSpec { tty: Some((33, 99)), ..spec(&["sh", "-c", "tty; stty size"]) };
    let mut session = machine.runtime().exec(&launch.container, &spec).await.unwrap();
    let mut out = String::new();
    while let Some(output) = session.output.next().await {
        if let ExecOutput::Stdout(bytes) = output.unwrap() {
            out.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    assert!(out.contains("/dev/pts/") && out.contains("33 99"), "{out}");
}

async fn a_command_that_takes_too_long_is_ended(machine: &mut Machine) {
    let launch = machine.launch("job-1", &["sleep", "600"]);
    machine.run(&launch).await;
    let script = "echo $$ > pid.new; mv pid.new pid; exec sleep 600";
    // Long enough that the command has begun before it is ended.
    let spec = ExecSpec { timeout: Some(Duration::from_secs(1)), ..spec(&["sh", "-c", script]) };
    let mut session = machine.runtime().exec(&launch.container, &spec).await.unwrap();
    let pid: u32 = content(machine.cwd.path().join("pid")).await.trim().parse().unwrap();
    let error = session.output.next().await.unwrap().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Deadline);
    assert!(session.output.next().await.is_none());
    crate::machine::until("the command has ended", || !crate::machine::lives(pid)).await;
}

async fn output_is_read_and_followed(machine: &mut Machine) {
    let script = "echo one; echo two >&2; while ! test -f go; do sleep 0.01; done; echo three; sleep 600";
    let launch = machine.launch("job-1", &["sh", "-c", script]);
    machine.run(&launch).await;
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut lines = machine.runtime().logs(&launch.container, &options).await.unwrap();
    let mut seen = Vec::new();
    let reading = async {
        while seen.len() < 3 {
            let line = lines.next().await.unwrap().unwrap();
            assert!(line.at.0 > 1_500_000_000_000_000 && line.container == "job-1");
            seen.push((line.text, line.stderr));
            if seen.len() == 2 {
                std::fs::write(machine.cwd.path().join("go"), "").unwrap();
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap();
    seen[..2].sort();
    let expected = [("one", false), ("two", true), ("three", false)].map(|(text, stderr)| (text.to_owned(), stderr));
    assert_eq!(seen, expected);
    let tail = LogOptions { tail: Some(1), ..LogOptions::default() };
    let last: Vec<_> = machine.runtime().logs(&launch.container, &tail).await.unwrap().collect().await;
    assert_eq!(last.len(), 1);
    assert_eq!(last[0].as_ref().unwrap().text, "three");
}

async fn a_container_that_is_not_there_is_not_found(machine: &mut Machine) {
    let id = ContainerId::new("nobody-1");
    let error = machine.runtime().exec(&id, &spec(&["true"])).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{}", error.chain());
    let error = machine.runtime().logs(&id, &LogOptions::default()).await.map(drop).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{}", error.chain());
}
