//! Every call, with every kind of certificate.

use std::sync::Arc;
use std::time::SystemTime;

use cocktail_agent::identity::Authority;
use cocktail_agent::wire::gate_client::GateClient;
use cocktail_agent::wire::{FetchRequest, RenewRequest};
use cocktail_core::contract::Gate as _;
use cocktail_core::id::ServerId;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::ClientConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Channel;

use super::support::{ELSEWHERE, House, LONG, Opened, Refusal, Session, asks, csr, opening};
use crate::identity::{DAY, ders, private_folder};

const CALLS: [&str; 5] = ["join", "renew", "session", "aside", "fetch"];

/// What a call comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Allowed,
    /// The gate has read who it is, and says no.
    Denied,
    /// The gate wants another certificate first.
    Nobody,
    /// TLS lets nothing through.
    Unheard,
}

use Is::{Allowed as Yes, Denied as No, Nobody as Who, Unheard as Tls};

/// Who may call what. Joining is anybody's whom TLS lets through: the secret decides.
const TABLE: [(&str, [Is; 5]); 9] = [
    //                        join  renew  session  aside  fetch
    ("nobody", /*           */ [Yes, Who, Who, Who, Who]),
    ("an agent", /*         */ [Yes, Yes, Yes, Yes, Yes]),
    ("an agent after its time", [Yes, Yes, Who, Who, Who]),
    ("an agent after the grace", [Tls, Tls, Tls, Tls, Tls]),
    ("a revoked agent", /*  */ [Yes, No, No, No, No]),
    ("a user", /*           */ [Yes, No, No, No, No]),
    ("a manager", /*        */ [Tls, Tls, Tls, Tls, Tls]),
    ("an agent of another cluster", [Tls, Tls, Tls, Tls, Tls]),
    ("an agent of another authority", [Tls, Tls, Tls, Tls, Tls]),
];

