//! Many agents of simulated servers in one process: the real agent, with real TLS and gRPC, over a runtime that only
//! acknowledges.
//!
//! `bench-agents MANAGER FOLDER AT_ONCE` reads a token from each line of stdin and runs an agent for it, until it is killed.
//! Their folders lie in FOLDER; AT_ONCE of them begin each tenth of a second. Each of them tells once a second what its
//! containers use.

#![expect(clippy::print_stderr, reason = "what ends an agent is for the terminal")]

use std::fs::DirBuilder;
use std::io::{BufRead as _, stdin};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use cocktail_agent::agent::{Agent, AgentConfig, Memory};
use cocktail_agent::identity::JoinToken;
use cocktail_benches::simulated::Acknowledging;
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::spec::Resources;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const REPORT: Duration = Duration::from_secs(1);
const BETWEEN: Duration = Duration::from_millis(100);
const CAPACITY: Resources = Resources { cpu: CpuMillis(64_000), memory: Bytes(256 << 30) };

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [manager, folder, at_once] = &args[..] else { bail!("usage: bench-agents MANAGER FOLDER AT_ONCE") };
    let at_once: usize = at_once.parse().context("AT_ONCE is a number")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(manager, Path::new(folder), at_once.max(1)))
}

async fn run(manager: &str, folder: &Path, at_once: usize) -> Result<()> {
    let tokens: Vec<String> = stdin().lock().lines().collect::<Result<_, _>>().context("no tokens")?;
    let mut agents = JoinSet::new();
    for some in tokens.chunks(at_once) {
        for text in some {
            agents.spawn(agent(manager, folder, text)?);
        }
        tokio::time::sleep(BETWEEN).await;
    }
    while let Some(ended) = agents.join_next().await {
        if let Err(error) = ended.context("an agent panicked")? {
            eprintln!("an agent has ended: {error:#}");
        }
    }
    Ok(())
}

fn agent(manager: &str, folder: &Path, token: &str) -> Result<impl Future<Output = Result<()>> + use<>> {
    let token: JoinToken = token.trim().parse().context("this is no token")?;
    let dir = folder.join(token.server.as_str());
    DirBuilder::new().mode(0o700).create(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let memory = Memory::open(&dir, None).map_err(|error| anyhow!(error.chain()))?;
    let config = AgentConfig {
        dir,
        managers: vec![manager.to_owned()],
        host: token.server.to_string(),
        token: Some(token),
        address: None,
        capacity: CAPACITY,
        images: false,
        report: REPORT,
    };
    let agent = Agent::new(config, memory, Arc::new(Acknowledging::of_agent()));
    Ok(async move { agent.run(CancellationToken::new()).await.map_err(|error| anyhow!(error.chain())) })
}
