//! Errors come back as the kind that they were, and no request is answered with anything else than JSON.

use std::time::Duration;

use cocktail_core::contract::{Actor, EventFilter, ExecSpec, LogOptions, Manager, ManifestSource};
use cocktail_core::error::{Error, ErrorKind};
use cocktail_core::manifest::{Diagnostic, Severity};
use cocktail_core::view::ErrorView;

use crate::support::{Running, raw};

fn kinds() -> Vec<ErrorKind> {
    let after = Some(Duration::from_millis(1_500));
    vec![
        ErrorKind::InsufficientCapacity { offering: "m7.large".into(), retry_after: after },
        ErrorKind::InsufficientCapacity { offering: "m7.large".into(), retry_after: None },
        ErrorKind::Quota { scope: "eu-central-1".into() },
        ErrorKind::Throttled { retry_after: after },
        ErrorKind::Throttled { retry_after: None },
        ErrorKind::Unavailable,
        ErrorKind::OutcomeUnknown,
        ErrorKind::Conflict,
        ErrorKind::NotFound,
        ErrorKind::Denied,
        ErrorKind::InvalidConfig,
        ErrorKind::Unsupported,
        ErrorKind::Refused,
        ErrorKind::Deadline,
        ErrorKind::Unexpected,
    ]
}

fn source(text: String) -> Vec<ManifestSource> {
    vec![ManifestSource { file: "shop.toml".into(), base: "/srv".into(), text }]
}

#[tokio::test]
async fn every_kind_survives_the_way() {
    let api = Running::start().await;
    let client = api.client().await;
    for kind in kinds() {
        let below = std::io::Error::other("what lies below");
        let sent = Error::new(kind.clone(), "it did not work").with("port", 8_080).because(below);
        *api.fake.failure.lock().unwrap() = Some(sent.clone());
        let received = client.scale("web", 3, &Actor::embedder()).await.unwrap_err();
        assert_eq!(received.kind(), &kind);
        assert_eq!(received.to_string(), "it did not work, port 8080: what lies below");
    }
}

#[tokio::test]
async fn every_kind_of_request_carries_errors() {
    let api = Running::start().await;
    let client = api.client().await;
    let fail = || *api.fake.failure.lock().unwrap() = Some(Error::not_found("no unit web"));
    let kinds = [
        (fail(), client.inspect("web").await.err()).1,
        (fail(), client.units().await.err()).1,
        (fail(), client.events(&EventFilter::default()).await.err()).1,
        (fail(), client.logs("web", &LogOptions::default()).await.err()).1,
        (fail(), {
            let spec = ExecSpec { command: vec!["true".into()], ..ExecSpec::default() };
            client.exec("web", &spec, &Actor::embedder()).await.err()
        })
            .1,
    ];
    for error in kinds {
        assert_eq!(error.unwrap().to_string(), "no unit web");
    }
    assert_eq!(client.inspect("").await.unwrap_err().kind(), &ErrorKind::NotFound);
}

#[tokio::test]
async fn diagnostics_survive_the_way() {
    let api = Running::start().await;
    let client = api.client().await;
    let mut diagnostic = Diagnostic::of_file(Severity::Error, "shop.toml", "unknown key `comand`");
    (diagnostic.span, diagnostic.line, diagnostic.column) = (5..11, 2, 1);
    diagnostic.help = Some("did you mean `command`?".into());
    let error = Error::invalid("the manifest is wrong").with_diagnostics(vec![diagnostic.clone()]);
    *api.fake.failure.lock().unwrap() = Some(error);
    let received = client.apply(&source(String::new()), &Actor::embedder()).await.unwrap_err();
    assert_eq!(received.kind(), &ErrorKind::InvalidConfig);
    assert_eq!(received.diagnostics(), [diagnostic]);
}

#[tokio::test]
async fn a_manager_that_panics_costs_one_answer() {
    let api = Running::start().await;
    let client = api.client().await;
    let error = client.scale("panic", 3, &Actor::embedder()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unexpected);
    client.scale("web", 3, &Actor::embedder()).await.unwrap();
}

