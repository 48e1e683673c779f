//! `GET path` that answers 200 to 399. Redirects are not followed, bodies are not read.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use cocktail_core::time::human;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;

use super::{Seen, tcp};

/// Longest head of an answer that is read.
const HEAD: usize = 16 << 10;

pub(super) async fn check(at: SocketAddr, path: &str, timeout: Duration) -> Seen {
    match tokio::time::timeout(timeout, get(at, path)).await {
        Ok(seen) => seen,
        Err(_) => Seen::Bad(format!("GET {path} at {at} did not answer within {}", human(timeout))),
    }
}

async fn get(at: SocketAddr, path: &str) -> Seen {
    let stream = match tcp::connect(at).await {
        Ok(stream) => stream,
        Err(seen) => return seen,
    };
    let request = Request::get(path)
        .header(HOST, at.to_string())
        .header(USER_AGENT, "cocktail-probe")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let Ok(request) = request else { return Seen::Bad(format!("{path} is no path of a request")) };
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD);
    let broken = |error: hyper::Error| Seen::Bad(format!("GET {path} at {at}: {error}"));
    let (mut sender, connection) = match builder.handshake(TokioIo::new(stream)).await {
        Ok(pair) => pair,
        Err(error) => return broken(error),
    };
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    // The connection does the work of the request, and ends with this function.
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    };
    match answer {
        Ok(answer) if (200..400).contains(&answer.status().as_u16()) => {
            Seen::Good(format!("GET {path} answered {}", answer.status().as_u16()))
        }
        Ok(answer) => Seen::Bad(format!("GET {path} answered {}", answer.status().as_u16())),
        Err(error) => broken(error),
    }
}
