//! Servers that are bought and given back, over a provider that only pretends and forgets to answer.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cocktail_core::contract::{
    Actor, Checkpoint, ClaimOutcome, Connection, Lease, LedgerRow, Loaded, Manager, Offering, OfferingKind, Provider,
    ProviderCapabilities, ProvisionCtx, Requirements, ServerClaim, ServerListing, ServerObservation, ServerSpec,
    ShutdownMode, Store, TerminateReason, TurnRow,
};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::fleet::Owner;
use cocktail_core::id::{ContainerId, Epoch, OperationId, Seq, ServerId, StoreId};
use cocktail_core::name::Name;
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::settings::{ProviderSettings, Settings};
use cocktail_core::spec::{Resources, Template};
use cocktail_core::time::WallTime;
use cocktail_manager::{Ended, Orchestrator};

use crate::behaviour::{manifest, ready};
use crate::pretend::{Machine, Pretend};

/// The token and operation that made a server, and what runs on it.
type Made = (String, Owner, Arc<Machine>);

/// Servers, each with what made it.
#[derive(Debug)]
struct Cloud {
    name: Name,
    servers: Mutex<BTreeMap<ServerId, Made>>,
    made: Mutex<u32>,
    /// Answers to provisioning calls that get lost, although the call acts.
    lost: Mutex<u32>,
    /// It does not answer.
    away: AtomicBool,
    /// The first server that is connected to does not answer, for ever.
    first_is_silent: AtomicBool,
    silent: Mutex<Option<ServerId>>,
    store: Arc<dyn Store>,
}

impl Cloud {
    fn new(store: &Arc<dyn Store>) -> Arc<Self> {
        let name = Name::new("cloud").expect("a name");
        Arc::new(Self {
            name,
            servers: Mutex::default(),
            made: Mutex::default(),
            lost: Mutex::default(),
            away: AtomicBool::default(),
            first_is_silent: AtomicBool::default(),
            silent: Mutex::default(),
            store: store.clone(),
        })
    }

    fn answers(&self) -> Result<()> {
        match self.away.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Unavailable, "the provider does not answer")),
            false => Ok(()),
        }
    }

    fn count(&self) -> usize {
        self.servers.lock().expect("unpoisoned").len()
    }
}

fn room() -> Resources {
    Resources { cpu: CpuMillis(2_000), memory: Bytes(4 << 30) }
}

#[async_trait]
impl Provider for Cloud {
    fn name(&self) -> &Name {
        &self.name
    }
    fn kind(&self) -> &'static str {
        "cloud"
    }
    fn capabilities(&self) -> ProviderCapabilities {
        ProviderCapabilities { grows: true, ..ProviderCapabilities::default() }
    }
    fn validate(&self, _: &Template) -> Vec<(String, String)> {
        Vec::new()
    }
    async fn offerings(&self, _: &Requirements) -> Result<Vec<Offering>> {
        self.answers()?;
        Ok(vec![Offering {
            name: "small".into(),
            zone: None,
            kind: OfferingKind::OnDemand,
            price: Some(0.1),
            allocatable: room(),
            available: true,
        }])
    }
    async fn provision(
        &self,
        ctx: &dyn ProvisionCtx,
        _: &ServerSpec,
        claims: &[ServerClaim],
    ) -> Result<Vec<ClaimOutcome>> {
        for claim in claims {
            let mut servers = self.servers.lock().expect("unpoisoned");
            let owner = Owner { store: self.store.id(), operation: ctx.operation() };
            match servers.get(&claim.server) {
                Some((token, ..)) => assert_eq!(token, ctx.token(), "a claim is fulfilled by one call"),
                None => {
                    *self.made.lock().expect("unpoisoned") += 1;
                    servers.insert(claim.server.clone(), (ctx.token().to_owned(), owner, Machine::new()));
                }
            }
        }
        let mut lost = self.lost.lock().expect("unpoisoned");
        if *lost > 0 {
            *lost -= 1;
            return Err(Error::new(ErrorKind::OutcomeUnknown, "the connection broke"));
        }
        Ok(claims
            .iter()
            .map(|it| ClaimOutcome { server: it.server.clone(), result: Ok(format!("i-{}", it.server)) })
            .collect())
    }
    async fn list(&self) -> Result<ServerListing> {
        self.answers()?;
        let servers = self.servers.lock().expect("unpoisoned");
        let seen = |(id, (_, owner, _)): (&ServerId, &Made)| ServerObservation {
            server: id.clone(),
            provider_id: format!("i-{id}"),
            incarnation: "boot-1".into(),
            capacity: room(),
            zone: None,
            offering: "small".into(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            owner: Some(owner.clone()),
            labels: BTreeMap::new(),
        };
        Ok(ServerListing { servers: servers.iter().map(seen).collect(), complete: true, as_of: WallTime(0) })
    }
    async fn can_terminate(&self, _: &ServerId) -> Result<()> {
        Ok(())
    }
    async fn terminate(&self, _: &dyn ProvisionCtx, servers: &[ServerId], _: TerminateReason) -> Result<()> {
        self.servers.lock().expect("unpoisoned").retain(|id, _| !servers.contains(id));
        Ok(())
    }
    async fn connect(&self, server: &ServerId) -> Result<Connection> {
        self.answers()?;
        let silent = {
            let mut silent = self.silent.lock().expect("unpoisoned");
            if self.first_is_silent.swap(false, Ordering::Relaxed) {
                *silent = Some(server.clone());
            }
            silent.as_ref() == Some(server)
        };
        if silent {
            std::future::pending::<()>().await;
        }
        let servers = self.servers.lock().expect("unpoisoned");
        let (_, _, machine) = servers.get(server).ok_or_else(|| Error::not_found("no such server"))?;
        Ok(Connection::Local(Arc::new(Pretend(machine.clone()))))
    }
}

