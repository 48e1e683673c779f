//! Drives providers that can be asked for servers: sends the calls of durable operations, lists what exists, and connects
//! to servers that have come up.
//!
//! Start at [`run`], one per such provider. What an answer means is decided by the core ([`State::provisioned`],
//! [`State::terminated`], [`State::listed`]); here calls are made and answers are passed on. An operation is sent again
//! with the same token until its outcome is known, also by the next Manager.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cocktail_core::contract::{
    Checkpoint, Offering, Provider, ProvisionCtx, Requirements, ServerClaim, ServerObservation,
};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::event::Event;
use cocktail_core::fleet::{FleetEvent, FleetLimits, RearrangeLimits, ServerOperation, ServerOperationKind};
use cocktail_core::id::{Epoch, OperationId, ServerId};
use cocktail_core::name::Name;
use cocktail_core::quantity::parse_duration;
use cocktail_core::server::ServerState;
use cocktail_core::settings::Settings;
use cocktail_core::state::State;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::task::JoinMap;
use tracing::{debug, info, warn};

use crate::clock::Clock;
use crate::observe;
use crate::shared::{Attached, Found, Health, Observation, Shared};

/// How often a provider is listed while a server is on its way or leaving.
const SOON: Duration = Duration::from_secs(1);
/// How often a provider is asked what it offers.
const OFFERINGS: Duration = Duration::from_secs(600);
/// How often a provider is asked which servers it will take away; the shortest notices are of half a minute.
const NOTICES: Duration = Duration::from_secs(5);
/// How often a server that could not be connected to is left alone before it is given back unseen: a store that is an older
/// copy finds out what it does not know when it connects. With the pauses between, this is some minutes.
const UNSEEN: u32 = 8;
/// The step that says that a call which destroys was about to be sent. No provider's step has this number.
const SENT: u32 = u32::MAX;
/// Longest that one call may take.
const CALL: Duration = Duration::from_secs(120);

/// What the state is to be told about a provider; `None` where it knows. Without `offerings` it keeps those that it has.
pub(crate) fn seen(
    state: &State,
    provider: &Name,
    images: bool,
    limits: FleetLimits,
    offerings: Option<Vec<Offering>>,
) -> Option<FleetEvent> {
    let known = state.providers.get(provider);
    let offerings = offerings.or_else(|| known.map(|known| known.offerings.clone())).unwrap_or_default();
    let news =
        known.is_none_or(|it| !it.grows || it.limits != limits || it.offerings != offerings || it.images != images);
    news.then(|| FleetEvent::ProviderSeen { provider: provider.clone(), grows: true, limits, offerings, images })
}

/// Limits and times of `[providers.<name>]`; `None` for a provider that has the servers that it has.
///
/// # Errors
/// `InvalidConfig` for those that are none.
pub(crate) fn limits(provider: &dyn Provider, settings: &Settings) -> Result<Option<FleetLimits>> {
    provider.capabilities().grows.then(|| limits_of(provider.name(), settings)).transpose()
}

fn limits_of(name: &Name, settings: &Settings) -> Result<FleetLimits> {
    let mut limits = FleetLimits::default();
    let Some(provider) = settings.providers.get(name) else { return Ok(limits) };
    let options = Options { name, options: &provider.options };
    options.number("max_servers", &mut limits.max_servers)?;
    options.number("min_servers", &mut limits.min_servers)?;
    options.number("failures", &mut limits.failures)?;
    options.span("idle", &mut limits.idle)?;
    options.span("registration_deadline", &mut limits.registration)?;
    options.span("visibility", &mut limits.visibility)?;
    options.span("stock_out", &mut limits.stock_out)?;
    options.span("rest", &mut limits.rest)?;
    limits.rearrange = rearrange(&options)?;
    Ok(limits)
}

