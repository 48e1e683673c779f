//! What Prometheus gets: over the socket, and over TCP where nothing else is answered.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use cocktail_api::{MetricsListener, metrics};
use cocktail_core::contract::Manager;
use cocktail_core::error::{Error, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::{Fake, Running, raw};

/// Values by name and labels, as a scraper reads them.
fn lines(text: &str) -> BTreeSet<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

#[tokio::test]
async fn metrics_tell_what_the_manager_tells() {
    let text = metrics(&Fake::default()).await.unwrap();
    let found = lines(&text);
    let of = "service=\"shop\",map=\"prod\",unit=\"web\"";
    for expected in [
        "cocktail_manager_info{version=\"0.1.0\",store=\"store-1\"} 1".to_owned(),
        "cocktail_manager_state{state=\"running\"} 1".to_owned(),
        "cocktail_manager_state{state=\"frozen\"} 0".to_owned(),
        "cocktail_anomalies_total{} 2".to_owned(),
        "cocktail_operations_open{kind=\"start\"} 0".to_owned(),
        format!("cocktail_unit_desired{{{of}}} 3"),
        format!("cocktail_unit_ready{{{of}}} 2"),
        format!("cocktail_unit_updated{{{of}}} 2"),
        format!("cocktail_unit_revision{{{of}}} 7"),
        format!("cocktail_unit_stopped{{{of}}} 0"),
        format!("cocktail_unit_min{{{of}}} 1"),
        format!("cocktail_unit_max{{{of}}} 5"),
        format!("cocktail_job_containers{{{of},outcome=\"failed\"}} 2"),
        format!("cocktail_rollout_state{{{of},state=\"running\"}} 1"),
        format!("cocktail_rollout_state{{{of},state=\"rolled-back\"}} 0"),
        format!("cocktail_unit_requests_total{{{of}}} 100"),
        format!("cocktail_unit_connections_total{{{of}}} 20"),
        format!("cocktail_unit_refused_total{{{of}}} 1"),
        format!("cocktail_unit_waiting{{{of}}} 3"),
        format!("cocktail_unit_in_flight{{{of}}} 2"),
        format!("cocktail_unit_open_connections{{{of}}} 4"),
        format!("cocktail_unit_latency_seconds{{{of},quantile=\"0.5\"}} 0.0005"),
        format!("cocktail_unit_latency_seconds{{{of},quantile=\"0.99\"}} 0.00825"),
        format!("cocktail_containers{{{of},state=\"ready\"}} 1"),
        format!("cocktail_container_cpu_cores{{{of},container=\"web-k3v9qx\"}} 0.012"),
        format!("cocktail_container_memory_bytes{{{of},container=\"web-k3v9qx\"}} 34"),
        format!("cocktail_container_restarts_total{{{of},container=\"web-k3v9qx\"}} 1"),
        format!("cocktail_container_in_flight{{{of},container=\"web-k3v9qx\"}} 2"),
        format!("cocktail_container_custom{{{of},container=\"web-k3v9qx\",name=\"queue\"}} 3.5"),
        // What a worker says is passed on as it is: Prometheus has a word for it.
        format!("cocktail_container_custom{{{of},container=\"web-k3v9qx\",name=\"broken\"}} NaN"),
    ] {
        assert!(found.contains(expected.as_str()), "{expected} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn the_reference_names_every_metric_and_no_other() {
    let text = metrics(&Fake::default()).await.unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let told: BTreeSet<String> = types
        .map(|(name, kind)| match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        })
        .collect();
    let reference = include_str!("../../../docs/reference/metrics.md");
    let named: BTreeSet<String> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `cocktail_")?.split_once('`'))
        .map(|(name, _)| format!("cocktail_{}", name.split('{').next().unwrap_or(name)))
        .collect();
    assert_eq!(told, named);
}

#[tokio::test]
async fn metrics_are_answered_on_the_socket_of_the_api() {
    let api = Running::start().await;
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = String::from_utf8(raw(&api.socket(), request).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("application/openmetrics-text"), "{answer}");
    assert!(answer.contains("cocktail_unit_ready"), "{answer}");
}

/// Metrics over TCP, and how to end them.
struct Listening {
    fake: Arc<Fake>,
    address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn listening() -> Listening {
    let fake = Arc::new(Fake::default());
    let listener = MetricsListener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.address();
    let (shutdown, asked) = oneshot::channel();
    let manager: Arc<dyn Manager> = fake.clone();
    let task = tokio::spawn(listener.run(manager, async move {
        let _ = asked.await;
    }));
    Listening { fake, address, shutdown, task }
}

async fn answer_to(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn over_tcp_metrics_are_read_and_nothing_else_is() {
    let metrics = listening().await;
    let answer = answer_to(metrics.address, "GET /metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("cocktail_unit_ready"), "{answer}");
    metrics.fake.take_asked();
    for (request, status) in [
        ("GET /", "404"),
        ("GET /v1/units", "404"),
        ("POST /v1/down", "404"),
        ("POST /v1/shutdown", "404"),
        ("POST /metrics", "405"),
        ("DELETE /metrics", "405"),
        ("GET /metrics/x", "404"),
    ] {
        let answer = answer_to(metrics.address, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
    }
    assert_eq!(metrics.fake.take_asked(), Vec::<String>::new(), "a stranger reached the Manager");
}

#[tokio::test]
async fn over_tcp_a_failure_of_the_manager_is_not_told_to_strangers() {
    let metrics = listening().await;
    *metrics.fake.failure.lock().unwrap() = Some(Error::unavailable("the disk /srv/secret is full"));
    let answer = answer_to(metrics.address, "GET /metrics").await;
    assert!(answer.starts_with("HTTP/1.1 503") && !answer.contains("secret"), "{answer}");
}

#[tokio::test]
async fn the_listener_ends_although_a_client_says_nothing() {
    let metrics = listening().await;
    let _idle = TcpStream::connect(metrics.address).await.unwrap();
    answer_to(metrics.address, "GET /metrics").await;
    metrics.shutdown.send(()).unwrap();
    metrics.task.await.unwrap();
    assert!(TcpStream::connect(metrics.address).await.is_err());
}

#[tokio::test]
async fn an_address_that_is_taken_is_a_conflict() {
    let metrics = listening().await;
    let error = MetricsListener::bind(metrics.address).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Conflict);
}
