//! Joining: one secret, one server, one key.

use cocktail_agent::identity::{Identity, JoinToken};
use cocktail_agent::wire::JoinRequest;
use cocktail_core::contract::Gate as _;
use cocktail_core::id::ServerId;
use tonic::Code;

use super::support::{Agent, ELSEWHERE, HERE, House, Refusal, asks, csr, join};
use crate::identity::{agent_of, private_folder};

const DENIED: Refusal = Refusal::Answer(Code::PermissionDenied);

#[tokio::test]
async fn a_secret_is_for_one_key_however_often_that_asks() {
    let mut house = House::open().await;
    let (token, folder) = (house.token("a"), private_folder());
    // The first answer is lost on its way.
    house.join(&token, folder.path(), HERE).await.unwrap();
    let answer = house.join(&token, folder.path(), HERE).await.unwrap();
    assert_eq!(house.book.alerts(), []);
    // Whoever has read the secret in the meantime comes too late.
    assert_eq!(house.join(&token, private_folder().path(), ELSEWHERE).await.unwrap_err(), DENIED);
    let alerts = house.book.alerts();
    assert!(alerts.len() == 1 && alerts[0].0 == Some(ServerId::new("a")), "{alerts:?}");
    assert!(alerts[0].1.contains("127.0.0.2") && alerts[0].1.contains("used already"), "{alerts:?}");

    let agent = Agent::of(folder, answer);
    assert_eq!(Identity::of(&agent.identity.chain()[0]), Ok(agent_of("blue", "a")));
    let (_session, link) = house.session(agent.calls()).await;
    assert_eq!(link.server, ServerId::new("a"));
}

#[tokio::test]
async fn a_secret_that_has_run_out_or_is_void_or_is_of_another_server_is_refused() {
    let house = House::open().await;
    let (old, other) = (house.token("a"), house.token("b"));
    let new = house.token("a");
    let folder = private_folder();
    assert_eq!(house.join(&old, folder.path(), HERE).await.unwrap_err(), DENIED, "another was made since");
    house.book.run_out("a");
    assert_eq!(house.join(&new, folder.path(), HERE).await.unwrap_err(), DENIED, "it has run out");
    assert_eq!(house.book.alerts().len(), 2);
    // The secret of `b` for `a`: as `a`, and as somebody that nobody has heard of, or that has no name.
    for server in ["a", "c", "", "../a"] {
        let asked = JoinRequest { server: server.into(), ..asks(&other, &csr()) };
        let mut client = house.client(house.stranger()).await;
        assert_eq!(Refusal::of(client.join(asked).await.unwrap_err()), DENIED, "{server:?}");
    }
    assert_eq!(house.book.alerts().len(), 4);
    house.join(&other, folder.path(), HERE).await.unwrap();
}

#[tokio::test]
async fn a_request_that_is_none_uses_nothing_up() {
    let house = House::open().await;
    let token = house.token("a");
    let mut client = house.client(house.stranger()).await;
    let mut cut = csr();
    cut.truncate(cut.len() - 1);
    for request in [Vec::new(), b"a request".to_vec(), cut] {
        let refusal = Refusal::of(client.join(asks(&token, &request)).await.unwrap_err());
        assert_eq!(refusal, Refusal::Answer(Code::InvalidArgument));
    }
    house.join(&token, private_folder().path(), HERE).await.unwrap();
}

#[tokio::test]
async fn a_thousand_guesses_are_refused_and_keep_nobody_else_out() {
    let mut house = House::open().await;
    let token = house.token("a");
    let mut client = house.client(house.stranger()).await;
    let request = csr();
    let mut limited = 0;
    for guess in 0..1_000_u32 {
        let secret = format!("{}{guess:04}", "A".repeat(48)).replace(['0', '1', '8', '9'], "B");
        let asked = client.join(JoinRequest { secret, ..asks(&token, &request) }).await;
        match Refusal::of(asked.expect_err("a guess")) {
            DENIED => assert_eq!(limited, 0, "guess {guess} was looked at"),
            Refusal::Answer(Code::ResourceExhausted) => limited += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((limited, house.book.alerts().len()), (990, 10), "as many as a minute has, and no more to write down");
    // Not even the right one is looked at from there, nor over another connection.
    let right = house.join(&token, private_folder().path(), HERE).await;
    assert_eq!(right.unwrap_err(), Refusal::Answer(Code::ResourceExhausted));
    house.join(&token, private_folder().path(), ELSEWHERE).await.unwrap();
    house.goes_on().await;
}

#[tokio::test]
async fn a_secret_is_not_told_to_another_authority() {
    let (house, other) = (House::open().await, House::open().await);
    let token = house.token("a");
    // The other one has the cluster's name and the address that the agent was given.
    assert_eq!(other.book.give("a"), token.number);
    let pinned = join(other.address(), house.stranger(), &token, private_folder().path(), HERE).await;
    assert_eq!(pinned.unwrap_err(), Refusal::Connection);
    assert_eq!(other.book.alerts(), [], "it has heard nothing");
    house.join(&token, private_folder().path(), HERE).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_revoked_does_not_join_with_a_good_secret() {
    let house = House::open().await;
    let (server, token) = (ServerId::new("a"), house.token("a"));
    house.gate.revoke(&server, Some("stolen")).unwrap();
    let folder = private_folder();
    assert_eq!(house.join(&token, folder.path(), HERE).await.unwrap_err(), DENIED);
    assert_eq!(house.book.alerts().len(), 1);
    house.gate.revoke(&server, None).unwrap();
    house.join(&token, folder.path(), HERE).await.unwrap();
}

#[tokio::test]
async fn a_name_as_long_as_a_message_is_not_repeated_in_the_journal() {
    let house = House::open().await;
    let token: JoinToken = house.token("a");
    let mut client = house.client(house.stranger()).await;
    let asked = JoinRequest { server: "a".repeat(900 << 10), ..asks(&token, &csr()) };
    assert_eq!(Refusal::of(client.join(asked).await.unwrap_err()), DENIED);
    let alerts = house.book.alerts();
    let named = alerts.iter().map(|(server, because)| server.as_ref().map_or(0, |s| s.as_str().len()) + because.len());
    assert!(named.sum::<usize>() < 1_024);
    assert_eq!(alerts.len(), 1);
}