/// A client that shows what its name says.
fn client(house: &House, who: &str) -> Arc<ClientConfig> {
    let now = SystemTime::now();
    match who {
        "nobody" => house.stranger(),
        "an agent" => house.agent("a").calls(),
        "an agent after its time" => house.agent_since("a", now - 10 * DAY).calls(),
        "an agent after the grace" => house.agent_since("a", now - 100 * DAY).calls(),
        "a revoked agent" => {
            house.gate.revoke(&ServerId::new("r"), Some("stolen")).unwrap();
            house.agent("r").calls()
        }
        "a user" => {
            let (issued, key) = house.authority().issue_user("ann", now).unwrap();
            house.showing(issued.chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
        }
        "a manager" => {
            // No authority of ours gives one away: this is one that somebody made.
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![SanType::URI("spiffe://cocktail/blue/manager".try_into().unwrap())];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let own = params.self_signed(&key).unwrap().der().clone();
            house.showing(vec![own], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        }
        "an agent of another cluster" => foreign(house, "green"),
        "an agent of another authority" => foreign(house, "blue"),
        _ => unreachable!("{who}"),
    }
}

fn foreign(house: &House, cluster: &str) -> Arc<ClientConfig> {
    let folder = private_folder();
    let authority = Authority::open(folder.path(), cluster, DAY).unwrap();
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let issued = authority.sign_agent(request.der(), &ServerId::new("a"), SystemTime::now()).unwrap();
    house.showing(issued.chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

/// One call over a connection of its own.
async fn call(house: &House, tls: Arc<ClientConfig>, call: &str) -> Is {
    let mut client = match house.dial(tls, ELSEWHERE).await {
        Ok(client) => client,
        Err(_) => return Tls,
    };
    let asked = match call {
        "join" => client.join(asks(&house.token("j"), &csr())).await.map(drop),
        "renew" => client.renew(RenewRequest { request: csr() }).await.map(drop),
        "session" => client.session(stream::pending()).await.map(drop),
        "aside" => client.aside(stream::iter([opening(7)]).chain(stream::pending())).await.map(drop),
        "fetch" => client.fetch(FetchRequest { sha256: "5e".repeat(32) }).await.map(drop),
        _ => unreachable!("{call}"),
    };
    match asked.map_err(Refusal::of) {
        Ok(()) => Yes,
        Err(Refusal::Connection) => Tls,
        Err(Refusal::Answer(Code::PermissionDenied)) => No,
        Err(Refusal::Answer(Code::Unauthenticated)) => Who,
        Err(Refusal::Answer(code)) => panic!("{call}: {code:?}"),
    }
}

#[tokio::test]
async fn every_call_is_for_those_that_the_table_names() {
    let house = House::open().await;
    for (who, expected) in TABLE {
        let mut found = Vec::new();
        for asked in CALLS {
            found.push(call(&house, client(&house, who), asked).await);
        }
        assert_eq!(found, expected, "{who}: {CALLS:?}");
    }
}

/// A renewal names no server: whatever the request asks for, the certificate is for whoever asks.
#[tokio::test]
async fn a_renewal_is_for_the_server_that_asks() {
    let house = House::open().await;
    let mut agent = house.agent("a");
    let mut client = house.client(agent.calls()).await;
    agent.renew(&mut client).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI("spiffe://cocktail/blue/agent/b".try_into().unwrap())];
    let request = params.serialize_request(&key).unwrap().der().to_vec();
    let chain = client.renew(RenewRequest { request }).await.unwrap().into_inner().chain;
    let found = cocktail_agent::identity::Identity::of(&chain[0].clone().into()).unwrap();
    assert_eq!(found, crate::identity::agent_of("blue", "a"));
    assert_ne!(chain, ders(agent.identity.chain()));
}

#[tokio::test]
async fn an_artifact_is_for_the_server_that_needs_it() {
    let house = House::open().await;
    for (server, sha256, expected) in [
        ("a", "5e".repeat(32), Ok(b"the bytes".to_vec())),
        ("b", "5e".repeat(32), Err(Refusal::Answer(Code::NotFound))),
        ("a", "5f".repeat(32), Err(Refusal::Answer(Code::NotFound))),
        ("a", "../../etc/passwd".into(), Err(Refusal::Answer(Code::NotFound))),
    ] {
        let mut client = house.client(house.agent(server).calls()).await;
        let found = match client.fetch(FetchRequest { sha256 }).await {
            Ok(chunks) => {
                let chunks: Vec<_> = chunks.into_inner().map(|chunk| chunk.unwrap().bytes).collect().await;
                Ok(chunks.concat())
            }
            Err(status) => Err(Refusal::of(status)),
        };
        assert_eq!(found, expected, "{server}");
    }
}

#[tokio::test]
async fn a_stream_of_one_server_is_never_given_to_another() {
    let mut house = House::open().await;
    let (mut a, link) = house.session(house.agent("a").calls()).await;
    let (mut b, _link_of_b) = house.session(house.agent("b").calls()).await;
    // The other one comes with the number, before it is asked for and after.
    let early = Opened::with(7, &mut b.client).await.unwrap();
    let mut asked = Box::pin(link.sender.aside(7));
    assert!(asked.as_mut().now_or_never().is_none(), "it is of another server");
    let late = Opened::with(7, &mut b.client).await.unwrap();
    assert!(asked.as_mut().now_or_never().is_none(), "it is of another server");
    let _own = Opened::with(7, &mut a.client).await.unwrap();
    asked.await.unwrap();
    drop((early, late));
}

#[tokio::test]
async fn who_is_turned_away_is_written_down() {
    let house = House::open().await;
    let revoked = client(&house, "a revoked agent");
    let refused = Session::open(house.client(revoked).await).await.unwrap_err();
    assert_eq!(refused, Refusal::Answer(Code::PermissionDenied));
    let alerts = house.book.alerts();
    assert!(alerts.len() == 1 && alerts[0].1.contains("stolen"), "{alerts:?}");
}

/// Whoever has the certificate of one server cannot fill the Manager with connections.
#[tokio::test]
async fn a_server_has_no_more_connections_than_it_needs() {
    let house = House::open().await;
    let agent = house.agent("a");
    let renew = async |client: &mut GateClient<Channel>| {
        client.renew(RenewRequest { request: csr() }).await.map(|_| ()).map_err(Refusal::of)
    };
    let mut open = Vec::new();
    for number in 0..8 {
        let mut client = house.client(agent.calls()).await;
        assert_eq!(renew(&mut client).await, Ok(()), "{number}");
        open.push(client);
    }
    let mut other = house.client(agent.calls()).await;
    assert_eq!(renew(&mut other).await, Err(Refusal::Connection), "it is closed");
    let mut of_another = house.client(house.agent("b").calls()).await;
    assert_eq!(renew(&mut of_another).await, Ok(()));
    // One that ends makes room.
    open.pop();
    let again = async {
        loop {
            let mut client = house.client(agent.calls()).await;
            if renew(&mut client).await.is_ok() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, again).await.expect("there is room again");
}
