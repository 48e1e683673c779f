//! `sim`: 500 seeds of the simulated world, and the bugs that are planted in it.
//!
//! A seed is a Manager with its provider, servers, network, store and user through two simulated hours of faults, and a
//! quarter of an hour in which everything comes to rest. All threads that the machine has take part.

use std::time::Instant;

use anyhow::{Context as _, Result};
use cocktail_testkit::sim::{Options, Planted, catch_all, run_many};

use crate::Setup;
use crate::proc;
use crate::report::{Report, median};

const SEEDS: u64 = 500;
/// Seeds within which a planted bug has to be caught.
const WITHIN: u64 = 200;

pub(crate) fn run(_setup: &Setup) -> Result<Report> {
    let mut report = Report::new("sim");
    let threads = std::thread::available_parallelism().context("cannot count processors")?.get();
    let load = proc::load()?;
    let options = Options::default();

    let begin = Instant::now();
    let outcomes = run_many(1, SEEDS, threads, &options, &|_| {});
    report.figure("seeds_500_s", begin.elapsed().as_secs_f64(), format!("{SEEDS} seeds on {threads} threads"));
    let events: Vec<f64> = outcomes.iter().map(|outcome| outcome.events as f64).collect();
    report.figure("events_per_seed", median(&events), "events of the world and of the journal, the seed in the middle");
    let fewest = outcomes.iter().map(|outcome| outcome.peak).min().unwrap_or_default();
    report.figure("servers", fewest as f64, "most servers at a time, in the seed with the fewest");
    let hours = (options.faulty + options.rest).as_secs_f64() / 3600.0;
    report.figure("hours", hours, "simulated time of a seed");
    let breaches: Vec<u64> =
        outcomes.iter().filter(|outcome| outcome.breach.is_some()).map(|outcome| outcome.seed).collect();
    report.figure("breaches", breaches.len() as f64, format!("seeds in which a promise was broken {breaches:?}"));

    let caught = catch_all(WITHIN, threads, &options);
    let count = caught.iter().filter(|(_, outcome)| outcome.is_some()).count();
    let meaning = format!("of {} planted bugs, within {WITHIN} seeds each", Planted::ALL.len());
    report.figure("planted_caught", count as f64, meaning);
    let last = caught.iter().filter_map(|(_, outcome)| Some(outcome.as_ref()?.seed)).max().unwrap_or_default();
    report.figure("planted_last_seed", last as f64, "the seed that caught the one that hid best");
    report.note(format!("load average when it began: {load}"));
    Ok(report)
}
