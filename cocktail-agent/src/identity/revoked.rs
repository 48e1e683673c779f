//! Who is refused although the certificate is valid.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use cocktail_core::error::{Error, Result};
use cocktail_core::id::ServerId;

use super::certificate::{parse, serial};
use super::folder::Folder;
use super::kept::VERSION;
use super::who::{Identity, IdentityError, Role, check_label};

const FILE: &str = "revoked.json";
/// A reason is a sentence, not a report.
const LONGEST_REASON: usize = 1024;

/// Servers and certificates that are refused although their certificates are valid.
///
/// An entry is on disk before it counts, so that a Manager that dies right after forgets nothing. It is meant to be asked
/// at each call; the list of a Manager is short, and certificates that end are no reason to tidy it.
#[derive(Debug)]
pub struct Revoked {
    folder: Folder,
    list: RwLock<BTreeMap<Subject, String>>,
}

/// What is refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// Every certificate of a server's agent, also one that is signed later.
    Server(ServerId),
    /// One certificate, by its serial number: lower-case hexadecimal digits without colons.
    Serial(String),
}

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    servers: BTreeMap<ServerId, String>,
    serials: BTreeMap<String, String>,
}

impl Revoked {
    /// Opens the list in a folder, which may be that of the [`Authority`](super::Authority). Where there is none, nobody is
    /// refused.
    ///
    /// # Errors
    /// When the folder is open to others or the list is damaged: to go on without it would let the refused in.
    pub fn open(dir: &Path) -> Result<Self> {
        let folder = Folder::open(dir)?;
        let list = RwLock::new(read(&folder)?);
        Ok(Self { folder, list })
    }

    /// Refuses a server. Repeating it replaces the reason.
    ///
    /// # Errors
    /// When it could not be written; then the server is not refused yet.
    pub fn revoke(&self, server: &ServerId, because: &str) -> Result<()> {
        check_label("the id of a server", server.as_str())?;
        self.refuse(Subject::Server(server.clone()), because)
    }

    /// Refuses one certificate. Repeating it replaces the reason.
    ///
    /// # Errors
    /// When the bytes are no certificate, or it could not be written; then it is not refused yet.
    pub fn revoke_certificate(&self, certificate: &CertificateDer<'_>, because: &str) -> Result<()> {
        self.refuse(Subject::Serial(serial(&parse(certificate)?)), because)
    }

    /// Lets a server in again. One that is not refused is let in already. Certificates that are refused by themselves stay
    /// refused.
    ///
    /// # Errors
    /// When it could not be written; then the server is refused on.
    pub fn allow(&self, server: &ServerId) -> Result<()> {
        self.change(|list| {
            list.remove(&Subject::Server(server.clone()));
        })
    }

    /// Whether a server is refused.
    pub fn is_revoked(&self, server: &ServerId) -> bool {
        self.read_list().contains_key(&Subject::Server(server.clone()))
    }

    /// Why a certificate is refused, itself or the server that it is for; nothing when it is not.
    ///
    /// # Errors
    /// When it is no certificate of ours, which is a reason to refuse it too.
    pub fn refuses(&self, certificate: &CertificateDer<'_>) -> Result<Option<String>, IdentityError> {
        let number = Subject::Serial(serial(&parse(certificate)?));
        let server = match Identity::of(certificate)?.role {
            Role::Agent(server) => Some(Subject::Server(server)),
            Role::Manager | Role::User(_) => None,
        };
        let list = self.read_list();
        Ok(server.and_then(|server| list.get(&server)).or_else(|| list.get(&number)).cloned())
    }

    /// Everything that is refused, and why.
    pub fn list(&self) -> Vec<(Subject, String)> {
        self.read_list().iter().map(|(subject, because)| (subject.clone(), because.clone())).collect()
    }

    fn refuse(&self, subject: Subject, because: &str) -> Result<()> {
        if because.len() > LONGEST_REASON {
            return Err(Error::invalid(format!("a reason has at most {LONGEST_REASON} bytes")));
        }
        self.change(|list| {
            list.insert(subject, because.to_owned());
        })
    }

    /// Changes what is on disk, whoever wrote it last, and then what is in memory.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<Subject, String>)) -> Result<()> {
        let _lock = self.folder.lock()?;
        let mut list = read(&self.folder)?;
        change(&mut list);
        write(&self.folder, &list)?;
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = list;
        Ok(())
    }

    fn read_list(&self) -> RwLockReadGuard<'_, BTreeMap<Subject, String>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(folder: &Folder) -> Result<BTreeMap<Subject, String>> {
    let Some(kept) = folder.read_json::<Kept>(FILE)? else { return Ok(BTreeMap::new()) };
    if kept.version != VERSION {
        return Err(folder.foreign_version(FILE, kept.version));
    }
    let servers = kept.servers.into_iter().map(|(server, because)| (Subject::Server(server), because));
    let serials = kept.serials.into_iter().map(|(serial, because)| (Subject::Serial(serial), because));
    Ok(servers.chain(serials).collect())
}

fn write(folder: &Folder, list: &BTreeMap<Subject, String>) -> Result<()> {
    let mut kept = Kept { version: VERSION, servers: BTreeMap::new(), serials: BTreeMap::new() };
    for (subject, because) in list {
        match subject {
            Subject::Server(server) => kept.servers.insert(server.clone(), because.clone()),
            Subject::Serial(serial) => kept.serials.insert(serial.clone(), because.clone()),
        };
    }
    folder.write_json(FILE, &kept)
}
