//! What handlers take from a request, and how they answer: always with JSON, also when the request is wrong.

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use cocktail_core::contract::Actor;
use cocktail_core::error::{Error, ErrorKind};
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use super::shared::Shared;

/// How handlers answer.
pub(super) type Answer<T> = Result<Json<T>, Failure>;

/// Who sits at the other end, put into every request by its connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// The uid that the kernel saw when the peer connected.
    pub(super) uid: u32,
}

/// Who gives the command.
pub(super) struct Caller(pub(super) Actor);

impl FromRequestParts<Shared> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Failure> {
        match parts.extensions.get::<Peer>() {
            Some(peer) => Ok(Self(Actor::uid(peer.uid))),
            None => Err(Error::new(ErrorKind::Denied, "nobody knows who asks").into()),
        }
    }
}

/// The object in the path, slashes included.
pub(super) struct Object(pub(super) String);

impl FromRequestParts<Shared> for Object {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Failure> {
        match Path::<String>::from_request_parts(parts, shared).await {
            Ok(Path(object)) => Ok(Self(object)),
            Err(error) => Err(Error::invalid("the path names no object in UTF-8").because(error).into()),
        }
    }
}

/// The query.
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Shared> for Parameters<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Failure> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(error) => Err(Error::invalid("the query cannot be read").because(error).into()),
        }
    }
}

/// A body of JSON, in a request or an answer. No body at all is read as an empty object.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Shared> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, shared: &Shared) -> Result<Self, Failure> {
        read_json(request.into_body(), shared).await.map(Self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
            Err(error) => {
                tracing::error!(%error, "an answer cannot be written as JSON");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

/// Reads a body within the limits of length and time.
pub(super) async fn read_json<T: DeserializeOwned>(body: Body, shared: &Shared) -> Result<T, Failure> {
    let limits = shared.limits();
    let bytes = match tokio::time::timeout(limits.body_time, read_whole(body, limits.body)).await {
        Ok(outcome) => outcome?,
        Err(_) => {
            let error = Error::new(ErrorKind::Deadline, "the body did not come in time");
            return Err(Failure::of_request(StatusCode::REQUEST_TIMEOUT, error));
        }
    };
    let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(text).map_err(|error| Error::invalid("the body cannot be read").because(error).into())
}

/// Reads up to `limit` bytes. Of a longer body a few times as much is read and thrown away, because a client that
/// is still sending when its connection closes would not see why.
async fn read_whole(mut body: Body, limit: usize) -> Result<BytesMut, Failure> {
    let mut kept = BytesMut::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::invalid("the body did not come whole").because(error))?;
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length <= limit {
            kept.extend_from_slice(&data);
        } else {
            kept = BytesMut::new();
        }
        if length > limit.saturating_mul(4) {
            break;
        }
    }
    if length > limit {
        let error = Error::invalid(format!("the body is longer than {limit} bytes"));
        return Err(Failure::of_request(StatusCode::PAYLOAD_TOO_LARGE, error));
    }
    Ok(kept)
}
