//! `GET path` that answers 200 to 399. Redirects are not followed; a body is read only where it may hold numbers.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use cocktail_core::time::human;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::numbers::{self, Numbers};
use crate::{Looked, Seen};

/// Longest head of an answer that is read.
const HEAD: usize = 16 << 10;
/// Longest body that is read for its numbers.
const BODY: u64 = 64 << 10;

/// One request over a connection that is there. `timeout` is named, `deadline` is when it is over.
pub(crate) async fn check(
    stream: TcpStream,
    at: SocketAddr,
    path: &str,
    (timeout, deadline): (Duration, Instant),
    wants_numbers: bool,
) -> Looked {
    match tokio::time::timeout_at(deadline, get(stream, at, path, deadline, wants_numbers)).await {
        Ok(looked) => looked,
        Err(_) => Seen::Bad(format!("GET {path} at {at} did not answer within {}", human(timeout))).into(),
    }
}

async fn get(stream: TcpStream, at: SocketAddr, path: &str, deadline: Instant, wants_numbers: bool) -> Looked {
    let request = Request::get(path)
        .header(HOST, at.to_string())
        .header(USER_AGENT, "cocktail-probe")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let Ok(request) = request else { return Seen::Bad(format!("{path} is no path of a request")).into() };
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD);
    let broken = |error: hyper::Error| Looked::from(Seen::Bad(format!("GET {path} at {at}: {error}")));
    let (mut sender, connection) = match builder.handshake(TokioIo::new(stream)).await {
        Ok(pair) => pair,
        Err(error) => return broken(error),
    };
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let seen = if (200..400).contains(&status) { Seen::Good } else { Seen::Bad };
        // What a late or broken body would have said is not part of the check.
        let numbers = if wants_numbers { numbers_of(answer, deadline).await } else { None };
        Ok(Looked { seen: seen(format!("GET {path} answered {status}")), numbers })
    };
    tokio::pin!(exchange, connection);
    // The connection does the work of the request, and ends with this function.
    let exchanged = tokio::select! {
        biased;
        exchanged = &mut exchange => exchanged,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error),
        },
    };
    exchanged.unwrap_or_else(broken)
}

/// Numbers of an answer in JSON.
async fn numbers_of(answer: Response<Incoming>, deadline: Instant) -> Option<Numbers> {
    if !is_json(&answer) || answer.body().size_hint().lower() > BODY {
        return None;
    }
    let body = Limited::new(answer.into_body(), usize::try_from(BODY).ok()?).collect();
    // A little before the deadline, so that the answer counts.
    let body = tokio::time::timeout_at(deadline - (deadline - Instant::now()) / 10, body).await;
    numbers::of(&body.ok()?.ok()?.to_bytes())
}

/// `application/json`, or a type that ends in `+json`.
fn is_json(answer: &Response<Incoming>) -> bool {
    let Some(Ok(kind)) = answer.headers().get(CONTENT_TYPE).map(|kind| kind.to_str()) else { return false };
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}