/// When servers are emptied for the sake of money; never without `rearrange_gain`.
fn rearrange(options: &Options<'_>) -> Result<Option<RearrangeLimits>> {
    let Some(gain) = options.options.get("rearrange_gain") else { return Ok(None) };
    let gain = gain.as_f64().filter(|gain| gain.is_finite() && *gain >= 1.0);
    let gain =
        gain.ok_or_else(|| options.wrong("rearrange_gain", "must be a number of at least 1, for instance 2.0"))?;
    let mut limits = RearrangeLimits { gain, budget: 1, every: Duration::from_secs(600) };
    options.number("rearrange_budget", &mut limits.budget)?;
    options.span("rearrange_every", &mut limits.every)?;
    if limits.every < Duration::from_secs(1) {
        return Err(options.wrong("rearrange_every", "must be a duration of at least 1s, for instance \"10m\""));
    }
    Ok(Some(limits))
}

/// The options of one provider. A key that is not there leaves the value as it is.
struct Options<'a> {
    name: &'a Name,
    options: &'a BTreeMap<String, serde_json::Value>,
}

impl Options<'_> {
    fn number(&self, key: &str, value: &mut u32) -> Result<()> {
        if let Some(option) = self.options.get(key) {
            let number = option.as_u64().and_then(|number| u32::try_from(number).ok());
            *value = number.ok_or_else(|| self.wrong(key, "must be a whole number, for instance 20"))?;
        }
        Ok(())
    }

    fn span(&self, key: &str, value: &mut Duration) -> Result<()> {
        if let Some(option) = self.options.get(key) {
            let span = option.as_str().and_then(|text| parse_duration(text).ok());
            *value = span.ok_or_else(|| self.wrong(key, "must be a duration, for instance \"5m\""))?;
        }
        Ok(())
    }

    fn wrong(&self, key: &str, what: &str) -> Error {
        let name = self.name;
        Error::invalid(format!("`{key}` of provider {name} {what}")).with("key", format!("providers.{name}.{key}"))
    }
}

/// Drives one provider: asks what it offers, lists it from time to time, and connects to what has come up.
pub(crate) async fn run(shared: Shared, provider: Arc<dyn Provider>, limits: FleetLimits, relist: Duration) {
    if provider.capabilities().interruptions {
        shared.spawn(notices(shared.clone(), provider.clone()));
    }
    let mut tick = interval(SOON.min(relist));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut listed, mut offered): (Option<Instant>, Option<Instant>) = (None, None);
    let mut connecting = Connecting { shared: shared.clone(), provider: provider.clone(), tasks: JoinMap::new() };
    loop {
        tokio::select! {
            () = shared.observations.closed() => return,
            _ = tick.tick() => {}
        }
        if offered.is_none_or(|last| last.elapsed() >= OFFERINGS) && offer(&shared, &provider, &limits).await {
            offered = Some(Instant::now());
        }
        let name = provider.name().clone();
        let Ok((asked, moving)) = shared.look(move |state, _| (state.now, is_moving(state, &name))).await else {
            return;
        };
        let due = listed.is_none_or(|last| last.elapsed() >= relist);
        if !moving && !due {
            continue;
        }
        let listing = match in_time(provider.list()).await {
            Ok(listing) => listing,
            // Nothing is concluded from a listing that failed.
            Err(error) => {
                debug!(provider = %provider.name(), error = error.chain(), "a provider cannot be listed");
                continue;
            }
        };
        listed = Some(Instant::now());
        let up: Vec<_> = listing.servers.iter().filter(|seen| !seen.incarnation.is_empty()).cloned().collect();
        let name = provider.name().clone();
        shared.observe(Observation::ProviderListed { provider: name, asked, listing }).await;
        connecting.look(up).await;
    }
}

/// Asks which servers a provider will take away, until the Manager ends.
async fn notices(shared: Shared, provider: Arc<dyn Provider>) {
    let mut tick = interval(NOTICES);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.observations.closed() => return,
            _ = tick.tick() => {}
        }
        match in_time(provider.interruptions()).await {
            Ok(notices) if notices.is_empty() => {}
            Ok(notices) => shared.observe(Observation::Interrupted(provider.name().clone(), notices)).await,
            Err(error) => debug!(provider = %provider.name(), error = error.chain(), "no notices can be had"),
        }
    }
}

