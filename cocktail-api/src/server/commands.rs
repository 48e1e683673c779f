//! Requests that change something. Each runs to its end, also when the client goes away meanwhile.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use cocktail_core::contract::{Applied, JoinTicket};
use cocktail_core::id::UnitId;
use cocktail_core::view::{RolloutView, ServerView, UnitView};

use super::extract::{Answer, Caller, Json, Object};
use super::shared::Shared;
use crate::wire::{By, Count, Nothing, Rearrange, Revoke, Rollback, Rotate, Shutdown, Sources, Steer, Token};

pub(super) async fn apply(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Json(body): Json<Sources>,
) -> Answer<Applied> {
    body.check()?;
    let manager = Arc::clone(shared.manager());
    Ok(Json(shared.complete(async move { manager.apply_with(&body.sources, body.options(), &actor).await }).await?))
}

pub(super) async fn scale(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Object(unit): Object,
    Json(Count { count }): Json<Count>,
) -> Answer<UnitView> {
    let manager = Arc::clone(shared.manager());
    Ok(Json(shared.complete(async move { manager.scale(&unit, count, &actor).await }).await?))
}

pub(super) async fn extend(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Object(unit): Object,
    Json(By { by }): Json<By>,
) -> Answer<UnitView> {
    let manager = Arc::clone(shared.manager());
    Ok(Json(shared.complete(async move { manager.extend(&unit, by, &actor).await }).await?))
}

pub(super) async fn reduce(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Object(unit): Object,
    Json(By { by }): Json<By>,
) -> Answer<UnitView> {
    let manager = Arc::clone(shared.manager());
    Ok(Json(shared.complete(async move { manager.reduce(&unit, by, &actor).await }).await?))
}

pub(super) async fn stop(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Object(object): Object,
    Json(Nothing {}): Json<Nothing>,
) -> Answer<Vec<UnitId>> {
    let manager = Arc::clone(shared.manager());
    Ok(Json(shared.complete(async move { manager.stop(&object, &actor).await }).await?))
}

pub(super) async fn start(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Object(object): Object,
    Json(Nothing {}): Json<Nothing>,
) -> Answer<Vec<UnitId>> {
    let manager = Arc::clone(shared.manager());
    Ok(Json(shared.complete(async move { manager.start(&object, &actor).await }).await?))
}

pub(super) async fn restart(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Object(object): Object,
    Json(Nothing {}): Json<Nothing>,
) -> Answer<Vec<UnitId>> {
    let manager = Arc::clone(shared.manager());
    Ok(Json(shared.complete(async move { manager.restart(&object, &actor).await }).await?))
}

pub(super) async fn steer(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Object(unit): Object,
    Json(Steer { action }): Json<Steer>,
) -> Answer<RolloutView> {
    let manager = Arc::clone(shared.manager());
    Ok(Json(shared.complete(async move { manager.steer(&unit, action, &actor).await }).await?))
}

pub(super) async fn rollback(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Object(unit): Object,
    Json(Rollback { to }): Json<Rollback>,
) -> Answer<RolloutView> {
    let manager = Arc::clone(shared.manager());
    Ok(Json(shared.complete(async move { manager.rollback(&unit, to, &actor).await }).await?))
}

pub(super) async fn cordon(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Object(server): Object,
    Json(Nothing {}): Json<Nothing>,
) -> Answer<ServerView> {
    let manager = Arc::clone(shared.manager());
    Ok(Json(shared.complete(async move { manager.cordon(&server, &actor).await }).await?))
}

pub(super) async fn uncordon(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Object(server): Object,
    Json(Nothing {}): Json<Nothing>,
) -> Answer<ServerView> {
    let manager = Arc::clone(shared.manager());
    Ok(Json(shared.complete(async move { manager.uncordon(&server, &actor).await }).await?))
}

pub(super) async fn token(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Object(server): Object,
    Json(Token { ttl_millis }): Json<Token>,
) -> Answer<JoinTicket> {
    let (manager, ttl) = (Arc::clone(shared.manager()), Duration::from_millis(ttl_millis));
    Ok(Json(shared.complete(async move { manager.join_token(&server, ttl, &actor).await }).await?))
}

pub(super) async fn revoke(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Object(server): Object,
    Json(Revoke { because }): Json<Revoke>,
) -> Answer<ServerView> {
    let manager = Arc::clone(shared.manager());
    Ok(Json(shared.complete(async move { manager.revoke(&server, because.as_deref(), &actor).await }).await?))
}

pub(super) async fn rotate(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Json(Rotate { finish }): Json<Rotate>,
) -> Answer<()> {
    let manager = Arc::clone(shared.manager());
    Ok(Json(shared.complete(async move { manager.rotate_authority(finish, &actor).await }).await?))
}

pub(super) async fn rearrange(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Object(server): Object,
    Json(body): Json<Rearrange>,
) -> Answer<ServerView> {
    let manager = Arc::clone(shared.manager());
    Ok(Json(shared.complete(async move { manager.rearrange(&server, body.into(), &actor).await }).await?))
}

pub(super) async fn remove(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Object(object): Object,
    Json(Nothing {}): Json<Nothing>,
) -> Answer<Vec<UnitId>> {
    let manager = Arc::clone(shared.manager());
    Ok(Json(shared.complete(async move { manager.remove(&object, &actor).await }).await?))
}

pub(super) async fn down(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Json(Nothing {}): Json<Nothing>,
) -> Answer<Vec<UnitId>> {
    let manager = Arc::clone(shared.manager());
    Ok(Json(shared.complete(async move { manager.down(&actor).await }).await?))
}

/// Answers `null` once the Manager has ended.
pub(super) async fn shutdown(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Json(Shutdown { mode }): Json<Shutdown>,
) -> Answer<()> {
    tracing::info!(%actor, ?mode, "the Manager is asked to end");
    let manager = Arc::clone(shared.manager());
    Ok(Json(shared.complete(async move { manager.shutdown(mode).await }).await?))
}
