//! The agent: the process on a server that the Manager drives. It dials the Manager, never the other way.
//!
//! Start at [`Agent`]. It runs containers through any [`Runtime`], which it holds by its lease: a runtime whose containers
//! outlive the agent ends them when the lease is over, whether the agent lives or not. Who may command, what may run and
//! for how long is decided by `cocktail_core::session`; here its effects are carried out and its messages are carried.

mod asks;
mod board;
mod carry;
mod drive;
mod files;
mod link;
mod memory;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cocktail_core::contract::Runtime;
use cocktail_core::error::Result;
use cocktail_core::id::ServerId;
use cocktail_core::spec::Resources;
use tokio_util::sync::CancellationToken;

pub use self::memory::Memory;
use crate::identity::JoinToken;

/// What an agent is made from.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Its folder, absolute and locked by the caller: identity and memory live there.
    pub dir: PathBuf,
    /// Where the Manager is, as `host:port`; tried one after the other.
    pub managers: Vec<String>,
    /// With which it joins if it never has.
    pub token: Option<JoinToken>,
    /// Where containers are reached; where the connection comes from if it is not said.
    pub address: Option<IpAddr>,
    /// What containers can reserve.
    pub capacity: Resources,
    /// Name of the host, for people.
    pub host: String,
    /// How often it tells what everything uses.
    pub report: Duration,
    /// Whether its runtime runs images, and nothing else.
    pub images: bool,
}

/// An agent that was not started yet.
#[derive(Debug)]
pub struct Agent {
    config: AgentConfig,
    memory: Memory,
    runtime: Arc<dyn Runtime>,
}

impl Agent {
    /// An agent that goes on from `memory` and runs containers by `runtime`, which was told
    /// [`Memory::lease`](Memory::lease).
    pub fn new(config: AgentConfig, memory: Memory, runtime: Arc<dyn Runtime>) -> Self {
        Self { config, memory, runtime }
    }

    /// Joins if it never has, and serves until it is told to end. Containers run on, until the next agent or the end of
    /// the lease.
    ///
    /// # Errors
    /// `Denied` when the Manager refuses it for good; `InvalidConfig` without a token where there is no identity;
    /// `Unavailable` when its folder or its runtime cannot be used. A Manager that cannot be reached is none: it is tried
    /// again for as long as it takes.
    pub async fn run(self, until: CancellationToken) -> Result<()> {
        let Self { config, memory, runtime } = self;
        let identity = tokio::select! {
            identity = link::identity(&config) => identity?,
            () = until.cancelled() => return Ok(()),
        };
        drive::run(config, identity, memory, runtime, until).await
    }
}

/// Which server an agent's identity is for.
///
/// # Errors
/// As [`crate::identity::AgentIdentity::load`].
pub fn server_of(config: &AgentConfig) -> Result<Option<ServerId>> {
    link::server_of(config)
}
