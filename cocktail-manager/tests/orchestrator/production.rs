//! What the Orchestrator adds to a Unit in production: readings, schedules, logs of several containers, volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cocktail_core::contract::{
    Actor, BackendTraffic, EventFilter, LogOptions, Manager, ManifestSource, RolloutAction, RouteTraffic, UsageReading,
    VolumeFound,
};
use cocktail_core::error::ErrorKind;
use cocktail_core::id::ContainerId;
use cocktail_core::scaling::{ScalingInput, ScalingPolicy, Wanted};
use cocktail_core::settings::Settings;
use cocktail_manager::Orchestrator;
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::behaviour::{manifest, ready, start, store, until, workers};
use crate::pretend::{Machine, Pretend};

/// A Unit `web` with `count` containers behind port 8080, and `more` of its manifest.
fn web(count: u32, more: &str) -> ManifestSource {
    manifest(&format!(
        "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"serve\", \"${{PORT}}\"]\nreplicas = {count}\n\
         ports.http = {{ service = 8080 }}\n{more}\n"
    ))
}

/// A Unit without a port whose count `scale` says.
fn scaled(scale: &str) -> ManifestSource {
    manifest(&format!("service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"x\"]\nscale = {scale}\n"))
}

async fn ids(manager: &Orchestrator) -> Vec<ContainerId> {
    let containers = manager.containers().await.expect("containers");
    containers.into_iter().map(|container| ContainerId::new(container.id)).collect()
}

fn uses(machine: &Machine, id: &ContainerId, cpu_millis: u64, memory_bytes: u64) {
    machine.usage.lock().expect("unpoisoned").insert(id.clone(), UsageReading { cpu_millis, memory_bytes });
}

fn answered(machine: &Machine, requests: &[(&ContainerId, u64)]) {
    let traffic = |requests: u64| {
        let mut latencies = vec![0; 16];
        latencies[4] = requests;
        BackendTraffic { connections: 2, in_flight: 1, requests, latencies }
    };
    let backends = requests.iter().map(|(id, requests)| ((*id).clone(), traffic(*requests))).collect();
    let listen = "127.0.0.1:8080".parse().expect("an address");
    *machine.traffic.lock().expect("unpoisoned") =
        vec![RouteTraffic { listen, backends, waiting: 3, total: 70, refused: 5 }];
}

