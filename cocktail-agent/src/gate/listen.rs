//! The port: TLS, who may connect, how many, and how long without saying who they are.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tracing::{debug, error, warn};

use super::Shared;
use super::service::GateService;
use crate::wire::gate_server::GateServer;
use crate::wire::{MESSAGE_LIMIT, STREAM_WINDOW, connection_window};

/// Pause after the system could not accept a connection.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes that the connections of one address may bring before it is known who they are. A message is kept until it is
/// whole, and a request to join has about a kilobyte; an agent is known by the beginning of its first call.
const STRANGE: usize = 8 * MESSAGE_LIMIT;
/// Bytes of all headers of a request.
const HEADERS: u32 = 8 << 10;

/// Serves until it is told to end.
pub(super) async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    permits: Arc<Semaphore>,
    ends: CancellationToken,
) {
    let limits = shared.limits.clone();
    let (ready, connections) = mpsc::channel(64);
    tokio::spawn(ends.clone().run_until_cancelled_owned(accept(shared.clone(), listener, permits, ready)));
    let service = GateServer::new(GateService::new(shared))
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    let served = Server::builder()
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window(limits.streams))
        .http2_max_header_list_size(HEADERS)
        .http2_keepalive_interval(Some(limits.ping))
        .http2_keepalive_timeout(Some(limits.pong))
        .serve_with_incoming(service, ReceiverStream::new(connections));
    tokio::select! {
        () = ends.cancelled() => {}
        served = served => if let Err(error) = served {
            error!(%error, "agents are not served any more");
        },
    }
}

/// Strangers of each address.
type Strangers = Arc<Mutex<BTreeMap<IpAddr, Crowd>>>;

/// All strangers of one address.
#[derive(Debug, Default)]
struct Crowd {
    count: usize,
    /// What those that are there have brought.
    bytes: usize,
}

/// Accepts connections, and does TLS with each in a task of its own: a slow one keeps nobody waiting.
async fn accept(
    shared: Arc<Shared>,
    listener: TcpListener,
    permits: Arc<Semaphore>,
    ready: mpsc::Sender<io::Result<Guarded>>,
) {
    let strangers = Strangers::default();
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "an agent's connection was not accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        let Some(stranger) = Stranger::enter(&strangers, peer.ip(), shared.limits.strangers) else {
            debug!(%peer, "too many connections of that address have not said who they are");
            continue;
        };
        let patience = shared.limits.ping + shared.limits.pong;
        let (tls, first, ready) = (shared.tls.borrow().clone(), shared.limits.first, ready.clone());
        tokio::spawn(async move {
            // Without it small frames wait for one another.
            let _ = stream.set_nodelay(true);
            match timeout(first, TlsAcceptor::from(tls).accept(stream)).await {
                Ok(Ok(stream)) => {
                    // Without a reader the gate is closing.
                    let _ = ready.send(Ok(Guarded::new(stream, peer, first, stranger, permit, patience))).await;
                }
                Ok(Err(error)) => debug!(%peer, %error, "TLS failed"),
                Err(_) => debug!(%peer, "TLS took too long"),
            }
        });
    }
}

/// One of the connections of an address that have not said who they are.
#[derive(Debug)]
struct Stranger {
    all: Strangers,
    address: IpAddr,
    bytes: usize,
}

impl Stranger {
    fn enter(all: &Strangers, address: IpAddr, most: usize) -> Option<Self> {
        let mut counts = all.lock().unwrap_or_else(PoisonError::into_inner);
        let crowd = counts.entry(address).or_default();
        if crowd.count >= most {
            return None;
        }
        crowd.count += 1;
        Some(Self { all: all.clone(), address, bytes: 0 })
    }

    /// It has brought that many more bytes; returns whether its address may.
    fn brings(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        let mut counts = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let crowd = counts.entry(self.address).or_default();
        crowd.bytes += bytes;
        crowd.bytes <= STRANGE
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut counts = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(crowd) = counts.get_mut(&self.address) {
            crowd.count -= 1;
            crowd.bytes -= self.bytes;
            if crowd.count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// The certificate that it has shown; TLS has made sure that it is of an authority of ours.
    pub(super) certificate: Option<CertificateDer<'static>>,
    known: Arc<AtomicBool>,
    noted: Arc<AtomicBool>,
    /// Ends the connection, and is cancelled when that has ended.
    pub(super) cut: CancellationToken,
}

impl Peer {
    /// It has said who it is.
    pub(super) fn admit(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    /// Whether this is the first to ask.
    pub(super) fn is_new(&self) -> bool {
        !self.noted.swap(true, Ordering::Relaxed)
    }
}

/// A connection that ends when nobody has said in time who it is, or when it is cut.
struct Guarded {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    late: Pin<Box<Sleep>>,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    stranger: Option<Stranger>,
    _permit: OwnedSemaphorePermit,
    _over: DropGuard,
    /// How long it may read nothing of what waits to be written, and since when it does.
    patience: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    fn new(
        stream: TlsStream<TcpStream>,
        address: SocketAddr,
        first: Duration,
        stranger: Stranger,
        permit: OwnedSemaphorePermit,
        patience: Duration,
    ) -> Self {
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = shown.map(|certificate| certificate.clone().into_owned());
        let cut = CancellationToken::new();
        let peer = Peer { address, certificate, known: Arc::default(), noted: Arc::default(), cut: cut.clone() };
        let over = cut.clone().drop_guard();
        let (late, cut) = (Box::pin(sleep(first)), Box::pin(cut.cancelled_owned()));
        let stranger = Some(stranger);
        Self { stream, peer, late, cut, stranger, _permit: permit, _over: over, patience, stuck: None }
    }

    /// A connection that nobody reads from ends, also while it is being closed: it would hold its place for ever.
    fn wrote<T>(&mut self, context: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stuck = None;
            return wrote;
        }
        let patience = self.patience;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(patience)));
        stuck.as_mut().poll(context).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the peer reads nothing")))
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the peer is not welcome any more"));
        }
        if self.peer.known.load(Ordering::Relaxed) {
            self.stranger = None;
        } else if self.late.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody said who this is"));
        }
        Ok(())
    }
}

impl Connected for Guarded {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let brought = buffer.filled().len() - before;
        if let Some(stranger) = &mut self.stranger
            && !stranger.brings(brought)
        {
            let error = io::Error::new(io::ErrorKind::ConnectionAborted, "it says much, and not who it is");
            return Poll::Ready(Err(error));
        }
        read
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(context, wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wrote = Pin::new(&mut self.stream).poll_flush(context);
        self.wrote(context, wrote)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wrote = Pin::new(&mut self.stream).poll_shutdown(context);
        self.wrote(context, wrote)
    }
}
