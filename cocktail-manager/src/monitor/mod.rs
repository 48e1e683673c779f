//! The monitor: what every container does, for the scaling policy, for people, and for an hour.
//!
//! Start at [`Monitor::run`]. Each interval it reads cpu and memory, the forwarder's counters and what workers say of
//! themselves, tells the writer (`Soft::Sampled`), and keeps an hour of points per Unit and container; of containers less
//! when there are many. Servers are read at once, each with a limit of time; scraping goes on beside it. Nothing is stored:
//! an hour that a restart of the Manager cuts off is gone. Containers that are gone are forgotten with their points; a
//! Unit's stay as long as it does.

mod compose;
mod exposition;
mod latency;
mod ring;
mod scene;
mod scrape;
mod traffic;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cocktail_core::contract::Runtime;
use cocktail_core::error::{Error, Result};
use cocktail_core::event::Soft;
use cocktail_core::id::{ContainerId, ServerId, UnitId};
use cocktail_core::scaling::Sample;
use cocktail_core::state::{Object, State};
use cocktail_core::time::WallTime;
use cocktail_core::view::{HistoryView, PointView, UsageReport};
use futures_util::future::join_all;
use tokio::time::{Instant, MissedTickBehavior};

use self::compose::{Readings, Round};
use self::ring::Ring;
use self::scene::Scene;
use self::scrape::Scraper;
use self::traffic::Look;
use crate::clock::Clock;
use crate::shared::{Observation, Shared};

/// What is kept.
const KEPT: Duration = Duration::from_secs(3600);
/// Points of all containers together, of 14 bytes each: an hour of 2,000 containers, and six minutes of 20,000.
const POINTS: usize = 720_000;
/// Shortest time of one point.
const SHORTEST: Duration = Duration::from_secs(10);
/// Longest time for reading one server or the forwarder; longer ones are left out of a sample.
const READ: Duration = Duration::from_secs(5);
/// Containers whose readings the writer is told at once: what it takes in within a millisecond or two.
const AT_ONCE: usize = 4096;
/// Steps of the wall clock that are slept through rather than followed.
const DRIFT: Duration = Duration::from_secs(1);

/// Looks at what runs, and remembers. Cheap to clone; every clone is the same monitor.
#[derive(Debug, Clone)]
pub(crate) struct Monitor {
    interval: Duration,
    /// Time of one point.
    slot: Duration,
    started: Instant,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug)]
struct Kept {
    /// When the monitor started by the wall clock, as that clock says now.
    started: WallTime,
    /// Points of each container.
    each: usize,
    report: Arc<UsageReport>,
    units: BTreeMap<UnitId, Ring>,
    containers: BTreeMap<ContainerId, Ring>,
    /// Requests by Unit since the monitor started, those of containers that are gone included.
    requests: BTreeMap<UnitId, u64>,
}

/// Whose history is asked for.
#[derive(Debug, Clone)]
pub(crate) enum Whose {
    Unit(UnitId),
    Container(ContainerId),
}

/// Finds whose history a name stands for.
///
/// # Errors
/// As [`State::object`]; `InvalidConfig` for what has no history of its own.
pub(crate) fn whose(state: &State, name: &str) -> Result<Whose> {
    match state.object(name)? {
        Object::Unit(id) => Ok(Whose::Unit(id)),
        Object::Container(id) => Ok(Whose::Container(id)),
        Object::Server(id) => Err(Error::invalid(format!("{id} is a server: units and containers have a history"))),
        Object::Map(..) | Object::Service(_) => {
            Err(Error::invalid(format!("{name} is a group: ask for the history of one of its units")))
        }
    }
}

impl Monitor {
    /// How often it looks.
    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    /// A monitor that looks once per `interval`.
    pub(crate) fn new(interval: Duration) -> Self {
        let kept = Kept {
            started: Clock::wall(),
            each: 0,
            report: Arc::default(),
            units: BTreeMap::new(),
            containers: BTreeMap::new(),
            requests: BTreeMap::new(),
        };
        Self { interval, slot: interval.max(SHORTEST), started: Instant::now(), kept: Arc::new(Mutex::new(kept)) }
    }

