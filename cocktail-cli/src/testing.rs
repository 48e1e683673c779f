//! A Manager made of values, for the tests of commands.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use cocktail_core::contract::{
    Actor, Applied, EndpointStream, EventFilter, ExecInput, ExecOutput, ExecSession, ExecSpec, Exit, LogLine,
    LogOptions, LogStream, Manager, ManifestSource, RearrangeOptions, RolloutAction, ShutdownMode,
};
use cocktail_core::error::{Error, Result};
use cocktail_core::id::UnitId;
use cocktail_core::scaling::{Sample, TrafficSample};
use cocktail_core::view::{
    BackendView, ContainerView, EndpointView, EventView, HistoryView, ManagerView, OperationView, PlanView, PointView,
    PortView, ResourcesView, RolloutView, ServerView, UnitUsage, UnitView, UsageReport, UsageView, VolumeView, WhyView,
};
use futures_util::stream::BoxStream;
use futures_util::{SinkExt, StreamExt, sink, stream};

/// Answers with what it is given, and notes which commands it got.
#[derive(Debug, Default)]
pub(crate) struct FakeManager {
    pub(crate) units: Vec<UnitView>,
    pub(crate) containers: Vec<ContainerView>,
    pub(crate) servers: Vec<ServerView>,
    pub(crate) endpoints: Vec<EndpointView>,
    pub(crate) operations: Vec<OperationView>,
    pub(crate) events: Vec<EventView>,
    pub(crate) why: Vec<WhyView>,
    pub(crate) volumes: Vec<VolumeView>,
    pub(crate) history: HistoryView,
    pub(crate) usage: UsageReport,
    pub(crate) inspected: Option<serde_json::Value>,
    pub(crate) plan: PlanView,
    pub(crate) applied: Applied,
    pub(crate) logs: Vec<LogLine>,
    pub(crate) exec: Vec<ExecOutput>,
    /// Answers of `units`, one a call, before `units` is answered for good.
    pub(crate) units_before: Mutex<Vec<Vec<UnitView>>>,
    /// Answers of `servers`, one a call, before `servers` is answered for good.
    pub(crate) servers_before: Mutex<Vec<Vec<ServerView>>>,
    /// What every command fails with.
    pub(crate) error: Option<Error>,
    /// Commands, in order.
    pub(crate) calls: Mutex<Vec<String>>,
}

impl FakeManager {
    fn note(&self, call: String) -> Result<()> {
        self.calls.lock().unwrap().push(call);
        self.error.clone().map_or(Ok(()), Err)
    }

    /// Commands, in order.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn ids(&self, call: String) -> Result<Vec<UnitId>> {
        self.note(call)?;
        Ok(vec![unit_id("web")])
    }

    fn server(&self, call: String) -> Result<ServerView> {
        self.note(call)?;
        Ok(self.servers.first().cloned().unwrap_or_else(server))
    }

    fn unit(&self, call: String) -> Result<UnitView> {
        self.note(call)?;
        Ok(self.units.first().cloned().unwrap_or_else(|| unit("web", 1, 1)))
    }
}

