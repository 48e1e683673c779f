//! Acts: sends the calls of operations that are durable, and reports their outcomes.
//!
//! Every call runs to completion in a task of its own, so that nothing is dropped half-way; how many run at once is
//! bounded per server, and of starts altogether. Starts beyond that wait by their number alone, and the servers take turns,
//! so that one that does not answer keeps nobody else waiting. A call whose outcome is unknown or that could not be sent is
//! repeated with a jittered back-off: a runtime makes the same start only once. Ends and removals are repeated until they
//! succeed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use cocktail_core::container::{Container, ContainerState};
use cocktail_core::contract::{Exit, Handle, Launch, Runtime, StopOrder, UnloadOrder};
use cocktail_core::error::{Error, ErrorKind};
use cocktail_core::event::{Event, Soft};
use cocktail_core::id::{ContainerId, OperationId, ServerId};
use cocktail_core::operation::{Failure, Operation, OperationKind};
use cocktail_core::state::State;
use cocktail_core::time::ManagerTime;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::field::Empty;
use tracing::{Instrument, Span, debug, info_span, warn};

use crate::clock::Clock;
use crate::shared::{Health, Observation, Shared};

/// Calls that run at once on one server.
const AT_ONCE: usize = 256;
/// Starts that are on their way at once, on all servers: each takes some kilobytes, one that waits takes its number.
const STARTS: usize = 1_024;
/// How long a start counts among those that are on their way. One that takes longer waits for something else than us.
const COUNTS: Duration = Duration::from_secs(1);
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
    /// Told whenever another start may go.
    freed: Arc<Notify>,
    waiting: Waiting,
    running: Calls,
    /// Calls that end something. They may take as long as a worker's grace.
    ending: Calls,
}

/// Starts that wait for room. Servers take turns; one without a start that waits is not there.
#[derive(Debug, Default)]
struct Waiting {
    turns: VecDeque<ServerId>,
    starts: BTreeMap<ServerId, BTreeSet<OperationId>>,
}

impl Waiting {
    /// One that waits already is not there twice.
    fn push(&mut self, server: ServerId, operation: OperationId) {
        let starts = self.starts.entry(server.clone()).or_insert_with(|| {
            self.turns.push_back(server);
            BTreeSet::new()
        });
        starts.insert(operation);
    }

    /// The oldest start of the next server in turn that has `room`, which is asked once for each server.
    fn pop<T>(&mut self, mut room: impl FnMut(&ServerId) -> Option<T>) -> Option<(OperationId, T)> {
        // Each of them once.
        for _ in 0..self.turns.len() {
            let server = self.turns.pop_front()?;
            let found = room(&server);
            let starts = self.starts.get_mut(&server)?;
            let popped = found.and_then(|room| Some((starts.pop_first()?, room)));
            if starts.is_empty() {
                self.starts.remove(&server);
            } else {
                self.turns.push_back(server);
            }
            if popped.is_some() {
                return popped;
            }
        }
        None
    }
}

/// Room that a call takes. Whoever has starts that wait is told when it is free.
struct Room {
    permit: Option<OwnedSemaphorePermit>,
    freed: Arc<Notify>,
}