    /// What every Unit and container did at the last look.
    pub(crate) fn usage(&self) -> UsageReport {
        let report = self.lock().report.clone();
        UsageReport::clone(&report)
    }

    /// The last hour of an object; nothing before it was looked at for the first time.
    pub(crate) fn history(&self, whose: &Whose) -> HistoryView {
        let now = self.slot_now();
        let started = self.started_at();
        let kept = self.lock();
        let (object, ring, slots) = match whose {
            Whose::Unit(id) => (id.to_string(), kept.units.get(id), self.slots()),
            Whose::Container(id) => (id.to_string(), kept.containers.get(id), kept.each),
        };
        let slot_us = i64::try_from(self.slot.as_micros()).unwrap_or(i64::MAX);
        let view = |point: ring::Shown| {
            let offset = i64::try_from(point.slot).unwrap_or(i64::MAX).saturating_mul(slot_us);
            PointView {
                at: WallTime(started.0.saturating_add(offset)).to_string(),
                cpu_millis: point.cpu_millis.round() as u64,
                memory_bytes: point.memory_bytes.round() as u64,
                rps: hundredths(point.rps),
                in_flight: point.in_flight.round() as u64,
                p50_ms: thousandths(point.p50_ms),
                p99_ms: thousandths(point.p99_ms),
                ready: point.ready.round() as u32,
            }
        };
        HistoryView {
            object,
            interval_ms: u64::try_from(self.slot.as_millis()).unwrap_or(u64::MAX),
            points: ring.map(|ring| ring.points(now, slots).map(view).collect()).unwrap_or_default(),
        }
    }

