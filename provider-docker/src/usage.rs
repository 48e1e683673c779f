//! What containers use: one reading of each, and cpu use as what was used between two readings.

mod cgroup;

use std::collections::BTreeMap;

use bollard::models::ContainerStatsResponse;
use bollard::query_parameters::StatsOptionsBuilder;
use cocktail_core::contract::UsageReading;
use cocktail_core::error::Result;
use cocktail_core::id::{ContainerId, Generation};
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use crate::shared::{Runs, Shared, lock};
use crate::times;

/// Readings that are asked for at once.
const AT_ONCE: usize = 8;

/// The last reading of every container: when, and cpu time in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Readings(BTreeMap<(ContainerId, Generation), (Instant, u64)>);

/// What a container has used so far, and uses now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counted {
    cpu_nanos: u64,
    memory_bytes: u64,
}

/// What every container uses that runs. One that cannot be read is left out.
pub(crate) async fn read(shared: &Shared) -> Result<BTreeMap<ContainerId, UsageReading>> {
    let running = shared.running();
    let (mut read, asked) = match shared.fixed.local {
        true => count_here(running).await,
        false => (Vec::new(), running),
    };
    if !asked.is_empty() {
        let docker = shared.engine.api().await?;
        let one = |runs: Runs| {
            let docker = docker.clone();
            async move {
                let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
                let mut stats = Box::pin(docker.stats(&runs.id, Some(options)));
                let stats = tokio::time::timeout(times::USAGE, stats.next()).await.ok()??.ok()?;
                Some((runs, Instant::now(), counted(&stats)?))
            }
        };
        let told: Vec<_> = stream::iter(asked).map(one).buffer_unordered(AT_ONCE).collect().await;
        read.extend(told.into_iter().flatten());
    }
    Ok(lock(&shared.readings).take(read))
}

/// What this machine's kernel counts, and those of which it says nothing.
async fn count_here(running: Vec<Runs>) -> (Vec<(Runs, Instant, Counted)>, Vec<Runs>) {
    let counting = tokio::task::spawn_blocking(move || {
        let (mut read, mut others) = (Vec::new(), Vec::new());
        for runs in running {
            match runs.pid.and_then(|pid| cgroup::read(pid, &runs.id)) {
                Some(counted) => read.push((runs, Instant::now(), counted)),
                None => others.push(runs),
            }
        }
        (read, others)
    });
    counting.await.unwrap_or_default()
}

impl Readings {
    /// Takes readings; a container that is new in them has used nothing yet.
    fn take(&mut self, read: Vec<(Runs, Instant, Counted)>) -> BTreeMap<ContainerId, UsageReading> {
        let (mut next, mut readings) = (BTreeMap::new(), BTreeMap::new());
        for (runs, at, Counted { cpu_nanos: cpu, memory_bytes }) in read {
            let key = (runs.container.clone(), runs.generation);
            let cpu_millis = self.0.get(&key).map_or(0, |&(then, before)| {
                let nanos = u64::try_from(at.duration_since(then).as_nanos()).unwrap_or(u64::MAX);
                cpu.saturating_sub(before).saturating_mul(1_000).checked_div(nanos).unwrap_or(0)
            });
            next.insert(key, (at, cpu));
            readings.insert(runs.container, UsageReading { cpu_millis, memory_bytes });
        }
        self.0 = next;
        readings
    }
}

/// What the engine says. What ended just before has nothing to tell.
fn counted(stats: &ContainerStatsResponse) -> Option<Counted> {
    let cpu = stats.cpu_stats.as_ref().and_then(|cpu| cpu.cpu_usage.as_ref()?.total_usage).unwrap_or_default();
    Some(Counted { cpu_nanos: cpu, memory_bytes: memory(stats)? })
}

/// Memory without what the kernel can take back at any time.
fn memory(stats: &ContainerStatsResponse) -> Option<u64> {
    let memory = stats.memory_stats.as_ref()?;
    let cache = memory.stats.as_ref().and_then(|stats| {
        // The first is of cgroup v1, the second of v2.
        stats.get("total_inactive_file").or_else(|| stats.get("inactive_file")).copied()
    });
    Some(memory.usage?.saturating_sub(cache.unwrap_or_default()))
}
