//! `forward`: requests through a service port.
//!
//! One worker, the same process for all: ours starts it, HAProxy forwards to it too. 64 keep-alive connections in a closed
//! loop say how many requests a second pass and what each costs the proxy in CPU time (all its processes, user and system);
//! then half of HAProxy's rate is sent through both at a constant rate, and latencies count from when a request should
//! have been sent.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use cocktail_benches::load::Summary;

use crate::Setup;
use crate::drivers::{self, Cocktail, HaProxy};
use crate::proc::{self, Owned};
use crate::report::{Report, median, ratios};

const WORKER: &str = "bench-worker";
const CONNECTIONS: u32 = 64;
const WARM_UP: f64 = 1.0;
const SECONDS: f64 = 4.0;

/// The worker and what is in front of it.
struct Stage {
    worker: SocketAddr,
    haproxy: HaProxy,
    ours: Option<(Cocktail, SocketAddr)>,
    _alone: Option<Owned>,
}

#[derive(Default)]
struct Samples {
    rate: Vec<f64>,
    cpu_us: Vec<f64>,
    p99_us: Vec<f64>,
}

pub(crate) fn run(setup: &Setup) -> Result<Report> {
    let stage = Stage::build(setup)?;
    let rounds = setup.rounds(5);
    let (mut alone, mut ours, mut haproxy) = (Vec::new(), Samples::default(), Samples::default());
    let forwarder = stage.ours.as_ref().map(|(cocktail, address)| (*address, cocktail.processes()));
    for _ in 0..rounds {
        alone.push(load(setup, stage.worker, None)?.rate);
        if let Some((address, pids)) = &forwarder {
            ours.closed(setup, *address, pids).context("through our service port")?;
        }
        haproxy.closed(setup, stage.haproxy.address, &stage.haproxy.processes()).context("through HAProxy")?;
    }
    let half = median(&haproxy.rate) / 2.0;
    for _ in 0..rounds {
        if let Some((address, _)) = &forwarder {
            ours.p99_us.push(load(setup, *address, Some(half)).context("through our service port")?.p99_us);
        }
        haproxy.p99_us.push(load(setup, stage.haproxy.address, Some(half)).context("through HAProxy")?.p99_us);
    }

    let mut report = Report::new("forward");
    report.figure("worker_alone_rps", median(&alone), "requests a second without anything in front of the worker");
    report.figure("haproxy_rps", median(&haproxy.rate), "requests a second through HAProxy");
    report.figure("haproxy_cpu_us", median(&haproxy.cpu_us), "CPU time per request of HAProxy, in microseconds");
    report.figure("haproxy_p99_us", median(&haproxy.p99_us), "p99 latency at half of HAProxy's rate, in microseconds");
    report.figure("half_rps", half, "half of HAProxy's rate");
    if forwarder.is_some() {
        report.figure("ours_rps", median(&ours.rate), "requests a second through our service port");
        report.figure(
            "ours_cpu_us",
            median(&ours.cpu_us),
            "CPU time per request of Manager and keeper, in microseconds",
        );
        report.figure("ours_p99_us", median(&ours.p99_us), "p99 latency at half of HAProxy's rate, in microseconds");
        report.figure("vs_haproxy", median(&ratios(&ours.rate, &haproxy.rate)), "our rate as a share of HAProxy's");
        report.figure("cpu_vs_haproxy", median(&ratios(&ours.cpu_us, &haproxy.cpu_us)), "our CPU time over HAProxy's");
        report.figure("p99_vs_haproxy", median(&ratios(&ours.p99_us, &haproxy.p99_us)), "our p99 over HAProxy's");
    }
    let version = HaProxy::version(setup)?;
    for key in ["vs_haproxy", "cpu_vs_haproxy", "p99_vs_haproxy"] {
        report
            .compared(key, format!("{version} in TCP mode with default threads, in front of the same worker process"));
    }
    report.note(format!(
        "medians of {rounds} rounds of {SECONDS} s, ratios within each round, {CONNECTIONS} connections"
    ));
    if let Some((ours, _)) = stage.ours {
        ours.down()?;
    }
    Ok(report)
}

impl Samples {
    fn closed(&mut self, setup: &Setup, address: SocketAddr, pids: &[i32]) -> Result<()> {
        let before = proc::cpu_time(pids);
        let summary = load(setup, address, None)?;
        let used = proc::cpu_time(pids).saturating_sub(before);
        self.rate.push(summary.rate);
        self.cpu_us.push(used.as_secs_f64() * 1e6 / summary.all_requests as f64);
        Ok(())
    }
}

impl Stage {
    fn build(setup: &Setup) -> Result<Self> {
        let program = setup.program(WORKER);
        let (worker, ours, alone) = match &setup.cocktail {
            Some(cocktail) => {
                let (ours, service, worker) = forwarded(setup, cocktail, &program).context("cocktail")?;
                (worker, Some((ours, service)), None)
            }
            None => {
                let port = drivers::free_port()?;
                let child =
                    Command::new(&program).env("PORT", port.to_string()).spawn().context("cannot start the worker")?;
                let address = SocketAddr::from(([127, 0, 0, 1], port));
                let alone = Owned(child);
                let listens = || std::net::TcpStream::connect(address).is_ok();
                proc::wait_for("the worker", Duration::from_secs(10), listens)?;
                (address, None, Some(alone))
            }
        };
        Ok(Self { worker, haproxy: HaProxy::start(setup, worker)?, ours, _alone: alone })
    }
}

/// A worker that we started, with the addresses of the service port and of the worker itself.
fn forwarded(setup: &Setup, cocktail: &Path, program: &Path) -> Result<(Cocktail, SocketAddr, SocketAddr)> {
    // The second argument is for us, to tell this worker from others.
    let marker = proc::unique_sleep();
    let ours = Cocktail::install(setup, cocktail, (WORKER, &marker))?;
    let port = drivers::free_port()?;
    let program = program.display();
    let manifest = ours.manifest(&format!(
        "service = \"bench\"\n[maps.bench.units.web]\ncommand = [\"{program}\", \"{marker}\"]\nports.http = {{ service = {port} }}\n"
    ))?;
    ours.up(&manifest)?;
    let endpoints = ours.json(&["endpoints"])?;
    let backends = endpoints[0]["backends"].as_array().context("the service port has no backends")?;
    ensure!(backends.len() == 1, "the service port has {} backends instead of one", backends.len());
    let host = backends[0]["host"].as_str().context("a backend has no host")?;
    let own = backends[0]["port"].as_u64().context("a backend has no port")?;
    let worker = format!("{host}:{own}").parse().context("a backend has no address")?;
    Ok((ours, SocketAddr::from(([127, 0, 0, 1], port)), worker))
}

/// A load in a process of its own: closed without a rate, open with one.
fn load(setup: &Setup, address: SocketAddr, rate: Option<f64>) -> Result<Summary> {
    let mut command = Command::new(setup.program("bench-load"));
    command.args([address.to_string(), CONNECTIONS.to_string(), WARM_UP.to_string(), SECONDS.to_string()]);
    command.args(rate.map(|rate| rate.to_string()));
    let output = drivers::run(&mut command)?;
    serde_json::from_slice(&output.stdout).context("bench-load printed no summary")
}
