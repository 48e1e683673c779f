//! Stopping and removing: nothing is left, and what is gone already is success.

use std::time::Duration;

use cocktail_core::contract::StopOrder;

use super::scene::{KILL, Scene, ensure_signal, stop};
use crate::conformance::case::{Case, Doing, Verdict, cases, ensure};

pub(super) fn cases<'f>() -> Vec<Case<Scene<'f>>> {
    cases![
        stopping_and_removing_what_is_missing_is_success,
        a_stop_leaves_nothing_and_may_be_repeated,
        a_worker_that_ignores_its_signal_is_ended_after_the_grace,
        a_removed_container_is_forgotten,
    ]
}

async fn stopping_and_removing_what_is_missing_is_success(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let launch = scene.launch("never", "exec sleep 600");
    for _ in 0..2 {
        runtime.stop(&stop(&launch)).await.doing("stop what was never here")?;
        runtime.remove(&launch.container).await.doing("remove what was never here")?;
    }
    Ok(())
}

/// Also of what the worker started itself.
async fn a_stop_leaves_nothing_and_may_be_repeated(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let launch = scene.launch("a", "sleep 600 & sleep 600 & echo both; exec sleep 600");
    scene.run(&*runtime, &launch).await?;
    scene.line(&*runtime, &launch, "both").await?;
    ensure_signal(runtime.stop(&stop(&launch)).await.doing("stop")?, super::scene::TERM)?;
    scene.nothing_left(&launch)?;
    runtime.stop(&stop(&launch)).await.doing("stop again")?;
    Ok(())
}

async fn a_worker_that_ignores_its_signal_is_ended_after_the_grace(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let launch = scene.launch("a", "trap '' TERM; echo deaf; while :; do sleep 0.05; done");
    scene.run(&*runtime, &launch).await?;
    scene.line(&*runtime, &launch, "deaf").await?;
    let order = StopOrder { grace: Duration::from_millis(50), ..stop(&launch) };
    ensure_signal(runtime.stop(&order).await.doing("stop")?, KILL)?;
    scene.nothing_left(&launch)
}

async fn a_removed_container_is_forgotten(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let launch = scene.launch("a", "exec sleep 600");
    scene.run(&*runtime, &launch).await?;
    runtime.stop(&stop(&launch)).await.doing("stop")?;
    runtime.remove(&launch.container).await.doing("remove")?;
    runtime.remove(&launch.container).await.doing("remove again")?;
    let listing = runtime.list().await.doing("list")?;
    let seen = listing.containers.get(&launch.container);
    ensure!(seen.is_none(), "a removed container is still listed: {seen:?}");
    Ok(())
}
