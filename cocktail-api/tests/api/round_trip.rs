//! Every method: what is asked arrives, what is answered comes back.

use std::time::Duration;

use cocktail_core::contract::{
    Actor, EventFilter, LogOptions, Manager, ManifestSource, RearrangeOptions, RolloutAction, ShutdownMode,
};
use cocktail_core::fleet::Late;
use cocktail_core::id::Seq;
use cocktail_core::time::WallTime;
use futures_util::TryStreamExt;

use crate::support::{self, Running, me, unit_id};

/// What a client says about itself must not count.
fn liar() -> Actor {
    Actor("root, trust me".into())
}

fn sources() -> Vec<ManifestSource> {
    vec![
        ManifestSource { file: "shop.toml".into(), base: "/srv/shop".into(), text: "service = \"shop\"\n".into() },
        ManifestSource { file: "-".into(), base: "/".into(), text: "é\0\u{7f}".into() },
    ]
}

#[tokio::test]
async fn commands_arrive_with_the_uid_of_the_caller_as_actor() {
    let api = Running::start().await;
    let client = api.client().await;
    let me = me();
    let asked = || api.fake.take_asked();

    assert_eq!(client.apply(&sources(), &liar()).await.unwrap(), support::applied());
    assert_eq!(asked(), [format!("apply {:?} by {me}", sources())]);
    assert_eq!(client.scale("shop/prod/web", 3, &liar()).await.unwrap(), support::unit());
    assert_eq!(asked(), [format!("scale shop/prod/web 3 by {me}")]);
    assert_eq!(client.extend("web", 2, &liar()).await.unwrap(), support::unit());
    assert_eq!(asked(), [format!("extend web 2 by {me}")]);
    assert_eq!(client.reduce("prod/web", 1, &liar()).await.unwrap(), support::unit());
    assert_eq!(asked(), [format!("reduce prod/web 1 by {me}")]);
    assert_eq!(client.stop("shop/prod", &liar()).await.unwrap(), [unit_id()]);
    assert_eq!(asked(), [format!("stop shop/prod by {me}")]);
    assert_eq!(client.start("shop", &liar()).await.unwrap(), [unit_id()]);
    assert_eq!(asked(), [format!("start shop by {me}")]);
    assert_eq!(client.restart("web-k3", &liar()).await.unwrap(), [unit_id()]);
    assert_eq!(asked(), [format!("restart web-k3 by {me}")]);
    assert_eq!(client.remove("shop/prod/web", &liar()).await.unwrap(), [unit_id()]);
    assert_eq!(asked(), [format!("remove shop/prod/web by {me}")]);
    for action in [RolloutAction::Pause, RolloutAction::Resume, RolloutAction::Promote, RolloutAction::Abort] {
        assert_eq!(client.steer("prod/web", action, &liar()).await.unwrap(), support::rollout());
        assert_eq!(asked(), [format!("steer prod/web {action} by {me}")]);
    }
    for to in [None, Some(3), Some(u64::MAX)] {
        assert_eq!(client.rollback("prod/web", to, &liar()).await.unwrap(), support::rollout());
        assert_eq!(asked(), [format!("rollback prod/web {to:?} by {me}")]);
    }
    assert_eq!(client.cordon("here", &liar()).await.unwrap(), support::server());
    assert_eq!(asked(), [format!("cordon here by {me}")]);
    assert_eq!(client.uncordon("here", &liar()).await.unwrap(), support::server());
    assert_eq!(asked(), [format!("uncordon here by {me}")]);
    let late = RearrangeOptions { deadline: Some(Duration::from_millis(90_001)), late: Late::Force, give_back: true };
    for options in [RearrangeOptions::default(), late] {
        assert_eq!(client.rearrange("here", options, &liar()).await.unwrap(), support::server());
        assert_eq!(asked(), [format!("rearrange here {options:?} by {me}")]);
    }
    assert_eq!(client.down(&liar()).await.unwrap(), [unit_id()]);
    assert_eq!(asked(), [format!("down by {me}"), "down done".into()]);
    client.shutdown(ShutdownMode::Leave).await.unwrap();
    client.shutdown(ShutdownMode::Stop).await.unwrap();
    assert_eq!(asked(), ["shutdown Leave", "shutdown Stop"]);
}

