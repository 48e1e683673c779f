//! `remote`: workers on servers with agents, beside the same workers on the Manager's own machine.
//!
//! Two Managers, both the real program: one runs workers itself, the other has four agents with a data dir and a keeper each, all
//! on this machine. Units have no ports, which servers at one address would share. A start runs from a command over the API
//! until the worker runs and says so with a datagram, the first thing it does. The rate is of 300 `sleep` that one command
//! asks for, until all of them execute, seen from outside. Everything is done in turns.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::Setup;
use crate::drivers::{self, Cocktail};
use crate::proc::{self, Census};
use crate::report::{Report, median, quantile, ratios};

const SERVERS: usize = 4;
const MANY: usize = 300;
const BEACON: &str = "bench-beacon";
/// Starts that are timed in each round.
const STARTS: usize = 100;
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause before a start, so that what the last one left behind is done.
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) fn run(setup: &Setup) -> Result<Report> {
    let Some(program) = setup.cocktail.as_deref() else { bail!("only ours is measured here: --cocktail is missing") };
    let mut report = Report::new("remote");
    let load = proc::load()?;
    let rounds = setup.rounds(3);
    let (local, remote) = (Side::build(setup, program, 0)?, Side::build(setup, program, SERVERS)?);

    let trip = round_trip()?;
    let (mut local_ms, mut remote_ms) = (Vec::new(), Vec::new());
    let (mut local_s, mut remote_s) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for _ in 0..STARTS {
            local_ms.push(local.start()?);
            remote_ms.push(remote.start()?);
        }
        local_s.push(local.many()?);
        remote_s.push(remote.many()?);
    }
    local.ours.down()?;
    remote.ours.down()?;

    report.figure("start_p50_ms", median(&remote_ms), "from the command until the worker runs, by an agent");
    report.figure("start_p99_ms", quantile(&remote_ms, 0.99), "the same, all but one in a hundred");
    report.figure("local_p50_ms", median(&local_ms), "the same on the Manager's own machine");
    report.figure("local_p99_ms", quantile(&local_ms, 0.99), "the same, all but one in a hundred");
    report.figure("round_trip_ms", trip, "a byte there and back over the loopback");
    let over = (median(&remote_ms) - trip) / median(&local_ms);
    report.figure("vs_local_start", over, "by an agent, without that round trip, over locally");
    let per_second = |times: &[f64]| MANY as f64 / median(times);
    report.figure("per_s", per_second(&remote_s), format!("{MANY} workers over {SERVERS} agents, a second"));
    report.figure("local_per_s", per_second(&local_s), "as many on the Manager's own machine");
    report.figure("vs_local", median(&ratios(&local_s, &remote_s)), "the one rate over the other, in turns");
    report
        .note(format!("{rounds} rounds of {STARTS} starts each, and once {MANY}; load average when it began: {load}"));
    Ok(report)
}

/// A Manager with what it runs workers on.
struct Side {
    ours: Cocktail,
    beacons: UdpSocket,
    sleep: (String, String),
}

impl Side {
    /// With so many agents, or by itself.
    fn build(setup: &Setup, program: &Path, servers: usize) -> Result<Self> {
        let beacons = UdpSocket::bind("127.0.0.1:0").context("cannot make a socket")?;
        beacons.set_read_timeout(Some(PATIENCE))?;
        let (path, name) = proc::sleep_program()?;
        let marker = proc::unique_sleep();
        let mut ours = Cocktail::install(setup, program, (&name, &marker))?;
        let file = ours.manifest(&format!(
            "service = \"bench\"\n[maps.bench.units.beacon]\ncommand = [\"{}\", \"{}\"]\nreplicas = 0\n\
             [maps.bench.units.sleepers]\ncommand = [\"{path}\", \"{marker}\"]\nreplicas = 0\n",
            setup.program(BEACON).display(),
            beacons.local_addr()?,
        ))?;
        let names: Vec<String> = (1..=servers).map(|number| format!("rack-{number}")).collect();
        let address = format!("127.0.0.1:{}", drivers::free_port()?);
        if servers > 0 {
            ours.settle(&format!(
                "[manager]\nlisten = \"{address}\"\n[providers.rack]\nkind = \"standalone\"\nservers = {names:?}\n"
            ))?;
        }
        ours.serve()?;
        for name in &names {
            ours.start_agent(name, &address)?;
        }
        let side = Self { ours, beacons, sleep: (name, marker) };
        side.wait("the servers take containers", || {
            let all = side.ours.call("GET", "/v1/servers", "")?;
            let all = all.as_array().context("servers are no array")?;
            Ok(all.len() == servers.max(1) && all.iter().all(|server| server["state"] == "ready"))
        })?;
        side.ours.apply(&file)?;
        Ok(side)
    }

    fn wait(&self, what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
        let begin = Instant::now();
        while !condition()? {
            ensure!(begin.elapsed() < PATIENCE, "{what}: not after {} s", PATIENCE.as_secs());
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn scale(&self, unit: &str, count: usize) -> Result<()> {
        self.ours.call("POST", &format!("/v1/scale/{unit}"), &format!("{{\"count\":{count}}}")).map(drop)
    }

    /// Asks for none, and waits until nothing is left.
    fn empty(&self, unit: &str) -> Result<()> {
        self.scale(unit, 0)?;
        self.wait("nothing is left", || {
            Ok(self.ours.call("GET", "/v1/containers", "")?.as_array().is_some_and(Vec::is_empty))
        })
    }

    /// Milliseconds from the command for a worker until it runs.
    fn start(&self) -> Result<f64> {
        thread::sleep(PAUSE);
        let begin = Instant::now();
        // The worker may run before the command is answered.
        let time = thread::scope(|scope| {
            let asked = scope.spawn(|| self.scale("beacon", 1));
            let told = self.beacons.recv(&mut [0; 32]).context("no worker reports");
            let time = begin.elapsed();
            asked.join().map_err(|_| anyhow::anyhow!("the thread that asked panicked"))??;
            told.map(|_| time)
        })?;
        self.empty("beacon")?;
        Ok(time.as_secs_f64() * 1_000.0)
    }

    /// Seconds from the command for many workers until all of them run.
    fn many(&self) -> Result<f64> {
        let (name, marker) = &self.sleep;
        let mut census = Census::new(name, marker);
        let begin = Instant::now();
        let end = thread::scope(|scope| -> Result<Instant> {
            let asked = scope.spawn(|| self.scale("sleepers", MANY));
            let end = census.wait(MANY, PATIENCE);
            asked.join().map_err(|_| anyhow::anyhow!("the thread that asked panicked"))??;
            end
        })?;
        self.empty("sleepers")?;
        Ok((end - begin).as_secs_f64())
    }
}

/// Milliseconds of a byte there and back between two threads, half of them.
fn round_trip() -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port is free")?;
    let mut here = TcpStream::connect(listener.local_addr()?)?;
    let (mut there, _) = listener.accept()?;
    here.set_nodelay(true)?;
    there.set_nodelay(true)?;
    let echo = thread::spawn(move || {
        let mut byte = [0];
        while there.read_exact(&mut byte).is_ok() && there.write_all(&byte).is_ok() {}
    });
    let mut times = Vec::new();
    for _ in 0..500 {
        let begin = Instant::now();
        here.write_all(&[1])?;
        here.read_exact(&mut [0])?;
        times.push(begin.elapsed().as_secs_f64() * 1_000.0);
    }
    drop(here);
    echo.join().map_err(|_| anyhow::anyhow!("the echo panicked"))?;
    Ok(median(&times))
}
