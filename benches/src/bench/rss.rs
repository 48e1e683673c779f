//! `rss`: what it costs to keep 300 idle workers.
//!
//! The proportional set size of all processes of ours (Manager, keeper; not the workers), started by `up -d` with default
//! settings, once they are quiet, and the time they use while nothing happens. Peers likewise.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::Setup;
use crate::drivers::{Cocktail, Pm2, Supervisord};
use crate::proc::{self, Census};
use crate::report::{Report, median};

const WORKERS: usize = 300;
const PATIENCE: Duration = Duration::from_secs(120);
const IDLE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Samples {
    mib: Vec<f64>,
    cpu: Vec<f64>,
}

impl Samples {
    /// Measures processes that have just started their workers.
    fn add(&mut self, pids: impl Fn() -> Result<Vec<i32>>) -> Result<()> {
        proc::wait_until_quiet(&pids()?, PATIENCE)?;
        let measured = pids()?;
        ensure!(!measured.is_empty(), "there is no process to measure");
        self.cpu.push(proc::cpu_percent(&measured, IDLE));
        ensure!(pids()? == measured, "processes came or went while nothing happened");
        self.mib.push(proc::pss_mib(&measured)?);
        Ok(())
    }
}

pub(crate) fn run(setup: &Setup) -> Result<Report> {
    let mut report = Report::new("rss");
    let rounds = setup.rounds(3);
    let (mut ours, mut supervisord, mut pm2) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..rounds {
        if let Some(program) = &setup.cocktail {
            cocktail(setup, program, &mut ours).context("cocktail")?;
        }
        supervisord_once(setup, &mut supervisord).context("supervisord")?;
        pm2_once(setup, &mut pm2).context("pm2")?;
    }
    if !ours.mib.is_empty() {
        report.figure("mib", median(&ours.mib), "proportional set size of Manager and keeper together");
        report.figure("idle_cpu_percent", median(&ours.cpu), "of one core, while nothing happens");
    }
    report.figure("supervisord_mib", median(&supervisord.mib), "supervisord");
    report.figure("supervisord_idle_cpu_percent", median(&supervisord.cpu), "supervisord");
    report.figure("pm2_mib", median(&pm2.mib), "the daemon of pm2");
    report.figure("pm2_idle_cpu_percent", median(&pm2.cpu), "the daemon of pm2");
    report.compared(
        "mib",
        format!(
            "{} and {} with the same workers (supervisord_mib, pm2_mib)",
            Supervisord::version(setup)?,
            Pm2::version(setup)?
        ),
    );
    report.note(format!("{WORKERS} workers `sleep`, {rounds} rounds, idle for {} s in each", IDLE.as_secs()));
    Ok(report)
}

fn cocktail(setup: &Setup, program: &std::path::Path, samples: &mut Samples) -> Result<()> {
    let (sleep, name) = proc::sleep_program()?;
    let marker = proc::unique_sleep();
    let ours = Cocktail::install(setup, program, (&name, &marker))?;
    let manifest = ours.manifest(&format!(
        "service = \"bench\"\n[maps.bench.units.sleepers]\ncommand = [\"{sleep}\", \"{marker}\"]\nreplicas = {WORKERS}\n"
    ))?;
    let mut census = Census::new(&name, &marker);
    ours.up(&manifest)?;
    census.wait(WORKERS, PATIENCE)?;
    samples.add(|| Ok(ours.processes()))?;
    ours.down()
}

fn supervisord_once(setup: &Setup, samples: &mut Samples) -> Result<()> {
    let (sleep, name) = proc::sleep_program()?;
    let marker = proc::unique_sleep();
    let supervisord = Supervisord::start(setup, WORKERS, (&name, &marker))?;
    let mut census = Census::new(&name, &marker);
    supervisord.add(&format!("{sleep} {marker}"), WORKERS, "")?;
    census.wait(WORKERS, PATIENCE)?;
    samples.add(|| Ok(vec![supervisord.pid()]))
}

fn pm2_once(setup: &Setup, samples: &mut Samples) -> Result<()> {
    let (sleep, name) = proc::sleep_program()?;
    let marker = proc::unique_sleep();
    let mut census = Census::new(&name, &marker);
    let pm2 = Pm2::start(setup, &sleep, &marker, WORKERS)?;
    census.wait(WORKERS, PATIENCE)?;
    samples.add(|| Ok(vec![pm2.pid()?]))
}
