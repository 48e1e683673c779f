//! Starts an Orchestrator: takes the lease, loads what the store holds, attaches to what runs, and goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cocktail_core::contract::{
    Connection, Gate, Manager as _, Provider, Runtime, RuntimeEvent, ServerObservation, ShutdownMode, Store,
};
use cocktail_core::error::{Error, Result};
use cocktail_core::event::{Event, Turn};
use cocktail_core::fleet::Tenure;
use cocktail_core::id::{Seq, ServerId};
use cocktail_core::scaling::ScalingPolicy;
use cocktail_core::server::{Server, ServerState};
use cocktail_core::settings::Settings;
use cocktail_core::spec::Resources;
use cocktail_core::state::State;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::agents::{Agents, Before};
use crate::clock::Clock;
use crate::endpoints::Endpoints;
use crate::executor::Executor;
use crate::monitor::Monitor;
use crate::orchestrator::Orchestrator;
use crate::routing::{self, Wanted};
use crate::shared::{Builds, FOLLOWED, Found, Health, OBSERVATIONS, Observation, Servers, Shared};
use crate::writer::{Snapshots, Writer};
use crate::{fleet, observe, prune, schedule, watch as manifests};

/// Collects what an Orchestrator is made from.
#[derive(Debug)]
pub struct Builder {
    store: Arc<dyn Store>,
    providers: Vec<Arc<dyn Provider>>,
    settings: Settings,
    data_dir: PathBuf,
    kept: Option<Kept>,
    scaling: Option<Arc<dyn ScalingPolicy>>,
    gate: Option<Arc<dyn Gate>>,
}

/// Something that lives as long as the Orchestrator: the lock on its data dir.
pub(crate) type Kept = Arc<dyn std::any::Any + Send + Sync>;

