//! The connection to the Manager: joining, dialling, and what goes over it.
//!
//! Start at [`keep`]. It tries every address, again and again, with pauses that grow and are spread over their whole length,
//! so that a fleet that lost its Manager does not come back all at once. What is sent and cannot be kept up with closes the
//! connection: what was on its way is told again over the next one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cocktail_core::contract::{ExecInput, ExecOutput, ExecSession, LogStream};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::ServerId;
use cocktail_core::session::{AgentFrame, Failure, ManagerFrame};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tower_service::Service;
use tracing::{debug, info, warn};

use super::AgentConfig;
use crate::identity::{AgentIdentity, Role, pinned_config};
use crate::wire::gate_client::GateClient;
use crate::wire::{
    AsideFrame, Certificate, Chunk, FetchRequest, Incoming, JoinRequest, MESSAGE_LIMIT, Outgoing, RenewRequest,
    STREAM_WINDOW, Size, aside_frame, connection_window, parts,
};

/// Longest time for connecting, with TLS.
const CONNECT: Duration = Duration::from_secs(5);
/// How often a silent connection is tried, and how long an answer may take.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(5);
/// How long the other end of a stream may take to read what is left.
const CLOSE: Duration = Duration::from_secs(10);
/// Streams that a gate lets one connection have.
const STREAMS: u32 = 100;
/// First and longest pause between two attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Pause between two attempts to renew a certificate.
const RENEW_AGAIN: Duration = Duration::from_secs(60);

/// What the connection brings.
#[derive(Debug)]
pub(super) enum News {
    /// There is one.
    Opened(Sender),
    /// It is over.
    Closed,
    /// Something came.
    Frame(Box<ManagerFrame>),
}

/// Sends over one connection.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    frames: Outgoing,
    client: GateClient<Channel>,
    over: CancellationToken,
}

impl Sender {
    /// Sends a frame, or closes a connection that does not keep up.
    pub(super) fn send(&self, frame: AgentFrame) {
        let Err(error) = self.frames.send(&frame) else { return };
        match error.kind() {
            // It does not keep up, or is gone.
            ErrorKind::Unavailable => self.over.cancel(),
            _ => warn!(error = error.chain(), "a message was not sent"),
        }
    }

    pub(super) fn close(&self) {
        self.over.cancel();
    }

    /// The bytes of an artifact that the Manager has.
    pub(super) async fn fetch(&self, sha256: &str) -> Result<tonic::Streaming<Chunk>> {
        let mut client = self.client.clone();
        let asked = client.fetch(Request::new(FetchRequest { sha256: sha256.to_owned() })).await;
        Ok(asked.map_err(|status| of_status(&status))?.into_inner())
    }

    /// Opens a stream beside the session for output of a container.
    pub(super) fn carry_logs(&self, number: u64, mut lines: LogStream) {
        let (mut client, over) = (self.client.clone(), self.over.clone());
        tokio::spawn(async move {
            let (output, frames) = mpsc::channel(64);
            let carry = async {
                output.send(frame(aside_frame::Kind::Number(number))).await.ok()?;
                let mut inward = client.aside(ReceiverStream::new(frames)).await.ok()?.into_inner();
                loop {
                    let line = tokio::select! {
                        line = lines.next() => line,
                        // Nobody reads any more.
                        () = output.closed() => return None,
                    };
                    let kind = match line {
                        Some(Ok(line)) => aside_frame::Kind::Line(serde_json::to_vec(&line).ok()?),
                        Some(Err(error)) => failed(&error),
                        None => break,
                    };
                    output.send(frame(kind)).await.ok()?;
                }
                drop(output);
                // The other end closes its side when it has read all.
                let _ = timeout(CLOSE, inward.message()).await;
                None
            };
            let _: Option<Option<()>> = over.run_until_cancelled(carry).await;
        });
    }

