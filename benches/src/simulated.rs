//! Servers that only acknowledge: what is started on them runs and is ready at once, and nothing runs.
//!
//! Start at [`Simulated`], a provider for a real Manager with a real store; or at [`Acknowledging::of_agent`], what a real
//! agent drives. What is measured with them is everything that a Manager does itself: planning, committing, sending calls,
//! and taking in their outcomes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use cocktail_core::contract::{
    ClaimOutcome, Connection, ExecSession, ExecSpec, Exit, Handle, Hold, Known, Launch, Listing, LogOptions, LogStream,
    Observation, Offering, ProbeKind, Provider, ProviderCapabilities, ProvisionCtx, Requirements, Runtime,
    RuntimeCapabilities, RuntimeEvent, ServerClaim, ServerListing, ServerObservation, ServerSpec, Sighting, StopOrder,
    TerminateReason, UsageReading, VolumeFound,
};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::{ContainerId, Generation, ServerId};
use cocktail_core::name::Name;
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::spec::{Resources, Template};
use cocktail_core::time::WallTime;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

/// A provider of many servers.
#[derive(Debug)]
pub struct Simulated {
    name: Name,
    capacity: Resources,
    servers: BTreeMap<ServerId, Arc<Acknowledging>>,
}

impl Simulated {
    /// That many servers with that much cpu, in cores; memory is four times as many GiB. With `watched` each of them
    /// knows what runs on it, so that it can be read and can die.
    ///
    /// # Errors
    /// Never: the name is one.
    pub fn new(servers: usize, cores: u64, watched: bool) -> anyhow::Result<Arc<Self>> {
        let server = |number| {
            let id = ServerId::new(format!("server-{number:05}"));
            (id, Arc::new(Acknowledging::new(watched)))
        };
        Ok(Arc::new(Self {
            name: Name::new("simulated")?,
            capacity: Resources { cpu: CpuMillis(cores * 1000), memory: Bytes(cores << 32) },
            servers: (0..servers).map(server).collect(),
        }))
    }

    /// The server of that number.
    pub fn server(&self, number: usize) -> Option<&Arc<Acknowledging>> {
        self.servers.values().nth(number)
    }

    /// All servers in order.
    pub fn servers(&self) -> impl Iterator<Item = &Arc<Acknowledging>> {
        self.servers.values()
    }
}

#[async_trait]
impl Provider for Simulated {
    fn name(&self) -> &Name {
        &self.name
    }
    fn kind(&self) -> &'static str {
        "simulated"
    }
    fn capabilities(&self) -> ProviderCapabilities {
        ProviderCapabilities::default()
    }
    fn validate(&self, _: &Template) -> Vec<(String, String)> {
        Vec::new()
    }
    async fn offerings(&self, _: &Requirements) -> Result<Vec<Offering>> {
        Ok(Vec::new())
    }
    async fn provision(&self, _: &dyn ProvisionCtx, _: &ServerSpec, _: &[ServerClaim]) -> Result<Vec<ClaimOutcome>> {
        Err(Error::new(ErrorKind::Unsupported, "these servers are all there are"))
    }
    async fn list(&self) -> Result<ServerListing> {
        let server = |(number, id): (usize, &ServerId)| ServerObservation {
            server: id.clone(),
            provider_id: id.to_string(),
            incarnation: "boot".into(),
            capacity: self.capacity,
            zone: Some(format!("zone-{}", number % 3)),
            offering: "large".into(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            owner: None,
            labels: BTreeMap::new(),
        };
        let servers = self.servers.keys().enumerate().map(server).collect();
        Ok(ServerListing { servers, complete: true, as_of: WallTime(0) })
    }
    async fn can_terminate(&self, _: &ServerId) -> Result<()> {
        Ok(())
    }
    async fn terminate(&self, _: &dyn ProvisionCtx, _: &[ServerId], _: TerminateReason) -> Result<()> {
        Ok(())
    }
    async fn connect(&self, server: &ServerId) -> Result<Connection> {
        let server = self.servers.get(server).ok_or_else(|| Error::not_found(format!("no server {server}")))?;
        Ok(Connection::Local(server.clone()))
    }
}

/// One server that acknowledges everything.
#[derive(Debug)]
pub struct Acknowledging {
    watched: bool,
    running: Mutex<BTreeMap<ContainerId, Generation>>,
    /// Deaths that a restart is awaited for.
    dead: Mutex<BTreeMap<ContainerId, Instant>>,
    restarted: Mutex<Vec<f64>>,
    /// Deaths of containers that were no longer wanted.
    spared: AtomicUsize,
    /// How often what an agent's containers use was read; `None` of who has no agent.
    read: Option<AtomicU64>,
    events: Mutex<Option<mpsc::UnboundedSender<RuntimeEvent>>>,
}

impl Acknowledging {
    fn new(watched: bool) -> Self {
        let (running, dead, restarted, events) =
            (Mutex::default(), Mutex::default(), Mutex::default(), Mutex::default());
        Self { watched, running, dead, restarted, spared: AtomicUsize::new(0), read: None, events }
    }

