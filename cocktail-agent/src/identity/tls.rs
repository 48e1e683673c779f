//! Who trusts whom on a connection.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, PeerIncompatible,
    RootCertStore, ServerConfig, SignatureScheme,
};

use cocktail_core::error::{Error, Result};

use super::certificate::{Life, Standing, parse, standing};
use super::pin::Pin;
use super::who::{Identity, IdentityError, Role, check_label};

/// How long after its end the certificate of an agent still opens a connection, on which it may do nothing but renew: a
/// machine that was off for a season comes back by itself.
pub const EXPIRED_GRACE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// What is spoken on the connection. A configuration that serves more is a clone with more.
pub const ALPN: &[u8] = b"h2";

/// The most certificates of a Manager that are looked through for a pin. It sends two.
const MOST_CERTIFICATES: usize = 8;

/// First contact: a client that has nothing but a join token.
///
/// It trusts a Manager of `cluster` whose certificate was signed by the authority with that pin, whatever address it has,
/// and shows no certificate.
///
/// # Errors
/// When `cluster` is no name.
pub fn pinned_config(pin: &Pin, cluster: &str) -> Result<Arc<ClientConfig>> {
    let config = client(Trust::Pinned(*pin), cluster)?.with_no_client_auth();
    Ok(finished(config))
}

/// A client that shows a certificate and trusts authorities.
pub(super) fn client_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivatePkcs8KeyDer<'static>,
    bundle: &[CertificateDer<'static>],
    cluster: &str,
) -> Result<Arc<ClientConfig>> {
    let config = client(Trust::Bundle(roots(bundle)?), cluster)?.with_client_auth_cert(chain, key.into());
    Ok(finished(config.map_err(refused)?))
}

/// A Manager that shows a certificate, and verifies that of a client where it shows one.
pub(super) fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivatePkcs8KeyDer<'static>,
    bundle: &[CertificateDer<'static>],
    cluster: &str,
) -> Result<Arc<ServerConfig>> {
    let verifier = ClientVerifier { chain: client_chain(bundle)?, cluster: cluster.to_owned() };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(refused)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, key.into())
        .map_err(refused)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A session that is resumed does not show its certificate again, and it may have been revoked since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The cryptography, named at each use: the default of the process belongs to the program that embeds us.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Whether a client's certificate was signed by one authority, whenever that was.
pub(super) fn signed_by(certificate: &CertificateDer<'_>, authority: &CertificateDer<'static>) -> bool {
    let at = parse(certificate).and_then(|parsed| Life::of(&parsed)).map(|life| unix(life.to));
    let chain = client_chain(std::slice::from_ref(authority));
    matches!((at, chain), (Ok(at), Ok(chain)) if chain.verify_client_cert(certificate, &[], at).is_ok())
}

/// The authorities of a list.
pub(super) fn roots(bundle: &[CertificateDer<'static>]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in bundle {
        if !parse(certificate)?.is_ca() {
            return Err(Error::invalid("a trusted certificate is not that of an authority"));
        }
        roots.add(certificate.clone()).map_err(refused)?;
    }
    Ok(roots)
}

fn client_chain(bundle: &[CertificateDer<'static>]) -> Result<Arc<dyn ClientCertVerifier>> {
    // No hints: they would tell the name of the cluster to whoever knocks.
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots(bundle)?), provider())
        .allow_unauthenticated()
        .clear_root_hint_subjects()
        .build()
        .map_err(|error| Error::invalid("there is no authority to trust").because(error))
}

fn client(trust: Trust, cluster: &str) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>> {
    check_label("the name of a cluster", cluster)?;
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let verifier = ManagerVerifier { trust, cluster: cluster.to_owned(), algorithms };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(refused)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

fn finished(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// What makes an authority a trusted one.
#[derive(Debug)]
enum Trust {
    Bundle(RootCertStore),
    Pinned(Pin),
}

/// Verifies that the other end is the Manager of our cluster.
///
/// The host name is not looked at. Managers move between addresses, and an address proves nothing here: whoever controls
/// it, or a name that leads to it, has no certificate for the role. That role and the cluster are what is verified, and
/// they stand in the URI. Signature, dates and purpose are verified by webpki, directly below a trusted authority: there
/// are no certificates in between.
#[derive(Debug)]
struct ManagerVerifier {
    trust: Trust,
    cluster: String,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ManagerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned;
        let roots = match &self.trust {
            Trust::Bundle(roots) => roots,
            Trust::Pinned(pin) => {
                pinned = with_pin(pin, intermediates)?;
                &pinned
            }
        };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&certificate, roots, &[], now, self.algorithms.all)?;
        let expected = Identity { cluster: self.cluster.clone(), role: Role::Manager };
        let found = Identity::of(end_entity).map_err(nobody)?;
        if found != expected {
            return Err(nobody(IdentityError::Misplaced { found: found.uri(), expected: expected.uri() }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The authority with a pin among the certificates that a server has sent.
///
/// Only its key counts, since that is what the pin is of: somebody who sends another certificate with the same key still
/// needs a certificate that this key has signed.
fn with_pin(pin: &Pin, sent: &[CertificateDer<'_>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    if let Some(authority) = sent.iter().take(MOST_CERTIFICATES).find(|sent| Pin::of(sent).as_ref() == Ok(pin)) {
        roots.add(authority.clone())?;
        return Ok(roots);
    }
    Err(CertificateError::UnknownIssuer.into())
}

/// Verifies the certificate of an agent or a user of our cluster.
#[derive(Debug)]
struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    cluster: String,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let found = Identity::of(end_entity).map_err(nobody)?;
        if found.cluster != self.cluster || found.role == Role::Manager {
            let expected = format!("agents and users of {}", self.cluster);
            return Err(nobody(IdentityError::Misplaced { found: found.uri(), expected }));
        }
        let at = match (&found.role, standing(end_entity, system(now)).map_err(nobody)?) {
            // As if it were its last moment: everything but the date is verified.
            (Role::Agent(_), Standing::Expired { since }) if system(now) <= since + EXPIRED_GRACE => unix(since),
            _ => now,
        };
        self.chain.verify_client_cert(end_entity, &[], at)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn nobody(error: IdentityError) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

fn refused(error: rustls::Error) -> Error {
    Error::invalid("a certificate or a key cannot be used").because(error)
}

fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn system(time: UnixTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.as_secs())
}
