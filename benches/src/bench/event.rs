//! `event`: what one death costs among many containers, and what is kept of each.
//!
//! `bench-event` makes a state of so many ready containers and lets them die one by one; each size is a process of its
//! own, and sizes that are compared take turns. Nothing runs and nothing is stored: the figures are those of state and
//! planner alone. Memory is what the whole process has in use, what its allocator keeps and the servers included.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::Setup;
use crate::drivers;
use crate::report::{Report, median, quantile};

/// Deaths in each round and size.
const DEATHS: usize = 5000;

/// Units, containers and servers.
#[derive(Debug, Clone, Copy)]
struct Shape {
    units: usize,
    containers: usize,
    servers: usize,
}

const SMALL: Shape = Shape { units: 50, containers: 10_000, servers: 1_000 };
const LARGE: Shape = Shape { units: 50, containers: 100_000, servers: 10_000 };
const ONE_SMALL: Shape = Shape { units: 1, ..SMALL };
const ONE_LARGE: Shape = Shape { units: 1, ..LARGE };
/// Enough that what the process has by itself no longer counts.
const FULL: Shape = Shape { units: 100, containers: 200_000, servers: 1_000 };

/// What `bench-event` prints.
#[derive(Debug, Deserialize)]
struct Outcome {
    containers: u64,
    bytes: u64,
    micros: Vec<f64>,
}

pub(crate) fn run(setup: &Setup) -> Result<Report> {
    let mut report = Report::new("event");
    let rounds = setup.rounds(5);
    let (growth, p99) = compare(setup, &mut report, "", SMALL, LARGE, rounds)?;
    report.figure("p50_growth", growth, "half of the deaths among 100,000, over the same among 10,000");
    report.figure("p99_ms", p99, "all but one in a hundred of the turns of a death among 100,000 containers");
    let (growth, p99) = compare(setup, &mut report, "one_unit_", ONE_SMALL, ONE_LARGE, rounds)?;
    report.figure("one_unit_p50_growth", growth, "the same where all containers are of one Unit");
    report.figure("one_unit_p99_ms", p99, "the same where all containers are of one Unit");
    let full = measure(setup, FULL, 0)?;
    let bytes = full.bytes as f64 / full.containers as f64;
    report.figure("bytes_per_container", bytes, "memory for each of 200,000 ready containers, everything included");
    report.compared("p50_growth", "the same turn among 10,000 containers on 1,000 servers, in turns");
    report.note(format!(
        "{DEATHS} deaths in each of {rounds} rounds; growth is the median of rounds, p99 of all of their deaths"
    ));
    Ok(report)
}

/// How much longer a turn takes in the large shape, and the p99 there in milliseconds.
fn compare(
    setup: &Setup,
    report: &mut Report,
    prefix: &str,
    small: Shape,
    large: Shape,
    rounds: u32,
) -> Result<(f64, f64)> {
    let (mut small_us, mut large_us, mut growth, mut all) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let before = median(&measure(setup, small, DEATHS)?.micros);
        let after = measure(setup, large, DEATHS)?.micros;
        growth.push(median(&after) / before);
        small_us.push(before);
        large_us.push(median(&after));
        all.extend(after);
    }
    report.figure(
        format!("{prefix}p50_us_small"),
        median(&small_us),
        "a turn of a death among 10,000, in microseconds",
    );
    report.figure(format!("{prefix}p50_us"), median(&large_us), "a turn of a death among 100,000, in microseconds");
    Ok((median(&growth), quantile(&all, 0.99) / 1000.0))
}

fn measure(setup: &Setup, shape: Shape, deaths: usize) -> Result<Outcome> {
    let mut command = Command::new(setup.program("bench-event"));
    command.args([shape.units, shape.containers, shape.servers, deaths].map(|number| number.to_string()));
    let output = drivers::run(&mut command)?;
    serde_json::from_slice(&output.stdout).context("bench-event printed something else")
}
