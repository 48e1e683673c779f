//! Peers that mean harm before anybody knows who they are, or after: their neighbours go on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cocktail_agent::gate::GateLimits;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use super::support::{HERE, House, LONG, tcp, tls};

/// Little time for strangers.
fn hasty() -> GateLimits {
    GateLimits { first: Duration::from_millis(500), ..GateLimits::default() }
}

/// A call as bytes.
fn request<B>(call: &str, body: B) -> hyper::Request<B> {
    hyper::Request::post(format!("http://manager/cocktail.agent.v1.Gate/{call}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

/// What TLS begins with.
fn hello(config: Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from("manager.example").unwrap();
    let mut bytes = Vec::new();
    ClientConnection::new(config, name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn a_length_prefix_of_two_gigabytes_is_not_believed() {
    let mut house = House::open().await;
    for (config, call) in
        [(house.stranger(), "Join"), (house.agent("a").calls(), "Renew"), (house.agent("a").calls(), "Aside")]
    {
        let stream = TokioIo::new(tls(house.address(), config, HERE).await.unwrap());
        let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        let served = tokio::spawn(connection);
        let body = Full::new(Bytes::from_static(&[0, 0x80, 0, 0, 0, 1, 2, 3]));
        let answer = timeout(LONG, send.send_request(request(call, body))).await.expect("an answer").unwrap();
        let (head, body) = answer.into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
        let status = head.headers.get("grpc-status").or_else(|| trailers.get("grpc-status")).unwrap().clone();
        // OUT_OF_RANGE, before any of it was waited for.
        assert_eq!(status, "11", "{call}");
        served.abort();
    }
    house.goes_on().await;
}

/// Messages are kept until they are whole: a stranger may not begin as many as a connection takes streams.
#[tokio::test]
async fn a_stranger_that_says_much_is_cut_whatever_time_it_has() {
    let mut house = House::with(GateLimits { first: 100 * LONG, ..GateLimits::default() }).await;
    let stream = TokioIo::new(tls(house.address(), house.stranger(), HERE).await.unwrap());
    let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..16 {
        // Nearly all of a message that is nearly as large as any may be.
        let size: u32 = (1 << 20) - 64;
        let pieces = (0..size >> 16).map(|_| Bytes::from(vec![7; 1 << 16]));
        let pieces = std::iter::once([&[0][..], &size.to_be_bytes()].concat().into()).chain(pieces);
        let frames = pieces.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
        let body = StreamBody::new(stream::iter(frames).chain(stream::pending()));
        calls.spawn(send.send_request(request("Join", body)));
    }
    while let Some(answer) = timeout(LONG, calls.join_next()).await.expect("it is cut") {
        assert!(answer.unwrap().is_err(), "nobody answers half a request");
    }
    house.goes_on().await;
}

#[tokio::test]
async fn ten_thousand_streams_of_one_connection_are_not_kept() {
    let mut house = House::with(hasty()).await;
    let stream = TokioIo::new(tls(house.address(), house.stranger(), HERE).await.unwrap());
    let (send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let served = tokio::spawn(connection);
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..10_000 {
        let mut send = send.clone();
        streams.spawn(async move {
            // It never ends its body.
            let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
            send.send_request(request("Join", body)).await.is_ok()
        });
    }
    drop(send);
    // The connection ends, because nobody on it has said in time who this is.
    let _ = timeout(LONG, served).await.expect("it ends").expect("it does not panic");
    while let Some(answered) = timeout(LONG, streams.join_next()).await.expect("they all end") {
        assert!(!answered.unwrap(), "a stream was answered that said nothing");
    }
    house.goes_on().await;
}

#[tokio::test]
async fn a_thousand_silent_sockets_of_one_address_keep_out_only_that_address() {
    let mut house = House::with(GateLimits { strangers: 64, connections: 80, ..GateLimits::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..1_000 {
        silent.push(tcp(house.address(), HERE).await.unwrap());
    }
    let since = Instant::now();
    house.goes_on().await;
    assert!(since.elapsed() < Duration::from_secs(5), "nobody's time was waited for: {:?}", since.elapsed());
    // All but those that may be there have been closed.
    let mut open = 0;
    for stream in &mut silent {
        match timeout(Duration::from_millis(5), stream.read_u8()).await {
            Err(_) => open += 1,
            Ok(read) => assert!(read.is_err(), "it has said something"),
        }
    }
    assert_eq!(open, 64);
    drop(silent);
    // Their places are free again.
    let mut again = Err(super::support::Refusal::Connection);
    for _ in 0..100 {
        again = house.dial(house.agent("a").calls(), HERE).await;
        if again.is_ok() {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    again.unwrap();
}

/// Strangers of an address are counted until they have said who they are, not as long as they are there.
#[tokio::test]
async fn agents_behind_one_address_are_as_many_as_they_like() {
    let mut house = House::with(GateLimits { strangers: 2, ..GateLimits::default() }).await;
    let mut sessions = Vec::new();
    for number in 0..8 {
        sessions.push(house.session(house.agent(&format!("a-{number}")).calls()).await);
    }
    house.goes_on().await;
}

#[tokio::test]
async fn tls_that_comes_byte_by_byte_is_cut() {
    let mut house = House::with(hasty()).await;
    let bytes = hello(house.stranger());
    let (mut read, mut write) = tcp(house.address(), HERE).await.unwrap().into_split();
    let drip = tokio::spawn(async move {
        for byte in bytes {
            if write.write_u8(byte).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    let since = Instant::now();
    let mut said = Vec::new();
    _ = timeout(LONG, read.read_to_end(&mut said)).await.expect("it is cut");
    assert_eq!(said, b"");
    let took = since.elapsed();
    assert!(took > Duration::from_millis(400) && took < Duration::from_secs(5), "{took:?}");
    drip.abort();
    house.goes_on().await;
}

#[tokio::test]
async fn whoever_makes_no_call_or_only_wrong_ones_has_little_time() {
    let mut house = House::with(hasty()).await;
    for (who, config) in [("a stranger", house.stranger()), ("an agent", house.agent("a").calls())] {
        let mut stream = tls(house.address(), config, HERE).await.unwrap();
        let since = Instant::now();
        let mut said = Vec::new();
        _ = timeout(LONG, stream.read_to_end(&mut said)).await.expect("it is cut");
        let took = since.elapsed();
        assert!(took > Duration::from_millis(400) && took < Duration::from_secs(5), "{who}: {took:?}");
    }
    // Whose calls are all refused is still a stranger.
    let mut client = house.client(house.stranger()).await;
    let since = Instant::now();
    loop {
        let asked = super::support::asks(&house.token("a"), b"a request");
        if super::support::Refusal::of(client.join(asked).await.unwrap_err()) == super::support::Refusal::Connection {
            break;
        }
        sleep(Duration::from_millis(20)).await;
        assert!(since.elapsed() < LONG, "it is still there");
    }
    house.goes_on().await;
}

/// It makes the gate say much and reads nothing, so that the gate waits to write: that ends too.
#[tokio::test]
async fn a_stranger_that_reads_nothing_is_cut() {
    let limits = GateLimits { ping: Duration::from_millis(200), pong: Duration::from_millis(200), ..hasty() };
    let mut house = House::with(limits).await;
    let stream = tls(house.address(), house.stranger(), HERE).await.unwrap();
    let (_keep, mut write) = tokio::io::split(stream);
    write.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // Pings, each of which wants an answer.
    let pings = b"\0\0\x08\x06\0\0\0\0\0abcdefgh".repeat(1_024);
    let since = Instant::now();
    let flood = async {
        loop {
            write.write_all(&pings).await?;
            write.flush().await?;
        }
    };
    let ended: std::io::Result<()> = timeout(LONG, flood).await.expect("it is cut");
    ended.unwrap_err();
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    house.goes_on().await;
}
