//! Containers that wait: they come up once, and are paused until they are needed.
//!
//! [`wait`] is the task of one. It pauses in the container's turn, so that whoever has it go on never meets a pause that is
//! on its way.

use std::sync::Arc;

use cocktail_core::contract::{LaunchProbe, ProbeKind, RuntimeEvent, WorkerSaid};
use cocktail_core::error::{Error, Result};
use tokio::sync::watch;

use crate::client::{Condition, Looked};
use crate::shared::{Shared, pauses};
use crate::target::Target;
use crate::times;

/// Attempts after which an engine that answers is believed not to pause.
const ATTEMPTS: usize = 3;

/// Waits until a container is up, pauses it, and tells.
pub(crate) async fn wait(target: Target, probes: Vec<LaunchProbe>, id: String) {
    let (shared, container, generation) = (target.shared.clone(), target.container.clone(), target.generation);
    if !is_paused(&target, &id).await {
        come_up(target, probes).await;
    }
    let (mut failed, mut waits) = (0, pauses());
    loop {
        let Some(shared) = shared.upgrade() else { return };
        let turn = shared.turn(&container, generation);
        let held = turn.lock().await;
        if !shared.waits(&container, generation) {
            return;
        }
        let said = match pause(&shared, &id).await {
            Ok(true) => WorkerSaid::Waiting,
            // Its end is told by who watches.
            Ok(false) => return,
            Err(Failed::Away) => {
                drop((held, shared));
                tokio::time::sleep(waits.next().unwrap_or(times::AGAIN.1)).await;
                continue;
            }
            Err(Failed::Refused(error)) => {
                failed += 1;
                if failed < ATTEMPTS {
                    drop((held, shared));
                    tokio::time::sleep(waits.next().unwrap_or(times::AGAIN.1)).await;
                    continue;
                }
                WorkerSaid::Unfit { error: format!("the engine cannot pause it: {error}") }
            }
        };
        return shared.emit(RuntimeEvent::Worker { container, generation, said });
    }
}

async fn is_paused(target: &Target, id: &str) -> bool {
    let Some(shared) = target.shared.upgrade() else { return false };
    shared.engine.inspect(id).await.is_ok_and(|seen| seen.is_some_and(|seen| seen.paused))
}

/// Until its readiness probe is good once; for a moment where it has none.
async fn come_up(target: Target, probes: Vec<LaunchProbe>) {
    let Some(probe) = probes.into_iter().find(|probe| probe.kind == ProbeKind::Ready) else {
        return tokio::time::sleep(times::SETTLE).await;
    };
    let up = watch::Sender::new(false);
    let mut came_up = up.subscribe();
    tokio::select! {
        // It ends by itself only where nobody wants to know any more.
        () = cocktail_probe::run(target, probe, up) => {}
        _ = came_up.wait_for(|up| *up) => {}
    }
}

/// Why a container is not paused.
enum Failed {
    /// The engine does not answer.
    Away,
    /// It answers, and the container runs on.
    Refused(Error),
}

/// Pauses a container. One that is paused already is success, and one that does not run is not.
async fn pause(shared: &Arc<Shared>, id: &str) -> Result<bool, Failed> {
    let Err(error) = shared.engine.pause(id).await else { return Ok(true) };
    match shared.engine.inspect(id).await {
        Ok(Some(Looked { paused: true, .. })) => Ok(true),
        Ok(Some(Looked { condition: Condition::Running(_), .. })) => Err(Failed::Refused(error)),
        Ok(_) => Ok(false),
        Err(_) => Err(Failed::Away),
    }
}