#[async_trait]
impl Manager for FakeManager {
    async fn apply(&self, sources: &[ManifestSource], _: &Actor) -> Result<Applied> {
        self.note(format!("apply {}", sources.len()))?;
        Ok(self.applied.clone())
    }
    async fn plan(&self, sources: &[ManifestSource]) -> Result<PlanView> {
        self.note(format!("plan {}", sources.len()))?;
        Ok(self.plan.clone())
    }
    async fn scale(&self, unit: &str, count: u32, _: &Actor) -> Result<UnitView> {
        self.unit(format!("scale {unit} {count}"))
    }
    async fn extend(&self, unit: &str, by: u32, _: &Actor) -> Result<UnitView> {
        self.unit(format!("extend {unit} {by}"))
    }
    async fn reduce(&self, unit: &str, by: u32, _: &Actor) -> Result<UnitView> {
        self.unit(format!("reduce {unit} {by}"))
    }
    async fn stop(&self, object: &str, _: &Actor) -> Result<Vec<UnitId>> {
        self.ids(format!("stop {object}"))
    }
    async fn start(&self, object: &str, _: &Actor) -> Result<Vec<UnitId>> {
        self.ids(format!("start {object}"))
    }
    async fn restart(&self, object: &str, _: &Actor) -> Result<Vec<UnitId>> {
        self.ids(format!("restart {object}"))
    }
    async fn rollout(&self, name: &str) -> Result<RolloutView> {
        Ok(self.unit(format!("rollout {name}"))?.rollout)
    }
    async fn steer(&self, name: &str, action: RolloutAction, _: &Actor) -> Result<RolloutView> {
        Ok(self.unit(format!("steer {name} {action}"))?.rollout)
    }
    async fn rollback(&self, name: &str, to: Option<u64>, _: &Actor) -> Result<RolloutView> {
        Ok(self.unit(format!("rollback {name} {to:?}"))?.rollout)
    }
    async fn cordon(&self, name: &str, _: &Actor) -> Result<ServerView> {
        self.server(format!("cordon {name}"))
    }
    async fn uncordon(&self, name: &str, _: &Actor) -> Result<ServerView> {
        self.server(format!("uncordon {name}"))
    }
    async fn rearrange(&self, name: &str, options: RearrangeOptions, _: &Actor) -> Result<ServerView> {
        let RearrangeOptions { deadline, late, give_back } = options;
        self.server(format!("rearrange {name} {deadline:?} {late:?} {give_back}"))
    }
    async fn volumes(&self) -> Result<Vec<VolumeView>> {
        Ok(self.volumes.clone())
    }
    async fn history(&self, object: &str) -> Result<HistoryView> {
        Ok(HistoryView { object: object.into(), ..self.history.clone() })
    }
    async fn usage(&self) -> Result<UsageReport> {
        Ok(self.usage.clone())
    }
    async fn remove(&self, object: &str, _: &Actor) -> Result<Vec<UnitId>> {
        self.ids(format!("remove {object}"))
    }
    async fn down(&self, _: &Actor) -> Result<Vec<UnitId>> {
        self.ids("down".into())
    }
    async fn units(&self) -> Result<Vec<UnitView>> {
        let mut before = self.units_before.lock().unwrap();
        Ok(if before.is_empty() { self.units.clone() } else { before.remove(0) })
    }
    async fn containers(&self) -> Result<Vec<ContainerView>> {
        Ok(self.containers.clone())
    }
    async fn servers(&self) -> Result<Vec<ServerView>> {
        let mut before = self.servers_before.lock().unwrap();
        Ok(if before.is_empty() { self.servers.clone() } else { before.remove(0) })
    }
    async fn endpoints(&self) -> Result<Vec<EndpointView>> {
        Ok(self.endpoints.clone())
    }
    async fn watch_endpoints(&self, _: Option<&str>) -> Result<EndpointStream> {
        Ok(stream::iter([Ok(self.endpoints.clone()), Ok(Vec::new())]).boxed())
    }
    async fn operations(&self) -> Result<Vec<OperationView>> {
        Ok(self.operations.clone())
    }
    async fn events(&self, filter: &EventFilter) -> Result<BoxStream<'static, Result<EventView>>> {
        self.note(format!("events follow={} tail={:?}", filter.follow, filter.tail))?;
        let kept = filter.tail.unwrap_or(self.events.len()).min(self.events.len());
        let events: Vec<_> = self.events[self.events.len() - kept..].iter().cloned().map(Ok).collect();
        Ok(stream::iter(events).boxed())
    }
    async fn inspect(&self, object: &str) -> Result<serde_json::Value> {
        self.note(format!("inspect {object}"))?;
        Ok(self.inspected.clone().unwrap_or_else(|| serde_json::json!({ "id": object, "ports": [1, 2] })))
    }
    async fn why(&self, object: &str) -> Result<Vec<WhyView>> {
        self.note(format!("why {object}"))?;
        Ok(self.why.clone())
    }
    async fn logs(&self, object: &str, options: &LogOptions) -> Result<LogStream> {
        self.note(format!("logs {object} {options:?}"))?;
        let lines: Vec<_> = self.logs.iter().cloned().map(Ok).collect();
        Ok(stream::iter(lines).boxed())
    }
    async fn exec(&self, container: &str, spec: &ExecSpec, _: &Actor) -> Result<ExecSession> {
        self.note(format!("exec {container} {:?} tty={:?}", spec.command, spec.tty))?;
        let input = sink::drain::<ExecInput>().sink_map_err(|never| match never {});
        let output: Vec<_> = self.exec.iter().cloned().map(Ok).collect();
        Ok(ExecSession { input: Box::pin(input), output: stream::iter(output).boxed() })
    }
    async fn about(&self) -> Result<ManagerView> {
        Ok(ManagerView {
            version: "0.1.0".into(),
            pid: NOBODY,
            store: "s".into(),
            epoch: 1,
            data_dir: "/d".into(),
            seq: 9,
            state: "running".into(),
            reason: String::new(),
            anomalies: 0,
        })
    }
    async fn shutdown(&self, mode: ShutdownMode) -> Result<()> {
        self.note(format!("shutdown {mode:?}"))
    }
}

/// A process id that no process has.
pub(crate) const NOBODY: u32 = i32::MAX as u32;

/// Five minutes before the time of a test's `Ui`.
pub(crate) const SINCE: &str = "2026-01-01T11:55:00.000Z";

/// `shop/prod/NAME`.
pub(crate) fn unit_id(name: &str) -> UnitId {
    UnitId::try_from(format!("shop/prod/{name}")).unwrap()
}

