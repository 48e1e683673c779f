//! An authority is replaced under agents that go on working.

use std::fs;

use cocktail_agent::identity::{AgentIdentity, Authority, JoinToken, Pin, pinned_config};
use cocktail_core::error::ErrorKind;
use cocktail_core::id::ServerId;
use data_encoding::BASE64;
use serde_json::Value;

use super::{Manager, WEEK, meet};

#[test]
fn during_a_rotation_old_and_new_agents_work_and_after_it_only_new_ones() {
    let manager = Manager::of("blue");
    let old = manager.agent("web-1");
    let before = meet(&old.calls(), &manager.serves(), manager.now).unwrap();
    assert!(manager.authority.signed_by_newest(before.certificate().unwrap()));

    manager.authority.rotate().unwrap();
    let [new_pin, old_pin] = manager.authority.bundle().iter().map(|one| Pin::of(one).unwrap()).collect::<Vec<_>>()[..]
    else {
        panic!("two authorities")
    };
    let new = manager.agent("web-2");
    assert_eq!((old.identity.trusts(), new.identity.trusts()), (vec![old_pin], vec![new_pin, old_pin]));
    for (agent, outlives) in [(&old, false), (&new, true)] {
        // Both lists of authorities verify the Manager, and it verifies both certificates.
        let met = meet(&agent.calls(), &manager.serves(), manager.now).unwrap();
        assert_eq!(manager.authority.signed_by_newest(met.certificate().unwrap()), outlives);
    }
    // An agent that renews is ready for what comes.
    let renewing = manager.agent("web-3");
    let renewed = manager.renew(renewing.folder.path(), "web-3");
    assert_eq!(renewed.trusts(), [new_pin, old_pin]);

    manager.authority.retire_old().unwrap();
    assert_eq!(manager.authority.bundle().len(), 1);
    assert_eq!(manager.authority.pin(), new_pin);
    meet(&new.calls(), &manager.serves(), manager.now).unwrap();
    meet(&renewed.client_config().unwrap(), &manager.serves(), manager.now).unwrap();
    let refusal = meet(&old.calls(), &manager.serves(), manager.now).unwrap_err().by_client();
    assert!(refusal.contains("UnknownIssuer"), "{refusal}");
}

#[test]
fn after_a_rotation_what_the_old_authority_signed_is_refused_by_the_manager() {
    let manager = Manager::of("blue");
    let old = manager.agent("web-1");
    manager.authority.rotate().unwrap();
    // Its certificate is old, and it has heard of the new authority.
    let path = old.folder.path().join("identity.json");
    let mut kept: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    kept["bundle"] = manager.authority.bundle().iter().map(|one| BASE64.encode(one)).collect();
    fs::write(&path, kept.to_string()).unwrap();
    let old = AgentIdentity::load(old.folder.path()).unwrap().unwrap();
    meet(&old.client_config().unwrap(), &manager.serves(), manager.now).unwrap();
    manager.authority.retire_old().unwrap();
    let refusal = meet(&old.client_config().unwrap(), &manager.serves(), manager.now).unwrap_err().by_server();
    assert!(refusal.contains("UnknownIssuer"), "{refusal}");
}

#[test]
fn a_rotation_leaves_open_joins_alone_until_it_ends() {
    let manager = Manager::of("blue");
    let server = ServerId::new("web-1");
    let token = manager.authority.token(&server, 1).unwrap();
    let joins = |token: &JoinToken| {
        let client = pinned_config(&token.pin, &token.cluster).unwrap();
        meet(&client, &manager.serves(), manager.now).is_ok()
            && manager.authority.check_join(&server, 1, token.secret().expose())
    };
    manager.authority.rotate().unwrap();
    assert_eq!(manager.authority.token(&server, 1).unwrap().to_string(), token.to_string());
    assert!(joins(&token));
    manager.authority.retire_old().unwrap();
    assert!(!joins(&token));
    let again = manager.authority.token(&server, 1).unwrap();
    assert_eq!(again.secret().expose(), token.secret().expose());
    assert!(joins(&again));
}

#[test]
fn a_rotation_survives_its_manager_and_a_second_one_waits() {
    let manager = Manager::of("blue");
    manager.authority.retire_old().unwrap();
    manager.authority.rotate().unwrap();
    assert_eq!(manager.authority.rotate().unwrap_err().kind(), &ErrorKind::Refused);
    let opened = Authority::open(manager.folder.path(), "blue", WEEK).unwrap();
    assert_eq!((opened.bundle(), opened.pin()), (manager.authority.bundle(), manager.authority.pin()));
    // Whoever acts last acts on what is on disk.
    opened.retire_old().unwrap();
    manager.authority.rotate().unwrap();
    assert_eq!(manager.authority.bundle()[1..], opened.bundle());
}
