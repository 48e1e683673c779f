//! Workers that mean harm, or are broken: each is refused with a reason, and its neighbour goes on.

use std::time::Duration;

use bytes::Bytes;
use cocktail_agent::hub::{Limits, Order, Said};
use cocktail_agent::protocol::from_worker::Kind;
use cocktail_agent::protocol::workers_client::WorkersClient;
use cocktail_agent::protocol::{
    Drain, Drained, ErrorReport, ExtendRequest, Failed, FromWorker, Ready, Register, Resume, ToWorker, Unloaded, Usage,
    to_worker,
};
use cocktail_agent::worker::{BoxError, Context, MicroService, Place, Worker, async_trait};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::support::{House, LONG, Running, assignment, channel, free_port};

struct Idle;

#[async_trait]
impl MicroService for Idle {
    async fn init(&mut self, _: Context) -> Result<(), BoxError> {
        Ok(())
    }
}

/// A session that is driven by hand.
struct Raw {
    say: mpsc::Sender<FromWorker>,
    told: Streaming<ToWorker>,
}

impl Raw {
    async fn open(channel: &Channel, first: Kind) -> Result<Self, Status> {
        let (say, messages) = mpsc::channel(16);
        say.try_send(FromWorker { kind: Some(first) }).unwrap();
        let told = WorkersClient::new(channel.clone()).session(ReceiverStream::new(messages)).await?;
        Ok(Self { say, told: told.into_inner() })
    }

    async fn say(&self, kind: Kind) {
        // It may have ended by now, which is what some of the tests are about.
        _ = self.say.send(FromWorker { kind: Some(kind) }).await;
    }

    async fn next(&mut self) -> Result<Option<to_worker::Kind>, Status> {
        let told = timeout(LONG, self.told.message()).await.expect("something comes")?;
        Ok(told.and_then(|told| told.kind))
    }

    /// How the session ends.
    async fn end(&mut self) -> Status {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }
}

fn register(place: &Place) -> Kind {
    Kind::Register(Register {
        container: place.container.clone(),
        token: place.token.clone(),
        pid: 1,
        build: String::new(),
        microservices: vec!["idle".into()],
    })
}

/// A worker that does nothing wrong.
async fn neighbour(house: &mut House) -> Running {
    let running = house.start("good-1", Worker::new().register("idle", || Idle));
    assert!(matches!(house.said("good-1").await, Said::Registered { .. }));
    running
}

/// That it still does as it is told.
async fn goes_on(house: &mut House, neighbour: Running) {
    house.assign("good-1", assignment(1, &["idle"], free_port()));
    assert_eq!(house.said("good-1").await, Said::Ready { assignment: 1 });
    neighbour.end().await.unwrap();
}

fn refused(said: Said) -> String {
    match said {
        Said::Refused { because } => because,
        other => panic!("{other:?} is no refusal"),
    }
}

/// Resident memory of this process, both ends and the test, in bytes.
fn resident() -> u64 {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test]
async fn a_token_is_for_one_start_and_works_once() {
    let mut house = House::open();
    let good = neighbour(&mut house).await;
    house.hub.expect("bad-1", 2, false);
    let channel = channel(&house).await;
    let mut place = house.place("bad-1", 1);
    let status = Raw::open(&channel, register(&place)).await.err().expect("an older start's token");
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "the token is not that of this start"));
    assert_eq!(refused(house.said("bad-1").await), "the token is not that of this start");
    place.container = "nobody-1".into();
    let status = Raw::open(&channel, register(&place)).await.err().expect("nobody expects it");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "no such container is expected here"));

    let place = house.place("bad-1", 2);
    let mut first = Raw::open(&channel, register(&place)).await.unwrap();
    let Some(to_worker::Kind::Registered(registered)) = first.next().await.unwrap() else { panic!("it is registered") };
    assert!(matches!(house.said("bad-1").await, Said::Registered { .. }));
    let status = Raw::open(&channel, register(&place)).await.err().expect("it was used");
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "the token was used already"));
    assert_eq!(refused(house.said("bad-1").await), "the token was used already");
    // The first one has what a token cannot do any more: it comes back, and only as itself.
    let resume = |key: &str| Resume { container: "bad-1".into(), key: key.into(), pid: 1, assignment: 0 };
    let status = Raw::open(&channel, Kind::Resume(resume("MZXW6"))).await.err().expect("a wrong key");
    assert_eq!(status.message(), "the key is not that of this start");
    assert_eq!(refused(house.said("bad-1").await), "the key is not that of this start");
    let _second = Raw::open(&channel, Kind::Resume(resume(&registered.key))).await.unwrap();
    assert_eq!(house.said("bad-1").await, Said::Resumed { assignment: 0 });
    assert_eq!(first.end().await.code(), Code::Ok, "there is one session at a time");
    goes_on(&mut house, good).await;
}

