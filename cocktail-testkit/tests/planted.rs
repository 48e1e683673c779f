//! The suite for providers catches what it is there for: a provider in memory that passes it, and the same one with a
//! planted bug each, of which the suite must say which promise is broken.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cocktail_core::contract::{
    Checkpoint, ClaimOutcome, Connection, Launch, Lease, Offering, OfferingKind, Provider, ProviderCapabilities,
    ProvisionCtx, Requirements, ServerClaim, ServerListing, ServerObservation, ServerSpec, TerminateReason,
};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::{ContainerId, Epoch, Generation, ServerId, StoreId};
use cocktail_core::name::Name;
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::spec::{Resources, Template};
use cocktail_core::time::WallTime;
use cocktail_testkit::conformance::{self, LocalWorkers, ProviderFixture, Report, Workers};
use serde_json::json;

/// What is wrong with a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// Draws a new id at each attempt.
    Forgetful,
    /// Makes the server first, and then its id durable.
    ActsBeforeIntent,
    /// Goes on when a checkpoint cannot be written.
    IgnoresStore,
    /// One claim without room fails all.
    AllOrNothing,
    /// Has one server for all claims.
    OneForAll,
    /// Lists what others have.
    SeesStrangers,
    /// Never says that a listing is complete.
    NeverComplete,
    /// Lists a server twice.
    ListsTwice,
    /// Fails to give back what is gone.
    MissesTheGone,
    /// Says that it gave back, and does not.
    KeepsServers,
    /// Takes any offering.
    TakesAnyOffering,
    /// Has a price that is no number.
    Priceless,
    /// Ignores what is asked for.
    OffersTooLittle,
    /// Connects to anything.
    ConnectsToAnybody,
    /// Panics when it is asked for offerings.
    Panics,
}

/// What runs in an account, by the cloud's id.
type Cloud = Arc<Mutex<Account>>;

#[derive(Debug, Default)]
struct Account {
    servers: BTreeMap<u64, (StoreId, ServerId)>,
    drawn: u64,
    limit: Option<usize>,
}

#[derive(Debug)]
struct Planted {
    name: Name,
    bug: Bug,
    cloud: Cloud,
    lease: Mutex<Option<Lease>>,
}

impl Planted {
    fn has(&self, bug: Bug) -> bool {
        self.bug == bug
    }

    fn store(&self) -> StoreId {
        self.lease.lock().unwrap().as_ref().unwrap().store.clone()
    }

    fn ours(&self) -> Vec<(ServerId, u64)> {
        let (store, account) = (self.store(), self.cloud.lock().unwrap());
        let seen = |of: &StoreId| *of == store || self.has(Bug::SeesStrangers);
        account.servers.iter().filter(|(_, (of, _))| seen(of)).map(|(id, (_, name))| (name.clone(), *id)).collect()
    }

    fn draw(&self) -> u64 {
        let mut account = self.cloud.lock().unwrap();
        account.drawn += 1;
        account.drawn
    }

    /// Whether it is there now.
    fn make(&self, id: u64, server: &ServerId) -> bool {
        let store = self.store();
        let mut account = self.cloud.lock().unwrap();
        if !account.servers.contains_key(&id) && account.limit.is_some_and(|limit| account.servers.len() >= limit) {
            return false;
        }
        account.servers.insert(id, (store, server.clone()));
        true
    }
}

#[async_trait]
impl Provider for Planted {
    fn name(&self) -> &Name {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "planted"
    }

    fn lead(&self, lease: &Lease) {
        *self.lease.lock().unwrap() = Some(lease.clone());
    }

    fn capabilities(&self) -> ProviderCapabilities {
        ProviderCapabilities { grows: true, ..ProviderCapabilities::default() }
    }

    fn validate(&self, _template: &Template) -> Vec<(String, String)> {
        Vec::new()
    }

    async fn offerings(&self, requirements: &Requirements) -> Result<Vec<Offering>> {
        assert!(!self.has(Bug::Panics), "planted");
        let allocatable = Resources { cpu: CpuMillis(1_000), memory: Bytes(1 << 30) };
        if requirements.resources.memory > allocatable.memory && !self.has(Bug::OffersTooLittle) {
            return Ok(Vec::new());
        }
        let price = Some(if self.has(Bug::Priceless) { f64::NAN } else { 1.0 });
        let (name, kind) = ("small".to_owned(), OfferingKind::OnDemand);
        Ok(vec![Offering { name, zone: None, kind, price, allocatable, available: true }])
    }

