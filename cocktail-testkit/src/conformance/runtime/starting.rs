//! Preparing and starting: a container and its generation name one start, however often it is asked for.

use cocktail_core::contract::{Handle, Launch, LaunchPort, LogOptions, Runtime};
use cocktail_core::error::{Error, ErrorKind};
use cocktail_core::name::Name;
use futures_util::StreamExt;
use futures_util::future::join_all;

use super::scene::{Events, Scene, stop};
use crate::conformance::case::{Case, Doing, Stop, Verdict, abandon, cases, ensure, ensure_eq, ensure_error};

/// Calls of one start that are sent at once.
const AT_ONCE: usize = 6;
/// Places in a call at which its caller is lost.
const LOSSES: usize = 6;

pub(super) fn cases<'f>() -> Vec<Case<Scene<'f>>> {
    cases![
        a_start_that_is_repeated_is_one_process,
        starts_at_the_same_time_are_one_process,
        a_start_whose_caller_is_lost_and_that_is_repeated_is_one_process,
        a_higher_generation_ends_the_older_one,
        an_older_generation_does_not_come_back,
        a_taken_port_is_a_conflict_that_names_it,
        released_ports_can_be_had_again,
        a_listening_socket_is_handed_over if inherit,
        a_missing_program_is_an_invalid_config,
        a_missing_folder_is_an_invalid_config,
    ]
}

async fn a_start_that_is_repeated_is_one_process(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let launch = scene.launch("a", "exec sleep 600");
    runtime.prepare(&launch).await.doing("prepare")?;
    runtime.prepare(&launch).await.doing("prepare again")?;
    let handle = runtime.start(&launch).await.doing("start")?;
    ensure_eq!(runtime.start(&launch).await.doing("start again")?, handle, "the second answer to a start");
    ensure_eq!(scene.run(&*runtime, &launch).await?, handle, "the answer to preparing and starting it once more");
    scene.one_process(&*runtime, &launch, &handle).await
}

async fn starts_at_the_same_time_are_one_process(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let launch = scene.launch("a", "exec sleep 600");
    runtime.prepare(&launch).await.doing("prepare")?;
    let answers = join_all((0..AT_ONCE).map(|_| runtime.start(&launch))).await;
    // A call that finds another on its way may ask for patience.
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err()).find(|error| !error.kind().is_transient());
    ensure!(refused.is_none(), "one of several calls of a start was refused: {refused:?}");
    let handle = runtime.start(&launch).await.doing("start after them")?;
    for answer in answers.into_iter().flatten() {
        ensure_eq!(answer, handle, "one of several answers to a start");
    }
    scene.one_process(&*runtime, &launch, &handle).await
}

/// Loses the caller at several places of each call, then asks again as a Manager does.
async fn a_start_whose_caller_is_lost_and_that_is_repeated_is_one_process(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let mut running: Vec<(Launch, Handle)> = Vec::new();
    for polls in 0..LOSSES {
        let launch = scene.launch(&format!("a{polls}"), "exec sleep 600");
        abandon(runtime.prepare(&launch), polls).await;
        repeated(scene, || runtime.prepare(&launch)).await?;
        abandon(runtime.start(&launch), polls).await;
        let handle = repeated(scene, || try_start(&*runtime, &launch)).await?;
        running.push((launch, handle));
    }
    for (launch, handle) in &running {
        scene.one_process(&*runtime, launch, handle).await?;
        abandon(runtime.stop(&stop(launch)), 2).await;
        repeated(scene, || async { runtime.stop(&stop(launch)).await }).await?;
        scene.nothing_left(launch)?;
    }
    Ok(())
}

async fn try_start(runtime: &dyn Runtime, launch: &Launch) -> Result<Handle, Error> {
    runtime.prepare(launch).await?;
    runtime.start(launch).await
}

/// The answer to a call that is repeated for as long as it may succeed later.
async fn repeated<T, F: Future<Output = Result<T, Error>>>(
    scene: &Scene<'_>,
    mut call: impl FnMut() -> F,
) -> Verdict<T> {
    let what = "a repeated call to succeed";
    scene
        .waiting
        .find(what, || {
            let call = call();
            async move {
                match call.await {
                    Ok(done) => Ok(Some(done)),
                    Err(error) if error.kind().is_transient() => Ok(None),
                    Err(error) => Err(error).doing("repeat a call whose caller was lost"),
                }
            }
        })
        .await
}

async fn a_higher_generation_ends_the_older_one(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let (old, new) = (scene.launch("a", "exec sleep 600"), scene.launch_again("a", 2, "exec sleep 600"));
    let first = scene.run(&*runtime, &old).await?;
    scene.one_process(&*runtime, &old, &first).await?;
    runtime.prepare(&new).await.doing("prepare generation 2")?;
    scene.nothing_left(&old)?;
    let second = runtime.start(&new).await.doing("start generation 2")?;
    ensure!(second != first, "generation 2 has the handle of generation 1: {second:?}");
    scene.one_process(&*runtime, &new, &second).await
}

