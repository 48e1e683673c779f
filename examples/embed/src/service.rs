//! The service's own REST interface, over the Manager that it embeds.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use cocktail::{Actor, Cocktail, ErrorKind, Manager, ManifestSource};
use serde_json::{Value, json};

/// What the service wants to run: itself, as workers.
pub(crate) fn manifest() -> Result<ManifestSource> {
    let program = std::env::current_exe()?;
    let program = json!(program.to_str().context("the program's path is no UTF-8")?);
    let port = crate::port("EMBED_WORKERS_PORT", 3080)?;
    let text = format!(
        "service = \"embed\"\n\
         [maps.main.units.worker]\n\
         command = [{program}, \"worker\"]\n\
         replicas = 2\n\
         ports.http = {{ service = {port} }}\n\
         ready = {{ http = \"/\" }}\n"
    );
    Ok(ManifestSource { file: PathBuf::from("embed.toml"), base: std::env::current_dir()?, text })
}

pub(crate) fn router(manager: Arc<Cocktail>) -> Router {
    Router::new().route("/workers", get(workers)).route("/workers/{count}", put(scale)).with_state(manager)
}

async fn workers(State(manager): State<Arc<Cocktail>>) -> Result<Json<Value>, (StatusCode, String)> {
    let containers = manager.containers().await.map_err(answer)?;
    Ok(Json(json!(containers)))
}

async fn scale(
    State(manager): State<Arc<Cocktail>>,
    Path(count): Path<u32>,
) -> Result<Json<Value>, (StatusCode, String)> {
    let unit = manager.scale("worker", count, &Actor("http".into())).await.map_err(answer)?;
    Ok(Json(json!(unit)))
}

/// The status that an error deserves.
fn answer(error: cocktail::Error) -> (StatusCode, String) {
    let status = match error.kind() {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Refused | ErrorKind::Conflict => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, error.chain())
}
