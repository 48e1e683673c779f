//! `autoscale`: a Unit that follows its load.
//!
//! The worker is the `load` example: each answer costs 2 ms of CPU, so what a container can take is known. A container
//! reserves a tenth of a core and the target is 0.6 of that, which keeps the whole far from what two cores can do; usage is
//! read every second. An open-loop load goes through the service port: in each round three square waves, then a ramp up and
//! down. What it asks for at any time is known beforehand ([`Ideal`]): rate × CPU of one answer ÷ target, rounded up.
//!
//! On a virtual machine the time for which the hypervisor ran something else counts as CPU time of whoever was running: one
//! reading then shows many times the load. `up.step = 1` is what a manifest says against that: one reading brings one
//! container.
//!
//! - *react*: from the moment at which the rate steps up until the journal shows the first extra container started.
//! - *overshoot*: the most by which the count exceeds the ideal one. Since the manifest says that a count stays for a while
//!   after the load has gone (`stabilize`), the ideal one is the highest of that while and of the two readings around it.
//! - *actions*: changes of the count by the policy, per wave, next to the changes of the ideal one.
//! - *failed*: requests without a good answer, all rounds together.

mod ideal;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cocktail_benches::wave::{self, Outcome, Phase};

use self::ideal::{Change, Ideal, Wave};
use crate::Setup;
use crate::drivers::{self, Cocktail, Event};
use crate::proc::{self, Owned};
use crate::report::{Report, median};

const WORKER: &str = "load";
const WORK_US: u32 = 2_000;
const UNIT: &str = "bench/bench/web";
/// CPU that a container reserves, in cores, and the part of it that is wanted.
const RESERVED: f64 = 0.1;
const TARGET: f64 = 0.6;
const MOST: u32 = 6;
const INTERVAL: Duration = Duration::from_secs(1);
const STABILIZE: Duration = Duration::from_secs(5);
/// Requests a second: low for one container, high for three, and for five at the top of the ramp.
const LOW: f64 = 15.0;
const HIGH: f64 = 75.0;
const TOP: f64 = 135.0;
const WAVES: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run(setup: &Setup) -> Result<Report> {
    let mut report = Report::new("autoscale");
    let Some(program) = &setup.cocktail else { return Ok(report) };
    let rounds = setup.rounds(3);
    let cost = cost_of_one(setup)?;
    let mut all = Tally::default();
    for round in 0..rounds {
        all.add(once(setup, program, cost, round).with_context(|| format!("round {round}"))?);
    }
    let worst = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    report.figure(
        "react_p50_ms",
        median(&all.react_ms),
        "from a step of the load until the first extra container is started",
    );
    report.figure("react_max_ms", worst(&all.react_ms), "the longest of them");
    report.figure("overshoot", worst(&all.overshoot), "containers above the ideal count, the worst wave");
    report.figure("actions", median(&all.actions), "changes of the count in a square wave, the median");
    report.figure("ideal_actions", median(&all.ideal_actions), "changes of the ideal count in a square wave");
    report.figure("ramp_actions", median(&all.ramp_actions), "changes of the count in a ramp, the median");
    report.figure("ramp_ideal_actions", median(&all.ramp_ideal_actions), "changes of the ideal count in a ramp");
    report.figure("extra_actions", all.extra_actions, "changes beyond the ideal ones, the worst wave or ramp");
    report.figure("failed", all.failed, "requests without a good answer");
    report.figure("requests", all.sent, "requests sent");
    report.figure("cpu_us", cost * 1e6, "CPU of one answer, measured before, in microseconds");
    report.note(format!(
        "{rounds} rounds of {WAVES} square waves ({LOW} to {HIGH} requests a second) and a ramp ({LOW} to {TOP} and back); \
         scale = {{ min = 1, max = {MOST}, cpu = {TARGET}, up = {{ step = 1 }} }} of {RESERVED} cores, down after {} s, usage every {} s",
        STABILIZE.as_secs(),
        INTERVAL.as_secs()
    ));
    for failure in all.failures.iter().take(5) {
        report.note(format!("failed: {failure}"));
    }
    for because in all.too_many.iter().take(5) {
        report.note(because.clone());
    }
    Ok(report)
}

#[derive(Default)]
struct Tally {
    react_ms: Vec<f64>,
    overshoot: Vec<f64>,
    actions: Vec<f64>,
    ideal_actions: Vec<f64>,
    ramp_actions: Vec<f64>,
    ramp_ideal_actions: Vec<f64>,
    extra_actions: f64,
    failed: f64,
    sent: f64,
    failures: Vec<String>,
    /// Why there were more than one above the ideal count.
    too_many: Vec<String>,
}

