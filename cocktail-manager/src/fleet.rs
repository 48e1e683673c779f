//! Drives providers that can be asked for servers: sends the calls of durable operations, lists what exists, and connects
//! to servers that have come up.
//!
//! Start at [`run`], one per such provider. What an answer means is decided by the core ([`State::provisioned`],
//! [`State::terminated`], [`State::listed`]); here calls are made and answers are passed on. An operation is sent again
//! with the same token until its outcome is known, also by the next Manager.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cocktail_core::contract::{Checkpoint, Provider, ProvisionCtx, Requirements, ServerClaim, ServerObservation};
use cocktail_core::error::{Error, Result};
use cocktail_core::event::Event;
use cocktail_core::fleet::{FleetEvent, FleetLimits, ServerOperation, ServerOperationKind};
use cocktail_core::id::{Epoch, OperationId, ServerId};
use cocktail_core::name::Name;
use cocktail_core::server::ServerState;
use cocktail_core::settings::Settings;
use cocktail_core::state::State;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{debug, info, warn};

use crate::builder::attach;
use crate::clock::Clock;
use crate::shared::{Health, Observation, Shared};

/// How often a provider is listed while a server is on its way or leaving.
const SOON: Duration = Duration::from_secs(1);
/// Longest that one call may take.
const CALL: Duration = Duration::from_secs(120);

/// What the state is told about a provider at a start. `None` for one that has the servers that it has.
///
/// # Errors
/// Those of [`Provider::offerings`], and `InvalidConfig` for limits that are none.
pub(crate) async fn seen(provider: &Arc<dyn Provider>, settings: &Settings) -> Result<Option<FleetEvent>> {
    if !provider.capabilities().grows {
        return Ok(None);
    }
    let limits = limits(provider.name(), settings)?;
    let offerings = provider.offerings(&Requirements::default()).await?;
    Ok(Some(FleetEvent::ProviderSeen { provider: provider.name().clone(), grows: true, limits, offerings }))
}

/// Limits and times of `[providers.<name>]`.
fn limits(name: &Name, settings: &Settings) -> Result<FleetLimits> {
    let mut limits = FleetLimits::default();
    let Some(provider) = settings.providers.get(name) else { return Ok(limits) };
    let wrong = |key: &str, what: &str| {
        Error::invalid(format!("`{key}` of provider {name} {what}")).with("key", format!("providers.{name}.{key}"))
    };
    let number = |key: &str, value: &mut u32| -> Result<()> {
        if let Some(option) = provider.options.get(key) {
            let number = option.as_u64().and_then(|number| u32::try_from(number).ok());
            *value = number.ok_or_else(|| wrong(key, "must be a whole number, for instance 20"))?;
        }
        Ok(())
    };
    number("max_servers", &mut limits.max_servers)?;
    number("min_servers", &mut limits.min_servers)?;
    number("failures", &mut limits.failures)?;
    let spans = [
        ("idle", &mut limits.idle),
        ("registration_deadline", &mut limits.registration),
        ("visibility", &mut limits.visibility),
        ("stock_out", &mut limits.stock_out),
        ("rest", &mut limits.rest),
    ];
    for (key, value) in spans {
        if let Some(option) = provider.options.get(key) {
            let span = option.as_str().and_then(|text| cocktail_core::quantity::parse_duration(text).ok());
            *value = span.ok_or_else(|| wrong(key, "must be a duration, for instance \"5m\""))?;
        }
    }
    Ok(limits)
}

/// Lists a provider from time to time, and connects to what has come up.
pub(crate) async fn run(shared: Shared, provider: Arc<dyn Provider>, relist: Duration) {
    let mut tick = interval(SOON.min(relist));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<Instant> = None;
    let mut connecting = BTreeSet::new();
    loop {
        tokio::select! {
            () = shared.observations.closed() => return,
            _ = tick.tick() => {}
        }
        let name = provider.name().clone();
        let Ok((asked, moving)) = shared.look(move |state, _| (state.now, is_moving(state, &name))).await else {
            return;
        };
        let due = last.is_none_or(|last| last.elapsed() >= relist);
        if !moving && !due {
            continue;
        }
        last = Some(Instant::now());
        let listing = match provider.list().await {
            Ok(listing) => listing,
            // Nothing is concluded from a listing that failed.
            Err(error) => {
                debug!(provider = %provider.name(), error = error.chain(), "a provider cannot be listed");
                continue;
            }
        };
        let up: Vec<_> = listing.servers.iter().filter(|seen| !seen.incarnation.is_empty()).cloned().collect();
        let name = provider.name().clone();
        shared.observe(Observation::ProviderListed { provider: name, asked, listing }).await;
        connect(&shared, &provider, up, &mut connecting, relist).await;
    }
}

/// Whether servers of a provider are on their way or leaving.
fn is_moving(state: &State, provider: &Name) -> bool {
    state.servers.values().any(|server| {
        server.provider == *provider
            && !matches!(server.state, ServerState::Ready | ServerState::Cordoned | ServerState::Draining)
    })
}

