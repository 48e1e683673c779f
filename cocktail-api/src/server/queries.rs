//! Requests that change nothing and are answered at once.

use axum::extract::State;
use cocktail_core::view::{
    ContainerView, EndpointView, HistoryView, ManagerView, OperationView, PlanView, RolloutView, ServerView, UnitView,
    UsageReport, VolumeView, WhyView,
};

use super::extract::{Answer, Json, Object};
use super::shared::Shared;
use crate::wire::Sources;

pub(super) async fn about(State(shared): State<Shared>) -> Answer<ManagerView> {
    Ok(Json(shared.manager().about().await?))
}

pub(super) async fn units(State(shared): State<Shared>) -> Answer<Vec<UnitView>> {
    Ok(Json(shared.manager().units().await?))
}

pub(super) async fn containers(State(shared): State<Shared>) -> Answer<Vec<ContainerView>> {
    Ok(Json(shared.manager().containers().await?))
}

pub(super) async fn servers(State(shared): State<Shared>) -> Answer<Vec<ServerView>> {
    Ok(Json(shared.manager().servers().await?))
}

pub(super) async fn endpoints(State(shared): State<Shared>) -> Answer<Vec<EndpointView>> {
    Ok(Json(shared.manager().endpoints().await?))
}

pub(super) async fn volumes(State(shared): State<Shared>) -> Answer<Vec<VolumeView>> {
    Ok(Json(shared.manager().volumes().await?))
}

pub(super) async fn usage(State(shared): State<Shared>) -> Answer<UsageReport> {
    let mut report = shared.manager().usage().await?;
    // A worker may report a metric that is no number. JSON has no word for that, and one container's mistake must not
    // hide what the others do.
    let samples = report.units.values_mut().map(|unit| &mut unit.sample).chain(report.containers.values_mut());
    samples.for_each(|sample| sample.custom.retain(|_, value| value.is_finite()));
    Ok(Json(report))
}

pub(super) async fn rollout(State(shared): State<Shared>, Object(unit): Object) -> Answer<RolloutView> {
    Ok(Json(shared.manager().rollout(&unit).await?))
}

pub(super) async fn history(State(shared): State<Shared>, Object(object): Object) -> Answer<HistoryView> {
    Ok(Json(shared.manager().history(&object).await?))
}

pub(super) async fn operations(State(shared): State<Shared>) -> Answer<Vec<OperationView>> {
    Ok(Json(shared.manager().operations().await?))
}

pub(super) async fn inspect(State(shared): State<Shared>, Object(object): Object) -> Answer<serde_json::Value> {
    Ok(Json(shared.manager().inspect(&object).await?))
}

pub(super) async fn why(State(shared): State<Shared>, Object(object): Object) -> Answer<Vec<WhyView>> {
    Ok(Json(shared.manager().why(&object).await?))
}

pub(super) async fn plan(State(shared): State<Shared>, Json(body): Json<Sources>) -> Answer<PlanView> {
    body.check()?;
    Ok(Json(shared.manager().plan_with(&body.sources, body.options()).await?))
}