#[tokio::test]
async fn what_has_no_sense_ends_a_session_with_a_reason() {
    let mut house = House::open();
    let good = neighbour(&mut house).await;
    let channel = channel(&house).await;
    let status = Raw::open(&channel, Kind::Drained(Drained { assignment: 1 })).await.err().expect("nobody spoke yet");
    assert_eq!(status.message(), "the first message is Register or Resume");

    let custom = (0..65).map(|number| (format!("n{number}"), 1.0)).collect();
    let failed = Failed { assignment: 4, ..Failed::default() };
    let report = ErrorReport { error: "bad".into(), ..ErrorReport::default() };
    let again = Kind::Resume(Resume { container: "x".into(), ..Resume::default() });
    let cases: [(Kind, &str); 8] = [
        (Kind::Ready(Ready { assignment: 0 }), "Ready of assignment 0, which was never given"),
        (Kind::Ready(Ready { assignment: 4 }), "Ready of assignment 4, which was never given"),
        (Kind::Failed(failed), "Failed of assignment 4, which was never given"),
        (Kind::Drained(Drained { assignment: 4 }), "Drained of assignment 4, which was never given"),
        (Kind::Unloaded(Unloaded { assignment: 4 }), "Unloaded of assignment 4, which was never given"),
        (Kind::Usage(Usage { custom, ..Usage::default() }), "Usage has at most 64 numbers of its own"),
        (Kind::ErrorReport(report), "ErrorReport says neither degraded nor broken"),
        (again, "a session begins once: Register or Resume after its begin"),
    ];
    for (index, (kind, because)) in cases.into_iter().enumerate() {
        let container = format!("bad-{index}");
        house.hub.expect(&container, 1, false);
        let mut raw = Raw::open(&channel, register(&house.place(&container, 1))).await.unwrap();
        assert!(matches!(house.said(&container).await, Said::Registered { .. }));
        house.assign(&container, assignment(3, &["idle"], free_port()));
        raw.say(kind).await;
        let status = raw.end().await;
        assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, because));
        assert_eq!(house.said(&container).await, Said::Left);
        assert_eq!(refused(house.said(&container).await), because);
    }
    goes_on(&mut house, good).await;
}

#[tokio::test]
async fn a_message_that_says_it_is_of_two_gigabytes_is_not_waited_for() {
    let mut house = House::open();
    let good = neighbour(&mut house).await;
    let before = resident();
    let stream = TokioIo::new(UnixStream::connect(house.socket()).await.unwrap());
    let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    for prefix in [[0, 0x7f, 0xff, 0xff, 0xff], [0, 0xff, 0xff, 0xff, 0xff], [1, 0, 0, 0, 9]] {
        let request = hyper::Request::post("http://workers/cocktail.worker.v1.Workers/Session")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::copy_from_slice(&prefix)))
            .unwrap();
        let answer = timeout(LONG, send.send_request(request)).await.expect("it is answered").unwrap();
        let status: i32 = answer.headers()["grpc-status"].to_str().unwrap().parse().unwrap();
        assert_ne!(Code::from(status), Code::Ok, "{prefix:?}");
    }
    // And in a session that was honest until then.
    house.hub.expect("bad-1", 1, false);
    let mut raw = Raw::open(&channel(&house).await, register(&house.place("bad-1", 1))).await.unwrap();
    assert!(matches!(house.said("bad-1").await, Said::Registered { .. }));
    let reason = "x".repeat(1 << 20);
    raw.say(Kind::ExtendRequest(ExtendRequest { microservice: String::new(), reason })).await;
    assert_eq!(raw.end().await.code(), Code::OutOfRange);
    assert_eq!(house.said("bad-1").await, Said::Left);
    assert!(refused(house.said("bad-1").await).contains("message length too large"));
    let grown = resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes were kept");
    goes_on(&mut house, good).await;
}

