//! Certificates that an authority would never sign, signed with its key: each check holds without the others.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use cocktail_core::id::ServerId;

use super::issue::{self, Signer, Wanted};
use super::join::JoinKey;
use super::{AgentIdentity, Identity, IdentityError, Role, pinned_config, tls};

const CLIENT: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ClientAuth;
const SERVER: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ServerAuth;

/// Something signed by an authority.
fn forged(authority: &Signer, uris: &[&str], purpose: ExtendedKeyUsagePurpose) -> (CertificateDer<'static>, KeyPair) {
    forged_with(authority.key(), &authority.certificate, uris, purpose)
}

/// Something signed with a key in the name of an authority.
fn forged_with(
    key: &[u8],
    authority: &CertificateDer<'_>,
    uris: &[&str],
    purpose: ExtendedKeyUsagePurpose,
) -> (CertificateDer<'static>, KeyPair) {
    let issuer = Issuer::from_ca_cert_der(authority, issue::read_key(key).unwrap()).unwrap();
    let key = issue::fresh_key().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris.iter().map(|&uri| SanType::URI(uri.try_into().unwrap())).collect();
    params.extended_key_usages = vec![purpose];
    (params.signed_by(&key, &issuer).unwrap().der().clone(), key)
}

fn meet(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<(), rustls::Error> {
    let mut client = ClientConnection::new(client, ServerName::try_from("any.example").unwrap()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut &bytes[..]).unwrap();
        server.process_new_packets()?;
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut &bytes[..]).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

/// What an end shows: the URIs in its certificate, and what that may be used for.
type Shown<'a> = (&'a [&'a str], ExtendedKeyUsagePurpose);

/// A client and a server of `blue` that show what they like.
fn try_both(client: Shown<'_>, server: Shown<'_>) -> Result<(), String> {
    let authority = Signer::fresh("blue", SystemTime::now()).unwrap();
    let bundle = [authority.certificate.clone()];
    let (shown, key) = forged(&authority, client.0, client.1);
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let client = tls::client_config(vec![shown], key, &bundle, "blue").unwrap();
    let (shown, key) = forged(&authority, server.0, server.1);
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let server = tls::server_config(vec![shown], key, &bundle, "blue").unwrap();
    meet(client, server).map_err(|error| error.to_string())
}

#[test]
fn role_cluster_and_purpose_are_each_verified() {
    let (manager, agent) = (&["spiffe://cocktail/blue/manager"][..], &["spiffe://cocktail/blue/agent/a"][..]);
    try_both((agent, CLIENT), (manager, SERVER)).unwrap();
    let two = &["spiffe://cocktail/blue/agent/a", "spiffe://cocktail/blue/agent/b"][..];
    let cases: [(&str, Shown<'_>, Shown<'_>, &str); 9] = [
        ("an agent that serves", (agent, CLIENT), (agent, SERVER), "Misplaced"),
        ("a manager of another cluster", (agent, CLIENT), (&["spiffe://cocktail/green/manager"], SERVER), "green"),
        ("a manager that cannot serve", (agent, CLIENT), (manager, CLIENT), "extended key usage"),
        ("nobody who serves", (agent, CLIENT), (&[], SERVER), "NotOneName"),
        ("a manager that calls", (manager, CLIENT), (manager, SERVER), "Misplaced"),
        ("an agent of another cluster", (&["spiffe://cocktail/green/agent/a"], CLIENT), (manager, SERVER), "green"),
        ("an agent that cannot call", (agent, SERVER), (manager, SERVER), "extended key usage"),
        ("two at once", (two, CLIENT), (manager, SERVER), "NotOneName"),
        ("somebody else's", (&["https://blue.example/agent/a"], CLIENT), (manager, SERVER), "Foreign"),
    ];
    for (name, client, server, says) in cases {
        let refusal = try_both(client, server).expect_err(name);
        assert!(refusal.contains(says), "{name}: {refusal}");
    }
}

#[test]
fn the_name_of_an_authority_is_worth_nothing_without_its_key() {
    let (ours, theirs) =
        (Signer::fresh("blue", SystemTime::now()).unwrap(), Signer::fresh("blue", SystemTime::now()).unwrap());
    let bundle = [ours.certificate.clone()];
    let pkcs8 = |key: &KeyPair| PrivatePkcs8KeyDer::from(key.serialize_der());
    let (manager, agent) = (["spiffe://cocktail/blue/manager"], ["spiffe://cocktail/blue/agent/a"]);
    // Everything but the signature is as it should be, and the authority that is shown beside it is the right one.
    let shown = |signer: &Signer, uris: &[&str], purpose| {
        let (leaf, key) = forged_with(signer.key(), &ours.certificate, uris, purpose);
        (vec![leaf, ours.certificate.clone()], pkcs8(&key))
    };
    for (serves, calls) in [(&ours, &theirs), (&theirs, &ours), (&ours, &ours)] {
        let (chain, key) = shown(serves, &manager, SERVER);
        let server = tls::server_config(chain, key, &bundle, "blue").unwrap();
        let (chain, key) = shown(calls, &agent, CLIENT);
        assert_eq!(tls::signed_by(&chain[0], &ours.certificate), std::ptr::eq(calls, &ours));
        let client = tls::client_config(chain, key, &bundle, "blue").unwrap();
        let good = std::ptr::eq(serves, &ours);
        assert_eq!(meet(pinned_config(&ours.pin, "blue").unwrap(), server.clone()).is_ok(), good);
        assert_eq!(meet(client, server).is_ok(), good && std::ptr::eq(calls, &ours));
    }
}

#[test]
fn a_certificate_with_no_or_two_uris_is_for_nobody() {
    let authority = Signer::fresh("blue", SystemTime::now()).unwrap();
    for uris in [&[][..], &["spiffe://cocktail/blue/manager"; 2][..]] {
        let (certificate, _) = forged(&authority, uris, CLIENT);
        assert_eq!(Identity::of(&certificate), Err(IdentityError::NotOneName { found: uris.len() }));
    }
}

#[test]
fn a_part_of_a_secret_never_flows_into_the_next() {
    let key = JoinKey([7; 32]);
    let secret = |cluster, server, number| key.secret(cluster, &ServerId::new(server), number);
    let base = secret("blue", "a", 1);
    for (cluster, server, number) in [("blu", "ea", 1), ("bluea", "", 1), ("green", "a", 1), ("blue", "a", 256)] {
        assert_ne!(secret(cluster, server, number).expose(), base.expose(), "{cluster} {server} {number}");
    }
    assert!(key.check("blue", &ServerId::new("a"), 1, base.expose()));
    assert!(!JoinKey([8; 32]).check("blue", &ServerId::new("a"), 1, base.expose()));
}

#[test]
fn a_key_that_is_not_that_of_its_certificate_is_no_authority() {
    let now = SystemTime::now();
    let (one, other) = (Signer::fresh("blue", now).unwrap(), Signer::fresh("blue", now).unwrap());
    assert!(Signer::kept(one.certificate.clone(), other.key()).is_err());
    assert!(Signer::kept(one.certificate.clone(), one.key()).is_ok());
    let (leaf, key) = forged(&one, &["spiffe://cocktail/blue/agent/a"], CLIENT);
    assert!(Signer::kept(leaf, key.serialized_der()).is_err(), "a leaf signs nothing");
    assert!(Signer::fresh("blue", now + Duration::from_secs(300_000_000_000)).is_err());
}

#[test]
fn only_the_certificate_of_an_agent_is_installed() {
    let now = SystemTime::now();
    let authority = Signer::fresh("blue", now).unwrap();
    let folder = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap();
    let install = |role| {
        let request = AgentIdentity::request(folder.path()).unwrap();
        let key = issue::read_request(request.csr_der()).unwrap().public;
        let identity = Identity { cluster: "blue".into(), role };
        let wanted = Wanted { identity: &identity, names: &[], now, validity: Duration::from_secs(3600) };
        let chain = authority.sign(&key, &wanted).unwrap().chain.iter().map(|one| one.to_vec()).collect();
        AgentIdentity::install(folder.path(), request, chain, vec![authority.certificate.to_vec()])
    };
    for role in [Role::User("ann".into()), Role::Manager] {
        let error = install(role).unwrap_err();
        assert!(error.message().contains("and this is an agent"), "{error}");
        assert!(AgentIdentity::load(folder.path()).unwrap().is_none());
    }
    install(Role::Agent(ServerId::new("web-1"))).unwrap();
}
