//! `update`: a rolling update of 50 workers.
//!
//! Ours: 50 `bench-worker` with a port and an HTTP readiness probe run and nothing else happens; the clock starts with
//! `cocktail apply` of a manifest in which an argument differs, start of that program included, and stops when the journal
//! says that the rollout is completed. Bare: `bench-replace` does the same by hand, five at a time, with the same looks at
//! readiness. A round is one of each; every round has a fresh data dir.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::Setup;
use crate::drivers::{self, Cocktail};
use crate::proc;
use crate::report::{Report, median, ratios};

const WORKER: &str = "bench-worker";
const COUNT: usize = 50;
const SURGE: usize = 5;
/// The default of a readiness probe.
const EVERY_MS: u64 = 200;
/// What the start leaves to be done is done by then.
const SETTLE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run(setup: &Setup) -> Result<Report> {
    let mut report = Report::new("update");
    let rounds = setup.rounds(5);
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        if let Some(program) = &setup.cocktail {
            ours.push(cocktail(setup, program).context("cocktail")?);
        }
        bare.push(by_hand(setup)?);
    }
    let per_second = |seconds: &[f64]| COUNT as f64 / median(seconds);
    report.figure("bare_per_s", per_second(&bare), "replacements a second by hand");
    if !ours.is_empty() {
        report.figure("per_s", per_second(&ours), "replacements a second, from apply until the rollout is completed");
        report.figure("vs_bare", median(&ratios(&bare, &ours)), "our rate as a share of that by hand");
    }
    report.compared(
        "vs_bare",
        format!("a Rust program with {SURGE} threads: spawn, the same looks at readiness, TERM to an old one, wait"),
    );
    report.note(format!(
        "medians of {rounds} rounds, ratios within each; {COUNT} workers, surge {SURGE}, ready = {{ http = \"/\", every = \"{EVERY_MS}ms\" }}, monitor = \"0s\""
    ));
    Ok(report)
}

fn cocktail(setup: &Setup, program: &Path) -> Result<f64> {
    // The worker does not look at its arguments: one tells it from others, one from its revision.
    let marker = proc::unique_sleep();
    let mut ours = Cocktail::install(setup, program, (WORKER, &marker))?;
    let worker = setup.program(WORKER);
    let manifest = |revision: u32| {
        format!(
            "service = \"bench\"\n[maps.bench.units.web]\ncommand = [\"{}\", \"{marker}\", \"{revision}\"]\n\
             replicas = {COUNT}\nports.http = {{}}\nready = {{ http = \"/\", every = \"{EVERY_MS}ms\" }}\n\
             update = {{ surge = {SURGE}, monitor = \"0s\" }}\n",
            worker.display()
        )
    };
    let file = ours.manifest(&manifest(1))?;
    ours.serve()?;
    ours.apply_and_wait(&file)?;
    thread::sleep(SETTLE);
    let events = ours.follow()?;
    ours.manifest(&manifest(2))?;
    let begin = Instant::now();
    ours.apply(&file)?;
    let ended = ["rollout-finished", "rolling-back", "rollout-paused"];
    let end = events.wait(&ended, "bench/bench/web", PATIENCE)?;
    ensure!(end.kind == "rollout-finished", "the rollout did not end well: {}: {}", end.kind, end.reason);
    drop(events);
    ours.down()?;
    Ok((end.at - begin).as_secs_f64())
}

fn by_hand(setup: &Setup) -> Result<f64> {
    let mut command = Command::new(setup.program("bench-replace"));
    command.args([COUNT.to_string(), SURGE.to_string(), EVERY_MS.to_string()]);
    let output = drivers::run(command.arg(setup.program(WORKER)))?;
    String::from_utf8_lossy(&output.stdout).trim().parse().context("bench-replace printed no number")
}