    /// Opens a stream beside the session for a command.
    pub(super) fn carry_exec(&self, number: u64, session: ExecSession) {
        let (mut client, over) = (self.client.clone(), self.over.clone());
        tokio::spawn(async move {
            let (output, frames) = mpsc::channel(64);
            let ExecSession { mut input, output: mut said } = session;
            let (gone, mut output) = (output.clone(), Some(output));
            let carry = async {
                output.as_ref()?.send(frame(aside_frame::Kind::Number(number))).await.ok()?;
                let mut inward = client.aside(ReceiverStream::new(frames)).await.ok()?.into_inner();
                let typed = async {
                    while let Ok(Some(told)) = inward.message().await {
                        let item = match told.kind {
                            Some(aside_frame::Kind::Stdin(bytes)) => ExecInput::Stdin(bytes.into()),
                            Some(aside_frame::Kind::Eof(_)) => ExecInput::Eof,
                            Some(aside_frame::Kind::Resize(Size { rows, columns })) => {
                                let size = |number| u16::try_from(number).unwrap_or(u16::MAX);
                                ExecInput::Resize(size(rows), size(columns))
                            }
                            _ => continue,
                        };
                        // A command that has ended reads nothing, and its end is told.
                        let _ = input.send(item).await;
                    }
                };
                let told = async {
                    while let Some(item) = said.next().await {
                        let kind = match item {
                            Ok(ExecOutput::Stdout(bytes)) => aside_frame::Kind::Stdout(bytes.to_vec()),
                            Ok(ExecOutput::Stderr(bytes)) => aside_frame::Kind::Stderr(bytes.to_vec()),
                            Ok(ExecOutput::Exit(exit)) => aside_frame::Kind::Exit(serde_json::to_vec(&exit).ok()?),
                            Err(error) => failed(&error),
                        };
                        output.as_ref()?.send(frame(kind)).await.ok()?;
                    }
                    output.take();
                    Some(())
                };
                tokio::pin!(typed);
                tokio::pin!(told);
                // Whoever types may go before whoever reads.
                let mut types = true;
                let told = loop {
                    tokio::select! {
                        told = &mut told => break told,
                        () = &mut typed, if types => types = false,
                        // Whoever asked has gone: the command ends with its session.
                        () = gone.closed() => return None,
                    }
                };
                drop(gone);
                if types {
                    // The other end closes its side when it has read all.
                    let _ = timeout(CLOSE, typed).await;
                }
                told
            };
            let _: Option<Option<()>> = over.run_until_cancelled(carry).await;
        });
    }
}

fn frame(kind: aside_frame::Kind) -> AsideFrame {
    AsideFrame { kind: Some(kind) }
}

fn failed(error: &Error) -> aside_frame::Kind {
    aside_frame::Kind::Failed(serde_json::to_vec(&Failure::from(error)).unwrap_or_default())
}

/// Where the identity is kept.
fn folder(config: &AgentConfig) -> PathBuf {
    config.dir.join("identity")
}

/// The server that an identity is for.
pub(super) fn server(identity: &AgentIdentity) -> Result<ServerId> {
    match &identity.identity().role {
        Role::Agent(server) => Ok(server.clone()),
        other => Err(Error::invalid(format!("the identity in this folder is for {other:?}"))),
    }
}

pub(super) fn server_of(config: &AgentConfig) -> Result<Option<ServerId>> {
    AgentIdentity::load(&folder(config))?.map(|identity| server(&identity)).transpose()
}

/// Who this agent is; joins if it never has.
pub(super) async fn identity(config: &AgentConfig) -> Result<AgentIdentity> {
    let dir = folder(config);
    if let Some(identity) = AgentIdentity::load(&dir)? {
        return Ok(identity);
    }
    let Some(token) = &config.token else {
        return Err(Error::invalid(
            "this agent has never joined, and there is no token: make one with `cocktail token SERVER`",
        ));
    };
    let tls = pinned_config(&token.pin, &token.cluster)?;
    let mut pauses = pauses();
    loop {
        for address in &config.managers {
            let request = AgentIdentity::request(&dir)?;
            match join(address, &tls, config, request.csr_der()).await {
                Ok(Certificate { chain, bundle }) => {
                    info!(server = %token.server, address, "joined");
                    return AgentIdentity::install(&dir, request, chain, bundle);
                }
                Err(error) if error.kind().is_transient() => debug!(address, error = error.chain(), "not joined yet"),
                Err(error) => return Err(error),
            }
        }
        sleep(next(&mut pauses)).await;
    }
}

async fn join(address: &str, tls: &Arc<ClientConfig>, config: &AgentConfig, csr: &[u8]) -> Result<Certificate> {
    let Some(token) = &config.token else { return Err(Error::invalid("there is no token")) };
    let mut client = dial(address, tls.clone()).await?;
    let request = JoinRequest {
        server: token.server.to_string(),
        number: token.number,
        secret: token.secret().expose().to_owned(),
        request: csr.to_vec(),
    };
    let answer = timeout(CONNECT, client.join(Request::new(request))).await;
    let answer = answer.map_err(|_| Error::unavailable("the manager did not answer in time"))?;
    answer.map(tonic::Response::into_inner).map_err(|status| of_status(&status))
}

/// Keeps a connection until it is told to end.
pub(super) async fn keep(
    config: AgentConfig,
    mut identity: AgentIdentity,
    news: mpsc::Sender<News>,
    until: CancellationToken,
) {
    let keeping = async {
        let mut pauses = pauses();
        loop {
            for address in &config.managers {
                match serve(&config, address, &mut identity, &news).await {
                    Ok(()) => pauses = self::pauses(),
                    Err(error) => debug!(address, error = error.chain(), "no session with a manager"),
                }
                if news.is_closed() {
                    return;
                }
            }
            sleep(next(&mut pauses)).await;
        }
    };
    until.run_until_cancelled(keeping).await;
}

