//! Streams of events, logs, builds and endpoints: one JSON value a line, taken from the Manager only as fast as the client reads.
//! Endpoints also come as server-sent events, for whoever asks for `text/event-stream`.
//!
//! A stream that ends well ends its body well. An error is a line of its own; when the API ends, the last line says
//! so, and a body that is cut off means that the Manager died.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use cocktail_core::contract::EndpointStream;
use cocktail_core::error::{Error, Result};
use cocktail_core::view::EndpointView;
use futures_util::stream::{self, BoxStream, StreamExt};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::extract::{Object, Parameters};
use super::failure::Failure;
use super::shared::Shared;
use crate::wire::{EventQuery, LogQuery, Output, WatchQuery, error_view};

/// What is accepted by whoever wants server-sent events.
const SERVER_SENT: &str = "text/event-stream";

/// Longest silence of a stream of server-sent events: whoever reads finds out that the other end is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

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

pub(super) async fn endpoints(
    State(shared): State<Shared>,
    Parameters(query): Parameters<WatchQuery>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let room = shared.stream()?;
    let endpoints = shared.manager().watch_endpoints(query.unit.as_deref()).await?;
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    Ok(match accepts.contains(SERVER_SENT) {
        true => server_sent(endpoints, &shared, room),
        false => lines(endpoints, &shared, room),
    })
}

pub(super) async fn builds(State(shared): State<Shared>) -> Result<Response, Failure> {
    let room = shared.stream()?;
    let builds = shared.manager().builds().await?;
    Ok(lines(builds, &shared, room))
}

/// A stream of server-sent events, which browsers and `curl -N` read: `endpoints` with the JSON, `error` with the last one.
/// It ends with the API; whoever reads connects again.
fn server_sent(endpoints: EndpointStream, shared: &Shared, room: OwnedSemaphorePermit) -> Response {
    let endpoints = endpoints.take_until(shared.ending().clone().cancelled_owned());
    let events = stream::unfold((Box::pin(endpoints), room), |(mut endpoints, room)| async {
        let event = match timeout(KEEP_ALIVE, endpoints.next()).await {
            Ok(told) => event_of(told?),
            Err(_) => Ok(Event::default().comment("")),
        };
        Some((event, (endpoints, room)))
    });
    Sse::new(events).into_response()
}

fn event_of(told: Result<Vec<EndpointView>>) -> serde_json::Result<Event> {
    let (name, text) = match told {
        Ok(endpoints) => ("endpoints", serde_json::to_string(&endpoints)),
        Err(error) => ("error", serde_json::to_string(&error_view(&error))),
    };
    text.map(|text| Event::default().event(name).data(text))
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
