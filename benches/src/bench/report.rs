//! What a benchmark found: figures with their meanings, bars and comparisons.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// The bars that the project set itself: the figure, whether it must be at least or at most the number, the number.
const BARS: [(&str, &str, Bar); 54] = [
    ("spawn", "vs_bare", Bar::AtLeast(0.5)),
    ("spawn", "vs_supervisord", Bar::AtLeast(6.0)),
    ("respawn", "p50_ms", Bar::AtMost(5.0)),
    ("respawn", "p99_ms", Bar::AtMost(25.0)),
    ("forward", "worker_alone_rps", Bar::AtLeast(80_000.0)),
    ("forward", "vs_haproxy", Bar::AtLeast(0.9)),
    ("forward", "cpu_vs_haproxy", Bar::AtMost(1.1)),
    ("forward", "p99_vs_haproxy", Bar::AtMost(1.3)),
    ("rss", "mib", Bar::AtMost(24.0)),
    ("rss", "idle_cpu_percent", Bar::AtMost(0.5)),
    ("update", "vs_bare", Bar::AtLeast(0.7)),
    ("autoscale", "react_p50_ms", Bar::AtMost(1500.0)),
    ("autoscale", "overshoot", Bar::AtMost(1.0)),
    ("autoscale", "extra_actions", Bar::AtMost(2.0)),
    ("autoscale", "failed", Bar::AtMost(0.0)),
    ("zero", "vs_cold", Bar::AtMost(1.2)),
    ("warm", "p50_ms", Bar::AtMost(2.0)),
    ("warm", "p99_ms", Bar::AtMost(10.0)),
    ("extend", "pressure", Bar::AtMost(1.5)),
    ("extend", "failed", Bar::AtMost(0.0)),
    ("embed", "crates", Bar::AtMost(150.0)),
    ("embed", "seconds", Bar::AtMost(150.0)),
    ("place", "planner_per_s", Bar::AtLeast(100_000.0)),
    ("place", "durable_per_s", Bar::AtLeast(20_000.0)),
    ("event", "p99_ms", Bar::AtMost(1.0)),
    ("event", "p50_growth", Bar::AtMost(1.5)),
    ("event", "bytes_per_container", Bar::AtMost(1536.0)),
    ("sim", "seeds_500_s", Bar::AtMost(300.0)),
    ("sim", "events_per_seed", Bar::AtLeast(20_000.0)),
    ("sim", "servers", Bar::AtLeast(20.0)),
    ("sim", "hours", Bar::AtLeast(2.0)),
    ("sim", "breaches", Bar::AtMost(0.0)),
    ("sim", "planted_caught", Bar::AtLeast(16.0)),
    ("scale", "c1m_s", Bar::AtMost(60.0)),
    ("scale", "c2m_s", Bar::AtMost(120.0)),
    ("scale", "bytes_per_container", Bar::AtMost(1536.0)),
    ("scale", "flatness", Bar::AtMost(1.3)),
    ("steady", "cores", Bar::AtMost(1.0)),
    ("steady", "p99_ms", Bar::AtMost(10.0)),
    ("agents", "cores", Bar::AtMost(1.0)),
    ("agents", "mib", Bar::AtMost(200.0)),
    ("agents", "back_s", Bar::AtMost(30.0)),
    ("agents", "restarted", Bar::AtMost(0.0)),
    ("remote", "vs_local_start", Bar::AtMost(1.5)),
    ("remote", "vs_local", Bar::AtLeast(0.8)),
    ("docker", "up_vs_bare", Bar::AtLeast(0.95)),
    ("docker", "up_vs_swarm", Bar::AtLeast(1.5)),
    ("docker", "recover_vs_bare", Bar::AtMost(1.15)),
    ("docker", "recover_vs_swarm", Bar::AtMost(0.6)),
    ("docker", "update_vs_swarm", Bar::AtLeast(1.3)),
    ("docker", "update_failed", Bar::AtMost(0.0)),
    ("docker", "down_vs_bare", Bar::AtLeast(0.95)),
    ("docker", "manager_cpu_percent", Bar::AtMost(2.0)),
    ("docker", "dockerd_cpu_percent", Bar::AtMost(2.0)),
];

#[derive(Debug, Clone, Copy)]
enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

