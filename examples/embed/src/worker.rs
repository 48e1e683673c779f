//! A worker: serves the port that it was given, and finishes what it has begun when it is asked to end.

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::get;

pub(crate) async fn run() -> Result<()> {
    let port: u16 = std::env::var("PORT").context("workers are given a PORT")?.parse()?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let name = std::env::var("COCKTAIL_CONTAINER").unwrap_or_default();
    let hello = format!("{name}, process {}\n", std::process::id());
    let router = Router::new().route("/", get(move || async move { hello }));
    axum::serve(listener, router).with_graceful_shutdown(crate::ended()).await?;
    Ok(())
}
