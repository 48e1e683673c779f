//! The writer: the one task that owns the state.
//!
//! A turn: take everything that waits, apply it, let the planner decide, commit the turn in one synced transaction,
//! then send the calls of its operations, answer the commands and tell followers. While the store cannot be written
//! the turn is held: no call is sent, commands are refused, looks are answered, and it goes on by itself.
//!
//! Start at [`Writer::run`]. `gather` says what a turn takes in, `flight` what becomes of it once it is decided, `snapshot`
//! when the state is written down as a whole.

mod flight;
mod gather;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cocktail_core::command::Commanded;
use cocktail_core::contract::{RuntimeEvent, ServerObservation};
use cocktail_core::error::{Error, Result};
use cocktail_core::event::{Event, Soft, Turn};
use cocktail_core::fleet::{FleetEvent, ServerOperation};
use cocktail_core::id::{ContainerId, Epoch, Seq, ServerId};
use cocktail_core::name::Name;
use cocktail_core::plan;
use cocktail_core::server::ServerState;
use cocktail_core::state::State;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, Span, debug_span, error, info, warn};

use self::flight::{Flight, Reply};
pub(crate) use self::snapshot::Snapshots;
use crate::builder::{follow, server as server_record};
use crate::clock::Clock;
use crate::executor::Executor;
use crate::observe::{self, Change};
use crate::routing::Wanted;
use crate::shared::{Attached, Found, Health, Observation, Request, Shared};
use crate::{fleet, floor, schedule};

/// Pause between two attempts to write a turn that is held.
const RETRY: Duration = Duration::from_millis(200);
/// What is kept of a container whose start is not known to have happened; a listing tells the rest.
const EARLY: usize = 64;
/// Longest wait for calls under way when the Manager ends.
const FINISH: Duration = Duration::from_secs(2);

/// Why the writer ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// It was asked to.
    Closed,
    /// Another Manager has the lease.
    LeaseLost(String),
    /// A server runs what this store knows nothing of.
    Refused(String),
}

/// Everything that the writer owns.
pub(crate) struct Writer {
    pub(crate) state: State,
    pub(crate) epoch: Epoch,
    pub(crate) clock: Clock,
    pub(crate) shared: Shared,
    pub(crate) executor: Executor,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) observations: mpsc::Receiver<Observation>,
    pub(crate) routes: watch::Sender<Arc<crate::routing::Wanted>>,
    /// Counts what may have changed the endpoints, for those who follow them.
    pub(crate) tables: watch::Sender<u64>,
    pub(crate) seq: Seq,
    pub(crate) health: Health,
    pub(crate) snapshots: Snapshots,
    /// The reserve of the disk is in use: commands are refused until it is restored.
    pub(crate) reserve_used: bool,
    /// When the next turn may begin.
    pub(crate) paced: Option<Instant>,
    /// Containers that the last turn might make.
    pub(crate) claims: usize,
    /// The turn that is being written, while the next one is decided.
    pub(crate) flight: Option<Flight>,
    /// What probes found of containers whose start is not known yet. They tell it once.
    pub(crate) early: BTreeMap<ContainerId, Vec<RuntimeEvent>>,
    /// Why this Manager must not go on.
    pub(crate) refused: Option<String>,
}

/// What one turn gathered.
#[derive(Default)]
struct Gathered {
    events: Vec<Event>,
    replies: Vec<Reply>,
    halted: Vec<oneshot::Sender<()>>,
    close: Option<oneshot::Sender<()>>,
}

impl Writer {
    /// Runs until it is closed or the lease is lost.
    pub(crate) async fn run(mut self) -> End {
        let mut halted: Vec<oneshot::Sender<()>> = Vec::new();
        self.resume();
        loop {
            let mut gathered = Gathered::default();
            if let Err(end) = self.gather(&mut gathered).await {
                return end;
            }
            halted.append(&mut gathered.halted);
            if let Some(because) = self.refused.take() {
                error!(because, "the manager ends");
                return End::Refused(because);
            }
            // A turn without anything to do, as after a look, is none.
            let span = match gathered.events.is_empty() && !self.state.is_dirty() {
                true => Span::none(),
                false => debug_span!("cocktail.turn", seq = Empty, events = Empty, operations = Empty),
            };
            if let Err(end) = self.turn(gathered.events, gathered.replies).instrument(span).await {
                return end;
            }
            if self.state.containers.is_empty() {
                for done in halted.drain(..) {
                    // The asker may have gone.
                    let _ = done.send(());
                }
            }
            if let Some(done) = gathered.close {
                if let Err(end) = self.land().await {
                    return end;
                }
                self.executor.finish(FINISH).await;
                self.end_with_snapshot().await;
                let _ = done.send(());
                return End::Closed;
            }
        }
    }

