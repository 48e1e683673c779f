//! Streams: they follow, they end, and nobody waits for a follower.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cocktail_api::ApiLimits;
use cocktail_core::contract::{EventFilter, Manager};
use cocktail_core::error::{Error, ErrorKind};
use cocktail_core::view::{BuildLine, EndpointView, EventView};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use crate::support::{Running, build_line, endpoint, event};

fn follow() -> EventFilter {
    EventFilter { follow: true, ..EventFilter::default() }
}

/// Gives the fake a stream that is fed by hand. The receiver fails when the stream is dropped.
fn feed(api: &Running) -> (mpsc::Sender<Result<EventView, Error>>, oneshot::Receiver<()>) {
    let (to, from) = mpsc::channel(16);
    let (kept, dropped) = oneshot::channel::<()>();
    let events = stream::unfold((from, kept), |(mut from, kept)| async move {
        let item = mpsc::Receiver::recv(&mut from).await?;
        Some((item, (from, kept)))
    });
    *api.fake.events.lock().unwrap() = Some(events.boxed());
    (to, dropped)
}

#[tokio::test]
async fn an_event_arrives_while_the_stream_goes_on() {
    let api = Running::start().await;
    let (to, _dropped) = feed(&api);
    let mut events = api.client().await.events(&follow()).await.unwrap();
    for seq in 1..=3 {
        to.send(Ok(event(seq))).await.unwrap();
        assert_eq!(events.next().await.unwrap().unwrap(), event(seq));
    }
    drop(to);
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn an_error_in_a_stream_arrives_in_its_place() {
    let api = Running::start().await;
    let (to, _dropped) = feed(&api);
    let mut events = api.client().await.events(&follow()).await.unwrap();
    to.send(Ok(event(1))).await.unwrap();
    to.send(Err(Error::refused("the reader fell behind"))).await.unwrap();
    to.send(Ok(event(9))).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap(), event(1));
    assert_eq!(events.next().await.unwrap().unwrap_err().kind(), &ErrorKind::Refused);
    assert_eq!(events.next().await.unwrap().unwrap(), event(9));
}

#[tokio::test]
async fn many_items_arrive_whole_and_in_order() {
    let api = Running::start().await;
    *api.fake.events.lock().unwrap() = Some(stream::iter((1..=20_000).map(|seq| Ok(event(seq)))).boxed());
    let events = api.client().await.events(&follow()).await.unwrap();
    let seqs: Vec<u64> = events.map_ok(|event| event.seq).try_collect().await.unwrap();
    assert!(seqs.into_iter().eq(1..=20_000));
}

#[tokio::test]
async fn a_stream_that_the_client_drops_is_dropped_at_the_manager() {
    let api = Running::start().await;
    let (_to, dropped) = feed(&api);
    let events = api.client().await.events(&follow()).await.unwrap();
    drop(events);
    dropped.await.unwrap_err();
}

#[tokio::test]
async fn a_stream_ends_as_unavailable_when_the_api_ends() {
    let mut api = Running::start().await;
    let (_to, _dropped) = feed(&api);
    let mut events = api.client().await.events(&follow()).await.unwrap();
    api.ask_to_end();
    let error = events.next().await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.message()), (&ErrorKind::Unavailable, "the Manager ends"));
    assert!(events.next().await.is_none());
    api.ended().await;
}

#[tokio::test]
async fn a_stream_ends_as_unavailable_when_the_manager_dies() {
    let mut api = Running::start().await;
    let (to, _dropped) = feed(&api);
    let client = api.client().await;
    let mut events = client.events(&follow()).await.unwrap();
    to.send(Ok(event(1))).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap(), event(1));
    api.die().await;
    assert_eq!(events.next().await.unwrap().unwrap_err().kind(), &ErrorKind::Unavailable);
    assert!(events.next().await.is_none());
    let error = client.units().await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable);
    assert_eq!(error.message(), format!("no Manager runs for {}", api.folder.path().display()));
}

#[tokio::test]
async fn a_follower_that_does_not_read_is_dropped() {
    let api = Running::with(ApiLimits { stall: Duration::from_millis(100), ..ApiLimits::default() }).await;
    let (kept, dropped) = oneshot::channel::<()>();
    let given = Arc::new(AtomicU64::new(0));
    let counter = given.clone();
    let endless = stream::unfold(kept, move |kept| {
        let seq = counter.fetch_add(1, Ordering::Relaxed);
        async move { Some((Ok(event(seq)), kept)) }
    });
    *api.fake.events.lock().unwrap() = Some(endless.boxed());
    let mut follower = tokio::net::UnixStream::connect(api.socket()).await.unwrap();
    follower.write_all(b"GET /v1/events?follow=true HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    dropped.await.unwrap_err();
    // What was taken from the Manager is what fits into buffers, not what it could have given meanwhile.
    assert!(given.load(Ordering::Relaxed) < 20_000, "{given:?}");
    drop(follower);
    api.client().await.about().await.unwrap();
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_until_one_ends() {
    let api = Running::with(ApiLimits { streams: 1, ..ApiLimits::default() }).await;
    let (_to, dropped) = feed(&api);
    let client = api.client().await;
    let first = client.events(&follow()).await.unwrap();
    let error = client.events(&follow()).await.err().unwrap();
    assert_eq!(error.kind(), &ErrorKind::Unavailable);
    client.units().await.unwrap();
    drop(first);
    dropped.await.unwrap_err();
    while client.events(&follow()).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_builds_say_comes_as_lines() {
    let api = Running::start().await;
    let client = api.client().await;
    let lines: Vec<BuildLine> = client.builds().await.unwrap().try_collect().await.unwrap();
    assert_eq!(lines, [build_line()]);
    assert_eq!(api.fake.take_asked(), ["builds"]);
}

#[tokio::test]
async fn endpoints_come_as_lines_and_as_server_sent_events() {
    let api = Running::start().await;
    let client = api.client().await;
    let tables: Vec<Vec<EndpointView>> =
        client.watch_endpoints(Some("prod/web")).await.unwrap().try_collect().await.unwrap();
    assert_eq!(tables, [vec![endpoint()], vec![]]);
    assert_eq!(api.fake.take_asked(), [r#"watch endpoints Some("prod/web")"#]);
    // Values that look like an error are none.
    *api.fake.endpoints.lock().unwrap() = Some(stream::iter([Ok(vec![]), Err(Error::unavailable("gone"))]).boxed());
    let mut lines = client.watch_endpoints(None).await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap(), []);
    assert_eq!(lines.next().await.unwrap().unwrap_err().kind(), &ErrorKind::Unavailable);

    let request = "GET /v1/watch/endpoints?unit=web HTTP/1.0\r\naccept: text/event-stream\r\n\r\n";
    let mut stream = tokio::net::UnixStream::connect(api.socket()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    let table = serde_json::to_string(&[endpoint()]).unwrap();
    assert_eq!(body, format!("event: endpoints\ndata: {table}\n\nevent: endpoints\ndata: []\n\n"));
}
