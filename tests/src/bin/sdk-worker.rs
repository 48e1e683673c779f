//! A worker on the SDK, with microservices that do as they are told.
//!
//! `orders` answers `/` with its greeting, container and revision; `/slow?N` after N milliseconds; `/help`, `/degraded` and
//! `/broken` by telling the Manager. `unable` cannot be loaded, and `idle` does nothing.

use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::routing::get;
use cocktail_agent::worker::{BoxError, Context, Error, MicroService, Worker, async_trait};

struct Orders;

#[derive(serde::Deserialize)]
struct Config {
    greeting: String,
    /// Milliseconds before it listens.
    #[serde(default)]
    slow_start: u64,
}

#[async_trait]
impl MicroService for Orders {
    async fn init(&mut self, context: Context) -> Result<(), BoxError> {
        let Config { greeting, slow_start } = context.config()?;
        tokio::time::sleep(Duration::from_millis(slow_start)).await;
        let hello = format!("{greeting} {} {}\n", context.container(), context.revision());
        let told = |tell: fn(&Context)| {
            get(move |State(context): State<Context>| async move {
                tell(&context);
                "told\n"
            })
        };
        let router = Router::new()
            .route("/", get(async move || hello.clone()))
            .route("/slow", get(slow))
            .route("/help", told(|context| context.request_extension("too much to do")))
            .route("/degraded", told(|context| context.report_degraded("cache is cold")))
            .route("/broken", told(|context| context.report_broken("no database")))
            .with_state(context.clone())
            .layer(context.in_flight());
        let (listener, down) = (context.listener("http")?, context.shutdown());
        context.spawn(async move {
            axum::serve(listener, router).with_graceful_shutdown(down.cancelled_owned()).await?;
            Ok(())
        });
        Ok(())
    }
}

async fn slow(RawQuery(query): RawQuery) -> &'static str {
    let millis = query.and_then(|query| query.parse().ok()).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(millis)).await;
    "slow\n"
}

struct Unable;

#[async_trait]
impl MicroService for Unable {
    async fn init(&mut self, _: Context) -> Result<(), BoxError> {
        Err("there is no such table".into())
    }
}

/// Nothing to do.
struct Idle;

#[async_trait]
impl MicroService for Idle {
    async fn init(&mut self, _: Context) -> Result<(), BoxError> {
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    Worker::new()
        .register("orders", || Orders)
        .register("unable", || Unable)
        .register("idle", || Idle)
        .build("test")
        .run()
        .await
}