/// A late order for an older generation touches nothing.
async fn an_older_generation_does_not_come_back(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let (old, new) = (scene.launch("a", "exec sleep 600"), scene.launch_again("a", 2, "exec sleep 600"));
    scene.run(&*runtime, &old).await?;
    let handle = scene.run(&*runtime, &new).await?;
    runtime.stop(&stop(&old)).await.doing("stop generation 1 once more")?;
    scene.one_process(&*runtime, &new, &handle).await?;
    // Whatever the answers are, generation 2 is what runs.
    let _refused = try_start(&*runtime, &old).await;
    scene.nothing_left(&old)?;
    scene.one_process(&*runtime, &new, &handle).await
}

fn with_port(mut launch: Launch, port: u16, inherit: bool) -> Verdict<Launch> {
    let name = Name::new("http").map_err(|error| Stop::Failed(error.to_string()))?;
    launch.ports.push(LaunchPort { name, port, inherit, container: None });
    Ok(launch)
}

/// Starts a container on a port that was given back. A program that was being started at that moment may hold it for a
/// little longer.
async fn on_free_port(scene: &Scene<'_>, runtime: &dyn Runtime, launch: &Launch) -> Verdict<Handle> {
    let look = || async {
        match try_start(runtime, launch).await {
            Ok(handle) => Ok(Some(handle)),
            Err(error) if *error.kind() == ErrorKind::Conflict => Ok(None),
            Err(error) => Err(error).doing("start on a free port"),
        }
    };
    scene.waiting.find("a container on a port that was given back", look).await
}

/// A runtime that leaves the proof to its engine says it at the start.
async fn a_taken_port_is_a_conflict_that_names_it(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let other = scene.occupy()?;
    let launch = with_port(scene.launch("a", "exec sleep 600"), other.port, false)?;
    let taken = try_start(&*runtime, &launch).await;
    let named = taken.as_ref().err().and_then(|error| error.context("port")).map(str::to_owned);
    ensure_error!(taken, ErrorKind::Conflict, "a container on a port that another program has");
    ensure_eq!(named, Some(other.port.to_string()), "the context `port` of the conflict");
    scene.nothing_left(&launch)?;
    drop(other.guard);
    let handle = on_free_port(scene, &*runtime, &launch).await?;
    scene.one_process(&*runtime, &launch, &handle).await
}

async fn released_ports_can_be_had_again(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let port = scene.occupy()?.port;
    let first = with_port(scene.launch("a", "exec sleep 600"), port, false)?;
    on_free_port(scene, &*runtime, &first).await?;
    runtime.stop(&stop(&first)).await.doing("stop")?;
    runtime.remove(&first.container).await.doing("remove")?;
    for _ in 0..2 {
        runtime.release_ports(&[port]).await.doing("release the port")?;
    }
    let second = with_port(scene.launch("b", "exec sleep 600"), port, false)?;
    on_free_port(scene, &*runtime, &second).await?;
    Ok(())
}

async fn a_listening_socket_is_handed_over(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let port = scene.occupy()?.port;
    // Descriptor 3 is the first one that is handed over.
    let script = "test -e /proc/self/fd/3 && echo \"sockets $LISTEN_FDS\"; exec sleep 600";
    let launch = with_port(scene.launch("a", script), port, true)?;
    on_free_port(scene, &*runtime, &launch).await?;
    scene.line(&*runtime, &launch, "sockets 1").await
}

async fn a_missing_program_is_an_invalid_config(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let mut launch = scene.launch("a", "");
    launch.argv = vec!["no-such-program-anywhere".into()];
    refused(scene, &*runtime, &launch, "a program that does not exist").await
}

async fn a_missing_folder_is_an_invalid_config(scene: &Scene<'_>) -> Verdict {
    if scene.capabilities.images {
        return Err(Stop::Skipped("a folder that an image lacks is made".into()));
    }
    let runtime = scene.runtime().await?;
    let mut launch = scene.launch("a", "exec sleep 600");
    launch.cwd = "/no/such/folder/anywhere".into();
    refused(scene, &*runtime, &launch, "a folder that does not exist").await
}

async fn refused(scene: &Scene<'_>, runtime: &dyn Runtime, launch: &Launch, what: &str) -> Verdict {
    let mut events = Events::of(runtime);
    ensure_error!(try_start(runtime, launch).await, ErrorKind::InvalidConfig, "{what}");
    scene.nothing_left(launch)?;
    // What never ran has no output and no end: the next start is an ordinary one.
    let again = scene.launch_again("a", launch.generation.0 + 1, "echo well; exit 6");
    scene.run(runtime, &again).await?;
    let exit = scene.told(runtime, &mut events, &again).await?;
    ensure_eq!(exit, cocktail_core::contract::Exit::Code(6), "the end of the start after it");
    let lines = runtime.logs(&again.container, &LogOptions::default()).await.doing("read the output")?;
    let lines: Vec<_> = lines.collect().await;
    ensure!(lines.iter().flatten().any(|line| line.text == "well"), "the start after it wrote {lines:?}");
    Ok(())
}
