//! What a case of a provider works with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use cocktail_core::contract::{
    ClaimOutcome, Connection, Offering, Provider, ProviderCapabilities, ServerClaim, ServerListing, ServerObservation,
    ServerSpec, TerminateReason,
};
use cocktail_core::error::Error;
use cocktail_core::id::{OperationId, ServerId};

use super::ProviderFixture;
use crate::conformance::case::{Doing, Stop, Verdict, Waiting, clear_up, ensure, ensure_eq};
use crate::conformance::context::RecordingCtx;

pub(crate) struct Scene<'f> {
    pub(crate) capabilities: ProviderCapabilities,
    pub(crate) waiting: Waiting,
    pub(crate) fixture: &'f dyn ProviderFixture,
    pub(super) subject: String,
    /// The provider of the Manager that acts.
    provider: Mutex<Option<Arc<dyn Provider>>>,
    /// Tells this run's servers and tokens from those of other runs in the same account.
    run: String,
    operations: AtomicU64,
    /// Servers that the running case has asked for.
    bought: Mutex<BTreeSet<ServerId>>,
}

/// One order: what a provisioning call says.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) ctx: RecordingCtx,
    pub(crate) spec: ServerSpec,
    pub(crate) claims: Vec<ServerClaim>,
}

impl Order {
    pub(crate) fn ids(&self) -> Vec<ServerId> {
        self.claims.iter().map(|claim| claim.server.clone()).collect()
    }

    /// Sends the order once.
    pub(crate) async fn send(&self, provider: &dyn Provider, ctx: &RecordingCtx) -> Result<Vec<ClaimOutcome>, Error> {
        provider.provision(ctx, &self.spec, &self.claims).await
    }
}

/// Provider ids by server.
pub(crate) type Servers = BTreeMap<ServerId, String>;

