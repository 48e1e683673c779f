//! The Manager's own certificate authority.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rcgen::PublicKeyData;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use cocktail_core::error::{Error, Result};
use cocktail_core::id::ServerId;

use super::folder::Folder;
use super::issue::{self, Issued, Signer, Wanted};
use super::join::{JoinKey, JoinSecret, JoinToken};
use super::kept::{Bytes, VERSION};
use super::pin::Pin;
use super::tls;
use super::who::{Identity, Role, check_label};

const FILE: &str = "authority.json";
const SHORTEST: Duration = Duration::from_secs(60);

/// The Manager's own certificate authority, in a folder that nobody else can look into.
///
/// # Rotation
/// An authority is replaced in two steps. The first ends no connection; whoever serves may cut at the second one what still
/// shows a certificate of the old authority, since whoever has renewed comes back with the new one.
///
/// 1. [`rotate`](Self::rotate) makes a new authority. From here on it signs what agents and users get, and both are trusted.
///    The Manager keeps showing a certificate of the **old** one, which an agent with the old and one with the new list of
///    authorities can verify alike: an agent learns of the new one when it renews, and none has to hurry.
/// 2. [`retire_old`](Self::retire_old), once every agent has renewed ([`signed_by_newest`](Self::signed_by_newest) tells,
///    of the certificate of each session): the Manager shows a certificate of the new one, and what the old one has
///    signed is refused. Tokens with the old [`pin`](Self::pin) are void; [`token`](Self::token) makes others with the
///    same secret.
///
/// The new one is not signed by the old one: an authority may sign no other here, and a verifier that follows no chains
/// has none to get wrong. A key that has been stolen is replaced by both steps at once, and then agents must join anew.
///
/// After each step the Manager makes a new [`server_config`](Self::server_config).
pub struct Authority {
    folder: Folder,
    cluster: String,
    validity: Duration,
    state: RwLock<Arc<State>>,
}

/// What the file holds.
struct State {
    join: JoinKey,
    /// The newest first; one, or two during a rotation.
    signers: Vec<Signer>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    cluster: String,
    join_key: Bytes,
    authorities: Vec<KeptSigner>,
}

#[derive(Serialize, Deserialize)]
struct KeptSigner {
    certificate: Bytes,
    key: Bytes,
}

impl Authority {
    /// Opens the authority in a folder, and makes one the first time. Certificates that it signs are valid for `validity`,
    /// or less where its own ends before.
    ///
    /// # Errors
    /// When the cluster's name is no name, the folder is open to others, or what lies there is damaged or of another
    /// cluster. Nothing is overwritten then.
    pub fn open(dir: &Path, cluster: &str, validity: Duration) -> Result<Self> {
        check_label("the name of a cluster", cluster)?;
        if validity < SHORTEST {
            return Err(Error::invalid("a certificate must be valid for a minute at least"));
        }
        let folder = Folder::open(dir)?;
        let _lock = folder.lock()?;
        let state = match State::read(&folder, cluster)? {
            Some(state) => state,
            None => {
                let signers = vec![Signer::fresh(cluster, SystemTime::now())?];
                let state = State { join: JoinKey(issue::random()?), signers };
                state.write(&folder, cluster)?;
                state
            }
        };
        Ok(Self { folder, cluster: cluster.to_owned(), validity, state: RwLock::new(Arc::new(state)) })
    }

    /// The cluster that it is for.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// How long certificates are valid. A [`server_config`](Self::server_config) needs a successor before that.
    pub fn validity(&self) -> Duration {
        self.validity
    }

    /// The pin of the authority whose certificate the Manager shows: the one for a token that is made now.
    pub fn pin(&self) -> Pin {
        self.state().shown().pin
    }

