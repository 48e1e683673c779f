//! Images on an engine of this machine, under the lease that the keeper holds.
//!
//! An engine ends no container because somebody is silent. So the keeper is told the lease as with programs, and what it has
//! to run when that is over: the guard (`cocktail_provider_docker::guard`), which ends what this agent has in the engine,
//! whether the agent lives or not. Nothing is started that no guard would end.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cocktail_core::contract::{
    BuildOutput, Built, EndpointSource, ExecSession, ExecSpec, Exit, Handle, Hold, Known, Launch, Lease, Listing,
    LogOptions, LogStream, Login, Provider as _, Resolved, Runtime, RuntimeCapabilities, RuntimeEvent, StopOrder,
    UnloadOrder, UsageReading, VolumeFound,
};
use cocktail_core::error::{Error, Result};
use cocktail_core::id::{ContainerId, Generation, StoreId, UnitId};
use cocktail_core::name::Name;
use cocktail_core::settings::Settings;
use cocktail_core::spec::{Build, Resources, Template};
use cocktail_provider_docker::{DockerBuilder, DockerConfig, DockerProvider, EngineCapacity, EngineConfig, guard};
use cocktail_provider_standalone::StandaloneBuilder;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tracing::warn;

use super::{Driven, Machine, local};

/// Pause before an engine that does not answer is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a start waits until the keeper has heard of the lease that it is ordered under.
const HEARD: Duration = Duration::from_secs(10);

const SIGKILL: i32 = 9;

/// Waits for the engine, and for the keeper that guards what it runs.
pub(super) async fn images(machine: Machine<'_>, keeper: StandaloneBuilder, lease: &Lease) -> Result<Driven> {
    let keeper = keeper.with_guard(guard::arguments(machine.url, &lease.store)).build()?;
    keeper.lead(lease);
    let keeper = local(keeper.connect(&keeper.server()).await?)?;
    let provider = provider(machine)?;
    provider.lead(lease);
    let server = provider.servers().next().cloned();
    let server = server.ok_or_else(|| Error::unexpected("the engine is no server"))?;
    let engine = local(provider.connect(&server).await?)?;
    let (capacity, host) = answer(&provider, &engine).await?;
    let (until, _) = watch::channel(0);
    let runtime = Arc::new(Guarded { engine, keeper, store: lease.store.clone(), until });
    Ok(Driven { runtime, capacity, host })
}