/// One connection, from its beginning to its end.
async fn serve(
    config: &AgentConfig,
    address: &str,
    identity: &mut AgentIdentity,
    news: &mpsc::Sender<News>,
) -> Result<()> {
    let mut client = dial(address, identity.client_config()?).await?;
    if identity.not_after() <= SystemTime::now() {
        // Nothing else is allowed with it.
        *identity = renew(config, &mut client).await?;
        client = dial(address, identity.client_config()?).await?;
    }
    let (frames, outgoing) = parts();
    let over = CancellationToken::new();
    let opened = timeout(CONNECT, client.session(outgoing)).await;
    let opened = opened.map_err(|_| Error::unavailable("the manager did not answer in time"))?;
    let mut incoming = opened.map_err(|status| of_status(&status))?.into_inner();
    let sender = Sender { frames, client: client.clone(), over: over.clone() };
    debug!(address, "connected");
    if news.send(News::Opened(sender)).await.is_err() {
        return Ok(());
    }
    let renewals = async {
        loop {
            let due = identity.renew_at().duration_since(SystemTime::now()).unwrap_or_default();
            sleep(due).await;
            match renew(config, &mut client).await {
                // It is shown from the next connection on; this one goes on.
                Ok(renewed) => *identity = renewed,
                Err(error) => {
                    warn!(error = error.chain(), "the certificate was not renewed yet");
                    sleep(RENEW_AGAIN).await;
                }
            }
        }
    };
    let carry = async {
        let mut whole = Incoming::default();
        loop {
            let part = match incoming.message().await {
                Ok(Some(part)) => part,
                Ok(None) => return Ok(()),
                Err(status) => return Err(of_status(&status)),
            };
            let Some(message) = whole.take(part)? else { continue };
            let Ok(frame) = serde_json::from_slice::<ManagerFrame>(&message) else {
                debug!("a message of a later version was left out");
                continue;
            };
            if news.send(News::Frame(Box::new(frame))).await.is_err() {
                return Ok(());
            }
        }
    };
    let ended = tokio::select! {
        ended = carry => ended,
        () = over.cancelled() => Ok(()),
        () = renewals => Ok(()),
    };
    over.cancel();
    if let Err(error) = &ended {
        info!(address, error = error.chain(), "the connection to the manager is over");
    }
    // Without a reader the agent ends.
    let _ = news.send(News::Closed).await;
    Ok(())
}

async fn renew(config: &AgentConfig, client: &mut GateClient<Channel>) -> Result<AgentIdentity> {
    let dir = folder(config);
    let request = AgentIdentity::request(&dir)?;
    let asked = client.renew(Request::new(RenewRequest { request: request.csr_der().to_vec() }));
    let answer = timeout(CONNECT, asked).await;
    let answer = answer.map_err(|_| Error::unavailable("the manager did not answer in time"))?;
    let Certificate { chain, bundle } = answer.map_err(|status| of_status(&status))?.into_inner();
    let renewed = AgentIdentity::install(&dir, request, chain, bundle)?;
    info!("the certificate was renewed");
    Ok(renewed)
}

/// A client of one address.
async fn dial(address: &str, tls: Arc<ClientConfig>) -> Result<GateClient<Channel>> {
    let endpoint = Endpoint::from_static("http://manager")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window(STREAMS))
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .keep_alive_while_idle(true);
    let connector = Dialer { address: address.to_owned(), tls };
    let unreachable = |why: String| Error::unavailable(format!("{address} cannot be reached: {why}"));
    let channel = timeout(CONNECT, endpoint.connect_with_connector(connector)).await;
    let channel = channel.map_err(|_| unreachable("no answer in time".into()))?;
    let channel = channel.map_err(|error| unreachable(below(&error)))?;
    Ok(GateClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT))
}

/// The last of an error's causes: those above say that a connection failed.
fn below(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[derive(Debug, Clone)]
struct Dialer {
    address: String,
    tls: Arc<ClientConfig>,
}

impl Service<http::Uri> for Dialer {
    type Response = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: http::Uri) -> Self::Future {
        let Self { address, tls } = self.clone();
        Box::pin(async move {
            let mut last = None;
            let all: Vec<SocketAddr> = tokio::net::lookup_host(&address).await?.collect();
            for address in all {
                match TcpStream::connect(address).await {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        // Whom it must be is in the certificate's URI; the name is for tools that look at it.
                        let name = ServerName::IpAddress(address.ip().into());
                        let stream = TlsConnector::from(tls).connect(name, stream).await?;
                        return Ok(TokioIo::new(stream));
                    }
                    Err(error) => last = Some(error),
                }
            }
            Err(last.unwrap_or_else(|| std::io::Error::other("the name has no address")))
        })
    }
}

fn of_status(status: &Status) -> Error {
    let kind = match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
        Code::InvalidArgument | Code::FailedPrecondition => ErrorKind::InvalidConfig,
        Code::ResourceExhausted => ErrorKind::Throttled { retry_after: None },
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("the manager says: {}", status.message()))
}

/// Pauses before their jitter.
fn pauses() -> Duration {
    FIRST_PAUSE
}

/// The next pause: anything up to its whole length.
fn next(pause: &mut Duration) -> Duration {
    let mut bytes = [0_u8; 4];
    // Without random numbers all pauses are whole ones.
    let chance = match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(4) => f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX),
        _ => 1.0,
    };
    let current = *pause;
    *pause = (current * 2).min(LONGEST_PAUSE);
    current.mul_f64(chance)
}
