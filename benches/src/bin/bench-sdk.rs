//! A worker on the SDK with one microservice that does next to nothing: it answers each request with its container, and asks
//! for help at `/help`. Where its configuration says so, an answer takes a while. A marker among its arguments tells whose it is.

use std::time::Duration;

use cocktail_agent::worker::{BoxError, Context, Error, MicroService, Worker, async_trait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Bytes of a request that are looked at.
const REQUEST: usize = 1_024;

const REFUSAL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

struct Web;

#[derive(serde::Deserialize)]
struct Config {
    /// Milliseconds that an answer takes.
    #[serde(default)]
    takes_ms: u64,
}

#[async_trait]
impl MicroService for Web {
    async fn init(&mut self, context: Context) -> Result<(), BoxError> {
        let takes = Duration::from_millis(context.config::<Config>()?.takes_ms);
        let (listener, down) = (context.listener("http")?, context.shutdown());
        let serving = context.clone();
        context.spawn(async move {
            while let Some(accepted) = down.run_until_cancelled(listener.accept()).await {
                tokio::spawn(answer(serving.clone(), accepted?.0, takes));
            }
            Ok(())
        });
        Ok(())
    }
}

/// Answers the requests of one connection. Whoever sends no whole request at once is not answered.
async fn answer(context: Context, mut stream: TcpStream, takes: Duration) {
    let mut request = [0; REQUEST];
    while let Ok(length @ 1..) = stream.read(&mut request).await {
        let Some(_under_way) = context.in_flight().begin() else {
            _ = stream.write_all(REFUSAL).await;
            return;
        };
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        if request[..length].starts_with(b"GET /help ") {
            context.request_extension("the benchmark wants it");
        }
        let body = context.container();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    Worker::new().register("web", || Web).run().await
}
