//! `update`: a rolling update of 50 workers.
//!
//! Ours: the workers, with a port and an HTTP readiness probe, run and nothing else happens; the clock starts with
//! `cocktail apply` of a manifest in which an argument differs, start of that program included, and stops when the journal
//! says that the rollout is completed. Bare: `bench-replace` does the same by hand, five at a time, with the same looks at
//! readiness. A round is one of each; every round has a fresh data dir.
//!
//! The bar is for the `load` example with 20 ms of computing before it listens, which is a quick start of a service. The
//! same with `bench-worker`, which listens within a millisecond, shows the bare cost of a step: five synced commits, of
//! which three have to be waited for.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::Setup;
use crate::drivers::{self, Cocktail};
use crate::proc;
use crate::report::{Report, median, ratios};

const COUNT: usize = 50;
const SURGE: usize = 5;
/// The default of a readiness probe.
const EVERY_MS: u64 = 200;
/// What the start leaves to be done is done by then.
const SETTLE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(120);

/// What is replaced.
struct Worker {
    /// What the keys of its figures end in.
    key: &'static str,
    program: &'static str,
    /// Milliseconds for which it computes before it listens.
    start_ms: u32,
    meaning: &'static str,
}

const WORKERS: [Worker; 2] = [
    Worker { key: "", program: "load", start_ms: 20, meaning: "a worker that computes for 20 ms before it listens" },
    Worker { key: "_instant", program: "bench-worker", start_ms: 0, meaning: "a worker that listens at once" },
];

pub(crate) fn run(setup: &Setup) -> Result<Report> {
    let mut report = Report::new("update");
    let rounds = setup.rounds(5);
    for worker in WORKERS {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            if let Some(program) = &setup.cocktail {
                ours.push(cocktail(setup, program, &worker).context("cocktail")?);
            }
            bare.push(by_hand(setup, &worker)?);
        }
        let Worker { key, meaning, .. } = worker;
        let per_second = |seconds: &[f64]| COUNT as f64 / median(seconds);
        report.figure(
            format!("bare_per_s{key}"),
            per_second(&bare),
            format!("replacements a second by hand, {meaning}"),
        );
        if !ours.is_empty() {
            report.figure(
                format!("per_s{key}"),
                per_second(&ours),
                format!("replacements a second, from apply until the rollout is completed, {meaning}"),
            );
            let share = median(&ratios(&bare, &ours));
            report.figure(format!("vs_bare{key}"), share, format!("our rate as a share of that by hand, {meaning}"));
        }
        report.compared(
            format!("vs_bare{key}"),
            format!(
                "a Rust program with {SURGE} threads: spawn, the same looks at readiness, TERM to an old one, wait"
            ),
        );
    }
    report.note(format!(
        "medians of {rounds} rounds, ratios within each; {COUNT} workers, surge {SURGE}, \
         ready = {{ http = \"/\", every = \"{EVERY_MS}ms\" }}, monitor = \"0s\""
    ));
    Ok(report)
}

fn cocktail(setup: &Setup, program: &Path, worker: &Worker) -> Result<f64> {
    // The worker does not look at its arguments: one tells it from others, one from its revision.
    let marker = proc::unique_sleep();
    let mut ours = Cocktail::install(setup, program, (worker.program, &marker))?;
    let path = setup.program(worker.program);
    let manifest = |revision: u32| {
        format!(
            "service = \"bench\"\n[maps.bench.units.web]\ncommand = [\"{}\", \"{marker}\", \"{revision}\"]\n\
             env = {{ START_MS = \"{}\", WORK_US = \"0\" }}\nreplicas = {COUNT}\nports.http = {{}}\n\
             ready = {{ http = \"/\", every = \"{EVERY_MS}ms\" }}\nupdate = {{ surge = {SURGE}, monitor = \"0s\" }}\n",
            path.display(),
            worker.start_ms
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

fn by_hand(setup: &Setup, worker: &Worker) -> Result<f64> {
    let mut command = Command::new(setup.program("bench-replace"));
    command.args([COUNT.to_string(), SURGE.to_string(), EVERY_MS.to_string()]).arg(setup.program(worker.program));
    command.env("START_MS", worker.start_ms.to_string()).env("WORK_US", "0");
    let output = drivers::run(&mut command)?;
    String::from_utf8_lossy(&output.stdout).trim().parse().context("bench-replace printed no number")
}
