//! Workers' own metrics: `GET` of each ready container's endpoint, beside everything else.
//!
//! One round at a time, in a task of its own: however long the endpoints take, the other samples are not late. What a
//! round found is used until it is too old; an endpoint that is silent says nothing, not what it said before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cocktail_core::id::ContainerId;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::exposition;

/// Longest time for one endpoint.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Longest answer that is read.
const MOST_BYTES: usize = 1 << 20;
/// Longest head of an answer.
const HEAD: usize = 64 << 10;
/// Endpoints that are asked at once.
const AT_ONCE: usize = 32;
/// Metrics that are kept of one container, beside those that somebody asked for.
const MOST_METRICS: usize = 64;

/// One endpoint.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) container: ContainerId,
    pub(super) at: SocketAddr,
    pub(super) path: String,
    /// Metrics that are kept in any case.
    pub(super) wanted: BTreeSet<String>,
}

/// Asks endpoints and remembers what they said. Dropping it ends the round.
#[derive(Debug)]
pub(super) struct Scraper {
    /// How long an answer is used.
    fresh: Duration,
    found: Arc<Mutex<BTreeMap<ContainerId, Found>>>,
    round: JoinSet<()>,
}

#[derive(Debug)]
struct Found {
    at: Instant,
    metrics: BTreeMap<String, f64>,
    /// Why there are none now.
    error: Option<String>,
}

impl Scraper {
    pub(super) fn new(interval: Duration) -> Self {
        Self { fresh: interval * 2 + TIMEOUT, found: Arc::default(), round: JoinSet::new() }
    }

    /// Begins a round, unless the last one still runs.
    pub(super) fn begin(&mut self, targets: Vec<Target>) {
        while self.round.try_join_next().is_some() {}
        if !self.round.is_empty() {
            return;
        }
        let named: BTreeSet<ContainerId> = targets.iter().map(|target| target.container.clone()).collect();
        lock(&self.found).retain(|container, _| named.contains(container));
        if targets.is_empty() {
            return;
        }
        let found = self.found.clone();
        self.round.spawn(async move {
            let all = futures_util::stream::iter(targets.into_iter().map(ask)).buffer_unordered(AT_ONCE);
            all.for_each(|(target, answer)| {
                note(&mut lock(&found), target, answer);
                std::future::ready(())
            })
            .await;
        });
    }

    /// What a container said last, unless that is too long ago.
    pub(super) fn metrics(&self, container: &ContainerId) -> BTreeMap<String, f64> {
        let found = lock(&self.found);
        let found = found.get(container).filter(|found| found.at.elapsed() <= self.fresh);
        found.map(|found| found.metrics.clone()).unwrap_or_default()
    }
}

/// Keeps an answer, and tells once when an endpoint fails or recovers.
fn note(found: &mut BTreeMap<ContainerId, Found>, target: Target, answer: Result<BTreeMap<String, f64>, String>) {
    let Target { container, at, path, wanted } = target;
    let failed = found.get(&container).and_then(|found| found.error.as_ref());
    match &answer {
        Err(error) if failed != Some(error) => warn!(%container, %at, path, error, "metrics cannot be scraped"),
        Ok(_) if failed.is_some() => info!(%container, %at, path, "metrics can be scraped again"),
        _ => {}
    }
    let error = answer.as_ref().err().cloned();
    let mut others = 0;
    let mut metrics = answer.unwrap_or_default();
    metrics.retain(|name, _| {
        let asked = wanted.contains(name);
        others += usize::from(!asked);
        asked || others <= MOST_METRICS
    });
    found.insert(container, Found { at: Instant::now(), metrics, error });
}

async fn ask(target: Target) -> (Target, Result<BTreeMap<String, f64>, String>) {
    let answer = match tokio::time::timeout(TIMEOUT, get(target.at, &target.path)).await {
        Ok(Ok(body)) => Ok(exposition::sums(&String::from_utf8_lossy(&body))),
        Ok(Err(error)) => Err(error),
        Err(_) => Err("no answer within a second".to_owned()),
    };
    (target, answer)
}

/// The body of an answer. Redirects are not followed.
async fn get(at: SocketAddr, path: &str) -> Result<Bytes, String> {
    let stream = TcpStream::connect(at).await.map_err(|error| error.kind().to_string())?;
    if stream.local_addr().ok() == Some(at) {
        // A free port in the kernel's own range can connect to itself.
        return Err("connection refused".to_owned());
    }
    let request = Request::get(path)
        .header(HOST, at.to_string())
        .header(USER_AGENT, "cocktail-scrape")
        .header(ACCEPT, "text/plain")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| format!("{path} is no path of a request"))?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(text)?;
    let answer = async move {
        let answer = sender.send_request(request).await.map_err(text)?;
        match answer.status() {
            StatusCode::OK => {
                let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
                body.map(|body| body.to_bytes()).map_err(|error| error.to_string())
            }
            status => Err(format!("it answered {}", status.as_u16())),
        }
    };
    tokio::pin!(answer, connection);
    // The connection does the work of the request, and ends with this function.
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(text(error)),
        },
    }
}

fn text(error: hyper::Error) -> String {
    error.to_string()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Only single inserts and reads happen under the lock: the map is whole after any panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "scrape_tests.rs"]
mod tests;