fn store() -> Arc<dyn Store> {
    crate::behaviour::store()
}

/// Waits until something holds; virtual time makes the limit cheap.
async fn until(holds: impl AsyncFn() -> bool) {
    for _ in 0..60_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not come to that");
}

async fn start(store: &Arc<dyn Store>, cloud: &Arc<Cloud>) -> Orchestrator {
    let options = [("idle", "1m"), ("visibility", "100ms")];
    let options = options.map(|(key, value)| (key.to_owned(), serde_json::json!(value))).into();
    let kind = Name::new("cloud").expect("a name");
    let providers = BTreeMap::from([(kind.clone(), ProviderSettings { kind, options })]);
    let settings = Settings { relist: Duration::from_secs(5), providers, ..Settings::default() };
    let builder = Orchestrator::builder(store.clone()).with_provider(cloud.clone()).with_settings(settings);
    builder.start().await.expect("it starts")
}

fn web(count: u32) -> cocktail_core::contract::ManifestSource {
    manifest(&format!(
        "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"web\"]\nreplicas = {count}\nresources = {{ cpu = 1 }}\n"
    ))
}

#[tokio::test(start_paused = true)]
async fn servers_are_bought_when_room_runs_out_and_given_back_when_they_are_empty() {
    let store = store();
    let cloud = Cloud::new(&store);
    let manager = start(&store, &cloud).await;
    manager.apply(&[web(3)], &Actor::embedder()).await.expect("it is applied");
    ready(&manager, 3).await;
    assert_eq!(cloud.count(), 2);
    let servers = manager.servers().await.expect("servers");
    assert!(servers.iter().all(|server| server.state == "ready" && server.provider == "cloud"), "{servers:?}");
    manager.scale("web", 0, &Actor::embedder()).await.expect("it is scaled");
    until(async || manager.servers().await.expect("servers").is_empty()).await;
    assert_eq!(cloud.count(), 0);
    manager.shutdown(ShutdownMode::Leave).await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_buys_nothing_twice_also_over_a_restart() {
    let store = store();
    let cloud = Cloud::new(&store);
    *cloud.lost.lock().expect("unpoisoned") = 1;
    let manager = start(&store, &cloud).await;
    manager.apply(&[web(1)], &Actor::embedder()).await.expect("it is applied");
    until(async || cloud.count() == 1).await;
    manager.shutdown(ShutdownMode::Leave).await.expect("it ends");
    drop(manager);
    let manager = start(&store, &cloud).await;
    ready(&manager, 1).await;
    assert_eq!(*cloud.made.lock().expect("unpoisoned"), 1);
    // What runs there is attached to again, and nothing is started anew.
    manager.shutdown(ShutdownMode::Leave).await.expect("it ends");
    drop(manager);
    let manager = start(&store, &cloud).await;
    ready(&manager, 1).await;
    assert_eq!(*cloud.made.lock().expect("unpoisoned"), 1);
    let starts: u32 = cloud.servers.lock().expect("unpoisoned").values().map(|(_, _, machine)| machine.starts()).sum();
    assert_eq!(starts, 1);
    manager.shutdown(ShutdownMode::Leave).await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn a_provider_out_of_reach_keeps_no_manager_from_starting_and_is_attached_to_when_it_answers() {
    let store = store();
    let cloud = Cloud::new(&store);
    let manager = start(&store, &cloud).await;
    manager.apply(&[web(1)], &Actor::embedder()).await.expect("it is applied");
    ready(&manager, 1).await;
    manager.shutdown(ShutdownMode::Leave).await.expect("it ends");
    drop(manager);

    cloud.away.store(true, Ordering::Relaxed);
    let manager = start(&store, &cloud).await;
    manager.scale("web", 2, &Actor::embedder()).await.expect("it is scaled");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let servers = manager.servers().await.expect("servers");
    assert_eq!(servers.len(), 1, "what is not seen is not gone");
    cloud.away.store(false, Ordering::Relaxed);
    // A call that was intended while the server could not be reached goes out.
    ready(&manager, 2).await;
    let starts: u32 = cloud.servers.lock().expect("unpoisoned").values().map(|(_, _, machine)| machine.starts()).sum();
    assert_eq!(starts, 2, "what ran is attached to");
    manager.shutdown(ShutdownMode::Leave).await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_keeps_no_other_waiting() {
    let store = store();
    let cloud = Cloud::new(&store);
    cloud.first_is_silent.store(true, Ordering::Relaxed);
    let manager = start(&store, &cloud).await;
    manager.apply(&[web(4)], &Actor::embedder()).await.expect("it is applied");
    until(async || {
        let servers = manager.servers().await.expect("servers");
        servers.iter().any(|server| server.state == "ready")
    })
    .await;
    assert!(cloud.silent.lock().expect("unpoisoned").is_some());
    manager.shutdown(ShutdownMode::Leave).await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_behind_what_runs_on_a_bought_server_ends_the_manager_before_anything_goes() {
    let store = store();
    let cloud = Cloud::new(&store);
    let manager = start(&store, &cloud).await;
    manager.apply(&[web(1)], &Actor::embedder()).await.expect("it is applied");
    ready(&manager, 1).await;
    manager.scale("web", 0, &Actor::embedder()).await.expect("it is scaled");
    until(async || manager.containers().await.expect("containers").is_empty()).await;
    manager.shutdown(ShutdownMode::Leave).await.expect("it ends");
    drop(manager);
    // As a newer copy of the store would have started it.
    for (_, _, machine) in cloud.servers.lock().expect("unpoisoned").values() {
        machine.plant(&ContainerId::new("web-newer"));
    }
    let manager = start(&store, &cloud).await;
    let ended = manager.ended().await;
    assert!(matches!(&ended, Ended::Refused(because) if because.contains("web-newer")), "{ended:?}");
    assert_eq!(cloud.count(), 1, "the server is empty for all that this store knows, and is kept");
}

/// A store whose lease another Manager takes right after the turn that intends to give servers back.
#[derive(Debug)]
struct Usurped(Arc<dyn Store>);

#[async_trait]
impl Store for Usurped {
    fn id(&self) -> StoreId {
        self.0.id()
    }
    async fn acquire(&self) -> Result<Lease> {
        self.0.acquire().await
    }
    async fn append(&self, epoch: Epoch, turn: TurnRow, ledger: &[LedgerRow]) -> Result<()> {
        let gives_back = String::from_utf8_lossy(&turn.bytes).contains("\"terminate\"");
        self.0.append(epoch, turn, ledger).await?;
        if gives_back {
            self.0.acquire().await?;
        }
        Ok(())
    }
    async fn last(&self) -> Result<Seq> {
        self.0.last().await
    }
    async fn snapshot(&self, epoch: Epoch, upto: Seq, bytes: Vec<u8>, keep_bytes: u64) -> Result<()> {
        self.0.snapshot(epoch, upto, bytes, keep_bytes).await
    }
    async fn load(&self) -> Result<Loaded> {
        self.0.load().await
    }
    async fn read(&self, from: Seq, limit: usize) -> Result<Vec<TurnRow>> {
        self.0.read(from, limit).await
    }
    async fn open_operations(&self) -> Result<Vec<LedgerRow>> {
        self.0.open_operations().await
    }
    async fn checkpoint(&self, epoch: Epoch, operation: OperationId, checkpoint: Checkpoint) -> Result<()> {
        self.0.checkpoint(epoch, operation, checkpoint).await
    }
    async fn checkpoints(&self, operation: OperationId) -> Result<Vec<Checkpoint>> {
        self.0.checkpoints(operation).await
    }
    async fn use_reserve(&self) -> Result<bool> {
        self.0.use_reserve().await
    }
    async fn restore_reserve(&self) -> Result<bool> {
        self.0.restore_reserve().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_has_a_successor_gives_no_server_back() {
    let plain = store();
    let usurped: Arc<dyn Store> = Arc::new(Usurped(plain.clone()));
    let cloud = Cloud::new(&plain);
    let manager = start(&usurped, &cloud).await;
    manager.apply(&[web(1)], &Actor::embedder()).await.expect("it is applied");
    ready(&manager, 1).await;
    manager.scale("web", 0, &Actor::embedder()).await.expect("it is scaled");
    tokio::time::sleep(Duration::from_secs(600)).await;
    let given_back = plain.read(Seq(0), 10_000).await.expect("turns");
    let intends = |row: &TurnRow| String::from_utf8_lossy(&row.bytes).contains("\"terminate\"");
    assert!(given_back.iter().any(intends), "it was about to");
    assert_eq!(cloud.count(), 1);
}
