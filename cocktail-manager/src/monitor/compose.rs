//! From what was read to samples: pure, so that each of its rules can be tried alone.
//!
//! A container has a sample when its server said what it uses. Traffic is part of it when its Unit has service ports and
//! two looks at their counters can be compared: unknown traffic is no traffic of zero. A Unit whose servers did not all
//! answer has no point, since a sum over a part of it would look like a fall.

use std::collections::BTreeMap;
use std::time::Duration;

use cocktail_core::contract::UsageReading;
use cocktail_core::id::{ContainerId, ServerId, UnitId};
use cocktail_core::scaling::Sample;
use cocktail_core::view::{UnitUsage, UsageReport};

use super::ring::Reading;
use super::scene::Scene;
use super::traffic::{Flow, Flows, Look, flows};

/// What one server said.
#[derive(Debug, Default)]
pub(super) struct Readings {
    pub(super) usage: BTreeMap<ContainerId, UsageReading>,
    pub(super) reported: BTreeMap<ContainerId, BTreeMap<String, f64>>,
}

/// What one look led to.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) samples: BTreeMap<ContainerId, Sample>,
    /// With the requests since the last look as totals.
    pub(super) report: UsageReport,
    pub(super) units: BTreeMap<UnitId, Reading>,
    pub(super) containers: BTreeMap<ContainerId, Reading>,
}

/// Composes a round; `scraped` gives the metrics of a container's own endpoint.
pub(super) fn round(
    scene: &Scene,
    servers: &BTreeMap<ServerId, Readings>,
    scraped: impl Fn(&ContainerId) -> BTreeMap<String, f64>,
    before: Option<&Look>,
    now: Option<&Look>,
) -> Round {
    let passed = now.map(|now| flows(before, now, &scene.listens)).unwrap_or_default();
    // Without two looks there is no time between them.
    let over = before.zip(now).map(|(before, now)| now.at.saturating_duration_since(before.at));
    let mut round = Round::default();
    for unit in &scene.units {
        round.report.units.insert(unit.to_string(), UnitUsage::default());
        round.units.insert(unit.clone(), Reading::default());
    }
    for (container, watched) in &scene.containers {
        let ready = u32::from(watched.ready);
        let Some(readings) = servers.get(&watched.server) else {
            if watched.runs {
                round.units.remove(&watched.unit);
            }
            continue;
        };
        if let Some(unit) = round.units.get_mut(&watched.unit) {
            unit.ready += ready;
        }
        let Some(usage) = readings.usage.get(container) else { continue };
        let flow = passed.containers.get(container).copied().unwrap_or_default();
        let mut custom = readings.reported.get(container).cloned().unwrap_or_default();
        custom.extend(scraped(container));
        custom.retain(|_, value| value.is_finite());
        let sample = Sample {
            cpu_millis: usage.cpu_millis,
            memory_bytes: usage.memory_bytes,
            traffic: over.filter(|_| watched.routed).map(|over| flow.sample(over)),
            custom,
        };
        let reading = Reading { ready, ..reading(usage, &flow, over) };
        round.containers.insert(container.clone(), reading);
        if let Some(unit) = round.units.get_mut(&watched.unit) {
            unit.cpu_millis = unit.cpu_millis.saturating_add(usage.cpu_millis);
            unit.memory_bytes = unit.memory_bytes.saturating_add(usage.memory_bytes);
        }
        if let Some(unit) = round.report.units.get_mut(&watched.unit.to_string()) {
            add(&mut unit.sample, &sample);
        }
        round.report.containers.insert(container.to_string(), sample.clone());
        round.samples.insert(container.clone(), sample);
    }
    unit_traffic(scene, &mut round, &passed, over, now);
    round
}

/// Traffic of Units: that of all their routes, also of what containers that are gone had.
fn unit_traffic(scene: &Scene, round: &mut Round, passed: &Flows, over: Option<Duration>, now: Option<&Look>) {
    let mut routed = BTreeMap::new();
    for unit in scene.listens.values() {
        routed.insert(unit, passed.units.get(unit).copied().unwrap_or_default());
    }
    for (unit, flow) in routed {
        if let Some(reading) = round.units.get_mut(unit) {
            let usage = UsageReading { cpu_millis: reading.cpu_millis, memory_bytes: reading.memory_bytes };
            *reading = Reading { ready: reading.ready, ..self::reading(&usage, &flow, over) };
        }
        let Some(usage) = round.report.units.get_mut(&unit.to_string()) else { continue };
        usage.sample.traffic = over.map(|over| flow.sample(over));
        usage.requests_total = flow.requests;
        for (_, route) in
            now.into_iter().flat_map(|now| &now.routes).filter(|(at, _)| scene.listens.get(at) == Some(unit))
        {
            usage.connections_total = usage.connections_total.saturating_add(route.total);
            usage.refused_total = usage.refused_total.saturating_add(route.refused);
            usage.waiting = usage.waiting.saturating_add(route.waiting);
        }
    }
}

fn reading(usage: &UsageReading, flow: &Flow, over: Option<Duration>) -> Reading {
    Reading {
        cpu_millis: usage.cpu_millis,
        memory_bytes: usage.memory_bytes,
        in_flight: flow.in_flight,
        // What was counted before the first look did not happen since.
        requests: over.map_or(0, |_| flow.requests),
        seconds: over.unwrap_or_default().as_secs_f64(),
        latencies: over.filter(|_| flow.requests > 0).map(|_| Box::new(flow.latencies)),
        ready: 0,
    }
}

fn add(sum: &mut Sample, sample: &Sample) {
    sum.cpu_millis = sum.cpu_millis.saturating_add(sample.cpu_millis);
    sum.memory_bytes = sum.memory_bytes.saturating_add(sample.memory_bytes);
    for (name, value) in &sample.custom {
        *sum.custom.entry(name.clone()).or_default() += value;
    }
}

#[cfg(test)]
#[path = "compose_tests.rs"]
mod tests;
