//! `steady`: what a Manager of 100,000 containers on 10,000 servers uses while little happens, and how fast it is then.
//!
//! A whole Manager with its real store and servers that only acknowledge. Each container is read every 10 s; each second
//! 50 of them die and 50 counts change by one. The reaction to a death is measured until the call that starts the
//! container anew arrives at its server, the one to a changed count until the command is answered: both come after
//! the decision is durable.

use anyhow::Result;
use serde::Deserialize;

use crate::Setup;
use crate::managed;
use crate::report::{Report, quantile};

const SERVERS: usize = 10_000;
const UNITS: usize = 100;
const EACH: usize = 1000;
const SECONDS: usize = 60;
/// Deaths a second, and as many changed counts.
const EACH_SECOND: usize = 50;

/// What `bench-manager steady` prints.
#[derive(Debug, Deserialize)]
struct Outcome {
    cores: f64,
    restarted_ms: Vec<f64>,
    scaled_ms: Vec<f64>,
}

pub(crate) fn run(setup: &Setup) -> Result<Report> {
    let mut report = Report::new("steady");
    let outcome: Outcome = managed::run(setup, "steady", &[SERVERS, UNITS, EACH, SECONDS, EACH_SECOND])?;
    let all: Vec<f64> = outcome.restarted_ms.iter().chain(&outcome.scaled_ms).copied().collect();
    report.figure("cores", outcome.cores, "processor time over time, the simulated servers included");
    report.figure("p50_ms", quantile(&all, 0.5), "half of the reactions, each until its decision was durable");
    report.figure("p99_ms", quantile(&all, 0.99), "all but one in a hundred of them");
    report.figure("death_p99_ms", quantile(&outcome.restarted_ms, 0.99), "the same for deaths alone");
    report.figure("scale_p99_ms", quantile(&outcome.scaled_ms, 0.99), "the same for changed counts alone");
    report.note(format!("{SECONDS} s, with readings and listings as often as by default"));
    Ok(report)
}
