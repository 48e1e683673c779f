//! Output of containers, and commands beside them.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use cocktail_core::contract::{
    ExecInput, ExecOutput, ExecSession, ExecSpec, Exit, Launch, LogLine, LogOptions, Runtime,
};
use cocktail_core::error::ErrorKind;
use cocktail_core::id::ContainerId;
use cocktail_core::spec::Template;
use futures_util::{SinkExt, StreamExt, TryStreamExt};

use super::scene::{Events, Scene};
use crate::conformance::case::{Case, Doing, Stop, Verdict, cases, ensure, ensure_eq, ensure_error};

/// Lines that a worker writes.
const LINES: usize = 200;

pub(super) fn cases<'f>() -> Vec<Case<Scene<'f>>> {
    cases![
        output_comes_back_in_order,
        output_of_what_has_ended_can_be_read,
        a_command_sees_the_container_and_answers_with_its_code,
        a_command_on_a_terminal_sees_one if tty,
        a_command_that_takes_too_long_is_ended,
        output_and_commands_of_a_missing_container_are_not_found,
        problems_of_a_template_are_found_and_named,
    ]
}

async fn output_comes_back_in_order(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let script =
        format!("i=0; while test $i -lt {LINES}; do i=$((i+1)); echo line $i; done; echo end >&2; exec sleep 600");
    let launch = scene.launch("a", &script);
    scene.run(&*runtime, &launch).await?;
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let following = runtime.logs(&launch.container, &options).await.doing("follow the output")?;
    let all = following.take(LINES + 1).try_collect::<Vec<LogLine>>();
    let lines = scene.waiting.on("every line", all).await.doing("read the output")?;
    let (stderr, stdout): (Vec<&LogLine>, Vec<&LogLine>) = lines.iter().partition(|line| line.stderr);
    let texts = |lines: &[&LogLine]| lines.iter().map(|line| line.text.clone()).collect::<Vec<_>>();
    ensure_eq!(texts(&stdout), (1..=LINES).map(|number| format!("line {number}")).collect::<Vec<_>>(), "stdout");
    ensure_eq!(texts(&stderr), ["end"], "stderr");
    ensure!(lines.iter().all(|line| line.container == launch.container.as_str()), "a line names another container");
    ensure!(lines.is_sorted_by_key(|line| line.at), "the times of the lines go back");

    let tail = LogOptions { tail: Some(5), ..LogOptions::default() };
    let last =
        runtime.logs(&launch.container, &tail).await?.try_collect::<Vec<LogLine>>().await.doing("read the tail")?;
    ensure_eq!(last, lines[lines.len() - 5..], "the last five lines");
    let since = LogOptions { since: Some(lines[LINES / 2].at), ..LogOptions::default() };
    let later = runtime.logs(&launch.container, &since).await?.try_collect::<Vec<LogLine>>().await?;
    let expected: Vec<LogLine> = lines.iter().filter(|line| line.at >= lines[LINES / 2].at).cloned().collect();
    ensure_eq!(later, expected, "the lines since a time");
    Ok(())
}

async fn output_of_what_has_ended_can_be_read(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let mut events = Events::of(&*runtime);
    // The last line has no line break.
    let launch = scene.launch("a", "echo first; printf last; exit 3");
    scene.run(&*runtime, &launch).await?;
    scene.told(&*runtime, &mut events, &launch).await?;
    let lines = runtime.logs(&launch.container, &LogOptions::default()).await.doing("read the output")?;
    let lines = lines.try_collect::<Vec<LogLine>>().await.doing("read the output")?;
    ensure_eq!(lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["first", "last"], "the output");
    Ok(())
}

fn spec(script: &str) -> ExecSpec {
    ExecSpec { command: ["sh", "-c", script].map(str::to_owned).to_vec(), tty: None, timeout: None }
}

/// Everything that a command says.
async fn heard(mut session: ExecSession) -> Verdict<(String, String, Exit)> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(output) = session.output.next().await {
        match output.doing("read what the command says")? {
            ExecOutput::Stdout(bytes) => out.extend(bytes),
            ExecOutput::Stderr(bytes) => err.extend(bytes),
            ExecOutput::Exit(exit) => {
                ensure!(session.output.next().await.is_none(), "something comes after the command's end");
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                return Ok((text(out), text(err), exit));
            }
        }
    }
    Err(Stop::Failed("what the command says ends without its end".into()))
}

/// Runs a script beside a container to its end, which must be a good one.
pub(super) async fn command(runtime: &dyn Runtime, launch: &Launch, script: &str) -> Verdict {
    let session = runtime.exec(&launch.container, &spec(script)).await.doing("run a command")?;
    ensure_eq!(heard(session).await?.2, Exit::Code(0), "the end of `{script}`");
    Ok(())
}

