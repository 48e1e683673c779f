//! A Manager that remembers what it was asked and answers from a list, and an API in front of it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cocktail_api::{Api, ApiLimits, Client};
use cocktail_core::contract::{
    Actor, Applied, BuildStream, EndpointStream, EventFilter, ExecInput, ExecOutput, ExecSession, ExecSpec, Exit,
    LogLine, LogOptions, LogStream, Manager, ManifestSource, RearrangeOptions, RolloutAction, ShutdownMode,
};
use cocktail_core::error::{Error, Result};
use cocktail_core::fleet::Late;
use cocktail_core::id::UnitId;
use cocktail_core::manifest::{Diagnostic, Severity};
use cocktail_core::name::Name;
use cocktail_core::scaling::{Sample, TrafficSample};
use cocktail_core::time::WallTime;
use cocktail_core::view::{
    BackendView, BuildLine, ConsideredView, ContainerView, EndpointView, EventView, HistoryView, ManagerView,
    OperationView, PlanAction, PlanView, PointView, PortView, RearrangementView, ResourcesView, RolloutView,
    ServerView, UnitUsage, UnitView, UsageReport, UsageView, VolumeView, WhyView,
};
use futures_util::stream::{self, BoxStream, StreamExt};
use futures_util::{SinkExt, sink};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// What a stream or a session of the fake does.
type Events = BoxStream<'static, Result<EventView>>;

