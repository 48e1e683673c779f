//! The runtime of a server that an agent drives.
//!
//! What starts, ends and is removed goes through the session, as orders with an outcome; everything else is a call. While no
//! agent is connected, calls answer `Unavailable`, and what ends something waits: it has to happen some time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cocktail_core::contract::{
    Aside, AsideOutput, EndpointSource, ExecSession, ExecSpec, Exit, Gate, Handle, Known, Launch, Link, LinkSender,
    Listing, LogOptions, LogStream, Resolved, Runtime, RuntimeCapabilities, RuntimeEvent, StopOrder, UnloadOrder,
    UsageReading, VolumeFound,
};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::{ContainerId, Generation, ServerId};
use cocktail_core::name::Name;
use cocktail_core::session::{
    AgentFrame, Answer, Ask, Connection, LeaseEnd, Order, OrderRefusal, Outcome, Readings, Values,
};
use cocktail_core::spec::Template;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::events::Events;

/// What waits for the task of a session; senders wait beyond that.
const INPUTS: usize = 1_024;
/// Longest that an agent may take to answer a call that does not wait for a worker.
const ANSWER: Duration = Duration::from_secs(10);
/// How much longer than its grace a worker may take to close what it has loaded, until the answer counts as lost.
const UNLOAD: Duration = Duration::from_secs(20);
/// How long an image may be fetched: longer than a runtime takes itself.
const FETCH: Duration = Duration::from_secs(35 * 60);
/// Longest for asking a registry what a tag stands for: longer than a runtime takes itself.
const RESOLVE: Duration = Duration::from_secs(30);
/// Readings that are older than so many intervals say nothing.
const STALE: u32 = 3;

/// What the task of a session is told.
#[derive(Debug)]
pub(super) enum Input {
    /// A connection of the server's agent.
    Link(Box<Link>),
    /// Something came over a connection.
    Frame(Connection, Box<AgentFrame>),
    /// A connection ended.
    Closed(Connection),
    /// Something to order.
    Order { order: Box<Order>, values: Values, reply: oneshot::Sender<Result<Outcome>> },
    /// Something to ask.
    Ask { ask: Ask, reply: oneshot::Sender<Result<Answer>> },
}

/// The runtime of a server that an agent drives.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(super) server: ServerId,
    gate: Arc<dyn Gate>,
    inputs: mpsc::Sender<Input>,
    events: Events,
    /// How often the agent is expected to tell what everything uses.
    every: Duration,
    /// The server runs images, and nothing else.
    pub(super) images: bool,
    pub(super) ended: CancellationToken,
    /// The connection of the session, if there is one.
    pub(super) connected: watch::Sender<Option<Arc<dyn LinkSender>>>,
    asides: AtomicU64,
    told: Mutex<Told>,
}

/// What the agent told last.
#[derive(Debug, Default)]
struct Told {
    readings: Option<(Instant, Readings)>,
    handles: BTreeMap<ContainerId, (Generation, Handle)>,
}

impl Seat {
    pub(super) fn new(
        server: ServerId,
        gate: Arc<dyn Gate>,
        every: Duration,
        images: bool,
    ) -> (Self, mpsc::Receiver<Input>) {
        let (inputs, queue) = mpsc::channel(INPUTS);
        let (connected, _) = watch::channel(None);
        let seat = Self {
            server,
            gate,
            inputs,
            events: Events::default(),
            every,
            images,
            ended: CancellationToken::new(),
            connected,
            asides: AtomicU64::new(1),
            told: Mutex::default(),
        };
        (seat, queue)
    }

    /// Hands a connection to the session.
    pub(super) async fn give(&self, link: Link) {
        // Without a task the Manager is ending, and connections with it.
        let _ = self.inputs.send(Input::Link(Box::new(link))).await;
    }

    pub(super) fn inputs(&self) -> mpsc::Sender<Input> {
        self.inputs.clone()
    }

    pub(super) fn close(&self) {
        self.ended.cancel();
    }

    pub(super) fn emit(&self, event: RuntimeEvent) {
        // Without a reader nobody has attached yet, and a listing will tell.
        self.events.emit(&event);
    }

    pub(super) fn take_readings(&self, readings: Readings) {
        self.told().readings = Some((Instant::now(), readings));
    }

    pub(super) fn take_handle(&self, container: ContainerId, generation: Generation, handle: Handle) {
        self.told().handles.insert(container, (generation, handle));
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // Single inserts and reads are all that happens under the lock.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, container: &ContainerId, generation: Generation) -> Handle {
        let told = self.told();
        let known = told.handles.get(container).filter(|(of, _)| *of == generation);
        known.map(|(_, handle)| handle.clone()).unwrap_or_default()
    }

    async fn order(&self, order: Order, values: Values) -> Result<Outcome> {
        let (reply, answer) = oneshot::channel();
        self.inputs.send(Input::Order { order: Box::new(order), values, reply }).await.map_err(|_| self.gone())?;
        answer.await.map_err(|_| self.gone())?
    }

