//! A client that keeps asking while a test does something, and counts what went wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::http::{self, Connection};

/// Pause between two requests: a test shares two cores with what it tests.
const PAUSE: Duration = Duration::from_millis(2);

/// How long [`Client::stop_after`] waits for answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client at work. Dropping it ends it, too.
#[derive(Debug)]
pub struct Client {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: Option<JoinHandle<Report>>,
}

/// What a client met.
#[derive(Debug, Default)]
pub struct Report {
    /// Requests that were answered with 200.
    pub answered: u64,
    /// How often each body came.
    pub bodies: BTreeMap<String, u64>,
    /// What went wrong, with the time since the beginning.
    pub failures: Vec<String>,
    /// Longest that one request took.
    pub slowest: Duration,
}

impl Client {
    /// Asks `GET /` of a port over a new connection each time.
    pub fn with_new_connections(port: u16) -> Self {
        Self::start(move || http::get(port, "/"))
    }

    /// Asks `GET /` of a port over one connection. After a failure it connects anew.
    pub fn with_one_connection(port: u16) -> Self {
        let mut open: Option<Connection> = None;
        Self::start(move || {
            let mut connection = match open.take() {
                Some(connection) => connection,
                None => Connection::open(port)?,
            };
            let answer = connection.get("/", true)?;
            open = Some(connection);
            Ok(answer)
        })
    }

    fn start(mut ask: impl FnMut() -> std::io::Result<http::Answer> + Send + 'static) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ending, count) = (Arc::clone(&stop), Arc::clone(&answered));
        let thread = thread::spawn(move || {
            let (begin, mut report) = (Instant::now(), Report::default());
            while !ending.load(Ordering::Acquire) {
                let asked = Instant::now();
                match ask() {
                    Ok(answer) if answer.status == 200 => {
                        report.answered += 1;
                        *report.bodies.entry(answer.body).or_default() += 1;
                        count.fetch_add(1, Ordering::Release);
                    }
                    Ok(answer) => report.failures.push(format!("{:?}: status {}", begin.elapsed(), answer.status)),
                    Err(error) => report.failures.push(format!("{:?}: {error}", begin.elapsed())),
                }
                report.slowest = report.slowest.max(asked.elapsed());
                thread::sleep(PAUSE);
            }
            report
        });
        Self { stop, answered, thread: Some(thread) }
    }

    /// How many requests were answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }

    /// Ends it when at least so many requests were answered, however fast the test was, and fails the test when one
    /// of them was not answered.
    ///
    /// # Panics
    /// When a request fails, or when so many are not answered within a minute.
    #[track_caller]
    pub fn stop_after(self, least: u64) -> Report {
        let begin = Instant::now();
        while self.answered() < least && begin.elapsed() < PATIENCE {
            thread::sleep(PAUSE);
        }
        let report = self.stop();
        assert!(report.failures.is_empty(), "{} requests failed: {:#?}", report.failures.len(), report.failures);
        assert!(report.answered >= least, "only {} requests were answered, not {least}", report.answered);
        report
    }

    /// Ends it, and tells what it met.
    pub fn stop(mut self) -> Report {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().expect("it is taken here and in drop only");
        thread.join().expect("the client does not panic")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