#[tokio::test]
async fn ten_thousand_streams_are_a_few_at_a_time() {
    let limits = Limits { first: Duration::from_millis(300), ..Limits::default() };
    let mut house = House::with(limits);
    let good = neighbour(&mut house).await;
    let stream = TokioIo::new(UnixStream::connect(house.socket()).await.unwrap());
    let (send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let served = tokio::spawn(connection);
    let before = resident();
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..10_000 {
        let mut send = send.clone();
        streams.spawn(async move {
            // It never says who it is, and never ends its body.
            let body = http_body_util::StreamBody::new(futures_util::stream::pending::<
                Result<hyper::body::Frame<Bytes>, std::convert::Infallible>,
            >());
            let request = hyper::Request::post("http://workers/cocktail.worker.v1.Workers/Session")
                .header("content-type", "application/grpc")
                .body(body)
                .unwrap();
            send.send_request(request).await.is_ok()
        });
    }
    // The connection ends, because nobody on it has said in time who this is.
    timeout(LONG, served).await.expect("it ends").expect("it does not panic").unwrap_err();
    while let Some(opened) = timeout(LONG, streams.join_next()).await.expect("they all end") {
        assert!(!opened.unwrap(), "a stream was opened that said nothing");
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 128 << 20, "{grown} bytes for both ends");
    goes_on(&mut house, good).await;
}

#[tokio::test]
async fn whoever_does_not_say_who_it_is_has_little_time() {
    let mut house = House::with(Limits { first: Duration::from_millis(100), connections: 2, ..Limits::default() });
    // As many as may be there are there, and say nothing. The neighbour comes in when their time is over.
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(UnixStream::connect(house.socket()).await.unwrap());
    }
    let good = neighbour(&mut house).await;
    for mut stream in silent {
        // What the hub says first, and then its end.
        let mut bytes = Vec::new();
        timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("it ends").ok();
    }
    goes_on(&mut house, good).await;
}

#[tokio::test]
async fn a_worker_that_never_reads_loses_its_session() {
    let mut house = House::open();
    let good = neighbour(&mut house).await;
    house.hub.expect("bad-1", 1, false);
    let mut raw = Raw::open(&channel(&house).await, register(&house.place("bad-1", 1))).await.unwrap();
    assert!(matches!(house.said("bad-1").await, Said::Registered { .. }));
    // Each order is as large as a window, so that what is not read waits here.
    let mut given = 0;
    while house.hub.is_there("bad-1") {
        given += 1;
        let mut assign = assignment(given, &["idle"], 1);
        assign.microservices[0].config = "x".repeat(1 << 20);
        house.assign("bad-1", assign);
        tokio::task::yield_now().await;
        assert!(given < 1_000, "somebody keeps what is not read");
    }
    assert_eq!(house.said("bad-1").await, Said::Left);
    assert_eq!(raw.end().await.code(), Code::Ok);
    goes_on(&mut house, good).await;
}

#[tokio::test]
async fn a_worker_that_says_very_much_is_read_slowly_and_disturbs_nobody() {
    let mut house = House::with(Limits { messages: 100, ..Limits::default() });
    let good = neighbour(&mut house).await;
    house.hub.expect("bad-1", 1, false);
    let raw = Raw::open(&channel(&house).await, register(&house.place("bad-1", 1))).await.unwrap();
    assert!(matches!(house.said("bad-1").await, Said::Registered { .. }));
    let flood = tokio::spawn(async move {
        loop {
            let request = ExtendRequest { microservice: String::new(), reason: "more".into() };
            if raw.say.send(FromWorker { kind: Some(Kind::ExtendRequest(request)) }).await.is_err() {
                return;
            }
        }
    });
    // The neighbour's answer comes after at most as many as are read in a moment.
    house.assign("good-1", assignment(1, &["idle"], free_port()));
    let mut before = 0;
    loop {
        let event = house.next().await;
        match event.said {
            Said::Ready { assignment: 1 } if event.container == "good-1" => break,
            Said::Extend(_) => before += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(before <= 100, "{before} came first");
    assert!(house.hub.order("bad-1", 1, Order::Drain(Drain { assignment: 1, deadline_ms: 1 })));
    house.hub.forget("bad-1");
    timeout(LONG, flood).await.expect("it is not read any more").unwrap();
    good.end().await.unwrap();
}
