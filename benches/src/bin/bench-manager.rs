//! What a whole Manager does with many containers on simulated servers: the real Orchestrator, the real store with real
//! synced commits, and servers that only acknowledge.
//!
//! `bench-manager place FOLDER SERVERS THERE UNITS EACH` lets the servers hold THERE containers and then applies UNITS
//! Units with EACH containers, each spread, with a port, and kept away from the next one. `bench-manager scale FOLDER
//! SERVERS UNITS EACH` fills empty servers. `bench-manager steady FOLDER SERVERS UNITS EACH SECONDS EACH_SECOND` fills them,
//! then lets that many containers die a second and changes as many counts. The store lies in FOLDER. One line of JSON goes
//! to stdout.

#![expect(clippy::print_stdout, reason = "the result goes to stdout")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use cocktail_benches::counting::Counting;
use cocktail_benches::simulated::Simulated;
use cocktail_core::contract::{Actor, Manager as _, ManifestSource, ShutdownMode};
use cocktail_core::error::Error;
use cocktail_core::settings::Settings;
use cocktail_manager::Orchestrator;
use cocktail_store::RedbStore;
use serde_json::json;

/// The line of `/proc/self/status` with what is in use; files in memory are not in it.
const IN_USE: &str = "RssAnon:";
/// Cores of each server: room for what any of the benchmarks puts there.
const CORES: u64 = 128;
/// Between two listings and two readings of what is not watched: longer than any measurement that is not about them.
const NEVER: Duration = Duration::from_secs(86_400);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let numbers = |texts: &[String]| texts.iter().map(|text| text.parse::<usize>()).collect::<Result<Vec<_>, _>>();
    let [mode, folder, texts @ ..] = &args[..] else {
        bail!("usage: bench-manager place|scale|steady FOLDER NUMBER…")
    };
    let (folder, numbers) = (Path::new(folder), numbers(texts)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = match (mode.as_str(), &numbers[..]) {
        ("place", [servers, there, units, each]) => runtime.block_on(place(folder, *servers, *there, *units, *each)),
        ("scale", [servers, units, each]) => runtime.block_on(scale(folder, *servers, *units, *each)),
        ("steady", [servers, units, each, seconds, each_second]) => {
            runtime.block_on(steady(folder, *servers, *units, *each, *seconds, *each_second))
        }
        _ => bail!("see the source for what it takes"),
    };
    println!("{}", result?);
    Ok(())
}

/// A Manager with what it works on.
struct Bench {
    manager: Orchestrator,
    store: Arc<Counting>,
    provider: Arc<Simulated>,
}

impl Bench {
    async fn start(folder: &Path, servers: usize, watched: bool) -> Result<Self> {
        let store = Counting::new(Arc::new(RedbStore::open(folder).map_err(told)?));
        let provider = Simulated::new(servers, CORES, watched)?;
        let Settings { usage, relist, .. } = Settings::default();
        let (usage, relist) = if watched { (usage, relist) } else { (NEVER, NEVER) };
        let settings = Settings { relist, usage, ..Settings::default() };
        let builder = Orchestrator::builder(store.clone()).with_settings(settings).with_provider(provider.clone());
        Ok(Self { manager: builder.start().await.map_err(told)?, store, provider })
    }

    /// Applies Units, and waits until all their starts are durably known, and with `ready` until all of them are. Returns
    /// how long that took, and how long until all had been placed.
    async fn deploy(
        &self,
        map: &str,
        units: usize,
        each: usize,
        apart: bool,
        ready: bool,
    ) -> Result<(Duration, Duration)> {
        let before = self.store.started();
        let begin = Instant::now();
        self.manager.apply(&[manifest(map, units, each, apart)?], &Actor("bench".into())).await.map_err(told)?;
        let all = before + units * each;
        self.store.until_started(all).await;
        if ready {
            self.store.until_ready(all).await;
        }
        let took = begin.elapsed();
        let progress = self.store.progress();
        let placed = progress.iter().find(|(_, claimed)| *claimed >= all).context("not all of them were placed")?.0;
        Ok((took, placed - begin))
    }

    /// Ends the Manager, which writes a snapshot of everything. Returns how long that took, and its size.
    async fn close(self) -> Result<(Duration, usize)> {
        let begin = Instant::now();
        self.manager.shutdown(ShutdownMode::Leave).await.map_err(told)?;
        Ok((begin.elapsed(), self.store.longest_snapshot().0))
    }
}

async fn place(folder: &Path, servers: usize, there: usize, units: usize, each: usize) -> Result<serde_json::Value> {
    let bench = Bench::start(folder, servers, false).await?;
    bench.deploy("there", 10, there / 10, false, true).await?;
    let (took, placed) = bench.deploy("new", units, each, true, false).await?;
    let containers = bench.manager.containers().await.map_err(told)?;
    ensure!(containers.len() == there + units * each, "{} containers are there", containers.len());
    for view in containers.iter().step_by(100) {
        ensure!(!view.ports.is_empty(), "{} has no port", view.id);
        ensure!(!bench.manager.why(&view.id).await.map_err(told)?.is_empty(), "{} has no reason", view.id);
    }
    bench.close().await?;
    Ok(json!({ "containers": units * each, "seconds": took.as_secs_f64(), "placed_seconds": placed.as_secs_f64() }))
}

