//! Ends containers of an engine whose lease is over, in a process of its own: whoever drives the engine may be stopped or
//! dead by then.
//!
//! Start at [`init`]. The keeper runs this program again with [`arguments`] when the lease that it was told is over, until
//! that has succeeded. What carries `cocktail.outlives-lease=true` runs on. What the engine has not ended within the grace,
//! because it does not answer or has too much to do, is killed without it.

mod processes;

use std::collections::HashMap;
use std::time::Duration;

use cocktail_core::error::{Error, Result};
use cocktail_core::id::StoreId;
use futures_util::{StreamExt as _, stream};

use crate::client::{Ended, Engine, Rough, rough};
use crate::config::EngineConfig;
use crate::{label, times};

/// First argument of a run that ends containers.
const ROLE: &str = "__cocktail-docker-guard";
/// Time for the engine where there is no grace.
const LEAST: Duration = Duration::from_secs(2);
/// Pause before the engine is asked again.
const AGAIN: Duration = Duration::from_millis(200);
/// Containers that are ended at once.
const AT_ONCE: usize = 64;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// With what a keeper runs this program so that it ends what a store has in an engine.
pub fn arguments(url: &str, store: &StoreId) -> Vec<String> {
    [ROLE, url, store.as_str()].map(str::to_owned).to_vec()
}

/// First line of `main` of a program that may be run so, before anything else is done.
///
/// Returns at once in an ordinary run. In a run with [`arguments`] it does that work and does not return.
#[expect(clippy::exit, reason = "a run that ends containers must not go on into the program's own main")]
pub fn init() {
    let arguments: Vec<String> = std::env::args_os().skip(1).filter_map(|it| it.into_string().ok()).collect();
    let [role, url, store, grace] = &arguments[..] else { return };
    if role != ROLE {
        return;
    }
    let grace = Duration::from_millis(grace.parse().unwrap_or_default());
    let ended = run(url, &StoreId::new(store.as_str()), grace);
    if let Err(error) = &ended {
        log(url, &error.chain());
    }
    std::process::exit(i32::from(ended.is_err()))
}

#[expect(clippy::print_stderr, reason = "the standard error of such a run is the keeper's log")]
fn log(url: &str, what: &str) {
    eprintln!("the guard of {url}: {what}");
}

fn run(url: &str, store: &StoreId, grace: Duration) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::unavailable("nothing can be run").because(error))?;
    let engine = Engine::new(&EngineConfig::at(url))?;
    let limit = if grace.is_zero() { LEAST } else { grace };
    let mut why = Error::unavailable("the engine has not ended everything in time");
    let work = async {
        // An engine that is just being restarted answers before the grace is over.
        while let Err(error) = end_all(&engine, store, grace).await {
            why = error;
            tokio::time::sleep(AGAIN).await;
        }
    };
    let in_time = runtime.block_on(async { tokio::time::timeout(limit, work).await });
    if in_time.is_ok() {
        return Ok(());
    }
    let killed = processes::kill(store)?;
    if killed > 0 {
        log(url, &format!("{killed} processes were killed without it"));
    }
    // The engine has the last word: another run asks it.
    Err(why)
}

/// Ends everything of a store that is not to run on; returns when nothing of it runs.
///
/// # Errors
/// Why something may still run; everything else has ended.
pub(crate) async fn end_all(engine: &Engine, store: &StoreId, grace: Duration) -> Result<()> {
    let listed = engine.list(&[(label::STORE, store.as_str())]).await?;
    let is_kept = |labels: Option<&HashMap<String, String>>| {
        labels.and_then(|labels| labels.get(label::OUTLIVES_LEASE)).is_some_and(|kept| kept == "true")
    };
    let over = listed.into_iter().filter(|it| !is_kept(it.labels.as_ref()));
    let end = |summary: bollard::models::ContainerSummary| async move {
        let roughly = rough(&summary);
        let Some(id) = summary.id else { return Ok(()) };
        match roughly {
            // Who was about to start it may still be.
            Rough::Created => engine.remove(&id, true).await,
            Rough::Running => end(engine, &id, grace).await,
            Rough::Ended | Rough::Leaving => Ok(()),
        }
    };
    // One that cannot be ended keeps none of the others.
    let ended: Vec<Result<()>> = stream::iter(over).map(end).buffer_unordered(AT_ONCE).collect().await;
    ended.into_iter().collect()
}

/// Ends one. Half of the grace is the container's, the other half is for the engine to kill it in.
async fn end(engine: &Engine, id: &str, grace: Duration) -> Result<()> {
    if !grace.is_zero() && engine.kill(id, SIGTERM).await? {
        // What is paused hears of it when it goes on.
        engine.unpause(id).await?;
        if engine.ended(id, grace / 2).await? != Ended::NotYet {
            return Ok(());
        }
    }
    if !engine.kill(id, SIGKILL).await? {
        return Ok(());
    }
    match engine.ended(id, times::KILLED).await? {
        Ended::NotYet => Err(Error::unavailable(format!("container {id} was killed and is not gone"))),
        Ended::Code(_) | Ended::Somehow => Ok(()),
    }
}
