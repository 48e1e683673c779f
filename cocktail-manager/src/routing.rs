//! Hands the routing table to the forwarder, always the newest one, and watches drained containers' connections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cocktail_core::contract::{Forwarder, RoutingTable};
use cocktail_core::event::Soft;
use cocktail_core::id::ContainerId;
use tokio::sync::watch;
use tracing::warn;

use crate::shared::{Observation, Shared};

/// Pause between two looks at the connections of draining containers.
const LOOK: Duration = Duration::from_millis(100);
/// Pause before a table that did not fully take is set again.
const AGAIN: Duration = Duration::from_secs(1);

/// What the forwarder shall do.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Counts the tables, so that each is seen as a change.
    pub(crate) number: u64,
    pub(crate) table: RoutingTable,
    /// Containers that left the table and wait for their connections to end.
    pub(crate) draining: BTreeSet<ContainerId>,
}

/// Runs until the writer ends.
pub(crate) async fn run(shared: Shared, forwarder: Arc<dyn Forwarder>, mut wanted: watch::Receiver<Arc<Wanted>>) {
    while wanted.changed().await.is_ok() {
        loop {
            let now = wanted.borrow_and_update().clone();
            let complete = set(&shared, &forwarder, &now).await;
            let drained = drain(&shared, &forwarder, &now, &mut wanted);
            let newer = match complete {
                true => drained.await,
                false => {
                    tokio::time::timeout(AGAIN, drained).await.unwrap_or(true) || {
                        tokio::time::sleep(AGAIN).await;
                        true
                    }
                }
            };
            if !newer {
                break;
            }
        }
    }
}

/// Sets the table; false if a part of it did not take.
async fn set(shared: &Shared, forwarder: &Arc<dyn Forwarder>, wanted: &Wanted) -> bool {
    match forwarder.set(&wanted.table).await {
        Ok(outcomes) => {
            let errors: BTreeMap<_, _> =
                outcomes.into_iter().filter_map(|outcome| Some((outcome.listen, outcome.error?))).collect();
            let complete = errors.is_empty();
            shared.observe(Observation::Routes(errors)).await;
            complete
        }
        Err(error) => {
            warn!(error = error.chain(), "the routing table could not be set; it is tried again");
            false
        }
    }
}

/// Reports draining containers whose connections have ended, until none is left (false) or the table changes (true).
async fn drain(
    shared: &Shared,
    forwarder: &Arc<dyn Forwarder>,
    wanted: &Wanted,
    changes: &mut watch::Receiver<Arc<Wanted>>,
) -> bool {
    let mut left = wanted.draining.clone();
    while !left.is_empty() {
        if let Ok(traffic) = forwarder.traffic().await {
            let busy: BTreeSet<&ContainerId> = traffic
                .iter()
                .flat_map(|route| route.backends.iter())
                .filter(|(_, traffic)| traffic.connections > 0)
                .map(|(container, _)| container)
                .collect();
            let idle: Vec<ContainerId> = left.iter().filter(|container| !busy.contains(container)).cloned().collect();
            for container in idle {
                left.remove(&container);
                shared.observe(Observation::Soft(Soft::Drained { container })).await;
            }
        }
        if left.is_empty() {
            break;
        }
        tokio::select! {
            changed = changes.changed() => {
                changes.mark_changed();
                return changed.is_ok();
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    false
}
