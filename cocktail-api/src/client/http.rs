//! One request on one connection, and what its failure means.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::view::ErrorView;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Parts;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::address::{Address, data_dir};
use crate::wire::{EXEC_PROTOCOL, error_from};

/// Longest answer that is taken, in bytes: a hundred thousand containers, and not the memory of the caller.
const LONGEST_ANSWER: usize = 128 << 20;

const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const IN_PATH: &AsciiSet = &IN_QUERY.remove(b'/');

/// The path of `verb` for an object, slashes kept.
///
/// # Errors
/// `NotFound` for the empty name, which has no path.
pub(super) fn object_path(verb: &str, object: &str) -> Result<String> {
    if object.is_empty() {
        return Err(Error::not_found("no object has an empty name"));
    }
    Ok(format!("/v1/{verb}/{}", utf8_percent_encode(object, IN_PATH)))
}

/// `path` with the parameters that have a value.
pub(super) fn query(mut path: String, parameters: &[(&str, Option<String>)]) -> String {
    let mut join = '?';
    for (key, value) in parameters {
        if let Some(value) = value {
            path.extend([join]);
            path.extend([*key, "="]);
            path.extend(utf8_percent_encode(value, IN_QUERY));
            join = '&';
        }
    }
    path
}

/// Connects to a Manager.
pub(super) async fn open(socket: &Path) -> Result<UnixStream> {
    let stream = match Address::of(socket) {
        Ok(address) => UnixStream::connect(address.path()).await,
        Err(error) => Err(error),
    };
    stream.map_err(|error| {
        let dir = data_dir(socket);
        let (kind, message) = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                (ErrorKind::Unavailable, format!("no Manager runs for {dir}"))
            }
            io::ErrorKind::PermissionDenied => {
                (ErrorKind::Denied, format!("the Manager for {dir} belongs to another user"))
            }
            io::ErrorKind::WouldBlock => (ErrorKind::Unavailable, format!("the Manager for {dir} is overrun")),
            _ => (ErrorKind::Unavailable, format!("cannot reach the Manager for {dir}")),
        };
        Error::new(kind, message).because(error)
    })
}

/// A request that is not sent yet.
#[derive(Debug)]
pub(super) struct Call<'a> {
    socket: &'a Path,
    patience: Option<Duration>,
    method: Method,
    path: String,
    body: Bytes,
    changes: bool,
}

impl<'a> Call<'a> {
    pub(super) fn get(socket: &'a Path, patience: Option<Duration>, path: String) -> Self {
        Self { socket, patience, method: Method::GET, path, body: Bytes::new(), changes: false }
    }

