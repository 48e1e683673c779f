//! What a certificate says about itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use super::who::IdentityError;

/// Where a moment lies in the life of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Within it.
    Valid,
    /// Before it, by a clock that is behind or was set back. TLS refuses such a certificate.
    NotYet {
        /// When it begins.
        from: SystemTime,
    },
    /// After it. TLS still lets an agent in for [`EXPIRED_GRACE`](super::EXPIRED_GRACE), so that a machine that was off for
    /// long can renew: whoever answers its calls refuses everything else.
    Expired {
        /// When it ended.
        since: SystemTime,
    },
}

/// Where `now` lies in the life of a certificate. It is asked at every call, since a connection may last longer than the
/// certificate that it began with.
///
/// # Errors
/// When it is no certificate.
pub fn standing(certificate: &CertificateDer<'_>, now: SystemTime) -> Result<Standing, IdentityError> {
    let life = Life::of(&parse(certificate)?)?;
    Ok(if now < life.from {
        Standing::NotYet { from: life.from }
    } else if now > life.to {
        Standing::Expired { since: life.to }
    } else {
        Standing::Valid
    })
}

/// The first and the last moment of a certificate's life.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    pub(super) from: SystemTime,
    pub(super) to: SystemTime,
}

impl Life {
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Result<Self, IdentityError> {
        let validity = certificate.validity();
        Ok(Self { from: time(validity.not_before)?, to: time(validity.not_after)? })
    }
}

/// Reads a certificate and nothing but one.
pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, IdentityError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(IdentityError::NotACertificate),
    }
}

/// The serial number as people see it in other tools, without colons.
pub(super) fn serial(certificate: &X509Certificate<'_>) -> String {
    HEXLOWER.encode(certificate.raw_serial())
}

fn time(time: ASN1Time) -> Result<SystemTime, IdentityError> {
    let seconds = u64::try_from(time.timestamp()).map_err(|_| IdentityError::NotACertificate)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(IdentityError::NotACertificate)
}
