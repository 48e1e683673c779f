//! What a request gets, whatever it asks for.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use cocktail_agent::identity::{Authority, Identity, Pin};
use cocktail_core::error::ErrorKind;
use cocktail_core::id::ServerId;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType,
};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{HOUR, Manager, WEEK, agent_of, private_folder};

#[test]
fn a_request_for_more_gets_what_the_manager_says() {
    let manager = Manager::of("blue");
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["web-2".into(), "10.0.0.1".into()]).unwrap();
    for uri in ["spiffe://cocktail/blue/agent/web-2", "spiffe://cocktail/blue/manager"] {
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    }
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any];
    let request = params.serialize_request(&key).unwrap();
    let issued = manager.authority.sign_agent(request.der(), &ServerId::new("web-1"), manager.now).unwrap();
    assert_eq!(Identity::of(&issued.chain[0]), Ok(agent_of("blue", "web-1")));
    let (_, certificate) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert!(matches!(names[..], [GeneralName::URI("spiffe://cocktail/blue/agent/web-1")]), "{names:?}");
    assert!(!certificate.is_ca());
    let purpose = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(purpose.client_auth && !purpose.server_auth && !purpose.any && purpose.other.is_empty());
    assert!(!certificate.key_usage().unwrap().unwrap().value.key_cert_sign());
    assert_eq!(certificate.subject().to_string(), "CN=cocktail agent");
    assert_eq!(Pin::of(&issued.chain[0]), Pin::of_request(request.der()));
}

#[test]
fn a_request_that_is_not_signed_with_its_own_key_is_refused() {
    let manager = Manager::of("blue");
    let request = |key: &KeyPair| CertificateParams::default().serialize_request(key).unwrap().der().to_vec();
    let (ours, theirs) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let whole = request(&ours);
    let mut broken = whole.clone();
    // The signature is what stands last.
    *broken.last_mut().unwrap() ^= 1;
    let mut swapped = whole.clone();
    let at = whole.windows(65).position(|bytes| bytes == ours.public_key_raw()).unwrap();
    swapped[at..at + 65].copy_from_slice(theirs.public_key_raw());
    let long = CertificateParams::new(vec!["web-1.example".to_owned(); 2_000]).unwrap();
    let other_kind = |kind| request(&KeyPair::generate_for(kind).unwrap());
    let cases = [
        ("broken", broken),
        ("swapped", swapped),
        ("empty", Vec::new()),
        ("half", whole[..whole.len() / 2].to_vec()),
        ("more", [&whole[..], b"x"].concat()),
        ("long", long.serialize_request(&ours).unwrap().der().to_vec()),
        ("another curve", other_kind(&PKCS_ECDSA_P384_SHA384)),
        ("another kind", other_kind(&PKCS_ED25519)),
    ];
    for (name, der) in cases {
        let error = manager.authority.sign_agent(&der, &ServerId::new("web-1"), manager.now).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Denied, "{name}: {error}");
        assert!(Pin::of_request(&der).is_err(), "{name}");
    }
    manager.authority.sign_agent(&whole, &ServerId::new("web-1"), manager.now).unwrap();
}

#[test]
fn a_name_that_could_be_taken_for_another_is_not_certified() {
    let manager = Manager::of("blue");
    let (request, now) =
        (CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap(), manager.now);
    for name in ["", "a/b", "../manager", "a.b", "Web", "-a", "a b", "a\0", "ä", &"a".repeat(64)] {
        let server = ServerId::new(name);
        let authority = &manager.authority;
        for error in [
            authority.sign_agent(request.der(), &server, now).err(),
            authority.issue_user(name, now).err(),
            authority.token(&server, 1).err(),
            Authority::open(private_folder().path(), name, WEEK).err(),
        ] {
            assert_eq!(error.expect(name).kind(), &ErrorKind::InvalidConfig, "{name:?}");
        }
    }
    assert!(manager.authority.server_config(&["no name".into()], now).is_err());
}

#[test]
fn a_certificate_has_the_dates_it_should_and_a_number_of_its_own() {
    let manager = Manager::of("blue");
    let mut serials = BTreeSet::new();
    for _ in 0..20 {
        let (issued, _) = manager.signed("web-1");
        let (_, certificate) = X509Certificate::from_der(&issued.chain[0]).unwrap();
        let second = |time: i64| UNIX_EPOCH + Duration::from_secs(time.try_into().unwrap());
        let validity = certificate.validity();
        let (from, to) = (second(validity.not_before.timestamp()), second(validity.not_after.timestamp()));
        let apart = |a, b: std::time::SystemTime| b.duration_since(a).unwrap();
        assert!(apart(from, manager.now) >= HOUR && apart(from, manager.now) < HOUR + Duration::from_secs(1));
        assert!(apart(manager.now, issued.not_after) <= WEEK && apart(from, to) == WEEK + HOUR);
        assert_eq!(issued.not_after, to);
        assert_eq!(certificate.raw_serial().len(), 20);
        assert!(certificate.raw_serial()[0] < 0x80, "positive");
        serials.insert(certificate.raw_serial().to_vec());
    }
    assert_eq!(serials.len(), 20);
}

#[test]
fn an_authority_may_sign_certificates_and_nothing_else_and_no_other_authority() {
    let manager = Manager::of("blue");
    let [certificate] = &manager.authority.bundle()[..] else { panic!("one authority") };
    let (_, certificate) = X509Certificate::from_der(certificate).unwrap();
    let constraints = certificate.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    assert_eq!(certificate.key_usage().unwrap().unwrap().value.flags.count_ones(), 1);
    assert!(certificate.key_usage().unwrap().unwrap().value.key_cert_sign());
    let validity = certificate.validity();
    let years = (validity.not_after.timestamp() - validity.not_before.timestamp()) / (365 * 24 * 60 * 60);
    assert_eq!(years, 10);
}

#[test]
fn no_certificate_outlives_its_authority() {
    let manager = Manager::of("blue");
    let nearly_over = manager.now + Duration::from_secs(3653 * 24 * 60 * 60) - HOUR;
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let sign = |now| manager.authority.sign_agent(request.der(), &ServerId::new("web-1"), now);
    let issued = sign(nearly_over).unwrap();
    assert!(issued.not_after <= nearly_over + 2 * HOUR);
    let error = sign(nearly_over + 2 * HOUR).unwrap_err();
    assert!(error.message().contains("rotate"), "{error}");
    assert!(sign(UNIX_EPOCH - HOUR).is_err());
}

#[test]
fn what_is_no_certificate_names_nobody() {
    let (issued, _) = Manager::of("blue").signed("web-1");
    let more = CertificateDer::from([&issued.chain[0][..], b"x"].concat());
    for der in [CertificateDer::from(Vec::new()), CertificateDer::from(vec![0x30; 100]), more] {
        assert!(Identity::of(&der).is_err() && Pin::of(&der).is_err());
    }
}