    /// Makes the turn of taking over durable, before anything is done.
    pub(crate) async fn commit_first(&mut self, turn: &Turn) -> Result<()> {
        let ended = self.state.take_ended_server_operations();
        let (row, ledger) = flight::rows(self.seq.next(), turn, &ended)?;
        self.shared.store.append(self.epoch, row, &ledger).await?;
        self.seq = self.seq.next();
        self.health.seq = self.seq;
        Ok(())
    }

    /// Sends the calls that an earlier Manager intended, as far as their servers are connected.
    fn resume(&mut self) {
        let open: Vec<_> = self.state.operations.values().cloned().collect();
        for operation in open {
            self.executor.send(&self.state, &operation);
        }
        self.executor.begin(&self.state);
        let open: Vec<_> = self.state.server_operations.values().cloned().collect();
        for operation in open {
            self.send_server_call(operation);
        }
    }

    fn send_server_call(&self, operation: ServerOperation) {
        tokio::spawn(fleet::call(self.shared.clone(), operation, self.epoch, self.clock));
    }

    /// Servers that are gone are not called any more.
    fn forget_servers(&self, events: &[Event]) {
        for event in events {
            if let Event::Fleet { event } = event
                && let FleetEvent::Gone { server, .. } | FleetEvent::Released { server } = &**event
            {
                self.shared.servers.remove(server);
                if let Some(agents) = &self.shared.agents {
                    agents.remove(server);
                }
            }
        }
    }

    fn advance(&mut self) {
        self.state.advance(self.clock.now(), Clock::wall());
    }

    fn request(&mut self, request: Request, gathered: &mut Gathered) {
        match request {
            Request::Look(look) => look(&self.state, &self.health),
            Request::Halt(done) => {
                self.state.note(&Soft::Halt);
                gathered.halted.push(done);
            }
            Request::Close(done) => gathered.close = Some(done),
            Request::Command { command, actor, reply, show } => {
                if let Some(because) = &self.health.degraded {
                    let _ = reply.send(Err(Error::refused(because.clone())));
                    return;
                }
                if self.state.is_halting() {
                    let _ = reply.send(Err(Error::refused("the manager is ending")));
                    return;
                }
                match self.state.command(&command, &actor) {
                    Ok(commanded) => {
                        for event in &commanded.events {
                            self.state.apply(event);
                        }
                        gathered.events.extend(commanded.events.iter().cloned());
                        gathered.replies.push(Reply { to: reply, commanded, show: Some(show) });
                    }
                    Err(error) => {
                        let _ = reply.send(Err(error));
                    }
                }
            }
        }
    }

    fn observation(&mut self, observation: Observation, gathered: &mut Gathered) {
        match observation {
            Observation::Event(event) => {
                if self.is_news(&event) {
                    self.durable(event, gathered);
                }
            }
            Observation::Durable(event, to) => {
                self.durable(event, gathered);
                gathered.replies.push(Reply { to, commanded: Commanded::default(), show: None });
            }
            Observation::Soft(soft) => self.state.note(&soft),
            Observation::StartFailed(operation, failure) => {
                if self.state.operations.contains_key(&operation) {
                    self.durable(Event::StartFailed { operation, failure }, gathered);
                }
            }
            Observation::Removed(container) => {
                if self.state.containers.contains_key(&container) {
                    self.durable(Event::Removed { container }, gathered);
                }
            }
            Observation::Runtime(server, RuntimeEvent::Resync { why }) => {
                info!(%server, why, "attaching to the containers of a server again");
                self.attach(server);
            }
            Observation::Runtime(_, event) => match observe::is_early(&self.state, &event).cloned() {
                Some(container) => {
                    self.early.retain(|container, _| self.state.containers.contains_key(container));
                    let told = self.early.entry(container).or_default();
                    if told.len() < EARLY {
                        told.push(event);
                    }
                }
                None => self.told(event, gathered),
            },
            Observation::Listed { found, attached } => {
                self.found(&found, gathered);
                if attached {
                    // The table may have been lost together with the keeper.
                    self.send_routes(true);
                }
            }
            Observation::Connected { attached, found } => self.connected(attached, &found, gathered),
            Observation::Seen(provider, seen) => self.seen(&provider, &seen, gathered),
            Observation::ProviderListed { provider, asked, listing } => {
                for event in self.state.listed(&provider, asked, &listing) {
                    self.durable(event, gathered);
                }
            }
            Observation::Interrupted(provider, notices) => {
                for event in self.state.interrupted(&provider, &notices) {
                    self.durable(event, gathered);
                }
            }
            Observation::Provisioned(operation, answer) => {
                for event in self.state.provisioned(operation, answer) {
                    self.durable(event, gathered);
                }
            }
            Observation::Cleared(operation, answer) => {
                for event in self.state.cleared(operation, answer) {
                    self.durable(event, gathered);
                }
            }
            Observation::Terminated(operation, answer) => {
                for event in self.state.terminated(operation, answer) {
                    self.durable(event, gathered);
                }
            }
            Observation::Routes(errors) => {
                for (address, because) in &errors {
                    if self.health.routes.get(address) != Some(because) {
                        warn!(%address, because, "a service port does not listen");
                    }
                }
                if self.health.routes != errors {
                    self.health.routes = errors;
                    self.tables.send_modify(|changes| *changes += 1);
                }
            }
        }
    }

