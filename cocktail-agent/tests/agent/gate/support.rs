//! A gate on a loopback port, somebody who says who may join, and peers that show what they like.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use cocktail_agent::gate::{AgentGate, GateLimits};
use cocktail_agent::identity::{AgentIdentity, Authority, JoinToken, pinned_config};
use cocktail_agent::wire::gate_client::GateClient;
use cocktail_agent::wire::{AsideFrame, Certificate, Frame, JoinRequest, RenewRequest, aside_frame};
use cocktail_core::contract::{Admission, Gate as _, Link};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::ServerId;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::identity::{DAY, ders, private_folder};

/// How long anything in these tests may take; nothing of it is waited for where it comes.
pub(crate) const LONG: Duration = Duration::from_secs(20);
/// Where peers come from unless a test says otherwise, and somewhere else.
pub(crate) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A gate, whom it asks, and whom it lets in.
pub(crate) struct House {
    pub(crate) gate: AgentGate,
    pub(crate) book: Arc<Book>,
    pub(crate) links: BoxStream<'static, Link>,
    pub(crate) folder: TempDir,
}

impl House {
    pub(crate) async fn open() -> Self {
        Self::with(GateLimits::default()).await
    }

    pub(crate) async fn with(limits: GateLimits) -> Self {
        let folder = private_folder();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let gate = AgentGate::open(listen, folder.path(), "blue", DAY, vec!["127.0.0.1".into()], limits).await.unwrap();
        let file = folder.path().join("artifact");
        std::fs::write(&file, "the bytes").unwrap();
        let book = Arc::new(Book { file, ..Book::default() });
        let links = gate.links(book.clone());
        Self { gate, book, links, folder }
    }

    /// What the gate's own authority signs, by its files: also what it would not.
    pub(crate) fn authority(&self) -> Authority {
        Authority::open(self.folder.path(), "blue", DAY).unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.gate.address()
    }

    /// A token that may be used now.
    pub(crate) fn token(&self, server: &str) -> JoinToken {
        let number = self.book.give(server);
        self.gate.token(&ServerId::new(server), number).unwrap().parse().unwrap()
    }

    /// A client that trusts this gate and shows nothing.
    pub(crate) fn stranger(&self) -> Arc<ClientConfig> {
        pinned_config(&self.authority().pin(), "blue").unwrap()
    }

    /// An agent whose certificate was signed at that time.
    pub(crate) fn agent_since(&self, server: &str, since: SystemTime) -> Agent {
        let (folder, authority) = (private_folder(), self.authority());
        let request = AgentIdentity::request(folder.path()).unwrap();
        let issued = authority.sign_agent(request.csr_der(), &ServerId::new(server), since).unwrap();
        let bundle = ders(&authority.bundle());
        let identity = AgentIdentity::install(folder.path(), request, ders(&issued.chain), bundle).unwrap();
        Agent { identity, folder }
    }

    pub(crate) fn agent(&self, server: &str) -> Agent {
        self.agent_since(server, SystemTime::now())
    }

    /// A client that trusts this gate and shows what it likes.
    pub(crate) fn showing(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Arc<ClientConfig> {
        let mut config = (*self.stranger()).clone();
        let provider = config.crypto_provider().clone();
        let shown = rustls::sign::CertifiedKey::from_der(chain, key, &provider).unwrap();
        config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(shown));
        Arc::new(config)
    }

    pub(crate) async fn dial(&self, tls: Arc<ClientConfig>, from: IpAddr) -> Result<GateClient<Channel>, Refusal> {
        dial(self.address(), tls, from).await
    }

    /// A client that is let in as far as TLS goes.
    pub(crate) async fn client(&self, tls: Arc<ClientConfig>) -> GateClient<Channel> {
        self.dial(tls, HERE).await.unwrap()
    }

    /// A session, and the gate's end of it.
    pub(crate) async fn session(&mut self, tls: Arc<ClientConfig>) -> (Session, Link) {
        let session = Session::open(self.client(tls).await).await.unwrap();
        (session, self.link().await)
    }

