//! A load on a service port at a constant rate, and what every single request met.
//!
//! Start at [`Load::start`]: 300 requests a second, half of them over connections that are kept, half over a new
//! connection each. The loop is open: when a request is due does not depend on the answers before it. What is not
//! answered with 200 and a whole body has failed, whatever the reason. What a client may do by itself is no failure: to
//! connect anew where the other end closed a kept connection while nothing was asked on it.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, StatusCode, body, header};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

/// Requests a second, unless told otherwise.
pub const RATE: u32 = 300;

/// How long [`Load::stop_after`] waits for answers.
const UNTIL_ASKED: Duration = Duration::from_secs(60);

/// Connections that are kept, unless told otherwise.
pub const KEPT: u32 = 16;

/// Longest that a request may take, connecting included.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Failures of which everything is remembered.
const REMEMBERED: usize = 50;

/// What is asked, and how often.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Requests a second over kept connections.
    pub kept_rate: u32,
    /// Connections that are kept.
    pub kept: u32,
    /// Requests a second over a new connection each.
    pub new_rate: u32,
    /// Path and query.
    pub path: String,
}

impl Default for Shape {
    fn default() -> Self {
        Self { kept_rate: RATE / 2, kept: KEPT, new_rate: RATE - RATE / 2, path: "/".into() }
    }
}

impl Shape {
    /// Only kept connections.
    pub fn only_kept(rate: u32, kept: u32) -> Self {
        Self { kept_rate: rate, kept, new_rate: 0, ..Self::default() }
    }

    /// Only new connections.
    pub fn only_new(rate: u32) -> Self {
        Self { kept_rate: 0, kept: 0, new_rate: rate, ..Self::default() }
    }

    /// The same for another path.
    pub fn path(self, path: &str) -> Self {
        Self { path: path.into(), ..self }
    }
}

/// Over which kind of connection a request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// One that had answered before, or could have.
    Kept,
    /// One of its own.
    New,
}

/// A request that was not answered as it should be.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When it was sent.
    pub at: Timestamp,
    /// How long it took to fail.
    pub after: Duration,
    /// Over what.
    pub over: Over,
    /// What happened.
    pub reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let over = match self.over {
            Over::Kept => "a kept connection",
            Over::New => "a new connection",
        };
        write!(f, "{} over {over}, after {:?}: {}", self.at, self.after, self.reason)
    }
}

/// What a load met.
#[derive(Debug, Clone, Default)]
pub struct LoadReport {
    /// Requests that were answered with 200, over kept connections.
    pub kept: u64,
    /// Requests that were answered with 200, over new connections.
    pub new: u64,
    /// How often each body came.
    pub bodies: BTreeMap<String, u64>,
    /// Requests that failed.
    pub failed: u64,
    /// The first of them.
    pub failures: Vec<Failure>,
    /// How often a kept connection had to be made anew, because the other end had closed it.
    pub reopened: u64,
    /// Longest that an answer took.
    pub slowest: Duration,
}

impl LoadReport {
    /// Requests that were answered.
    pub fn answered(&self) -> u64 {
        self.kept + self.new
    }

    /// The words at the beginning of the bodies: the versions that answered.
    pub fn versions(&self) -> BTreeMap<String, u64> {
        let mut versions = BTreeMap::new();
        for (body, count) in &self.bodies {
            *versions.entry(body.split_whitespace().next().unwrap_or_default().to_owned()).or_insert(0) += count;
        }
        versions
    }

    /// Fails the test unless every request was answered, and at least `least`.
    ///
    /// # Panics
    /// When one was not.
    #[track_caller]
    fn all_answered(&self, least: u64) {
        assert_eq!(self.failed, 0, "{self}");
        assert!(self.answered() >= least, "only {} requests were answered, not {least}: {self}", self.answered());
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests failed, {} were answered over kept connections and {} over new ones; {} connections were made \
             anew; the slowest answer took {:?}",
            self.failed, self.kept, self.new, self.reopened, self.slowest
        )?;
        for failure in &self.failures {
            write!(f, "\n  {failure}")?;
        }
        if self.failed > self.failures.len() as u64 {
            write!(f, "\n  …")?;
        }
        Ok(())
    }
}

/// A load at work. Dropping it ends it, too.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    tally: Arc<Tally>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Tally {
    answered: AtomicU64,
    failed: AtomicU64,
    report: Mutex<LoadReport>,
}

impl Tally {
    fn report(&self) -> MutexGuard<'_, LoadReport> {
        self.report.lock().expect("no holder of this lock panics")
    }

    fn count(&self, over: Over, at: Timestamp, sent: Instant, outcome: Result<String, String>) {
        let (mut report, after) = (self.report(), sent.elapsed());
        match outcome {
            Ok(body) => {
                match over {
                    Over::Kept => report.kept += 1,
                    Over::New => report.new += 1,
                }
                *report.bodies.entry(body).or_default() += 1;
                report.slowest = report.slowest.max(after);
                self.answered.fetch_add(1, Ordering::Release);
            }
            Err(reason) => {
                report.failed += 1;
                if report.failures.len() < REMEMBERED {
                    report.failures.push(Failure { at, after, over, reason });
                }
                self.failed.fetch_add(1, Ordering::Release);
            }
        }
    }
}

