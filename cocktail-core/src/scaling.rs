//! Scaling: how many containers the load asks for, and how much of that is done at once.
//!
//! Start at [`ScalingPolicy`]: from samples to a count, pure, replaceable by an embedder. [`TargetTracking`] is the
//! default. What damps a count (stabilisation, steps, cool-downs) is the same for every policy: [`damp`]. Its memory of
//! changes is part of the Unit; the window of recent counts is soft, so after a restart of the Manager the count only
//! falls when a whole window has been seen again.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::spec::{Resources, Scaling};
use crate::time::{ManagerTime, human};
use crate::view::ConsideredView;

/// Deviation from the target that asks for nothing, as a share of it.
const TOLERANCE: f64 = 0.1;
/// Counts that a window holds at most: an hour of ten a second.
const WINDOW: usize = 40_000;

/// Bounds of a count by the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Fewest containers.
    pub min: u32,
    /// Most containers.
    pub max: u32,
}

/// When the count was changed last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScalingMemory {
    /// When the policy asked for more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_up: Option<ManagerTime>,
    /// When the policy asked for fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_down: Option<ManagerTime>,
}

/// One reading of what a container does, over the last interval.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Cpu in thousandths of a core.
    pub cpu_millis: u64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// What passed its service ports, where it has some.
    #[serde(default)]
    pub traffic: Option<TrafficSample>,
    /// Metrics of its own, from its probe's JSON or its Prometheus endpoint.
    #[serde(default)]
    pub custom: BTreeMap<String, f64>,
}

/// What passed a container's service ports during the last interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TrafficSample {
    /// Open connections at its end.
    pub connections: u64,
    /// Requests without an answer at its end.
    pub in_flight: u64,
    /// Requests a second.
    pub rps: f64,
    /// Median time to the first byte of an answer, in milliseconds.
    pub p50_ms: f64,
    /// The time that one answer in a hundred exceeds, in milliseconds.
    pub p99_ms: f64,
}

/// What a policy is asked.
#[derive(Debug)]
pub struct ScalingInput<'a> {
    /// What the manifest says.
    pub scaling: &'a Scaling,
    /// What one container reserves.
    pub resources: Resources,
    /// Readings of the ready containers that had a whole interval to be read in.
    pub samples: &'a [&'a Sample],
    /// Ready containers without a reading. What they do is unknown, which is no reason for fewer.
    pub unread: u32,
    /// The count now, containers on their way included.
    pub desired: u32,
    /// Fewest that it may be.
    pub min: u32,
    /// Most that it may be.
    pub max: u32,
}

/// How many containers are wanted, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The count, not yet within bounds.
    pub count: u32,
    /// The metric that asked for it, with its numbers.
    pub because: String,
    /// What the others asked for.
    pub considered: Vec<ConsideredView>,
}

