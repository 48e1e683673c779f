//! What is about the agents of other servers.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use cocktail_core::quantity::{Bytes, CpuMillis};

use super::duration;

/// `agent`.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// Where the Manager is; several are tried one after the other
    #[arg(long, value_name = "HOST:PORT", required = true, value_delimiter = ',')]
    pub(crate) join: Vec<String>,
    /// File with the token to join with; needed once
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Address at which containers are reached from the Manager's host; default: where the connection comes from
    #[arg(long, value_name = "IP")]
    pub(crate) address: Option<IpAddr>,
    /// Run images on this engine of the machine, instead of programs: unix:///var/run/docker.sock
    #[arg(long, value_name = "URL", env = "COCKTAIL_AGENT_ENGINE")]
    pub(crate) engine: Option<String>,
    /// Cpu that containers can reserve, instead of all cores
    #[arg(long, value_name = "CORES")]
    pub(crate) cpu: Option<CpuMillis>,
    /// Memory that containers can reserve, instead of all memory
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<Bytes>,
}

/// `token`.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// The server by id or unique prefix
    pub(crate) server: String,
    /// How long the token is good
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub(crate) ttl: Duration,
}

/// `revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The server by id or unique prefix
    pub(crate) server: String,
    /// Why, for the journal
    #[arg(long, value_name = "TEXT", default_value = "no reason was given")]
    pub(crate) because: String,
}

/// `rotate-ca`.
#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    /// Trust the old authority no longer
    #[arg(long)]
    pub(crate) finish: bool,
}
