//! The agent of a server: this machine, driven by a Manager elsewhere.

#[cfg(feature = "docker")]
mod engine;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cocktail_agent::agent::{Agent, AgentConfig, Memory};
use cocktail_agent::identity::JoinToken;
use cocktail_core::contract::{Connection, Lease, Provider as _, Runtime};
use cocktail_core::error::{Error, Result};
use cocktail_core::name::Name;
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::settings::Settings;
use cocktail_core::spec::Resources;
use cocktail_provider_standalone::{StandaloneBuilder, StandaloneConfig};
use cocktail_store::DataDir;
use tokio_util::sync::CancellationToken;

/// What an agent is told.
///
/// ```no_run
/// use cocktail::agent::{self, AgentOptions};
/// use tokio_util::sync::CancellationToken;
///
/// # async fn serve(token: String) -> cocktail::Result<()> {
/// let options = AgentOptions { managers: vec!["manager.example.com:7443".into()], token: Some(token), ..Default::default() };
/// agent::run(options, CancellationToken::new()).await
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct AgentOptions {
    /// Where it keeps who it is, what it remembers and what it runs; `.cocktail-agent` in the working directory by default.
    pub data_dir: Option<PathBuf>,
    /// Where the Manager is, as `host:port`; tried one after the other.
    pub managers: Vec<String>,
    /// The token to join with; needed once.
    pub token: Option<String>,
    /// Address at which containers listen and are reached from the Manager's host; where the connection comes from if it
    /// is not said.
    pub address: Option<IpAddr>,
    /// The engine of this machine that it runs images on, as `unix:///PATH`; without one it runs programs. The data dir stays
    /// with what it was made for. Needs the feature `docker`.
    pub engine: Option<String>,
    /// Cpu that containers can reserve, instead of all cores.
    pub cpu: Option<CpuMillis>,
    /// Memory that containers can reserve, instead of all memory.
    pub memory: Option<Bytes>,
}

/// How often an agent tells what everything uses.
const REPORT: Duration = Duration::from_secs(1);

/// What an agent drives.
struct Driven {
    runtime: Arc<dyn Runtime>,
    capacity: Resources,
    host: String,
}

/// Runs an agent until it is told to end; its containers run on then, until the next agent or the end of its lease.
///
/// Repeating it with the same data dir goes on where the last one stopped, also after it was killed. An engine that does not
/// answer yet is waited for.
///
/// # Errors
/// `Refused` when another agent, or a Manager, has the data dir; `Denied` when the Manager refuses it for good;
/// `InvalidConfig` for options that cannot be used, for a data dir that was made for something else, and without a token
/// where it never joined; `Unsupported` for an engine without the feature `docker`; `Unavailable` when the disk or the keeper
/// cannot be used. A Manager that cannot be reached is tried again for as long as it takes.
pub async fn run(options: AgentOptions, until: CancellationToken) -> Result<()> {
    let AgentOptions { data_dir, managers, token, address, engine, cpu, memory } = options;
    if managers.is_empty() {
        return Err(Error::invalid("an agent needs the address of a manager"));
    }
    let token: Option<JoinToken> = token
        .map(|text| {
            text.trim()
                .parse()
                .map_err(|error: cocktail_agent::identity::InvalidToken| Error::invalid(error.to_string()))
        })
        .transpose()?;
    engine.as_deref().map(check_engine).transpose()?;
    let data_dir = DataDir::open(&data_dir.unwrap_or_else(|| PathBuf::from(".cocktail-agent")), true)?;
    let remembered = Memory::open(data_dir.path(), engine.as_deref())?;
    let settings = Settings::default();
    let name = Name::new("agent").map_err(|error| Error::unexpected(error.to_string()))?;
    // Workers listen where they are reached from; which of this machine's addresses that is the worker is not told.
    let config = StandaloneConfig {
        address: address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        cpu,
        memory,
        ..StandaloneConfig::default()
    };
    let keeper = StandaloneBuilder::new(name, data_dir.path())
        .with_config(config)
        .with_logs(settings.log_bytes, settings.log_files);
    let lease = remembered.lease();
    let driven = match &engine {
        None => programs(keeper, &lease).await?,
        Some(url) => {
            let images = images(Machine { url, address, cpu, memory }, keeper, &lease);
            let Some(images) = until.run_until_cancelled(images).await else { return Ok(()) };
            images?
        }
    };
    let Driven { runtime, capacity, host } = driven;
    // What runs is watched when the Manager says what it is.
    runtime.recover(&[]).await?;
    let config = AgentConfig {
        dir: data_dir.path().to_path_buf(),
        managers,
        token,
        address,
        capacity,
        host,
        report: REPORT,
        images: engine.is_some(),
    };
    let ended = Agent::new(config, remembered, runtime.clone()).run(until).await;
    runtime.shutdown(false).await?;
    ended
}

/// Programs of this machine.
async fn programs(keeper: StandaloneBuilder, lease: &Lease) -> Result<Driven> {
    let provider = keeper.build()?;
    provider.lead(lease);
    let listing = provider.list().await?;
    let server = listing.servers.into_iter().next();
    let server = server.ok_or_else(|| Error::unexpected("this machine is no server of its own"))?;
    let (capacity, host) = (server.capacity, server.labels.get("host").cloned().unwrap_or_default());
    Ok(Driven { runtime: local(provider.connect(&provider.server()).await?)?, capacity, host })
}

fn local(connection: Connection) -> Result<Arc<dyn Runtime>> {
    match connection {
        Connection::Local(runtime) => Ok(runtime),
        Connection::Agent => Err(Error::unexpected("this machine has no runtime")),
    }
}

/// An engine of this machine, and what of the machine its containers get.
#[cfg_attr(not(feature = "docker"), expect(dead_code, reason = "there is no engine without the feature"))]
#[derive(Debug, Clone, Copy)]
struct Machine<'a> {
    url: &'a str,
    address: Option<IpAddr>,
    cpu: Option<CpuMillis>,
    memory: Option<Bytes>,
}

fn check_engine(url: &str) -> Result<()> {
    if url.strip_prefix("unix://").is_some_and(|path| path.starts_with('/')) {
        return Ok(());
    }
    let other = "engines elsewhere are servers of [providers.NAME] with kind = \"docker\"";
    Err(Error::invalid(format!(
        "an agent runs images on an engine of its own machine, unix:///PATH, not {url}: {other}"
    )))
}

#[cfg(feature = "docker")]
async fn images(machine: Machine<'_>, keeper: StandaloneBuilder, lease: &Lease) -> Result<Driven> {
    engine::images(machine, keeper, lease).await
}

#[cfg(not(feature = "docker"))]
async fn images(_machine: Machine<'_>, _keeper: StandaloneBuilder, _lease: &Lease) -> Result<Driven> {
    let message = "this program runs no images: build it with the feature `docker`";
    Err(Error::new(cocktail_core::error::ErrorKind::Unsupported, message))
}
