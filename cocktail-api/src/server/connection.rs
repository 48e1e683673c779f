//! One connection: who it is, whether there is room, and HTTP on it within limits.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use axum::response::IntoResponse;
use cocktail_core::error::{Error, ErrorKind};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tower_service::Service;

use super::extract::Peer;
use super::failure::Failure;
use super::routes;
use super::shared::Shared;
use super::stall::Stall;

/// Connections beyond the limit that are told so at the same time; more are closed without a word.
const REFUSALS: usize = 32;

/// Time that a connection which is refused has to ask and to take the answer.
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// Decides who comes in.
pub(super) struct Door {
    shared: Shared,
    router: Router,
    uid: u32,
    served: Arc<Semaphore>,
    refused: Arc<Semaphore>,
}

impl Door {
    pub(super) fn new(shared: Shared) -> Self {
        Self {
            router: routes::router(shared.clone()),
            uid: rustix::process::geteuid().as_raw(),
            served: Arc::new(Semaphore::new(shared.limits().connections)),
            refused: Arc::new(Semaphore::new(REFUSALS)),
            shared,
        }
    }

    /// Serves a connection in a task of its own, or refuses it there. Never waits.
    pub(super) fn admit(&self, stream: UnixStream) {
        let peer = match stream.peer_cred() {
            Ok(cred) => Peer { uid: cred.uid() },
            Err(error) => {
                tracing::warn!(%error, "cannot tell who connects to the API");
                return;
            }
        };
        if !may_enter(peer, self.uid) {
            tracing::warn!(uid = peer.uid, "another user was refused at the API");
            let why = format!("uid {} may not command this Manager: only uid {} and root may", peer.uid, self.uid);
            return self.refuse(stream, Error::new(ErrorKind::Denied, why));
        }
        let Ok(place) = Arc::clone(&self.served).try_acquire_owned() else {
            let limit = self.shared.limits().connections;
            tracing::warn!(limit, "a connection to the API was refused: there are too many");
            let why = format!("{limit} connections are open already, which is the limit");
            return self.refuse(stream, Error::unavailable(why));
        };
        let (shared, router) = (self.shared.clone(), self.router.clone());
        self.shared.spawn(async move {
            let _place = place;
            serve(stream, peer, router, &shared).await;
        });
    }

    fn refuse(&self, stream: UnixStream, error: Error) {
        let Ok(place) = Arc::clone(&self.refused).try_acquire_owned() else { return };
        self.shared.spawn(async move {
            let _place = place;
            let service = service_fn(move |mut request: Request<Incoming>| {
                let response = Failure::from(error.clone()).into_response();
                async move {
                    // A client that is still sending when its connection closes would not see why.
                    while let Some(Ok(_)) = request.frame().await {}
                    Ok::<_, Infallible>(response)
                }
            });
            let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
            // Whether it listened makes no difference to us.
            let _ = tokio::time::timeout(REFUSAL_TIME, connection).await;
        });
    }
}

/// The user that the Manager runs as, and root, who could become that user anyway.
fn may_enter(peer: Peer, ours: u32) -> bool {
    peer.uid == ours || peer.uid == 0
}

async fn serve(stream: UnixStream, peer: Peer, router: Router, shared: &Shared) {
    let limits = shared.limits();
    let io = TokioIo::new(Stall::new(stream, limits.stall));
    let service = service_fn(move |request| answer(router.clone(), peer, request));
    let connection = http1::Builder::new()
        // Without a timer the limit on the head would silently not be there.
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(limits.head.max(8 << 10))
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        biased;
        () = shared.ending().cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        outcome = connection.as_mut() => outcome,
    };
    if let Err(error) = outcome {
        tracing::debug!(uid = peer.uid, error = &error as &dyn std::error::Error, "an API connection ended early");
    }
}

async fn answer(mut router: Router, peer: Peer, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    request.extensions_mut().insert(peer);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = router.call(request).await?;
    let status = response.status().as_u16();
    if response.status() == axum::http::StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(uid = peer.uid, %method, path, status, "a request failed for a reason of ours");
    } else {
        tracing::debug!(uid = peer.uid, %method, path, status, "answered");
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_user_and_root_may_enter() {
        assert!(may_enter(Peer { uid: 1_000 }, 1_000));
        assert!(may_enter(Peer { uid: 0 }, 1_000));
        assert!(!may_enter(Peer { uid: 1_001 }, 1_000));
        assert!(!may_enter(Peer { uid: 1_000 }, 0));
    }
}
