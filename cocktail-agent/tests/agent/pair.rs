//! The SDK and the hub against each other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cocktail_agent::hub::{Order, Said};
use cocktail_agent::protocol::{Drain, Severity, Unload};
use cocktail_agent::worker::{BoxError, Context, InFlight, MicroService, Worker, async_trait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::support::{House, assignment, free_port};

/// Greets whoever connects and sends a byte, once it may.
#[derive(Clone, Default)]
struct Greeter {
    alive: Arc<AtomicUsize>,
    answers: Arc<Notify>,
    waits: bool,
    /// What counts its requests, once it is loaded.
    in_flight: Arc<OnceLock<InFlight>>,
}

impl Greeter {
    /// Waits until new requests are refused.
    async fn refuses(&self) {
        while !self.in_flight.get().is_some_and(InFlight::is_refusing) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[derive(serde::Deserialize)]
struct Config {
    greeting: String,
}

#[async_trait]
impl MicroService for Greeter {
    async fn init(&mut self, context: Context) -> Result<(), BoxError> {
        let Config { greeting } = context.config()?;
        let greeting = format!("{greeting} in {} revision {}", context.unit(), context.revision());
        let listener = context.listener("http")?;
        let (in_flight, down) = (context.in_flight(), context.shutdown());
        let (answers, waits) = (self.answers.clone(), self.waits);
        _ = self.in_flight.set(in_flight.clone());
        self.alive.fetch_add(1, Ordering::SeqCst);
        let tasks = context.clone();
        context.spawn(async move {
            while let Some(accepted) = down.run_until_cancelled(listener.accept()).await {
                let (mut stream, _) = accepted?;
                let (in_flight, answers, greeting) = (in_flight.clone(), answers.clone(), greeting.clone());
                tasks.spawn(async move {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).await?;
                    // A connection that is closed without an answer is how a refusal looks here.
                    let Some(_request) = in_flight.begin() else { return Ok(()) };
                    if waits {
                        answers.notified().await;
                    }
                    stream.write_all(greeting.as_bytes()).await?;
                    Ok(())
                });
            }
            Ok(())
        });
        Ok(())
    }

    async fn close(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits for ever.
struct Stuck;

#[async_trait]
impl MicroService for Stuck {
    async fn init(&mut self, _: Context) -> Result<(), BoxError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_worker_that_is_ended_while_it_loads_does_not_wait_for_that() {
    let mut house = House::open();
    let running = house.start("web-1", Worker::new().register("stuck", || Stuck));
    assert!(registered(&house.said("web-1").await));
    house.assign("web-1", assignment(1, &["stuck"], free_port()));
    tokio::time::sleep(Duration::from_millis(50)).await;
    running.end().await.unwrap();
    let Said::Failed(failed) = house.said("web-1").await else { panic!("it was not loaded") };
    assert_eq!(failed.error, "it was told to end while it was loading");
}

/// What it is made of decides how it fails.
struct Failing(&'static str);

#[async_trait]
impl MicroService for Failing {
    async fn init(&mut self, _: Context) -> Result<(), BoxError> {
        match self.0 {
            "panic" => panic!("it was made to"),
            text => Err(text.into()),
        }
    }
}

async fn ask(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"?").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn registered(said: &Said) -> bool {
    matches!(said, Said::Registered { .. })
}

#[tokio::test]
async fn a_worker_registers_serves_what_it_is_assigned_and_waits_again() {
    let mut house = House::open();
    let greeter = Greeter::default();
    let made = greeter.clone();
    let worker = Worker::new().register("greeter", move || made.clone()).build("1.2.3");
    let running = house.start("web-1", worker);
    let Said::Registered { pid, build, microservices } = house.said("web-1").await else { panic!("it registers") };
    assert_eq!((pid, build.as_str(), &microservices[..]), (std::process::id(), "1.2.3", &["greeter".to_owned()][..]));

    for number in 1..=2 {
        let port = free_port();
        house.assign("web-1", assignment(number, &["greeter"], port));
        assert_eq!(house.said("web-1").await, Said::Ready { assignment: number });
        assert_eq!(ask(port).await.unwrap(), "hi from greeter in shop/prod/web revision 3");
        assert_eq!(greeter.alive.load(Ordering::SeqCst), 1);
        assert!(house.hub.order("web-1", 1, Order::Drain(Drain { assignment: number, deadline_ms: 1_000 })));
        assert_eq!(house.said("web-1").await, Said::Drained { assignment: number });
        assert_eq!(ask(port).await.unwrap(), "", "what is new is refused");
        assert!(house.hub.order("web-1", 1, Order::Unload(Unload { assignment: number })));
        assert_eq!(house.said("web-1").await, Said::Unloaded { assignment: number });
        assert!(ask(port).await.is_err(), "nobody listens");
        assert_eq!(greeter.alive.load(Ordering::SeqCst), 0);
    }
    running.end().await.unwrap();
    assert_eq!(house.said("web-1").await, Said::Left);
}

#[tokio::test]
async fn what_is_in_flight_finishes_before_a_worker_has_drained() {
    let mut house = House::open();
    let greeter = Greeter { waits: true, ..Greeter::default() };
    let made = greeter.clone();
    let running = house.start("web-1", Worker::new().register("greeter", move || made.clone()));
    assert!(registered(&house.said("web-1").await));
    let port = free_port();
    house.assign("web-1", assignment(1, &["greeter"], port));
    assert_eq!(house.said("web-1").await, Said::Ready { assignment: 1 });
    let asked = tokio::spawn(ask(port));
    while house.hub.usage().get("web-1").is_none_or(|usage| usage.in_flight != 1) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(house.hub.order("web-1", 1, Order::Drain(Drain { assignment: 1, deadline_ms: 10_000 })));
    // It refuses, and has not drained: the next that is heard is not that it has.
    greeter.refuses().await;
    assert_eq!(ask(port).await.unwrap(), "");
    assert!(house.events.try_recv().is_err());
    greeter.answers.notify_one();
    assert_eq!(asked.await.unwrap().unwrap(), "hi from greeter in shop/prod/web revision 3");
    assert_eq!(house.said("web-1").await, Said::Drained { assignment: 1 });
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_worker_that_is_ended_finishes_what_is_in_flight() {
    let mut house = House::open();
    let greeter = Greeter { waits: true, ..Greeter::default() };
    let made = greeter.clone();
    let running = house.start("web-1", Worker::new().register("greeter", move || made.clone()));
    assert!(registered(&house.said("web-1").await));
    let port = free_port();
    house.assign("web-1", assignment(1, &["greeter"], port));
    assert_eq!(house.said("web-1").await, Said::Ready { assignment: 1 });
    let asked = tokio::spawn(ask(port));
    while house.hub.usage().get("web-1").is_none_or(|usage| usage.in_flight != 1) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let ending = tokio::spawn(running.end());
    greeter.refuses().await;
    assert!(!ending.is_finished());
    greeter.answers.notify_one();
    assert_eq!(asked.await.unwrap().unwrap(), "hi from greeter in shop/prod/web revision 3");
    ending.await.unwrap().unwrap();
    assert_eq!(house.said("web-1").await, Said::Drained { assignment: 1 });
}

#[tokio::test]
async fn what_cannot_be_loaded_is_told_with_its_reason_and_leaves_nothing_behind() {
    let mut house = House::open();
    let greeter = Greeter::default();
    let made = greeter.clone();
    let worker = Worker::new()
        .register("greeter", move || made.clone())
        .register("broken", || Failing("no database"))
        .register("panics", || Failing("panic"))
        .register("unmade", || -> Failing { panic!("no settings") });
    let running = house.start("web-1", worker);
    assert!(registered(&house.said("web-1").await));
    let cases = [
        ("broken", "no database"),
        ("panics", "it panicked: it was made to"),
        ("unmade", "it panicked: no settings"),
        ("orders", "this worker has no microservice \"orders\", but broken, greeter, panics, unmade"),
    ];
    let port = free_port();
    for (number, (name, error)) in (1..).zip(cases) {
        house.assign("web-1", assignment(number, &["greeter", name], port));
        let Said::Failed(failed) = house.said("web-1").await else { panic!("{name} fails") };
        assert_eq!((failed.assignment, &*failed.microservice, &*failed.error), (number, name, error));
        assert_eq!(greeter.alive.load(Ordering::SeqCst), 0, "what was loaded before it is closed");
    }
    // A port that another program has is told by its name.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    house.assign("web-1", assignment(9, &["greeter"], taken.local_addr().unwrap().port()));
    let Said::Failed(failed) = house.said("web-1").await else { panic!("the port is taken") };
    assert_eq!((failed.assignment, &*failed.port_taken), (9, "http"));
    // And after all of that it is as good as new.
    house.assign("web-1", assignment(10, &["greeter"], port));
    assert_eq!(house.said("web-1").await, Said::Ready { assignment: 10 });
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_worker_serves_on_while_its_manager_is_away_and_says_again_what_became_of_it() {
    let mut house = House::open();
    let running = house.start("web-1", Worker::new().register("greeter", Greeter::default));
    assert!(registered(&house.said("web-1").await));
    let port = free_port();
    house.assign("web-1", assignment(1, &["greeter"], port));
    assert_eq!(house.said("web-1").await, Said::Ready { assignment: 1 });

    let mut house = house.again();
    assert!(ask(port).await.is_ok(), "it serves on");
    house.hub.expect("web-1", 1, true);
    assert_eq!(house.said("web-1").await, Said::Resumed { assignment: 1 });
    assert_eq!(house.said("web-1").await, Said::Ready { assignment: 1 });
    // The same assignment is given again, because it is what is wanted. Nothing is loaded anew, and it says so again.
    house.assign("web-1", assignment(1, &["greeter"], port));
    assert_eq!(house.said("web-1").await, Said::Ready { assignment: 1 });
    assert!(ask(port).await.is_ok());
    assert!(house.hub.order("web-1", 1, Order::Unload(Unload { assignment: 1 })));
    assert_eq!(house.said("web-1").await, Said::Unloaded { assignment: 1 });
    // One that nobody expects runs on: it may be expected in a moment. Ending it is its keeper's business.
    house.hub.forget("web-1");
    assert!(!house.hub.is_there("web-1"));
    house.hub.expect("web-1", 1, true);
    assert_eq!(house.said("web-1").await, Said::Resumed { assignment: 1 });
    assert_eq!(house.said("web-1").await, Said::Unloaded { assignment: 1 });
    running.end().await.unwrap();
}

/// Asks for help and reports as soon as it is loaded, and has a task that fails.
struct Needy;

#[async_trait]
impl MicroService for Needy {
    async fn init(&mut self, context: Context) -> Result<(), BoxError> {
        context.request_extension("queue is long");
        context.report_degraded("cache is cold");
        context.set_queue(17);
        context.set_metric("backlog", 2.5);
        context.set_metric("nonsense", f64::NAN);
        context.spawn(async { Err("the feed broke off".into()) });
        Ok(())
    }
}

#[tokio::test]
async fn requests_for_help_reports_and_numbers_arrive() {
    let mut house = House::open();
    let running = house.start("web-1", Worker::new().register("needy", || Needy));
    assert!(registered(&house.said("web-1").await));
    house.assign("web-1", assignment(1, &["needy"], free_port()));
    let (mut ready, mut asked, mut degraded, mut broken) = (false, false, false, false);
    while !(ready && asked && degraded && broken) {
        match house.said("web-1").await {
            Said::Ready { assignment } => ready = assignment == 1,
            Said::Extend(request) => {
                asked = true;
                assert_eq!((&*request.microservice, &*request.reason), ("needy", "queue is long"));
            }
            Said::Report(report) if report.severity() == Severity::Degraded => {
                degraded = true;
                assert_eq!(report.error, "cache is cold");
            }
            Said::Report(report) => {
                broken = true;
                assert_eq!((report.severity(), &*report.error), (Severity::Broken, "the feed broke off"));
            }
            other => panic!("{other:?}"),
        }
    }
    let usage = loop {
        match house.hub.usage().remove("web-1") {
            Some(usage) => break usage,
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    assert_eq!((usage.queue, usage.custom), (17, [("backlog".to_owned(), 2.5)].into()));
    running.end().await.unwrap();
}
