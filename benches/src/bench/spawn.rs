//! `spawn`: from nothing to N running workers.
//!
//! Ours and supervisord: the manager runs already, with nothing to do; the clock starts when it is told about N times
//! `sleep` (`cocktail apply`, start of that program included; `reloadConfig` and `addProcessGroup`), and stops when N
//! processes execute `sleep`, seen from outside in `/proc`. Commits are synced and logs are on, as by default. The bare
//! loop measures itself, from the first `posix_spawn` until the last has returned. Every round has a fresh data dir.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::Setup;
use crate::drivers::{self, Cocktail, Supervisord};
use crate::proc::{self, Census};
use crate::report::{Report, median, ratios};

const SIZES: [usize; 2] = [300, 1000];
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run(setup: &Setup) -> Result<Report> {
    let mut report = Report::new("spawn");
    let (mut vs_bare, mut vs_supervisord) = (Vec::new(), Vec::new());
    let rounds = setup.rounds(5);
    for size in SIZES {
        let (mut ours, mut bare, mut supervisord) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            if let Some(program) = &setup.cocktail {
                ours.push(cocktail(setup, program, size).with_context(|| format!("cocktail with {size} workers"))?);
            }
            bare.push(bare_loop(setup, size, 1)?.min(bare_loop(setup, size, 2)?));
            supervisord.push(peer(setup, size).with_context(|| format!("supervisord with {size} workers"))?);
        }
        let millis = |seconds: &[f64]| median(seconds) * 1000.0;
        report.figure(format!("bare_ms_{size}"), millis(&bare), "the bare loop, the better of one and two threads");
        report.figure(format!("supervisord_ms_{size}"), millis(&supervisord), "supervisord");
        if !ours.is_empty() {
            report.figure(format!("ours_ms_{size}"), millis(&ours), format!("apply until {size} workers run"));
            let bare = median(&ratios(&bare, &ours));
            report.figure(format!("vs_bare_{size}"), bare, "our speed as a share of the bare loop's");
            vs_bare.push(bare);
            let supervisord = median(&ratios(&supervisord, &ours));
            report.figure(format!("vs_supervisord_{size}"), supervisord, "how many times faster than supervisord");
            vs_supervisord.push(supervisord);
        }
    }
    if setup.cocktail.is_some() {
        let worst = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
        report.figure("vs_bare", worst(&vs_bare), "the worse of both sizes");
        report.figure("vs_supervisord", worst(&vs_supervisord), "the worse of both sizes");
    }
    report.compared(
        "vs_bare",
        "a Rust loop of posix_spawn on the same argv and environment, the better of one and two threads in each round",
    );
    report.compared(
        "vs_supervisord",
        format!("{}, running, told by XML-RPC to add a group; startsecs=0, logs on", Supervisord::version(setup)?),
    );
    report.note(format!(
        "medians of {rounds} rounds; ours and supervisord are timed from outside until N processes execute sleep, the bare loop by itself"
    ));
    Ok(report)
}

fn cocktail(setup: &Setup, program: &std::path::Path, size: usize) -> Result<f64> {
    let (sleep, name) = proc::sleep_program()?;
    let marker = proc::unique_sleep();
    let mut ours = Cocktail::install(setup, program, (&name, &marker))?;
    let manifest = ours.manifest(&format!(
        "service = \"bench\"\n[maps.bench.units.sleepers]\ncommand = [\"{sleep}\", \"{marker}\"]\nreplicas = {size}\n"
    ))?;
    ours.serve()?;
    let mut census = Census::new(&name, &marker);
    let begin = Instant::now();
    let end = std::thread::scope(|scope| -> Result<Instant> {
        let applied = scope.spawn(|| ours.apply(&manifest));
        let end = census.wait(size, PATIENCE);
        applied.join().map_err(|_| anyhow::anyhow!("the thread that applied panicked"))??;
        end
    })?;
    ours.down()?;
    Ok((end - begin).as_secs_f64())
}

fn peer(setup: &Setup, size: usize) -> Result<f64> {
    let (sleep, name) = proc::sleep_program()?;
    let marker = proc::unique_sleep();
    let supervisord = Supervisord::start(setup, size, (&name, &marker))?;
    let mut census = Census::new(&name, &marker);
    let begin = Instant::now();
    supervisord.add(&format!("{sleep} {marker}"), size, "startsecs=0")?;
    let end = census.wait(size, PATIENCE)?;
    Ok((end - begin).as_secs_f64())
}

fn bare_loop(setup: &Setup, size: usize, threads: usize) -> Result<f64> {
    let (sleep, _) = proc::sleep_program()?;
    let mut command = Command::new(setup.program("bench-spawn"));
    command.args([&size.to_string(), &threads.to_string(), &sleep, &proc::unique_sleep()]);
    let passed = ["PATH", "HOME", "LANG", "TZ"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    command.env_clear().envs(passed);
    let output = drivers::run(&mut command)?;
    String::from_utf8_lossy(&output.stdout).trim().parse().context("bench-spawn printed no number")
}