    /// A server can be called. One that has gone meanwhile, or was connected to twice, is not followed.
    fn connected(&mut self, attached: Attached, found: &Found, gathered: &mut Gathered) {
        let server = &found.server;
        let answers = self.state.servers.get(server).is_some_and(|record| fleet::may_answer(record.state));
        if !answers || self.shared.servers.get(server).is_some() {
            return;
        }
        if let Err(error) = observe::check_not_older(&self.state, &found.listing) {
            self.refused = Some(error.chain());
            return;
        }
        let Attached { runtime, streamed } = attached;
        self.shared.servers.add(server.clone(), runtime.clone());
        self.found(found, gathered);
        self.resume_on(server);
        follow(&self.shared, server.clone(), runtime, streamed, self.state.settings.relist);
    }

    /// A server that did not answer when the Manager began may have said nothing of its size, and may be another by now.
    fn seen(&mut self, provider: &Name, seen: &ServerObservation, gathered: &mut Gathered) {
        let Some(provider) = self.shared.providers.iter().find(|it| it.name() == provider) else { return };
        let Some(known) = self.state.servers.get(&seen.server) else { return };
        let now = server_record(&self.state, provider.as_ref(), seen, false);
        let same = (now.capacity, &now.incarnation, now.address) == (known.capacity, &known.incarnation, known.address);
        if !same && known.provider == now.provider && !known.tenure.by_agent {
            self.durable(Event::ServerSeen { server: Box::new(now) }, gathered);
        }
    }

    /// What a listing of a server's runtime says.
    fn found(&mut self, found: &Found, gathered: &mut Gathered) {
        let Found { server, asked, before, listing } = found;
        self.health.note_unknown(server, observe::unknown(&self.state, before, listing));
        for event in self.state.found(server, *asked, listing) {
            self.durable(event, gathered);
        }
    }

    /// Sends the calls that were intended while a server was not connected. All of them are durable.
    fn resume_on(&mut self, server: &ServerId) {
        let open = self.state.on(server).filter_map(|it| self.state.operations.get(&it.operation?));
        for operation in open {
            self.executor.send(&self.state, operation);
        }
        self.executor.begin(&self.state);
    }

    /// Whether an outcome still says something about what is there.
    fn is_news(&self, event: &Event) -> bool {
        match event {
            Event::Started { container, generation, .. } | Event::Exited { container, generation, .. } => self
                .state
                .containers
                .get(container)
                .is_some_and(|record| record.generation == *generation && record.state.may_run()),
            Event::Assigned { operation, .. } | Event::Unloaded { operation, .. } => {
                self.state.operations.contains_key(operation)
            }
            Event::BoundsSet { unit, bounds, .. } => schedule::is_news(self.state.units.get(unit), *bounds),
            Event::Fleet { event } => match &**event {
                FleetEvent::Joined { server, .. } => self
                    .state
                    .servers
                    .get(server)
                    .is_some_and(|record| matches!(record.state, ServerState::Booting | ServerState::Lost)),
                _ => true,
            },
            _ => true,
        }
    }

    fn told(&mut self, event: RuntimeEvent, gathered: &mut Gathered) {
        if let RuntimeEvent::Worker { container, generation, said } = &event {
            for event in self.state.worker_said(container, *generation, said) {
                self.durable(event, gathered);
            }
            return;
        }
        match observe::of_runtime(&self.state, event) {
            Some(Change::Durable(event)) => self.durable(event, gathered),
            Some(Change::Soft(soft)) => self.state.note(&soft),
            None => {}
        }
    }

