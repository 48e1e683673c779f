//! Decodes how many containers a Unit has: `replicas`, or `scale` with what changes the count by itself.
//!
//! Start at [`decode`]. By default the count grows at once and by as many as the load asks for; it shrinks when the load
//! has asked for it for a minute, because a container that is missed costs more than one that idles.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cron;
use super::network;
use super::service::MAX_REPLICAS;
use super::table::{Item, Table, shown};
use crate::spec::{Damping, PortSpec, Replicas, Scaling, Scheduled, Scrape};

/// Metrics that a target may name without `custom`.
const METRICS: [&str; 6] = ["cpu", "memory", "in_flight", "rps", "queue", "connections"];

/// The share of what is reserved from which a target was most likely meant as percent.
const PERCENT: f64 = 10.0;

/// Most metrics of the worker's own.
pub(super) const MAX_CUSTOM: usize = 32;

/// Longest name of a metric, in bytes.
const MAX_METRIC: usize = 128;

/// Most entries of a schedule.
pub(super) const MAX_SCHEDULE: usize = 64;

/// Longest time that metrics can be asked for: all counts since are looked at before each change.
const LONGEST_STABILIZE: Duration = Duration::from_secs(3600);

const SCALE: &str = "write scale = { min = 2, max = 10, cpu = 0.6 }";
const CUSTOM: &str = "write custom = { my_metric = 10 }";
const DAMPING: &str = "write down = { stabilize = \"1m\", step = 2, cooldown = \"30s\" }";
const SCHEDULE: &str = "write schedule = [{ cron = \"0 8 * * MON-FRI\", min = 4, max = 10 }]";
const SCRAPE: &str = "write metrics = { http = \"/metrics\" }";

/// What of the rest of the Unit its count depends on.
pub(super) struct Around<'a> {
    /// Its ports.
    pub(super) ports: &'a [PortSpec],
    /// Whether it says how much memory it reserves.
    pub(super) memory: bool,
    /// Whether its containers run to completion.
    pub(super) job: bool,
}

/// Takes `replicas` and `scale`.
pub(super) fn decode(table: &mut Table<'_>, unit: &Around<'_>) -> Replicas {
    let count = table.take("replicas");
    let scale = table.take("scale");
    if let (Some(count), Some(_)) = (&count, &scale) {
        let help = "keep `scale` and write the count that it starts with as scale.min";
        count.key_problem("`replicas` and `scale` exclude each other", Some(help.to_owned()));
    }
    if let (Some(scale), true) = (&scale, unit.job) {
        let help = "write replicas = 2 for two at a time, or leave `restart.when` out";
        scale.key_problem("a job has a fixed count and no `scale`", Some(help.to_owned()));
    }
    // A fixed port has room for one process on a server, unless that process gets a socket that others share.
    let single = unit.ports.iter().find(|port| port.fixed.is_some() && !port.inherit);
    let most = if single.is_some() { 1 } else { MAX_REPLICAS };
    let mut replicas = Replicas { min: 0, max: most, initial: 1, scaling: None };
    let mut place = None;
    if let Some(count) = count {
        replicas.initial = count.number(0..=i128::from(MAX_REPLICAS)).unwrap_or(1);
        place = Some((count, replicas.initial));
    }
    if let Some(scale) = scale {
        decode_scale(scale.clone(), &mut replicas, unit);
        place = Some((scale, replicas.max));
    }
    if let (Some((item, wanted)), Some(port)) = (place, single)
        && wanted > 1
    {
        let fixed = port.fixed.unwrap_or_default();
        let help = format!("use a leased port ({}), or set inherit = true for a shared socket", "${PORT}");
        item.key_problem(format!("{wanted} containers cannot all have the fixed port {fixed}"), Some(help));
    }
    replicas
}

fn decode_scale(item: Item<'_>, replicas: &mut Replicas, unit: &Around<'_>) {
    let Some(mut table) = item.clone().table(SCALE) else {
        return;
    };
    let bounds = || 0..=i128::from(MAX_REPLICAS);
    let least = table.take("min");
    let min = least.as_ref().map_or(Some(1), |min| min.number(bounds()));
    let max = table.require("max", "write scale = { min = 2, max = 10 }").and_then(|max| max.number(bounds()));
    replicas.min = min.unwrap_or(0);
    replicas.max = max.unwrap_or(replicas.min.max(1));
    replicas.initial = replicas.min;
    let well = min.zip(max).is_some_and(|(min, max)| min <= max);
    if let (Some((min, max)), false) = (min.zip(max), well) {
        let message = format!("min ({min}) is above max ({max})");
        least.as_ref().unwrap_or(&item).problem(message, Some("write the smaller number as min".to_owned()));
    }

    let mut targets = BTreeMap::new();
    let custom = table.take("custom");
    let mut aims = custom.is_some();
    for metric in METRICS {
        if let Some(target) = table.take(metric) {
            aims = true;
            targets.extend(decode_target(&target, metric, unit).map(|value| (metric.to_owned(), value)));
        }
    }
    targets.extend(custom.map(decode_custom).unwrap_or_default());
    let (up, down) = (table.take("up"), table.take("down"));
    for item in [&up, &down].into_iter().flatten().filter(|_| !aims) {
        let help = "add a target, for instance cpu = 0.6; a schedule and commands act at once";
        item.warning(format!("`{}` is not used without a target", item.name), Some(help.to_owned()));
    }
    let up = decode_damping(up, Damping::default());
    let down = decode_damping(down, Damping { stabilize: Duration::from_secs(60), ..Damping::default() });
    // Bounds that are wrong themselves are no measure for others.
    let within = if well { (replicas.min, replicas.max) } else { (0, MAX_REPLICAS) };
    let schedule = decode_schedule(table.take("schedule"), within);
    let scrape = table.take("metrics").and_then(|item| decode_scrape(item, unit.ports));
    table.finish();

    let routed = unit.ports.iter().any(|port| port.service.is_some());
    if let (Some(least), Some(0), true, true, false) = (&least, min, aims, schedule.is_empty(), routed) {
        let help = "add a service port, whose connections do, or a schedule; or write min = 1";
        least.warning("nothing wakes it from zero", Some(help.to_owned()));
    }
    if !targets.is_empty() || !schedule.is_empty() || scrape.is_some() {
        replicas.scaling = Some(Scaling { targets, up, down, schedule, scrape });
    }
}