impl Tally {
    fn add(&mut self, round: Round) {
        for (number, wave) in round.waves.iter().enumerate() {
            let ideal = &round.ideal;
            let (actions, ideal_actions) = (wave.actions(&round.changes), ideal.actions(wave));
            let is_ramp = number == WAVES as usize;
            let (ours, best) = match is_ramp {
                true => (&mut self.ramp_actions, &mut self.ramp_ideal_actions),
                false => (&mut self.actions, &mut self.ideal_actions),
            };
            ours.push(f64::from(actions));
            best.push(f64::from(ideal_actions));
            self.extra_actions = self.extra_actions.max(f64::from(actions) - f64::from(ideal_actions));
            self.overshoot.push(f64::from(ideal.overshoot(wave, &round.changes)));
            if !is_ramp {
                let first = round.started.iter().find(|started| **started >= wave.begin && **started < wave.end);
                // A wave that brought no container at all counts with its whole length.
                let react = first.unwrap_or(&wave.end).saturating_sub(wave.begin);
                self.react_ms.push(react.as_secs_f64() * 1000.0);
            }
        }
        let above = round.changes.iter().filter(|change| round.ideal.above(change.at, change.count) > 1);
        self.too_many.extend(above.map(|change| format!("{} containers: {}", change.count, change.because)));
        self.failed += round.outcome.failures.len() as f64;
        self.sent += round.outcome.sent as f64;
        self.failures.extend(round.outcome.failures);
    }
}

/// What one round showed; times count from its begin.
struct Round {
    waves: Vec<Wave>,
    ideal: Ideal,
    changes: Vec<Change>,
    started: Vec<Duration>,
    outcome: Outcome,
}

/// The load of a round, and its waves: each from its rise until the next one's.
fn plan(round: u32) -> (Vec<Phase>, Vec<Wave>) {
    let mut phases = Vec::new();
    let mut waves: Vec<Wave> = Vec::new();
    let mut now = Duration::ZERO;
    let mut add = |phase: Phase| {
        now += phase.lasts;
        phases.push(phase);
        now
    };
    let mut rise = add(Phase::steady(LOW, Duration::from_secs(6)));
    for wave in 0..WAVES {
        add(Phase::steady(HIGH, Duration::from_secs(10)));
        // Steps come at all phases of the reading's interval.
        let part = (f64::from(round * WAVES + wave + 1) * 0.618_034).fract();
        let end = add(Phase::steady(LOW, Duration::from_secs(10) + INTERVAL.mul_f64(part)));
        waves.push(Wave { begin: rise, end });
        rise = end;
    }
    add(Phase { from: LOW, to: TOP, lasts: Duration::from_secs(24) });
    add(Phase { from: TOP, to: LOW, lasts: Duration::from_secs(24) });
    let end = add(Phase::steady(LOW, Duration::from_secs(10)));
    waves.push(Wave { begin: rise, end });
    (phases, waves)
}

fn once(setup: &Setup, program: &Path, cost: f64, round: u32) -> Result<Round> {
    let marker = proc::unique_sleep();
    let mut ours = Cocktail::install(setup, program, (WORKER, &marker))?;
    let port = drivers::free_port()?;
    let file = ours.manifest(&format!(
        "service = \"bench\"\n[manager]\nusage = \"{}s\"\n[maps.bench.units.web]\n\
         command = [\"{}\", \"{marker}\"]\nenv = {{ WORK_US = \"{WORK_US}\" }}\nports.http = {{ service = {port} }}\n\
         resources = {{ cpu = {RESERVED} }}\nready = {{ http = \"/healthy\", every = \"1s\" }}\n\
         scale = {{ min = 1, max = {MOST}, cpu = {TARGET}, up = {{ step = 1 }}, down = {{ stabilize = \"{}s\" }} }}\n",
        INTERVAL.as_secs(),
        setup.program(WORKER).display(),
        STABILIZE.as_secs()
    ))?;
    ours.serve()?;
    ours.apply_and_wait(&file)?;
    let events = ours.follow()?;
    let (phases, waves) = plan(round);
    let begin = Instant::now();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let outcome = wave::run(address, &phases, begin)?;
    let (mut changes, mut started) = (Vec::new(), Vec::new());
    for event in events.drain()? {
        let at = event.at.saturating_duration_since(begin);
        match event.kind.as_str() {
            "autoscaled" if event.object == UNIT => {
                changes.push(Change { at, count: count(&event)?, because: event.reason.clone() });
            }
            "started" => started.push(at),
            _ => {}
        }
    }
    drop(events);
    ours.down()?;
    let ideal = Ideal { phases, cost, target: RESERVED * TARGET, most: MOST, held: STABILIZE + 2 * INTERVAL };
    Ok(Round { waves, ideal, changes, started, outcome })
}

fn count(event: &Event) -> Result<u32> {
    let count = event.detail["desired"].as_u64().with_context(|| format!("no count in {}", event.detail))?;
    Ok(u32::try_from(count)?)
}

/// Seconds of CPU that one answer costs, of a worker that was started by hand.
fn cost_of_one(setup: &Setup) -> Result<f64> {
    let port = drivers::free_port()?;
    let mut command = Command::new(setup.program(WORKER));
    let child = command.env("PORT", port.to_string()).env("WORK_US", WORK_US.to_string()).spawn();
    let worker = Owned(child.context("cannot start the worker")?);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    proc::wait_for("the worker", PATIENCE, || std::net::TcpStream::connect(address).is_ok())?;
    let before = proc::cpu_time(&[worker.pid()]);
    let outcome = wave::run(address, &[Phase::steady(100.0, Duration::from_secs(5))], Instant::now())?;
    ensure!(outcome.failures.is_empty(), "a worker by itself fails: {:?}", outcome.failures.first());
    // The last of it may not be counted yet.
    thread::sleep(Duration::from_millis(50));
    let used = proc::cpu_time(&[worker.pid()]).saturating_sub(before);
    Ok(used.as_secs_f64() / outcome.sent as f64)
}