    pub(crate) async fn link(&mut self) -> Link {
        timeout(LONG, self.links.next()).await.expect("somebody comes").expect("the gate lives")
    }

    /// Joins with a key that lies in a folder.
    pub(crate) async fn join(&self, token: &JoinToken, dir: &Path, from: IpAddr) -> Result<Certificate, Refusal> {
        join(self.address(), self.stranger(), token, dir, from).await
    }

    /// That somebody else may still join and gets a session.
    pub(crate) async fn goes_on(&mut self) {
        let (token, folder) = (self.token("good"), private_folder());
        let certificate = self.join(&token, folder.path(), ELSEWHERE).await.unwrap();
        let agent = Agent::of(folder, certificate);
        let client = self.dial(agent.calls(), ELSEWHERE).await.unwrap();
        let _session = Session::open(client).await.unwrap();
        while self.link().await.server != ServerId::new("good") {}
    }
}

/// An agent that has a certificate.
pub(crate) struct Agent {
    pub(crate) identity: AgentIdentity,
    pub(crate) folder: TempDir,
}

impl Agent {
    /// One whose request, of the key in the folder, was answered with that.
    pub(crate) fn of(folder: TempDir, answer: Certificate) -> Self {
        let request = AgentIdentity::request(folder.path()).unwrap();
        let identity = AgentIdentity::install(folder.path(), request, answer.chain, answer.bundle).unwrap();
        Self { identity, folder }
    }

    pub(crate) fn calls(&self) -> Arc<ClientConfig> {
        self.identity.client_config().unwrap()
    }

    pub(crate) async fn renew(&mut self, client: &mut GateClient<Channel>) -> Result<(), Refusal> {
        let request = AgentIdentity::request(self.folder.path()).unwrap();
        let asked = client.renew(RenewRequest { request: request.csr_der().to_vec() }).await;
        let Certificate { chain, bundle } = asked.map_err(Refusal::of)?.into_inner();
        self.identity = AgentIdentity::install(self.folder.path(), request, chain, bundle).unwrap();
        Ok(())
    }
}

/// An agent's end of a session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: GateClient<Channel>,
    /// Its side, which ends with it.
    pub(crate) say: mpsc::Sender<Frame>,
    pub(crate) told: Streaming<Frame>,
}

impl Session {
    pub(crate) async fn open(mut client: GateClient<Channel>) -> Result<Self, Refusal> {
        let (say, frames) = mpsc::channel(16);
        let told = client.session(ReceiverStream::new(frames)).await.map_err(Refusal::of)?.into_inner();
        Ok(Self { client, told, say })
    }

    /// Waits until it is over.
    pub(crate) async fn ends(&mut self) {
        while let Ok(Some(_)) = self.told.message().await {}
    }
}

/// How far a peer got that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No call of it was heard.
    Connection,
    /// The gate has answered.
    Answer(Code),
}

impl Refusal {
    pub(crate) fn of(status: Status) -> Self {
        // What the other end says comes from nowhere else; a lost connection has a cause.
        if status.source().is_some() { Self::Connection } else { Self::Answer(status.code()) }
    }
}

/// An agent's end of a stream beside its session. The stream ends with it.
pub(crate) struct Opened {
    _say: mpsc::Sender<AsideFrame>,
    _told: Streaming<AsideFrame>,
}

impl Opened {
    pub(crate) async fn with(number: u64, client: &mut GateClient<Channel>) -> Result<Self, Refusal> {
        let (_say, frames) = mpsc::channel(1);
        _say.try_send(opening(number)).unwrap();
        let _told = client.aside(ReceiverStream::new(frames)).await.map_err(Refusal::of)?.into_inner();
        Ok(Self { _say, _told })
    }
}

/// What the agent says first over a stream.
pub(crate) fn opening(number: u64) -> AsideFrame {
    AsideFrame { kind: Some(aside_frame::Kind::Number(number)) }
}

pub(crate) async fn join(
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    token: &JoinToken,
    dir: &Path,
    from: IpAddr,
) -> Result<Certificate, Refusal> {
    let request = AgentIdentity::request(dir).unwrap();
    let mut client = dial(address, tls, from).await?;
    let asked = client.join(asks(token, request.csr_der())).await;
    asked.map(tonic::Response::into_inner).map_err(Refusal::of)
}