/// Asks what a provider offers, and tells the state if that is news. Returns whether it answered.
async fn offer(shared: &Shared, provider: &Arc<dyn Provider>, limits: &FleetLimits) -> bool {
    let offerings = match in_time(provider.offerings(&Requirements::default())).await {
        Ok(offerings) => offerings,
        Err(error) => {
            debug!(provider = %provider.name(), error = error.chain(), "a provider does not say what it offers");
            return false;
        }
    };
    let (name, limits, images) = (provider.name().clone(), limits.clone(), provider.capabilities().images);
    let news = shared.look(move |state, _| seen(state, &name, images, limits, Some(offerings))).await;
    if let Ok(Some(seen)) = news {
        shared.observe(Observation::Event(seen.into())).await;
    }
    true
}

/// The answer to a call, or `Deadline` when there is none in time.
async fn in_time<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Error::new(ErrorKind::Deadline, "the provider did not answer in time");
    tokio::time::timeout(CALL, call).await.map_err(late)?
}

/// Whether servers of a provider are on their way or leaving.
fn is_moving(state: &State, provider: &Name) -> bool {
    state.servers.values().any(|server| {
        server.provider == *provider
            && !matches!(server.state, ServerState::Ready | ServerState::Cordoned | ServerState::Draining)
    })
}

/// Connects to servers, each in a task of its own: one that does not answer keeps no other waiting.
struct Connecting {
    shared: Shared,
    provider: Arc<dyn Provider>,
    tasks: JoinMap<ServerId, ()>,
}

impl Connecting {
    /// Connects to what is up and not connected yet. What fails is tried again after the next listing.
    async fn look(&mut self, up: Vec<ServerObservation>) {
        while self.tasks.try_join_next().is_some() {}
        let wait = |state: &State, _: &Health| -> BTreeSet<ServerId> {
            state.servers.values().filter(|it| may_answer(it.state)).map(|it| it.id.clone()).collect()
        };
        let Ok(waiting) = self.shared.look(wait).await else { return };
        for seen in up.into_iter().filter(|seen| waiting.contains(&seen.server)) {
            if self.shared.servers.get(&seen.server).is_none() && !self.tasks.contains_key(&seen.server) {
                let (shared, provider) = (self.shared.clone(), self.provider.clone());
                let server = seen.server.clone();
                self.tasks.spawn(server.clone(), async move {
                    if let Err(error) = connect(&shared, &provider, seen).await {
                        debug!(%server, error = error.chain(), "a server cannot be driven yet");
                    }
                });
            }
        }
    }
}

/// Whether there is something to call on a server in that state.
pub(crate) fn may_answer(state: ServerState) -> bool {
    use ServerState as S;
    matches!(state, S::Booting | S::Lost | S::Joined | S::Ready | S::Cordoned | S::Draining)
}

