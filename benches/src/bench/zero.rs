//! `zero`: the first request to a Unit that has no container.
//!
//! The worker is the `load` example, which computes for 150 ms before it listens. Ours: the Unit has scaled itself to zero;
//! the clock runs from the client's connect to the service port until its answer is there. Cold: the same worker spawned by
//! hand, and asked as soon as it accepts a connection, which is tried every millisecond; the clock runs from the spawn
//! until the answer. A round is one of each.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::Setup;
use crate::drivers::{self, Cocktail};
use crate::proc::{self, Owned};
use crate::report::{Report, median, ratios};

const WORKER: &str = "load";
const START_MS: &str = "150";
const WORK_US: &str = "200";
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two tries to connect to the worker that is started by hand.
const TRY: Duration = Duration::from_millis(1);
/// How long a container must have been gone before the next request, so that nothing of it is still being cleared away.
const REST: Duration = Duration::from_secs(1);

pub(crate) fn run(setup: &Setup) -> Result<Report> {
    let mut report = Report::new("zero");
    let rounds = setup.rounds(9);
    let stage =
        setup.cocktail.as_deref().map(|program| Stage::build(setup, program)).transpose().context("cocktail")?;
    let (mut ours, mut cold) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        if let Some(stage) = &stage {
            ours.push(stage.first_answer().context("cocktail")?);
        }
        cold.push(by_hand(setup)?);
    }
    let millis = |seconds: &[f64]| median(seconds) * 1000.0;
    report.figure("cold_ms", millis(&cold), "from spawn to answer, by hand");
    if let Some(stage) = stage {
        report.figure("ours_ms", millis(&ours), "from connect to answer, with no container at its begin");
        report.figure("vs_cold", median(&ratios(&ours, &cold)), "ours over the worker's own cold start");
        stage.ours.down()?;
    }
    report.compared("vs_cold", "the same worker spawned by hand and asked once it accepts, tried every millisecond");
    report.note(format!(
        "medians of {rounds} rounds, ratios within each; a worker that computes for {START_MS} ms before it listens"
    ));
    Ok(report)
}

/// A Unit that scales to zero.
struct Stage {
    ours: Cocktail,
    address: SocketAddr,
}

impl Stage {
    fn build(setup: &Setup, program: &Path) -> Result<Self> {
        let marker = proc::unique_sleep();
        let mut ours = Cocktail::install(setup, program, (WORKER, &marker))?;
        let port = drivers::free_port()?;
        let file = ours.manifest(&format!(
            "service = \"bench\"\n[manager]\nusage = \"1s\"\n[maps.bench.units.web]\n\
             command = [\"{}\", \"{marker}\"]\nenv = {{ START_MS = \"{START_MS}\", WORK_US = \"{WORK_US}\" }}\n\
             ports.http = {{ service = {port} }}\n\
             scale = {{ min = 0, max = 2, rps = 50, down = {{ stabilize = \"1s\" }} }}\n",
            setup.program(WORKER).display()
        ))?;
        ours.serve()?;
        ours.apply_and_wait(&file)?;
        Ok(Self { ours, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) })
    }

    /// Seconds from the first request until its answer, once nothing runs.
    fn first_answer(&self) -> Result<f64> {
        let begin = Instant::now();
        while self.ours.json(&["ps"])?.as_array().is_some_and(|containers| !containers.is_empty()) {
            ensure!(begin.elapsed() < PATIENCE, "the Unit does not scale to zero");
            thread::sleep(Duration::from_millis(200));
        }
        thread::sleep(REST);
        let begin = Instant::now();
        drivers::ask(TcpStream::connect(self.address).context("the service port does not listen")?, "/")?;
        Ok(begin.elapsed().as_secs_f64())
    }
}

fn by_hand(setup: &Setup) -> Result<f64> {
    let port = drivers::free_port()?;
    let mut command = Command::new(setup.program(WORKER));
    command.env("PORT", port.to_string()).env("START_MS", START_MS).env("WORK_US", WORK_US);
    let begin = Instant::now();
    let worker = Owned(command.spawn().context("cannot start the worker")?);
    let stream = loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(stream) => break stream,
            Err(error) => ensure!(begin.elapsed() < PATIENCE, "the worker does not listen: {error}"),
        }
        thread::sleep(TRY);
    };
    drivers::ask(stream, "/")?;
    let time = begin.elapsed().as_secs_f64();
    drop(worker);
    Ok(time)
}