fn provider(machine: Machine<'_>) -> Result<DockerProvider> {
    let Machine { url, address, cpu, memory } = machine;
    let Settings { log_bytes, log_files, .. } = Settings::default();
    let name = Name::new("engine").map_err(|error| Error::unexpected(error.to_string()))?;
    let capacity = EngineCapacity { cpu, memory };
    let engine = EngineConfig { address, capacity, ..EngineConfig::at(url) };
    // Containers are reached from the Manager's host.
    let publish = Some(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    let config = DockerConfig { engines: vec![engine], publish, ..DockerConfig::default() };
    DockerBuilder::new(name).with_config(config).with_logs(log_bytes, log_files).build()
}

/// What the machine has, once its engine answers: it may come up after its agent.
async fn answer(provider: &DockerProvider, engine: &Arc<dyn Runtime>) -> Result<(Resources, String)> {
    let mut told = false;
    loop {
        let answers = engine.list().await;
        let seen = provider.list().await?.servers.into_iter().next();
        let seen = seen.filter(|seen| answers.is_ok() && seen.capacity.cpu.0 > 0 && seen.capacity.memory.0 > 0);
        if let Some(seen) = seen {
            return Ok((seen.capacity, seen.labels.get("host").cloned().unwrap_or_default()));
        }
        if !told && let Err(error) = answers {
            warn!(error = error.chain(), "the engine of this machine does not answer yet");
            told = true;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Milliseconds since this machine booted, those in which it slept included.
fn since_boot() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000)
}

/// An engine's runtime whose containers end with a lease.
#[derive(Debug)]
struct Guarded {
    engine: Arc<dyn Runtime>,
    /// Holds the lease, and nothing else.
    keeper: Arc<dyn Runtime>,
    /// Whose containers these are in the engine: this agent's.
    store: StoreId,
    /// Until when the keeper lets them run, in milliseconds since the machine booted.
    until: watch::Sender<u64>,
}

impl Guarded {
    /// A start as it is ours: by its store the guard finds what it has to end.
    fn own(&self, launch: &Launch) -> Launch {
        Launch { store: self.store.clone(), ..launch.clone() }
    }

    fn is_over(&self) -> bool {
        *self.until.borrow() <= since_boot()
    }

    /// Waits until somebody would end what begins now.
    async fn guarded(&self) -> Result<()> {
        let mut until = self.until.subscribe();
        let heard = tokio::time::timeout(HEARD, until.wait_for(|until| *until > since_boot())).await;
        heard.map_err(|_| Error::unavailable("the keeper holds no lease for it")).map(drop)
    }

    /// Ends what has begun after the end of the lease, as when this process was stopped in the middle of a call.
    async fn not_too_late(&self, launch: &Launch) -> Result<()> {
        if launch.outlives_lease || !self.is_over() {
            return Ok(());
        }
        let (container, generation) = (launch.container.clone(), launch.generation);
        let order = StopOrder { container, generation, signal: SIGKILL, grace: Duration::ZERO };
        self.engine.stop(&order).await?;
        Err(Error::unavailable("the lease was over when it had begun"))
    }
}

#[async_trait]
impl Runtime for Guarded {
    fn capabilities(&self) -> RuntimeCapabilities {
        self.engine.capabilities()
    }

    async fn fetch(&self, launch: &Launch) -> Result<()> {
        self.engine.fetch(&self.own(launch)).await
    }

    fn lend(&self, reference: &str, service: &Name, login: Option<Login>) {
        self.engine.lend(reference, service, login);
    }

    async fn prepare(&self, launch: &Launch) -> Result<()> {
        self.guarded().await?;
        self.engine.prepare(&self.own(launch)).await
    }

    fn give_up(&self, container: &ContainerId, generation: Generation) {
        self.engine.give_up(container, generation);
    }

    async fn start(&self, launch: &Launch) -> Result<Handle> {
        self.guarded().await?;
        let handle = self.engine.start(&self.own(launch)).await?;
        self.not_too_late(launch).await?;
        Ok(handle)
    }

    fn learn_endpoints_from(&self, source: Arc<dyn EndpointSource>) {
        self.engine.learn_endpoints_from(source);
    }

    async fn stop(&self, order: &StopOrder) -> Result<Exit> {
        self.engine.stop(order).await
    }

    async fn assign(&self, launch: &Launch) -> Result<()> {
        self.guarded().await?;
        self.engine.assign(&self.own(launch)).await?;
        self.not_too_late(launch).await
    }

    async fn unload(&self, order: &UnloadOrder) -> Result<()> {
        self.engine.unload(order).await
    }

    async fn hold(&self, hold: &Hold) -> Result<()> {
        let asked = since_boot();
        self.keeper.hold(hold).await?;
        let span = u64::try_from(hold.span.as_millis()).unwrap_or(u64::MAX);
        self.until.send_replace(asked.saturating_add(span));
        Ok(())
    }

    async fn held(&self) -> Result<Option<Hold>> {
        self.keeper.held().await
    }

    async fn remove(&self, container: &ContainerId) -> Result<()> {
        self.engine.remove(container).await
    }

    async fn release_ports(&self, ports: &[u16]) -> Result<()> {
        self.engine.release_ports(ports).await
    }

    async fn list(&self) -> Result<Listing> {
        self.engine.list().await
    }

    /// Attaches to the keeper too, which takes no lease before.
    async fn recover(&self, known: &[Known]) -> Result<Listing> {
        self.keeper.recover(&[]).await?;
        let own = |known: &Known| Known { launch: self.own(&known.launch), handle: known.handle.clone() };
        let known: Vec<Known> = known.iter().map(own).collect();
        self.engine.recover(&known).await
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        // A keeper that was lost has forgotten the lease: whoever hears of it tells it again.
        let lost = self.keeper.events().filter(|event| {
            let lost = matches!(event, RuntimeEvent::Resync { .. });
            std::future::ready(lost)
        });
        stream::select(self.engine.events(), lost).boxed()
    }

    async fn usage(&self) -> Result<BTreeMap<ContainerId, UsageReading>> {
        self.engine.usage().await
    }

    async fn reported(&self) -> Result<BTreeMap<ContainerId, BTreeMap<String, f64>>> {
        self.engine.reported().await
    }

    async fn volumes(&self) -> Result<Vec<VolumeFound>> {
        self.engine.volumes().await
    }

    async fn logs(&self, container: &ContainerId, options: &LogOptions) -> Result<LogStream> {
        self.engine.logs(container, options).await
    }

    async fn exec(&self, container: &ContainerId, spec: &ExecSpec) -> Result<ExecSession> {
        self.engine.exec(container, spec).await
    }

    async fn resolve(&self, reference: &str, service: &Name) -> Result<Resolved> {
        self.engine.resolve(reference, service).await
    }

    async fn name_build(&self, build: &Build, unit: &UnitId) -> Result<String> {
        self.engine.name_build(build, unit).await
    }

    async fn build(&self, build: &Build, unit: &UnitId, reference: &str, output: &BuildOutput) -> Result<Built> {
        self.engine.build(build, unit, reference, output).await
    }

    async fn check(&self, template: &Template) -> Result<Vec<(String, String)>> {
        self.engine.check(template).await
    }

    async fn shutdown(&self, stop: bool) -> Result<()> {
        self.engine.shutdown(stop).await?;
        self.keeper.shutdown(false).await
    }
}
