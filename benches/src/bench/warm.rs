//! `warm` and `extend`: workers that wait, beside the cold start of the same worker.
//!
//! `warm`: a Unit has no container, and one waits. The clock runs from the command that asks for one container until the first
//! request at the service port is answered: the decision is written and synced, the worker is told what to load, loads it and
//! says so, that is written and synced too, the service port learns of it. `extend`: the only container of a Unit asks for
//! help; the clock runs from the request that makes it do so until another container answers at the service port. Cold is the
//! same with nothing that waits: a process is started first. A round is one of each.

mod overload;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use self::overload::Overload;
use crate::Setup;
use crate::drivers::{self, Cocktail, call};
use crate::proc;
use crate::report::{Report, median, quantile, ratios};

const WORKER: &str = "bench-sdk";
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks at whether everything is as it was.
const LOOK: Duration = Duration::from_millis(5);

pub(crate) fn warm(setup: &Setup) -> Result<Report> {
    let mut report = Report::new("warm");
    let rounds = setup.rounds(300);
    let (waited, cold) = samples(setup, rounds, 0, Stage::first_answer)?;
    report.figure("p50_ms", median(&waited), "from the command to the answer, half of them");
    report.figure("p99_ms", quantile(&waited, 0.99), "the same, all but one in a hundred");
    report.figure("cold_p50_ms", median(&cold), "with nothing that waits, half of them");
    report.figure("vs_cold", median(&ratios(&waited, &cold)), "with one that waits over without");
    report.note(format!("{rounds} rounds, ratios within each; two synced commits are in each of ours"));
    Ok(report)
}

pub(crate) fn extend(setup: &Setup) -> Result<Report> {
    let mut report = Report::new("extend");
    let rounds = setup.rounds(100);
    let (waited, cold) = samples(setup, rounds, 1, Stage::help)?;
    report.figure("warm_p50_ms", median(&waited), "from the call for help to another container's answer, one waits");
    report.figure("warm_p99_ms", quantile(&waited, 0.99), "the same, all but one in a hundred");
    report.figure("cold_p50_ms", median(&cold), "the same with none that waits");
    report.figure("vs_cold", median(&ratios(&waited, &cold)), "with one that waits over without");
    let Some(program) = setup.cocktail.as_deref() else { return Ok(report) };
    let Overload { sent, failures, pressure, most, least_after } = overload::overload(setup, program)?;
    report.figure("pressure", pressure, "most in flight for each ready container while a load grows, over the target");
    report.figure("failed", failures.len() as f64, "requests of that load without a good answer");
    report.figure("requests", sent as f64, "requests of that load");
    report.figure("most", f64::from(most), "containers at the top of that load, where five are needed");
    report.figure("after", f64::from(least_after), "containers when it has gone");
    report
        .note(format!("{rounds} rounds, ratios within each; then one load that grows in 20 s from 20 to 240 a second"));
    for failure in failures.iter().take(5) {
        report.note(format!("failed: {failure}"));
    }
    Ok(report)
}

/// Milliseconds with one that waits, and without, in turns; `least` containers are there before each sample.
fn samples(
    setup: &Setup,
    rounds: u32,
    least: u32,
    sample: impl Fn(&Stage, &Side) -> Result<f64>,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let Some(program) = setup.cocktail.as_deref() else { bail!("only ours is measured here: --cocktail is missing") };
    let stage = Stage::build(setup, program, least)?;
    let (mut waited, mut cold) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        waited.push(sample(&stage, &stage.warm)?);
        cold.push(sample(&stage, &stage.cold)?);
    }
    stage.ours.down()?;
    Ok((waited, cold))
}

/// Two Units that differ in whether something waits for them.
struct Stage {
    ours: Cocktail,
    socket: PathBuf,
    /// Containers of each Unit before a sample.
    least: u32,
    warm: Side,
    cold: Side,
}

struct Side {
    unit: &'static str,
    waiting: usize,
    address: SocketAddr,
}

impl Stage {
    fn build(setup: &Setup, program: &Path, least: u32) -> Result<Self> {
        let marker = proc::unique_sleep();
        let mut ours = Cocktail::install(setup, program, (WORKER, &marker))?;
        let side = |unit, waiting| {
            let port = drivers::free_port()?;
            anyhow::Ok(Side { unit, waiting, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) })
        };
        let (warm, cold) = (side("warm", 2)?, side("cold", 0)?);
        let mut manifest = "service = \"bench\"\n".to_owned();
        for side in [&warm, &cold] {
            // What is different keeps the one Unit from what waits for the other.
            manifest.push_str(&format!(
                "[maps.bench.units.{unit}]\nworker = [\"{program}\", \"{marker}\"]\nmicroservices = [\"web\"]\n\
                 env = {{ SIDE = \"{unit}\" }}\nreplicas = {least}\nwarm = {waiting}\n\
                 ports.http = {{ service = {port} }}\n",
                unit = side.unit,
                program = setup.program(WORKER).display(),
                waiting = side.waiting,
                port = side.address.port(),
            ));
        }
        let file = ours.manifest(&manifest)?;
        ours.serve()?;
        ours.apply_and_wait(&file)?;
        let socket = ours.data_dir().join("cocktail.sock");
        Ok(Self { ours, socket, least, warm, cold })
    }

    /// Milliseconds from the command for a container until its first answer.
    fn first_answer(&self, side: &Side) -> Result<f64> {
        self.rest(side)?;
        let begin = Instant::now();
        self.scale(side, 1)?;
        drivers::ask(TcpStream::connect(side.address).context("the service port does not listen")?, "/")?;
        let time = begin.elapsed();
        self.scale(side, 0)?;
        Ok(time.as_secs_f64() * 1_000.0)
    }

    /// Milliseconds from a call for help until another container answers.
    fn help(&self, side: &Side) -> Result<f64> {
        self.rest(side)?;
        // Held open, so that the next connection goes to who has none.
        let mut held = TcpStream::connect(side.address).context("the service port does not listen")?;
        let first = drivers::ask(held.try_clone()?, "/")?;
        let begin = Instant::now();
        drivers::ask(held.try_clone()?, "/help")?;
        loop {
            let other = drivers::ask(TcpStream::connect(side.address)?, "/")?;
            if other != first {
                break;
            }
            ensure!(begin.elapsed() < PATIENCE, "no help comes");
        }
        let time = begin.elapsed();
        held.flush()?;
        drop(held);
        self.scale(side, 1)?;
        Ok(time.as_secs_f64() * 1_000.0)
    }

    /// Waits until a Unit has what it has before each sample, and nothing is under way.
    fn rest(&self, side: &Side) -> Result<()> {
        let begin = Instant::now();
        loop {
            let all = call(&self.socket, "GET", "/v1/containers", "")?;
            let all = all.as_array().context("containers are no array")?;
            let own = |state: &str| all.iter().filter(|it| it["unit"] == side.unit && it["state"] == state).count();
            let (ready, waiting) = (own("ready"), own("waiting"));
            // The others are at rest too, so that they take nothing from who is measured.
            let busy = all.iter().any(|it| it["state"] != "ready" && it["state"] != "waiting");
            if ready == self.least as usize && waiting == side.waiting && !busy {
                return Ok(());
            }
            ensure!(begin.elapsed() < PATIENCE, "{} does not come to rest: {all:#?}", side.unit);
            thread::sleep(LOOK);
        }
    }

    fn scale(&self, side: &Side, count: u32) -> Result<()> {
        call(&self.socket, "POST", &format!("/v1/scale/{}", side.unit), &format!("{{\"count\":{count}}}")).map(drop)
    }
}
