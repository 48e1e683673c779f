//! Acts: sends the calls of operations that are durable, and reports their outcomes.
//!
//! Every call runs to completion in a task of its own, so that nothing is dropped half-way; how many run at once is
//! bounded per server, and of starts altogether. A call whose outcome is unknown or that could not be sent is repeated with a jittered back-off:
//! a runtime makes the same start only once. Ends and removals are repeated until they succeed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use cocktail_core::container::Container;
use cocktail_core::contract::{Exit, Handle, Launch, Runtime, StopOrder, UnloadOrder};
use cocktail_core::error::{Error, ErrorKind};
use cocktail_core::event::{Event, Soft};
use cocktail_core::id::{ContainerId, OperationId, ServerId};
use cocktail_core::operation::{Failure, Operation, OperationKind};
use cocktail_core::state::State;
use cocktail_core::time::ManagerTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::field::Empty;
use tracing::{Instrument, Span, debug, info_span, warn};

use crate::clock::Clock;
use crate::shared::{Health, Observation, Shared};

/// Calls that run at once on one server.
const AT_ONCE: usize = 256;
/// Starts that are on their way at once, on all servers: each takes some kilobytes, one that waits takes a few hundred bytes.
const STARTS: usize = 1_024;
/// First pause before a call is repeated.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause before a call is repeated.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Sends calls.
#[derive(Debug)]
pub(crate) struct Executor {
    shared: Shared,
    clock: Clock,
    limits: BTreeMap<ServerId, Arc<Semaphore>>,
    starts: Arc<Semaphore>,
    running: Calls,
    /// Calls that end something. They may take as long as a worker's grace.
    ending: Calls,
}

/// Calls on their way. One that has come to its end takes no memory any more.
#[derive(Debug, Default)]
struct Calls {
    tasks: TaskTracker,
    given_up: CancellationToken,
}

impl Calls {
    fn spawn(&self, call: impl Future<Output = ()> + Send + 'static) {
        // On the heap once; else each of the futures around it holds it anew.
        let (given_up, call) = (self.given_up.clone(), Box::pin(call));
        self.tasks.spawn(async move {
            given_up.run_until_cancelled(call).await;
        });
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.given_up.cancel();
    }
}

impl Executor {
    pub(crate) fn new(shared: Shared, clock: Clock) -> Self {
        let starts = Arc::new(Semaphore::new(STARTS));
        Self { shared, clock, limits: BTreeMap::new(), starts, running: Calls::default(), ending: Calls::default() }
    }

    /// Sends the call of an operation that is durable.
    pub(crate) fn send(&mut self, state: &State, operation: &Operation) {
        let Some(record) = state.containers.get(&operation.container) else { return };
        if record.operation != Some(operation.id) {
            // It has ended meanwhile, while its turn was being written: its server is gone, or a listing told of its end.
            return;
        }
        let Some(runtime) = self.shared.servers.get(&record.server) else {
            // The server connects later and the operation is sent then.
            debug!(operation = operation.id.0, server = %record.server, "the server of an operation is not connected");
            return;
        };
        let limit = self.limits.entry(record.server.clone()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE)));
        let span = span(record, operation);
        // Thousands may be on their way, and a future holds what it is given more than once.
        let call = Box::new(Call {
            shared: self.shared.clone(),
            runtime,
            limit: limit.clone(),
            operation: operation.id,
            container: operation.container.clone(),
        });
        match &operation.kind {
            OperationKind::Start => {
                let deadline = self.clock.instant(operation.deadline.unwrap_or(ManagerTime(u64::MAX / 2)));
                match self.starts.clone().try_acquire_owned() {
                    Ok(room) => {
                        let launch = state.launch(&operation.container);
                        self.running.spawn(call.start(launch.map(Box::new), deadline, room).instrument(span));
                    }
                    Err(_) => {
                        self.running.spawn(call.start_later(deadline, self.starts.clone()).instrument(span));
                    }
                }
            }
            OperationKind::Stop { .. } => {
                if let Some(order) = state.stop_order(operation) {
                    self.ending.spawn(call.stop(order).instrument(span));
                }
            }
            OperationKind::Remove => {
                self.ending.spawn(call.remove().instrument(span));
            }
            OperationKind::Assign => {
                let deadline = self.clock.instant(operation.deadline.unwrap_or(ManagerTime(u64::MAX / 2)));
                let launch = state.launch(&operation.container);
                self.running.spawn(call.assign(launch, deadline).instrument(span));
            }
            OperationKind::Unload { .. } => {
                if let Some(order) = state.unload_order(operation) {
                    self.ending.spawn(call.unload(order).instrument(span));
                }
            }
        }
    }

    /// Waits for calls that begin something, up to `limit`. The next Manager repeats what still runs then, and what ends
    /// something: that may take long, and one of those calls may be waiting for this very program to end.
    pub(crate) async fn finish(&mut self, limit: Duration) {
        self.ending.given_up.cancel();
        self.running.tasks.close();
        if tokio::time::timeout(limit, self.running.tasks.wait()).await.is_err() {
            warn!(calls = self.running.tasks.len(), "calls still run; the next manager repeats them");
            self.running.given_up.cancel();
        }
    }
}

