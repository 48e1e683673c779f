//! The handle that users hold.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cocktail_core::command::{Command, Commanded, Count};
use cocktail_core::contract::{
    Actor, Applied, ApplyOptions, BuildStream, EndpointSource as _, EndpointStream, EventFilter, ExecSession, ExecSpec,
    Gate, JoinTicket, LogOptions, LogStream, Manager, ManifestSource, RearrangeOptions, RolloutAction, ShutdownMode,
};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::{Revision, ServerId, UnitId};
use cocktail_core::state::State;
use cocktail_core::view::{
    ContainerView, EndpointView, EventView, HistoryView, ManagerView, OperationView, PlanView, RolloutView, ServerView,
    UnitView, UsageReport, VolumeView, WhyView,
};
use futures_util::stream::BoxStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::agents::Agents;
use crate::builder::{Builder, Kept};
use crate::shared::{Request, Shared};
use crate::writer::End;
use crate::{apply, endpoints, logs, monitor, observe, streams, volumes};

/// A Manager in this process. Cheap to clone; every clone is the same Manager.
///
/// Dropping it stops nothing: end it with [`Manager::shutdown`], which says what is to become of the workers.
#[derive(Debug, Clone)]
pub struct Orchestrator {
    pub(crate) shared: Shared,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    data_dir: PathBuf,
    /// Dropped with the last handle.
    _kept: Option<Kept>,
    ended: watch::Receiver<Option<Ended>>,
    watcher: Mutex<Option<crate::watch::Watcher>>,
}

/// Why a Manager ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// [`Manager::shutdown`] was called.
    Shutdown,
    /// Another Manager has the lease: this one acts no more.
    LeaseLost(String),
    /// A server that has just been reached runs what this store knows nothing of: the store is an older copy.
    Refused(String),
}

impl Orchestrator {
    /// Collects what an Orchestrator is made from.
    pub fn builder(store: Arc<dyn cocktail_core::contract::Store>) -> Builder {
        Builder::new(store)
    }

    pub(crate) fn new(shared: Shared, data_dir: PathBuf, kept: Option<Kept>, writer: JoinHandle<End>) -> Self {
        let (tell, ended) = watch::channel(None);
        let others = shared.ended.clone();
        tokio::spawn(async move {
            let end = writer.await;
            others.cancel();
            let end = match end {
                Ok(End::Closed) => Ended::Shutdown,
                Ok(End::Refused(why)) => Ended::Refused(why),
                Ok(End::LeaseLost(why)) => Ended::LeaseLost(why),
                Err(error) => Ended::LeaseLost(format!("the writer ended unexpectedly: {error}")),
            };
            tell.send_replace(Some(end));
        });
        Self { shared, inner: Arc::new(Inner { data_dir, _kept: kept, ended, watcher: Mutex::new(None) }) }
    }

    /// Waits until the Manager has ended, and says why.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.inner.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(Ended::Shutdown),
            Err(_) => Ended::Shutdown,
        }
    }

    pub(crate) fn keep(&self, watcher: crate::watch::Watcher) {
        // Nothing but this assignment happens under the lock.
        *self.inner.watcher.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(watcher);
    }

    fn gate(&self) -> Result<Arc<dyn Gate>> {
        let agents = self.shared.agents.as_ref().map(Agents::gate);
        agents.ok_or_else(|| {
            let message = "no agents can connect to this manager: set `listen` of [manager]";
            Error::new(ErrorKind::Unsupported, message)
        })
    }

    async fn view<T: Send + 'static>(&self, view: impl FnOnce(&State) -> T + Send + 'static) -> Result<T> {
        self.shared.look(move |state, _| view(state)).await
    }

    async fn count(&self, unit: &str, count: Count, actor: &Actor) -> Result<UnitView> {
        let command = Command::Scale { unit: unit.to_owned(), count };
        let view = |state: &State, commanded: &Commanded| state.unit_view(one(commanded)?);
        let view = self.shared.command_then(command, actor, view).await?;
        view.ok_or_else(|| Error::unexpected("a command about one unit names none"))
    }

    /// Gives a command about a rollout and says where it stands then.
    async fn roll(&self, command: Command, actor: &Actor) -> Result<RolloutView> {
        let view = |state: &State, commanded: &Commanded| Some(state.unit_view(one(commanded)?)?.rollout);
        let view = self.shared.command_then(command, actor, view).await?;
        view.ok_or_else(|| Error::unexpected("a command about one unit names none"))
    }

    /// Gives a command about a server and says where it stands then.
    async fn about_server(&self, command: Command, actor: &Actor) -> Result<ServerView> {
        let view = |state: &State, commanded: &Commanded| state.server_view(commanded.server.as_ref()?);
        let view = self.shared.command_then(command, actor, view).await?;
        view.ok_or_else(|| Error::unexpected("a command about a server names none"))
    }
}

