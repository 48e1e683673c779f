//! A web service that runs and scales its own workers, and is restarted without losing them.
//!
//! `embed` serves `127.0.0.1:3000` (`EMBED_PORT` chooses another). Its workers are the same program, started as
//! `embed worker`, behind the service port 3080 (`EMBED_WORKERS_PORT`).
//!
//! ```text
//! GET  /workers       what runs
//! PUT  /workers/5     have five of them
//! ```
//!
//! End it with Ctrl-C or TERM and start it again: the workers never noticed, and the service port answered all the time.
//! `embed down` ends the workers, too.
#![expect(clippy::print_stdout, reason = "a program for people")]

mod service;
mod worker;

use std::sync::Arc;

use anyhow::Result;
use cocktail::{Actor, Cocktail, Manager, ShutdownMode};

fn main() -> Result<()> {
    // First line: the same program is its own keeper.
    cocktail::init();
    match std::env::args().nth(1).as_deref() {
        Some("worker") => run(worker::run()),
        Some("down") => run(down()),
        None => run(service()),
        Some(other) => anyhow::bail!("embed [worker | down], not {other:?}"),
    }
}

/// One thread is plenty for a service of this size; the Manager runs on it, too.
fn run(main: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(main)
}

async fn service() -> Result<()> {
    let manager = Cocktail::builder().data_dir(data_dir()).start().await?;
    manager.apply(&[service::manifest()?], &Actor::embedder()).await?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port("EMBED_PORT", 3000)?)).await?;
    println!("http://{}/workers", listener.local_addr()?);
    let router = service::router(Arc::new(manager.clone()));
    axum::serve(listener, router).with_graceful_shutdown(ended()).await?;
    // The workers go on; the next start of this program adopts them.
    manager.shutdown(ShutdownMode::Leave).await?;
    Ok(())
}

async fn down() -> Result<()> {
    let manager = Cocktail::builder().data_dir(data_dir()).start().await?;
    manager.down(&Actor::embedder()).await?;
    manager.shutdown(ShutdownMode::Stop).await?;
    Ok(())
}

fn data_dir() -> String {
    std::env::var("COCKTAIL_DATA_DIR").unwrap_or_else(|_| ".cocktail".into())
}

/// A port from the environment.
fn port(variable: &str, default: u16) -> Result<u16> {
    match std::env::var(variable) {
        Ok(text) => Ok(text.parse()?),
        Err(_) => Ok(default),
    }
}

/// Returns at TERM or Ctrl-C. Signals are the program's business, not the library's.
#[expect(clippy::disallowed_methods, reason = "this program owns its process")]
async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}