fn decode_target(item: &Item<'_>, metric: &str, unit: &Around<'_>) -> Option<f64> {
    let target = item.positive()?;
    if metric == "memory" && !unit.memory {
        let help = "add resources = { memory = \"64MiB\" }";
        item.key_problem("the target is a share of resources.memory, which is missing", Some(help.to_owned()));
    }
    if matches!(metric, "cpu" | "memory") && target > PERCENT {
        let help = "write 0.6 for 60 percent of what is reserved";
        item.warning(format!("`{metric}` is a share, and this is many times what is reserved"), Some(help.to_owned()));
    }
    Some(target)
}

fn decode_custom(item: Item<'_>) -> BTreeMap<String, f64> {
    let mut targets = BTreeMap::new();
    let items = item.table(CUSTOM).map(|mut table| table.drain()).unwrap_or_default();
    for (at, item) in items.into_iter().enumerate() {
        if at == MAX_CUSTOM {
            item.key_problem(format!("at most {MAX_CUSTOM} entries can stand here"), None);
            break;
        }
        if METRICS.contains(&item.name) {
            let help = format!("write {} = … beside `custom`", item.name);
            item.key_problem(format!("`{}` is not a metric of the worker's own", item.name), Some(help));
        } else if !is_metric(item.name) {
            let help = "use letters, digits, underscores and colons, and no digit first";
            item.key_problem(format!("`{}` is no name of a metric", shown(item.name)), Some(help.to_owned()));
        } else {
            targets.extend(item.positive().map(|target| (item.name.to_owned(), target)));
        }
    }
    targets
}

/// Names as Prometheus has them.
fn is_metric(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    let first = text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    first && text.len() <= MAX_METRIC && text.bytes().all(allowed)
}

fn decode_damping(item: Option<Item<'_>>, mut damping: Damping) -> Damping {
    let Some(mut table) = item.and_then(|item| item.table(DAMPING)) else {
        return damping;
    };
    if let Some(item) = table.take("stabilize")
        && let Some(stabilize) = item.duration(Duration::ZERO)
    {
        if stabilize > LONGEST_STABILIZE {
            item.problem("must be at most 1h", None);
        }
        damping.stabilize = stabilize;
    }
    let step = table.take("step").and_then(|item| item.number(0..=i128::from(MAX_REPLICAS)));
    damping.step = step.unwrap_or(damping.step);
    let cooldown = table.take("cooldown").and_then(|item| item.duration(Duration::ZERO));
    damping.cooldown = cooldown.unwrap_or(damping.cooldown);
    table.finish();
    damping
}

fn decode_schedule(item: Option<Item<'_>>, within: (u32, u32)) -> Vec<Scheduled> {
    let mut schedule = Vec::new();
    for (at, item) in item.and_then(|item| item.items(SCHEDULE)).unwrap_or_default().into_iter().enumerate() {
        if at == MAX_SCHEDULE {
            item.problem(format!("at most {MAX_SCHEDULE} entries can stand here"), None);
            break;
        }
        schedule.extend(item.table(SCHEDULE).and_then(|table| decode_scheduled(table, within)));
    }
    schedule
}

fn decode_scheduled(mut table: Table<'_>, within: (u32, u32)) -> Option<Scheduled> {
    let cron = table.require("cron", SCHEDULE).and_then(|item| cron::decode(&item));
    let (least, most) = (table.take("min"), table.take("max"));
    let min = decode_bound(least.as_ref(), within.0, within);
    let max = decode_bound(most.as_ref(), within.1, within);
    table.finish();
    if let (Some(min), Some(max), Some(item)) = (min, max, least.or(most))
        && min > max
    {
        let help = "write the smaller number as min";
        item.problem(format!("min ({min}) is above max ({max})"), Some(help.to_owned()));
    }
    Some(Scheduled { cron: cron?, min: min?, max: max? })
}

fn decode_bound(item: Option<&Item<'_>>, default: u32, (least, most): (u32, u32)) -> Option<u32> {
    let Some(item) = item else {
        return Some(default);
    };
    let bound = item.number(0..=i128::from(MAX_REPLICAS))?;
    if !(least..=most).contains(&bound) {
        let help = "widen scale.min and scale.max: they hold at any time";
        item.problem(format!("must be from {least} to {most}, the bounds of `scale`"), Some(help.to_owned()));
        return None;
    }
    Some(bound)
}

fn decode_scrape(item: Item<'_>, ports: &[PortSpec]) -> Option<Scrape> {
    let place = item.clone();
    let mut table = item.table(SCRAPE)?;
    let path = table.require("http", SCRAPE).and_then(|item| network::decode_path(&item));
    let port = table.take("port").and_then(|item| network::decode_port_name(&item, ports));
    table.finish();
    if ports.is_empty() {
        let help = "add ports.http = {}";
        place.key_problem("the metrics need a port, and the Unit has none", Some(help.to_owned()));
    }
    Some(Scrape { path: path?, port })
}
