//! A load whose rate changes by a plan, and which counts what failed instead of giving up.
//!
//! Start at [`run`]. Requests are sent at the times that [`arrivals`] gives, whatever comes back (an open loop): a request
//! that finds no idle connection opens one more. Connections are kept alive and closed by the client after some requests,
//! so that both kinds of clients are there. A request has failed when its connection ends or breaks before the answer is
//! complete, when the answer is not 200, and when it does not come for ten seconds. Nothing is tried again.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::load::REQUEST;
use crate::poll::Poll;

/// How long an answer may stay away.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests on one connection.
const USES: u32 = 20;
/// Longest head of an answer.
const HEAD: usize = 8 * 1024;

/// A part of a load: the rate goes evenly from one value to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phase {
    /// Requests a second at its begin.
    pub from: f64,
    /// Requests a second at its end.
    pub to: f64,
    /// How long it lasts.
    pub lasts: Duration,
}

impl Phase {
    /// The same rate all the time.
    pub const fn steady(rate: f64, lasts: Duration) -> Self {
        Self { from: rate, to: rate, lasts }
    }
}

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Requests that were sent, or should have been.
    pub sent: u64,
    /// Why requests failed, each of them.
    pub failures: Vec<String>,
}

/// The rate at a time, zero after the end.
pub fn rate_at(phases: &[Phase], time: Duration) -> f64 {
    let mut rest = time;
    for phase in phases {
        if rest < phase.lasts {
            return phase.from + (phase.to - phase.from) * rest.as_secs_f64() / phase.lasts.as_secs_f64();
        }
        rest -= phase.lasts;
    }
    0.0
}

/// When each request is due, from the begin: the n-th when the rates add up to n.
pub fn arrivals(phases: &[Phase]) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut begin = Duration::ZERO;
    // What the phases before left over, as a part of a request.
    let mut carried = 0.0;
    for phase in phases {
        let lasts = phase.lasts.as_secs_f64();
        let all = carried + f64::midpoint(phase.from, phase.to) * lasts;
        let slope = (phase.to - phase.from) / lasts;
        for number in 1..=all as u64 {
            let wanted = number as f64 - carried;
            // The time at which `from * t + slope * t² / 2` is what is wanted, in the form that also holds without a slope.
            let root = (phase.from * phase.from + 2.0 * slope * wanted).max(0.0).sqrt();
            times.push(begin + Duration::from_secs_f64((2.0 * wanted / (phase.from + root)).clamp(0.0, lasts)));
        }
        carried = all.fract();
        begin += phase.lasts;
    }
    times
}

/// Sends the requests of a plan that began at `begin`, and waits for the last answers.
///
/// # Errors
/// When this process itself cannot go on; never for what the other side does.
pub fn run(address: SocketAddr, phases: &[Phase], begin: Instant) -> io::Result<Outcome> {
    let mut load =
        Wave { poll: Poll::new()?, address, clients: BTreeMap::new(), idle: Vec::new(), next: 0, failures: Vec::new() };
    let times = arrivals(phases);
    let mut due = times.iter().map(|time| begin + *time).peekable();
    let mut ready = Vec::new();
    loop {
        let now = Instant::now();
        while due.next_if(|due| *due <= now).is_some() {
            load.send(now);
        }
        load.give_up(now);
        let Some(wake) = due.peek().map(|due| due.saturating_duration_since(now)).or_else(|| load.waits()) else {
            return Ok(Outcome { sent: times.len() as u64, failures: load.failures });
        };
        load.poll.wait(Some(wake.min(Duration::from_millis(100))), &mut ready)?;
        for &number in &ready {
            load.receive(number);
        }
    }
}

/// A connection with at most one request on its way.
struct Client {
    stream: TcpStream,
    sent: Option<Instant>,
    received: Vec<u8>,
    uses: u32,
}

struct Wave {
    poll: Poll,
    address: SocketAddr,
    clients: BTreeMap<u64, Client>,
    idle: Vec<u64>,
    next: u64,
    failures: Vec<String>,
}

impl Wave {
    /// How long it is worth waiting for answers; `None` when none is on its way.
    fn waits(&self) -> Option<Duration> {
        self.clients.values().any(|client| client.sent.is_some()).then_some(PATIENCE)
    }

