//! Who meets whom.

use std::sync::Arc;

use cocktail_agent::identity::{
    ALPN, EXPIRED_GRACE, Identity, IdentityError, Pin, Role, Standing, pinned_config, standing,
};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ServerSessionMemoryCache;
use rustls::version::TLS13;
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, ServerConfig};

use super::{DAY, HOUR, Manager, WEEK, agent_of, meet};

#[test]
fn a_client_with_the_right_pin_meets_its_manager_and_shows_nothing() {
    let manager = Manager::of("blue");
    let client = pinned_config(&manager.authority.pin(), "blue").unwrap();
    let met = meet(&client, &manager.serves(), manager.now).unwrap();
    assert_eq!(met.peer(), None);
    assert_eq!(met.client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(met.client.alpn_protocol(), Some(ALPN));
    let shown = met.client.peer_certificates().unwrap();
    assert_eq!(Identity::of(&shown[0]), Ok(Identity { cluster: "blue".into(), role: Role::Manager }));
    assert_eq!(Pin::of(&shown[1]), Ok(manager.authority.pin()));
}

#[test]
fn a_client_with_another_pin_refuses() {
    let manager = Manager::of("blue");
    let (agent, _) = manager.signed("web-1");
    // Also the pin of a certificate that the same authority has signed.
    for pin in [Manager::of("blue").authority.pin(), Pin::of(&agent.chain[0]).unwrap()] {
        let client = pinned_config(&pin, "blue").unwrap();
        let refusal = meet(&client, &manager.serves(), manager.now).unwrap_err().by_client();
        assert!(refusal.contains("UnknownIssuer"), "{refusal}");
    }
}

#[test]
fn a_manager_of_another_authority_with_the_same_names_is_refused() {
    let (manager, stranger) = (Manager::of("blue"), Manager::of("blue"));
    let agent = manager.agent("web-1");
    let refusal = meet(&agent.calls(), &stranger.serves(), manager.now).unwrap_err().by_client();
    assert!(refusal.contains("UnknownIssuer"), "{refusal}");
}

#[test]
fn a_manager_of_another_cluster_is_refused() {
    let manager = Manager::of("blue");
    let client = pinned_config(&manager.authority.pin(), "green").unwrap();
    let refusal = meet(&client, &manager.serves(), manager.now).unwrap_err().by_client();
    assert!(refusal.contains("spiffe://cocktail/green/manager"), "{refusal}");
}

#[test]
fn the_certificate_of_an_agent_or_a_user_serves_nobody() {
    let manager = Manager::of("blue");
    let agent = manager.agent("web-1");
    let pinned = pinned_config(&manager.authority.pin(), "blue").unwrap();
    let (issued, key) = manager.signed("web-2");
    let other_agent = serving(issued.chain, key.serialize_der());
    let (issued, key) = manager.authority.issue_user("ann", manager.now).unwrap();
    let user = serving(issued.chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap().secret_der().to_vec());
    for server in [other_agent, user] {
        for client in [agent.calls(), pinned.clone()] {
            let refusal = meet(&client, &server, manager.now).unwrap_err().by_client();
            assert!(refusal.contains("extended key usage") || refusal.contains("Purpose"), "{refusal}");
        }
    }
}

#[test]
fn an_agent_and_its_manager_know_each_other() {
    let manager = Manager::of("blue");
    let agent = manager.agent("web-1");
    let met = meet(&agent.calls(), &manager.serves(), manager.now).unwrap();
    assert_eq!(met.peer(), Some(agent_of("blue", "web-1")));
    assert_eq!(agent.identity.identity(), &agent_of("blue", "web-1"));
    assert_eq!(standing(met.certificate().unwrap(), manager.now), Ok(Standing::Valid));
}

#[test]
fn a_user_is_known_by_name() {
    let manager = Manager::of("blue");
    let (issued, key) = manager.authority.issue_user("ann", manager.now).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let client = trusting_all_of(&manager, issued.chain.clone(), key.clone_key());
    let met = meet(&client, &manager.serves(), manager.now).unwrap();
    assert_eq!(met.peer(), Some(Identity { cluster: "blue".into(), role: Role::User("ann".into()) }));
    // The grace is for machines: nobody has to come back after a season as a person.
    let after = manager.now + WEEK + HOUR;
    let refusal = meet(&client, &manager.serves_since(after), after).unwrap_err().by_server();
    assert!(refusal.contains("expired"), "{refusal}");
}

#[test]
fn an_agent_of_another_authority_is_refused() {
    let (manager, stranger) = (Manager::of("blue"), Manager::of("blue"));
    let (issued, key) = stranger.signed("web-1");
    let client = trusting_all_of(&manager, issued.chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()));
    let refusal = meet(&client, &manager.serves(), manager.now).unwrap_err().by_server();
    assert!(refusal.contains("UnknownIssuer") || refusal.contains("BadSignature"), "{refusal}");
}

