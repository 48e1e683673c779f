//! Workers that host their own Manager: there is none to start and none to look after.
//!
//! ```text
//! cargo build --release -p cocktail-example-peers
//! export COCKTAIL_BOOTSTRAP=if-absent COCKTAIL_MANIFEST=examples/peers/cocktail.toml
//! target/release/peer &
//! curl http://127.0.0.1:8096/        # one of three workers says who it is
//! kill -9 $!                         # what was started by hand hosted the Manager
//! cocktail ps                        # one of the workers does now
//! kill -9 $(cat .cocktail/manager.pid)
//! cocktail ps                        # another one does, and has started the first one again
//! ```
//!
//! What is started by hand is no worker: it hosts a Manager if there is none, and otherwise waits until it is needed.

use anyhow::Result;
use axum::Router;
use axum::routing::get;
use cocktail_agent::worker::{BoxError, Context, MicroService, Worker, async_trait};

/// Says who it is.
struct Peer;

#[async_trait]
impl MicroService for Peer {
    async fn init(&mut self, context: Context) -> Result<(), BoxError> {
        let name = format!("{} with pid {}\n", context.container(), std::process::id());
        let router = Router::new().route("/", get(async move || name.clone())).layer(context.in_flight());
        let (listener, down) = (context.listener("http")?, context.shutdown());
        context.spawn(async move {
            axum::serve(listener, router).with_graceful_shutdown(down.cancelled_owned()).await?;
            Ok(())
        });
        Ok(())
    }
}

fn main() -> Result<()> {
    // First line: the same program is the keeper of the workers.
    cocktail::init();
    tokio::runtime::Runtime::new()?.block_on(async {
        match cocktail::Bootstrap::from_env()? {
            Some(bootstrap) => bootstrap.beside(work()).await,
            None => work().await,
        }
    })
}

async fn work() -> Result<()> {
    if std::env::var_os("COCKTAIL_SOCKET").is_some() {
        return Ok(Worker::new().register("peer", || Peer).run().await?);
    }
    #[expect(clippy::disallowed_methods, reason = "this program owns its process")]
    tokio::signal::ctrl_c().await?;
    Ok(())
}