impl Builder {
    /// An Orchestrator that remembers in `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            providers: Vec::new(),
            settings: Settings::default(),
            data_dir: PathBuf::new(),
            kept: None,
            scaling: None,
            gate: None,
        }
    }

    /// Adds a provider. The first one that brings a forwarder serves the service ports.
    #[must_use]
    pub fn with_provider(mut self, provider: Arc<dyn Provider>) -> Self {
        self.providers.push(provider);
        self
    }

    /// Sets time constants and limits.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Exchanges what says how many containers the load asks for; target tracking by default. What damps a count, and
    /// its bounds, stay as the manifest says.
    #[must_use]
    pub fn with_scaling_policy(mut self, policy: Arc<dyn ScalingPolicy>) -> Self {
        self.scaling = Some(policy);
        self
    }

    /// Lets agents of other servers connect through `gate`.
    #[must_use]
    pub fn with_gate(mut self, gate: Arc<dyn Gate>) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Says where the state is, for messages only.
    #[must_use]
    pub fn with_data_dir(mut self, data_dir: impl Into<PathBuf>) -> Self {
        self.data_dir = data_dir.into();
        self
    }

    /// Keeps something (the lock on the data dir) until the last handle of the Orchestrator is dropped.
    #[must_use]
    pub fn keeping(mut self, kept: Arc<dyn std::any::Any + Send + Sync>) -> Self {
        self.kept = Some(kept);
        self
    }

    /// Takes the lease, loads, attaches and starts the writer on the tokio runtime of the caller.
    ///
    /// Untouched containers run on as they were; what ended meanwhile is restarted.
    ///
    /// # Errors
    /// `Refused` when another Manager or store owns what runs here; `Unavailable` when the store, or a provider that has
    /// the servers that it has, cannot be reached; `InvalidConfig` for limits of a provider that are none; `Unexpected`
    /// for a journal that cannot be read. A provider that can be asked for servers may be out of reach: what it has is
    /// connected to as soon as it answers.
    pub async fn start(self) -> Result<Orchestrator> {
        let lease = self.store.acquire().await?;
        let epoch = lease.epoch;
        let (mut state, seq) = load(&self.store).await?;
        if let Some(policy) = self.scaling {
            state.set_scaling_policy(policy);
        }
        let clock = Clock::resume(state.now);
        let (requests, request_queue) = mpsc::channel(256);
        let (observations, observation_queue) = mpsc::channel(OBSERVATIONS);
        let (committed, _) = broadcast::channel(FOLLOWED);
        let (routes, wanted) = watch::channel(Arc::new(Wanted::default()));
        let forwarder = self.providers.iter().find_map(|provider| provider.forwarder());
        let (tables, changes) = watch::channel(0);
        let endpoints = Endpoints::new(&requests, changes);
        let shared = Shared {
            requests,
            observations,
            committed,
            store: self.store.clone(),
            providers: Arc::new(self.providers.clone()),
            forwarder: forwarder.clone(),
            servers: Arc::new(Servers::default()),
            agents: self.gate.clone().map(|gate| Agents::new(gate, lease.clone(), self.settings.session, clock)),
            monitor: Monitor::new(self.settings.usage),
            endpoints,
            builds: Builds::default(),
            ended: CancellationToken::new(),
        };

        let settings = Box::new(self.settings.clone());
        let mut events = vec![Event::ManagerStarted { epoch, settings }];
        state.advance(clock.now(), Clock::wall());
        state.apply(&events[0]);
        let (mut runtimes, mut growing, mut given_up) = (Vec::new(), Vec::new(), Vec::new());
        let mut health = Health { seq, ..Health::default() };
        for provider in &self.providers {
            provider.lead(&lease);
            if let Some(limits) = fleet::limits(provider.as_ref(), &self.settings)? {
                // One that cannot be reached now keeps nobody from starting: `fleet` lists it and connects to its servers.
                let images = provider.capabilities().images;
                if let Some(seen) = fleet::seen(&state, provider.name(), images, limits.clone(), None) {
                    let event = Event::from(seen);
                    state.apply(&event);
                    events.push(event);
                }
                growing.push((provider.clone(), limits));
                continue;
            }
            let listing = provider.list().await?;
            given_up.extend(state.named(provider.name(), &listing));
            for seen in listing.servers {
                let connection = provider.connect(&seen.server).await?;
                let by_agent = matches!(connection, Connection::Agent);
                let event = Event::ServerSeen { server: Box::new(server(&state, provider.as_ref(), &seen, by_agent)) };
                state.apply(&event);
                events.push(event);
                if by_agent && shared.agents.is_some() {
                    continue;
                }
                let runtime = shared.runtime_of(connection)?;
                shared.servers.add(seen.server.clone(), runtime.clone());
                let streamed = runtime.events();
                let asked = state.now;
                let listing = runtime.recover(&state.known(&seen.server)).await?;
                observe::check_not_older(&state, &listing)?;
                health.note_unknown(&seen.server, observe::unknown(&state, &BTreeSet::new(), &listing));
                // Everything that was seen as running before is older than this listing.
                let asked = cocktail_core::time::ManagerTime(asked.0 + 1);
                for event in state.found(&seen.server, asked, &listing) {
                    state.apply(&event);
                    events.push(event);
                }
                runtimes.push((seen.server, runtime, streamed));
            }
        }
        for event in std::mem::take(&mut given_up) {
            state.apply(&event);
            events.push(event);
        }
        info!(%epoch, store = %state.store, containers = state.containers.len(), "a manager takes over");

        let turn = Turn { now: state.now, at: state.at, epoch, events };
        let mut writer = Writer {
            epoch,
            clock,
            executor: Executor::new(shared.clone(), clock),
            shared: shared.clone(),
            requests: request_queue,
            observations: observation_queue,
            routes,
            tables,
            seq,
            health,
            snapshots: Snapshots::default(),
            reserve_used: false,
            paced: None,
            claims: 0,
            flight: None,
            early: BTreeMap::new(),
            refused: None,
            state,
        };
        // Those that have had a session are lost when they are not heard in time, also if they never are.
        let seats: Vec<_> = writer.state.servers.values().filter(|server| server.tenure.by_agent).collect();
        let seats: Vec<_> =
            seats.iter().filter_map(|it| Some((it.id.clone(), Before::of(&writer.state, &it.id)?))).collect();
        writer.commit_first(&turn).await?;
        if let Some(agents) = &shared.agents {
            for (server, before) in seats {
                agents.seat(&shared, &server, before);
            }
            shared.spawn(agents.clone().run(shared.clone()));
        }
        for (provider, limits) in growing {
            shared.spawn(fleet::run(shared.clone(), provider, limits, self.settings.relist));
        }
        for (server, runtime, streamed) in runtimes {
            follow(&shared, server, runtime, streamed, self.settings.relist);
        }
        // It follows from before the first turn on, so that it misses no manifest.
        shared.spawn(schedule::run(shared.clone(), shared.committed.subscribe()));
        shared.spawn(shared.monitor.clone().run(shared.clone()));
        shared.spawn(prune::run(shared.clone(), self.settings.image_prune));
        if let Some(forwarder) = forwarder {
            shared.spawn(routing::run(shared.clone(), forwarder, wanted));
        }
        let orchestrator = Orchestrator::new(shared, self.data_dir, self.kept, tokio::spawn(writer.run()));
        if let Err(error) = manifests::watch(&orchestrator, &self.settings.watch) {
            orchestrator.shutdown(ShutdownMode::Leave).await?;
            return Err(error);
        }
        Ok(orchestrator)
    }
}

/// Passes on what a server's runtime tells, and compares everything with it from time to time.
pub(crate) fn follow(
    shared: &Shared,
    server: ServerId,
    runtime: Arc<dyn Runtime>,
    streamed: BoxStream<'static, RuntimeEvent>,
    relist: Duration,
) {
    shared.spawn(pass_on(shared.clone(), server.clone(), streamed));
    shared.spawn(look_around(shared.clone(), server, runtime, relist));
}

/// The settings that the last Manager of a store had; `None` where there was none.
///
/// # Errors
/// `Unavailable` when the store cannot be read; `Unexpected` for what is in it.
pub async fn last_settings(store: &Arc<dyn Store>) -> Result<Option<Settings>> {
    let (state, seq) = load(store).await?;
    Ok((seq > Seq::default()).then_some(state.settings))
}

