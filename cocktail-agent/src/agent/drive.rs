//! The agent's one task: owns the session, in the order memos, effects, messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cocktail_core::contract::{
    EndpointSource, EndpointStream, Exit, Hold, Known, Launch, Runtime, RuntimeEvent, Sighting, StopOrder,
};
use cocktail_core::error::Result;
use cocktail_core::id::ContainerId;
use cocktail_core::session::{
    AgentConfig as SessionConfig, AgentEnd, AgentFrame, AgentOutput, AgentTime, Connection, Effect, Facts, Failure,
    Held, LeaseEnd, ManagerFrame, Order, Phase, Readings, Survivor, Survivors, ToAgent, Values,
};
use cocktail_core::view::EndpointView;
use futures_util::{StreamExt as _, stream};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::asks::{self, Fetching};
use super::board::Board;
use super::carry::{Done, Hands, SIGTERM};
use super::files::Files;
use super::link::{self, News};
use super::{AgentConfig, Memory};
use crate::identity::AgentIdentity;

/// First pause before a hello is sent again.
const HELLO: Duration = Duration::from_secs(1);
/// What waits to be taken in; senders wait beyond that.
const QUEUE: usize = 1_024;

/// What asks are carried out with.
#[derive(Debug, Clone)]
pub(super) struct Tools {
    pub(super) runtime: Arc<dyn Runtime>,
    /// Starts of this agent, and those that a Manager has told it of: what a runtime needs to watch them.
    pub(super) watched: watch::Sender<BTreeMap<ContainerId, Arc<Launch>>>,
    /// What is being fetched, and how that is ended.
    pub(super) fetching: Fetching,
}

struct Drive {
    config: AgentConfig,
    memory: Memory,
    end: AgentEnd,
    hands: Hands,
    tools: Tools,
    board: Board,
    files: Arc<Files>,
    link: Option<(Connection, link::Sender)>,
    /// The same, for files.
    current: watch::Sender<Option<link::Sender>>,
    last: u64,
    /// Variables for starts that were ordered and have not begun.
    values: BTreeMap<ContainerId, Values>,
    signals: BTreeMap<ContainerId, i32>,
    /// Containers that run on when the lease is over.
    keep: BTreeSet<ContainerId>,
    endpoints: watch::Sender<Option<Arc<Vec<EndpointView>>>>,
}

pub(super) fn now() -> AgentTime {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    AgentTime(seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000))
}

/// What outlived earlier agents on this boot.
async fn survivors(runtime: &Arc<dyn Runtime>) -> Result<Survivors> {
    let (listing, held) = (runtime.list().await?, runtime.held().await?);
    let keep = held.as_ref().map(|held| held.keep.clone()).unwrap_or_default();
    let survivor = |(id, seen): (ContainerId, cocktail_core::contract::Observation)| {
        let exit = match seen.sighting {
            Sighting::Running(_) | Sighting::Unknown => None,
            Sighting::Exited(exit) => Some(exit),
            // Nothing of it ran.
            Sighting::Prepared | Sighting::Absent => return None,
        };
        let at_lease_end = if keep.contains(&id) { LeaseEnd::Keep } else { LeaseEnd::End };
        Some((id, Survivor { generation: seen.generation, exit, blocked: false, at_lease_end }))
    };
    let containers = listing.containers.into_iter().filter_map(survivor).collect();
    Ok(Survivors { lease: held.map(|held| (now() + held.span, held.grace)), containers })
}