/// Status and error of a raw request.
async fn answer_to(api: &Running, head: &str, body: &str) -> (u16, Option<ErrorView>) {
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let request = format!("{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{length}\r\n{body}");
    let answer = String::from_utf8(raw(&api.socket(), request.as_bytes()).await).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).ok())
}

#[tokio::test]
async fn wrong_requests_are_answered_with_what_is_wrong() {
    let api = Running::start().await;
    for (head, body, status, kind) in [
        ("GET /", "", 404, ErrorKind::Unsupported),
        ("GET /v1/nothing", "", 404, ErrorKind::Unsupported),
        ("GET /v2/units", "", 404, ErrorKind::Unsupported),
        ("POST /v1/units", "", 405, ErrorKind::Unsupported),
        ("GET /v1/down", "", 405, ErrorKind::Unsupported),
        ("GET /v1/why/", "", 404, ErrorKind::Unsupported),
        ("GET /v1/why/%ff%fe", "", 422, ErrorKind::InvalidConfig),
        ("GET /v1/events?tail=many", "", 422, ErrorKind::InvalidConfig),
        ("GET /v1/events?unknown=1", "", 422, ErrorKind::InvalidConfig),
        ("GET /v1/events?tail=-1", "", 422, ErrorKind::InvalidConfig),
        ("GET /v1/logs/web?since=yesterday", "", 422, ErrorKind::InvalidConfig),
        ("POST /v1/scale/web", "", 422, ErrorKind::InvalidConfig),
        ("POST /v1/scale/web", "{", 422, ErrorKind::InvalidConfig),
        ("POST /v1/scale/web", "{\"count\": -1}", 422, ErrorKind::InvalidConfig),
        ("POST /v1/scale/web", "{\"count\": 3, \"force\": true}", 422, ErrorKind::InvalidConfig),
        ("POST /v1/stop/web", "{\"count\": 3}", 422, ErrorKind::InvalidConfig),
        ("POST /v1/steer/web", "", 422, ErrorKind::InvalidConfig),
        ("POST /v1/steer/web", "{\"action\": \"explode\"}", 422, ErrorKind::InvalidConfig),
        ("POST /v1/rollback/web", "{\"to\": -1}", 422, ErrorKind::InvalidConfig),
        ("POST /v1/shutdown", "", 422, ErrorKind::InvalidConfig),
        ("POST /v1/exec/web", "{\"command\": [\"true\"]}", 426, ErrorKind::InvalidConfig),
        (
            "POST /v1/apply",
            "{\"sources\":[{\"file\":\"a\",\"base\":\"b\",\"text\":\"\"}]}",
            422,
            ErrorKind::InvalidConfig,
        ),
    ] {
        let (found, view) = answer_to(&api, head, body).await;
        assert_eq!(found, status, "{head} {body}");
        assert_eq!(view.map(|view| view.error), Some(kind), "{head} {body}");
    }
    let nested = format!("{{\"sources\":{}", "[".repeat(100_000));
    assert_eq!(answer_to(&api, "POST /v1/plan", &nested).await.0, 422);
    assert_eq!(api.fake.take_asked(), Vec::<String>::new(), "nothing wrong may reach the Manager");
}

#[tokio::test]
async fn a_manifest_that_is_too_long_is_refused_before_it_is_sent() {
    let api = Running::start().await;
    let client = api.client().await;
    let error = client.plan(&source("x".repeat((1 << 20) + 1))).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::InvalidConfig);
    client.plan(&source("x".repeat(1 << 20))).await.unwrap();
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_with_a_reason() {
    let api = Running::start().await;
    let client = api.client().await;
    let many: Vec<_> = (0..5).flat_map(|_| source("x".repeat(1 << 20))).collect();
    let error = client.apply(&many, &Actor::embedder()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::InvalidConfig, "{error}");
    assert!(error.to_string().contains("4194304 bytes"), "{error}");
    assert_eq!(api.fake.take_asked(), Vec::<String>::new());
}
