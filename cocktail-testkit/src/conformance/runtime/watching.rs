//! Seeing: the list, the events, probes and usage.

use std::time::Duration;

use cocktail_core::contract::{Exit, Launch, LaunchProbe, ProbeKind, RuntimeEvent, Sighting};
use cocktail_core::quantity::Bytes;
use cocktail_core::spec::Check;

use super::beside::command;
use super::scene::{Events, KILL, Scene, ensure_signal, stop};
use crate::conformance::case::{Case, Doing, Verdict, cases, ensure, ensure_eq};

pub(super) fn cases<'f>() -> Vec<Case<Scene<'f>>> {
    cases![
        the_list_is_complete_and_names_everything_that_runs,
        an_end_is_told_once_with_its_code,
        an_end_by_a_signal_is_told_as_one,
        every_reader_is_told_of_an_end,
        a_probe_is_told_when_its_result_changes,
        usage_is_told_for_what_runs,
        limits_of_memory_are_enforced if limits,
    ]
}

async fn the_list_is_complete_and_names_everything_that_runs(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let launches = ["a", "b", "c"].map(|name| scene.launch(name, "exec sleep 600"));
    let mut handles = Vec::new();
    for launch in &launches {
        handles.push(scene.run(&*runtime, launch).await?);
    }
    let listing = runtime.list().await.doing("list")?;
    ensure!(listing.complete, "the list is not complete");
    for (launch, handle) in launches.iter().zip(handles) {
        let Some(seen) = listing.containers.get(&launch.container) else {
            ensure!(false, "{} runs and is not listed", launch.container);
            continue;
        };
        ensure_eq!(seen.generation, launch.generation, "the generation that is listed");
        ensure_eq!(seen.sighting, Sighting::Running(handle), "what is listed of {}", launch.container);
    }
    runtime.stop(&stop(&launches[1])).await.doing("stop")?;
    let seen = scene.sighting(&*runtime, &launches[1]).await?;
    ensure!(!matches!(seen, Some(Sighting::Running(_))), "a stopped container is listed as {seen:?}");
    Ok(())
}

/// A second container's end, which comes later, shows that nothing more came of the first.
async fn an_end_is_told_once_with_its_code(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let mut events = Events::of(&*runtime);
    let (first, second) = (scene.launch("a", "exit 7"), scene.launch("b", "exit 8"));
    scene.run(&*runtime, &first).await?;
    ensure_eq!(scene.told(&*runtime, &mut events, &first).await?, Exit::Code(7), "the end");
    scene.nothing_left(&first)?;
    if let Some(seen) = scene.sighting(&*runtime, &first).await? {
        ensure_eq!(seen, Sighting::Exited(Exit::Code(7)), "what is listed after the end");
    }
    ensure_eq!(runtime.stop(&stop(&first)).await.doing("stop what has ended")?, Exit::Code(7), "the answer to a stop");
    scene.run(&*runtime, &second).await?;
    let coming = async {
        loop {
            if let RuntimeEvent::Exited { container, exit, .. } = events.next().await? {
                ensure!(container != first.container, "the end of {container} was told twice");
                if container == second.container {
                    return Ok(exit);
                }
            }
        }
    };
    ensure_eq!(scene.waiting.on("the end of the second one", coming).await?, Exit::Code(8), "the second end");
    Ok(())
}

async fn an_end_by_a_signal_is_told_as_one(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let mut events = Events::of(&*runtime);
    let launch = scene.launch("a", "kill -9 $$");
    scene.run(&*runtime, &launch).await?;
    ensure_signal(scene.told(&*runtime, &mut events, &launch).await?, KILL)
}

async fn every_reader_is_told_of_an_end(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let mut readers = [Events::of(&*runtime), Events::of(&*runtime)];
    let launch = scene.launch("a", "exit 0");
    scene.run(&*runtime, &launch).await?;
    for events in &mut readers {
        ensure_eq!(scene.told(&*runtime, events, &launch).await?, Exit::Code(0), "the end");
    }
    Ok(())
}

/// A readiness probe by a command, which every runtime can run.
async fn a_probe_is_told_when_its_result_changes(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let mut events = Events::of(&*runtime);
    let mut launch = scene.launch("a", "exec sleep 600");
    let file = format!("ready-{}-{}", launch.store, launch.container);
    let check = Check::Exec { command: vec!["test".into(), "-f".into(), file.clone()] };
    let (every, timeout) = (Duration::from_millis(50), Duration::from_secs(10));
    launch.probes.push(LaunchProbe { kind: ProbeKind::Ready, check, port: None, every, timeout, failures: 1 });
    scene.run(&*runtime, &launch).await?;
    command(&*runtime, &launch, &format!("echo yes > {file}")).await?;
    probed(scene, &mut events, &launch, true).await?;
    command(&*runtime, &launch, &format!("rm {file}")).await?;
    probed(scene, &mut events, &launch, false).await
}

async fn probed(scene: &Scene<'_>, events: &mut Events, launch: &Launch, wanted: bool) -> Verdict {
    let coming = async {
        loop {
            if let RuntimeEvent::Probe { container, generation, kind, ok, .. } = events.next().await?
                && (container, generation, kind) == (launch.container.clone(), launch.generation, ProbeKind::Ready)
                && ok == wanted
            {
                return Ok(());
            }
        }
    };
    scene.waiting.on(&format!("the readiness probe to say {wanted}"), coming).await
}

async fn usage_is_told_for_what_runs(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let launch = scene.launch("a", "exec sleep 600");
    scene.run(&*runtime, &launch).await?;
    // A new program has no memory for a moment.
    let look = || async {
        let usage = runtime.usage().await.doing("read the usage")?;
        Ok(usage.get(&launch.container).is_some_and(|usage| usage.memory_bytes > 0).then_some(()))
    };
    scene.waiting.find("memory of a container that runs", look).await?;
    runtime.stop(&stop(&launch)).await.doing("stop")?;
    let after = runtime.usage().await.doing("read the usage")?.get(&launch.container).copied();
    ensure!(after.is_none_or(|usage| usage.memory_bytes == 0), "what has ended is told to use {after:?}");
    Ok(())
}

/// A worker that takes four times what it may does not come to its end.
async fn limits_of_memory_are_enforced(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let mut events = Events::of(&*runtime);
    let mut launch = scene.launch("a", "head -c 268435456 /dev/zero | tail -n 1 > /dev/null");
    launch.resources.memory = Bytes(64 << 20);
    scene.run(&*runtime, &launch).await?;
    let exit = scene.told(&*runtime, &mut events, &launch).await?;
    ensure!(exit != Exit::Code(0), "a worker with 64MiB took 256MiB and ended well");
    Ok(())
}