    async fn provision(
        &self,
        ctx: &dyn ProvisionCtx,
        spec: &ServerSpec,
        claims: &[ServerClaim],
    ) -> Result<Vec<ClaimOutcome>> {
        if spec.offering != "small" && !self.has(Bug::TakesAnyOffering) {
            return Err(Error::invalid("there is no such offering"));
        }
        let known = ctx.checkpoints().await?;
        let mut outcomes = Vec::new();
        for (step, claim) in (0..).zip(claims) {
            let step = if self.has(Bug::OneForAll) { 0 } else { step };
            let all = if self.has(Bug::OneForAll) { ctx.checkpoints().await? } else { known.clone() };
            let before = all.iter().find(|checkpoint| checkpoint.step == step && !self.has(Bug::Forgetful));
            let id = before.and_then(|checkpoint| checkpoint.data.as_u64()).unwrap_or_else(|| self.draw());
            let made_too_early = self.has(Bug::ActsBeforeIntent) && self.make(id, &claim.server);
            let written = ctx.checkpoint(Checkpoint { step, name: "id".into(), data: json!(id) }).await;
            if !self.has(Bug::IgnoresStore) {
                written?;
            }
            let result = if made_too_early || self.make(id, &claim.server) {
                Ok(id.to_string())
            } else if self.has(Bug::AllOrNothing) {
                return Err(Error::new(ErrorKind::Quota { scope: "account".into() }, "the account is full"));
            } else {
                Err(Error::new(ErrorKind::Quota { scope: "account".into() }, "the account is full"))
            };
            outcomes.push(ClaimOutcome { server: claim.server.clone(), result });
        }
        Ok(outcomes)
    }

    async fn list(&self) -> Result<ServerListing> {
        let observe = |(server, id): (ServerId, u64)| ServerObservation {
            server,
            provider_id: id.to_string(),
            incarnation: "boot".into(),
            capacity: Resources { cpu: CpuMillis(1_000), memory: Bytes(1 << 30) },
            zone: None,
            offering: "small".into(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            owner: None,
            labels: BTreeMap::new(),
        };
        let mut servers: Vec<ServerObservation> = self.ours().into_iter().map(observe).collect();
        if self.has(Bug::ListsTwice) {
            servers.extend(servers.clone());
        }
        let complete = !self.has(Bug::NeverComplete);
        Ok(ServerListing { servers, complete, as_of: WallTime(1_700_000_000_000_000) })
    }

    async fn can_terminate(&self, _server: &ServerId) -> Result<()> {
        Ok(())
    }

    async fn terminate(&self, _ctx: &dyn ProvisionCtx, servers: &[ServerId], _reason: TerminateReason) -> Result<()> {
        for server in servers {
            let found: Vec<u64> =
                self.ours().into_iter().filter(|(name, _)| name == server).map(|(_, id)| id).collect();
            if found.is_empty() && self.has(Bug::MissesTheGone) {
                return Err(Error::not_found("there is no such server"));
            }
            if !self.has(Bug::KeepsServers) {
                self.cloud.lock().unwrap().servers.retain(|id, _| !found.contains(id));
            }
        }
        Ok(())
    }

    async fn connect(&self, server: &ServerId) -> Result<Connection> {
        if self.ours().iter().any(|(name, _)| name == server) || self.has(Bug::ConnectsToAnybody) {
            return Ok(Connection::Agent);
        }
        Err(Error::not_found("there is no such server"))
    }
}

struct Fixture {
    bug: Bug,
    cloud: Cloud,
    workers: LocalWorkers,
}

impl Fixture {
    fn led_by(&self, lease: &Lease) -> Arc<dyn Provider> {
        let name = Name::new("planted").unwrap();
        let provider = Planted { name, bug: self.bug, cloud: Arc::clone(&self.cloud), lease: Mutex::default() };
        provider.lead(lease);
        Arc::new(provider)
    }
}

#[async_trait]
impl ProviderFixture for Fixture {
    async fn provider(&self) -> Result<Arc<dyn Provider>> {
        Ok(self.led_by(&self.workers.next_lease()))
    }