    fn send(&mut self, now: Instant) {
        let number = match self.idle.pop() {
            Some(number) => number,
            None => match self.open() {
                Ok(number) => number,
                Err(error) => return self.failures.push(format!("no connection: {error}")),
            },
        };
        let Some(client) = self.clients.get_mut(&number) else { return };
        client.sent = Some(now);
        client.uses += 1;
        if let Err(error) = client.stream.write_all(REQUEST) {
            self.fail(number, &format!("not sent: {error}"));
        }
    }

    fn open(&mut self) -> io::Result<u64> {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        self.next += 1;
        self.poll.watch(&stream, self.next)?;
        self.clients.insert(self.next, Client { stream, sent: None, received: Vec::new(), uses: 0 });
        Ok(self.next)
    }

    fn receive(&mut self, number: u64) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let mut buffer = [0; 4096];
        match client.stream.read(&mut buffer) {
            Ok(0) => return self.fail(number, "the connection was closed before the answer"),
            Ok(length) => client.received.extend_from_slice(&buffer[..length]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return,
            Err(error) => return self.fail(number, &format!("the connection broke: {error}")),
        }
        match complete(&client.received) {
            Ok(None) => {}
            Ok(Some(200)) if client.uses < USES => {
                client.received.clear();
                client.sent = None;
                self.idle.push(number);
            }
            Ok(Some(200)) => drop(self.clients.remove(&number)),
            Ok(Some(status)) => self.fail(number, &format!("answered {status}")),
            Err(because) => self.fail(number, &because),
        }
    }

    /// Forgets a connection, and counts the request on its way. That an idle one is closed is nobody's failure.
    fn fail(&mut self, number: u64, because: &str) {
        self.idle.retain(|idle| *idle != number);
        if self.clients.remove(&number).is_some_and(|client| client.sent.is_some()) {
            self.failures.push(because.to_owned());
        }
    }

    fn give_up(&mut self, now: Instant) {
        let late = |client: &Client| client.sent.is_some_and(|sent| now.saturating_duration_since(sent) > PATIENCE);
        let late: Vec<u64> =
            self.clients.iter().filter(|(_, client)| late(client)).map(|(number, _)| *number).collect();
        for number in late {
            self.fail(number, "no answer");
        }
    }
}

/// The status of an answer that has come as a whole; `None` while something is missing.
///
/// # Errors
/// What is wrong with it.
pub fn complete(bytes: &[u8]) -> Result<Option<u16>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut answer = httparse::Response::new(&mut headers);
    let head = match answer.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => return Err("the head of an answer is too long".to_owned()),
        Err(error) => return Err(format!("not HTTP: {error}")),
    };
    let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
    let Some(length) = length else { return Err("an answer without a length".to_owned()) };
    Ok((bytes.len() - head >= length).then_some(answer.code).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn requests_of_a_steady_phase_are_evenly_apart() {
        let times = arrivals(&[Phase::steady(4.0, seconds(2))]);
        let millis: Vec<u128> = times.iter().map(Duration::as_millis).collect();
        assert_eq!(millis, [250, 500, 750, 1000, 1250, 1500, 1750, 2000]);
    }

    #[test]
    fn a_ramp_has_as_many_requests_as_its_mean_rate_and_most_of_them_at_its_high_end() {
        let up = arrivals(&[Phase { from: 0.0, to: 10.0, lasts: seconds(4) }]);
        assert_eq!(up.len(), 20);
        assert_eq!(up.iter().filter(|time| **time <= seconds(2)).count(), 5);
        let down = arrivals(&[Phase { from: 10.0, to: 0.0, lasts: seconds(4) }]);
        assert_eq!(down.iter().filter(|time| **time <= seconds(2)).count(), 15);
    }

    #[test]
    fn a_request_that_two_phases_share_is_sent_once() {
        let times = arrivals(&[Phase::steady(0.5, seconds(1)), Phase::steady(1.0, seconds(1))]);
        assert_eq!(times, [Duration::from_millis(1500)]);
    }

    #[test]
    fn the_rate_at_a_time_is_that_of_its_phase() {
        let phases = [Phase::steady(2.0, seconds(1)), Phase { from: 2.0, to: 4.0, lasts: seconds(2) }];
        assert_eq!([0, 1, 2, 3].map(|time| rate_at(&phases, seconds(time))), [2.0, 2.0, 3.0, 0.0]);
    }

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ndone\n";
        for length in 0..answer.len() {
            assert_eq!(complete(&answer[..length]), Ok(None), "{length}");
        }
        assert_eq!(complete(answer), Ok(Some(200)));
        assert!(complete(b"SSH-2.0\r\n\r\n").is_err());
        assert!(complete(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
