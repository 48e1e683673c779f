//! `scale`: the two public challenges, on simulated servers: a million containers on 5,000 servers, two million on 6,100.
//!
//! A whole Manager with its real store, from the apply until every container is placed, its start has been called and
//! answered, it was told to be ready, and all that is durable. Nothing runs: what is compared is scheduling, not starting. Each size is a process
//! of its own. Memory is what that process has in use, with all that its allocator and its store keep.

use anyhow::Result;
use serde::Deserialize;

use crate::Setup;
use crate::managed;
use crate::report::Report;

/// Containers of each Unit.
const EACH: usize = 1000;

/// What `bench-manager scale` prints.
#[derive(Debug, Deserialize)]
struct Outcome {
    containers: f64,
    seconds: f64,
    placed_seconds: f64,
    bytes: f64,
    /// The most that was in use, files in memory included.
    peak_bytes: f64,
    /// Seconds that each tenth took.
    tenths: Vec<f64>,
    closing_seconds: f64,
    snapshot_bytes: f64,
    store_bytes: f64,
}

impl Outcome {
    /// The time of a placement in the last tenth, over that in the first.
    fn flatness(&self) -> f64 {
        self.tenths.last().zip(self.tenths.first()).map_or(f64::NAN, |(last, first)| last / first)
    }
}

pub(crate) fn run(setup: &Setup) -> Result<Report> {
    let mut report = Report::new("scale");
    let one: Outcome = managed::run(setup, "scale", &[5_000, 1_000, EACH])?;
    report.figure("c1m_s", one.seconds, "seconds for 1,000,000 containers on 5,000 servers, all durable");
    report.figure("c1m_placed_s", one.placed_seconds, "seconds until all of them were placed durably");
    let two: Outcome = managed::run(setup, "scale", &[6_100, 2_000, EACH])?;
    report.figure("c2m_s", two.seconds, "seconds for 2,000,000 containers on 6,100 servers, all durable");
    report.figure("c2m_placed_s", two.placed_seconds, "seconds until all of them were placed durably");
    report.figure("flatness", two.flatness(), "time per placement in the last tenth of 2,000,000, over the first");
    report.figure(
        "bytes_per_container",
        two.bytes / two.containers,
        "memory for each of 2,000,000, everything included",
    );
    report.figure(
        "peak_bytes_per_container",
        two.peak_bytes / two.containers,
        "the same at its peak, a snapshot included",
    );
    report.figure("closing_s", two.closing_seconds, "seconds for ending the Manager, with a snapshot of 2,000,000");
    report.figure("snapshot_mib", two.snapshot_bytes / (1 << 20) as f64, "size of that snapshot");
    report.figure("store_mib", two.store_bytes / (1 << 20) as f64, "size of the store's file after it");
    report.compared("c1m_s", "Nomad's C1M of 2016: about 267 s with five servers, where containers were started");
    report.compared("c2m_s", "Nomad's C2M of 2020: 1,334 s with three servers, where containers were started");
    report.note("scheduling is compared, not starting: the servers only acknowledge, and usage is not read");
    Ok(report)
}