/// The Unit that a command is about.
fn one(commanded: &Commanded) -> Option<&UnitId> {
    commanded.units.last()
}

#[async_trait]
impl Manager for Orchestrator {
    async fn apply(&self, sources: &[ManifestSource], actor: &Actor) -> Result<Applied> {
        self.apply_with(sources, ApplyOptions::default(), actor).await
    }

    async fn plan(&self, sources: &[ManifestSource]) -> Result<PlanView> {
        self.plan_with(sources, ApplyOptions::default()).await
    }

    async fn apply_with(&self, sources: &[ManifestSource], options: ApplyOptions, actor: &Actor) -> Result<Applied> {
        apply::apply(&self.shared, sources, options, actor).await
    }

    async fn plan_with(&self, sources: &[ManifestSource], options: ApplyOptions) -> Result<PlanView> {
        apply::plan(&self.shared, sources, options).await
    }

    async fn scale(&self, unit: &str, count: u32, actor: &Actor) -> Result<UnitView> {
        self.count(unit, Count::Exactly(count), actor).await
    }

    async fn extend(&self, unit: &str, by: u32, actor: &Actor) -> Result<UnitView> {
        self.count(unit, Count::More(by), actor).await
    }

    async fn reduce(&self, unit: &str, by: u32, actor: &Actor) -> Result<UnitView> {
        self.count(unit, Count::Fewer(by), actor).await
    }

    async fn stop(&self, object: &str, actor: &Actor) -> Result<Vec<UnitId>> {
        let command = Command::Switch { object: object.to_owned(), stopped: true };
        Ok(self.shared.command(command, actor).await?.units)
    }

    async fn start(&self, object: &str, actor: &Actor) -> Result<Vec<UnitId>> {
        let command = Command::Switch { object: object.to_owned(), stopped: false };
        Ok(self.shared.command(command, actor).await?.units)
    }

    async fn restart(&self, object: &str, actor: &Actor) -> Result<Vec<UnitId>> {
        Ok(self.shared.command(Command::Restart { object: object.to_owned() }, actor).await?.units)
    }

    async fn rollout(&self, unit: &str) -> Result<RolloutView> {
        let unit = unit.to_owned();
        self.view(move |state| state.rollout_view_of(&unit)).await?
    }

    async fn steer(&self, unit: &str, action: RolloutAction, actor: &Actor) -> Result<RolloutView> {
        self.roll(Command::Rollout { unit: unit.to_owned(), action }, actor).await
    }

    async fn rollback(&self, unit: &str, to: Option<u64>, actor: &Actor) -> Result<RolloutView> {
        let _kept = self.shared.builds.making().await;
        self.roll(Command::Rollback { unit: unit.to_owned(), to: to.map(Revision) }, actor).await
    }

    async fn volumes(&self) -> Result<Vec<VolumeView>> {
        volumes::volumes(&self.shared).await
    }

    async fn history(&self, object: &str) -> Result<HistoryView> {
        let object = object.to_owned();
        let whose = self.view(move |state| monitor::whose(state, &object)).await??;
        Ok(self.shared.monitor.history(&whose))
    }

    async fn usage(&self) -> Result<UsageReport> {
        Ok(self.shared.monitor.usage())
    }

    async fn remove(&self, object: &str, actor: &Actor) -> Result<Vec<UnitId>> {
        Ok(self.shared.command(Command::Remove { object: object.to_owned() }, actor).await?.units)
    }

    async fn down(&self, actor: &Actor) -> Result<Vec<UnitId>> {
        Ok(self.shared.command(Command::Down, actor).await?.units)
    }

    async fn cordon(&self, server: &str, actor: &Actor) -> Result<ServerView> {
        self.about_server(Command::Cordon { server: server.to_owned(), cordoned: true }, actor).await
    }

    async fn uncordon(&self, server: &str, actor: &Actor) -> Result<ServerView> {
        self.about_server(Command::Cordon { server: server.to_owned(), cordoned: false }, actor).await
    }

    async fn rearrange(&self, server: &str, options: RearrangeOptions, actor: &Actor) -> Result<ServerView> {
        self.about_server(Command::Rearrange { server: server.to_owned(), options }, actor).await
    }

    async fn join_token(&self, server: &str, ttl: Duration, actor: &Actor) -> Result<JoinTicket> {
        let gate = self.gate()?;
        let command = Command::JoinToken { server: server.to_owned(), ttl };
        let shown = self.shared.command_then(command, actor, |state, commanded| {
            let server = commanded.server.clone()?;
            let token = state.servers.get(&server)?.tenure.token.as_ref()?.number;
            Some((server, token, state.settings.advertise.clone()))
        });
        let shown = shown.await?.ok_or_else(|| Error::not_found(format!("no server {server:?}")))?;
        let (server, number, mut managers) = shown;
        if managers.is_empty() {
            managers.push(gate.address().to_string());
        }
        Ok(JoinTicket { token: gate.token(&server, number)?, server: server.to_string(), managers })
    }