/// A Unit; it counts as updated where it is ready.
pub(crate) fn unit(name: &str, desired: u32, ready: u32) -> UnitView {
    let state = if ready >= desired { "completed" } else { "running" };
    UnitView {
        service: "shop".into(),
        map: "prod".into(),
        unit: name.into(),
        desired,
        ready,
        updated: ready,
        revision: 1,
        rollout: RolloutView { state: state.into(), ..RolloutView::default() },
        usage: UsageView { cpu_millis: u64::from(ready) * 10, memory_bytes: u64::from(ready) * (25 << 19) },
        reason: String::new(),
        stopped: false,
        limits: (0, 100),
        autoscaled: false,
        job: false,
        succeeded: 0,
        failed: 0,
        labels: BTreeMap::new(),
    }
}

/// A volume that one container has.
pub(crate) fn volume(unit: &str, name: &str) -> VolumeView {
    VolumeView {
        service: "shop".into(),
        map: "prod".into(),
        unit: unit.into(),
        name: name.into(),
        kind: "exclusive".into(),
        path: format!("/d/volumes/{unit}/{name}"),
        used_bytes: Some(3 << 20),
        size_bytes: Some(1 << 30),
        server: "local".into(),
        containers: vec![format!("{unit}-1")],
    }
}

/// What passes at that many requests a second.
pub(crate) fn traffic(rps: f64) -> TrafficSample {
    TrafficSample { connections: 4, in_flight: 2, rps, p50_ms: 1.5, p99_ms: 12.0 }
}

/// What a Unit with traffic does.
pub(crate) fn usage_of(rps: f64) -> UnitUsage {
    let sample =
        Sample { cpu_millis: 250, memory_bytes: 25 << 20, traffic: Some(traffic(rps)), custom: BTreeMap::new() };
    UnitUsage { sample, requests_total: 1_000, connections_total: 50, refused_total: 1, waiting: 0 }
}

/// One point of a history.
pub(crate) fn point(rps: f64) -> PointView {
    PointView {
        at: SINCE.into(),
        cpu_millis: 250,
        memory_bytes: 25 << 20,
        rps,
        in_flight: 2,
        p50_ms: 1.5,
        p99_ms: 12.0,
        ready: 3,
    }
}

/// A container with one port.
pub(crate) fn container(id: &str, unit: &str, state: &str) -> ContainerView {
    ContainerView {
        id: id.into(),
        service: "shop".into(),
        map: "prod".into(),
        unit: unit.into(),
        revision: 1,
        generation: 1,
        server: "local".into(),
        provider: "standalone".into(),
        state: state.into(),
        ready: state == "ready",
        reason: "the probe passed".into(),
        since: SINCE.into(),
        restarts: 0,
        pid: Some(4711),
        docker_id: None,
        ports: vec![PortView { name: "http".into(), host: "127.0.0.1".into(), port: 20_001 }],
        usage: UsageView { cpu_millis: 10, memory_bytes: 25 << 19 },
    }
}

/// This machine.
pub(crate) fn server() -> ServerView {
    ServerView {
        id: "local".into(),
        provider: "standalone".into(),
        provider_id: "m-1".into(),
        state: "ready".into(),
        reason: String::new(),
        since: SINCE.into(),
        zone: None,
        offering: "host".into(),
        capacity: ResourcesView { cpu_millis: 2_000, memory_bytes: 4 << 30 },
        allocated: ResourcesView { cpu_millis: 500, memory_bytes: 128 << 20 },
        containers: 2,
        incarnation: "b-1".into(),
        rearrangement: None,
    }
}

/// An endpoint with that many ready containers.
pub(crate) fn endpoint(unit: &str, service_port: Option<u16>, ready: u16) -> EndpointView {
    let backend = |n| BackendView { container: format!("{unit}-{n}"), host: "127.0.0.1".into(), port: 20_000 + n };
    EndpointView {
        service: "shop".into(),
        map: "prod".into(),
        unit: unit.into(),
        port_name: "http".into(),
        service_port,
        address: "127.0.0.1".into(),
        error: None,
        backends: (1..=ready).map(backend).collect(),
    }
}

/// An operation that failed.
pub(crate) fn operation() -> OperationView {
    OperationView {
        id: 17,
        kind: "start".into(),
        claims: vec!["web-k3v9qx".into()],
        attempt: 2,
        provider_ids: Vec::new(),
        state: "failed".into(),
        error: Some("the program python9 was not found".into()),
        since: SINCE.into(),
        deadline: SINCE.into(),
    }
}

/// An event.
pub(crate) fn event(seq: u64, kind: &str) -> EventView {
    EventView {
        seq,
        at: SINCE.into(),
        kind: kind.into(),
        object: "web-k3v9qx".into(),
        reason: "desired 1, found 0".into(),
        detail: serde_json::Value::Null,
    }
}

/// Output of an exec that says `text` and ends with `code`.
pub(crate) fn said(text: &'static str, exit: Exit) -> Vec<ExecOutput> {
    vec![ExecOutput::Stdout(Bytes::from_static(text.as_bytes())), ExecOutput::Exit(exit)]
}
