//! The caller's end: a [`Manager`] that is somewhere else.
//!
//! Start at [`Client`]. Each call is a connection of its own: a Manager may end and another one take its place between
//! two calls, and nothing has to be cleaned up. [`http`] sends and classifies, [`lines`] reads streams, [`exec`]
//! carries sessions.
//!
//! A request that certainly did nothing fails with `Unavailable`, a command whose answer was lost with
//! `OutcomeUnknown`. The difference matters to whoever wants to repeat it.

mod exec;
mod http;
mod lines;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use cocktail_core::contract::{
    Actor, Applied, ApplyOptions, BuildStream, EndpointStream, EventFilter, ExecSession, ExecSpec, JoinTicket, LogLine,
    LogOptions, LogStream, Manager, ManifestSource, RearrangeOptions, RolloutAction, ShutdownMode,
};
use cocktail_core::error::Result;
use cocktail_core::id::UnitId;
use cocktail_core::view::{
    ContainerView, EndpointView, EventView, HistoryView, ManagerView, OperationView, PlanView, RolloutView, ServerView,
    UnitView, UsageReport, VolumeView, WhyView,
};
use futures_util::stream::{BoxStream, StreamExt};
use serde::Serialize;

use crate::wire::{
    By, Count, Exec, Nothing, Output, Rearrange, Revoke, Rollback, Rotate, Shutdown, Sources, Steer, Token, exact_time,
};
use http::{Call, object_path, query};

/// A Manager behind a socket. Cheap to clone; opens a connection for each call.
///
/// The actor that callers pass is not sent: the Manager takes the uid of the calling process instead.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
}

impl Client {
    /// A client of the Manager that listens on `socket`, which is tried once.
    ///
    /// # Errors
    /// `Unavailable` when no Manager runs there, `Denied` when this user may not reach it.
    pub async fn connect(socket: impl Into<PathBuf>) -> Result<Self> {
        let client = Self { socket: socket.into(), patience: Duration::from_secs(120) };
        http::open(&client.socket).await?;
        Ok(client)
    }

    /// Sets how long an answer, or the beginning of a stream, may take before a call fails with `Deadline`; two
    /// minutes unless set. [`Manager::shutdown`] is exempt, since workers may have long grace periods, and [`Manager::apply`],
    /// since images may be built.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Where the Manager listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn get(&self, path: impl Into<String>) -> Call<'_> {
        Call::get(&self.socket, Some(self.patience), path.into())
    }

    fn post(&self, path: impl Into<String>, body: &impl Serialize) -> Result<Call<'_>> {
        Call::post(&self.socket, Some(self.patience), path.into(), body)
    }

    async fn units_of(&self, verb: &str, object: &str) -> Result<Vec<UnitId>> {
        self.post(object_path(verb, object)?, &Nothing {})?.answer().await
    }
}

#[async_trait]
impl Manager for Client {
    async fn apply(&self, sources: &[ManifestSource], actor: &Actor) -> Result<Applied> {
        self.apply_with(sources, ApplyOptions::default(), actor).await
    }

    async fn plan(&self, sources: &[ManifestSource]) -> Result<PlanView> {
        self.plan_with(sources, ApplyOptions::default()).await
    }

    async fn apply_with(&self, sources: &[ManifestSource], options: ApplyOptions, _: &Actor) -> Result<Applied> {
        let body = Sources { sources: sources.to_vec(), pull: options.pull };
        body.check()?;
        // Images are built meanwhile, which may take long.
        Call::post(&self.socket, None, "/v1/apply".into(), &body)?.answer().await
    }

    async fn plan_with(&self, sources: &[ManifestSource], options: ApplyOptions) -> Result<PlanView> {
        let body = Sources { sources: sources.to_vec(), pull: options.pull };
        body.check()?;
        self.post("/v1/plan", &body)?.changes_nothing().answer().await
    }

    async fn scale(&self, unit: &str, count: u32, _: &Actor) -> Result<UnitView> {
        self.post(object_path("scale", unit)?, &Count { count })?.answer().await
    }

    async fn extend(&self, unit: &str, by: u32, _: &Actor) -> Result<UnitView> {
        self.post(object_path("extend", unit)?, &By { by })?.answer().await
    }

    async fn reduce(&self, unit: &str, by: u32, _: &Actor) -> Result<UnitView> {
        self.post(object_path("reduce", unit)?, &By { by })?.answer().await
    }

    async fn stop(&self, object: &str, _: &Actor) -> Result<Vec<UnitId>> {
        self.units_of("stop", object).await
    }

    async fn start(&self, object: &str, _: &Actor) -> Result<Vec<UnitId>> {
        self.units_of("start", object).await
    }

    async fn restart(&self, object: &str, _: &Actor) -> Result<Vec<UnitId>> {
        self.units_of("restart", object).await
    }

    async fn rollout(&self, unit: &str) -> Result<RolloutView> {
        self.get(object_path("rollout", unit)?).answer().await
    }