/// From samples to a count. Same input, same answer.
pub trait ScalingPolicy: fmt::Debug + Send + Sync {
    /// The count that the load asks for; `None` where nothing can be said. Unknown is no reason for fewer.
    fn wanted(&self, input: &ScalingInput<'_>) -> Option<Wanted>;
}

/// As many containers as bring each metric to its target; the metric that asks for most decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct TargetTracking;

impl ScalingPolicy for TargetTracking {
    fn wanted(&self, input: &ScalingInput<'_>) -> Option<Wanted> {
        if input.samples.is_empty() {
            return None;
        }
        let read = input.samples.len();
        let mut all: Vec<(u32, String, String)> = Vec::new();
        let mut unknown = Vec::new();
        for (metric, target) in input.scaling.targets.iter().filter(|(_, target)| **target > 0.0) {
            let Some((sum, shown)) = sum_of(metric, input) else {
                let rejected_because = format!("none of {read} containers reports it");
                unknown.push(ConsideredView { option: metric.clone(), rejected_because });
                continue;
            };
            let mut count = count_for(sum, *target, read, input.desired);
            let wanted = rounded(*target);
            let mut because = format!("{metric} is {shown} over {read} containers, {wanted} each are wanted: {count}");
            if input.unread > 0 && count < input.desired {
                count = count.saturating_add(input.unread).min(input.desired);
                because = format!("{because}, and {} of which nothing is known", input.unread);
            }
            all.push((count, metric.clone(), because));
        }
        // The first of equals: the same input gives the same answer.
        let best =
            all.iter().enumerate().max_by_key(|(at, (count, ..))| (*count, usize::MAX - at)).map(|(at, _)| at)?;
        let (mut count, _, mut because) = all.swap_remove(best);
        if count == 0 && !is_idle(input) {
            count = 1;
            because.push_str("; one stays, since it is not known to be idle");
        }
        let others = all.into_iter().map(|(_, option, rejected_because)| ConsideredView { option, rejected_because });
        let considered = others.chain(unknown).collect();
        Some(Wanted { count, because, considered })
    }
}

/// Sum of a metric in the unit of its target, and the same for people.
fn sum_of(metric: &str, input: &ScalingInput<'_>) -> Option<(f64, String)> {
    let samples = input.samples;
    let traffic = |of: fn(&TrafficSample) -> f64| {
        let sums: Vec<f64> = samples.iter().filter_map(|sample| sample.traffic.as_ref().map(of)).collect();
        (!sums.is_empty()).then(|| sums.iter().sum::<f64>())
    };
    let own = || {
        let values: Vec<f64> = samples.iter().filter_map(|sample| sample.custom.get(metric).copied()).collect();
        // A container that says nothing counts as the average of those that do.
        (!values.is_empty()).then(|| values.iter().sum::<f64>() * samples.len() as f64 / values.len() as f64)
    };
    let sum = match metric {
        "cpu" => {
            let one = if input.resources.cpu.0 == 0 { 1000 } else { input.resources.cpu.0 };
            Some(samples.iter().map(|sample| sample.cpu_millis as f64).sum::<f64>() / one as f64)
        }
        "memory" if input.resources.memory.0 > 0 => {
            let sum = samples.iter().map(|sample| sample.memory_bytes as f64).sum::<f64>();
            Some(sum / input.resources.memory.0 as f64)
        }
        "in_flight" => own().or_else(|| traffic(|traffic| traffic.in_flight as f64)),
        "rps" => own().or_else(|| traffic(|traffic| traffic.rps)),
        "connections" => own().or_else(|| traffic(|traffic| traffic.connections as f64)),
        _ => own(),
    }?;
    sum.is_finite().then(|| (sum, rounded(sum)))
}

/// How many containers share `sum` so that each has `target`.
fn count_for(sum: f64, target: f64, ready: usize, desired: u32) -> u32 {
    let exact = sum / target;
    // While it is close to what is there, nothing is asked for: a count that flaps costs more than it saves.
    let ratio = exact / ready as f64;
    if (1.0 - TOLERANCE..=1.0 + TOLERANCE).contains(&ratio) && ready as u64 == u64::from(desired) {
        return desired;
    }
    // Rounding errors of sums must not ask for one more.
    let count = (exact - 1e-9).ceil().clamp(0.0, f64::from(u32::MAX));
    count as u32
}

/// Whether it is known that nobody uses it.
fn is_idle(input: &ScalingInput<'_>) -> bool {
    input
        .samples
        .iter()
        .all(|sample| sample.traffic.is_some_and(|traffic| traffic.in_flight == 0 && traffic.rps == 0.0))
}

fn rounded(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Recent counts that a policy asked for.
#[derive(Debug, Clone, Default)]
pub struct Window {
    counts: VecDeque<(ManagerTime, u32)>,
    latest: Wanted,
}

impl Window {
    /// Adds a count and forgets those that no damping looks at any more.
    pub fn add(&mut self, now: ManagerTime, wanted: Wanted, scaling: &Scaling) {
        self.counts.push_back((now, wanted.count));
        self.latest = wanted;
        let longest = scaling.up.stabilize.max(scaling.down.stabilize);
        // One that is older than the window says that the whole window has been seen.
        while self.counts.len() > WINDOW || self.counts.get(1).is_some_and(|(at, _)| *at + longest <= now) {
            self.counts.pop_front();
        }
    }

    /// The counts of the last `span`, if it has been seen as a whole.
    fn over(&self, now: ManagerTime, span: Duration) -> Option<impl Iterator<Item = u32> + '_> {
        let (first, _) = self.counts.front()?;
        let last = self.counts.len() - 1;
        (*first + span <= now).then(|| {
            let all = self.counts.iter().enumerate();
            all.filter(move |(index, (at, _))| *index == last || *at + span > now).map(|(_, (_, count))| *count)
        })
    }
}

/// What of the wanted count is done now: the count and why, `None` for no change. Now is the time of the last reading:
/// without one nothing changes, however much time passes.
pub fn damp(
    window: &Window,
    scaling: &Scaling,
    memory: ScalingMemory,
    desired: u32,
    (min, max): (u32, u32),
) -> Option<Wanted> {
    let now = window.counts.back().map(|(at, _)| *at)?;
    let up = window.over(now, scaling.up.stabilize).and_then(Iterator::min);
    let down = window.over(now, scaling.down.stabilize).and_then(Iterator::max);
    let (wanted, damping, since) = match (up, down) {
        (Some(up), _) if up.clamp(min, max) > desired => (up, &scaling.up, memory.last_up),
        (_, Some(down)) if down.clamp(min, max) < desired => {
            (down, &scaling.down, memory.last_up.max(memory.last_down))
        }
        _ => return None,
    };
    if since.is_some_and(|since| since + damping.cooldown > now) {
        return None;
    }
    let goal = wanted.clamp(min, max);
    let step = if damping.step == 0 { u32::MAX } else { damping.step };
    let count = goal.clamp(desired.saturating_sub(step), desired.saturating_add(step));
    let mut because = window.latest.because.clone();
    if !damping.stabilize.is_zero() {
        let least = if wanted > desired { "at least" } else { "at most" };
        because = format!("{because}; {least} {wanted} for {}", human(damping.stabilize));
    }
    if goal != wanted {
        because = format!("{because}; {min} to {max} are allowed");
    }
    if count != goal {
        because = format!("{because}; {} at a time", damping.step);
    }
    Some(Wanted { count, because, considered: window.latest.considered.clone() })
}

#[cfg(test)]
mod tests;
