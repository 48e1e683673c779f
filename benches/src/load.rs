//! A load of HTTP/1.1 keep-alive requests from one thread.
//!
//! [`closed`] sends the next request on a connection when the response to the last one is there, which measures how many
//! requests a second pass. [`open`] sends at a constant rate whatever comes back and measures each latency from the
//! moment at which the request *should* have been sent, so that a stall counts for every request that it held up.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::poll::Poll;

/// What every connection sends. No header more than a small client would.
pub const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n";

/// What the worker answers, always.
pub const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world\n";

/// How long responses may stay away before the load gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to send, where, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Where to connect to.
    pub address: SocketAddr,
    /// How many connections.
    pub connections: usize,
    /// The time before counting begins.
    pub warm_up: Duration,
    /// The time that is counted.
    pub duration: Duration,
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Responses from the first to the last, warm-up included: what the CPU time of a proxy is divided by.
    pub all_requests: u64,
    /// Responses within the counted time.
    pub requests: u64,
    /// Responses a second within the counted time.
    pub rate: f64,
    /// The median latency in microseconds.
    pub p50_us: f64,
    /// The latency in microseconds that one in a hundred exceeds.
    pub p99_us: f64,
}

/// One connection; at most one request is on its way on it.
struct Connection {
    stream: TcpStream,
    /// When the request on its way should have been sent.
    sent: Option<Instant>,
    /// How much of the response has come.
    received: usize,
}

struct Load {
    poll: Poll,
    connections: Vec<Connection>,
    latencies: Histogram<u64>,
    all_requests: u64,
    counted_from: Instant,
}

/// Keeps one request on its way on every connection.
///
/// # Errors
/// When a connection cannot be made, is closed, or answers nothing for ten seconds.
pub fn closed(plan: &Plan) -> io::Result<Summary> {
    let mut load = Load::connect(plan)?;
    let end = load.counted_from + plan.duration;
    let mut ready = Vec::new();
    for number in 0..plan.connections {
        load.send(number, Instant::now())?;
    }
    loop {
        load.wait(PATIENCE, &mut ready)?;
        let now = Instant::now();
        for &number in &ready {
            let number = number as usize;
            if load.receive(number, now)? && now < end {
                load.send(number, now)?;
            }
        }
        if now >= end && load.connections.iter().all(|connection| connection.sent.is_none()) {
            return Ok(load.summary(plan.duration));
        }
        load.complain_if_stuck(now)?;
    }
}

/// Sends `rate` requests a second.
///
/// # Errors
/// As [`closed`]; also when the rate is not positive.
pub fn open(plan: &Plan, rate: f64) -> io::Result<Summary> {
    if !(rate.is_finite() && rate > 0.0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the rate must be positive"));
    }
    // Without this the kernel may wake us 50 µs late, which is more than a request takes.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let mut load = Load::connect(plan)?;
    let begin = Instant::now();
    let end = load.counted_from + plan.duration;
    let interval = Duration::from_secs_f64(1.0 / rate);
    let mut idle: VecDeque<usize> = (0..plan.connections).collect();
    let mut due: VecDeque<Instant> = VecDeque::new();
    let mut ready = Vec::new();
    let mut scheduled: u32 = 0;
    loop {
        let now = Instant::now();
        let mut next = begin + interval * scheduled;
        while next <= now && next < end {
            due.push_back(next);
            scheduled += 1;
            next = begin + interval * scheduled;
        }
        while let (Some(&number), Some(&intended)) = (idle.front(), due.front()) {
            load.send(number, intended)?;
            idle.pop_front();
            due.pop_front();
        }
        if now >= end && due.is_empty() && idle.len() == plan.connections {
            return Ok(load.summary(plan.duration));
        }
        let timeout = match (next < end, now < end) {
            (true, _) => next.saturating_duration_since(Instant::now()),
            (false, true) => end.saturating_duration_since(now),
            (false, false) => PATIENCE,
        };
        load.wait(timeout, &mut ready)?;
        let now = Instant::now();
        for &number in &ready {
            if load.receive(number as usize, now)? {
                idle.push_back(number as usize);
            }
        }
        load.complain_if_stuck(now)?;
    }
}

impl Load {
    fn connect(plan: &Plan) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(plan.connections);
        for number in 0..plan.connections {
            let stream = TcpStream::connect(plan.address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            poll.watch(&stream, number as u64)?;
            connections.push(Connection { stream, sent: None, received: 0 });
        }
        // Microseconds up to a minute, to three digits. Nanoseconds would only pretend.
        let latencies = Histogram::new_with_bounds(1, 60_000_000, 3).map_err(io::Error::other)?;
        Ok(Self { poll, connections, latencies, all_requests: 0, counted_from: Instant::now() + plan.warm_up })
    }

    fn wait(&mut self, timeout: Duration, ready: &mut Vec<u64>) -> io::Result<()> {
        self.poll.wait(Some(timeout), ready)
    }

    fn send(&mut self, number: usize, intended: Instant) -> io::Result<()> {
        let connection = &mut self.connections[number];
        connection.sent = Some(intended);
        // So small a request always fits into the buffer of a socket on which nothing else is on its way.
        connection.stream.write_all(REQUEST)
    }

    /// Reads what is there, and says whether the response is complete.
    fn receive(&mut self, number: usize, now: Instant) -> io::Result<bool> {
        let connection = &mut self.connections[number];
        let mut buffer = [0; 1024];
        match connection.stream.read(&mut buffer) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed")),
            Ok(length) => connection.received += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        if connection.received < RESPONSE.len() {
            return Ok(false);
        }
        connection.received -= RESPONSE.len();
        let Some(intended) = connection.sent.take().filter(|_| connection.received == 0) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more came back than was asked for"));
        };
        self.all_requests += 1;
        if now >= self.counted_from {
            let micros = now.saturating_duration_since(intended).as_micros().try_into().unwrap_or(u64::MAX);
            self.latencies.saturating_record(micros.max(1));
        }
        Ok(true)
    }

    fn complain_if_stuck(&self, now: Instant) -> io::Result<()> {
        let stuck = |connection: &Connection| connection.sent.is_some_and(|sent| now.duration_since(sent) > PATIENCE);
        if self.connections.first().is_some_and(stuck) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "responses stay away"));
        }
        Ok(())
    }

    fn summary(&self, duration: Duration) -> Summary {
        Summary {
            all_requests: self.all_requests,
            requests: self.latencies.len(),
            rate: self.latencies.len() as f64 / duration.as_secs_f64(),
            p50_us: self.latencies.value_at_quantile(0.5) as f64,
            p99_us: self.latencies.value_at_quantile(0.99) as f64,
        }
    }
}
