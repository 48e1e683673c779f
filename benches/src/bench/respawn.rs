//! `respawn`: from `kill -9` of a worker to its replacement running.
//!
//! The worker is `bench-beacon`, which sends a datagram as the first thing it does, so that the same precise detector
//! serves all three. Kills come at random phases of whatever loops the managers have. Ours restarts with back-off base 0;
//! supervisord and pm2 have none for workers that ran for longer than a second, so theirs are killed after more.

use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::Setup;
use crate::drivers::{Cocktail, Pm2, Supervisord};
use crate::proc;
use crate::report::{Report, median, quantile};

const BEACON: &str = "bench-beacon";
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run(setup: &Setup) -> Result<Report> {
    let mut report = Report::new("respawn");
    let rounds = setup.rounds(3);
    let beacon = setup.program(BEACON).to_string_lossy().into_owned();
    let (mut ours, mut supervisord, mut pm2) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        if let Some(program) = &setup.cocktail {
            ours.extend(cocktail(setup, program, &beacon).context("cocktail")?);
        }
        supervisord.extend(supervisord_once(setup, &beacon).context("supervisord")?);
        pm2.extend(pm2_once(setup, &beacon).context("pm2")?);
    }
    if !ours.is_empty() {
        report.figure("p50_ms", median(&ours), "kill -9 until the replacement runs, half of them");
        report.figure("p99_ms", quantile(&ours, 0.99), "the same, all but one in a hundred");
        report.note(format!("{} samples of ours, in {rounds} rounds", ours.len()));
    }
    report.figure("supervisord_ms", median(&supervisord), "supervisord, the median");
    report.figure("pm2_ms", median(&pm2), "pm2, the median");
    report.compared(
        "supervisord_ms",
        format!("{}, workers killed once they count as RUNNING", Supervisord::version(setup)?),
    );
    report
        .compared("pm2_ms", format!("{} in fork mode, workers killed once they count as stable", Pm2::version(setup)?));
    report.note(format!("{} samples of supervisord, {} of pm2", supervisord.len(), pm2.len()));
    Ok(report)
}

/// Where workers report.
struct Detector {
    socket: UdpSocket,
    /// The worker that runs.
    pid: i32,
}

impl Detector {
    fn new() -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").context("cannot make a socket")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, pid: 0 })
    }

    fn address(&self) -> Result<String> {
        Ok(self.socket.local_addr()?.to_string())
    }

    /// Waits for a worker to report.
    fn wait(&mut self) -> Result<Instant> {
        let mut buffer = [0; 32];
        let length = self.socket.recv(&mut buffer).context("no worker reports")?;
        let now = Instant::now();
        self.pid = std::str::from_utf8(&buffer[..length])?.parse().context("a worker reports no pid")?;
        Ok(now)
    }

    /// Kills the worker `samples` times, each time after `pause` and up to twice of it, and returns the milliseconds
    /// until the next one reports.
    fn sample(&mut self, samples: u32, pause: Duration) -> Result<Vec<f64>> {
        let mut times = Vec::new();
        for sample in 0..samples {
            // Spreads the kills evenly over the pause, so that no loop of anybody's is always hit at the same point.
            thread::sleep(pause + pause.mul_f64((f64::from(sample) * 0.618_034).fract()));
            let killed = self.pid;
            let begin = Instant::now();
            proc::signal(killed, Signal::KILL);
            let end = self.wait()?;
            ensure!(self.pid != killed, "a worker reported twice");
            times.push((end - begin).as_secs_f64() * 1000.0);
        }
        Ok(times)
    }
}

fn cocktail(setup: &Setup, program: &std::path::Path, beacon: &str) -> Result<Vec<f64>> {
    let mut detector = Detector::new()?;
    let address = detector.address()?;
    let mut ours = Cocktail::install(setup, program, (BEACON, &address))?;
    let manifest = ours.manifest(&format!(
        "service = \"bench\"\n[maps.bench.units.beacon]\ncommand = [\"{beacon}\", \"{address}\"]\nrestart = {{ base = \"0ms\" }}\n"
    ))?;
    ours.serve()?;
    ours.apply(&manifest)?;
    detector.wait()?;
    let times = detector.sample(100, Duration::from_millis(25))?;
    ours.down()?;
    Ok(times)
}

fn supervisord_once(setup: &Setup, beacon: &str) -> Result<Vec<f64>> {
    let mut detector = Detector::new()?;
    let address = detector.address()?;
    let supervisord = Supervisord::start(setup, 1, (BEACON, &address))?;
    supervisord.add(&format!("{beacon} {address}"), 1, "")?;
    detector.wait()?;
    detector.sample(4, Duration::from_millis(1500))
}

fn pm2_once(setup: &Setup, beacon: &str) -> Result<Vec<f64>> {
    let mut detector = Detector::new()?;
    let address = detector.address()?;
    let _pm2 = Pm2::start(setup, beacon, &address, 1)?;
    detector.wait()?;
    detector.sample(8, Duration::from_millis(1200))
}