/// Connects to a server, attaches to what runs there and says so.
async fn connect(shared: &Shared, provider: &Arc<dyn Provider>, seen: ServerObservation) -> Result<()> {
    let ServerObservation { server, incarnation, capacity, address, .. } = seen;
    let runtime = in_time(async { shared.runtime_of(provider.connect(&server).await?) }).await?;
    let streamed = runtime.events();
    let id = server.clone();
    let look = move |state: &State, _: &Health| {
        let before = observe::ids_on(state, &id);
        let joins =
            state.servers.get(&id).is_some_and(|it| matches!(it.state, ServerState::Booting | ServerState::Lost));
        (state.now, before, state.known(&id), joins)
    };
    let (asked, before, known, joins) = shared.look(look).await?;
    let listing = in_time(runtime.recover(&known)).await?;
    info!(%server, "a server answers");
    if joins {
        let joined = FleetEvent::Joined { server: server.clone(), incarnation, capacity, address };
        shared.observe(Observation::Event(joined.into())).await;
    }
    let found = Found { server: server.clone(), asked, before, listing };
    shared.observe(Observation::Connected { attached: Attached { runtime, streamed }, found }).await;
    Ok(())
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
    let late = || Error::new(ErrorKind::OutcomeUnknown, "the provider did not answer in time");
    match &operation.kind {
        ServerOperationKind::Provision { spec } => {
            let claims: Vec<ServerClaim> =
                operation.servers.iter().map(|server| ServerClaim { server: server.clone() }).collect();
            let answer = tokio::time::timeout(CALL, provider.provision(&ctx, spec, &claims)).await;
            let answer = answer.unwrap_or_else(|_| Err(late()));
            shared.observe(Observation::Provisioned(operation.id, answer)).await;
        }
        ServerOperationKind::Clear => {
            let ask = async {
                if operation.tries < UNSEEN && operation.servers.iter().any(|it| shared.servers.get(it).is_none()) {
                    return Err(Error::new(ErrorKind::Unavailable, "what runs there has not been seen yet"));
                }
                for server in &operation.servers {
                    provider.can_terminate(server).await?;
                }
                Ok(())
            };
            let answer = tokio::time::timeout(CALL, ask).await.unwrap_or_else(|_| Err(late()));
            shared.observe(Observation::Cleared(operation.id, answer)).await;
        }
        ServerOperationKind::Terminate { reason } => {
            let end = async {
                ctx.confirm_lease().await?;
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

impl Ctx {
    /// Asks the store whether we still are the Manager: one that stood still between its commit and this call may have a
    /// successor that uses the server again, and no token protects a deletion.
    async fn confirm_lease(&self) -> Result<()> {
        let sent = Checkpoint { step: SENT, name: "sent".into(), data: serde_json::Value::Null };
        let unsure = |error| Error::new(ErrorKind::Unavailable, "the store does not confirm the lease").because(error);
        self.shared.store.checkpoint(self.epoch, self.operation, sent).await.map_err(unsure)
    }
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
        let mut checkpoints = self.shared.store.checkpoints(self.operation).await?;
        checkpoints.retain(|checkpoint| checkpoint.step != SENT);
        Ok(checkpoints)
    }
}

#[cfg(test)]
mod tests {
    use cocktail_core::settings::ProviderSettings;
    use serde_json::{Value, json};

    use super::*;

    fn limits_with(options: &[(&str, Value)]) -> Result<FleetLimits> {
        let name: Name = "cloud".parse().unwrap();
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let providers = BTreeMap::from([(name.clone(), ProviderSettings { kind: name.clone(), options })]);
        limits_of(&name, &Settings { providers, ..Settings::default() })
    }

    #[test]
    fn options_set_limits_and_what_is_none_is_named() {
        assert_eq!(limits_with(&[]).unwrap(), FleetLimits::default());
        let set =
            limits_with(&[("max_servers", json!(7)), ("idle", json!("90s")), ("rearrange_gain", json!(2))]).unwrap();
        assert_eq!((set.max_servers, set.idle), (7, Duration::from_secs(90)));
        let every = Duration::from_secs(600);
        assert_eq!(set.rearrange, Some(RearrangeLimits { gain: 2.0, budget: 1, every }));
        let wrong = [
            ("max_servers", json!(-1)),
            ("idle", json!(90)),
            ("rearrange_gain", json!(0.5)),
            ("rearrange_every", json!("1ms")),
            ("rearrange_budget", json!("one")),
        ];
        for (key, value) in wrong {
            let error = limits_with(&[("rearrange_gain", json!(2.0)), (key, value)]).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::InvalidConfig);
            assert_eq!(error.context("key"), Some(&*format!("providers.cloud.{key}")), "{error}");
        }
    }
}
