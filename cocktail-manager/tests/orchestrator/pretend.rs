//! A provider, runtime and forwarder that pretend: containers are entries in a map that outlives any Manager.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cocktail_core::contract::{
    BuildOutput, Built, ClaimOutcome, Connection, ExecSession, ExecSpec, Exit, Forwarder, Handle, Known, Launch,
    Listing, LogLine, LogOptions, LogStream, Observation, Offering, ProbeKind, Provider, ProviderCapabilities,
    ProvisionCtx, Requirements, Resolved, RouteOutcome, RouteTraffic, RoutingTable, Runtime, RuntimeCapabilities,
    RuntimeEvent, ServerClaim, ServerListing, ServerObservation, ServerSpec, Sighting, StopOrder, TerminateReason,
    UsageReading, VolumeFound,
};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::{ContainerId, Generation, ServerId, UnitId};
use cocktail_core::name::Name;
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::spec::{Build, Resources, Template};
use cocktail_core::time::WallTime;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::broadcast;

/// What "runs" on the pretended machine.
#[derive(Debug)]
pub(crate) struct Machine {
    running: Mutex<BTreeMap<ContainerId, (Generation, Handle)>>,
    pids: Mutex<u32>,
    starts: Mutex<u32>,
    pub(crate) taken: Mutex<Vec<u16>>,
    pub(crate) table: Mutex<RoutingTable>,
    /// Cpu and memory by container; what is not named uses nothing.
    pub(crate) usage: Mutex<BTreeMap<ContainerId, UsageReading>>,
    pub(crate) reported: Mutex<BTreeMap<ContainerId, BTreeMap<String, f64>>>,
    pub(crate) traffic: Mutex<Vec<RouteTraffic>>,
    pub(crate) volumes: Mutex<Vec<VolumeFound>>,
    /// Output by container.
    pub(crate) output: Mutex<BTreeMap<ContainerId, Vec<(i64, &'static str)>>>,
    /// Probes find out before the start is over.
    pub(crate) hasty: Mutex<bool>,
    /// What listings say of the lease.
    pub(crate) descended: Mutex<bool>,
    /// Starts are not answered.
    pub(crate) silent: Mutex<bool>,
    /// What references of images stand for. With it the machine runs images, and nothing else.
    pub(crate) images: Mutex<Option<BTreeMap<String, Result<Resolved>>>>,
    /// What the files of builds are, and why they cannot be built.
    pub(crate) files: Mutex<(&'static str, Option<Error>)>,
    /// Images that were built.
    pub(crate) built: Mutex<Vec<String>>,
    /// How long a build takes.
    pub(crate) build_takes: Mutex<Duration>,
    /// Times that old images were looked for.
    pub(crate) prunes: Mutex<u32>,
    /// References of images that were asked about.
    pub(crate) asked: Mutex<Vec<String>>,
    /// The image that each container was started from.
    pub(crate) started_from: Mutex<BTreeMap<ContainerId, String>>,
    events: broadcast::Sender<RuntimeEvent>,
    name: Name,
}

impl Machine {
    pub(crate) fn new() -> Arc<Self> {
        Self::named("standalone")
    }

    /// The only machine of a provider of that name.
    pub(crate) fn named(name: &str) -> Arc<Self> {
        Arc::new(Self {
            running: Mutex::default(),
            pids: Mutex::new(100),
            starts: Mutex::default(),
            taken: Mutex::default(),
            table: Mutex::default(),
            usage: Mutex::default(),
            reported: Mutex::default(),
            traffic: Mutex::default(),
            volumes: Mutex::default(),
            output: Mutex::default(),
            hasty: Mutex::default(),
            descended: Mutex::default(),
            silent: Mutex::default(),
            images: Mutex::default(),
            files: Mutex::default(),
            built: Mutex::default(),
            build_takes: Mutex::default(),
            prunes: Mutex::default(),
            asked: Mutex::default(),
            started_from: Mutex::default(),
            events: broadcast::channel(64).0,
            name: Name::new(name).expect("a name"),
        })
    }

    pub(crate) fn running(&self) -> BTreeMap<ContainerId, Option<u32>> {
        let running = self.running.lock().expect("unpoisoned");
        running.iter().map(|(id, (_, handle))| (id.clone(), handle.pid)).collect()
    }

    fn runs_images(&self) -> bool {
        self.images.lock().expect("unpoisoned").is_some()
    }

    pub(crate) fn starts(&self) -> u32 {
        *self.starts.lock().expect("unpoisoned")
    }

    /// A client waits at a service port.
    pub(crate) fn demand(&self, unit: &str) {
        let unit = UnitId::try_from(unit.to_owned()).expect("a name");
        let _ = self.events.send(RuntimeEvent::Demand { unit });
    }

    /// Something runs that no Manager here has started.
    pub(crate) fn plant(&self, id: &ContainerId) {
        let handle = Handle { pid: Some(7), ..Handle::default() };
        self.running.lock().expect("unpoisoned").insert(id.clone(), (Generation(1), handle));
    }

    /// The process ends by itself; told to whoever listens.
    pub(crate) fn crash(&self, id: &ContainerId, code: i32) {
        let (generation, _) = self.running.lock().expect("unpoisoned").remove(id).expect("it runs");
        let _ = self.events.send(RuntimeEvent::Exited { container: id.clone(), generation, exit: Exit::Code(code) });
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Pretend(pub(crate) Arc<Machine>);

#[async_trait]
impl Provider for Pretend {
    fn name(&self) -> &Name {
        &self.0.name
    }
    fn kind(&self) -> &'static str {
        "standalone"
    }
    fn capabilities(&self) -> ProviderCapabilities {
        ProviderCapabilities { images: self.0.runs_images(), ..ProviderCapabilities::default() }
    }
    fn validate(&self, _: &Template) -> Vec<(String, String)> {
        Vec::new()
    }
    async fn offerings(&self, _: &Requirements) -> Result<Vec<Offering>> {
        Ok(Vec::new())
    }
    async fn provision(&self, _: &dyn ProvisionCtx, _: &ServerSpec, _: &[ServerClaim]) -> Result<Vec<ClaimOutcome>> {
        Err(Error::new(ErrorKind::Unsupported, "one machine is all there is"))
    }
    async fn list(&self) -> Result<ServerListing> {
        let server = ServerObservation {
            server: ServerId::new(if self.0.name.as_str() == "standalone" { "here" } else { self.0.name.as_str() }),
            provider_id: "pretended".into(),
            incarnation: "boot-1".into(),
            capacity: Resources { cpu: CpuMillis(4000), memory: Bytes(8 << 30) },
            zone: None,
            offering: "machine".into(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            owner: None,
            labels: BTreeMap::new(),
        };
        Ok(ServerListing { servers: vec![server], complete: true, as_of: WallTime(0) })
    }
    async fn can_terminate(&self, _: &ServerId) -> Result<()> {
        Ok(())
    }
    async fn terminate(&self, _: &dyn ProvisionCtx, _: &[ServerId], _: TerminateReason) -> Result<()> {
        Ok(())
    }
    async fn connect(&self, _: &ServerId) -> Result<Connection> {
        Ok(Connection::Local(Arc::new(self.clone())))
    }
    fn forwarder(&self) -> Option<Arc<dyn Forwarder>> {
        Some(Arc::new(self.clone()))
    }
}

#[async_trait]
impl Runtime for Pretend {
    fn capabilities(&self) -> RuntimeCapabilities {
        let images = self.0.runs_images();
        RuntimeCapabilities { outlives_manager: true, images, builds: images, ..RuntimeCapabilities::default() }
    }
    async fn prepare(&self, launch: &Launch) -> Result<()> {
        let taken = self.0.taken.lock().expect("unpoisoned");
        match launch.ports.iter().find(|port| taken.contains(&port.port)) {
            Some(port) => Err(Error::new(ErrorKind::Conflict, "port is taken by nginx").with("port", port.port)),
            None => Ok(()),
        }
    }
    async fn start(&self, launch: &Launch) -> Result<Handle> {
        if *self.0.silent.lock().expect("unpoisoned") {
            return std::future::pending().await;
        }
        if let Some(image) = &launch.image {
            let mut started_from = self.0.started_from.lock().expect("unpoisoned");
            started_from.insert(launch.container.clone(), image.reference.clone());
        }
        let handle = {
            let mut running = self.0.running.lock().expect("unpoisoned");
            if let Some((generation, handle)) = running.get(&launch.container)
                && *generation == launch.generation
            {
                return Ok(handle.clone());
            }
            let mut pids = self.0.pids.lock().expect("unpoisoned");
            *pids += 1;
            *self.0.starts.lock().expect("unpoisoned") += 1;
            let handle = Handle { pid: Some(*pids), boot_id: "boot-1".into(), ..Handle::default() };
            running.insert(launch.container.clone(), (launch.generation, handle.clone()));
            handle
        };
        let hasty = *self.0.hasty.lock().expect("unpoisoned");
        if launch.probes.iter().any(|probe| probe.kind == ProbeKind::Ready) {
            let (container, generation, events) = (launch.container.clone(), launch.generation, self.0.events.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                let (kind, detail) = (ProbeKind::Ready, "it pretends well".to_owned());
                let _ = events.send(RuntimeEvent::Probe { container, generation, kind, ok: true, detail });
            });
        }
        if hasty {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(handle)
    }
    async fn stop(&self, order: &StopOrder) -> Result<Exit> {
        self.0.running.lock().expect("unpoisoned").remove(&order.container);
        Ok(Exit::Signal(order.signal))
    }
    async fn remove(&self, _: &ContainerId) -> Result<()> {
        Ok(())
    }
    async fn release_ports(&self, _: &[u16]) -> Result<()> {
        Ok(())
    }
    async fn list(&self) -> Result<Listing> {
        let running = self.0.running.lock().expect("unpoisoned");
        let containers = running
            .iter()
            .map(|(id, (generation, handle))| {
                let sighting = Sighting::Running(handle.clone());
                (id.clone(), Observation { generation: *generation, sighting })
            })
            .collect();
        Ok(Listing { containers, complete: true, descended: *self.0.descended.lock().expect("unpoisoned") })
    }
    async fn recover(&self, _: &[Known]) -> Result<Listing> {
        Runtime::list(self).await
    }
    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        let events = tokio_stream::wrappers::BroadcastStream::new(self.0.events.subscribe());
        events.filter_map(|event| async move { event.ok() }).boxed()
    }
    async fn usage(&self) -> Result<BTreeMap<ContainerId, UsageReading>> {
        let running = self.0.running.lock().expect("unpoisoned");
        let usage = self.0.usage.lock().expect("unpoisoned");
        Ok(running.keys().map(|id| (id.clone(), usage.get(id).copied().unwrap_or_default())).collect())
    }
    async fn reported(&self) -> Result<BTreeMap<ContainerId, BTreeMap<String, f64>>> {
        Ok(self.0.reported.lock().expect("unpoisoned").clone())
    }
    async fn volumes(&self) -> Result<Vec<VolumeFound>> {
        Ok(self.0.volumes.lock().expect("unpoisoned").clone())
    }
    async fn logs(&self, container: &ContainerId, options: &LogOptions) -> Result<LogStream> {
        let output = self.0.output.lock().expect("unpoisoned");
        let lines = output.get(container).cloned().unwrap_or_default();
        let skipped = options.tail.map_or(0, |tail| lines.len().saturating_sub(tail as usize));
        let id = container.to_string();
        let line = move |(at, text): (i64, &str)| {
            Ok(LogLine { container: id.clone(), at: WallTime(at), stderr: false, partial: false, text: text.into() })
        };
        let lines = futures_util::stream::iter(lines.into_iter().skip(skipped).map(line));
        Ok(if options.follow { lines.chain(futures_util::stream::pending()).boxed() } else { lines.boxed() })
    }
    async fn exec(&self, _: &ContainerId, _: &ExecSpec) -> Result<ExecSession> {
        Err(Error::new(ErrorKind::Unsupported, "pretended containers run no commands"))
    }
    async fn resolve(&self, reference: &str, _: &Name) -> Result<Resolved> {
        self.0.asked.lock().expect("unpoisoned").push(reference.to_owned());
        let images = self.0.images.lock().expect("unpoisoned");
        images.as_ref().and_then(|images| images.get(reference).cloned()).unwrap_or_else(|| Ok(Resolved::default()))
    }
    async fn name_build(&self, _: &Build, unit: &UnitId) -> Result<String> {
        let files = self.0.files.lock().expect("unpoisoned").0;
        Ok(format!("localhost/cocktail/{unit}:{files}"))
    }
    async fn build(&self, _: &Build, _: &UnitId, reference: &str, output: &BuildOutput) -> Result<Built> {
        if let Some(error) = self.0.files.lock().expect("unpoisoned").1.clone() {
            return Err(error);
        }
        let takes = *self.0.build_takes.lock().expect("unpoisoned");
        tokio::time::sleep(takes).await;
        let mut built = self.0.built.lock().expect("unpoisoned");
        if !built.iter().any(|known| known == reference) {
            output("Step 1/1 : FROM scratch");
            built.push(reference.to_owned());
        }
        Ok(Built::default())
    }
    /// One at a time.
    async fn prune_images(&self, needed: &BTreeSet<String>) -> Result<Vec<String>> {
        *self.0.prunes.lock().expect("unpoisoned") += 1;
        let mut built = self.0.built.lock().expect("unpoisoned");
        let old = built.iter().position(|image| !needed.contains(image));
        Ok(old.map(|old| built.remove(old)).into_iter().collect())
    }
    async fn check(&self, template: &Template) -> Result<Vec<(String, String)>> {
        let missing = template.command.first().is_some_and(|program| program == "missing");
        Ok(missing.then(|| ("command".to_owned(), "no program `missing`".to_owned())).into_iter().collect())
    }
    async fn shutdown(&self, stop: bool) -> Result<()> {
        if stop {
            self.0.running.lock().expect("unpoisoned").clear();
        }
        Ok(())
    }
}

#[async_trait]
impl Forwarder for Pretend {
    async fn check(&self, addresses: &[SocketAddr]) -> Result<Vec<(SocketAddr, String)>> {
        let taken = self.0.taken.lock().expect("unpoisoned");
        let all = addresses.iter().filter(|address| taken.contains(&address.port()));
        Ok(all.map(|address| (*address, format!("port {} is taken by nginx", address.port()))).collect())
    }
    async fn set(&self, table: &RoutingTable) -> Result<Vec<RouteOutcome>> {
        *self.0.table.lock().expect("unpoisoned") = table.clone();
        Ok(table.routes.iter().map(|route| RouteOutcome { listen: route.listen, error: None }).collect())
    }
    async fn traffic(&self) -> Result<Vec<RouteTraffic>> {
        Ok(self.0.traffic.lock().expect("unpoisoned").clone())
    }
}
