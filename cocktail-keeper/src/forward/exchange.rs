//! What can be told of requests and answers without being a proxy that reads them.
//!
//! A client's bytes begin a *request*; the backend's first bytes after it are its *answer*. That is all that is counted.
//! [`Exchange`] also keeps what it takes to say two things of HTTP/1.1: that an answer of announced length is complete, so
//! that the connection is idle and can go on with another backend, and that a request without an answer may be sent again. Nothing is parsed
//! before that is asked. Of every other protocol both are never said.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
    time::Instant,
};

/// Entries of a histogram of latencies; see [`Traffic::answered`].
pub(super) const LATENCIES: usize = 16;
/// Longest request that is kept to be sent again.
const KEPT: usize = 16 * 1024;
/// As much of an answer as its head may have.
const HEAD: usize = 2048;
/// Header fields of a head.
const FIELDS: usize = 64;

/// What passed one backend; shared by the threads that carry its connections.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) in_flight: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) latencies: [AtomicU64; LATENCIES],
    /// It takes no more requests: idle connections go on elsewhere.
    leaving: AtomicBool,
    /// Those who carry its connections, to be told.
    carriers: Mutex<(u64, BTreeMap<u64, Waker>)>,
}

impl Traffic {
    /// Lets idle connections go on elsewhere, or takes that back.
    pub(super) fn leave(&self, leaving: bool) {
        self.leaving.store(leaving, Ordering::Release);
        if leaving {
            let carriers = self.carriers.lock().unwrap_or_else(PoisonError::into_inner);
            carriers.1.values().for_each(Waker::wake_by_ref);
        }
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Has `waker` woken when the backend leaves; returns what takes that back.
    pub(super) fn tell(&self, waker: &Waker) -> u64 {
        let mut carriers = self.carriers.lock().unwrap_or_else(PoisonError::into_inner);
        carriers.0 += 1;
        let number = carriers.0;
        carriers.1.insert(number, waker.clone());
        number
    }

    pub(super) fn forget(&self, number: u64) {
        self.carriers.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&number);
    }

    /// Counts an answer. Entry `n` is for those below `2^(n+6)` microseconds.
    fn answered(&self, asked: Instant) {
        let micros = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
        let entry = (micros >> 6).checked_ilog2().map_or(0, |log| log as usize + 1).min(LATENCIES - 1);
        self.latencies[entry].fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The request and the answer that are on their way on one connection.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// Since when the client waits for an answer.
    asked: Option<Instant>,
    /// The beginning of the last request; all of it while it may be sent again.
    request: Vec<u8>,
    repeatable: bool,
    /// The beginning of the last answer.
    head: Vec<u8>,
    /// How long the last answer is so far.
    length: u64,
}

impl Exchange {
    /// Whether bytes from the client begin a request that another backend can answer as well.
    pub(super) fn may_move(&self, bytes: &[u8]) -> bool {
        self.asked.is_none() && !self.head.starts_with(b"HTTP/1.1 1") && is_request(bytes)
    }