#[test]
fn a_certificate_that_names_nobody_is_refused() {
    let manager = Manager::of("blue");
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["web-1".into()]).unwrap().self_signed(&key).unwrap().der().clone();
    assert_eq!(Identity::of(&own), Err(IdentityError::NotOneName { found: 0 }));
    let client = trusting_all_of(&manager, vec![own], PrivateKeyDer::Pkcs8(key.serialize_der().into()));
    let refusal = meet(&client, &manager.serves(), manager.now).unwrap_err().by_server();
    assert!(refusal.contains("NotOneName"), "{refusal}");
}

#[test]
fn an_expired_agent_comes_back_within_the_grace_and_is_told_from_others() {
    let manager = Manager::of("blue");
    let agent = manager.agent("web-1");
    let ended = agent.identity.not_after();
    for after in [HOUR, 30 * DAY, EXPIRED_GRACE] {
        let now = ended + after;
        let met = meet(&agent.calls(), &manager.serves_since(now), now).unwrap();
        assert_eq!(met.peer(), Some(agent_of("blue", "web-1")));
        assert_eq!(standing(met.certificate().unwrap(), now), Ok(Standing::Expired { since: ended }));
    }
    let now = ended + EXPIRED_GRACE + HOUR;
    let refusal = meet(&agent.calls(), &manager.serves_since(now), now).unwrap_err().by_server();
    assert!(refusal.contains("expired"), "{refusal}");
}

#[test]
fn an_expired_agent_of_another_authority_finds_no_grace() {
    let (manager, stranger) = (Manager::of("blue"), Manager::of("blue"));
    let (issued, key) = stranger.signed("web-1");
    let now = issued.not_after + DAY;
    let client = trusting_all_of(&manager, issued.chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()));
    let refusal = meet(&client, &manager.serves_since(now), now).unwrap_err().by_server();
    assert!(refusal.contains("UnknownIssuer") || refusal.contains("BadSignature"), "{refusal}");
}

#[test]
fn a_manager_whose_certificate_has_ended_or_not_begun_is_refused() {
    let manager = Manager::of("blue");
    let (agent, server) = (manager.agent("web-1"), manager.serves());
    let pinned = pinned_config(&manager.authority.pin(), "blue").unwrap();
    for client in [agent.calls(), pinned] {
        let refusal = meet(&client, &server, manager.now + WEEK + HOUR).unwrap_err().by_client();
        assert!(refusal.contains("expired"), "{refusal}");
        let refusal = meet(&client, &server, manager.now - 2 * HOUR).unwrap_err().by_client();
        assert!(refusal.contains("not valid yet"), "{refusal}");
        // A clock that is a little behind does no harm.
        meet(&client, &server, manager.now - HOUR / 2).unwrap();
    }
}

#[test]
fn an_agent_whose_certificate_has_not_begun_is_refused() {
    let manager = Manager::of("blue");
    let agent = manager.agent("web-1");
    let now = manager.now - 2 * HOUR;
    let refusal = meet(&agent.calls(), &manager.serves_since(now), now).unwrap_err().by_server();
    assert!(refusal.contains("not valid yet"), "{refusal}");
    let met = meet(&agent.calls(), &manager.serves(), manager.now).unwrap();
    assert!(matches!(standing(met.certificate().unwrap(), now), Ok(Standing::NotYet { .. })));
}

#[test]
fn no_session_is_resumed_whatever_the_other_end_offers() {
    let manager = Manager::of("blue");
    let (client, server) = (manager.agent("web-1").calls(), manager.serves());
    let mut eager_client = (*client).clone();
    eager_client.resumption = Resumption::in_memory_sessions(8);
    let mut eager_server = (*server).clone();
    eager_server.session_storage = ServerSessionMemoryCache::new(8);
    eager_server.send_tls13_tickets = 2;
    let kinds = |client: &ClientConfig, server: &ServerConfig| {
        [(); 2].map(|()| meet(client, server, manager.now).unwrap().server.handshake_kind())
    };
    let (full, resumed) = (Some(HandshakeKind::Full), Some(HandshakeKind::Resumed));
    assert_eq!(kinds(&eager_client, &eager_server), [full, resumed], "two that want it find it");
    assert_eq!(kinds(&eager_client, &server), [full, full]);
    assert_eq!(kinds(&client, &eager_server), [full, full]);
}

/// A server that shows what it likes.
fn serving(chain: Vec<CertificateDer<'static>>, key: Vec<u8>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, PrivateKeyDer::Pkcs8(key.into())).unwrap();
    Arc::new(config)
}

/// A client that shows what it likes.
fn trusting_all_of(
    manager: &Manager,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Arc<ClientConfig> {
    let verifier = pinned_config(&manager.authority.pin(), "blue").unwrap();
    let mut config = (*verifier).clone();
    let provider = config.crypto_provider().clone();
    let shown = rustls::sign::CertifiedKey::from_der(chain, key, &provider).unwrap();
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(shown));
    Arc::new(config)
}
