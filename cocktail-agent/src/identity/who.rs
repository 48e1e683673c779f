//! Roles, and how a certificate names one.

use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use cocktail_core::error::{Error, ErrorKind, Result as CoreResult};
use cocktail_core::id::ServerId;

use super::certificate;

const SCHEME: &str = "spiffe://cocktail/";

/// Who a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Role {
    /// The Manager: `spiffe://cocktail/<cluster>/manager`.
    Manager,
    /// The agent of one server: `spiffe://cocktail/<cluster>/agent/<server>`.
    Agent(ServerId),
    /// Somebody who calls the Manager: `spiffe://cocktail/<cluster>/user/<name>`.
    User(String),
}

/// A role in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The cluster that the role is played in.
    pub cluster: String,
    /// The role.
    pub role: Role,
}

/// Why a certificate, or a request for one, says nothing about who it is for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The bytes are something else.
    #[error("the bytes are no certificate of ours")]
    NotACertificate,
    /// An identity is one URI.
    #[error("a certificate of ours has exactly one URI, this one has {found}")]
    NotOneName {
        /// How many there are.
        found: usize,
    },
    /// The URI is not of the form that [`Identity::uri`] has.
    #[error("{uri:?} names no role in a cluster of ours")]
    Foreign {
        /// The URI, or its beginning where it is long.
        uri: String,
    },
    /// The certificate is good, but for something else.
    #[error("the certificate is for {found:?}, and this place is for {expected}")]
    Misplaced {
        /// Whom the certificate is for.
        found: String,
        /// Who may be here.
        expected: String,
    },
    /// The request is unreadable, too long, not signed by its own key, or for a kind of key that is not used here.
    #[error("the request for a certificate is refused: {0}")]
    BadRequest(&'static str),
}

impl Identity {
    /// The URI that stands for this identity in a certificate.
    pub fn uri(&self) -> String {
        let cluster = &self.cluster;
        match &self.role {
            Role::Manager => format!("{SCHEME}{cluster}/manager"),
            Role::Agent(server) => format!("{SCHEME}{cluster}/agent/{server}"),
            Role::User(name) => format!("{SCHEME}{cluster}/user/{name}"),
        }
    }

    /// Whom a certificate is for. It says nothing about whether the certificate is valid, nor who signed it: TLS has
    /// checked both for the certificate of a peer.
    ///
    /// # Errors
    /// When it is no certificate, or has not exactly one URI, or one that names nobody of ours.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let parsed = certificate::parse(certificate)?;
        let names = parsed.subject_alternative_name().map_err(|_| IdentityError::NotACertificate)?;
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let uris: Vec<&str> =
            names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None }).collect();
        let [uri] = uris[..] else { return Err(IdentityError::NotOneName { found: uris.len() }) };
        Self::parse(uri).ok_or_else(|| IdentityError::Foreign { uri: uri.chars().take(256).collect() })
    }

    fn parse(uri: &str) -> Option<Self> {
        let (cluster, role) = uri.strip_prefix(SCHEME)?.split_once('/')?;
        let role = match role.split_once('/') {
            None if role == "manager" => Role::Manager,
            Some(("agent", server)) if is_label(server) => Role::Agent(ServerId::new(server)),
            Some(("user", name)) if is_label(name) => Role::User(name.to_owned()),
            _ => return None,
        };
        is_label(cluster).then(|| Self { cluster: cluster.to_owned(), role })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.uri())
    }
}

impl From<IdentityError> for Error {
    fn from(error: IdentityError) -> Self {
        Self::new(ErrorKind::Denied, error.to_string())
    }
}

/// Whether a text is `[a-z0-9][a-z0-9-]{0,62}`, so that it can be part of a URI, of a token and of a file without a question.
pub(super) fn is_label(text: &str) -> bool {
    let letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 63
        && text.bytes().all(|byte| letter(&byte) || byte == b'-')
        && text.as_bytes().first().is_some_and(letter)
}

/// The same as an error of whoever passed the text.
pub(super) fn check_label(what: &str, text: &str) -> CoreResult<()> {
    if is_label(text) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{text:?} cannot be {what}: use at most 63 lower-case letters, digits and hyphens, and no hyphen first"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_read_as_it_was_written() {
        let cluster = "blue-1".to_owned();
        for role in [Role::Manager, Role::Agent(ServerId::new("i-0abc")), Role::User("ann".into())] {
            let identity = Identity { cluster: cluster.clone(), role };
            assert_eq!(Identity::parse(&identity.uri()), Some(identity));
        }
    }

    #[test]
    fn a_uri_that_is_nearly_ours_names_nobody() {
        let long = format!("{SCHEME}blue/agent/{}", "a".repeat(64));
        for uri in [
            "",
            "spiffe://cocktail/",
            "spiffe://cocktail/blue",
            "spiffe://cocktail/blue/",
            "spiffe://cocktail//manager",
            "spiffe://cocktail/blue/manager/",
            "spiffe://cocktail/blue/manager/x",
            "spiffe://cocktail/Blue/manager",
            "spiffe://cocktail/-blue/manager",
            "spiffe://cocktail/blue/agent",
            "spiffe://cocktail/blue/agent/",
            "spiffe://cocktail/blue/agent/a/b",
            "spiffe://cocktail/blue/agent/a%2fb",
            "spiffe://cocktail/blue/agent/../manager",
            "spiffe://cocktail/blue/agent/a\n",
            "spiffe://cocktail/blue/keeper/a",
            "SPIFFE://cocktail/blue/manager",
            "spiffe://other/blue/manager",
            &long,
        ] {
            assert_eq!(Identity::parse(uri), None, "{uri:?}");
        }
    }
}
