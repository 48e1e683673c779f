//! The socket: who may connect, how many, and how long without saying who they are.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::Workers;
use crate::protocol::workers_server::WorkersServer;
use crate::protocol::{FROM_WORKER_LIMIT, TABLE_LIMIT, TO_WORKER_LIMIT};

/// Pause after the system could not accept a connection.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes that a connection may have under way before they are read.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 128 << 10;
/// Bytes of all headers of a request.
const HEADERS: u32 = 8 << 10;

/// Serves sessions until the hub is dropped.
pub(super) async fn serve(listener: UnixListener, workers: Arc<Workers>) {
    let (limits, ends) = (workers.limits.clone(), workers.ends.clone());
    let incoming = incoming(listener, Arc::new(Semaphore::new(limits.connections)), limits.first);
    let service = WorkersServer::new(workers)
        .max_decoding_message_size(FROM_WORKER_LIMIT)
        .max_encoding_message_size(TABLE_LIMIT.max(TO_WORKER_LIMIT));
    let served = Server::builder()
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADERS)
        .http2_keepalive_interval(Some(limits.keep_alive))
        .http2_keepalive_timeout(Some(limits.keep_alive))
        .serve_with_incoming(service, incoming);
    tokio::select! {
        () = ends.cancelled() => {}
        served = served => if let Err(error) = served {
            tracing::error!(%error, "the socket of workers is not served any more");
        },
    }
}

/// Connections as they come. What the system cannot accept now it may accept later.
fn incoming(
    listener: UnixListener,
    permits: Arc<Semaphore>,
    first: Duration,
) -> impl Stream<Item = io::Result<Guarded>> {
    futures_util::stream::unfold((listener, permits), move |(listener, permits)| async move {
        let permit = permits.clone().acquire_owned().await.ok()?;
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(error) => {
                    tracing::warn!(%error, "a worker's connection was not accepted");
                    sleep(PAUSE).await;
                }
            }
        };
        let guarded =
            Guarded { stream, admission: Admission::default(), late: Box::pin(sleep(first)), _permit: permit };
        Some((Ok(guarded), (listener, permits)))
    })
}

/// Whether a connection has ever had a session.
#[derive(Debug, Clone, Default)]
pub(super) struct Admission(Arc<AtomicBool>);

impl Admission {
    pub(super) fn admit(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_admitted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection that ends when nobody has said in time who it is.
#[derive(Debug)]
struct Guarded {
    stream: UnixStream,
    admission: Admission,
    late: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Guarded {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.admission.is_admitted() && self.late.as_mut().poll(context).is_ready() && !self.admission.is_admitted()
        {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody said who this is"));
        }
        Ok(())
    }
}

impl Connected for Guarded {
    type ConnectInfo = Admission;

    fn connect_info(&self) -> Admission {
        self.admission.clone()
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
