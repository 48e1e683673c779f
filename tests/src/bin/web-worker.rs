//! A well-behaved web server, which does what its environment says.
//!
//! It answers HTTP/1.1 on 127.0.0.1:$PORT, or on the socket that it is handed (`LISTEN_FDS`). On SIGTERM it takes no new
//! connection, finishes what it was asked, answers that with `Connection: close`, and ends.
//!
//! ```text
//! VERSION         first word of its answers
//! EXIT            ends with this code before it listens
//! DEAF            never ready: /ready is answered with 503
//! DIES_AFTER      ends this many milliseconds after /ready was first answered well, in the middle of whatever it does
//! SLOW_START      milliseconds before it listens
//! SLOW_ANSWER     milliseconds before each answer but those to probes
//! ```
//!
//! `/` is answered with version, container and process id; `/ready` for probes; `/slow?N` after N milliseconds; `/spin?N`
//! after N milliseconds of work; `/metrics` with numbers in the text format of Prometheus, and `/numbers` in JSON, both
//! as `/set?NAME=N` left them.
#![expect(clippy::print_stdout, reason = "what a worker prints is its log")]
#![expect(clippy::disallowed_methods, reason = "a program may handle its signals")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;
use std::{env, io, process};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep};

/// How it ends when it dies.
const DEAD: i32 = 9;

/// What it was told.
struct Worker {
    hello: String,
    deaf: bool,
    dies_after: Option<Duration>,
    slow_answer: Duration,
    numbers: RefCell<BTreeMap<String, f64>>,
    dying: RefCell<bool>,
}

fn number(name: &str) -> io::Result<Option<u64>> {
    env::var(name).ok().map(|text| text.parse().map_err(io::Error::other)).transpose()
}

fn millis(name: &str) -> io::Result<Duration> {
    Ok(Duration::from_millis(number(name)?.unwrap_or(0)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    if let Some(code) = number("EXIT")? {
        println!("this version does not work");
        process::exit(i32::try_from(code).unwrap_or(1));
    }
    // From here on: a worker that is told to end while it starts ends well, too.
    let mut term = signal(SignalKind::terminate())?;
    sleep(millis("SLOW_START")?).await;
    let version = env::var("VERSION").unwrap_or_else(|_| "none".into());
    let container = env::var("COCKTAIL_CONTAINER").unwrap_or_default();
    let worker = Rc::new(Worker {
        hello: format!("{version} {container} {}\n", process::id()),
        deaf: env::var_os("DEAF").is_some(),
        dies_after: number("DIES_AFTER")?.map(Duration::from_millis),
        slow_answer: millis("SLOW_ANSWER")?,
        numbers: RefCell::default(),
        dying: RefCell::new(false),
    });
    let listener = listener().await?;
    println!("version {version} listens on {}", listener.local_addr()?);
    let (stop, stopping) = watch::channel(false);
    LocalSet::new()
        .run_until(async {
            let mut all = JoinSet::new();
            loop {
                let stream = tokio::select! {
                    _ = term.recv() => break,
                    accepted = listener.accept() => accepted?.0,
                };
                all.spawn_local(serve(stream, Rc::clone(&worker), stopping.clone()));
                while all.try_join_next().is_some() {}
            }
            drop(listener);
            stop.send_replace(true);
            while all.join_next().await.is_some() {}
            println!("version {version} has finished");
            Ok(())
        })
        .await
}

async fn listener() -> io::Result<TcpListener> {
    if let Some(handed) = listenfd::ListenFd::from_env().take_tcp_listener(0)? {
        handed.set_nonblocking(true)?;
        return TcpListener::from_std(handed);
    }
    let port = number("PORT")?.and_then(|port| u16::try_from(port).ok()).ok_or(io::ErrorKind::InvalidInput)?;
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

/// Serves a connection. When the worker ends, one that was never asked anything may still ask once: who was let in
/// is answered.
async fn serve(stream: TcpStream, worker: Rc<Worker>, mut stopping: watch::Receiver<bool>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let asked = Rc::new(Notify::new());
    let noticed = Rc::clone(&asked);
    let service = service_fn(move |request| {
        noticed.notify_one();
        let worker = Rc::clone(&worker);
        async move { Ok::<_, Infallible>(answer(&worker, &request).await) }
    });
    let mut connection = std::pin::pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    let ending = async {
        asked.notified().await;
        // A sender that is gone means the same.
        stopping.wait_for(|stopping| *stopping).await.ok();
    };
    tokio::select! {
        // A client that goes away is its own business.
        _ = connection.as_mut() => return,
        () = ending => connection.as_mut().graceful_shutdown(),
    }
    connection.await.ok();
}

async fn answer(worker: &Rc<Worker>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default();
    let time = || Duration::from_millis(query.parse().unwrap_or(0));
    let (status, body) = match request.uri().path() {
        "/ready" if worker.deaf => (StatusCode::SERVICE_UNAVAILABLE, "never\n".to_owned()),
        "/ready" => {
            if let Some(after) = worker.dies_after
                && !worker.dying.replace(true)
            {
                tokio::task::spawn_local(async move {
                    sleep(after).await;
                    println!("this version dies");
                    process::exit(DEAD);
                });
            }
            (StatusCode::OK, String::new())
        }
        "/slow" => {
            sleep(time()).await;
            (StatusCode::OK, worker.hello.clone())
        }
        "/spin" => {
            let (begin, mut turns) = (Instant::now(), 0_u64);
            while begin.elapsed() < time() {
                turns = black_box(turns + 1);
            }
            (StatusCode::OK, worker.hello.clone())
        }
        "/set" => {
            if let Some((name, value)) = query.split_once('=') {
                worker.numbers.borrow_mut().insert(name.to_owned(), value.parse().unwrap_or(0.0));
            }
            (StatusCode::OK, String::new())
        }
        "/metrics" => {
            let text = worker.numbers.borrow().iter().fold(String::new(), |mut text, (name, value)| {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "# TYPE {name} gauge\n{name} {value}");
                text
            });
            (StatusCode::OK, text)
        }
        "/numbers" => {
            let numbers = worker.numbers.borrow();
            (StatusCode::OK, serde_json::json!(&*numbers).to_string())
        }
        "/" => {
            sleep(worker.slow_answer).await;
            (StatusCode::OK, worker.hello.clone())
        }
        _ => (StatusCode::NOT_FOUND, String::new()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    if request.uri().path() == "/numbers" {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    *response.status_mut() = status;
    response
}