    pub(super) fn post(
        socket: &'a Path,
        patience: Option<Duration>,
        path: String,
        body: &impl Serialize,
    ) -> Result<Self> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Error::invalid("the request cannot be written as JSON").because(error))?;
        Ok(Self { socket, patience, method: Method::POST, path, body: body.into(), changes: true })
    }

    /// Says that the request may be repeated without a thought.
    pub(super) fn changes_nothing(mut self) -> Self {
        self.changes = false;
        self
    }

    /// Sends it and reads the answer.
    pub(super) async fn answer<T: DeserializeOwned>(self) -> Result<T> {
        let changes = self.changes;
        within(self.patience, async move {
            let response = self.send(false).await?;
            let bytes = whole(response.into_body()).await.map_err(|error| lost(changes, error))?;
            serde_json::from_slice(&bytes)
                .map_err(|error| Error::unexpected("the Manager's answer cannot be read").because(error))
        })
        .await
    }

    /// Sends it and gives the body as it comes.
    pub(super) async fn stream(self) -> Result<Incoming> {
        within(self.patience, async move { Ok(self.send(false).await?.into_body()) }).await
    }

    /// Sends it, and takes the connection over when the Manager agrees.
    pub(super) async fn upgrade(self) -> Result<Parts<TokioIo<UnixStream>>> {
        within(self.patience, async move {
            let response = self.send(true).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(Error::unexpected("the Manager did not open a session"));
            }
            let upgraded = hyper::upgrade::on(response)
                .await
                .map_err(|error| Error::unavailable("the Manager went away").because(error))?;
            upgraded.downcast().map_err(|_| Error::unexpected("a session came over something else than our socket"))
        })
        .await
    }

    async fn send(self, upgrade: bool) -> Result<Response<Incoming>> {
        let stream = open(self.socket).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Error::unavailable("the Manager went away").because(error))?;
        // It ends with the answer's body, or with the session, or when either is dropped.
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::builder().method(self.method).uri(self.path).header(header::HOST, "cocktail");
        if upgrade {
            request = request.header(header::CONNECTION, "upgrade").header(header::UPGRADE, EXEC_PROTOCOL);
        }
        if !self.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(self.body))
            .map_err(|error| Error::invalid("the name of the object is too long").because(error))?;
        let response = sender.try_send_request(request).await.map_err(|mut failed| {
            let sent = failed.take_message().is_none();
            lost(self.changes && sent, failed.into_error().into())
        })?;
        if response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let status = response.status();
        let told = whole(response.into_body()).await.ok();
        match told.and_then(|bytes| serde_json::from_slice::<ErrorView>(&bytes).ok()) {
            Some(view) => Err(error_from(view)),
            None => Err(Error::new(kind_of(status), format!("the Manager answered {status} and did not say why"))),
        }
    }
}

/// The kind of an answer without one: the server's HTTP layer refused it, or a newer Manager has newer kinds.
fn kind_of(status: StatusCode) -> ErrorKind {
    match status {
        StatusCode::FORBIDDEN => ErrorKind::Denied,
        StatusCode::CONFLICT => ErrorKind::Conflict,
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::URI_TOO_LONG
        | StatusCode::UNPROCESSABLE_ENTITY
        | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => ErrorKind::InvalidConfig,
        StatusCode::SERVICE_UNAVAILABLE => ErrorKind::Unavailable,
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => ErrorKind::Deadline,
        StatusCode::NOT_IMPLEMENTED | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => ErrorKind::Unsupported,
        _ => ErrorKind::Unexpected,
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The answer did not come: a query did nothing, a command may have acted.
fn lost(may_have_acted: bool, error: BoxError) -> Error {
    let error = io::Error::other(error);
    if may_have_acted {
        let message = "the Manager went away before it answered: the command may have been carried out or not";
        Error::new(ErrorKind::OutcomeUnknown, message).because(error)
    } else {
        Error::unavailable("the Manager went away before it answered").because(error)
    }
}

async fn whole(body: Incoming) -> Result<Bytes, BoxError> {
    Ok(Limited::new(body, LONGEST_ANSWER).collect().await?.to_bytes())
}

async fn within<T>(patience: Option<Duration>, call: impl Future<Output = Result<T>>) -> Result<T> {
    let Some(patience) = patience else { return call.await };
    tokio::time::timeout(patience, call).await.unwrap_or_else(|_| {
        let waited = cocktail_core::time::human(patience);
        Err(Error::new(ErrorKind::Deadline, format!("the Manager did not answer within {waited}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_stand_as_they_are_and_everything_odd_is_quoted() {
        assert_eq!(object_path("why", "shop/prod/web").unwrap(), "/v1/why/shop/prod/web");
        assert_eq!(object_path("why", "a?b#c d%é").unwrap(), "/v1/why/a%3Fb%23c%20d%25%C3%A9");
        assert!(object_path("why", "").is_err());
    }

    #[test]
    fn a_query_holds_what_is_asked_for_only() {
        let path = query("/v1/events".into(), &[("a", None), ("b", Some("x&y".into())), ("c", Some("1".into()))]);
        assert_eq!(path, "/v1/events?b=x%26y&c=1");
    }
}
