//! The baseline of `update`: workers replaced by hand.
//!
//! `bench-replace COUNT SURGE EVERY_MS PROGRAM ARG…` starts COUNT workers and waits until all are ready. Then SURGE threads
//! replace them, each one at a time: spawn, ask `GET /` until it answers 200, end an old one with TERM, wait for its
//! exit. It prints the seconds from the first spawn until the last exit, then kills what it started. Readiness is looked
//! for as often as ours does it: at once, then after pauses that grow up to EVERY_MS.

#![expect(clippy::print_stdout, reason = "the result goes to stdout")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cocktail_benches::load::REQUEST;
use cocktail_benches::pause;
use cocktail_benches::wave::complete;
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(20);

/// What is started, and how often it is looked at.
struct Job {
    argv: Vec<String>,
    every: Duration,
}

/// A worker that ends with the value.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [count, surge, every, argv @ ..] = args.as_slice() else {
        bail!("usage: bench-replace COUNT SURGE EVERY_MS PROGRAM ARG…");
    };
    let number = |text: &String| text.parse::<usize>().with_context(|| format!("{text} is not a number"));
    let (count, surge) = (number(count)?, number(surge)?);
    ensure!(surge > 0 && !argv.is_empty(), "a program and at least one thread are needed");
    let job = Job { argv: argv.to_vec(), every: Duration::from_millis(number(every)? as u64) };
    // Which ports are free is found out before, as a manager knows it before.
    let ports = free_ports(2 * count)?;
    let (first, second) = ports.split_at(count);
    let old = replace(&job, surge, first, Vec::new())?;
    let begin = Instant::now();
    let new = replace(&job, surge, second, old)?;
    println!("{}", begin.elapsed().as_secs_f64());
    drop(new);
    Ok(())
}

/// Starts a worker on each port, `surge` at a time, and ends an old one for each that is ready.
fn replace(job: &Job, surge: usize, ports: &[u16], old: Vec<Worker>) -> Result<Vec<Worker>> {
    let next = AtomicUsize::new(0);
    let old = Mutex::new(old);
    let take = || old.lock().map_or(None, |mut old| old.pop());
    let work = || -> Result<Vec<Worker>> {
        let mut started = Vec::new();
        while let Some(&port) = ports.get(next.fetch_add(1, Ordering::Relaxed)) {
            started.push(job.start(port)?);
            if let Some(worker) = take() {
                end(worker)?;
            }
        }
        Ok(started)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..surge).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??);
        }
        Ok(all)
    })
}

impl Job {
    /// Spawns a worker, and returns when it answers.
    fn start(&self, port: u16) -> Result<Worker> {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).env("PORT", port.to_string()).stdin(Stdio::null());
        let worker = Worker(command.spawn().with_context(|| format!("cannot start {}", self.argv[0]))?);
        let begin = Instant::now();
        while !answers(port) {
            ensure!(begin.elapsed() < PATIENCE, "a worker does not answer");
            thread::sleep(pause(begin.elapsed(), self.every));
        }
        Ok(worker)
    }
}

fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(REQUEST)?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
        loop {
            let length = stream.read(&mut buffer)?;
            answer.extend_from_slice(&buffer[..length]);
            match complete(&answer) {
                Ok(Some(status)) => return Ok(status == 200),
                Ok(None) if length > 0 => {}
                Ok(None) | Err(_) => return Ok(false),
            }
        }
    };
    ask().unwrap_or(false)
}

fn end(mut worker: Worker) -> Result<()> {
    let pid = Pid::from_child(&worker.0);
    kill_process(pid, Signal::TERM).context("cannot end a worker")?;
    worker.0.wait().context("cannot wait for a worker")?;
    Ok(())
}

fn free_ports(count: usize) -> Result<Vec<u16>> {
    let bound: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<_, _>>()
        .context("no port is free")?;
    bound.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