    async fn revoke(&self, server: &str, because: Option<&str>, actor: &Actor) -> Result<ServerView> {
        let gate = self.gate()?;
        let command = Command::Revoke { server: server.to_owned(), because: because.map(str::to_owned) };
        let view = self.about_server(command, actor).await?;
        gate.revoke(&ServerId::new(view.id.as_str()), because)?;
        Ok(view)
    }

    async fn rotate_authority(&self, finish: bool, _actor: &Actor) -> Result<()> {
        self.gate()?.rotate(finish)
    }

    async fn units(&self) -> Result<Vec<UnitView>> {
        self.view(State::unit_views).await
    }

    async fn containers(&self) -> Result<Vec<ContainerView>> {
        self.view(State::container_views).await
    }

    async fn servers(&self) -> Result<Vec<ServerView>> {
        self.view(State::server_views).await
    }

    async fn endpoints(&self) -> Result<Vec<EndpointView>> {
        self.shared.look(endpoints::views).await
    }

    async fn watch_endpoints(&self, unit: Option<&str>) -> Result<EndpointStream> {
        Ok(self.shared.endpoints.watch(unit))
    }

    async fn builds(&self) -> Result<BuildStream> {
        Ok(streams::builds(&self.shared))
    }

    async fn operations(&self) -> Result<Vec<OperationView>> {
        self.view(State::operation_views).await
    }

    async fn events(&self, filter: &EventFilter) -> Result<BoxStream<'static, Result<EventView>>> {
        streams::events(&self.shared, filter).await
    }

    async fn inspect(&self, object: &str) -> Result<serde_json::Value> {
        let name = object.to_owned();
        let inspected = self.shared.look(move |state, health| {
            let mut value = state.inspect(&name)?;
            let server = value.pointer("/server/id").and_then(|id| id.as_str()).map(ServerId::new);
            if let (Some(server), Some(fields)) = (server, value.as_object_mut()) {
                let unknown = health.unknown.get(&server).map(observe::unknown_view);
                fields.insert("unknown".into(), unknown.unwrap_or_else(|| serde_json::Value::Array(Vec::new())));
            }
            Ok((value, streams::About::of(state, &name)?))
        });
        let (mut value, about) = inspected.await??;
        if let (Some(about), Some(fields)) = (about, value.as_object_mut()) {
            fields.insert("events".into(), serde_json::Value::Array(streams::last(&self.shared, &about).await?));
        }
        Ok(value)
    }

    async fn why(&self, object: &str) -> Result<Vec<WhyView>> {
        let object = object.to_owned();
        self.view(move |state| state.why(&object)).await?
    }

    async fn logs(&self, object: &str, options: &LogOptions) -> Result<LogStream> {
        logs::logs(&self.shared, object, options).await
    }

    async fn exec(&self, container: &str, spec: &ExecSpec, actor: &Actor) -> Result<ExecSession> {
        streams::exec(&self.shared, container, spec, actor).await
    }

    async fn about(&self) -> Result<ManagerView> {
        let data_dir = self.inner.data_dir.display().to_string();
        self.shared
            .look(move |state, health| {
                let (condition, reason) = match (&health.degraded, &state.frozen) {
                    (Some(because), _) => ("degraded", because.clone()),
                    (None, Some(because)) => ("frozen", because.clone()),
                    (None, None) => ("running", String::new()),
                };
                ManagerView {
                    version: env!("CARGO_PKG_VERSION").into(),
                    pid: std::process::id(),
                    store: state.store.to_string(),
                    epoch: state.epoch.0,
                    data_dir,
                    seq: health.seq.0,
                    state: condition.into(),
                    reason,
                    anomalies: state.anomalies().saturating_add(health.anomalies),
                }
            })
            .await
    }

    async fn shutdown(&self, mode: ShutdownMode) -> Result<()> {
        if mode == ShutdownMode::Stop {
            let (done, halted) = oneshot::channel();
            if self.shared.requests.send(Request::Halt(done)).await.is_ok() {
                // An error here is a Manager that ended meanwhile: nothing is left to wait for.
                let _ = halted.await;
            }
        }
        let (done, closed) = oneshot::channel();
        if self.shared.requests.send(Request::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
        // Providers come last, when nobody sends calls any more.
        for (_, runtime) in self.shared.servers.all() {
            runtime.shutdown(mode == ShutdownMode::Stop).await?;
        }
        Ok(())
    }
}