pub(crate) fn asks(token: &JoinToken, csr: &[u8]) -> JoinRequest {
    JoinRequest {
        server: token.server.to_string(),
        number: token.number,
        secret: token.secret().expose().to_owned(),
        request: csr.to_vec(),
    }
}

/// A request for a certificate whose key is not kept.
pub(crate) fn csr() -> Vec<u8> {
    AgentIdentity::request(private_folder().path()).unwrap().csr_der().to_vec()
}

pub(crate) async fn dial(
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    from: IpAddr,
) -> Result<GateClient<Channel>, Refusal> {
    let endpoint = Endpoint::from_static("http://manager");
    let connected = endpoint.connect_with_connector(Dialer { address, tls, from });
    let channel = timeout(LONG, connected).await.expect("an answer, whatever it is");
    channel.map(GateClient::new).map_err(|_| Refusal::Connection)
}

/// A TCP connection from an address of this machine.
pub(crate) async fn tcp(address: SocketAddr, from: IpAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// With TLS.
pub(crate) async fn tls(
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    from: IpAddr,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = tcp(address, from).await?;
    TlsConnector::from(tls).connect(ServerName::IpAddress(address.ip().into()), stream).await
}

#[derive(Clone)]
struct Dialer {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    from: IpAddr,
}

impl tower_service::Service<http::Uri> for Dialer {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = futures_util::future::BoxFuture<'static, std::io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let Self { address, tls: config, from } = self.clone();
        Box::pin(async move { tls(address, config, from).await.map(TokioIo::new) })
    }
}

/// Who may join, by the rules of the state: one token per server, that one instance uses up.
#[derive(Debug, Default)]
pub(crate) struct Book {
    tokens: Mutex<BTreeMap<ServerId, Token>>,
    alerts: Mutex<Vec<(Option<ServerId>, String)>>,
    file: PathBuf,
}

#[derive(Debug, Default)]
struct Token {
    number: u64,
    has_run_out: bool,
    used_by: Option<String>,
}

impl Book {
    /// Another token for a server; the one before is void.
    pub(crate) fn give(&self, server: &str) -> u64 {
        let mut tokens = self.tokens.lock().unwrap();
        let token = tokens.entry(ServerId::new(server)).or_default();
        *token = Token { number: token.number + 1, ..Token::default() };
        token.number
    }

    pub(crate) fn run_out(&self, server: &str) {
        self.tokens.lock().unwrap().get_mut(&ServerId::new(server)).unwrap().has_run_out = true;
    }

    /// What was told since the last time.
    pub(crate) fn alerts(&self) -> Vec<(Option<ServerId>, String)> {
        std::mem::take(&mut *self.alerts.lock().unwrap())
    }
}

#[async_trait]
impl Admission for Book {
    async fn join(&self, server: &ServerId, number: u64, instance: &str) -> Result<()> {
        let denied = |why: &str| Err(Error::new(ErrorKind::Denied, why.to_owned()));
        let mut tokens = self.tokens.lock().unwrap();
        let Some(token) = tokens.get_mut(server) else { return denied("no token was made") };
        if token.number != number {
            return denied("another token was made since");
        }
        match &token.used_by {
            Some(user) if user == instance => Ok(()),
            Some(_) => denied("the token was used already"),
            None if token.has_run_out => denied("the token has run out"),
            None => {
                token.used_by = Some(instance.to_owned());
                Ok(())
            }
        }
    }

    async fn artifact(&self, server: &ServerId, sha256: &str) -> Result<PathBuf> {
        let theirs = server.as_str() == "a" && sha256 == "5e".repeat(32);
        if theirs { Ok(self.file.clone()) } else { Err(Error::not_found("no container of this server needs it")) }
    }

    async fn alert(&self, server: Option<&ServerId>, because: &str) {
        self.alerts.lock().unwrap().push((server.cloned(), because.to_owned()));
    }
}
