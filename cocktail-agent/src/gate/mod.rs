//! Where agents connect to the Manager: a TLS port of its own, behind which a peer is who its certificate says.
//!
//! Start at [`AgentGate`]. It joins, renews and lets in; what is done with a connection is the Manager's. Peers are strangers
//! until they have shown a certificate: how many may be there, how long each may take, and how much it may send is bounded
//! before any of it is kept.

mod aside;
mod guess;
mod link;
mod listen;
mod service;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use cocktail_core::contract::{Admission, Gate, Launch, Link, Login};
use cocktail_core::error::{Error, Result};
use cocktail_core::id::ServerId;
use cocktail_core::name::Name;
use cocktail_core::session::Values;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::aside::Asides;
use self::guess::Guesses;
use crate::identity::{Authority, Revoked};
use crate::registries::Registries;

/// How often it is told that one revoked server is turned away.
const TELL_AGAIN: Duration = Duration::from_secs(600);

/// Connections that wait for the Manager to take them.
const LINKS: usize = 64;

/// Connections of one server: an agent has one, and for a moment those that broke before it.
const OF_ONE: usize = 8;

/// How patient a gate is, and how many it takes.
#[derive(Debug, Clone)]
pub struct GateLimits {
    /// Connections at the same time; the others wait.
    pub connections: usize,
    /// Connections of one address that have shown no certificate, at the same time; more are closed.
    pub strangers: usize,
    /// Longest time for TLS, and then until the first call.
    pub first: Duration,
    /// Streams of one connection.
    pub streams: u32,
    /// How often a silent connection is tried, and how long an answer may take.
    pub ping: Duration,
    /// As before, for the answer.
    pub pong: Duration,
    /// Wrong secrets of one address within a minute; then it is refused whatever it says.
    pub guesses: u32,
}

impl Default for GateLimits {
    fn default() -> Self {
        Self {
            connections: 8_192,
            strangers: 64,
            first: Duration::from_secs(10),
            streams: 100,
            ping: Duration::from_secs(10),
            pong: Duration::from_secs(5),
            guesses: 10,
        }
    }
}

/// A gate that listens.
#[derive(Debug)]
pub struct AgentGate {
    shared: Arc<Shared>,
    address: SocketAddr,
    links: Mutex<Option<mpsc::Receiver<Link>>>,
    registries: Registries,
    /// Ends what listens.
    _ends: DropGuard,
}

/// What its parts share.
#[derive(Debug)]
struct Shared {
    authority: Authority,
    revoked: Revoked,
    names: Vec<String>,
    limits: GateLimits,
    admission: OnceLock<Arc<dyn Admission>>,
    links: mpsc::Sender<Link>,
    asides: Asides,
    guesses: Guesses,
    /// When somebody was last told that a revoked server was turned away.
    told: Mutex<BTreeMap<ServerId, Instant>>,
    /// The live connections of each server.
    live: Mutex<BTreeMap<ServerId, Vec<Live>>>,
    tls: watch::Sender<Arc<rustls::ServerConfig>>,
}

/// A connection that an agent has made a call on.
#[derive(Debug)]
struct Live {
    /// What it has shown.
    certificate: CertificateDer<'static>,
    /// Cuts it; also done when it is over.
    cut: CancellationToken,
}

impl AgentGate {
    /// Opens the authority in `dir` (made at the first time) and listens. Certificates are valid for `validity`; `names` are
    /// host names and addresses that other tools look for in the gate's own certificate.
    ///
    /// # Errors
    /// As [`Authority::open`]; `Unavailable` when the address cannot be listened on.
    pub async fn open(
        listen: SocketAddr,
        dir: &Path,
        cluster: &str,
        validity: Duration,
        names: Vec<String>,
        limits: GateLimits,
    ) -> Result<Self> {
        let authority = Authority::open(dir, cluster, validity)?;
        let revoked = Revoked::open(dir)?;
        let listener = TcpListener::bind(listen).await;
        let listener = listener
            .map_err(|error| Error::unavailable(format!("agents cannot connect at {listen}")).because(error))?;
        let address = listener.local_addr().map_err(|error| Error::unavailable("no address").because(error))?;
        let tls = authority.server_config(&names, SystemTime::now())?;
        let (sender, links) = mpsc::channel(LINKS);
        let ends = CancellationToken::new();
        let shared = Arc::new(Shared {
            authority,
            revoked,
            names,
            guesses: Guesses::new(limits.guesses),
            told: Mutex::default(),
            admission: OnceLock::new(),
            links: sender,
            asides: Asides::default(),
            live: Mutex::default(),
            tls: watch::channel(tls).0,
            limits: limits.clone(),
        });
        tokio::spawn(ends.clone().run_until_cancelled_owned(keep_fresh(shared.clone(), validity)));
        let permits = Arc::new(Semaphore::new(limits.connections));
        tokio::spawn(listen::serve(shared.clone(), listener, permits, ends.clone()));
        let (links, registries) = (Mutex::new(Some(links)), Registries::default());
        Ok(Self { shared, address, links, registries, _ends: ends.drop_guard() })
    }