async fn scale(folder: &Path, servers: usize, units: usize, each: usize) -> Result<serde_json::Value> {
    let empty = memory(IN_USE)?;
    let bench = Bench::start(folder, servers, false).await?;
    let begin = Instant::now();
    let (took, placed) = bench.deploy("all", units, each, false, true).await?;
    let progress = bench.store.progress();
    let tenths = tenths(begin, &progress, units * each);
    let full = at_rest().await?;
    let peak = memory("VmHWM:")?;
    let (closing, snapshot) = bench.close().await?;
    Ok(json!({
        "containers": units * each,
        "seconds": took.as_secs_f64(),
        "placed_seconds": placed.as_secs_f64(),
        "bytes": full.saturating_sub(empty),
        "peak_bytes": peak.saturating_sub(empty),
        "tenths": tenths,
        "closing_seconds": closing.as_secs_f64(),
        "snapshot_bytes": snapshot,
        "store_bytes": fs::metadata(folder.join("store.redb")).map_or(0, |file| file.len()),
    }))
}

/// Seconds that each tenth of the containers took until it was placed durably.
fn tenths(begin: Instant, progress: &[(Instant, usize)], all: usize) -> Vec<f64> {
    let reached = |count: usize| {
        let at = progress.iter().find(|(_, claimed)| *claimed >= count).map_or(begin, |(at, _)| *at);
        (at - begin).as_secs_f64()
    };
    (1..=10)
        .map(|tenth| reached(all * tenth / 10) - if tenth > 1 { reached(all * (tenth - 1) / 10) } else { 0.0 })
        .collect()
}

async fn steady(
    folder: &Path,
    servers: usize,
    units: usize,
    each: usize,
    seconds: usize,
    each_second: usize,
) -> Result<serde_json::Value> {
    let bench = Bench::start(folder, servers, true).await?;
    bench.deploy("all", units, each, false, true).await?;
    // The burst is over, and the first readings were taken.
    tokio::time::sleep(Duration::from_secs(15)).await;
    bench.provider.servers().for_each(|server| drop(server.restarted()));
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(each_second)?);
    let (cpu, begin) = (processor_time()?, Instant::now());
    let mut scaling = tokio::task::JoinSet::new();
    let mut deaths = 0;
    for event in 0..seconds * each_second {
        ticks.tick().await;
        let server = bench.provider.server(scattered(event) % servers).context("there is no server")?;
        deaths += usize::from(server.kill(event));
        // Up and down in turns, another Unit each time.
        let (manager, more) = (bench.manager.clone(), (event / units).is_multiple_of(2));
        let unit = format!("bench/all/u{}", event % units);
        scaling.spawn(async move {
            let (begin, actor) = (Instant::now(), Actor("bench".into()));
            let scaled = match more {
                true => manager.extend(&unit, 1, &actor).await,
                false => manager.reduce(&unit, 1, &actor).await,
            };
            scaled.map(|_| begin.elapsed().as_secs_f64() * 1e3)
        });
    }
    let cores = (processor_time()? - cpu) / begin.elapsed().as_secs_f64();
    let scaled = scaling.join_all().await.into_iter().collect::<Result<Vec<f64>, _>>().map_err(told)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let restarted: Vec<f64> = bench.provider.servers().flat_map(|server| server.restarted()).collect();
    let spared: usize = bench.provider.servers().map(|server| server.spared()).sum();
    ensure!(restarted.len() + spared == deaths, "{} of {deaths} came back, {spared} had not to", restarted.len());
    bench.close().await?;
    Ok(json!({ "cores": cores, "restarted_ms": restarted, "scaled_ms": scaled }))
}

fn manifest(map: &str, units: usize, each: usize, apart: bool) -> Result<ManifestSource> {
    let mut text = "service = \"bench\"\n".to_owned();
    for unit in 0..units {
        writeln!(text, "[maps.{map}.units.u{unit}]\ncommand = [\"worker\"]\nreplicas = {each}\nports.http = {{}}")?;
        writeln!(text, "resources = {{ cpu = 0.25, memory = \"256MiB\" }}\nrestart = {{ base = \"0ms\" }}")?;
        if apart {
            let next = (unit + 1) % units;
            writeln!(text, "place = {{ spread = \"server\", affinity = {{ apart = [\"u{next}\"] }} }}")?;
        }
    }
    Ok(ManifestSource { file: PathBuf::from(format!("{map}.toml")), base: PathBuf::from("/srv/bench"), text })
}

fn told(error: Error) -> anyhow::Error {
    anyhow!(error.chain())
}

/// Numbers in an order that looks like chance.
fn scattered(count: usize) -> usize {
    count.wrapping_mul(0x9e_3779_b97f_4a7d) >> 20
}

/// What this process has in use once that changes no more: the last snapshot may still be on its way to the disk.
async fn at_rest() -> Result<u64> {
    let mut last = memory(IN_USE)?;
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = memory(IN_USE)?;
        if now.abs_diff(last) < last / 200 {
            return Ok(now);
        }
        last = now;
    }
    bail!("memory does not come to rest")
}

/// Memory of this process, what its allocator keeps for itself included.
fn memory(key: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).context("a line is missing")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("it is no number")?;
    Ok(kib << 10)
}

/// Seconds of all processors that this process has used.
fn processor_time() -> Result<f64> {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9)
}