    /// Every authority that is trusted now, the newest first. An agent gets it with each certificate.
    pub fn bundle(&self) -> Vec<CertificateDer<'static>> {
        self.state().bundle()
    }

    /// Whether the newest authority has signed a certificate: whether it outlives [`retire_old`](Self::retire_old).
    pub fn signed_by_newest(&self, certificate: &CertificateDer<'_>) -> bool {
        tls::signed_by(certificate, &self.state().newest().certificate)
    }

    /// Whether one of the authorities that are trusted now has signed a certificate. TLS asks that when a connection begins,
    /// and a connection may outlive the authority that it began with.
    pub fn trusts(&self, certificate: &CertificateDer<'_>) -> bool {
        self.state().signers.iter().any(|signer| tls::signed_by(certificate, &signer.certificate))
    }

    /// Signs a certificate for the agent of `server`. The request must be signed with its own key, and nothing but that
    /// key is taken from it: whatever else it asks for is ignored.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`](cocktail_core::error::ErrorKind::Denied) when the request is refused; another when the server
    /// has no name that can be certified.
    pub fn sign_agent(&self, csr_der: &[u8], server: &ServerId, now: SystemTime) -> Result<Issued> {
        check_label("the id of a server", server.as_str())?;
        let requested = issue::read_request(csr_der)?;
        self.issue(Role::Agent(server.clone()), &requested.public, now)
    }

    /// Makes a key and a certificate for somebody who calls the Manager. The key is PEM and is kept nowhere else.
    ///
    /// # Errors
    /// When `name` is no name.
    pub fn issue_user(&self, name: &str, now: SystemTime) -> Result<(Issued, String)> {
        check_label("the name of a user", name)?;
        let key = issue::fresh_key()?;
        let issued = self.issue(Role::User(name.to_owned()), &key, now)?;
        Ok((issued, key.serialize_pem()))
    }

    /// What the Manager serves with: a certificate for a key that exists only in memory, and the rule for clients.
    ///
    /// `names` are host names and addresses for tools that look at them; agents do not. A client may come without a
    /// certificate, because joining has none: whoever answers must ask [`Identity::of`] before anything else. One that it
    /// shows must be of this cluster, for an agent or a user, and signed by an authority of the [`bundle`](Self::bundle);
    /// that of an agent may have expired less than [`EXPIRED_GRACE`](super::EXPIRED_GRACE) ago, so whoever answers must ask
    /// [`standing`](super::standing) too.
    ///
    /// It knows what was trusted when it was made. Make another before half of [`validity`](Self::validity) is over, and
    /// after each step of a rotation.
    ///
    /// # Errors
    /// When one of `names` is neither a host name nor an address.
    pub fn server_config(&self, names: &[String], now: SystemTime) -> Result<Arc<ServerConfig>> {
        let state = self.state();
        let key = issue::fresh_key()?;
        let identity = Identity { cluster: self.cluster.clone(), role: Role::Manager };
        let wanted = Wanted { identity: &identity, names, now, validity: self.validity };
        let issued = state.shown().sign(&key, &wanted)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        tls::server_config(issued.chain, key, &state.bundle(), &self.cluster)
    }

    /// Begins a rotation, see [above](Self#rotation). When it returns, the new authority is on disk.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](cocktail_core::error::ErrorKind::Refused) while the last rotation has not ended: a third
    /// authority would be one that some agents never heard of.
    pub fn rotate(&self) -> Result<()> {
        self.change(|state| {
            if state.signers.len() > 1 {
                return Err(Error::refused("the last rotation has not ended: retire the old authority first"));
            }
            state.signers.insert(0, Signer::fresh(&self.cluster, SystemTime::now())?);
            Ok(())
        })
    }

    /// Ends a rotation, see [above](Self#rotation). Where there is none, nothing happens.
    ///
    /// # Errors
    /// When the folder cannot be written; the old authority is trusted on.
    pub fn retire_old(&self) -> Result<()> {
        self.change(|state| {
            state.signers.truncate(1);
            Ok(())
        })
    }

    /// What the `number`th attempt of a server to join is proved with. It is the same at every call.
    pub fn join_secret(&self, server: &ServerId, number: u64) -> JoinSecret {
        self.state().join.secret(&self.cluster, server, number)
    }

    /// Whether a text is that secret, in a time that does not tell where it differs.
    ///
    /// Whether it was used before and whether its time is over is for the caller to know.
    pub fn check_join(&self, server: &ServerId, number: u64, given: &str) -> bool {
        self.state().join.check(&self.cluster, server, number, given)
    }

    /// Everything that a server needs to join.
    ///
    /// # Errors
    /// When the server has no name that can be certified.
    pub fn token(&self, server: &ServerId, number: u64) -> Result<JoinToken> {
        check_label("the id of a server", server.as_str())?;
        let state = self.state();
        let secret = state.join.secret(&self.cluster, server, number);
        Ok(JoinToken::new(state.shown().pin, &self.cluster, server, number, secret))
    }

    fn issue(&self, role: Role, key: &impl PublicKeyData, now: SystemTime) -> Result<Issued> {
        let identity = Identity { cluster: self.cluster.clone(), role };
        self.state().newest().sign(key, &Wanted { identity: &identity, names: &[], now, validity: self.validity })
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes what is on disk, whoever wrote it last, and then what is in memory.
    fn change(&self, change: impl FnOnce(&mut State) -> Result<()>) -> Result<()> {
        let _lock = self.folder.lock()?;
        let mut state = State::read(&self.folder, &self.cluster)?
            .ok_or_else(|| self.folder.damaged(FILE, "it was there and is gone"))?;
        change(&mut state)?;
        state.write(&self.folder, &self.cluster)?;
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
        Ok(())
    }
}