    /// Looks until the Manager ends.
    pub(crate) async fn run(self, shared: Shared) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut scraper = Scraper::new(self.interval);
        let mut before: Option<Look> = None;
        loop {
            tokio::select! {
                () = shared.observations.closed() => return,
                _ = ticks.tick() => {}
            }
            let Ok(mut scene) = Scene::survey(&shared).await else { return };
            scraper.begin(std::mem::take(&mut scene.targets));
            let (servers, look) = tokio::join!(servers(&shared), look(&shared));
            let mut round = compose::round(&scene, &servers, |id| scraper.metrics(id), before.as_ref(), look.as_ref());
            let samples = std::mem::take(&mut round.samples);
            self.keep(&scene, round);
            // A look that failed is made up for by the next one, which then covers both intervals.
            before = look.or(before);
            if tell(&shared, samples).await.is_err() {
                return;
            }
        }
    }

    fn keep(&self, scene: &Scene, round: Round) {
        let slot = self.slot_now();
        let slots = self.slots();
        let mut kept = self.lock();
        let kept = &mut *kept;
        kept.units.retain(|unit, _| scene.units.contains(unit));
        kept.containers.retain(|container, _| scene.containers.contains_key(container));
        kept.requests.retain(|unit, _| scene.units.contains(unit));
        for (unit, reading) in &round.units {
            kept.units.entry(unit.clone()).or_default().add(slot, reading, slots);
        }
        kept.each = slots.min(POINTS / round.containers.len().max(1));
        for (container, reading) in &round.containers {
            kept.containers.entry(container.clone()).or_default().add(slot, reading, kept.each);
        }
        let mut report = round.report;
        for unit in &scene.units {
            let Some(usage) = report.units.get_mut(&unit.to_string()) else { continue };
            let total = kept.requests.entry(unit.clone()).or_default();
            *total = total.saturating_add(usage.requests_total);
            usage.requests_total = *total;
        }
        kept.report = Arc::new(report);
    }

    /// Slots of the hour.
    fn slots(&self) -> usize {
        usize::try_from(KEPT.as_millis() / self.slot.as_millis().max(1)).unwrap_or(1)
    }

    fn slot_now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis() / self.slot.as_millis().max(1)).unwrap_or(u64::MAX)
    }

    /// When the monitor started by the wall clock of now: what people compare it with.
    fn started_at(&self) -> WallTime {
        let elapsed = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        let seen = Clock::wall().0.saturating_sub(elapsed);
        let mut kept = self.lock();
        if kept.started.0.abs_diff(seen) > DRIFT.as_micros() as u64 {
            kept.started = WallTime(seen);
        }
        kept.started
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // What is kept is for people to look at: a panic under the lock costs a point at most.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the writer what was read, some containers at a time: turns go on between them.
///
/// # Errors
/// The Manager has ended.
async fn tell(shared: &Shared, mut samples: BTreeMap<ContainerId, Sample>) -> Result<()> {
    while let Some(next) = samples.keys().nth(AT_ONCE).cloned() {
        let rest = samples.split_off(&next);
        shared.observe(Observation::Soft(Soft::Read(samples))).await;
        shared.look(|_, _| ()).await?;
        samples = rest;
    }
    shared.observe(Observation::Soft(Soft::Sampled(samples))).await;
    Ok(())
}

/// What the servers say of their containers. One that does not answer is missing.
async fn servers(shared: &Shared) -> BTreeMap<ServerId, Readings> {
    let read = async |(server, runtime): (ServerId, Arc<dyn Runtime>)| {
        let usage = async { in_time(runtime.usage()).await };
        let reported = async { in_time(runtime.reported()).await };
        let (usage, reported) = tokio::join!(usage, reported);
        Some((server, Readings { usage: usage?, reported: reported.unwrap_or_default() }))
    };
    join_all(shared.servers.all().into_iter().map(read)).await.into_iter().flatten().collect()
}

async fn look(shared: &Shared) -> Option<Look> {
    let forwarder = shared.forwarder.as_ref()?;
    let routes = in_time(forwarder.traffic()).await?;
    Some(Look::new(Instant::now(), routes))
}

async fn in_time<T>(reading: impl Future<Output = Result<T>>) -> Option<T> {
    tokio::time::timeout(READ, reading).await.ok()?.ok()
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_gone_is_forgotten_and_totals_only_grow() {
        let monitor = Monitor::new(Duration::from_secs(1));
        let (unit, id) = (UnitId::try_from("shop/prod/web".to_owned()).unwrap(), ContainerId::new("web-1"));
        let mut scene = Scene { units: [unit.clone()].into(), ..Scene::default() };
        let watched =
            scene::Watched { unit: unit.clone(), server: ServerId::new("here"), ready: true, runs: true, routed: true };
        scene.containers.insert(id.clone(), watched);
        let round = |requests_total| {
            let usage = cocktail_core::view::UnitUsage { requests_total, ..Default::default() };
            let report = UsageReport { units: BTreeMap::from([(unit.to_string(), usage)]), ..UsageReport::default() };
            let reading = ring::Reading::default();
            let (units, containers) =
                (BTreeMap::from([(unit.clone(), reading.clone())]), BTreeMap::from([(id.clone(), reading)]));
            Round { report, units, containers, ..Round::default() }
        };
        monitor.keep(&scene, round(40));
        monitor.keep(&scene, round(2));
        assert_eq!(monitor.usage().units["shop/prod/web"].requests_total, 42);
        let rings = || {
            let kept = monitor.lock();
            (kept.units.len(), kept.containers.len(), kept.requests.len())
        };
        assert_eq!(rings(), (1, 1, 1));
        scene.containers.clear();
        monitor.keep(&scene, Round::default());
        assert_eq!(rings(), (1, 0, 1));
        monitor.keep(&Scene::default(), Round::default());
        assert_eq!(rings(), (0, 0, 0));
    }
}