async fn a_command_sees_the_container_and_answers_with_its_code(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let mut launch = scene.launch("a", "exec sleep 600");
    launch.env.insert("GREETING".into(), "hi".into());
    scene.run(&*runtime, &launch).await?;
    let script = spec("read line; echo \"$GREETING $line\"; echo oops >&2; exit 4");
    let mut session = runtime.exec(&launch.container, &script).await.doing("run a command")?;
    session.input.send(ExecInput::Stdin(Bytes::from_static(b"there\n"))).await.doing("write to the command")?;
    // It reads one line and may have ended by now; what is sent to it then is lost, as in a pipe.
    let _ended = session.input.send(ExecInput::Eof).await;
    let (out, err, exit) = scene.waiting.on("the command's end", heard(session)).await?;
    ensure_eq!((out.as_str(), err.as_str(), exit), ("hi there\n", "oops\n", Exit::Code(4)), "what the command says");
    Ok(())
}

async fn a_command_on_a_terminal_sees_one(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let launch = scene.launch("a", "exec sleep 600");
    scene.run(&*runtime, &launch).await?;
    // The size may come a moment after the command, as every later one does.
    let wait = "i=0; while test $i -lt 200 && test \"$(stty size 2>&1)\" != '33 99'; do i=$((i+1)); sleep 0.02; done";
    let script =
        ExecSpec { tty: Some((33, 99)), ..spec(&format!("test -t 0 && test -t 1 && {{ {wait}; stty size; }}")) };
    let session = runtime.exec(&launch.container, &script).await.doing("run a command on a terminal")?;
    let (out, _, exit) = scene.waiting.on("the command's end", heard(session)).await?;
    ensure_eq!((out.trim(), exit), ("33 99", Exit::Code(0)), "the terminal's size");
    Ok(())
}

async fn a_command_that_takes_too_long_is_ended(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let launch = scene.launch("a", "exec sleep 600");
    let handle = scene.run(&*runtime, &launch).await?;
    let long = ExecSpec { timeout: Some(Duration::from_millis(100)), ..spec("exec sleep 600") };
    let mut session = runtime.exec(&launch.container, &long).await.doing("run a command")?;
    let end = scene.waiting.on("the command's deadline", session.output.next()).await;
    let end = end.ok_or_else(|| Stop::Failed("what the command says ends without a word of its deadline".into()))?;
    ensure_error!(end, ErrorKind::Deadline, "a command that takes too long");
    drop(session);
    // The worker stays, the command goes: it has the mark of the container that it ran beside.
    let look = || async { Ok(scene.one_process(&*runtime, &launch, &handle).await.ok()) };
    scene.waiting.find("the command to be gone and the worker to stay", look).await
}

async fn output_and_commands_of_a_missing_container_are_not_found(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let nobody = ContainerId::new("nobody-of-that-name");
    ensure_error!(runtime.exec(&nobody, &spec("true")).await, ErrorKind::NotFound, "a command beside nobody");
    let logs = runtime.logs(&nobody, &LogOptions::default()).await;
    ensure_error!(logs, ErrorKind::NotFound, "output of nobody");
    Ok(())
}

/// A template as a manifest in `folder` says it.
pub(crate) fn template(folder: &Path, lines: &str) -> Verdict<Template> {
    let text = format!("service = \"conformance\"\n[maps.test.units.web]\n{lines}\n");
    let parsed = cocktail_core::manifest::parse(&text, Path::new("conformance.toml"), folder);
    let parsed = parsed.map_err(|problems| Stop::Failed(format!("the manifest is refused: {problems:?}")))?;
    let maps = parsed.service.into_iter().flat_map(|service| service.maps.into_values());
    let template = maps.flat_map(|map| map.units.into_values()).map(|unit| unit.template).next();
    template.ok_or_else(|| Stop::Failed("the manifest names no unit".into()))
}

async fn problems_of_a_template_are_found_and_named(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let folder = scene.launch("a", "true").cwd;
    if scene.capabilities.images {
        let sound = template(&folder, "image = \"conformance\"")?;
        ensure_eq!(runtime.check(&sound).await.doing("check a template")?, [], "problems of a sound template");
        let bad = template(&folder, "command = [\"sh\"]")?;
        let problems = runtime.check(&bad).await.doing("check a template")?;
        ensure!(problems.iter().any(|(key, _)| key == "command"), "a missing image is not named: {problems:?}");
        return Ok(());
    }
    let sound = template(&folder, "command = [\"sh\", \"-c\", \"exec sleep 600\"]")?;
    ensure_eq!(runtime.check(&sound).await.doing("check a template")?, [], "problems of a sound template");
    let bad = template(&folder, "command = [\"no-such-program-anywhere\"]")?;
    let problems = runtime.check(&bad).await.doing("check a template")?;
    ensure!(problems.iter().any(|(key, _)| key == "command"), "a missing program is not named: {problems:?}");
    let bad = template(&folder, "command = [\"sh\"]\ncwd = \"no-such-folder-anywhere\"")?;
    let problems = runtime.check(&bad).await.doing("check a template")?;
    ensure!(problems.iter().any(|(key, _)| key == "cwd"), "a missing folder is not named: {problems:?}");
    Ok(())
}