    /// What an agent drives. Its containers use something else each time that they are read.
    pub fn of_agent() -> Self {
        Self { read: Some(AtomicU64::new(0)), ..Self::new(true) }
    }

    /// One of its containers dies: the one of that number, in order. False where none runs.
    pub fn kill(&self, number: usize) -> bool {
        let (container, generation) = {
            let mut running = lock(&self.running);
            let count = running.len().max(1);
            let Some(container) = running.keys().nth(number % count).cloned() else { return false };
            let generation = running.remove(&container).unwrap_or_default();
            (container, generation)
        };
        lock(&self.dead).insert(container.clone(), Instant::now());
        self.tell(RuntimeEvent::Exited { container, generation, exit: Exit::Code(1) })
    }

    /// Tells the Manager something, if one listens.
    fn tell(&self, event: RuntimeEvent) -> bool {
        lock(&self.events).as_ref().is_some_and(|events| events.send(event).is_ok())
    }

    /// Milliseconds between a death and the call that starts the container anew, since the last question. The call is
    /// sent when the decision is durable.
    pub fn restarted(&self) -> Vec<f64> {
        std::mem::take(&mut *lock(&self.restarted))
    }

    /// Deaths that no restart followed, because a smaller count was asked for meanwhile: what is down goes first.
    pub fn spared(&self) -> usize {
        self.spared.load(Ordering::Acquire)
    }
}

#[async_trait]
impl Runtime for Acknowledging {
    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities::default()
    }
    async fn prepare(&self, launch: &Launch) -> Result<()> {
        if self.watched {
            let died = lock(&self.dead).remove(&launch.container);
            lock(&self.restarted).extend(died.map(|died| died.elapsed().as_secs_f64() * 1e3));
        }
        Ok(())
    }
    async fn start(&self, launch: &Launch) -> Result<Handle> {
        if self.watched {
            lock(&self.running).insert(launch.container.clone(), launch.generation);
        }
        if launch.probes.iter().any(|probe| probe.kind == ProbeKind::Ready) {
            let (container, generation) = (launch.container.clone(), launch.generation);
            let detail = "connected".to_owned();
            self.tell(RuntimeEvent::Probe { container, generation, kind: ProbeKind::Ready, ok: true, detail });
        }
        Ok(handle())
    }
    async fn stop(&self, order: &StopOrder) -> Result<Exit> {
        lock(&self.running).remove(&order.container);
        Ok(Exit::Signal(order.signal))
    }
    async fn hold(&self, _: &Hold) -> Result<()> {
        Ok(())
    }
    async fn remove(&self, container: &ContainerId) -> Result<()> {
        if lock(&self.dead).remove(container).is_some() {
            self.spared.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }
    async fn release_ports(&self, _: &[u16]) -> Result<()> {
        Ok(())
    }
    async fn list(&self) -> Result<Listing> {
        let seen = |(id, generation): (&ContainerId, &Generation)| {
            (id.clone(), Observation { generation: *generation, sighting: Sighting::Running(handle()) })
        };
        let containers = lock(&self.running).iter().map(seen).collect();
        // Where nothing is watched nothing may be concluded.
        Ok(Listing { containers, complete: self.watched, descended: false })
    }
    async fn recover(&self, _: &[Known]) -> Result<Listing> {
        Runtime::list(self).await
    }
    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *lock(&self.events) = Some(sender);
        futures_util::stream::unfold(receiver, |mut receiver| async {
            let event = receiver.recv().await?;
            Some((event, receiver))
        })
        .boxed()
    }
    async fn usage(&self) -> Result<BTreeMap<ContainerId, UsageReading>> {
        let reading = self.read.as_ref().map_or_else(UsageReading::default, |read| {
            let changes = read.fetch_add(1, Ordering::Relaxed) % 32;
            UsageReading { cpu_millis: 20 + changes, memory_bytes: (30 << 20) + (changes << 12) }
        });
        Ok(lock(&self.running).keys().map(|id| (id.clone(), reading)).collect())
    }
    async fn volumes(&self) -> Result<Vec<VolumeFound>> {
        Ok(Vec::new())
    }
    async fn logs(&self, _: &ContainerId, _: &LogOptions) -> Result<LogStream> {
        Ok(futures_util::stream::empty().boxed())
    }
    async fn exec(&self, _: &ContainerId, _: &ExecSpec) -> Result<ExecSession> {
        Err(Error::new(ErrorKind::Unsupported, "nothing runs here"))
    }
    async fn check(&self, _: &Template) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }
    async fn shutdown(&self, _: bool) -> Result<()> {
        Ok(())
    }
}

/// How every container is found again.
fn handle() -> Handle {
    Handle { pid: Some(1), start_time: 1, boot_id: "boot".into(), docker_id: None }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whatever panicked under it left a whole value: each change is one insert or one removal.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
