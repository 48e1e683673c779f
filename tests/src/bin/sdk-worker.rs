//! A worker on the SDK, with microservices that do as they are told.
//!
//! `orders` answers `/` with its greeting, container and revision; `/slow?N` after N milliseconds; `/help`, `/degraded` and
//! `/broken` by telling the Manager. `front` passes `/` on to a Unit that its configuration names. `unable` cannot be loaded, and `idle` does nothing.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::routing::get;
use cocktail_agent::balance::Balancer;
use cocktail_agent::worker::{BoxError, Context, Error, MicroService, Worker, async_trait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

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

/// Passes requests on to another Unit.
struct Front;

/// Which one.
#[derive(serde::Deserialize)]
struct Behind {
    unit: String,
}

/// Containers that one request tries at most.
const TRIES: usize = 4;

#[async_trait]
impl MicroService for Front {
    async fn init(&mut self, context: Context) -> Result<(), BoxError> {
        let Behind { unit } = context.config()?;
        let behind = context.balancer(&unit, "http");
        let router = Router::new().route("/", get(pass_on)).with_state(behind).layer(context.in_flight());
        let (listener, down) = (context.listener("http")?, context.shutdown());
        context.spawn(async move {
            axum::serve(listener, router).with_graceful_shutdown(down.cancelled_owned()).await?;
            Ok(())
        });
        Ok(())
    }
}

async fn pass_on(State(behind): State<Balancer>) -> (StatusCode, String) {
    for _ in 0..TRIES {
        let pick = behind.pick().await;
        match ask(pick.address()).await {
            Ok(answer) => return (StatusCode::OK, answer),
            Err(_) => pick.fail(),
        }
    }
    (StatusCode::BAD_GATEWAY, format!("none of {TRIES} answered\n"))
}

/// The body of what is answered with 200.
async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let body = answer.split_once("\r\n\r\n").filter(|(head, _)| head.contains(" 200 "));
    body.map(|(_, body)| body.to_owned()).ok_or_else(|| std::io::Error::other("refused"))
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
        .register("front", || Front)
        .register("unable", || Unable)
        .register("idle", || Idle)
        .build("test")
        .run()
        .await
}
