//! Certificates are made here, and requests for them are read.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use cocktail_core::error::{Error, Result};

use super::certificate::{Life, parse};
use super::pin::Pin;
use super::tls;
use super::who::{Identity, IdentityError, Role};

/// Every certificate begins this long ago, because the clock of a machine that has just booted may be behind.
pub(super) const BACKDATED: Duration = Duration::from_secs(60 * 60);

const DAY: u64 = 24 * 60 * 60;
const LIFE_OF_AN_AUTHORITY: Duration = Duration::from_secs(3653 * DAY);
/// The last second of the year 9999, after which X.509 has no dates.
const LAST: u64 = 253_402_300_799;
/// A request with nothing but a key takes a few hundred bytes.
const LONGEST_REQUEST: usize = 16 << 10;

/// A certificate that was signed.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate, and then the authority that signed it.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its last moment.
    pub not_after: SystemTime,
}

/// One certificate of an authority with its key.
pub(super) struct Signer {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) pin: Pin,
    issuer: Issuer<'static, KeyPair>,
    until: SystemTime,
}

/// What is to be signed, apart from the key.
pub(super) struct Wanted<'a> {
    pub(super) identity: &'a Identity,
    /// Other names, for tools that look for them. Nothing of ours does.
    pub(super) names: &'a [String],
    pub(super) now: SystemTime,
    pub(super) validity: Duration,
}

impl Signer {
    /// A new authority, with a name that no other has, so that tools can tell an old from a new one.
    pub(super) fn fresh(cluster: &str, now: SystemTime) -> Result<Self> {
        let key = fresh_key()?;
        let pin = Pin::of_key(&key.subject_public_key_info());
        let mut params = params(now, LIFE_OF_AN_AUTHORITY)?;
        params.distinguished_name = named(&format!("cocktail authority {}", &pin.hex()[..8]));
        params.distinguished_name.push(DnType::OrganizationName, cluster);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).map_err(unsigned)?;
        Self::of(certificate.der().clone(), key)
    }

    /// An authority that was kept.
    pub(super) fn kept(certificate: CertificateDer<'static>, key: &[u8]) -> Result<Self> {
        Self::of(certificate, read_key(key)?)
    }

    fn of(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self> {
        let parsed = parse(&certificate)?;
        if !parsed.is_ca() {
            return Err(Error::invalid("a certificate is not that of an authority"));
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(Error::invalid("a key belongs to another certificate"));
        }
        let (pin, until) = (Pin::of_key(parsed.public_key().raw), Life::of(&parsed)?.to);
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(unsigned)?;
        Ok(Self { certificate, pin, issuer, until })
    }

    pub(super) fn key(&self) -> &[u8] {
        self.issuer.key().serialized_der()
    }

    /// Signs. What a certificate may be used for follows from its role alone.
    pub(super) fn sign(&self, key: &impl PublicKeyData, wanted: &Wanted<'_>) -> Result<Issued> {
        let (common_name, purpose) = match wanted.identity.role {
            Role::Manager => ("cocktail manager", ExtendedKeyUsagePurpose::ServerAuth),
            Role::Agent(_) => ("cocktail agent", ExtendedKeyUsagePurpose::ClientAuth),
            Role::User(_) => ("cocktail user", ExtendedKeyUsagePurpose::ClientAuth),
        };
        let left = self.until.duration_since(wanted.now).unwrap_or_default();
        if left.is_zero() {
            return Err(Error::refused("the certificate of the authority has ended: rotate it"));
        }
        let mut params = params(wanted.now, wanted.validity.min(left))?;
        params.distinguished_name = named(common_name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        let uri = wanted.identity.uri().try_into().map_err(|_| Error::invalid("an identity is written in ASCII"))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        for name in wanted.names {
            params.subject_alt_names.push(subject(name)?);
        }
        let signed = params.signed_by(key, &self.issuer).map_err(unsigned)?.der().clone();
        let not_after = Life::of(&parse(&signed)?)?.to;
        Ok(Issued { chain: vec![signed, self.certificate.clone()], not_after })
    }
}

/// A key for signatures, of the only kind that is used here.
pub(super) fn fresh_key() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|error| Error::unexpected("no key could be made").because(error))
}

/// A key that was kept.
pub(super) fn read_key(pkcs8: &[u8]) -> Result<KeyPair> {
    // The source is left out: nothing that was made of a key is for logs.
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &PKCS_ECDSA_P256_SHA256)
        .map_err(|_| Error::invalid("a key is unreadable"))
}

/// A request with nothing in it but a key: whom the certificate is for is not the requester's to say.
pub(super) fn request(key: &KeyPair) -> Result<Vec<u8>> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("cocktail agent");
    let request = params.serialize_request(key).map_err(unsigned)?;
    Ok(request.der().to_vec())
}

/// What counts of a request.
pub(super) struct Requested {
    /// The key as certificates hold it.
    pub(super) key: Vec<u8>,
    pub(super) public: SubjectPublicKeyInfo,
}

/// Reads a request and makes sure that whoever made it has the key. Every name, purpose and extension that it asks for is
/// left unread.
pub(super) fn read_request(der: &[u8]) -> Result<Requested, IdentityError> {
    let refuse = IdentityError::BadRequest;
    if der.len() > LONGEST_REQUEST {
        return Err(refuse("it is too long"));
    }
    let Ok(([], request)) = X509CertificationRequest::from_der(der) else { return Err(refuse("it is unreadable")) };
    let key = request.certification_request_info.subject_pki.raw;
    let public =
        SubjectPublicKeyInfo::from_der(key).map_err(|_| refuse("its key is of a kind that is not used here"))?;
    if public.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(refuse("its key is of a kind that is not used here"));
    }
    request.verify_signature().map_err(|_| refuse("it is not signed with its own key"))?;
    Ok(Requested { key: key.to_vec(), public })
}

/// Bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = tls::provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| Error::unavailable("the system gives no random bytes"))?;
    Ok(bytes)
}

/// What all certificates have in common: their dates, and a serial number that nobody can foresee.
fn params(now: SystemTime, validity: Duration) -> Result<CertificateParams> {
    let now = now.duration_since(UNIX_EPOCH).map_err(|_| Error::invalid("the clock is before 1970"))?.as_secs();
    let until = now.saturating_add(validity.as_secs());
    if until > LAST {
        return Err(Error::invalid("a certificate must end before the year 10000"));
    }
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut serial = random::<20>()?;
    // A positive number whose 20 bytes are what RFC 5280 allows, and never one with fewer.
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.not_before = epoch + Duration::from_secs(now.saturating_sub(BACKDATED.as_secs()));
    params.not_after = epoch + Duration::from_secs(until);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn subject(name: &str) -> Result<SanType> {
    let wrong = || Error::invalid(format!("{name:?} is neither a host name nor an address"));
    match ServerName::try_from(name).map_err(|_| wrong())? {
        ServerName::DnsName(name) => Ok(SanType::DnsName(name.as_ref().try_into().map_err(|_| wrong())?)),
        ServerName::IpAddress(address) => Ok(SanType::IpAddress(IpAddr::from(address))),
        _ => Err(wrong()),
    }
}

fn unsigned(error: rcgen::Error) -> Error {
    Error::unexpected("a certificate could not be made").because(error)
}
