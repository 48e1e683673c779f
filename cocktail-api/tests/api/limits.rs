//! What a client may take, and that it takes nothing from others.

use std::time::Duration;

use cocktail_api::ApiLimits;
use cocktail_core::contract::{Actor, Manager, ManifestSource};
use cocktail_core::error::ErrorKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::support::Running;

/// Connections that have begun to say something and do not end.
async fn half_said(api: &Running, many: usize, head: &[u8]) -> Vec<UnixStream> {
    let mut slow = Vec::new();
    for _ in 0..many {
        let mut stream = UnixStream::connect(api.socket()).await.unwrap();
        stream.write_all(head).await.unwrap();
        slow.push(stream);
    }
    slow
}

#[tokio::test]
async fn slow_clients_do_not_stop_others() {
    let api = Running::start().await;
    let _heads = half_said(&api, 60, b"GET /v1/uni").await;
    let _bodies = half_said(&api, 60, b"POST /v1/apply HTTP/1.1\r\nhost: x\r\ncontent-length: 4000000\r\n\r\n{").await;
    let _silent = half_said(&api, 60, b"").await;
    let client = api.client().await;
    client.units().await.unwrap();
    client.scale("web", 1, &Actor::embedder()).await.unwrap();
}

#[tokio::test]
async fn a_head_that_does_not_come_closes_the_connection() {
    let api = Running::with(ApiLimits { head_time: Duration::from_millis(50), ..ApiLimits::default() }).await;
    for said in [&b""[..], b"GET /v1/units HT", b"GET /v1/units HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut stream = UnixStream::connect(api.socket()).await.unwrap();
        stream.write_all(said).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_with_408() {
    let api = Running::with(ApiLimits { body_time: Duration::from_millis(50), ..ApiLimits::default() }).await;
    let mut stream = UnixStream::connect(api.socket()).await.unwrap();
    let request = b"POST /v1/plan HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so() {
    let api = Running::with(ApiLimits { connections: 2, ..ApiLimits::default() }).await;
    let slow = half_said(&api, 2, b"GET ").await;
    // A connection is only refused once the two are admitted, which happens in the order of their arrival.
    let client = cocktail_api::Client::connect(api.socket()).await.unwrap();
    let error = client.units().await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable);
    assert!(error.to_string().contains("2 connections"), "{error}");
    // One that sends more than buffers hold is told so, too.
    let source = ManifestSource { file: "a".into(), base: "/".into(), text: "x".repeat(1 << 20) };
    let error = client.apply(&vec![source; 3], &Actor::embedder()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable, "{error}");
    drop(slow);
    while client.units().await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_command_is_carried_out_although_its_client_goes_away() {
    let api = Running::start().await;
    let (gate, closed) = watch::channel(false);
    *api.fake.gate.lock().unwrap() = Some(closed);
    let mut stream = UnixStream::connect(api.socket()).await.unwrap();
    stream.write_all(b"POST /v1/down HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    while api.fake.take_asked().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(stream);
    api.client().await.about().await.unwrap();
    gate.send(true).unwrap();
    while !api.fake.take_asked().contains(&"down done".to_owned()) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_request_that_was_accepted_is_answered_although_the_api_ends() {
    let mut api = Running::start().await;
    let (gate, closed) = watch::channel(false);
    *api.fake.gate.lock().unwrap() = Some(closed);
    let client = api.client().await;
    let asking = tokio::spawn(async move { client.units().await });
    while api.fake.take_asked().is_empty() {
        tokio::task::yield_now().await;
    }
    api.ask_to_end();
    while api.socket().exists() {
        tokio::task::yield_now().await;
    }
    gate.send(true).unwrap();
    assert_eq!(asking.await.unwrap().unwrap().len(), 1);
    api.ended().await;
}

#[tokio::test]
async fn a_command_whose_answer_is_lost_has_an_unknown_outcome_and_a_query_has_none() {
    let mut api = Running::start().await;
    let (_gate, closed) = watch::channel(false);
    *api.fake.gate.lock().unwrap() = Some(closed);
    let (asking, commanding) = (api.client().await, api.client().await);
    let asking = tokio::spawn(async move { asking.units().await });
    let commanding = tokio::spawn(async move { commanding.down(&Actor::embedder()).await });
    let mut asked = Vec::new();
    while asked.len() < 2 {
        asked.extend(api.fake.take_asked());
        tokio::task::yield_now().await;
    }
    api.die().await;
    assert_eq!(asking.await.unwrap().unwrap_err().kind(), &ErrorKind::Unavailable);
    assert_eq!(commanding.await.unwrap().unwrap_err().kind(), &ErrorKind::OutcomeUnknown);
}

#[tokio::test]
async fn the_api_ends_although_a_client_says_nothing() {
    let limits = ApiLimits { grace: Duration::from_millis(50), ..ApiLimits::default() };
    let mut api = Running::with(limits).await;
    let mut slow = half_said(&api, 1, b"GET ").await;
    api.client().await.about().await.unwrap();
    api.ask_to_end();
    api.ended().await;
    let _ = slow[0].read_to_end(&mut Vec::new()).await;
}