/// The span of an operation: its own trace, since it outlives the turn that it follows from.
fn span(record: &Container, operation: &Operation) -> Span {
    let span = info_span!(
        parent: None,
        "cocktail.operation",
        id = operation.id.0,
        kind = operation.kind.as_str(),
        container = %operation.container,
        unit = %record.unit,
        attempt = operation.generation.0,
        outcome = Empty
    );
    span.follows_from(Span::current());
    span
}

/// Says in the span of an operation how it ended.
fn ended(outcome: impl std::fmt::Display) {
    Span::current().record("outcome", tracing::field::display(outcome));
}

/// One call with where its outcome goes.
struct Call {
    shared: Shared,
    runtime: Arc<dyn Runtime>,
    limit: Arc<Semaphore>,
    operation: OperationId,
    container: ContainerId,
}

impl Call {
    /// Waits for room, and only then for what to start.
    async fn start_later(self: Box<Self>, deadline: tokio::time::Instant, starts: Arc<Semaphore>) {
        let Ok(room) = starts.acquire_owned().await else { return };
        let (operation, container) = (self.operation, self.container.clone());
        let look = move |state: &State, _: &Health| {
            state.operations.contains_key(&operation).then(|| state.launch(&container).map(Box::new))
        };
        match self.shared.look(look).await {
            Ok(Some(launch)) => Box::pin(self.start(launch, deadline, room)).await,
            Ok(None) => ended("dropped"),
            // The Manager has ended.
            Err(_) => {}
        }
    }

    async fn start(
        self: Box<Self>,
        launch: Result<Box<Launch>, Error>,
        deadline: tokio::time::Instant,
        room: OwnedSemaphorePermit,
    ) {
        let launch = match launch {
            Ok(launch) => launch,
            Err(error) => return self.failed(&error).await,
        };
        let permit = self.limit.clone().acquire_owned().await;
        let mut room = Some(room);
        let attempt = || {
            let room = room.take();
            async {
                let outcome = self.try_start(&launch).await;
                // Servers that do not answer keep the others' starts waiting for one attempt at most.
                drop(room);
                outcome
            }
        };
        let outcome = self.until(deadline, attempt).await;
        drop(permit);
        match outcome {
            None => {}
            Some(Ok(handle)) => {
                ended("done");
                let (container, generation) = (launch.container.clone(), launch.generation);
                self.shared.observe(Observation::Event(Event::Started { container, generation, handle })).await;
            }
            Some(Err(error)) => self.failed(&error).await,
        }
    }