impl State {
    fn read(folder: &Folder, cluster: &str) -> Result<Option<Self>> {
        let Some(kept) = folder.read_json::<Kept>(FILE)? else { return Ok(None) };
        let damaged = |what: &str| folder.damaged(FILE, what);
        let path = folder.path(FILE);
        if kept.version != VERSION {
            return Err(folder.foreign_version(FILE, kept.version));
        }
        if kept.cluster != cluster {
            let message = format!("{} is of cluster {:?}, and this is {cluster:?}", path.display(), kept.cluster);
            return Err(Error::invalid(message));
        }
        let join = kept.join_key.0.try_into().map_err(|_| damaged("the key of join secrets has another length"))?;
        let signers = kept.authorities.into_iter().map(|kept| Signer::kept(kept.certificate.0.into(), &kept.key.0));
        let signers = signers.collect::<Result<Vec<_>>>().map_err(|error| damaged(error.message()))?;
        if !(1..=2).contains(&signers.len()) {
            return Err(damaged("it has one authority, or two during a rotation"));
        }
        Ok(Some(Self { join: JoinKey(join), signers }))
    }

    fn write(&self, folder: &Folder, cluster: &str) -> Result<()> {
        let kept = |signer: &Signer| KeptSigner {
            certificate: Bytes(signer.certificate.to_vec()),
            key: Bytes(signer.key().to_vec()),
        };
        let authorities = self.signers.iter().map(kept).collect();
        let join_key = Bytes(self.join.0.to_vec());
        folder.write_json(FILE, &Kept { version: VERSION, cluster: cluster.to_owned(), join_key, authorities })
    }

    fn newest(&self) -> &Signer {
        self.signers.first().expect("State::read and Authority::open let none without a signer through")
    }

    /// The one that every agent knows.
    fn shown(&self) -> &Signer {
        self.signers.last().expect("State::read and Authority::open let none without a signer through")
    }

    fn bundle(&self) -> Vec<CertificateDer<'static>> {
        self.signers.iter().map(|signer| signer.certificate.clone()).collect()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pins: Vec<Pin> = self.state().signers.iter().map(|signer| signer.pin).collect();
        f.debug_struct("Authority").field("cluster", &self.cluster).field("pins", &pins).finish_non_exhaustive()
    }
}
