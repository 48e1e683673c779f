//! Servers that only acknowledge: what is started on them runs and is ready at once, and nothing runs.
//!
//! Start at [`Simulated`], a provider for a real Manager with a real store. [`Counting`] is that store with a count of what
//! is durable. What is measured with them is everything that a Manager does itself: planning, committing, sending calls,
//! and taking in their outcomes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use cocktail_core::contract::{
    Checkpoint, ClaimOutcome, Connection, ExecSession, ExecSpec, Exit, Handle, Known, Launch, Lease, LedgerRow,
    Listing, Loaded, LogOptions, LogStream, Observation, Offering, ProbeKind, Provider, ProviderCapabilities,
    ProvisionCtx, Requirements, Runtime, RuntimeCapabilities, RuntimeEvent, ServerClaim, ServerListing,
    ServerObservation, ServerSpec, Sighting, StopOrder, Store, TerminateReason, TurnRow, UsageReading, VolumeFound,
};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::{ContainerId, Epoch, Generation, OperationId, Seq, ServerId, StoreId};
use cocktail_core::name::Name;
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::spec::{Resources, Template};
use cocktail_core::time::WallTime;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::{Notify, mpsc};

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
    events: Mutex<Option<mpsc::UnboundedSender<RuntimeEvent>>>,
}

impl Acknowledging {
    fn new(watched: bool) -> Self {
        let (running, dead, restarted, events) =
            (Mutex::default(), Mutex::default(), Mutex::default(), Mutex::default());
        Self { watched, running, dead, restarted, spared: AtomicUsize::new(0), events }
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
        Ok(lock(&self.running).keys().map(|id| (id.clone(), UsageReading::default())).collect())
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

/// A store that counts what it has made durable.
#[derive(Debug)]
pub struct Counting {
    inner: Arc<dyn Store>,
    claimed: AtomicUsize,
    started: AtomicUsize,
    ready: AtomicUsize,
    /// When how many containers had been claimed, after each turn that claims some.
    progress: Mutex<Vec<(Instant, usize)>>,
    /// The longest snapshot, in bytes and milliseconds.
    snapshot: Mutex<(usize, f64)>,
    more: Notify,
}

impl Counting {
    /// Counts what `inner` makes durable.
    pub fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            claimed: AtomicUsize::new(0),
            started: AtomicUsize::new(0),
            ready: AtomicUsize::new(0),
            progress: Mutex::default(),
            snapshot: Mutex::default(),
            more: Notify::new(),
        })
    }

    /// Starts that are durably known.
    pub fn started(&self) -> usize {
        self.started.load(Ordering::Acquire)
    }

    /// Waits until that many starts are durably known.
    pub async fn until_started(&self, count: usize) {
        while self.started() < count {
            self.more.notified().await;
        }
    }

    /// Waits until that many containers are durably known to have been ready.
    pub async fn until_ready(&self, count: usize) {
        while self.ready.load(Ordering::Acquire) < count {
            self.more.notified().await;
        }
    }

    /// When how many containers had been claimed, after each turn that claimed some.
    pub fn progress(&self) -> Vec<(Instant, usize)> {
        lock(&self.progress).clone()
    }

    /// Bytes and milliseconds of the longest snapshot.
    pub fn longest_snapshot(&self) -> (usize, f64) {
        *lock(&self.snapshot)
    }
}

#[async_trait]
impl Store for Counting {
    fn id(&self) -> StoreId {
        self.inner.id()
    }
    async fn acquire(&self) -> Result<Lease> {
        self.inner.acquire().await
    }
    async fn append(&self, epoch: Epoch, turn: TurnRow, ledger: &[LedgerRow]) -> Result<()> {
        let [claimed, started, ready] = counted(&turn.bytes);
        self.inner.append(epoch, turn, ledger).await?;
        let before = self.claimed.fetch_add(claimed, Ordering::AcqRel);
        self.started.fetch_add(started, Ordering::AcqRel);
        self.ready.fetch_add(ready, Ordering::AcqRel);
        if claimed > 0 {
            lock(&self.progress).push((Instant::now(), before + claimed));
        }
        self.more.notify_one();
        Ok(())
    }
    async fn last(&self) -> Result<Seq> {
        self.inner.last().await
    }
    async fn snapshot(&self, epoch: Epoch, upto: Seq, bytes: Vec<u8>, keep_bytes: u64) -> Result<()> {
        let (length, began) = (bytes.len(), Instant::now());
        self.inner.snapshot(epoch, upto, bytes, keep_bytes).await?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        let mut longest = lock(&self.snapshot);
        if took > longest.1 {
            *longest = (length, took);
        }
        Ok(())
    }
    async fn load(&self) -> Result<Loaded> {
        self.inner.load().await
    }
    async fn read(&self, from: Seq, limit: usize) -> Result<Vec<TurnRow>> {
        self.inner.read(from, limit).await
    }
    async fn open_operations(&self) -> Result<Vec<LedgerRow>> {
        self.inner.open_operations().await
    }
    async fn checkpoint(&self, epoch: Epoch, operation: OperationId, checkpoint: Checkpoint) -> Result<()> {
        self.inner.checkpoint(epoch, operation, checkpoint).await
    }
    async fn checkpoints(&self, operation: OperationId) -> Result<Vec<Checkpoint>> {
        self.inner.checkpoints(operation).await
    }
    async fn use_reserve(&self) -> Result<bool> {
        self.inner.use_reserve().await
    }
    async fn restore_reserve(&self) -> Result<bool> {
        self.inner.restore_reserve().await
    }
}

/// Claims, starts and probes in a turn as it is stored: each event begins with its kind. Probes tell nothing here but that
/// a container is ready.
fn counted(turn: &[u8]) -> [usize; 3] {
    const BEGIN: &[u8] = br#"{"kind":""#;
    let mut counts = [0; 3];
    let mut rest = turn;
    while let Some(at) = rest.iter().position(|byte| *byte == b'{') {
        rest = &rest[at..];
        let Some(kind) = rest.strip_prefix(BEGIN) else {
            rest = &rest[1..];
            continue;
        };
        for (count, name) in counts.iter_mut().zip([&br#"claimed""#[..], br#"started""#, br#"probed""#]) {
            *count += usize::from(kind.starts_with(name));
        }
        rest = kind;
    }
    counts
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whatever panicked under it left a whole value: each change is one insert or one removal.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn claims_starts_and_probes_of_a_turn_are_counted_and_nothing_else() {
        let turn = br#"{"now":1,"events":[{"kind":"claimed","container":"a"},{"kind":"started","handle":{"pid":1}},{"kind":"start_failed"},{"kind":"claimed"},{"kind":"probed"}]}"#;
        assert_eq!(counted(turn), [2, 1, 1]);
        assert_eq!(counted(br#"{"events":[]}"#), [0; 3]);
    }
}