/// Reads the newest snapshot and replays what came after it.
async fn load(store: &Arc<dyn Store>) -> Result<(State, Seq)> {
    let loaded = store.load().await?;
    let mut seq = Seq::default();
    let mut state = match loaded.snapshot {
        Some((upto, bytes)) => {
            seq = upto;
            State::from_snapshot(&bytes)
                .map_err(|error| Error::unexpected("the snapshot in the store cannot be read").because(error))?
        }
        None => State::new(store.id()),
    };
    for row in loaded.turns {
        let turn: Turn = serde_json::from_slice(&row.bytes).map_err(|error| {
            Error::unexpected("a turn of the journal cannot be read").with("seq", row.seq).because(error)
        })?;
        state.replay(&turn);
        seq = row.seq;
    }
    Ok((state, seq))
}

/// The record of a server that a provider lists.
pub(crate) fn server(state: &State, provider: &dyn Provider, seen: &ServerObservation, by_agent: bool) -> Server {
    let known = state.servers.get(&seen.server);
    if by_agent {
        return remote(known, provider, seen);
    }
    // One that does not answer now has what it had, but for what the settings say.
    let (none, had) = (Resources::default(), known.map(|known| known.capacity).unwrap_or_default());
    let capacity = Resources {
        cpu: if seen.capacity.cpu == none.cpu { had.cpu } else { seen.capacity.cpu },
        memory: if seen.capacity.memory == none.memory { had.memory } else { seen.capacity.memory },
    };
    let changed = known.is_none_or(|known| known.incarnation != seen.incarnation);
    // What a user has said about a server outlasts its boots and those of the Manager.
    let kept = known.filter(|known| matches!(known.state, ServerState::Cordoned | ServerState::Draining));
    let reason = if changed { "joined" } else { "known from before" };
    Server {
        id: seen.server.clone(),
        provider: provider.name().clone(),
        provider_id: seen.provider_id.clone(),
        state: kept.map_or(ServerState::Ready, |known| known.state),
        reason: kept.map_or_else(|| reason.into(), |known| known.reason.clone()),
        since: kept.or(known.filter(|_| !changed)).map_or_else(Clock::wall, |known| known.since),
        zone: seen.zone.clone(),
        offering: seen.offering.clone(),
        incarnation: seen.incarnation.clone(),
        address: seen.address,
        capacity,
        allocated: Resources::default(),
        containers: 0,
        images: provider.capabilities().images,
        tenure: Tenure::default(),
    }
}

/// The record of a server that an agent drives: what it has, and which boot it is, the agent says.
fn remote(known: Option<&Server>, provider: &dyn Provider, seen: &ServerObservation) -> Server {
    let images = provider.capabilities().images;
    if let Some(known) = known {
        return Server { provider: provider.name().clone(), zone: seen.zone.clone(), images, ..known.clone() };
    }
    Server {
        id: seen.server.clone(),
        provider: provider.name().clone(),
        provider_id: seen.provider_id.clone(),
        state: ServerState::Booting,
        reason: "its agent has not joined yet".into(),
        since: Clock::wall(),
        zone: seen.zone.clone(),
        offering: seen.offering.clone(),
        incarnation: String::new(),
        address: seen.address,
        capacity: Resources::default(),
        allocated: Resources::default(),
        containers: 0,
        images,
        tenure: Tenure { by_agent: true, ..Tenure::default() },
    }
}

/// Passes a runtime's events on until either side ends.
async fn pass_on(shared: Shared, server: ServerId, mut events: BoxStream<'static, RuntimeEvent>) {
    while let Some(event) = events.next().await {
        if shared.observations.send(Observation::Runtime(server.clone(), event)).await.is_err() {
            return;
        }
    }
}

/// When a server is listed for the first time: within the interval, and not together with all others.
fn first_look(server: &ServerId, relist: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    server.hash(&mut hasher);
    relist.mul_f64((hasher.finish() % 1000 + 1) as f64 / 1000.0)
}

/// Compares everything from time to time: a listing heals any event that was missed.
async fn look_around(shared: Shared, server: ServerId, runtime: Arc<dyn Runtime>, relist: Duration) {
    let mut relist = tokio::time::interval_at(tokio::time::Instant::now() + first_look(&server, relist), relist);
    relist.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !shared.observations.is_closed() {
        tokio::select! {
            () = shared.observations.closed() => return,
            _ = relist.tick() => {
                if shared.servers.get(&server).is_none() {
                    return;
                }
                let asked = server.clone();
                let asking = move |state: &State, _: &Health| (state.now, observe::ids_on(state, &asked));
                let Ok((asked, before)) = shared.look(asking).await else { return };
                if let Ok(listing) = runtime.list().await {
                    let server = server.clone();
                    let found = Found { server, asked, before, listing };
                    shared.observe(Observation::Listed { found, attached: false }).await;
                }
            }
        }
    }
}
