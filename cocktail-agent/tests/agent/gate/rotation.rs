//! Revocation and rotation, seen from sessions that are live.

use std::time::{Duration, Instant, SystemTime};

use cocktail_agent::wire::{FetchRequest, RenewRequest};
use cocktail_core::contract::Gate as _;
use cocktail_core::id::ServerId;
use cocktail_core::session::ManagerFrame;
use futures_util::{StreamExt as _, stream};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::time::timeout;
use tonic::Code;

use super::support::{HERE, House, LONG, Refusal, Session, csr, join, opening};

/// A frame that is as good as any.
fn frame() -> ManagerFrame {
    ManagerFrame::Endpoints(std::sync::Arc::default())
}

#[tokio::test]
async fn a_server_that_is_revoked_loses_all_its_connections_at_once() {
    let mut house = House::open().await;
    let (agent, neighbour, server) = (house.agent("a"), house.agent("b"), ServerId::new("a"));
    let (mut session, mut link) = house.session(agent.calls()).await;
    let (mut other, other_link) = house.session(neighbour.calls()).await;
    // A stream that comes over another connection than the session.
    let mut beside = house.client(agent.calls()).await;
    let opened = beside.aside(stream::iter([opening(1)]).chain(stream::pending())).await.unwrap();
    let mut opened = opened.into_inner();
    let mut aside = link.sender.aside(1).await.unwrap();

    let since = Instant::now();
    house.gate.revoke(&server, Some("stolen")).unwrap();
    let all_end = async {
        session.ends().await;
        while let Ok(Some(_)) = opened.message().await {}
        while link.frames.next().await.is_some() {}
        while let Some(Ok(_)) = aside.output.next().await {}
    };
    timeout(LONG, all_end).await.expect("they end");
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    assert!(session.client.renew(RenewRequest { request: csr() }).await.is_err(), "the connection is gone");
    let refused = Session::open(house.client(agent.calls()).await).await.unwrap_err();
    assert_eq!(refused, Refusal::Answer(Code::PermissionDenied));
    // The neighbour has noticed nothing.
    other_link.sender.send(frame());
    assert!(timeout(LONG, other.told.message()).await.unwrap().unwrap().is_some());

    house.gate.revoke(&server, None).unwrap();
    let (_session, link) = house.session(agent.calls()).await;
    assert_eq!(link.server, server);
}

/// Whether a session is revoked before it is let in or right after: it does not live on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_begins_while_its_server_is_revoked_ends() {
    let mut house = House::open().await;
    let (agent, server) = (house.agent("a"), ServerId::new("a"));
    for attempt in 0..40 {
        let client = house.client(agent.calls()).await;
        let opening = tokio::spawn(Session::open(client));
        tokio::time::sleep(Duration::from_micros(attempt * 50)).await;
        house.gate.revoke(&server, Some("stolen")).unwrap();
        if let Ok(mut session) = timeout(LONG, opening).await.unwrap().unwrap() {
            timeout(LONG, session.ends()).await.expect("it ends");
            drop(house.link().await);
        }
        house.gate.revoke(&server, None).unwrap();
    }
}

#[tokio::test]
async fn a_rotation_leaves_sessions_alone_and_its_end_only_those_that_have_renewed() {
    let mut house = House::open().await;
    let (mut agent, old) = (house.agent("a"), house.agent("b"));
    let (mut session, link) = house.session(agent.calls()).await;
    let (mut idle, mut idle_link) = house.session(old.calls()).await;
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let signed = house.authority().sign_agent(request.der(), &ServerId::new("b"), SystemTime::now()).unwrap();
    house.gate.rotate(false).unwrap();
    link.sender.send(frame());
    assert!(timeout(LONG, session.told.message()).await.unwrap().unwrap().is_some(), "the session goes on");
    assert!(!house.authority().signed_by_newest(&agent.identity.chain()[0]));
    agent.renew(&mut session.client).await.unwrap();
    assert!(house.authority().signed_by_newest(&agent.identity.chain()[0]));
    assert_eq!(agent.identity.trusts().len(), 2);
    // Both connect until it is finished.
    drop((session, link));
    let (mut session, link) = house.session(agent.calls()).await;
    house.session(old.calls()).await;

    house.gate.rotate(true).unwrap();
    link.sender.send(frame());
    assert!(timeout(LONG, session.told.message()).await.unwrap().unwrap().is_some(), "the session goes on");
    let (_again, link) = house.session(agent.calls()).await;
    assert_eq!(link.server, ServerId::new("a"));
    // What the old authority has signed is nothing any more, neither for the next connection nor on this one: whoever had
    // its key could make itself another certificate here.
    let renewed = idle.client.renew(RenewRequest { request: csr() }).await;
    let fetched = idle.client.fetch(FetchRequest { sha256: "5e".repeat(32) }).await;
    assert!(renewed.is_err() && fetched.is_err());
    timeout(LONG, idle.ends()).await.expect("it ends");
    timeout(LONG, idle_link.frames.next()).await.expect("it ends");
    // Its list of authorities does not have the one that the gate shows now.
    let refused = house.dial(old.calls(), HERE).await;
    assert!(matches!(refused, Err(Refusal::Connection)));
    // With a list that has: TLS refuses what it shows.
    let shown = house.showing(signed.chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()));
    if let Ok(client) = house.dial(shown, HERE).await {
        assert_eq!(Session::open(client).await.unwrap_err(), Refusal::Connection);
    }
}

#[tokio::test]
async fn a_token_from_before_a_rotation_is_for_an_authority_that_is_gone() {
    let house = House::open().await;
    let (token, pinned) = (house.token("a"), house.stranger());
    house.gate.rotate(false).unwrap();
    let folder = crate::identity::private_folder();
    let during = join(house.address(), pinned.clone(), &token, folder.path(), HERE);
    during.await.expect("the gate still shows the old one");
    house.gate.rotate(true).unwrap();
    let after = join(house.address(), pinned, &token, folder.path(), HERE).await;
    assert_eq!(after.unwrap_err(), Refusal::Connection);
    // The same secret under the new pin.
    house.join(&token, folder.path(), HERE).await.unwrap();
}
