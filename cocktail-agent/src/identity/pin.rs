//! A key that is known before anything was signed with it.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

use super::certificate;
use super::issue;
use super::who::IdentityError;

const PREFIX: &str = "sha256-";

/// SHA-256 over a public key as a certificate holds it (its SubjectPublicKeyInfo): 64 characters by which somebody who
/// has never met an authority knows it. A pin is no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin([u8; 32]);

/// The text is no [`Pin`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pin is sha256- and 64 hexadecimal digits in lower case")]
pub struct InvalidPin;

impl Pin {
    /// The pin of the key in a certificate.
    ///
    /// # Errors
    /// When it is no certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        Ok(Self::of_key(certificate::parse(certificate)?.public_key().raw))
    }

    /// The pin of the key that a request is for, the same that the certificate for it will have. By it a join that is
    /// repeated because its answer was lost is told from a second one with a stolen token.
    ///
    /// # Errors
    /// When [`Authority::sign_agent`](super::Authority::sign_agent) would refuse the request.
    pub fn of_request(csr_der: &[u8]) -> Result<Self, IdentityError> {
        Ok(Self::of_key(&issue::read_request(csr_der)?.key))
    }

    pub(super) fn of_key(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    pub(super) fn hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    pub(super) fn from_hex(text: &str) -> Result<Self, InvalidPin> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| InvalidPin)?;
        bytes.try_into().map(Self).map_err(|_| InvalidPin)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{PREFIX}{}", self.hex()))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pin {
    type Err = InvalidPin;
    fn from_str(text: &str) -> Result<Self, InvalidPin> {
        Self::from_hex(text.strip_prefix(PREFIX).ok_or(InvalidPin)?)
    }
}