    fn durable(&mut self, event: Event, gathered: &mut Gathered) {
        self.state.apply(&event);
        let early = match &event {
            Event::Started { container, .. } => self.early.remove(container),
            _ => None,
        };
        gathered.events.push(event);
        for event in early.into_iter().flatten() {
            self.told(event, gathered);
        }
    }

    /// Decides, commits, acts, answers.
    async fn turn(&mut self, mut events: Vec<Event>, mut replies: Vec<Reply>) -> Result<(), End> {
        let began = Instant::now();
        let ready = if self.state.is_dirty() { floor::ready(&self.state) } else { floor::Ready::new() };
        let claims = self.claims();
        let decided = plan::decide_first(&mut self.state, claims);
        for anomaly in floor::broken(&ready, &self.state, &decided) {
            error!(anomaly, "a step breaks the floor of a unit");
            self.health.anomalies += 1;
        }
        events.extend(decided);
        for reply in &mut replies {
            reply.show(&self.state);
        }
        for anomaly in self.state.take_anomalies() {
            error!(anomaly, "something that should be impossible has happened");
        }
        if self.reserve_used {
            self.restore_reserve().await;
        }
        // What the turn before intended is durable and sent before this one goes on its way.
        self.land().await?;
        if events.is_empty() {
            replies.into_iter().for_each(Reply::send);
            self.send_routes(false);
            self.release_ports();
            return Ok(());
        }
        let turn = Turn { now: self.state.now, at: self.state.at, epoch: self.epoch, events };
        self.take_off(turn, replies, began);
        let due = self.snapshots.is_due(&self.state.settings);
        // Where much is left over, the next turn is decided while this one is written.
        if due || !self.state.is_unfinished() {
            self.land().await?;
        }
        if due {
            self.begin_snapshot();
        }
        Ok(())
    }

    /// The routing table, if it has changed since the last call or is wanted `again`.
    fn take_routes(&mut self, again: bool) -> Option<Wanted> {
        let changed = self.state.take_routes_changed();
        (changed || again).then(|| {
            let table = self.state.routing_table();
            let draining = self.state.draining().cloned().collect();
            Wanted { number: self.routes.borrow().number + 1, table, draining }
        })
    }

    fn send_routes(&mut self, again: bool) {
        if let Some(routes) = self.take_routes(again) {
            self.publish(routes);
        }
    }

    /// Has a routing table set, and tells those who follow the endpoints.
    fn publish(&self, routes: Wanted) {
        self.routes.send_replace(Arc::new(routes));
        self.tables.send_modify(|changes| *changes += 1);
    }

    fn release_ports(&mut self) {
        for (server, ports) in self.state.take_rested_ports() {
            let Some(runtime) = self.shared.servers.get(&server) else { continue };
            tokio::spawn(async move {
                if let Err(error) = runtime.release_ports(&ports).await {
                    // The runtime holds them a little longer than needed, which harms nobody.
                    warn!(%server, error = error.chain(), "rested ports could not be released");
                }
            });
        }
    }

    /// Attaches to what runs on a server, in a task of its own.
    fn attach(&self, server: ServerId) {
        let Some(runtime) = self.shared.servers.get(&server) else { return };
        let known = self.state.known(&server);
        let asked = self.state.now;
        let before = observe::ids_on(&self.state, &server);
        let shared = self.shared.clone();
        let provider = self.state.servers.get(&server).filter(|it| !it.tenure.by_agent).map(|it| it.provider.clone());
        tokio::spawn(async move {
            match runtime.recover(&known).await {
                Ok(listing) => {
                    if let Some(provider) = provider {
                        see(&shared, provider, &server).await;
                    }
                    let found = Found { server, asked, before, listing };
                    shared.observe(Observation::Listed { found, attached: true }).await;
                }
                // The runtime asks again when it can be reached.
                Err(error) => warn!(%server, error = error.chain(), "could not attach to a server"),
            }
        });
    }
}

/// Asks a provider that buys no servers about one of its own.
async fn see(shared: &Shared, provider: Name, server: &ServerId) {
    let found = shared.providers.iter().find(|it| *it.name() == provider && !it.capabilities().grows);
    let Some(found) = found else { return };
    match found.list().await {
        Ok(listing) => {
            if let Some(seen) = listing.servers.into_iter().find(|seen| seen.server == *server) {
                shared.observe(Observation::Seen(provider, seen)).await;
            }
        }
        Err(error) => warn!(%server, error = error.chain(), "the provider of a server does not say how it is"),
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}
