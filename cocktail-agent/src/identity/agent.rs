//! The agent's side: its key, its certificate, and whom it trusts.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PublicKeyData as _};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use cocktail_core::error::{Error, Result};

use super::certificate::{Life, parse, serial};
use super::folder::Folder;
use super::issue::{self, BACKDATED};
use super::kept::{Bytes, VERSION, bytes};
use super::pin::Pin;
use super::tls;
use super::who::{Identity, Role};

/// Key, certificate and authorities in one file, so that no crash leaves a key beside the certificate of another.
const FILE: &str = "identity.json";
/// The key of a request that was not answered yet.
const NEXT: &str = "key.next";
/// A chain is a certificate and its authority, and a list of authorities has two. More than a few is a mistake.
const MOST: usize = 8;

/// What an agent proves itself with: key, certificate, and the authorities that it trusts.
pub struct AgentIdentity {
    identity: Identity,
    life: Life,
    /// The certificate's number. It is random, and so serves where something random but constant is wanted.
    number: Vec<u8>,
    key: KeyPair,
    chain: Vec<CertificateDer<'static>>,
    bundle: Vec<CertificateDer<'static>>,
}

/// A key that waits for its certificate.
pub struct Request {
    key: KeyPair,
    csr: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    key: Bytes,
    chain: Vec<Bytes>,
    bundle: Vec<Bytes>,
}

impl Request {
    /// The request as a Manager takes it.
    pub fn csr_der(&self) -> &[u8] {
        &self.csr
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Request(..)")
    }
}

impl AgentIdentity {
    /// What lies in a folder, or nothing before the first join. It makes no folder and no file.
    ///
    /// # Errors
    /// When the folder is open to others, or what lies there is damaged or does not belong together.
    pub fn load(dir: &Path) -> Result<Option<Self>> {
        match Folder::existing(dir)? {
            Some(folder) => Self::read(&folder),
            None => Ok(None),
        }
    }

    /// Makes a key, and a request for its certificate. The key waits in the folder: asked again before
    /// [`install`](Self::install), also after a crash, the request is for the same key, so that a Manager can tell a
    /// repetition from somebody else.
    ///
    /// # Errors
    /// When the folder is open to others or cannot be written, or the key that waits there is damaged.
    pub fn request(dir: &Path) -> Result<Request> {
        let folder = Folder::open(dir)?;
        let _lock = folder.lock()?;
        let key = match Self::waiting(&folder)? {
            Some(key) => key,
            None => {
                let key = issue::fresh_key()?;
                folder.write(NEXT, key.serialized_der())?;
                key
            }
        };
        let csr = issue::request(&key)?;
        Ok(Request { key, csr })
    }

    /// Takes the answer to a request. It replaces key, certificate and authorities together: whatever happens, all of the
    /// old or all of the new is there.
    ///
    /// # Errors
    /// When the certificate is for another key, for something else than an agent, not signed by one of the authorities, or
    /// for another agent than the one that this folder is of.
    pub fn install(dir: &Path, request: Request, chain: Vec<Vec<u8>>, bundle: Vec<Vec<u8>>) -> Result<Self> {
        let folder = Folder::open(dir)?;
        let _lock = folder.lock()?;
        let certificates = |all: Vec<Vec<u8>>| all.into_iter().map(CertificateDer::from).collect();
        let new = Self::checked(request.key, certificates(chain), certificates(bundle))?;
        if let Some(old) = Self::read(&folder)?
            && old.identity != new.identity
        {
            return Err(Error::refused(format!(
                "{} is of {}, and the certificate is for {}: remove the file if this machine is another server now",
                folder.path(FILE).display(),
                old.identity,
                new.identity
            )));
        }
        let key = Bytes(new.key.serialize_der());
        let kept = Kept { version: VERSION, key, chain: bytes(&new.chain), bundle: bytes(&new.bundle) };
        folder.write_json(FILE, &kept)?;
        // A crash before this leaves a key that is in use, and `waiting` knows it. So it does when this fails.
        if let Err(error) = folder.remove(NEXT) {
            tracing::warn!(error = error.chain(), "a key that is in use now waits on as that of a request");
        }
        Ok(new)
    }

