//! What every runtime must do: the promises of `cocktail_core::contract::Runtime`.
//!
//! Start at [`RuntimeFixture`] and [`runtime`]. All cases share one server and run one after the other, each with
//! containers of its own, which are ended and removed after it. The last one ends the runtime.

mod beside;
mod ending;
mod recovering;
mod scene;
mod starting;
mod watching;

use std::sync::Arc;

use async_trait::async_trait;
use cocktail_core::contract::{Runtime, Sighting};
use cocktail_core::error::Result;

pub(crate) use self::beside::template;
use self::scene::Scene;
use super::case::{Case, Doing, Verdict, Waiting, cases, ensure, guarded};
use super::report::Report;
use super::workers::Workers;

/// Makes the runtime that the cases work on.
#[async_trait]
pub trait RuntimeFixture: Workers {
    /// Connects to the server as the next Manager does at its start: with a new lease, and nothing recovered yet. The
    /// runtime that was given before is dropped by then, and is not used again.
    async fn attach(&self) -> Result<Arc<dyn Runtime>>;
}

/// Runs all cases on this fixture's server. `subject` names it in the report. Nothing runs there afterwards.
pub async fn runtime(subject: &str, fixture: &dyn RuntimeFixture) -> Report {
    let mut report = Report::new(subject);
    run(&mut report, fixture).await;
    report
}

/// The names of all cases.
pub(crate) fn names() -> Vec<&'static str> {
    all().iter().map(|case| case.name).collect()
}

fn all<'f>() -> Vec<Case<Scene<'f>>> {
    let last = cases![a_runtime_that_is_stopped_leaves_nothing];
    [starting::cases(), ending::cases(), watching::cases(), beside::cases(), recovering::cases(), last]
        .into_iter()
        .flatten()
        .collect()
}

pub(crate) async fn run(report: &mut Report, fixture: &dyn RuntimeFixture) {
    let mut scene = match guarded(Scene::new(fixture), fixture.deadline(), &Waiting::default()).await {
        Ok(scene) => scene,
        Err(outcome) => return report.add(SUITE, "a_manager_attaches", outcome),
    };
    for (number, case) in all().into_iter().enumerate() {
        scene.begin(number);
        case.report(report, SUITE, &scene, fixture.deadline(), &scene.waiting).await;
        scene.clear().await;
    }
    scene.end().await;
}

pub(crate) const SUITE: &str = "runtime";

/// Ends everything, and does not answer calls as if nothing had happened.
async fn a_runtime_that_is_stopped_leaves_nothing(scene: &Scene<'_>) -> Verdict {
    let runtime = scene.runtime().await?;
    let launches = ["a", "b"].map(|name| scene.launch(name, "sleep 600 & exec sleep 600"));
    for launch in &launches {
        scene.run(&*runtime, launch).await?;
    }
    runtime.shutdown(true).await.doing("shut down with stop")?;
    for launch in &launches {
        scene.nothing_left(launch)?;
    }
    if let Ok(listing) = runtime.list().await {
        ensure!(listing.containers.is_empty(), "it still lists {:?}", listing.containers);
    }
    drop(runtime);
    scene.leave();
    let runtime = scene.runtime().await?;
    let listing = runtime.list().await.doing("list for the next manager")?;
    for launch in &launches {
        let seen = listing.containers.get(&launch.container).map(|seen| &seen.sighting);
        let runs = matches!(seen, Some(Sighting::Running(_)));
        ensure!(!runs, "{} still runs for the next manager", launch.container);
    }
    Ok(())
}
