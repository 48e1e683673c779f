//! The agent of a server: this machine, driven by a Manager elsewhere.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cocktail_agent::agent::{Agent, AgentConfig, Memory};
use cocktail_agent::identity::JoinToken;
use cocktail_core::contract::{Connection, Provider as _, Runtime};
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
    /// Cpu that containers can reserve, instead of all cores.
    pub cpu: Option<CpuMillis>,
    /// Memory that containers can reserve, instead of all memory.
    pub memory: Option<Bytes>,
}

/// How often an agent tells what everything uses.
const REPORT: Duration = Duration::from_secs(1);

/// Runs an agent until it is told to end; its containers run on then, until the next agent or the end of its lease.
///
/// Repeating it with the same data dir goes on where the last one stopped, also after it was killed.
///
/// # Errors
/// `Refused` when another agent, or a Manager, has the data dir; `Denied` when the Manager refuses it for good;
/// `InvalidConfig` for options that cannot be used, and without a token where it never joined; `Unavailable` when the disk or
/// the keeper cannot be used. A Manager that cannot be reached is tried again for as long as it takes.
pub async fn run(options: AgentOptions, until: CancellationToken) -> Result<()> {
    let AgentOptions { data_dir, managers, token, address, cpu, memory } = options;
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
    let data_dir = DataDir::open(&data_dir.unwrap_or_else(|| PathBuf::from(".cocktail-agent")), true)?;
    let remembered = Memory::open(data_dir.path())?;
    let settings = Settings::default();
    let name = Name::new("agent").map_err(|error| Error::unexpected(error.to_string()))?;
    // Workers listen where they are reached from; which of this machine's addresses that is the worker is not told.
    let config = StandaloneConfig {
        address: address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        cpu,
        memory,
        ..StandaloneConfig::default()
    };
    let provider = StandaloneBuilder::new(name, data_dir.path())
        .with_config(config)
        .with_logs(settings.log_bytes, settings.log_files)
        .build()?;
    provider.lead(&remembered.lease());
    let (capacity, host) = machine(&provider).await?;
    let runtime: Arc<dyn Runtime> = match provider.connect(&provider.server()).await? {
        Connection::Local(runtime) => runtime,
        Connection::Agent => return Err(Error::unexpected("this machine has no runtime")),
    };
    // What runs is watched when the Manager says what it is.
    runtime.recover(&[]).await?;
    let config =
        AgentConfig { dir: data_dir.path().to_path_buf(), managers, token, address, capacity, host, report: REPORT };
    let ended = Agent::new(config, remembered, runtime.clone()).run(until).await;
    runtime.shutdown(false).await?;
    ended
}

async fn machine(provider: &cocktail_provider_standalone::StandaloneProvider) -> Result<(Resources, String)> {
    let listing = provider.list().await?;
    let server = listing.servers.into_iter().next();
    let server = server.ok_or_else(|| Error::unexpected("this machine is no server of its own"))?;
    Ok((server.capacity, server.labels.get("host").cloned().unwrap_or_default()))
}