    /// The client has sent `bytes`.
    pub(super) fn sent(&mut self, traffic: &Traffic, bytes: &[u8]) {
        if self.asked.is_none() {
            self.asked = Some(Instant::now());
            traffic.in_flight.fetch_add(1, Ordering::Relaxed);
            self.request.clear();
            self.repeatable = is_idempotent(bytes);
        }
        let most = if self.repeatable { KEPT } else { HEAD };
        let room = most.saturating_sub(self.request.len());
        self.repeatable &= bytes.len() <= room;
        self.request.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The backend has sent `bytes`.
    pub(super) fn answered(&mut self, traffic: &Traffic, bytes: &[u8]) {
        if let Some(asked) = self.asked.take() {
            traffic.answered(asked);
            self.repeatable = false;
            self.head.clear();
            self.length = 0;
        }
        self.length += bytes.len() as u64;
        let room = HEAD - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The request that has no answer yet and may be sent again; the exchange is over on this backend.
    pub(super) fn take_request(&mut self, traffic: &Traffic) -> Option<Vec<u8>> {
        if self.asked.is_none() || !self.repeatable {
            return None;
        }
        self.asked = None;
        traffic.in_flight.fetch_sub(1, Ordering::Relaxed);
        Some(std::mem::take(&mut self.request))
    }

    /// Whether nothing is on its way, surely, and both sides mean to go on: HTTP/1.1, and a complete answer.
    pub(super) fn is_idle(&self) -> bool {
        self.asked.is_none() && goes_on(&self.request) && is_complete(&self.head, self.length).unwrap_or(false)
    }

    /// Whether neither side has said anything on this connection.
    pub(super) fn is_untouched(&self) -> bool {
        self.asked.is_none() && self.request.is_empty() && self.length == 0
    }

    /// Whether any answer has begun.
    pub(super) fn has_answer(&self) -> bool {
        self.length > 0
    }

    /// The connection is over: what is on its way is no longer.
    pub(super) fn end(&mut self, traffic: &Traffic) {
        if self.asked.take().is_some() {
            traffic.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Whether bytes begin with the request line of HTTP/1.1.
fn is_request(bytes: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    request.parse(bytes).is_ok() && request.version == Some(1)
}

/// Whether bytes begin with a request that has the same effect when it is sent twice.
fn is_idempotent(bytes: &[u8]) -> bool {
    const METHODS: [&[u8]; 5] = [b"GET /", b"HEAD /", b"OPTIONS ", b"PUT /", b"DELETE /"];
    METHODS.iter().any(|method| bytes.starts_with(method)) && is_request(bytes)
}

/// Whether who sent this request expects its connection to stay after the answer.
fn goes_on(head: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    request.parse(head).is_ok_and(|status| status.is_complete())
        && request.version == Some(1)
        && !closes(request.headers)
}

/// Whether this is the last message of its connection.
fn closes(fields: &[httparse::Header<'_>]) -> bool {
    values(fields, "connection").any(|value| value.split(',').any(|it| it.trim().eq_ignore_ascii_case("close")))
}

/// Whether an answer of which `head` is the beginning is complete after `length` bytes, and lets the connection go on.
/// `None` where that cannot be told: of chunks, only who has read them all knows which is the last.
fn is_complete(head: &[u8], length: u64) -> Option<bool> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut answer = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head_length) = answer.parse(head).ok()? else { return None };
    let code = answer.code?;
    // An interim answer is followed by another; 101 changes the protocol.
    if answer.version != Some(1) || code < 200 {
        return None;
    }
    let fields = &*answer.headers;
    if closes(fields) {
        return Some(false);
    }
    if values(fields, "transfer-encoding").next().is_some() {
        return None;
    }
    let body = length.checked_sub(head_length as u64)?;
    let announced: u64 = match values(fields, "content-length").next() {
        Some(value) => value.parse().ok()?,
        None if code == 204 || code == 304 => 0,
        None => return None,
    };
    // The answer to HEAD announces what it does not send; of anything longer than announced nothing is known.
    Some(body == announced || body == 0 && code == 304)
}

/// The values of all fields with a name.
fn values<'a>(fields: &'a [httparse::Header<'a>], name: &'static str) -> impl Iterator<Item = &'a str> {
    let named = fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    named.map(|field| std::str::from_utf8(field.value).unwrap_or_default().trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    fn after(parts: &[&[u8]]) -> Exchange {
        let traffic = Traffic::default();
        let mut exchange = Exchange::default();
        exchange.sent(&traffic, REQUEST);
        parts.iter().for_each(|part| exchange.answered(&traffic, part));
        exchange
    }

    #[test]
    fn an_answer_is_complete_when_all_that_was_announced_has_come() {
        let head: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert!(!after(&[head]).is_idle());
        assert!(!after(&[head, b"1234"]).is_idle());
        assert!(after(&[head, b"12", b"345"]).is_idle());
        assert!(after(&[b"HTTP/1.1 204 No Content\r\n\r\n"]).is_idle());
    }

    #[test]
    fn nothing_is_idle_of_which_that_cannot_be_told() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"+PONG\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n12",
        ] {
            assert!(!after(&[answer]).is_idle(), "{}", String::from_utf8_lossy(answer));
        }
        assert!(!after(&[]).is_idle(), "a request waits");
        assert!(!Exchange::default().is_idle(), "nothing was said yet");
        assert!(Exchange::default().is_untouched() && !after(&[]).is_untouched() && !after(&[b"x"]).is_untouched());
    }

    #[test]
    fn a_client_that_asked_for_the_end_gets_it() {
        for request in [&b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"[..], b"GET / HTTP/1.0\r\n\r\n"] {
            let traffic = Traffic::default();
            let mut exchange = Exchange::default();
            exchange.sent(&traffic, request);
            exchange.answered(&traffic, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            assert!(!exchange.is_idle(), "{}", String::from_utf8_lossy(request));
        }
    }

    #[test]
    fn a_request_is_kept_until_its_answer_begins_and_only_if_twice_is_as_good_as_once() {
        let traffic = Traffic::default();
        let mut exchange = Exchange::default();
        exchange.sent(&traffic, b"PUT /x HTTP/1.1\r\nContent-Length: 3\r\n\r\na");
        exchange.sent(&traffic, b"bc");
        assert_eq!(exchange.take_request(&traffic).as_deref().map(|kept| kept.ends_with(b"abc")), Some(true));
        assert_eq!(traffic.in_flight.load(Ordering::Relaxed), 0);
        for request in [&b"POST / HTTP/1.1\r\n\r\n"[..], b"GET / HTTP/1.0\r\n\r\n", b"GET lost", b"\x16\x03\x01"] {
            let mut exchange = Exchange::default();
            exchange.sent(&traffic, request);
            assert_eq!(exchange.take_request(&traffic), None);
            exchange.end(&traffic);
        }
        let mut answered = after(&[b"HTTP/1.1 200 OK\r\n"]);
        assert_eq!(answered.take_request(&traffic), None);
    }

    #[test]
    fn only_a_request_of_its_own_moves() {
        let idle = after(&[b"HTTP/1.1 204 No Content\r\n\r\n"]);
        assert!(idle.may_move(REQUEST));
        assert!(!idle.may_move(b"\x81\x05hello"), "a frame of a socket that was upgraded");
        assert!(!after(&[b"HTTP/1.1 100 Continue\r\n\r\n"]).may_move(REQUEST), "a body that looks like a request");
        assert!(!after(&[]).may_move(REQUEST), "the one before has no answer");
    }

    #[test]
    fn latencies_are_counted_by_powers_of_two() {
        let traffic = Traffic::default();
        traffic.in_flight.store(2, Ordering::Relaxed);
        let now = Instant::now();
        traffic.answered(now);
        traffic.answered(now.checked_sub(std::time::Duration::from_secs(3600)).expect("it runs for longer"));
        let counts: Vec<u64> = traffic.latencies.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!((counts[0] + counts[1] + counts[2], counts[LATENCIES - 1]), (1, 1), "{counts:?}");
    }
}