    async fn steer(&self, unit: &str, action: RolloutAction, _: &Actor) -> Result<RolloutView> {
        self.post(object_path("steer", unit)?, &Steer { action })?.answer().await
    }

    async fn rollback(&self, unit: &str, to: Option<u64>, _: &Actor) -> Result<RolloutView> {
        self.post(object_path("rollback", unit)?, &Rollback { to })?.answer().await
    }

    async fn volumes(&self) -> Result<Vec<VolumeView>> {
        self.get("/v1/volumes").answer().await
    }

    async fn history(&self, object: &str) -> Result<HistoryView> {
        self.get(object_path("history", object)?).answer().await
    }

    async fn usage(&self) -> Result<UsageReport> {
        self.get("/v1/usage").answer().await
    }

    async fn remove(&self, object: &str, _: &Actor) -> Result<Vec<UnitId>> {
        self.units_of("remove", object).await
    }

    async fn down(&self, _: &Actor) -> Result<Vec<UnitId>> {
        self.post("/v1/down", &Nothing {})?.answer().await
    }

    async fn cordon(&self, server: &str, _: &Actor) -> Result<ServerView> {
        self.post(object_path("cordon", server)?, &Nothing {})?.answer().await
    }

    async fn uncordon(&self, server: &str, _: &Actor) -> Result<ServerView> {
        self.post(object_path("uncordon", server)?, &Nothing {})?.answer().await
    }

    async fn rearrange(&self, server: &str, options: RearrangeOptions, _: &Actor) -> Result<ServerView> {
        self.post(object_path("rearrange", server)?, &Rearrange::from(options))?.answer().await
    }

    async fn join_token(&self, server: &str, ttl: Duration, _: &Actor) -> Result<JoinTicket> {
        self.post(
            object_path("token", server)?,
            &Token { ttl_millis: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX) },
        )?
        .answer()
        .await
    }

    async fn revoke(&self, server: &str, because: Option<&str>, _: &Actor) -> Result<ServerView> {
        let because = because.map(str::to_owned);
        self.post(object_path("revoke", server)?, &Revoke { because })?.answer().await
    }

    async fn rotate_authority(&self, finish: bool, _: &Actor) -> Result<()> {
        self.post("/v1/rotate", &Rotate { finish })?.answer().await
    }

    async fn units(&self) -> Result<Vec<UnitView>> {
        self.get("/v1/units").answer().await
    }

    async fn containers(&self) -> Result<Vec<ContainerView>> {
        self.get("/v1/containers").answer().await
    }

    async fn servers(&self) -> Result<Vec<ServerView>> {
        self.get("/v1/servers").answer().await
    }

    async fn endpoints(&self) -> Result<Vec<EndpointView>> {
        self.get("/v1/endpoints").answer().await
    }

    async fn watch_endpoints(&self, unit: Option<&str>) -> Result<EndpointStream> {
        let path = query("/v1/watch/endpoints".into(), &[("unit", unit.map(str::to_owned))]);
        Ok(lines::items(self.get(path).stream().await?))
    }

    async fn builds(&self) -> Result<BuildStream> {
        Ok(lines::items(self.get("/v1/watch/builds").stream().await?))
    }

    async fn operations(&self) -> Result<Vec<OperationView>> {
        self.get("/v1/operations").answer().await
    }

    async fn events(&self, filter: &EventFilter) -> Result<BoxStream<'static, Result<EventView>>> {
        let path = query(
            "/v1/events".into(),
            &[
                ("from", filter.from.map(|from| from.to_string())),
                ("tail", filter.tail.map(|tail| tail.to_string())),
                ("follow", filter.follow.then(|| "true".into())),
                ("object", filter.object.clone()),
            ],
        );
        Ok(lines::items(self.get(path).stream().await?))
    }

    async fn inspect(&self, object: &str) -> Result<serde_json::Value> {
        self.get(object_path("inspect", object)?).answer().await
    }

    async fn why(&self, object: &str) -> Result<Vec<WhyView>> {
        self.get(object_path("why", object)?).answer().await
    }

    async fn logs(&self, object: &str, options: &LogOptions) -> Result<LogStream> {
        let path = query(
            object_path("logs", object)?,
            &[
                ("follow", options.follow.then(|| "true".into())),
                ("tail", options.tail.map(|tail| tail.to_string())),
                ("since", options.since.map(exact_time)),
                ("grep", options.grep.clone()),
            ],
        );
        let lines = lines::items::<Output>(self.get(path).stream().await?);
        Ok(lines.map(|line| line.and_then(LogLine::try_from)).boxed())
    }

    async fn exec(&self, container: &str, spec: &ExecSpec, _: &Actor) -> Result<ExecSession> {
        let call = self.post(object_path("exec", container)?, &Exec::from(spec))?;
        Ok(exec::session(call.upgrade().await?))
    }

    async fn about(&self) -> Result<ManagerView> {
        self.get("/v1/about").answer().await
    }

    async fn shutdown(&self, mode: ShutdownMode) -> Result<()> {
        Call::post(&self.socket, None, "/v1/shutdown".into(), &Shutdown { mode })?.answer().await
    }
}