    /// Which agent this is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The certificate, and then the authority that signed it.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The last moment of the certificate.
    pub fn not_after(&self) -> SystemTime {
        self.life.to
    }

    /// When to ask for the next certificate: at two thirds of its life, and up to a tenth of its life before that, so that
    /// a fleet that joined together does not renew together. It is the same at every call.
    pub fn renew_at(&self) -> SystemTime {
        let issued = self.life.from + BACKDATED;
        let life = self.life.to.duration_since(issued).unwrap_or_default();
        let last = self.number.iter().rev().take(2).fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        let jitter = life.mul_f64(0.1 * f64::from(last) / f64::from(u16::MAX));
        issued + Duration::from_secs((life * 2 / 3).saturating_sub(jitter).as_secs())
    }

    /// The pins of the authorities that this agent trusts. A Manager that is told them knows whether a rotation can end.
    pub fn trusts(&self) -> Vec<Pin> {
        self.bundle.iter().filter_map(|certificate| Pin::of(certificate).ok()).collect()
    }

    /// What the agent calls its Manager with. Each end proves itself to the other; the address of the Manager is not part
    /// of it, so any name may be passed to TLS as that of the server.
    ///
    /// # Errors
    /// Never for what [`load`](Self::load) and [`install`](Self::install) let through, as far as is known.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>> {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        tls::client_config(self.chain.clone(), key, &self.bundle, &self.identity.cluster)
    }

    /// The key of an unanswered request.
    fn waiting(folder: &Folder) -> Result<Option<KeyPair>> {
        let Some(bytes) = folder.read(NEXT)? else { return Ok(None) };
        let key = issue::read_key(&bytes).map_err(|error| folder.damaged(NEXT, error.message()))?;
        let used = Self::read(folder)?.is_some_and(|used| used.key.der_bytes() == key.der_bytes());
        Ok((!used).then_some(key))
    }

    fn read(folder: &Folder) -> Result<Option<Self>> {
        let Some(kept) = folder.read_json::<Kept>(FILE)? else { return Ok(None) };
        if kept.version != VERSION {
            return Err(folder.foreign_version(FILE, kept.version));
        }
        let certificates = |all: Vec<Bytes>| all.into_iter().map(|one| CertificateDer::from(one.0)).collect();
        let read = issue::read_key(&kept.key.0)
            .and_then(|key| Self::checked(key, certificates(kept.chain), certificates(kept.bundle)));
        read.map(Some).map_err(|error| folder.damaged(FILE, error.message()))
    }

    /// Makes sure that everything belongs together. Dates are for TLS to look at: a clock may be wrong today.
    fn checked(
        key: KeyPair,
        chain: Vec<CertificateDer<'static>>,
        bundle: Vec<CertificateDer<'static>>,
    ) -> Result<Self> {
        let Some(leaf) = chain.first() else { return Err(Error::invalid("there is no certificate")) };
        if chain.len() > MOST || bundle.len() > MOST {
            return Err(Error::invalid("there are too many certificates"));
        }
        let parsed = parse(leaf)?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(Error::invalid("the certificate is for another key"));
        }
        let identity = Identity::of(leaf)?;
        if !matches!(identity.role, Role::Agent(_)) {
            return Err(Error::invalid(format!("the certificate is for {identity}, and this is an agent")));
        }
        tls::roots(&bundle)?;
        if !bundle.iter().any(|authority| tls::signed_by(leaf, authority)) {
            return Err(Error::invalid(format!(
                "none of the trusted authorities has signed the certificate with the number {}",
                serial(&parsed)
            )));
        }
        let (life, number) = (Life::of(&parsed)?, parsed.raw_serial().to_vec());
        Ok(Self { identity, life, number, key, chain, bundle })
    }
}

impl fmt::Debug for AgentIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (identity, not_after) = (&self.identity, &self.life.to);
        f.debug_struct("AgentIdentity")
            .field("identity", identity)
            .field("not_after", not_after)
            .field("trusts", &self.trusts())
            .finish_non_exhaustive()
    }
}
