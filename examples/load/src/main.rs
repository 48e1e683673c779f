//! A web worker whose answers cost a known time of CPU: something to scale.
//!
//! `load` serves `127.0.0.1:$PORT` from one thread. Each `GET /` computes for `WORK_US` microseconds of CPU (2,000 unless
//! set), so that one worker is saturated at a known rate: at 500 requests a second with 2,000. `GET /healthy` costs next
//! to nothing. Before it listens it computes for `START_MS` milliseconds (0), as programs do that load a model or fill a
//! cache. TERM lets it finish what it has begun.
//!
//! The time is measured as CPU of this thread, not by a clock: on a busy machine an answer comes later and costs the same.

use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::routing::get;
use rustix::time::{ClockId, clock_gettime};

fn main() -> Result<()> {
    let port = u16::try_from(variable("PORT", None)?).context("PORT is not a port")?;
    let work = Duration::from_micros(variable("WORK_US", Some(2_000))?);
    compute(Duration::from_millis(variable("START_MS", Some(0))?));
    // One thread on purpose: a second core would blur how much one worker can do.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(port, work))
}

async fn serve(port: u16, work: Duration) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.context("cannot listen")?;
    let answer = move || async move {
        compute(work);
        "done\n"
    };
    let router = Router::new().route("/", get(answer)).route("/healthy", get(|| async { "healthy\n" }));
    axum::serve(listener, router).with_graceful_shutdown(ended()).await?;
    Ok(())
}

/// Keeps this thread busy until it has used that much CPU.
fn compute(work: Duration) {
    let begin = used();
    let mut value = 0_u64;
    while used().saturating_sub(begin) < work {
        for step in 0..1_000 {
            value = std::hint::black_box(value.wrapping_mul(31).wrapping_add(step));
        }
    }
}

/// CPU time that this thread has used.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // The kernel counts up from zero, and nanoseconds stay below a second.
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn variable(name: &str, default: Option<u64>) -> Result<u64> {
    match (std::env::var(name), default) {
        (Ok(text), _) => text.parse().with_context(|| format!("{name} is not a number: {text}")),
        (Err(_), Some(default)) => Ok(default),
        (Err(error), None) => Err(error).with_context(|| format!("{name} is not set")),
    }
}

/// Returns at TERM.
#[expect(clippy::disallowed_methods, reason = "this program owns its process")]
async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    if let Ok(mut term) = signal(SignalKind::terminate()) {
        term.recv().await;
    }
}