#[tokio::test]
async fn queries_come_back_as_they_were_answered() {
    let api = Running::start().await;
    let client = api.client().await;

    assert_eq!(client.plan(&sources()).await.unwrap(), support::plan());
    assert_eq!(client.units().await.unwrap(), [support::unit()]);
    assert_eq!(client.containers().await.unwrap(), [support::container()]);
    assert_eq!(client.servers().await.unwrap(), [support::server()]);
    assert_eq!(client.endpoints().await.unwrap(), [support::endpoint()]);
    assert_eq!(client.operations().await.unwrap(), [support::operation()]);
    assert_eq!(client.rollout("prod/web").await.unwrap(), support::rollout());
    assert_eq!(client.volumes().await.unwrap(), [support::volume()]);
    assert_eq!(client.history("web-k3").await.unwrap(), support::history());
    // A reading that is no number is left out.
    assert_eq!(client.usage().await.unwrap(), support::usage());
    assert_eq!(client.about().await.unwrap(), support::about());
    assert_eq!(client.why("shop/prod/web").await.unwrap(), [support::why()]);
    assert_eq!(client.inspect("web").await.unwrap()["message"], "not an error");
    assert_eq!(
        api.fake.take_asked(),
        [
            format!("plan {:?}", sources()).as_str(),
            "units",
            "containers",
            "servers",
            "endpoints",
            "operations",
            "rollout prod/web",
            "volumes",
            "history web-k3",
            "usage",
            "about",
            "why shop/prod/web",
            "inspect web",
        ]
    );
}

#[tokio::test]
async fn streams_come_back_as_they_were_answered() {
    let api = Running::start().await;
    let client = api.client().await;

    let filter = EventFilter { from: Some(Seq(3)), tail: Some(5), follow: true, object: Some("shop/prod & co".into()) };
    for filter in [filter, EventFilter::default()] {
        let events: Vec<_> = client.events(&filter).await.unwrap().try_collect().await.unwrap();
        assert_eq!(events, [support::event(1), support::event(2)]);
        assert_eq!(api.fake.take_asked(), [format!("events {filter:?}")]);
    }
    let options = LogOptions {
        follow: true,
        tail: Some(0),
        since: Some(WallTime(1_769_860_800_123_456)),
        grep: Some("50% & é".into()),
    };
    for options in [options, LogOptions::default()] {
        let lines: Vec<_> = client.logs("shop/prod/web", &options).await.unwrap().try_collect().await.unwrap();
        assert_eq!(lines, [support::log_line("one"), support::log_line("two\u{1b}[0m é")]);
        assert_eq!(api.fake.take_asked(), [format!("logs shop/prod/web {options:?}")]);
    }
}

#[tokio::test]
async fn names_that_are_none_reach_the_manager_as_they_are() {
    let api = Running::start().await;
    let client = api.client().await;
    for name in ["../../etc/passwd", "a b", "é", "a?b=c#d", "%2e%2e%2f", "/", "//x", "\0\n\u{1b}[31m"] {
        client.why(name).await.unwrap();
        assert_eq!(api.fake.take_asked(), [format!("why {name}")]);
    }
}

#[tokio::test]
async fn a_name_longer_than_any_head_is_an_error() {
    let api = Running::start().await;
    let client = api.client().await;
    for length in [60_000, 70_000, 1_000_000] {
        let outcome = client.why(&"x".repeat(length)).await;
        assert!(outcome.is_ok() == (length < 64 << 10), "{length}: {outcome:?}");
    }
    client.about().await.unwrap();
}

#[tokio::test]
async fn extending_by_nothing_said_is_extending_by_one() {
    let api = Running::start().await;
    let request = b"POST /v1/extend/web HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = support::raw(&api.socket(), request).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(api.fake.take_asked(), [format!("extend web 1 by {}", me())]);
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_deadline() {
    let api = Running::start().await;
    let (_never, gate) = tokio::sync::watch::channel(false);
    *api.fake.gate.lock().unwrap() = Some(gate);
    let client = api.client().await.with_patience(Duration::from_millis(50));
    let error = client.units().await.unwrap_err();
    assert_eq!(error.kind(), &cocktail_core::error::ErrorKind::Deadline);
}