#[derive(Default)]
pub(crate) struct Fake {
    asked: Mutex<Vec<String>>,
    /// The next call fails with it.
    pub(crate) failure: Mutex<Option<Error>>,
    /// The next stream of events, instead of the usual one.
    pub(crate) events: Mutex<Option<Events>>,
    /// The next stream of endpoints, instead of the usual one.
    pub(crate) endpoints: Mutex<Option<EndpointStream>>,
    /// `units` waits until this says true.
    pub(crate) gate: Mutex<Option<watch::Receiver<bool>>>,
    /// Sessions that never take input, and end when this goes.
    pub(crate) deaf: Mutex<Option<oneshot::Sender<()>>>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

impl Fake {
    fn note(&self, call: String) -> Result<()> {
        self.asked.lock().unwrap().push(call);
        match self.failure.lock().unwrap().take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// What was asked since the last time.
    pub(crate) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

pub(crate) fn unit_id() -> UnitId {
    let name = |text: &str| Name::new(text).unwrap();
    UnitId::new(name("shop"), name("prod"), name("web"))
}

pub(crate) fn warning() -> Diagnostic {
    Diagnostic::of_file(Severity::Warning, "shop.toml", "nothing is deployed").with_help("add a unit")
}

pub(crate) fn applied() -> Applied {
    Applied { units: vec![unit_id()], changed: vec![unit_id()], removed: vec![unit_id()], warnings: vec![warning()] }
}

pub(crate) fn plan() -> PlanView {
    let action = PlanAction { action: "create".into(), object: "web".into(), because: "it is new".into() };
    PlanView { actions: vec![action], summary: "1 to create".into(), warnings: vec![warning()] }
}

pub(crate) fn unit() -> UnitView {
    UnitView {
        service: "shop".into(),
        map: "prod".into(),
        unit: "web".into(),
        desired: 3,
        ready: 2,
        updated: 2,
        revision: 7,
        rollout: rollout(),
        usage: UsageView { cpu_millis: 12, memory_bytes: 34 },
        reason: "no room".into(),
        stopped: false,
        limits: (1, 5),
        autoscaled: true,
        job: true,
        succeeded: 1,
        failed: 2,
        labels: [("team".to_owned(), "blue".to_owned())].into(),
    }
}

pub(crate) fn rollout() -> RolloutView {
    RolloutView {
        state: "running".into(),
        step: "2 of 3".into(),
        reason: "one to go".into(),
        from: Some(6),
        to: Some(7),
        since: "2026-01-31T12:00:00.000Z".into(),
        failed: true,
        asks_promotion: true,
    }
}

pub(crate) fn volume() -> VolumeView {
    VolumeView {
        service: "shop".into(),
        map: "prod".into(),
        unit: "web".into(),
        name: "data".into(),
        kind: "exclusive".into(),
        path: "/srv/.cocktail/volumes/data".into(),
        used_bytes: Some(4_096),
        size_bytes: Some(1 << 30),
        server: "here".into(),
        containers: vec!["web-k3v9qx".into()],
    }
}

pub(crate) fn sample() -> Sample {
    let traffic = TrafficSample { connections: 4, in_flight: 2, rps: 12.5, p50_ms: 0.5, p99_ms: 8.25 };
    let custom = [("queue".to_owned(), 3.5)].into();
    Sample { cpu_millis: 120, memory_bytes: 34, traffic: Some(traffic), custom }
}

pub(crate) fn usage() -> UsageReport {
    let unit = UnitUsage { sample: sample(), requests_total: 100, connections_total: 20, refused_total: 1, waiting: 3 };
    UsageReport {
        units: [("shop/prod/web".to_owned(), unit)].into(),
        containers: [("web-k3v9qx".to_owned(), sample())].into(),
    }
}

pub(crate) fn history() -> HistoryView {
    let point = PointView {
        at: "2026-01-31T12:00:00.000Z".into(),
        cpu_millis: 120,
        memory_bytes: 34,
        rps: 12.5,
        in_flight: 2,
        p50_ms: 0.5,
        p99_ms: 8.25,
        ready: 2,
    };
    HistoryView { object: "shop/prod/web".into(), interval_ms: 10_000, points: vec![point] }
}

pub(crate) fn container() -> ContainerView {
    ContainerView {
        id: "web-k3v9qx".into(),
        service: "shop".into(),
        map: "prod".into(),
        unit: "web".into(),
        revision: 7,
        generation: 2,
        server: "here".into(),
        provider: "standalone".into(),
        state: "ready".into(),
        ready: true,
        reason: "passes its probe".into(),
        since: "2026-01-31T12:00:00.000Z".into(),
        restarts: 1,
        pid: Some(4_711),
        docker_id: Some("0123".into()),
        ports: vec![PortView { name: "http".into(), host: "127.0.0.1".into(), port: 20_000 }],
        usage: UsageView { cpu_millis: 12, memory_bytes: 34 },
    }
}

pub(crate) fn server() -> ServerView {
    ServerView {
        id: "here".into(),
        provider: "standalone".into(),
        provider_id: "localhost".into(),
        state: "ready".into(),
        reason: "joined".into(),
        since: "2026-01-31T12:00:00.000Z".into(),
        zone: Some("a".into()),
        offering: "machine".into(),
        capacity: ResourcesView { cpu_millis: 2_000, memory_bytes: 1 << 30 },
        allocated: ResourcesView { cpu_millis: 250, memory_bytes: 1 << 26 },
        containers: 3,
        incarnation: "boot-1".into(),
        rearrangement: Some(RearrangementView {
            because: "uid 0 asked to empty here".into(),
            deadline: Some("2026-01-31T12:10:00.000Z".into()),
            late: Late::Force,
            give_back: true,
        }),
    }
}

pub(crate) fn build_line() -> BuildLine {
    BuildLine { unit: "shop/prod/web".into(), server: "docker".into(), line: "Step 1/2 : FROM scratch".into() }
}

pub(crate) fn endpoint() -> EndpointView {
    EndpointView {
        service: "shop".into(),
        map: "prod".into(),
        unit: "web".into(),
        port_name: "http".into(),
        service_port: Some(8_080),
        address: "127.0.0.1".into(),
        error: Some("taken".into()),
        backends: vec![BackendView { container: "web-k3v9qx".into(), host: "127.0.0.1".into(), port: 20_000 }],
    }
}

pub(crate) fn operation() -> OperationView {
    OperationView {
        id: 9,
        kind: "start".into(),
        claims: vec!["web-k3v9qx".into()],
        attempt: 1,
        provider_ids: vec!["4711".into()],
        state: "failed".into(),
        error: Some("no such program".into()),
        since: "2026-01-31T12:00:00.000Z".into(),
        deadline: "2026-01-31T12:01:00.000Z".into(),
    }
}

pub(crate) fn event(seq: u64) -> EventView {
    EventView {
        seq,
        at: "2026-01-31T12:00:00.000Z".into(),
        kind: "started".into(),
        object: "web-k3v9qx".into(),
        reason: "one is missing".into(),
        detail: serde_json::json!({"pid": 4_711, "text": "line\nbreak"}),
    }
}

pub(crate) fn why() -> WhyView {
    WhyView {
        at: "2026-01-31T12:00:00.000Z".into(),
        decision: "wait".into(),
        object: "web".into(),
        because: "1 of 3 is missing".into(),
        considered: vec![ConsideredView { option: "here".into(), rejected_because: "it is full".into() }],
    }
}

pub(crate) fn about() -> ManagerView {
    ManagerView {
        version: "0.1.0".into(),
        pid: 4_711,
        store: "store-1".into(),
        epoch: 3,
        data_dir: "/srv/.cocktail".into(),
        seq: 12,
        state: "running".into(),
        reason: String::new(),
        anomalies: 2,
    }
}

pub(crate) fn log_line(text: &str) -> LogLine {
    LogLine {
        container: "web-k3v9qx".into(),
        at: WallTime(1_769_860_800_123_456),
        stderr: true,
        partial: true,
        text: text.into(),
    }
}

#[async_trait]
impl Manager for Fake {
    async fn apply(&self, sources: &[ManifestSource], actor: &Actor) -> Result<Applied> {
        self.note(format!("apply {sources:?} by {actor}"))?;
        Ok(applied())
    }
    async fn plan(&self, sources: &[ManifestSource]) -> Result<PlanView> {
        self.note(format!("plan {sources:?}"))?;
        Ok(plan())
    }
    async fn scale(&self, unit_name: &str, count: u32, actor: &Actor) -> Result<UnitView> {
        assert_ne!(unit_name, "panic", "a fault in a Manager");
        self.note(format!("scale {unit_name} {count} by {actor}"))?;
        Ok(unit())
    }
    async fn extend(&self, unit_name: &str, by: u32, actor: &Actor) -> Result<UnitView> {
        self.note(format!("extend {unit_name} {by} by {actor}"))?;
        Ok(unit())
    }
    async fn reduce(&self, unit_name: &str, by: u32, actor: &Actor) -> Result<UnitView> {
        self.note(format!("reduce {unit_name} {by} by {actor}"))?;
        Ok(unit())
    }
    async fn stop(&self, object: &str, actor: &Actor) -> Result<Vec<UnitId>> {
        self.note(format!("stop {object} by {actor}"))?;
        Ok(vec![unit_id()])
    }
    async fn start(&self, object: &str, actor: &Actor) -> Result<Vec<UnitId>> {
        self.note(format!("start {object} by {actor}"))?;
        Ok(vec![unit_id()])
    }
    async fn restart(&self, object: &str, actor: &Actor) -> Result<Vec<UnitId>> {
        self.note(format!("restart {object} by {actor}"))?;
        Ok(vec![unit_id()])
    }
    async fn rollout(&self, unit: &str) -> Result<RolloutView> {
        self.note(format!("rollout {unit}"))?;
        Ok(rollout())
    }
    async fn steer(&self, unit: &str, action: RolloutAction, actor: &Actor) -> Result<RolloutView> {
        self.note(format!("steer {unit} {action} by {actor}"))?;
        Ok(rollout())
    }
    async fn rollback(&self, unit: &str, to: Option<u64>, actor: &Actor) -> Result<RolloutView> {
        self.note(format!("rollback {unit} {to:?} by {actor}"))?;
        Ok(rollout())
    }
    async fn cordon(&self, name: &str, actor: &Actor) -> Result<ServerView> {
        self.note(format!("cordon {name} by {actor}"))?;
        Ok(server())
    }
    async fn uncordon(&self, name: &str, actor: &Actor) -> Result<ServerView> {
        self.note(format!("uncordon {name} by {actor}"))?;
        Ok(server())
    }
    async fn rearrange(&self, name: &str, options: RearrangeOptions, actor: &Actor) -> Result<ServerView> {
        self.note(format!("rearrange {name} {options:?} by {actor}"))?;
        Ok(server())
    }
    async fn volumes(&self) -> Result<Vec<VolumeView>> {
        self.note("volumes".into())?;
        Ok(vec![volume()])
    }
    async fn history(&self, object: &str) -> Result<HistoryView> {
        self.note(format!("history {object}"))?;
        Ok(history())
    }
    async fn usage(&self) -> Result<UsageReport> {
        self.note("usage".into())?;
        let mut report = usage();
        if let Some(sample) = report.containers.get_mut("web-k3v9qx") {
            // What a worker says of itself may be anything.
            sample.custom.insert("broken".into(), f64::NAN);
        }
        Ok(report)
    }
    async fn remove(&self, object: &str, actor: &Actor) -> Result<Vec<UnitId>> {
        self.note(format!("remove {object} by {actor}"))?;
        Ok(vec![unit_id()])
    }
    async fn down(&self, actor: &Actor) -> Result<Vec<UnitId>> {
        // Begun and ended are noted apart: what is between must not be cut by a client that goes away.
        self.note(format!("down by {actor}"))?;
        let gate = self.gate.lock().unwrap().clone();
        if let Some(mut gate) = gate {
            gate.wait_for(|open| *open).await.map_err(|_| Error::unexpected("the gate is gone"))?;
        }
        self.note("down done".into())?;
        Ok(vec![unit_id()])
    }
    async fn units(&self) -> Result<Vec<UnitView>> {
        self.note("units".into())?;
        let gate = self.gate.lock().unwrap().clone();
        if let Some(mut gate) = gate {
            gate.wait_for(|open| *open).await.map_err(|_| Error::unexpected("the gate is gone"))?;
        }
        Ok(vec![unit()])
    }
    async fn containers(&self) -> Result<Vec<ContainerView>> {
        self.note("containers".into())?;
        Ok(vec![container()])
    }
    async fn servers(&self) -> Result<Vec<ServerView>> {
        self.note("servers".into())?;
        Ok(vec![server()])
    }
    async fn endpoints(&self) -> Result<Vec<EndpointView>> {
        self.note("endpoints".into())?;
        Ok(vec![endpoint()])
    }
    async fn builds(&self) -> Result<BuildStream> {
        self.note("builds".into())?;
        Ok(stream::iter([Ok(build_line())]).boxed())
    }
    async fn watch_endpoints(&self, unit: Option<&str>) -> Result<EndpointStream> {
        self.note(format!("watch endpoints {unit:?}"))?;
        let given = self.endpoints.lock().unwrap().take();
        Ok(given.unwrap_or_else(|| stream::iter([Ok(vec![endpoint()]), Ok(Vec::new())]).boxed()))
    }
    async fn operations(&self) -> Result<Vec<OperationView>> {
        self.note("operations".into())?;
        Ok(vec![operation()])
    }
    async fn events(&self, filter: &EventFilter) -> Result<Events> {
        self.note(format!("events {filter:?}"))?;
        let given = self.events.lock().unwrap().take();
        Ok(given.unwrap_or_else(|| stream::iter([Ok(event(1)), Ok(event(2))]).boxed()))
    }
    async fn inspect(&self, object: &str) -> Result<serde_json::Value> {
        self.note(format!("inspect {object}"))?;
        Ok(serde_json::json!({"object": object, "error": {"kind": "conflict"}, "message": "not an error"}))
    }
    async fn why(&self, object: &str) -> Result<Vec<WhyView>> {
        self.note(format!("why {object}"))?;
        Ok(vec![why()])
    }
    async fn logs(&self, object: &str, options: &LogOptions) -> Result<LogStream> {
        self.note(format!("logs {object} {options:?}"))?;
        Ok(stream::iter([Ok(log_line("one")), Ok(log_line("two\u{1b}[0m é"))]).boxed())
    }
    async fn exec(&self, name: &str, spec: &ExecSpec, actor: &Actor) -> Result<ExecSession> {
        self.note(format!("exec {name} {spec:?} by {actor}"))?;
        let deaf = self.deaf.lock().unwrap().take();
        Ok(match deaf {
            Some(alive) => deaf_session(alive),
            None => echo_session(),
        })
    }
    async fn about(&self) -> Result<ManagerView> {
        self.note("about".into())?;
        Ok(about())
    }
    async fn shutdown(&self, mode: ShutdownMode) -> Result<()> {
        self.note(format!("shutdown {mode:?}"))
    }
}

/// Says back what it is told: input on stdout, sizes on stderr; the end of input ends it with code 7.
fn echo_session() -> ExecSession {
    let (to, from) = mpsc::channel::<ExecInput>(4);
    let input = sink::unfold(to, |to, item| async move {
        to.send(item).await.map_err(|_| Error::unavailable("the command has ended"))?;
        Ok::<_, Error>(to)
    });
    let output = stream::unfold(Some(from), |from| async move {
        let mut from = from?;
        let item = match from.recv().await? {
            ExecInput::Stdin(bytes) => ExecOutput::Stdout(bytes),
            ExecInput::Resize(rows, columns) => ExecOutput::Stderr(format!("{rows}x{columns}").into()),
            ExecInput::Eof => return Some((Ok(ExecOutput::Exit(Exit::Code(7))), None)),
        };
        Some((Ok(item), Some(from)))
    });
    ExecSession { input: Box::pin(input), output: output.boxed() }
}

/// Takes no input and says nothing, as long as it is kept.
fn deaf_session(alive: oneshot::Sender<()>) -> ExecSession {
    let input = sink::unfold((), |(), _: ExecInput| std::future::pending::<Result<()>>());
    let output = stream::pending().chain(stream::once(async move {
        drop(alive);
        Ok(ExecOutput::Exit(Exit::Unknown))
    }));
    ExecSession { input: Box::pin(input.sink_map_err(|error: Error| error)), output: output.boxed() }
}

/// An API that runs, in a folder of its own.
pub(crate) struct Running {
    pub(crate) fake: Arc<Fake>,
    pub(crate) folder: tempfile::TempDir,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::with(ApiLimits::default()).await
    }

    pub(crate) async fn with(limits: ApiLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fake = Arc::new(Fake::default());
        let api = Api::bind(&folder.path().join("cocktail.sock")).await.unwrap().with_limits(limits);
        let (shutdown, asked) = oneshot::channel();
        let manager: Arc<dyn Manager> = fake.clone();
        let task = tokio::spawn(api.run(manager, async move {
            let _ = asked.await;
        }));
        Self { fake, folder, shutdown: Some(shutdown), task }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("cocktail.sock")
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.socket()).await.unwrap()
    }

    /// Asks the API to end, without waiting.
    pub(crate) fn ask_to_end(&mut self) {
        let _ = self.shutdown.take().unwrap().send(());
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(self) -> tempfile::TempDir {
        self.task.await.unwrap();
        self.folder
    }

    /// Ends it as a kill would: nobody says anything.
    pub(crate) async fn die(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

/// Sends bytes as they are and reads until the other side closes.
pub(crate) async fn raw(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let mut answer = Vec::new();
    // The other side may close while we still write; what it said before is what counts.
    let _ = stream.write_all(bytes).await;
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

/// The uid of this process, as the Manager sees it.
pub(crate) fn me() -> Actor {
    Actor::uid(rustix::process::geteuid().as_raw())
}
