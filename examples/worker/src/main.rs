//! A worker with one microservice, `orders`: a web service that is counted, drained and scaled with it.
//!
//! ```text
//! cargo build --release -p cocktail-example-worker
//! cocktail up examples/worker/cocktail.toml
//! curl http://127.0.0.1:8095/
//! ```
//!
//! `GET /` greets as the manifest says; `GET /slow?ms=500` takes its time; `GET /help` asks for one more container;
//! `GET /broken` says that this one cannot go on.

use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::routing::get;
use cocktail_agent::worker::{BoxError, Context, Error, MicroService, Worker, async_trait};
use serde::Deserialize;

/// What the manifest says under `config.orders`.
#[derive(Debug, Clone, Deserialize)]
struct Config {
    greeting: String,
}

#[derive(Debug, Deserialize)]
struct Slow {
    ms: u64,
}

/// Takes orders.
struct Orders;

#[async_trait]
impl MicroService for Orders {
    async fn init(&mut self, context: Context) -> Result<(), BoxError> {
        let config: Config = context.config()?;
        let router = Router::new()
            .route("/", get(greet))
            .route("/slow", get(slow))
            .route("/help", get(help))
            .route("/broken", get(broken))
            .with_state((context.clone(), config))
            // Counts requests, and refuses new ones when the worker is leaving.
            .layer(context.in_flight());
        let (listener, down) = (context.listener("http")?, context.shutdown());
        context.spawn(async move {
            axum::serve(listener, router).with_graceful_shutdown(down.cancelled_owned()).await?;
            Ok(())
        });
        Ok(())
    }
}

type Known = State<(Context, Config)>;

async fn greet(State((context, config)): Known) -> String {
    format!("{} from {} revision {}\n", config.greeting, context.container(), context.revision())
}

async fn slow(State((context, _)): Known, Query(Slow { ms }): Query<Slow>) -> String {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    format!("slow from {}\n", context.container())
}

async fn help(State((context, _)): Known) -> &'static str {
    context.request_extension("somebody asked for it");
    "asked\n"
}

async fn broken(State((context, _)): Known) -> &'static str {
    context.report_broken("somebody said so");
    "said\n"
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    Worker::new().register("orders", || Orders).build(env!("CARGO_PKG_VERSION")).run().await
}