/// Serves until it is told to end.
pub(super) async fn run(
    config: AgentConfig,
    identity: AgentIdentity,
    memory: Memory,
    runtime: Arc<dyn Runtime>,
    until: CancellationToken,
) -> Result<()> {
    let (endpoints, table) = watch::channel(None);
    runtime.learn_endpoints_from(Arc::new(Table(table)));
    let mut events = runtime.events();
    let found = survivors(&runtime).await?;
    info!(survivors = found.containers.len(), leased = found.lease.is_some(), "the agent of a server starts");
    let session = SessionConfig { server: link::server(&identity)?, boot: memory.boot()?, hello_every: HELLO };
    let keep = found.containers.iter().filter(|(_, it)| it.at_lease_end == LeaseEnd::Keep);
    let keep = keep.map(|(id, _)| id.clone()).collect();
    let (end, out) = AgentEnd::new(session, memory.memory().clone(), found, now());
    let (done, mut dones) = mpsc::channel(QUEUE);
    let (news, mut newest) = mpsc::channel(QUEUE);
    let linked = CancellationToken::new();
    let _unlink = linked.clone().drop_guard();
    tokio::spawn(link::keep(config.clone(), identity, news, linked));
    let (watched, _) = watch::channel(BTreeMap::new());
    let (current, sender) = watch::channel(None);
    let files = Arc::new(Files::new(config.dir.join("artifacts"), sender)?);
    let mut drive = Drive {
        hands: Hands::new(runtime.clone(), files.clone(), done),
        files,
        current,
        tools: Tools { runtime: runtime.clone(), watched, fetching: Fetching::default() },
        board: Board::default(),
        link: None,
        last: 0,
        values: BTreeMap::new(),
        signals: BTreeMap::new(),
        keep,
        endpoints,
        config,
        memory,
        end,
    };
    drive.act(out)?;
    let (readings, mut read) = mpsc::channel(1);
    tokio::spawn(read_usage(runtime, drive.config.report, readings));
    loop {
        let wake = drive.end.wake_at().map(|at| at - now());
        let tick = async {
            match wake {
                Some(span) => sleep(span).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = until.cancelled() => return Ok(()),
            Some(news) = newest.recv() => drive.news(news)?,
            Some(done) = dones.recv() => drive.done(done)?,
            event = events.next() => match event {
                Some(event) => drive.event(event)?,
                None => return Ok(()),
            },
            Some(readings) = read.recv() => drive.send(AgentFrame::Readings(readings)),
            () = tick => {
                let out = drive.end.tick(now());
                drive.act(out)?;
            }
        }
    }
}

impl Drive {
    /// Memos first, durably; then effects, in order; then messages.
    fn act(&mut self, out: AgentOutput) -> Result<()> {
        let AgentOutput { memos, effects, messages, hang_up } = out;
        self.memory.remember(&memos)?;
        for effect in effects {
            self.carry_out(effect);
        }
        for (connection, message) in messages {
            if let Some((_, sender)) = self.link.as_ref().filter(|(current, _)| *current == connection) {
                sender.send(AgentFrame::Session(message));
            }
        }
        if let Some((_, sender)) = self.link.as_ref().filter(|(current, _)| hang_up.contains(current)) {
            sender.close();
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Hold { until, fence } => {
                self.hands.hold(Hold { span: until - now(), grace: fence, keep: self.keep.clone() });
            }
            Effect::Run { launch, at_lease_end } => {
                let changed = match at_lease_end {
                    LeaseEnd::Keep => self.keep.insert(launch.container.clone()),
                    // An earlier start of it may have been told otherwise.
                    LeaseEnd::End => self.keep.remove(&launch.container),
                };
                if changed {
                    self.hold_on();
                }
                let mut launch = launch;
                let values = self.values.remove(&launch.container).unwrap_or_default();
                let own = Arc::make_mut(&mut launch);
                // They are of the Manager's host, and have come with the order.
                own.env_from.clear();
                own.secrets.clear();
                own.env.extend(values.0);
                self.hands.start(launch);
            }
            Effect::End { container, generation, grace } => {
                let signal = self.signals.get(&container).copied().unwrap_or(SIGTERM);
                self.hands.end(StopOrder { container, generation, signal, grace });
            }
            // Nothing of this machine sends anybody to a container: who serves is said by the Manager.
            Effect::Block { .. } | Effect::Unblock { .. } => {}
            Effect::Forget { container } => {
                self.board.forget(&container);
                self.keep.remove(&container);
                self.signals.remove(&container);
                self.tools.watched.send_modify(|watched| {
                    watched.remove(&container);
                });
                self.hands.forget(container);
                let (files, watched) = (self.files.clone(), self.tools.watched.borrow().clone());
                tokio::spawn(async move { files.prune(watched.into_values()).await });
            }
        }
    }

    /// What is to be kept has changed.
    fn hold_on(&self) {
        if let Some((until, fence)) = self.end.lease() {
            self.hands.hold(Hold { span: until - now(), grace: fence, keep: self.keep.clone() });
        }
    }

    fn send(&self, frame: AgentFrame) {
        if let Some((_, sender)) = self.link.as_ref().filter(|_| self.end.session().is_some()) {
            sender.send(frame);
        }
    }

    fn news(&mut self, news: News) -> Result<()> {
        match news {
            News::Opened(sender) => {
                self.last += 1;
                let connection = Connection(self.last);
                sender.send(AgentFrame::Facts(Facts {
                    capacity: self.config.capacity,
                    address: self.config.address,
                    host: self.config.host.clone(),
                    build: env!("CARGO_PKG_VERSION").to_owned(),
                    images: self.config.images,
                }));
                self.current.send_replace(Some(sender.clone()));
                self.link = Some((connection, sender));
                let out = self.end.opened(now(), connection);
                self.act(out)
            }
            News::Closed => {
                let Some((connection, _)) = self.link.take() else { return Ok(()) };
                self.current.send_replace(None);
                let out = self.end.closed(now(), connection);
                self.act(out)
            }
            News::Frame(frame) => self.frame(*frame),
        }
    }

    fn frame(&mut self, frame: ManagerFrame) -> Result<()> {
        match frame {
            ManagerFrame::Session { message, values } => {
                let Some((connection, _)) = self.link else { return Ok(()) };
                if let ToAgent::Orders { orders, .. } = &message {
                    for order in orders {
                        if let Order::Stop(stop) = order {
                            self.signals.insert(stop.container.clone(), stop.signal);
                        }
                    }
                }
                if let ToAgent::Refused { why, .. } = &message {
                    warn!(%why, "the manager offers no session");
                }
                self.values.extend(values);
                let out = self.end.received(now(), connection, message);
                self.act(out)
            }
            ManagerFrame::Call { call, ask } => {
                if let Some((_, sender)) = &self.link {
                    let said = self.board.all();
                    tokio::spawn(asks::answer(self.tools.clone(), sender.clone(), call, *ask, said));
                }
                Ok(())
            }
            ManagerFrame::Endpoints(table) => {
                self.endpoints.send_replace(Some(table));
                Ok(())
            }
        }
    }

    fn done(&mut self, done: Done) -> Result<()> {
        let out = match done {
            Done::Started(launch, handle) => {
                let (container, generation) = (launch.container.clone(), launch.generation);
                self.tools.watched.send_modify(|watched| {
                    watched.insert(container.clone(), launch);
                });
                self.send(AgentFrame::Runs { container: container.clone(), generation, handle });
                self.end.started(now(), &container, generation)
            }
            Done::StartFailed(launch, error) => {
                warn!(container = %launch.container, error = error.chain(), "a container could not be started");
                self.end.start_failed(now(), &launch.container, launch.generation, Failure::from(&error))
            }
            Done::Ended(container, generation, exit) => {
                self.board.forget(&container);
                self.end.exited(now(), &container, generation, exit)
            }
        };
        self.act(out)
    }

    fn event(&mut self, event: RuntimeEvent) -> Result<()> {
        self.board.take(&event);
        match event {
            RuntimeEvent::Exited { container, generation, exit } => {
                let out = self.end.exited(now(), &container, generation, exit);
                self.act(out)
            }
            RuntimeEvent::Resync { why } => {
                warn!(why, "the containers of this machine are looked at again");
                self.hands.hold_again();
                let watched = self.tools.watched.borrow().clone();
                // What is being started or ended is answered by whoever does that.
                let runs = |held: &Held| held.phase == Phase::Running && held.older.is_none();
                let running: Vec<_> = self.end.containers().into_iter().filter(|(_, held)| runs(held)).collect();
                let (runtime, hands) = (self.tools.runtime.clone(), self.hands.done());
                tokio::spawn(async move {
                    let known = |launch: &Arc<Launch>| Known { launch: (**launch).clone(), handle: None };
                    let known: Vec<Known> = watched.values().map(known).collect();
                    // What cannot be asked asks again by itself.
                    let Ok(listing) = runtime.recover(&known).await else { return };
                    for (container, held) in running.into_iter().filter(|_| listing.complete) {
                        let seen = listing.containers.get(&container).map(|seen| (seen.generation, &seen.sighting));
                        let gone = match seen {
                            Some((generation, Sighting::Exited(exit))) if generation == held.generation => Some(*exit),
                            Some((_, Sighting::Absent)) | None => Some(Exit::Unknown),
                            _ => None,
                        };
                        if let Some(exit) = gone {
                            let _ = hands.send(Done::Ended(container, held.generation, exit)).await;
                        }
                    }
                });
                Ok(())
            }
            event => {
                self.send(AgentFrame::Event(event));
                Ok(())
            }
        }
    }
}

/// Reads what everything uses from time to time; a reading that nobody has taken yet is not followed by another.
async fn read_usage(runtime: Arc<dyn Runtime>, every: Duration, readings: mpsc::Sender<Readings>) {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = readings.closed() => return,
            _ = tick.tick() => {}
        }
        if let (Ok(usage), Ok(reported)) = (runtime.usage().await, runtime.reported().await) {
            // The agent has ended, and so does this.
            let _ = readings.send(Readings { usage, reported }).await;
        }
    }
}

/// The endpoints as the Manager said them last.
#[derive(Debug)]
struct Table(watch::Receiver<Option<Arc<Vec<EndpointView>>>>);

impl EndpointSource for Table {
    fn watch(&self, unit: Option<&str>) -> EndpointStream {
        let (receiver, unit) = (self.0.clone(), unit.map(str::to_owned));
        let first = true;
        stream::unfold((receiver, unit, first, None), |(mut receiver, unit, mut first, mut told)| async move {
            loop {
                if !std::mem::take(&mut first) {
                    receiver.changed().await.ok()?;
                }
                let Some(table) = receiver.borrow_and_update().clone() else { continue };
                let is_own = |view: &&EndpointView| unit.as_ref().is_none_or(|unit| view.is_of(unit));
                let own: Vec<EndpointView> = table.iter().filter(is_own).cloned().collect();
                if told.as_ref() != Some(&own) {
                    told = Some(own.clone());
                    return Some((Ok(own), (receiver, unit, false, told)));
                }
            }
        })
        .boxed()
    }
}
