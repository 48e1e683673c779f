//! Metrics over TCP, for a Prometheus that cannot reach the socket of the API.
//!
//! Start at [`MetricsListener`]. Whoever reaches the address may read it: it tells names and numbers, changes nothing,
//! and answers `GET /metrics` only.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use cocktail_core::contract::Manager;
use cocktail_core::error::{Error, ErrorKind, Result};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{CONTENT_TYPE, metrics};
use crate::server::stall::Stall;

/// Connections at a time; more are closed without an answer.
const CONNECTIONS: usize = 32;

/// Time in which the head of a request must come, and that a client may leave an answer untaken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time that connections get to end with the listener.
const GRACE: Duration = Duration::from_secs(1);

/// A TCP address that answers `GET /metrics`, and nothing else.
#[derive(Debug)]
pub struct MetricsListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl MetricsListener {
    /// Listens on an address; port 0 takes a free one.
    ///
    /// # Errors
    /// `Conflict` when somebody else listens there, `Denied` or `InvalidConfig` when the system refuses.
    pub async fn bind(address: SocketAddr) -> Result<Self> {
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bound.await.map_err(|error: std::io::Error| {
            let kind = match error.kind() {
                std::io::ErrorKind::AddrInUse => ErrorKind::Conflict,
                std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                _ => ErrorKind::InvalidConfig,
            };
            Error::new(kind, format!("cannot answer for metrics on {address}")).because(error)
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers for `manager` until `shutdown` comes; then connections have a second to end.
    pub async fn run(self, manager: Arc<dyn Manager>, shutdown: impl Future<Output = ()> + Send) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let (tasks, ending) = (TaskTracker::new(), CancellationToken::new());
        let closed = CancellationToken::new();
        let _close = closed.clone().drop_guard();
        let mut shutdown = pin!(shutdown);
        loop {
            let stream = tokio::select! {
                biased;
                () = &mut shutdown => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // No descriptors left: it passes.
                        tracing::warn!(%error, "cannot accept a connection for metrics");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let (manager, ending, closed) = (Arc::clone(&manager), ending.clone(), closed.clone());
            tasks.spawn(async move {
                let _place = place;
                tokio::select! {
                    biased;
                    () = closed.cancelled() => {}
                    () = serve(stream, manager, &ending) => {}
                }
            });
        }
        ending.cancel();
        tasks.close();
        // Whoever is slower loses its connection when the guard goes.
        let _ = tokio::time::timeout(GRACE, tasks.wait()).await;
    }
}

async fn serve(stream: TcpStream, manager: Arc<dyn Manager>, ending: &CancellationToken) {
    let service = service_fn(|request| answer(Arc::clone(&manager), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(Stall::new(stream, PATIENCE)), service);
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        biased;
        () = ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        outcome = connection.as_mut() => outcome,
    };
    if let Err(error) = outcome {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection for metrics ended early");
    }
}

async fn answer(manager: Arc<dyn Manager>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != "/metrics" {
        return Ok(plain(StatusCode::NOT_FOUND, "only /metrics is here\n".into()));
    }
    if request.method() != Method::GET {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "metrics are only read\n".into());
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return Ok(response);
    }
    Ok(match metrics(&*manager).await {
        Ok(text) => {
            let mut response = plain(StatusCode::OK, text);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
            response
        }
        Err(error) => {
            tracing::warn!(error = error.chain(), "no metrics for whoever asks");
            // Why is in the log: strangers may ask here.
            plain(StatusCode::SERVICE_UNAVAILABLE, "the Manager does not answer\n".into())
        }
    })
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
