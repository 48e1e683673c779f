//! Having images removed that nobody needs any more.
//!
//! What is needed is said by the state alone, and asked while nothing is applied and nobody goes back to an older revision:
//! what an apply has just built is in no revision yet. An apply is never waited for; there is a next time.

use std::time::Duration;

use cocktail_core::id::ServerId;
use cocktail_core::state::State;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{debug, info};

use crate::shared::Shared;

/// Removes old images from all servers that have some, once in each interval.
pub(crate) async fn run(shared: Shared, every: Duration) {
    let mut tick = interval_at(Instant::now() + every, every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Ok(servers) = shared.look(|state, _| image_servers(state)).await else { return };
        for server in servers {
            clear(&shared, &server).await;
        }
    }
}

fn image_servers(state: &State) -> Vec<ServerId> {
    state.servers.values().filter(|server| server.images).map(|server| server.id.clone()).collect()
}

/// Removes old images from one server, a few at a time: whoever wants to apply waits for those at most.
async fn clear(shared: &Shared, server: &ServerId) {
    while let Some(runtime) = shared.servers.get(server) {
        let Some(_alone) = shared.builds.alone() else { return };
        let Ok(needed) = shared.look(|state, _| state.images_needed()).await else { return };
        match runtime.prune_images(&needed).await {
            Ok(gone) if gone.is_empty() => return,
            Ok(gone) => info!(%server, images = gone.len(), "images that nobody needs any more are removed"),
            Err(error) => return debug!(%server, error = error.chain(), "old images stay for now"),
        }
    }
}