    async fn ask(&self, ask: Ask, within: Duration) -> Result<Answer> {
        let (reply, answer) = oneshot::channel();
        self.inputs.send(Input::Ask { ask, reply }).await.map_err(|_| self.gone())?;
        let late = || Error::new(ErrorKind::OutcomeUnknown, format!("{} did not answer in time", self.server));
        tokio::time::timeout(within, answer).await.map_err(|_| late())?.map_err(|_| self.gone())?
    }

    /// Orders what has to happen some time: again in each session until it has an outcome.
    async fn order_until_done(&self, order: Order) -> Result<Outcome> {
        let mut connected = self.connected.subscribe();
        loop {
            connected.mark_unchanged();
            match self.order(order.clone(), Values::default()).await {
                Err(error) if error.kind().is_transient() && !self.ended.is_cancelled() => {
                    // A session that is there all the same has no room for it now.
                    let pause = if connected.borrow().is_some() { Duration::from_millis(50) } else { ANSWER };
                    tokio::select! {
                        changed = connected.changed() => changed.map_err(|_| self.gone())?,
                        () = tokio::time::sleep(pause) => {}
                        () = self.ended.cancelled() => return Err(Error::not_found(format!("{} is gone", self.server))),
                    }
                }
                Err(_) if self.ended.is_cancelled() => {
                    return Err(Error::not_found(format!("{} is gone", self.server)));
                }
                outcome => return outcome,
            }
        }
    }

    fn gone(&self) -> Error {
        Error::unavailable(format!("the session with {} has ended", self.server))
    }

    fn away(&self) -> Error {
        Error::unavailable(format!("the agent of {} is not connected", self.server))
    }

    fn odd(&self, what: &impl std::fmt::Debug) -> Error {
        Error::unexpected(format!("the agent of {} answered {what:?}", self.server))
    }

    async fn aside(&self, ask: impl FnOnce(u64) -> Ask) -> Result<Aside> {
        let sender = self.connected.borrow().clone().ok_or_else(|| self.away())?;
        let number = self.asides.fetch_add(1, Ordering::Relaxed);
        let answer = self.ask(ask(number), ANSWER).await?;
        match answer {
            Answer::Done => sender.aside(number).await,
            other => Err(self.odd(&other)),
        }
    }
}

#[async_trait]
impl Runtime for Seat {
    fn capabilities(&self) -> RuntimeCapabilities {
        let images = self.images;
        RuntimeCapabilities {
            outlives_manager: true,
            tty: true,
            limits: true,
            inherit: !images,
            images,
            // Its files would have to come from the Manager's machine.
            builds: false,
        }
    }

    fn learn_endpoints_from(&self, source: Arc<dyn EndpointSource>) {
        // Each seat follows them from its beginning.
        drop(source);
    }

    /// Part of the start: one order, one answer. An image is fetched before, for as long as that takes.
    async fn prepare(&self, launch: &Launch) -> Result<()> {
        if self.connected.borrow().is_none() {
            return Err(self.away());
        }
        let Some(image) = &launch.image else { return Ok(()) };
        let login = self.gate.login(&image.reference, &image.unit.service).await?;
        let launch = Box::new(launch.clone());
        self.done(Ask::Fetch { launch, login }, FETCH).await
    }

    fn give_up(&self, container: &ContainerId, generation: Generation) {
        let ask = Ask::GiveUp { container: container.clone(), generation };
        let (reply, _nobody_waits) = oneshot::channel();
        // Without room what was to be fetched is fetched in vain.
        let _ = self.inputs.try_send(Input::Ask { ask, reply });
    }

    async fn start(&self, launch: &Launch) -> Result<Handle> {
        let (container, generation) = (launch.container.clone(), launch.generation);
        let values = match launch.env_from.is_empty() && launch.secrets.is_empty() {
            true => Values::default(),
            false => {
                let (gate, launch) = (self.gate.clone(), launch.clone());
                let resolved = tokio::task::spawn_blocking(move || gate.values(&launch)).await;
                resolved.map_err(|error| Error::unexpected("reading secrets panicked").because(error))??
            }
        };
        let at_lease_end = if launch.outlives_lease { LeaseEnd::Keep } else { LeaseEnd::End };
        let order = Order::Start { launch: Arc::new(launch.clone()), at_lease_end };
        match self.order(order, values).await? {
            Outcome::Started => Ok(self.handle(&container, generation)),
            Outcome::Failed(failure) => Err(failure.into_error()),
            Outcome::Ended(exit) => {
                let exit = exit.unwrap_or(Exit::Unknown);
                self.emit(RuntimeEvent::Exited { container: container.clone(), generation, exit });
                Ok(self.handle(&container, generation))
            }
            Outcome::Refused(OrderRefusal::AlreadyEnded) => {
                self.emit(RuntimeEvent::Exited { container: container.clone(), generation, exit: Exit::Unknown });
                Ok(self.handle(&container, generation))
            }
            Outcome::Refused(why) => Err(Error::new(ErrorKind::Conflict, why.to_string())),
            other @ (Outcome::Removed | Outcome::Admitted) => Err(self.odd(&other)),
        }
    }

