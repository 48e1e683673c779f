//! A Manager's authority and agents, with real handshakes in memory at any time of the clock.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cocktail_agent::identity::{AgentIdentity, Authority, Identity, Issued, Role};
use cocktail_core::id::ServerId;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use tempfile::TempDir;

mod files;
mod handshakes;
mod join;
mod requests;
mod rotation;

pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
pub(crate) const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// An authority in a folder of its own.
pub(crate) struct Manager {
    pub(crate) authority: Authority,
    pub(crate) folder: TempDir,
    pub(crate) now: SystemTime,
}

impl Manager {
    pub(crate) fn of(cluster: &str) -> Self {
        let folder = private_folder();
        let authority = Authority::open(folder.path(), cluster, WEEK).unwrap();
        Self { authority, folder, now: SystemTime::now() }
    }

    /// Asked for at each connection, as after every step of a rotation.
    pub(crate) fn serves(&self) -> Arc<ServerConfig> {
        self.serves_since(self.now)
    }

    pub(crate) fn serves_since(&self, since: SystemTime) -> Arc<ServerConfig> {
        self.authority.server_config(&["manager.example".into(), "127.0.0.1".into()], since).unwrap()
    }

    pub(crate) fn agent(&self, server: &str) -> Agent {
        let folder = private_folder();
        let identity = self.renew(folder.path(), server);
        Agent { identity, folder }
    }

    /// What join and renewal have in common.
    pub(crate) fn renew(&self, dir: &Path, server: &str) -> AgentIdentity {
        let request = AgentIdentity::request(dir).unwrap();
        let issued = self.authority.sign_agent(request.csr_der(), &ServerId::new(server), self.now).unwrap();
        AgentIdentity::install(dir, request, ders(&issued.chain), ders(&self.authority.bundle())).unwrap()
    }

    /// A certificate for a key that is ours.
    pub(crate) fn signed(&self, server: &str) -> (Issued, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        (self.authority.sign_agent(request.der(), &ServerId::new(server), self.now).unwrap(), key)
    }
}

/// An agent that has joined.
pub(crate) struct Agent {
    pub(crate) identity: AgentIdentity,
    pub(crate) folder: TempDir,
}

impl Agent {
    pub(crate) fn calls(&self) -> Arc<ClientConfig> {
        self.identity.client_config().unwrap()
    }
}

pub(crate) fn private_folder() -> TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}

pub(crate) fn ders(all: &[CertificateDer<'_>]) -> Vec<Vec<u8>> {
    all.iter().map(|one| one.to_vec()).collect()
}

pub(crate) fn agent_of(cluster: &str, server: &str) -> Identity {
    Identity { cluster: cluster.into(), role: Role::Agent(ServerId::new(server)) }
}

/// Who refused, and why.
#[derive(Debug)]
pub(crate) enum Refusal {
    ByClient(rustls::Error),
    ByServer(rustls::Error),
}

impl Refusal {
    /// The words of whoever refused, if that was the client.
    pub(crate) fn by_client(self) -> String {
        match self {
            Self::ByClient(error) => error.to_string(),
            Self::ByServer(error) => panic!("the server refused: {error}"),
        }
    }

    /// The words of whoever refused, if that was the server.
    pub(crate) fn by_server(self) -> String {
        match self {
            Self::ByServer(error) => error.to_string(),
            Self::ByClient(error) => panic!("the client refused: {error}"),
        }
    }
}

/// Two ends that trust each other.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
}

impl Met {
    /// Who the server thinks that it talks to.
    pub(crate) fn peer(&self) -> Option<Identity> {
        self.certificate().map(|certificate| Identity::of(certificate).unwrap())
    }

    pub(crate) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.server.peer_certificates().and_then(|chain| chain.first())
    }
}

/// A whole handshake at a moment.
pub(crate) fn meet(client: &ClientConfig, server: &ServerConfig, now: SystemTime) -> Result<Met, Refusal> {
    let clock = Arc::new(Clock(now));
    let (mut client, mut server) = (client.clone(), server.clone());
    client.time_provider = clock.clone();
    server.time_provider = clock;
    // An address that stands in no certificate.
    let name = ServerName::try_from("elsewhere.example").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    // Also what comes after the last flight: a server refuses when its client believes that all is well.
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().map_err(Refusal::ByServer)?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(Refusal::ByClient)?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking(), "nobody refused, and nobody finished");
    Ok(Met { client, server })
}

#[derive(Debug)]
struct Clock(SystemTime);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.duration_since(UNIX_EPOCH).unwrap()))
    }
}