    /// Sets the registries that want to know who asks: agents that run images are told, for one call at a time.
    #[must_use]
    pub fn with_registries(mut self, registries: Registries) -> Self {
        self.registries = registries;
        self
    }
}

#[async_trait]
impl Gate for AgentGate {
    fn links(&self, admission: Arc<dyn Admission>) -> BoxStream<'static, Link> {
        // A second caller gets none.
        let _ = self.shared.admission.set(admission);
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner).take();
        links.map_or_else(|| stream::pending().boxed(), |links| ReceiverStream::new(links).boxed())
    }

    fn values(&self, launch: &Launch) -> Result<Values> {
        crate::values::of(launch).map(Values)
    }

    async fn login(&self, reference: &str, service: &Name) -> Result<Option<Login>> {
        self.registries.login(reference, service).await
    }

    fn token(&self, server: &ServerId, number: u64) -> Result<String> {
        Ok(self.shared.authority.token(server, number)?.to_string())
    }

    fn revoke(&self, server: &ServerId, because: Option<&str>) -> Result<()> {
        let Some(because) = because else { return self.shared.revoked.allow(server) };
        self.shared.revoked.revoke(server, because)?;
        let live = self.shared.live.lock().unwrap_or_else(PoisonError::into_inner).remove(server);
        live.into_iter().flatten().for_each(|connection| connection.cut.cancel());
        Ok(())
    }

    /// Every agent has to have renewed its certificate before a rotation is finished. Connections on which another one was
    /// shown are cut then: an agent that has renewed in time is back with the new one at once.
    fn rotate(&self, finish: bool) -> Result<()> {
        match finish {
            false => self.shared.authority.rotate()?,
            true => self.shared.authority.retire_old()?,
        }
        self.shared.renew_tls()?;
        self.shared.cut_untrusted();
        Ok(())
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Shared {
    fn renew_tls(&self) -> Result<()> {
        let tls = self.authority.server_config(&self.names, SystemTime::now())?;
        self.tls.send_replace(tls);
        Ok(())
    }

    /// Whether it is time to tell again that a revoked server was turned away: it tries for as long as it runs.
    fn tells(&self, server: &ServerId) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let again = told.get(server).is_none_or(|last| last.elapsed() >= TELL_AGAIN);
        if again {
            told.insert(server.clone(), Instant::now());
        }
        again
    }

    /// Notes a connection of a server, so that it is cut when that is revoked.
    fn note(&self, server: &ServerId, certificate: &CertificateDer<'static>, cut: &CancellationToken) -> bool {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = live.entry(server.clone()).or_default();
        connections.retain(|connection| !connection.cut.is_cancelled());
        let allowed = connections.len() < OF_ONE;
        if allowed {
            connections.push(Live { certificate: certificate.clone(), cut: cut.clone() });
        }
        allowed
    }

    /// Cuts the connections whose certificate no authority of ours has signed any more.
    fn cut_untrusted(&self) {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let untrusted = live.values().flatten().filter(|connection| !self.authority.trusts(&connection.certificate));
        untrusted.for_each(|connection| connection.cut.cancel());
    }
}

/// Makes the gate's own certificate anew before it has lived for a third of its time.
async fn keep_fresh(shared: Arc<Shared>, validity: Duration) {
    loop {
        tokio::time::sleep(validity / 3).await;
        if let Err(error) = shared.renew_tls() {
            tracing::error!(error = error.chain(), "the certificate of the gate cannot be made anew");
        }
    }
}
