//! Carries out what the session asks for on the runtime: starts and ends, one at a time for each container.
//!
//! Each runs in a task of its own and says when it is done. An end waits for a start of the same container that is under
//! way: what is still being started cannot be found yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use cocktail_core::contract::{Exit, Handle, Hold, Launch, Runtime, StopOrder};
use cocktail_core::error::Error;
use cocktail_core::id::{ContainerId, Generation};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::files::Files;

/// Longest time for one call to the runtime that is not an end.
const CALL: Duration = Duration::from_secs(30);
/// Longest time for a start of an image, which is here already: an engine has to unpack and mount it.
const IMAGE: Duration = Duration::from_secs(300);
/// Pause between two attempts to tell the runtime how long it may run.
const AGAIN: Duration = Duration::from_millis(100);
/// Asks a worker to end, where no order says how.
pub(super) const SIGTERM: i32 = 15;

/// What came of something.
#[derive(Debug)]
pub(super) enum Done {
    /// It runs.
    Started(Arc<Launch>, Handle),
    /// It could not be started.
    StartFailed(Arc<Launch>, Error),
    /// Nothing of it is left.
    Ended(ContainerId, Generation, Exit),
}

/// Carries out.
#[derive(Debug)]
pub(super) struct Hands {
    runtime: Arc<dyn Runtime>,
    files: Arc<Files>,
    done: mpsc::Sender<Done>,
    turns: BTreeMap<ContainerId, Arc<Mutex<()>>>,
    /// Starts that have not begun yet: whoever ends one says so.
    begun: BTreeMap<ContainerId, CancellationToken>,
    hold: watch::Sender<Option<(Instant, Hold)>>,
}

impl Hands {
    pub(super) fn new(runtime: Arc<dyn Runtime>, files: Arc<Files>, done: mpsc::Sender<Done>) -> Self {
        let (hold, held) = watch::channel(None);
        tokio::spawn(keep_held(runtime.clone(), held));
        Self { runtime, files, done, turns: BTreeMap::new(), begun: BTreeMap::new(), hold }
    }

    /// Where what came of something is told.
    pub(super) fn done(&self) -> mpsc::Sender<Done> {
        self.done.clone()
    }

    /// Lets everything run until then.
    pub(super) fn hold(&self, hold: Hold) {
        self.hold.send_replace(Some((Instant::now() + hold.span, hold)));
    }

    /// Tells the runtime again: it may be another process now.
    pub(super) fn hold_again(&self) {
        self.hold.send_modify(|_| ());
    }

    pub(super) fn start(&mut self, launch: Arc<Launch>) {
        let (runtime, done, turn) = (self.runtime.clone(), self.done.clone(), self.turn(&launch.container));
        let (files, unwanted) = (self.files.clone(), CancellationToken::new());
        self.begun.insert(launch.container.clone(), unwanted.clone());
        tokio::spawn(async move {
            let _turn = turn.lock().await;
            // How long that may take is limited there.
            let placed = unwanted.run_until_cancelled(files.place(launch.clone())).await;
            let late = || Error::unavailable("it was ended before it began");
            let launch = match placed.unwrap_or_else(|| Err(late())) {
                Ok(placed) => placed,
                Err(error) => {
                    // Without a reader the agent ends.
                    let _ = done.send(Done::StartFailed(launch, error)).await;
                    return;
                }
            };
            let limit = if launch.image.is_some() { IMAGE } else { CALL };
            let started = timeout(limit, async {
                runtime.prepare(&launch).await?;
                if unwanted.is_cancelled() {
                    return Err(late());
                }
                runtime.start(&launch).await
            });
            let late = |_| Error::unavailable("the start did not end in time");
            let told = match started.await.map_err(late).flatten() {
                Ok(handle) => Done::Started(launch, handle),
                Err(error) => {
                    // Nothing of it is to be left, whatever became of the call.
                    let (container, generation) = (launch.container.clone(), launch.generation);
                    end(&runtime, StopOrder { container, generation, signal: SIGTERM, grace: Duration::ZERO }).await;
                    Done::StartFailed(launch, error)
                }
            };
            // Without a reader the agent ends.
            let _ = done.send(told).await;
        });
    }

    pub(super) fn end(&mut self, order: StopOrder) {
        let (runtime, done, turn) = (self.runtime.clone(), self.done.clone(), self.turn(&order.container));
        if let Some(begun) = self.begun.remove(&order.container) {
            begun.cancel();
        }
        tokio::spawn(async move {
            let _turn = turn.lock().await;
            let (container, generation) = (order.container.clone(), order.generation);
            let exit = end(&runtime, order).await;
            let _ = done.send(Done::Ended(container, generation, exit)).await;
        });
    }

    pub(super) fn forget(&mut self, container: ContainerId) {
        let (runtime, turn) = (self.runtime.clone(), self.turn(&container));
        self.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        self.begun.remove(&container);
        tokio::spawn(async move {
            let _turn = turn.lock().await;
            for pause in pauses() {
                match timeout(CALL, runtime.remove(&container)).await {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => tracing::warn!(%container, error = error.chain(), "its files cannot be removed"),
                    Err(_) => {}
                }
                tokio::time::sleep(pause).await;
            }
        });
    }

    fn turn(&mut self, container: &ContainerId) -> Arc<Mutex<()>> {
        self.turns.entry(container.clone()).or_default().clone()
    }
}

/// Ends a generation, however often that has to be said.
async fn end(runtime: &Arc<dyn Runtime>, order: StopOrder) -> Exit {
    let mut pauses = pauses();
    loop {
        match runtime.stop(&order).await {
            Ok(exit) => return exit,
            Err(error) => {
                tracing::warn!(container = %order.container, error = error.chain(), "a container cannot be ended yet");
                tokio::time::sleep(pauses.next().unwrap_or(CALL)).await;
            }
        }
    }
}

fn pauses() -> impl Iterator<Item = Duration> {
    let longest = Duration::from_secs(5);
    let first = ExponentialBuilder::default().with_jitter().with_min_delay(Duration::from_millis(20));
    first.with_max_delay(longest).without_max_times().build()
}

/// Tells the runtime the newest time, until it has heard it or the time is over.
async fn keep_held(runtime: Arc<dyn Runtime>, mut held: watch::Receiver<Option<(Instant, Hold)>>) {
    while held.changed().await.is_ok() {
        loop {
            let Some((until, hold)) = held.borrow_and_update().clone() else { break };
            let span = until.saturating_duration_since(Instant::now());
            if span.is_zero() {
                break;
            }
            match timeout(CALL, runtime.hold(&Hold { span, ..hold })).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => tracing::warn!(error = error.chain(), "the runtime does not know the lease yet"),
                Err(_) => {}
            }
            if held.has_changed().is_err() {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