    async fn stop(&self, order: &StopOrder) -> Result<Exit> {
        match self.order_until_done(Order::Stop(order.clone())).await? {
            Outcome::Ended(exit) => Ok(exit.unwrap_or(Exit::Unknown)),
            Outcome::Removed => Ok(Exit::Unknown),
            other => Err(self.odd(&other)),
        }
    }

    async fn assign(&self, launch: &Launch) -> Result<()> {
        self.done(Ask::Assign(Box::new(launch.clone())), ANSWER).await
    }

    async fn unload(&self, order: &UnloadOrder) -> Result<()> {
        self.done(Ask::Unload(order.clone()), order.grace + UNLOAD).await
    }

    async fn remove(&self, container: &ContainerId) -> Result<()> {
        self.told().handles.remove(container);
        match self.order_until_done(Order::Remove { container: container.clone() }).await? {
            Outcome::Removed => Ok(()),
            Outcome::Refused(why) => Err(Error::new(ErrorKind::Conflict, why.to_string())),
            other => Err(self.odd(&other)),
        }
    }

    async fn release_ports(&self, ports: &[u16]) -> Result<()> {
        self.done(Ask::ReleasePorts(ports.to_vec()), ANSWER).await
    }

    async fn list(&self) -> Result<Listing> {
        self.listing(Ask::List).await
    }

    async fn recover(&self, known: &[Known]) -> Result<Listing> {
        self.listing(Ask::Recover(known.to_vec())).await
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        self.events.read()
    }

    async fn usage(&self) -> Result<BTreeMap<ContainerId, UsageReading>> {
        Ok(self.readings()?.usage)
    }

    async fn reported(&self) -> Result<BTreeMap<ContainerId, BTreeMap<String, f64>>> {
        Ok(self.readings()?.reported)
    }

    async fn volumes(&self) -> Result<Vec<VolumeFound>> {
        match self.ask(Ask::Volumes, ANSWER).await? {
            Answer::Volumes(volumes) => Ok(volumes),
            other => Err(self.odd(&other)),
        }
    }

    async fn logs(&self, container: &ContainerId, options: &LogOptions) -> Result<LogStream> {
        let (container, options) = (container.clone(), options.clone());
        let Aside { output, input } = self.aside(|aside| Ask::Logs { container, options, aside }).await?;
        let lines = output.filter_map(move |output| {
            // It ends with this: the agent takes that for somebody who has read all.
            let _open = &input;
            std::future::ready(match output {
                Ok(AsideOutput::Line(line)) => Some(Ok(line)),
                Ok(AsideOutput::Exec(_)) => None,
                Err(error) => Some(Err(error)),
            })
        });
        Ok(lines.boxed())
    }

    async fn exec(&self, container: &ContainerId, spec: &ExecSpec) -> Result<ExecSession> {
        let (container, spec) = (container.clone(), spec.clone());
        let Aside { output, input } = self.aside(|aside| Ask::Exec { container, spec, aside }).await?;
        let output = output.filter_map(|output| async move {
            match output {
                Ok(AsideOutput::Exec(output)) => Some(Ok(output)),
                Ok(AsideOutput::Line(_)) => None,
                Err(error) => Some(Err(error)),
            }
        });
        Ok(ExecSession { input, output: output.boxed() })
    }

    async fn resolve(&self, reference: &str, service: &Name) -> Result<Resolved> {
        if self.connected.borrow().is_none() {
            // It is the server that does not answer, not the registry.
            return Err(self.away().with("engine", &self.server));
        }
        let login = self.gate.login(reference, service).await?;
        let ask = Ask::Resolve { reference: reference.to_owned(), service: service.clone(), login };
        match self.ask(ask, RESOLVE).await? {
            Answer::Resolved(resolved) => Ok(resolved),
            other => Err(self.odd(&other)),
        }
    }

    async fn check(&self, template: &Template) -> Result<Vec<(String, String)>> {
        match self.ask(Ask::Check(Box::new(template.clone())), ANSWER).await? {
            Answer::Problems(problems) => Ok(problems),
            other => Err(self.odd(&other)),
        }
    }

    /// The agent goes on: it serves the next Manager.
    async fn shutdown(&self, _stop: bool) -> Result<()> {
        Ok(())
    }
}

impl Seat {
    async fn done(&self, ask: Ask, within: Duration) -> Result<()> {
        match self.ask(ask, within).await? {
            Answer::Done => Ok(()),
            other => Err(self.odd(&other)),
        }
    }

    async fn listing(&self, ask: Ask) -> Result<Listing> {
        match self.ask(ask, ANSWER).await? {
            // The agent has made sure that our lease descends from the one that it obeyed before.
            Answer::Listing(listing) => Ok(Listing { descended: true, ..listing }),
            other => Err(self.odd(&other)),
        }
    }

    /// What the agent told last, if that is not long ago.
    fn readings(&self) -> Result<Readings> {
        let fresh = |(at, _): &&(Instant, Readings)| at.elapsed() < self.every * STALE;
        let told = self.told();
        let readings = told.readings.as_ref().filter(fresh);
        readings.map(|(_, readings)| readings.clone()).ok_or_else(|| self.away())
    }
}
