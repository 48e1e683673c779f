//! Watching an engine: events are hints to look, but for an end that says all of itself, and everything is looked at from
//! time to time whatever they say.
//!
//! Start at [`begin`]. The task holds nothing that keeps the runtime alive. After a gap it reads the events since the last
//! one that it saw, by the engine's clock, looks at everything, and asks for a new attachment.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use cocktail_core::contract::{Exit, RuntimeEvent};
use cocktail_core::error::{Error, Result};
use cocktail_core::id::{ContainerId, Generation, StoreId};
use cocktail_core::time::WallTime;
use futures_util::StreamExt;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::client::{Condition, Rough, rough};
use crate::error::{self, Call};
use crate::shared::{Shared, pauses};
use crate::{label, times};

/// Begins to watch.
pub(crate) fn begin(shared: &Arc<Shared>) -> AbortHandle {
    tokio::spawn(run(Arc::downgrade(shared))).abort_handle()
}

async fn run(shared: Weak<Shared>) {
    let mut since = None;
    let mut lost: Option<String> = None;
    let mut waits = pauses();
    loop {
        let began = Instant::now();
        let Err(error) = follow(&shared, &mut since, &mut lost).await else { return };
        if began.elapsed() > times::RELIST {
            waits = pauses();
        }
        if lost.is_none() {
            tracing::warn!(error = %error.chain(), "an engine is not heard any more");
        }
        lost = Some(error.chain());
        tokio::time::sleep(waits.next().unwrap_or(times::AGAIN.1)).await;
    }
}

/// Follows the events until they end. `Ok` when nobody wants to know any more.
async fn follow(shared: &Weak<Shared>, since: &mut Option<String>, lost: &mut Option<String>) -> Result<()> {
    let Some(strong) = shared.upgrade() else { return Ok(()) };
    let (docker, store) = (strong.engine.api().await?, strong.store()?);
    if since.is_none() {
        // The engine's clock, in the form that it takes itself.
        let now = strong.engine.info().await?.system_time.and_then(|time| WallTime::parse(&time).ok());
        *since = now.map(|now| format!("{}.{:06}", now.0.div_euclid(1_000_000), now.0.rem_euclid(1_000_000)));
    }
    drop(strong);
    let mut filters = label::filter(&[(label::STORE, store.as_str())]);
    filters.insert("type".into(), vec!["container".into()]);
    filters.insert("event".into(), ["die", "destroy"].map(str::to_owned).to_vec());
    let options = EventsOptions { since: since.clone(), until: None, filters: Some(filters) };
    let mut events = Box::pin(docker.events(Some(options)));
    let mut relist = tokio::time::interval(times::RELIST);
    relist.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = events.next() => {
                let what = "follow the events of an engine";
                let event = event.ok_or_else(|| Error::unavailable(format!("{what}: they ended")))?;
                let event = event.map_err(|failed| error::of(&failed, Call::Reads, what))?;
                if let Some(nanos) = event.time_nano.filter(|nanos| *nanos > 0) {
                    *since = Some(format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000));
                }
                let Some(strong) = shared.upgrade() else { return Ok(()) };
                let (died, code) = (event.action.as_deref() == Some("die"), exit_code(&event));
                let Some((container, generation, id)) = whose(event, &store) else { continue };
                match code {
                    // A look would wait until the engine has taken its network down.
                    Some(exit) if died && strong.is_plain_end(&container, generation, &id, exit) => {
                        strong.ended(&container, generation, exit);
                    }
                    code => settled(&container, settle(&strong, &container, generation, &id, code).await),
                }
            }
            _ = relist.tick() => {
                let Some(strong) = shared.upgrade() else { return Ok(()) };
                look(&strong, &store).await?;
                // An engine may let go of a network only when it was restarted.
                if let Err(error) = strong.networks.sweep(&strong.engine).await {
                    tracing::debug!(error = error.chain(), "a network that nobody is on is still there");
                }
                if let Some(why) = lost.take() {
                    tracing::info!("an engine is heard again");
                    strong.emit(RuntimeEvent::Resync { why });
                }
            }
        }
    }
}