#[tokio::test(start_paused = true)]
async fn usage_is_read_each_interval_and_kept_as_history_of_units_and_containers() {
    let (store, machine) = (store(), Machine::new());
    let manager = start(&store, &machine).await;
    manager.apply(&[web(2, "")], &Actor::embedder()).await.expect("applied");
    ready(&manager, 2).await;
    let [one, other] = &ids(&manager).await[..] else { panic!("two containers") };
    uses(&machine, one, 100, 8 << 20);
    uses(&machine, other, 300, 24 << 20);
    machine.reported.lock().expect("unpoisoned").insert(one.clone(), BTreeMap::from([("queue".to_owned(), 4.0)]));
    answered(&machine, &[(one, 100), (other, 0)]);
    tokio::time::sleep(Duration::from_secs(10)).await;
    answered(&machine, &[(one, 150), (other, 50)]);
    tokio::time::sleep(Duration::from_secs(10)).await;

    let report = manager.usage().await.expect("usage");
    let unit = &report.units["shop/prod/web"];
    assert_eq!((unit.sample.cpu_millis, unit.sample.memory_bytes), (400, 32 << 20));
    assert_eq!((unit.requests_total, unit.connections_total, unit.refused_total, unit.waiting), (200, 70, 5, 3));
    let traffic = unit.sample.traffic.expect("it has a service port");
    assert_eq!((traffic.rps, traffic.connections), (10.0, 4));
    assert!((0.512..1.024).contains(&traffic.p50_ms), "{traffic:?}");
    let sample = &report.containers[one.as_str()];
    assert_eq!((sample.custom["queue"], sample.traffic.expect("it is behind the port").rps), (4.0, 5.0));

    let history = manager.history("web").await.expect("history");
    assert_eq!((history.object.as_str(), history.interval_ms), ("shop/prod/web", 10_000));
    let last = history.points.last().expect("a point");
    assert_eq!((last.cpu_millis, last.memory_bytes, last.ready, last.rps), (400, 32 << 20, 2, 10.0));
    let times: BTreeSet<&String> = history.points.iter().map(|point| &point.at).collect();
    assert_eq!(times.len(), history.points.len(), "each point has its own time");
    assert_eq!(
        manager.history(other.as_str()).await.expect("history").points.last().map(|point| point.cpu_millis),
        Some(300)
    );
    assert_eq!(*manager.history("prod").await.expect_err("a map").kind(), ErrorKind::InvalidConfig);
    assert_eq!(*manager.history("nothing").await.expect_err("nothing").kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_history_covers_an_hour_and_outlives_the_containers_of_its_unit() {
    let (store, machine) = (store(), Machine::new());
    let manager = start(&store, &machine).await;
    manager.apply(&[workers(1)], &Actor::embedder()).await.expect("applied");
    ready(&manager, 1).await;
    let id = ids(&manager).await.remove(0);
    uses(&machine, &id, 70, 4096);
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    let points = manager.history("worker").await.expect("history").points;
    assert!((359..=360).contains(&points.len()), "{} points", points.len());
    assert!(points.iter().all(|point| point.cpu_millis == 70 && point.ready == 1));
    manager.scale("worker", 0, &Actor::embedder()).await.expect("scaled");
    until(&manager, "none", |_, containers| containers.is_empty()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(*manager.history(id.as_str()).await.expect_err("gone").kind(), ErrorKind::NotFound);
    let points = manager.history("worker").await.expect("history").points;
    assert_eq!((points[0].cpu_millis, points[points.len() - 1].cpu_millis), (70, 0));
}

#[tokio::test]
async fn metrics_are_scraped_from_ready_containers_and_scale_them() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (sends, mut asked) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 1024];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let _ = sends.send(String::from_utf8_lossy(&request[..read]).into_owned());
            let body = "jobs{queue=\"a\"} 30\njobs{queue=\"b\"} 12\n";
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let (store, machine) = (store(), Machine::new());
    let settings = Settings { usage: Duration::from_millis(100), ..Settings::default() };
    let builder = Orchestrator::builder(store).with_provider(Arc::new(Pretend(machine))).with_settings(settings);
    let manager = builder.start().await.expect("a manager");
    let unit = manifest(&format!(
        "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"x\"]\nports.http = {{ fixed = {port} }}\n\
         scale = {{ max = 1, custom = {{ jobs = 10 }}, metrics = {{ http = \"/metrics?all\" }} }}\n"
    ));
    manager.apply(&[unit], &Actor::embedder()).await.expect("applied");
    let request = asked.recv().await.expect("a request");
    assert!(request.starts_with("GET /metrics?all HTTP/1.1\r\n"), "{request}");
    for _ in 0..3000 {
        let report = manager.usage().await.expect("usage");
        if let Some(jobs) = report.units.get("shop/prod/web").and_then(|unit| unit.sample.custom.get("jobs")) {
            assert_eq!(*jobs, 42.0);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never scraped: {:#?}", manager.usage().await);
}

#[tokio::test(start_paused = true)]
async fn the_clock_sets_bounds_and_a_manifest_without_a_schedule_takes_them_back() {
    let (store, machine) = (store(), Machine::new());
    let manager = start(&store, &machine).await;
    // One began within the last minute, the other long before.
    let schedule = "{ min = 1, max = 9, schedule = [{ cron = \"0 0 1 1 *\", min = 7, max = 8 }, { cron = \"* * * * *\", min = 3, max = 5 }] }";
    manager.apply(&[scaled(schedule)], &Actor::embedder()).await.expect("applied");
    until(&manager, "the bounds of the clock", |units, _| units[0].limits == (3, 5) && units[0].ready == 3).await;
    let mut events = manager.events(&EventFilter::default()).await.expect("events");
    let mut told = Vec::new();
    while let Some(event) = events.next().await {
        let event = event.expect("an event");
        if event.kind == "bounds-set" {
            told.push(event.reason);
        }
    }
    assert_eq!(told.len(), 1, "told once: {told:?}");
    assert!(told[0].contains("3 to 5") && told[0].contains("* * * * *"), "{told:?}");
    manager.apply(&[scaled("{ min = 1, max = 9, cpu = 0.5 }")], &Actor::embedder()).await.expect("applied");
    until(&manager, "its own bounds", |units, _| units[0].limits == (1, 9)).await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_time_zone_is_a_problem_of_the_manifest() {
    let (store, machine) = (store(), Machine::new());
    let manager = start(&store, &machine).await;
    let mars = scaled("{ max = 9, schedule = [{ cron = \"0 8 * * *\" }, { cron = \"0 8 * * * Mars/Base\" }] }");
    let refused = manager.apply(&[mars], &Actor::embedder()).await.expect_err("refused");
    let first = refused.diagnostics().first().expect("a place");
    assert!(first.message.contains("Mars/Base") && first.line == 4, "{first:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_wakes_a_unit_from_zero() {
    let (store, machine) = (store(), Machine::new());
    let manager = start(&store, &machine).await;
    let zero = manifest(
        "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"serve\"]\nports.http = { service = 8080 }\n\
         scale = { min = 0, max = 3, rps = 10 }\n",
    );
    manager.apply(&[zero], &Actor::embedder()).await.expect("applied");
    until(&manager, "nothing is wanted", |units, containers| units[0].desired == 0 && containers.is_empty()).await;
    machine.demand("shop/prod/web");
    until(&manager, "one is ready", |units, _| units[0].ready == 1).await;
}

/// Asks for as many containers as the first target says.
#[derive(Debug)]
struct AsTold;

impl ScalingPolicy for AsTold {
    fn wanted(&self, input: &ScalingInput<'_>) -> Option<Wanted> {
        let count = *input.scaling.targets.values().next()? as u32;
        Some(Wanted { count, because: format!("{count} were told"), considered: Vec::new() })
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_ones_own_decides_the_count_within_the_bounds() {
    let machine = Machine::new();
    let builder = Orchestrator::builder(store()).with_provider(Arc::new(Pretend(machine)));
    let manager = builder.with_scaling_policy(Arc::new(AsTold)).start().await.expect("a manager");
    manager.apply(&[scaled("{ max = 9, custom = { told = 4 } }")], &Actor::embedder()).await.expect("applied");
    ready(&manager, 4).await;
    let why = manager.why("web").await.expect("why");
    assert!(why.iter().any(|why| why.because.contains("4 were told")), "{why:#?}");
    manager.apply(&[scaled("{ max = 9, custom = { told = 40 } }")], &Actor::embedder()).await.expect("applied");
    ready(&manager, 9).await;
}

async fn lines(manager: &Orchestrator, options: &LogOptions, most: usize) -> Vec<String> {
    let lines = manager.logs("shop/prod/web", options).await.expect("logs").take(most);
    lines.map(|line| line.expect("a line").text).collect().await
}

#[tokio::test(start_paused = true)]
async fn logs_of_a_unit_are_one_log_by_time() {
    let (store, machine) = (store(), Machine::new());
    let manager = start(&store, &machine).await;
    manager.apply(&[web(2, "")], &Actor::embedder()).await.expect("applied");
    ready(&manager, 2).await;
    let [one, other] = &ids(&manager).await[..] else { panic!("two containers") };
    let output = BTreeMap::from([
        (one.clone(), vec![(1, "a1 GET"), (4, "a4 GET"), (5, "a5 PUT")]),
        (other.clone(), vec![(2, "b2 PUT"), (3, "b3 GET"), (6, "b6 PUT")]),
    ]);
    *machine.output.lock().expect("unpoisoned") = output;
    let all = ["a1 GET", "b2 PUT", "b3 GET", "a4 GET", "a5 PUT", "b6 PUT"];
    assert_eq!(lines(&manager, &LogOptions::default(), 9).await, all);
    let follow = LogOptions { follow: true, ..LogOptions::default() };
    assert_eq!(lines(&manager, &follow, 6).await, all);
    for follow in [false, true] {
        let tail = LogOptions { follow, tail: Some(3), ..LogOptions::default() };
        assert_eq!(lines(&manager, &tail, 3).await, all[3..], "follow: {follow}");
        // The last two that hold the text, not those among the last two.
        let grep = LogOptions { grep: Some("a".into()), tail: Some(2), ..tail.clone() };
        assert_eq!(lines(&manager, &grep, 2).await, ["a4 GET", "a5 PUT"], "follow: {follow}");
        let first = LogOptions { grep: Some("a1".into()), ..grep };
        assert_eq!(lines(&manager, &first, 1).await, ["a1 GET"], "follow: {follow}");
    }
    let since = LogOptions { since: Some(cocktail_core::time::WallTime(4)), ..LogOptions::default() };
    assert_eq!(lines(&manager, &since, 9).await, all[3..]);
    let of_one = LogOptions { grep: Some("PUT".into()), tail: Some(5), ..LogOptions::default() };
    let of_one = manager.logs(one.as_str(), &of_one).await.expect("logs");
    assert_eq!(of_one.map(|line| line.expect("a line").text).collect::<Vec<_>>().await, ["a5 PUT"]);
    let endless = LogOptions { tail: Some(u64::MAX), ..LogOptions::default() };
    let refused = manager.logs("web", &endless).await.map(|_| ()).expect_err("too many");
    assert_eq!(*refused.kind(), ErrorKind::InvalidConfig);
}

#[tokio::test(start_paused = true)]
async fn a_unit_is_inspected_with_its_last_events_and_those_of_its_containers() {
    let (store, machine) = (store(), Machine::new());
    let manager = start(&store, &machine).await;
    manager.apply(&[workers(1)], &Actor::embedder()).await.expect("applied");
    let other = manifest("service = \"bank\"\n[maps.prod.units.other]\ncommand = [\"x\"]\n");
    manager.apply(&[other], &Actor::embedder()).await.expect("applied");
    until(&manager, "both", |units, _| units.len() == 2 && units.iter().all(|unit| unit.ready == 1)).await;
    let events = async |object: &str| -> Vec<(String, String)> {
        let value = manager.inspect(object).await.expect("inspected");
        let events = value["events"].as_array().cloned().unwrap_or_default();
        let text = |event: &serde_json::Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        events.iter().map(|event| (text(event, "kind"), text(event, "object"))).collect()
    };
    for object in ["worker", "shop/prod", "shop"] {
        let told = events(object).await;
        let kinds: Vec<&str> = told.iter().map(|(kind, _)| kind.as_str()).collect();
        assert!(kinds.starts_with(&["applied", "claimed"]) && kinds.contains(&"started"), "{object}: {told:?}");
        assert!(told.iter().all(|(_, object)| !object.contains("other") && object != "bank"), "{told:?}");
    }
    let id = ids(&manager).await.into_iter().find(|id| id.as_str().starts_with("worker")).expect("its container");
    for code in 1..=10 {
        machine.crash(&id, code);
        until(&manager, "restarted", |_, containers| {
            containers.iter().any(|it| it.id == id.as_str() && it.generation == code as u64 + 1 && it.ready)
        })
        .await;
    }
    assert_eq!(events("worker").await.len(), 20);
    manager.scale("worker", 0, &Actor::embedder()).await.expect("scaled");
    until(&manager, "none of it", |_, containers| containers.len() == 1).await;
    let told = events("worker").await;
    assert_eq!(told.last().map(|(kind, object)| (kind.as_str(), object.as_str())), Some(("removed", id.as_str())));
}

#[tokio::test(start_paused = true)]
async fn volumes_are_those_of_containers_and_those_that_nobody_has() {
    let (store, machine) = (store(), Machine::new());
    let manager = start(&store, &machine).await;
    let volumes = "volumes.data = { mount = \"data\", kind = \"shared\", size = \"1MiB\" }";
    manager.apply(&[web(2, volumes)], &Actor::embedder()).await.expect("applied");
    ready(&manager, 2).await;
    let found = |path: &str, used_bytes| {
        let (path, location) = (path.into(), format!("/v/{path}").into());
        VolumeFound { path, location, used_bytes: Some(used_bytes) }
    };
    *machine.volumes.lock().expect("unpoisoned") =
        vec![found("shop/prod/web/data", 5), found("shop/dev/old/files.0", 7)];
    let volumes = manager.volumes().await.expect("volumes");
    let [old, data] = &volumes[..] else { panic!("two volumes: {volumes:#?}") };
    assert_eq!((old.map.as_str(), old.name.as_str(), old.kind.as_str(), old.used_bytes), ("dev", "files", "", Some(7)));
    assert_eq!(
        (data.path.as_str(), data.used_bytes, data.size_bytes),
        ("/v/shop/prod/web/data", Some(5), Some(1 << 20))
    );
    assert_eq!((data.kind.as_str(), data.containers.len(), data.server.as_str()), ("shared", 2, "here"));
}

#[tokio::test(start_paused = true)]
async fn a_rollout_is_steered_and_rolled_back_by_hand() {
    let (store, machine) = (store(), Machine::new());
    let manager = start(&store, &machine).await;
    let actor = Actor::embedder();
    manager.apply(&[web(2, "")], &actor).await.expect("applied");
    ready(&manager, 2).await;
    let none = manager.steer("web", RolloutAction::Pause, &actor).await.expect_err("no rollout");
    assert_eq!(*none.kind(), ErrorKind::Conflict);
    // The first revision is one to go back to when it has served for the monitor window.
    tokio::time::sleep(Duration::from_secs(10)).await;
    manager.apply(&[web(2, "env = { A = \"1\" }")], &actor).await.expect("applied");
    assert_eq!(manager.steer("web", RolloutAction::Pause, &actor).await.expect("paused").state, "paused");
    assert_eq!(manager.rollout("web").await.expect("a rollout").state, "paused");
    assert_eq!(manager.steer("web", RolloutAction::Resume, &actor).await.expect("resumed").state, "running");
    until(&manager, "completed", |units, _| units[0].rollout.state == "completed" && units[0].revision == 2).await;
    assert_eq!(manager.rollback("web", None, &actor).await.expect("rolled back").state, "rolling-back");
    until(&manager, "rolled back", |units, _| units[0].rollout.state == "rolled-back" && units[0].revision == 1).await;
    assert_eq!(*manager.rollback("web", Some(9), &actor).await.expect_err("no such").kind(), ErrorKind::NotFound);
    assert_eq!(manager.about().await.expect("about").anomalies, 0);
}

/// Writes down spans and what is recorded in them.
#[derive(Debug, Clone, Default)]
struct Spans(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>> tracing_subscriber::Layer<S>
    for Spans
{
    fn on_new_span(&self, attributes: &tracing::span::Attributes<'_>, _: &tracing::Id, _: Context<'_, S>) {
        let mut text = attributes.metadata().name().to_owned();
        attributes.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            text.push_str(&format!(" {field}={value:?}"));
        });
        self.0.lock().expect("unpoisoned").push(text);
    }
    fn on_record(&self, id: &tracing::Id, values: &tracing::span::Record<'_>, context: Context<'_, S>) {
        let mut text = context.span(id).map(|span| span.name().to_owned()).unwrap_or_default();
        values.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            text.push_str(&format!(" {field}={value:?}"));
        });
        self.0.lock().expect("unpoisoned").push(text);
    }
}

#[tokio::test(start_paused = true)]
async fn turns_and_operations_have_spans_with_documented_names() {
    let spans = Spans::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans.clone()));
    let (store, machine) = (store(), Machine::new());
    let manager = start(&store, &machine).await;
    manager.apply(&[workers(1)], &Actor::embedder()).await.expect("applied");
    ready(&manager, 1).await;
    let id = ids(&manager).await.remove(0);
    let spans = spans.0.lock().expect("unpoisoned").clone();
    let operation = format!("cocktail.operation id=1 kind=\"start\" container={id} unit=shop/prod/worker attempt=1");
    assert!(spans.contains(&operation), "{spans:#?}");
    assert!(spans.iter().any(|span| span == "cocktail.operation outcome=done"), "{spans:#?}");
    assert!(spans.iter().any(|span| span == "cocktail.turn"), "{spans:#?}");
    assert!(spans.iter().any(|span| span.starts_with("cocktail.turn seq=2")), "{spans:#?}");
}