impl Load {
    /// Asks `GET /` of a port, [`RATE`] times a second, over both kinds of connections.
    pub fn start(port: u16) -> Self {
        Self::of(port, Shape::default())
    }

    /// The same in another shape.
    ///
    /// # Panics
    /// When no thread can be made.
    pub fn of(port: u16, shape: Shape) -> Self {
        let (stop, stopped) = watch::channel(false);
        let tally = Arc::new(Tally::default());
        let counted = Arc::clone(&tally);
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
            runtime.block_on(run(port, shape, counted, stopped));
        });
        Self { stop, tally, thread: Some(thread) }
    }

    /// How many requests were answered so far.
    pub fn answered(&self) -> u64 {
        self.tally.answered.load(Ordering::Acquire)
    }

    /// How many requests failed so far.
    pub fn failed(&self) -> u64 {
        self.tally.failed.load(Ordering::Acquire)
    }

    /// What it met so far.
    pub fn so_far(&self) -> LoadReport {
        self.tally.report().clone()
    }

    /// Ends it when at least so many requests were answered, however fast the test was, and fails the test when one
    /// of them was not answered.
    ///
    /// # Panics
    /// When a request fails, or when so many are not answered within a minute.
    #[track_caller]
    pub fn stop_after(self, least: u64) -> LoadReport {
        let begin = Instant::now();
        while self.answered() < least && self.failed() == 0 && begin.elapsed() < UNTIL_ASKED {
            thread::sleep(Duration::from_millis(5));
        }
        let report = self.stop();
        report.all_answered(least);
        report
    }

    /// Ends it once what was asked is answered, and tells what it met.
    ///
    /// # Panics
    /// When the load itself panicked.
    pub fn stop(mut self) -> LoadReport {
        self.stop.send(true).ok();
        let thread = self.thread.take().expect("it is taken here and in drop only");
        thread.join().expect("the load does not panic");
        self.so_far()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.send(true).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

async fn run(port: u16, shape: Shape, tally: Arc<Tally>, stopped: watch::Receiver<bool>) {
    let shape = Arc::new(shape);
    let begin = Instant::now();
    let mut all = JoinSet::new();
    if shape.kept_rate > 0 && shape.kept > 0 {
        let every = Duration::from_secs(1) * shape.kept / shape.kept_rate;
        for number in 0..shape.kept {
            let first = begin + every * number / shape.kept;
            all.spawn(kept(
                port,
                Arc::clone(&shape),
                time::interval_at(first, every),
                Arc::clone(&tally),
                stopped.clone(),
            ));
        }
    }
    if shape.new_rate > 0 {
        let every = time::interval_at(begin, Duration::from_secs(1) / shape.new_rate);
        all.spawn(new(port, shape, every, tally, stopped));
    }
    while all.join_next().await.is_some() {}
}

/// Requests over new connections. Each is sent when it is due, however many wait.
async fn new(
    port: u16,
    shape: Arc<Shape>,
    mut every: time::Interval,
    tally: Arc<Tally>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut all = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => break,
            _ = every.tick() => {}
        }
        let (shape, tally) = (Arc::clone(&shape), Arc::clone(&tally));
        all.spawn(async move {
            let (at, sent) = (Timestamp::now(), Instant::now());
            let asking = async {
                let mut sender = connect(port).await?;
                let response = sender.send_request(request(&shape.path, false)).await.map_err(explain)?;
                body_of(response).await
            };
            let outcome = time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(late()));
            tally.count(Over::New, at, sent, outcome);
        });
        while all.try_join_next().is_some() {}
    }
    while all.join_next().await.is_some() {}
}

/// Requests over one kept connection. What is due while one waits is sent right after it.
async fn kept(
    port: u16,
    shape: Arc<Shape>,
    mut every: time::Interval,
    tally: Arc<Tally>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut open = None;
    loop {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return,
            _ = every.tick() => {}
        }
        let (at, sent) = (Timestamp::now(), Instant::now());
        let asking = ask_kept(&mut open, port, &shape.path, &tally);
        let outcome = time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(late()));
        if outcome.is_err() {
            open = None;
        }
        tally.count(Over::Kept, at, sent, outcome);
    }
}