impl Room {
    fn new(permit: OwnedSemaphorePermit, freed: &Arc<Notify>) -> Self {
        Self { permit: Some(permit), freed: freed.clone() }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // It is free before that is told.
        drop(self.permit.take());
        self.freed.notify_one();
    }
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
        Self {
            shared,
            clock,
            limits: BTreeMap::new(),
            starts: Arc::new(Semaphore::new(STARTS)),
            freed: Arc::default(),
            waiting: Waiting::default(),
            running: Calls::default(),
            ending: Calls::default(),
        }
    }

    /// Waits until another start may go; pending where none waits for that.
    pub(crate) fn freed(&self) -> impl Future<Output = ()> + use<> {
        let freed = (!self.waiting.turns.is_empty()).then(|| self.freed.clone());
        async move {
            match freed {
                Some(freed) => freed.notified().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Begins starts that wait, as far as there is room.
    pub(crate) fn begin(&mut self, state: &State) {
        while !self.waiting.turns.is_empty()
            && let Ok(room) = self.starts.clone().try_acquire_owned()
        {
            let limits = &mut self.limits;
            let popped = self.waiting.pop(|server| limit(limits, server).try_acquire_owned().ok());
            let Some((operation, permit)) = popped else { return };
            let Some(operation) = state.operations.get(&operation) else { continue };
            let Some((call, span)) = self.call(state, operation) else { continue };
            let (room, on_server) = (Room::new(room, &self.freed), Room::new(permit, &self.freed));
            let deadline = self.clock.instant(operation.deadline.unwrap_or(ManagerTime(u64::MAX / 2)));
            let launch = state.launch(&operation.container);
            self.running.spawn(call.start(launch.map(Box::new), deadline, room, on_server).instrument(span));
        }
    }

    /// Sends the call of an operation that is durable. A start waits for [`Executor::begin`].
    pub(crate) fn send(&mut self, state: &State, operation: &Operation) {
        if operation.kind == OperationKind::Start {
            if let Some(record) = state.containers.get(&operation.container) {
                self.waiting.push(record.server.clone(), operation.id);
            }
            return;
        }
        let Some((call, span)) = self.call(state, operation) else { return };
        match &operation.kind {
            OperationKind::Start => {}
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

    /// A container is to go: what its start waits for need not be waited for.
    pub(crate) fn leaves(&self, state: &State, container: &ContainerId) {
        let Some(record) = state.containers.get(container) else { return };
        let open = record.operation.and_then(|operation| state.operations.get(&operation));
        if open.is_some_and(|operation| operation.kind == OperationKind::Start)
            && let Some(runtime) = self.shared.servers.get(&record.server)
        {
            runtime.give_up(container, record.generation);
        }
    }

    /// The call of an operation that is still open, on a server that is connected.
    fn call(&mut self, state: &State, operation: &Operation) -> Option<(Box<Call>, Span)> {
        let record = state.containers.get(&operation.container)?;
        if record.operation != Some(operation.id) {
            // It has ended meanwhile, while its turn was being written: its server is gone, or a listing told of its end.
            return None;
        }
        let Some(runtime) = self.shared.servers.get(&record.server) else {
            // The server connects later and the operation is sent then.
            debug!(operation = operation.id.0, server = %record.server, "the server of an operation is not connected");
            return None;
        };
        // Thousands may be on their way, and a future holds what it is given more than once.
        let call = Box::new(Call {
            shared: self.shared.clone(),
            runtime,
            limit: limit(&mut self.limits, &record.server),
            freed: self.freed.clone(),
            operation: operation.id,
            container: operation.container.clone(),
        });
        Some((call, span(record, operation)))
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

/// What bounds the calls on a server.
fn limit(limits: &mut BTreeMap<ServerId, Arc<Semaphore>>, server: &ServerId) -> Arc<Semaphore> {
    limits.entry(server.clone()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))).clone()
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
    freed: Arc<Notify>,
    operation: OperationId,
    container: ContainerId,
}

impl Call {
    /// Waits for room among the calls on the server, which is never closed.
    async fn room(&self) -> Option<Room> {
        let permit = self.limit.clone().acquire_owned().await.ok()?;
        Some(Room::new(permit, &self.freed))
    }

    async fn start(
        self: Box<Self>,
        launch: Result<Box<Launch>, Error>,
        deadline: Instant,
        room: Room,
        on_server: Room,
    ) {
        let launch = match launch {
            Ok(launch) => launch,
            Err(error) => return self.failed(&error).await,
        };
        let starting = async {
            let outcome = match launch.image.is_some() {
                true => self.start_image(&launch, deadline).await,
                false => self.until(deadline, || self.prepare_and_start(&launch)).await,
            };
            drop(on_server);
            outcome
        };
        let outcome = while_counted(room, starting).await;
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

    /// Starts an image. What that comes from may be slow, or away for long, which is no fault of the image: only when it is
    /// there its time begins. Whoever waits is told what for, and a rollout that has waited for long enough goes back.
    async fn start_image(&self, launch: &Launch, deadline: Instant) -> Option<Result<Handle, Error>> {
        let span = deadline.saturating_duration_since(Instant::now());
        let (mut pauses, mut told) = (pauses(), String::new());
        loop {
            match self.prepare(launch).await {
                Ok(()) => break,
                Err(error) if error.kind().is_transient() => {
                    match self.is_leaving().await {
                        None => {
                            ended("dropped");
                            return None;
                        }
                        // Nothing of it is there, so it has ended.
                        Some(true) => return Some(Err(error)),
                        Some(false) => {}
                    }
                    let because = error.chain();
                    if because != told {
                        told.clone_from(&because);
                        let (container, generation) = (launch.container.clone(), launch.generation);
                        let delayed = Soft::Delayed { container, generation, because };
                        self.shared.observe(Observation::Soft(delayed)).await;
                    }
                }
                Err(error) => return Some(Err(error)),
            }
            tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        }
        let first = AtomicBool::new(true);
        let attempt = || async {
            match first.swap(false, Ordering::Relaxed) {
                true => self.runtime.start(launch).await,
                false => self.prepare_and_start(launch).await,
            }
        };
        self.until(Instant::now() + span, attempt).await
    }

    /// Repeats a call that another attempt may help until its deadline; `None` if it was resolved meanwhile: a repeated call
    /// would do what nobody waits for.
    async fn until<T, F>(&self, deadline: Instant, mut call: impl FnMut() -> F) -> Option<Result<T, Error>>
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
            if Instant::now() + pause >= deadline {
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

    /// Whether the container is to go; `None` if the operation is resolved.
    async fn is_leaving(&self) -> Option<bool> {
        let (operation, container) = (self.operation, self.container.clone());
        let look = move |state: &State, _: &Health| {
            state.operations.get(&operation)?;
            Some(state.containers.get(&container)?.state == ContainerState::Draining)
        };
        self.shared.look(look).await.ok().flatten()
    }

    async fn prepare_and_start(&self, launch: &Launch) -> Result<Handle, Error> {
        self.prepare(launch).await?;
        self.runtime.start(launch).await
    }

    async fn prepare(&self, launch: &Launch) -> Result<(), Error> {
        self.runtime.prepare(launch).await?;
        let prepared = Soft::Prepared { container: launch.container.clone(), generation: launch.generation };
        self.shared.observe(Observation::Soft(prepared)).await;
        Ok(())
    }

    async fn stop(self: Box<Self>, order: StopOrder) {
        let _room = self.room().await;
        let exit = self.until_done("stop", || self.runtime.stop(&order)).await.unwrap_or(Exit::Unknown);
        ended("done");
        let event = Event::Exited { container: order.container.clone(), generation: order.generation, exit };
        self.shared.observe(Observation::Event(event)).await;
    }

    async fn remove(self: Box<Self>) {
        let _room = self.room().await;
        self.until_done("remove", || self.runtime.remove(&self.container)).await;
        ended("done");
        self.shared.observe(Observation::Removed(self.container.clone())).await;
    }

    async fn assign(self: Box<Self>, launch: Result<Launch, Error>, deadline: Instant) {
        let room = self.room().await;
        let outcome = match &launch {
            Ok(launch) => self.until(deadline, || self.runtime.assign(launch)).await,
            Err(error) => Some(Err(error.clone())),
        };
        drop(room);
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
        let room = self.room().await;
        let outcome = self.runtime.unload(&order).await;
        drop(room);
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

/// Does something that takes room for [`COUNTS`] at most.
async fn while_counted<T>(room: Room, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Ok(done) = tokio::time::timeout(COUNTS, &mut work).await {
        return done;
    }
    drop(room);
    work.await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_take_turns_and_one_without_room_is_passed_over() {
        let (a, b) = (ServerId::new("a"), ServerId::new("b"));
        let mut waiting = Waiting::default();
        for number in [2, 1, 3, 1] {
            waiting.push(a.clone(), OperationId(number));
        }
        waiting.push(b.clone(), OperationId(4));
        let mut next = |free: &[&ServerId]| {
            waiting.pop(|server| free.contains(&server).then(|| server.clone())).map(|(id, server)| (id.0, server))
        };
        assert_eq!(next(&[&a, &b]), Some((1, a.clone())));
        assert_eq!(next(&[&a, &b]), Some((4, b.clone())));
        assert_eq!(next(&[&b]), None);
        assert_eq!(next(&[&a]), Some((2, a.clone())));
        assert_eq!(next(&[&a]), Some((3, a.clone())));
        assert_eq!(next(&[&a, &b]), None);
        assert!(waiting.turns.is_empty() && waiting.starts.is_empty());
    }
}