/// Connects to servers that are up and not connected yet.
async fn connect(
    shared: &Shared,
    provider: &Arc<dyn Provider>,
    up: Vec<ServerObservation>,
    connecting: &mut BTreeSet<ServerId>,
    relist: Duration,
) {
    let look = |state: &State, _: &Health| -> BTreeSet<ServerId> {
        let comes = |state: ServerState| matches!(state, ServerState::Booting | ServerState::Lost);
        let servers = state.servers.values().filter(|it| comes(it.state)).map(|it| it.id.clone());
        servers.collect()
    };
    let Ok(booting) = shared.look(look).await else { return };
    connecting.retain(|server| booting.contains(server));
    for seen in up.into_iter().filter(|seen| booting.contains(&seen.server)) {
        if shared.servers.get(&seen.server).is_some() || !connecting.insert(seen.server.clone()) {
            continue;
        }
        match provider.connect(&seen.server).await {
            Ok(connection) => match shared.servers.add(seen.server.clone(), connection) {
                Ok(runtime) => {
                    info!(server = %seen.server, "a server answers");
                    attach(shared, &seen.server, &runtime, relist);
                    let ServerObservation { server, incarnation, capacity, address, .. } = seen;
                    let joined = FleetEvent::Joined { server, incarnation, capacity, address };
                    shared.observe(Observation::Event(joined.into())).await;
                }
                Err(error) => warn!(server = %seen.server, error = error.chain(), "a server cannot be driven"),
            },
            // It is tried again after the next listing; its deadline is the state's to keep.
            Err(error) => {
                connecting.remove(&seen.server);
                debug!(server = %seen.server, error = error.chain(), "a server does not answer yet");
            }
        }
    }
}

/// Sends the call of an operation on servers and passes its answer on.
pub(crate) async fn call(shared: Shared, operation: ServerOperation, epoch: Epoch, clock: Clock) {
    let Some(provider) = shared.providers.iter().find(|it| *it.name() == operation.provider).cloned() else {
        warn!(operation = operation.id.0, provider = %operation.provider, "no such provider is connected");
        return;
    };
    if let Some(at) = operation.not_before {
        sleep_until(clock.instant(at)).await;
        let id = operation.id;
        // It may have been found meanwhile.
        if !shared.look(move |state, _| state.server_operation(id).is_some()).await.unwrap_or(false) {
            return;
        }
    }
    let ctx = Ctx {
        operation: operation.id,
        token: operation.token(&shared.store.id()),
        until: Instant::now() + CALL,
        shared: shared.clone(),
        epoch,
    };
    let late = || Error::new(cocktail_core::error::ErrorKind::OutcomeUnknown, "the provider did not answer in time");
    match &operation.kind {
        ServerOperationKind::Provision { spec } => {
            let claims: Vec<ServerClaim> =
                operation.servers.iter().map(|server| ServerClaim { server: server.clone() }).collect();
            let answer = tokio::time::timeout(CALL, provider.provision(&ctx, spec, &claims)).await;
            let answer = answer.unwrap_or_else(|_| Err(late()));
            shared.observe(Observation::Provisioned(operation.id, answer)).await;
        }
        ServerOperationKind::Terminate { reason } => {
            let end = async {
                for server in &operation.servers {
                    provider.can_terminate(server).await?;
                }
                provider.terminate(&ctx, &operation.servers, *reason).await
            };
            let answer = tokio::time::timeout(CALL, end).await.unwrap_or_else(|_| Err(late()));
            shared.observe(Observation::Terminated(operation.id, answer)).await;
        }
    }
}

/// Operations whose calls are to be sent after a turn: new ones, and those that are sent again.
pub(crate) fn to_send(state: &State, events: &[Event]) -> Vec<ServerOperation> {
    let fleet = events.iter().filter_map(|event| match event {
        Event::Fleet { event } => Some(&**event),
        _ => None,
    });
    let ids: BTreeSet<OperationId> = fleet
        .filter_map(|event| match event {
            FleetEvent::Intended { operation } => Some(operation.id),
            FleetEvent::Delayed { operation, .. } => Some(*operation),
            _ => None,
        })
        .collect();
    ids.into_iter().filter_map(|id| state.server_operation(id).cloned()).collect()
}

/// What one call works with.
#[derive(Debug)]
struct Ctx {
    operation: OperationId,
    token: String,
    until: Instant,
    shared: Shared,
    epoch: Epoch,
}

#[async_trait]
impl ProvisionCtx for Ctx {
    fn operation(&self) -> OperationId {
        self.operation
    }

    fn token(&self) -> &str {
        &self.token
    }

    fn deadline(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    fn bootstrap(&self) -> &[u8] {
        // Servers that an agent drives will need something to join with; those of today are connected from here.
        &[]
    }

    async fn checkpoint(&self, checkpoint: Checkpoint) -> Result<()> {
        self.shared.store.checkpoint(self.epoch, self.operation, checkpoint).await
    }

    async fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        self.shared.store.checkpoints(self.operation).await
    }
}