async fn ask_kept(
    open: &mut Option<SendRequest<Empty<Bytes>>>,
    port: u16,
    path: &str,
    tally: &Tally,
) -> Result<String, String> {
    loop {
        let was_open = open.is_some();
        let mut sender = match open.take() {
            Some(sender) => sender,
            None => connect(port).await?,
        };
        // An error here and a request that comes back say the same: the other end had closed before anything was sent.
        let attempt = match sender.ready().await {
            Ok(()) => sender.try_send_request(request(path, true)).await,
            Err(_) if was_open => {
                tally.report().reopened += 1;
                continue;
            }
            Err(error) => return Err(explain(error)),
        };
        match attempt {
            Ok(response) => {
                let closes = response.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
                let body = body_of(response).await?;
                *open = (!closes && !sender.is_closed()).then_some(sender);
                tally.report().reopened += u64::from(open.is_none());
                return Ok(body);
            }
            Err(mut error) => match error.take_message() {
                Some(_) if was_open => tally.report().reopened += 1,
                _ => return Err(explain(error.into_error())),
            },
        }
    }
}

async fn connect(port: u16) -> Result<SendRequest<Empty<Bytes>>, String> {
    let connecting = async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>(stream)
    };
    let stream = connecting.await.map_err(|error| format!("no connection: {error}"))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(explain)?;
    // How it ends the requests on it tell.
    tokio::spawn(connection);
    Ok(sender)
}

fn request(path: &str, keep: bool) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = path.parse().expect("tests ask for sound paths");
    let headers = request.headers_mut();
    headers.insert(header::HOST, header::HeaderValue::from_static("localhost"));
    if !keep {
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    request
}

async fn body_of(response: Response<body::Incoming>) -> Result<String, String> {
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| format!("cut: {}", explain(error)))?;
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    if status == StatusCode::OK { Ok(body) } else { Err(format!("status {status}: {}", body.trim())) }
}

fn late() -> String {
    format!("no answer within {PATIENCE:?}")
}

/// An error with its causes.
fn explain(error: impl Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{Shutdown, TcpListener};

    use super::*;

    /// A server whose `number`-th answer, counted from 0 over all connections, is what `answer` makes of it. Connections
    /// are kept; an answer of `None` cuts.
    fn server(answer: impl Fn(u64) -> Option<&'static str> + Send + Sync + 'static) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new((AtomicU64::new(0), answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || -> io::Result<()> {
                    let mut reader = BufReader::new(stream?);
                    loop {
                        let mut line = String::new();
                        while reader.read_line(&mut line)? > 2 {
                            line.clear();
                        }
                        if line.is_empty() {
                            return Ok(());
                        }
                        let number = shared.0.fetch_add(1, Ordering::Relaxed);
                        match (shared.1)(number) {
                            Some(text) => reader.get_mut().write_all(text.as_bytes())?,
                            None => return reader.get_mut().shutdown(Shutdown::Both),
                        }
                    }
                });
            }
        });
        port
    }

    const WELL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nv1 x";

    fn after(least: u64, port: u16, shape: Shape) -> LoadReport {
        let load = Load::of(port, shape);
        while load.answered() + load.failed() < least {
            thread::sleep(Duration::from_millis(1));
        }
        load.stop()
    }

    #[test]
    fn a_server_that_answers_fails_no_request_and_both_kinds_come() {
        let report = after(100, server(|_| Some(WELL)), Shape::default());
        report.all_answered(100);
        assert!(report.kept > 20 && report.new > 20, "{report}");
        assert_eq!((report.reopened, report.versions().len(), report.versions()["v1"]), (0, 1, report.answered()));
    }

    #[test]
    fn every_request_that_is_refused_cut_or_answered_badly_is_counted_with_its_reason() {
        for (shape, over) in [(Shape::only_kept(300, 4), Over::Kept), (Shape::only_new(300), Over::New)] {
            for (bad, reason) in [
                (None, "connection closed before message completed"),
                (Some("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"), "status 503"),
            ] {
                let port = server(move |number| if number == 10 { bad } else { Some(WELL) });
                let report = after(60, port, shape.clone());
                assert_eq!(report.failed, 1, "{report}");
                assert_eq!(report.failures[0].over, over);
                assert!(report.failures[0].reason.contains(reason), "{report}");
            }
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(listener);
            let report = after(3, port, shape);
            assert_eq!(report.answered(), 0);
            assert!(report.failures[0].reason.starts_with("no connection: "), "{report}");
        }
    }

    #[test]
    fn an_answer_that_is_cut_in_the_middle_has_failed() {
        let half = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                assert!(stream.read(&mut [0; 1024]).unwrap() > 0, "nothing was asked");
                stream.write_all(half.as_bytes()).ok();
            }
        });
        let report = after(5, port, Shape::only_new(100));
        assert_eq!(report.answered(), 0);
        assert!(report.failures[0].reason.starts_with("cut: "), "{report}");
    }

    #[test]
    fn a_kept_connection_that_is_closed_after_an_answer_is_opened_anew_and_no_request_is_lost() {
        let closing = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nv1 x";
        let report = after(
            100,
            server(move |number| Some(if number % 3 == 0 { closing } else { WELL })),
            Shape::only_kept(300, 4),
        );
        report.all_answered(100);
        assert!(report.reopened > 20, "{report}");
    }
}
