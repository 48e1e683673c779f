//! Streams of events and logs: one JSON object a line, taken from the Manager only as fast as the client reads.
//!
//! A stream that ends well ends its body well. An error is a line of its own; when the API ends, the last line says
//! so, and a body that is cut off means that the Manager died.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use cocktail_core::error::{Error, Result};
use futures_util::stream::{self, BoxStream, StreamExt};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::extract::{Object, Parameters};
use super::failure::Failure;
use super::shared::Shared;
use crate::wire::{EventQuery, LogQuery, Output, error_view};

/// Items that are sent together when that many are there already.
const TOGETHER: usize = 64;

pub(super) async fn events(
    State(shared): State<Shared>,
    Parameters(query): Parameters<EventQuery>,
) -> Result<Response, Failure> {
    let room = shared.stream()?;
    let events = shared.manager().events(&query.into()).await?;
    Ok(lines(events, &shared, room))
}

pub(super) async fn logs(
    State(shared): State<Shared>,
    Object(object): Object,
    Parameters(query): Parameters<LogQuery>,
) -> Result<Response, Failure> {
    let options = query.try_into()?;
    let room = shared.stream()?;
    let logs = shared.manager().logs(&object, &options).await?;
    Ok(lines(logs.map(|line| line.map(Output::from)).boxed(), &shared, room))
}

fn lines<T: Serialize + Send + 'static>(
    items: BoxStream<'static, Result<T>>,
    shared: &Shared,
    room: OwnedSemaphorePermit,
) -> Response {
    let ending = shared.ending().clone();
    let open = Some((items.ready_chunks(TOGETHER), room));
    let body = stream::unfold(open, move |open| {
        let ending = ending.clone();
        async move {
            let (mut items, room) = open?;
            tokio::select! {
                biased;
                () = ending.cancelled() => {
                    let text = text_of::<T>(&[Err(Error::unavailable("the Manager ends"))]);
                    Some((text, None))
                }
                some = items.next() => Some((text_of(&some?), Some((items, room)))),
            }
        }
    });
    let body = Body::from_stream(body.map(Ok::<Bytes, std::convert::Infallible>));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

fn text_of<T: Serialize>(items: &[Result<T>]) -> Bytes {
    let mut text = Vec::new();
    for item in items {
        let from = text.len();
        let written = match item {
            Ok(item) => serde_json::to_writer(&mut text, item),
            Err(error) => serde_json::to_writer(&mut text, &error_view(error)),
        };
        match written {
            Ok(()) => text.push(b'\n'),
            Err(error) => {
                tracing::error!(%error, "an item of a stream cannot be written as JSON");
                text.truncate(from);
            }
        }
    }
    text.into()
}