impl Bar {
    fn verdict(self, value: f64) -> String {
        let (sign, bar, reached) = match self {
            Self::AtLeast(bar) => ("≥", bar, value >= bar),
            Self::AtMost(bar) => ("≤", bar, value <= bar),
        };
        format!("{sign} {bar} {}", if reached { "reached" } else { "MISSED" })
    }
}

/// The result of one benchmark.
#[derive(Debug)]
pub(crate) struct Report {
    bench: &'static str,
    figures: BTreeMap<String, f64>,
    meanings: BTreeMap<String, String>,
    compared_with: BTreeMap<String, String>,
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn new(bench: &'static str) -> Self {
        let (figures, meanings, compared_with) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { bench, figures, meanings, compared_with, notes: Vec::new() }
    }

    /// Records a figure, rounded to four digits, and what it says. The meaning is also written into the table.
    pub(crate) fn figure(&mut self, key: impl Into<String>, value: f64, meaning: impl Into<String>) {
        let key = key.into();
        self.figures.insert(key.clone(), four_digits(value));
        self.meanings.insert(key, meaning.into());
    }

    /// What the figure of that key was compared with.
    pub(crate) fn compared(&mut self, key: impl Into<String>, with: impl Into<String>) {
        self.compared_with.insert(key.into(), with.into());
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// The form in which results are kept.
    pub(crate) fn json(&self) -> Result<Value> {
        Ok(json!({
            "bench": self.bench,
            "at": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "machine": machine()?,
            "figures": self.figures,
            "compared_with": self.compared_with,
            "notes": self.notes,
        }))
    }

    /// The form for people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("\n{}\n", self.bench);
        for (key, value) in &self.figures {
            let bar = BARS.iter().find(|(bench, bar, _)| *bench == self.bench && bar == key);
            let verdict = bar.map_or_else(String::new, |(_, _, bar)| bar.verdict(*value));
            let meaning = self.meanings.get(key).map_or("", String::as_str);
            // Writing to a string cannot fail.
            writeln!(text, "  {key:<24} {value:>12}  {verdict:<16} {meaning}").ok();
        }
        for (key, with) in &self.compared_with {
            writeln!(text, "  {key} is compared with {with}").ok();
        }
        for note in &self.notes {
            writeln!(text, "  note: {note}").ok();
        }
        text
    }
}

/// The median; for an even number of values the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
    }
}

/// The least value that at least `share` of all values do not exceed.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Each value divided by the one in the same round.
pub(crate) fn ratios(above: &[f64], below: &[f64]) -> Vec<f64> {
    above.iter().zip(below).map(|(above, below)| above / below).collect()
}

fn four_digits(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = 3 - value.abs().log10().floor() as i32;
    // Above four digits whole numbers are precise enough.
    let scale = 10_f64.powi(digits.max(0));
    (value * scale).round() / scale
}

/// Cores, processor, memory and kernel: what figures depend on, and nothing that names the machine.
fn machine() -> Result<String> {
    let cores = std::thread::available_parallelism()?;
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let model = cpuinfo.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let meminfo = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let kib: u64 = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's release")?;
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    Ok(format!("{cores} cores, {model}, {} GiB, Linux {kernel}", kib.div_ceil(1024 * 1024)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quantiles_are_those_of_the_sorted_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&hundred, 0.5), 50.0);
        assert_eq!(quantile(&hundred, 0.99), 99.0);
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
    }

    #[test]
    fn figures_keep_four_digits_and_large_ones_all_before_the_point() {
        assert_eq!(four_digits(0.123_456), 0.1235);
        assert_eq!(four_digits(123_456.7), 123_457.0);
        assert_eq!(four_digits(0.0), 0.0);
    }

    #[test]
    fn the_file_has_the_promised_form_and_the_table_says_what_was_missed() {
        let mut report = Report::new("respawn");
        report.figure("p50_ms", 7.0, "half of the restarts");
        report.compared("supervisord_ms", "supervisord");
        report.note("a note");
        let json = report.json().unwrap();
        let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["at", "bench", "compared_with", "figures", "machine", "notes"]);
        assert_eq!(json["figures"]["p50_ms"], 7.0);
        assert!(report.table().contains("≤ 5 MISSED"), "{}", report.table());
    }
}