    /// Repeats a call that another attempt may help until its deadline; `None` if it was resolved meanwhile: a repeated call
    /// would do what nobody waits for.
    async fn until<T, F>(&self, deadline: tokio::time::Instant, mut call: impl FnMut() -> F) -> Option<Result<T, Error>>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut pauses = pauses();
        loop {
            let error = match call().await {
                Err(error) if error.kind().is_transient() => error,
                ended => return Some(ended),
            };
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            if tokio::time::Instant::now() + pause >= deadline {
                return Some(Err(error));
            }
            tokio::time::sleep(pause).await;
            if !self.is_wanted().await {
                ended("dropped");
                return None;
            }
        }
    }

    /// Whether the operation is still open.
    async fn is_wanted(&self) -> bool {
        let operation = self.operation;
        self.shared.look(move |state, _| state.operations.contains_key(&operation)).await.unwrap_or(false)
    }

    async fn try_start(&self, launch: &Launch) -> Result<Handle, Error> {
        self.runtime.prepare(launch).await?;
        let prepared = Soft::Prepared { container: launch.container.clone(), generation: launch.generation };
        self.shared.observe(Observation::Soft(prepared)).await;
        self.runtime.start(launch).await
    }

    async fn stop(self: Box<Self>, order: StopOrder) {
        let _permit = self.limit.clone().acquire_owned().await;
        let exit = self.until_done("stop", || self.runtime.stop(&order)).await.unwrap_or(Exit::Unknown);
        ended("done");
        let event = Event::Exited { container: order.container.clone(), generation: order.generation, exit };
        self.shared.observe(Observation::Event(event)).await;
    }

    async fn remove(self: Box<Self>) {
        let _permit = self.limit.clone().acquire_owned().await;
        self.until_done("remove", || self.runtime.remove(&self.container)).await;
        ended("done");
        self.shared.observe(Observation::Removed(self.container.clone())).await;
    }

    async fn assign(self: Box<Self>, launch: Result<Launch, Error>, deadline: tokio::time::Instant) {
        let permit = self.limit.clone().acquire_owned().await;
        let outcome = match &launch {
            Ok(launch) => self.until(deadline, || self.runtime.assign(launch)).await,
            Err(error) => Some(Err(error.clone())),
        };
        drop(permit);
        let outcome = match outcome {
            None => return,
            // It has ended: that is told by itself.
            Some(Err(error)) if *error.kind() == ErrorKind::NotFound => Ok(()),
            Some(outcome) => outcome,
        };
        let (operation, failure) = (self.operation, self.worker_failure(outcome));
        self.shared.observe(Observation::Event(Event::Assigned { operation, failure })).await;
    }

    /// It is not repeated: a worker that does not unload ends.
    async fn unload(self: Box<Self>, order: UnloadOrder) {
        let permit = self.limit.clone().acquire_owned().await;
        let outcome = self.runtime.unload(&order).await;
        drop(permit);
        let (operation, failure) = (self.operation, self.worker_failure(outcome));
        self.shared.observe(Observation::Event(Event::Unloaded { operation, failure })).await;
    }

    fn worker_failure(&self, outcome: Result<(), Error>) -> Option<Failure> {
        match outcome {
            Ok(()) => {
                ended("done");
                None
            }
            Err(error) => {
                ended(format_args!("failed: {}", error.message()));
                Some(Failure { kind: error.kind().clone(), message: error.chain(), port: None })
            }
        }
    }

    /// Repeats a call until it succeeds; `None` for an object that is not there any more.
    async fn until_done<T, F>(&self, what: &str, mut call: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut pauses = pauses();
        loop {
            match call().await {
                Ok(done) => return Some(done),
                Err(error) if *error.kind() == ErrorKind::NotFound => return None,
                Err(error) => {
                    warn!(container = %self.container, error = error.chain(), "{what} failed and is repeated");
                    tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
                }
            }
        }
    }

    async fn failed(&self, error: &Error) {
        ended(format_args!("failed: {}", error.message()));
        let failure = Failure {
            kind: error.kind().clone(),
            message: error.chain(),
            port: error.context("port").and_then(|port| port.parse().ok()),
        };
        self.shared.observe(Observation::StartFailed(self.operation, failure)).await;
    }
}

/// Jittered pauses that grow up to [`LONGEST_PAUSE`] and then stay.
fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .build()
}
