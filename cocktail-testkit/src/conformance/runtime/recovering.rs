//! A Manager dies or is started anew: what runs is found and not touched.

use cocktail_core::contract::{Exit, Handle, Known, Launch, Sighting};

use super::scene::{Events, Scene, stop};
use crate::conformance::case::{Case, Doing, Stop, Verdict, cases, ensure, ensure_eq};

pub(super) fn cases<'f>() -> Vec<Case<Scene<'f>>> {
    cases![
        recovering_touches_nothing_and_may_be_repeated,
        a_start_whose_answer_was_lost_is_found,
        the_next_manager_finds_the_same_processes_and_watches_them if outlives_manager,
        what_ended_while_nobody_watched_is_told if outlives_manager,
    ]
}

fn known(launch: &Launch, handle: &Handle) -> Known {
    Known { launch: launch.clone(), handle: Some(handle.clone()) }
}

/// A runtime that may have missed events asks for it at any time.
async fn recovering_touches_nothing_and_may_be_repeated(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let mut events = Events::of(&*runtime);
    let launch = scene.launch("a", "trap 'exit 5' TERM; echo up; while :; do sleep 0.02; done");
    let handle = scene.run(&*runtime, &launch).await?;
    scene.line(&*runtime, &launch, "up").await?;
    for _ in 0..2 {
        let listing = runtime.recover(&[known(&launch, &handle)]).await.doing("recover")?;
        let seen = listing.containers.get(&launch.container).map(|seen| &seen.sighting);
        ensure_eq!(seen, Some(&Sighting::Running(handle.clone())), "what is found of a container that runs");
    }
    // It is watched once, not three times.
    runtime.stop(&stop(&launch)).await.doing("stop")?;
    let marker = scene.launch("b", "exit 0");
    scene.run(&*runtime, &marker).await?;
    let mut told = 0;
    let coming = async {
        loop {
            if let cocktail_core::contract::RuntimeEvent::Exited { container, .. } = events.next().await? {
                told += usize::from(container == launch.container);
                if container == marker.container {
                    return Ok::<_, Stop>(told);
                }
            }
        }
    };
    let told = scene.waiting.on("the end of a second container", coming).await?;
    ensure!(told <= 1, "the end of one start was told {told} times");
    Ok(())
}

async fn a_start_whose_answer_was_lost_is_found(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let (lost, never) = (scene.launch("lost", "exec sleep 600"), scene.launch("never", "exec sleep 600"));
    let handle = scene.run(&*runtime, &lost).await?;
    let asked = [&lost, &never].map(|launch| Known { launch: launch.clone(), handle: None });
    let listing = runtime.recover(&asked).await.doing("recover")?;
    let seen = |launch: &Launch| listing.containers.get(&launch.container).map(|seen| seen.sighting.clone());
    ensure_eq!(seen(&lost), Some(Sighting::Running(handle)), "what is found of a start whose answer was lost");
    let absent = seen(&never);
    ensure!(
        matches!(absent, Some(Sighting::Absent | Sighting::Unknown)),
        "a start that never came is found as {absent:?}, expected a word that it is absent or unknown"
    );
    Ok(())
}

async fn the_next_manager_finds_the_same_processes_and_watches_them(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let launch = scene.launch("a", "trap 'exit 5' TERM; echo up; while :; do sleep 0.02; done");
    let other = scene.launch("b", "exec sleep 600");
    let (handle, beside) = (scene.run(&*runtime, &launch).await?, scene.run(&*runtime, &other).await?);
    scene.line(&*runtime, &launch, "up").await?;
    runtime.shutdown(false).await.doing("shut down without stop")?;
    drop(runtime);
    let (runtime, listing) = scene.attach(&[known(&launch, &handle), known(&other, &beside)]).await?;
    for (launch, handle) in [(&launch, &handle), (&other, &beside)] {
        let seen = listing.containers.get(&launch.container).map(|seen| &seen.sighting);
        ensure_eq!(seen, Some(&Sighting::Running(handle.clone())), "what the next manager finds");
    }
    scene.one_process(&*runtime, &other, &beside).await?;
    ensure_eq!(scene.run(&*runtime, &other).await?, beside, "the answer to a start that the manager before had sent");
    let mut events = Events::of(&*runtime);
    super::beside::command(&*runtime, &launch, "true").await?;
    ensure_eq!(runtime.stop(&stop(&launch)).await.doing("stop")?, Exit::Code(5), "the answer to a stop");
    runtime.stop(&stop(&other)).await.doing("stop the other")?;
    let third = scene.launch("c", "exit 3");
    scene.run(&*runtime, &third).await?;
    ensure_eq!(scene.told(&*runtime, &mut events, &third).await?, Exit::Code(3), "an end under the next manager");
    Ok(())
}

/// Where nobody can say how it ended, that is said.
async fn what_ended_while_nobody_watched_is_told(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let launch = scene.launch("a", "sleep 0.3; exit 3");
    let handle = scene.run(&*runtime, &launch).await?;
    drop(runtime);
    scene.leave();
    scene.gone(&launch).await?;
    let (runtime, listing) = scene.attach(&[known(&launch, &handle)]).await?;
    let mut events = Events::of(&*runtime);
    // What was seen from outside may not have been noted inside yet.
    let mut seen = listing.containers.get(&launch.container).map(|seen| seen.sighting.clone());
    if let Some(Sighting::Running(_)) = seen {
        seen = scene.sighting(&*runtime, &launch).await?;
    }
    let exit = match seen {
        Some(Sighting::Exited(exit)) => exit,
        Some(Sighting::Running(_)) => scene.told(&*runtime, &mut events, &launch).await?,
        other => return Err(Stop::Failed(format!("a container that ended unwatched is found as {other:?}"))),
    };
    ensure!(matches!(exit, Exit::Code(3) | Exit::Unknown), "the end is told as {exit:?}, expected code 3");
    Ok(())
}