impl<'f> Scene<'f> {
    pub(super) async fn new(fixture: &'f dyn ProviderFixture) -> Verdict<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let scene = Self {
            capabilities: ProviderCapabilities::default(),
            waiting: Waiting::default(),
            fixture,
            subject: String::new(),
            provider: Mutex::default(),
            run: format!("{:x}-{:x}", since.as_micros(), std::process::id()),
            operations: AtomicU64::new(0),
            bought: Mutex::default(),
        };
        let made = scene.provider().await?;
        let subject = format!("provider {} of kind {}", made.name(), made.kind());
        Ok(Self { capabilities: made.capabilities(), subject, ..scene })
    }

    /// The provider of the Manager that acts.
    pub(crate) async fn provider(&self) -> Verdict<Arc<dyn Provider>> {
        let made = locked(&self.provider).clone();
        match made {
            Some(provider) => Ok(provider),
            None => self.next_manager().await,
        }
    }

    /// The Manager dies and the next one makes its provider. Whoever still holds the old one must drop it.
    pub(crate) async fn next_manager(&self) -> Verdict<Arc<dyn Provider>> {
        *locked(&self.provider) = None;
        let provider = self.fixture.provider().await.doing("make the provider")?;
        *locked(&self.provider) = Some(Arc::clone(&provider));
        Ok(provider)
    }

    /// The cheapest offering that can be had.
    pub(crate) async fn offering(&self, provider: &dyn Provider) -> Verdict<Offering> {
        let offerings = provider.offerings(&self.fixture.requirements()).await.doing("ask for offerings")?;
        let price = |offering: &Offering| offering.price.unwrap_or(f64::INFINITY);
        let cheapest = offerings
            .into_iter()
            .filter(|offering| offering.available)
            .min_by(|a, b| price(a).total_cmp(&price(b)).then_with(|| a.name.cmp(&b.name)));
        cheapest.ok_or_else(|| Stop::Failed("it can grow, and offers nothing that is available".into()))
    }

    /// A new operation for that many servers. They are given back after the case.
    pub(crate) async fn order(&self, provider: &dyn Provider, servers: usize) -> Verdict<Order> {
        let offering = self.offering(provider).await?;
        let number = self.operations.fetch_add(1, Ordering::SeqCst) + 1;
        let claims: Vec<ServerClaim> = (0..servers)
            .map(|index| ServerClaim { server: ServerId::new(format!("conf-{}-{number}-{index}", self.run)) })
            .collect();
        locked(&self.bought).extend(claims.iter().map(|claim| claim.server.clone()));
        let spec = ServerSpec { offering: offering.name, zone: offering.zone, kind: Some(offering.kind) };
        Ok(Order { ctx: self.ctx(number), spec, claims })
    }

    fn ctx(&self, number: u64) -> RecordingCtx {
        let token = format!("conformance-{}-{number}", self.run);
        let ctx = RecordingCtx::new(OperationId(number), token).with_bootstrap(self.fixture.bootstrap());
        ctx.with_deadline(self.fixture.deadline())
    }

    /// The context of an operation that gives servers back.
    pub(crate) fn giving_back(&self) -> RecordingCtx {
        self.ctx(self.operations.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// Sends an order until it is accepted, as a Manager does.
    pub(crate) async fn provision(&self, provider: &dyn Provider, order: &Order) -> Verdict<Servers> {
        let ctx = order.ctx.repeated();
        let outcomes = self.waiting.ready("provision", || order.send(provider, &ctx)).await?;
        fulfilled(order, outcomes)
    }

    /// A complete listing, each server once.
    pub(crate) async fn list(&self, provider: &dyn Provider) -> Verdict<ServerListing> {
        let listing = self
            .waiting
            .find("a complete listing", || async {
                Ok(Some(provider.list().await.doing("list")?).filter(|listing| listing.complete))
            })
            .await?;
        let mut seen = BTreeSet::new();
        for server in &listing.servers {
            ensure!(seen.insert(&server.server), "{} is listed twice", server.server);
        }
        Ok(listing)
    }

    /// Waits until the listing shows exactly these servers of an order, each as the provider called it.
    pub(crate) async fn listed(&self, provider: &dyn Provider, order: &Order, wanted: &Servers) -> Verdict {
        let ids: BTreeSet<ServerId> = order.ids().into_iter().collect();
        let what = format!("the listing to name all of {:?}", wanted.keys());
        let seen = self.waiting.find(&what, || async {
            let listing = self.list(provider).await?;
            let ours = listing.servers.into_iter().filter(|server| ids.contains(&server.server));
            let seen: Servers = ours.map(|server| (server.server, server.provider_id)).collect();
            Ok(wanted.keys().all(|id| seen.contains_key(id)).then_some(seen))
        });
        ensure_eq!(seen.await?, *wanted, "servers of the operation in the listing");
        Ok(())
    }

    /// How many servers carry our tag.
    pub(crate) async fn count(&self, provider: &dyn Provider) -> Verdict<usize> {
        Ok(self.list(provider).await?.servers.len())
    }

    /// Waits until none of these servers is listed any more.
    pub(crate) async fn gone(&self, provider: &dyn Provider, ids: &[ServerId]) -> Verdict {
        let look = || async {
            let listing = self.list(provider).await?;
            let left = |server: &ServerObservation| ids.contains(&server.server);
            Ok((!listing.servers.iter().any(left)).then_some(()))
        };
        self.waiting.find("servers that were given back to leave the listing", look).await
    }

    pub(crate) async fn terminate(&self, provider: &dyn Provider, ids: &[ServerId]) -> Verdict {
        let ctx = self.giving_back();
        self.waiting.ready("terminate", || provider.terminate(&ctx, ids, TerminateReason::Requested)).await
    }

    /// Waits until a server can be connected to.
    pub(crate) async fn connect(&self, provider: &dyn Provider, server: &ServerId) -> Verdict<Connection> {
        self.waiting.ready("connect to a server", || provider.connect(server)).await
    }

    /// Gives back what the case has bought.
    pub(super) async fn clear(&self) {
        let bought = std::mem::take(&mut *locked(&self.bought));
        if bought.is_empty() {
            return;
        }
        let clearing = async {
            self.fixture.leave_room(None).await?;
            let provider = self.provider().await?;
            let ids: Vec<ServerId> = bought.into_iter().collect();
            self.terminate(&*provider, &ids).await?;
            self.gone(&*provider, &ids).await
        };
        clear_up(clearing, self.fixture.deadline()).await;
    }
}

/// One outcome for each claim, all of them good, with different ids.
pub(crate) fn fulfilled(order: &Order, outcomes: Vec<ClaimOutcome>) -> Verdict<Servers> {
    ensure_eq!(outcomes.len(), order.claims.len(), "outcomes of {} claims", order.claims.len());
    let mut servers = Servers::new();
    for ClaimOutcome { server, result } in outcomes {
        ensure!(order.ids().contains(&server), "an outcome names {server}, which nobody claimed");
        let id = result.map_err(|why| Stop::Failed(format!("{server} was not provisioned: {why}")))?;
        ensure!(!id.is_empty(), "the provider's id of {server} is empty");
        ensure!(!servers.values().any(|other| *other == id), "two claims were fulfilled by the one server {id}");
        ensure!(servers.insert(server.clone(), id).is_none(), "{server} has two outcomes");
    }
    Ok(servers)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