/// How a container ended, as an event of its end says.
fn exit_code(event: &EventMessage) -> Option<Exit> {
    let code = event.actor.as_ref()?.attributes.as_ref()?.get("exitCode")?;
    code.parse().ok().map(Exit::Code)
}

fn whose(event: EventMessage, store: &StoreId) -> Option<(ContainerId, Generation, String)> {
    let actor = event.actor?;
    let (container, generation) = label::read(&actor.attributes.unwrap_or_default(), store)?;
    Some((container, generation, actor.id?))
}

/// Looks at one container, and tells of its end; `code` is what an event said of it.
async fn settle(
    shared: &Shared,
    container: &ContainerId,
    generation: Generation,
    id: &str,
    code: Option<Exit>,
) -> Result<()> {
    match shared.engine.inspect(id).await?.map(|seen| seen.condition) {
        Some(Condition::Exited(exit)) => shared.ended(container, generation, exit),
        // It was removed by somebody else, with what it had to tell but for the event.
        None | Some(Condition::Leaving) => {
            if shared.running().iter().any(|runs| runs.id == id) {
                shared.ended(container, generation, code.unwrap_or(Exit::Unknown));
            }
        }
        Some(Condition::Created | Condition::Running(_)) => {}
    }
    Ok(())
}

/// Looks at everything, and tells of the ends that no event told of.
async fn look(shared: &Shared, store: &StoreId) -> Result<()> {
    let asked = Instant::now();
    let listed = shared.engine.list(&[(label::STORE, store.as_str())]).await?;
    let mut found = HashMap::new();
    for summary in listed {
        let (Some(id), roughly) = (summary.id.clone(), rough(&summary)) else { continue };
        let labels = summary.labels.unwrap_or_default();
        if let Some((container, generation)) = label::read(&labels, store) {
            let older = shared.generation(&container).is_some_and(|newest| newest > generation);
            let over = older || shared.told(&container, generation).is_some();
            match roughly {
                Rough::Running if over => {
                    settled(&container, end_again(shared, &container, generation, &id).await);
                }
                // Its successor has begun, and nobody needs it any more.
                Rough::Ended | Rough::Created if older => {
                    settled(&container, shared.engine.remove(&id, false).await);
                }
                _ => {}
            }
        }
        found.insert(id, roughly);
    }
    for runs in shared.running() {
        if runs.since < asked && found.get(&runs.id) != Some(&Rough::Running) {
            settled(&runs.container, settle(shared, &runs.container, runs.generation, &runs.id, None).await);
        }
    }
    Ok(())
}

/// Ends what somebody else has started again, if it runs indeed: a list may be older than an end that was told.
async fn end_again(shared: &Shared, container: &ContainerId, generation: Generation, id: &str) -> Result<()> {
    let seen = shared.engine.inspect(id).await?;
    if seen.is_some_and(|seen| matches!(seen.condition, Condition::Running(_))) {
        tracing::warn!(%container, %generation, "a start that was over runs again; it is ended");
        shared.engine.remove(id, true).await?;
    }
    Ok(())
}

/// What goes wrong with one container keeps none of the others from being looked at; this one is again, before long.
fn settled(container: &ContainerId, outcome: Result<()>) {
    if let Err(error) = outcome {
        tracing::warn!(%container, error = %error.chain(), "a container of an engine could not be looked at");
    }
}

/// Asks for a new attachment after a while.
pub(crate) fn resync_later(shared: &Arc<Shared>, why: String) {
    let shared = Arc::downgrade(shared);
    tokio::spawn(async move {
        tokio::time::sleep(times::RELIST).await;
        if let Some(shared) = shared.upgrade() {
            shared.emit(RuntimeEvent::Resync { why });
        }
    });
}

/// Asks for a new attachment when the engine answers again.
pub(crate) fn resync_when_back(shared: &Arc<Shared>, why: String) {
    let shared = Arc::downgrade(shared);
    tokio::spawn(async move {
        for pause in pauses() {
            tokio::time::sleep(pause).await;
            let Some(shared) = shared.upgrade() else { return };
            if shared.engine.info().await.is_ok() {
                return shared.emit(RuntimeEvent::Resync { why });
            }
        }
    });
}