    async fn stranger(&self) -> Result<Option<Arc<dyn Provider>>> {
        let (store, key) = (StoreId::new("another"), "key".to_owned());
        Ok(Some(self.led_by(&Lease { store, epoch: Epoch(1), key, earlier: Vec::new() })))
    }

    async fn leave_room(&self, servers: Option<usize>) -> Result<bool> {
        let mut account = self.cloud.lock().unwrap();
        account.limit = servers.map(|more| account.servers.len() + more);
        Ok(true)
    }
}

impl Workers for Fixture {
    fn launch(&self, container: &ContainerId, generation: Generation, script: &str) -> Launch {
        self.workers.launch(container, generation, script)
    }

    /// Virtual time, so that only the number of looks in it costs something.
    fn deadline(&self) -> Duration {
        Duration::from_secs(2)
    }
}

async fn examined(bug: Bug) -> Report {
    let workers = LocalWorkers::new(Path::new("/"), StoreId::new("planted"));
    conformance::provider(&Fixture { bug, cloud: Cloud::default(), workers }).await
}

async fn failed(bug: Bug) -> BTreeSet<String> {
    let report = examined(bug).await;
    report.failed().map(|(name, _)| name.strip_prefix("provider/").unwrap_or(name).to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_provider_without_a_bug_passes_and_what_an_agent_drives_is_skipped() {
    let report = examined(Bug::None).await;
    assert_eq!(report.failed().collect::<Vec<_>>(), [], "{report}");
    let here: Vec<&str> = report.skipped().map(|(name, _)| name).filter(|name| !name.starts_with("runtime/")).collect();
    assert_eq!(here, ["provider/what_cannot_grow_says_that_it_is_unsupported"]);
    let why: BTreeSet<&str> =
        report.skipped().filter(|(name, _)| name.starts_with("runtime/")).map(|(_, why)| why).collect();
    assert_eq!(why, BTreeSet::from(["the server is driven by an agent"]));
}

#[tokio::test(start_paused = true)]
async fn each_planted_bug_is_caught_by_the_case_of_its_promise() {
    const REPEATED: &str = "a_repeated_provision_yields_the_same_servers";
    const NEXT: &str = "the_next_manager_that_repeats_a_provision_gets_the_same_servers";
    const CHECKPOINTS: &str = "a_provision_that_ends_at_any_checkpoint_and_is_repeated_makes_no_second_server";
    const LOST: &str = "a_provision_whose_caller_is_lost_and_that_is_repeated_makes_no_second_server";
    const GIVEN_BACK: &str = "a_server_that_is_given_back_leaves_the_listing_and_may_be_given_back_again";
    const OFFERINGS: &str = "offerings_are_stable_and_their_prices_finite";
    let expected: [(Bug, &[&str]); 15] = [
        (Bug::Forgetful, &[REPEATED, NEXT]),
        (Bug::ActsBeforeIntent, &[CHECKPOINTS, LOST]),
        (Bug::IgnoresStore, &[CHECKPOINTS]),
        (Bug::AllOrNothing, &["claims_succeed_and_fail_one_by_one"]),
        (Bug::OneForAll, &[REPEATED]),
        (Bug::SeesStrangers, &["another_store_sees_and_touches_nothing"]),
        (Bug::NeverComplete, &["the_listing_is_complete_and_names_each_server_once"]),
        (Bug::ListsTwice, &[REPEATED]),
        (Bug::MissesTheGone, &[GIVEN_BACK, "giving_back_what_nobody_has_is_success"]),
        (Bug::KeepsServers, &[GIVEN_BACK]),
        (Bug::TakesAnyOffering, &["an_offering_that_nobody_has_is_refused"]),
        (Bug::Priceless, &[OFFERINGS]),
        (Bug::OffersTooLittle, &[OFFERINGS]),
        (Bug::ConnectsToAnybody, &["a_server_that_nobody_has_cannot_be_connected_to"]),
        (Bug::Panics, &[OFFERINGS, REPEATED]),
    ];
    for (bug, cases) in expected {
        let failed = failed(bug).await;
        for case in cases {
            assert!(failed.contains(*case), "{bug:?} is not caught by {case}, only by {failed:?}");
        }
    }
}
