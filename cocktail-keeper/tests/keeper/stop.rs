//! Ends: with grace, without, to the last grandchild.

use cocktail_keeper::KeeperError;
use cocktail_keeper::protocol::{ExitStatus, Refusal, SetLease, StopPolicy};
use libtest_mimic::Trial;

use crate::support::{Keeper, TERM, descriptors, lives, marked, test, until};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("stop::term_ends_a_worker_within_its_grace", term_ends_a_worker),
        test("stop::a_worker_that_ignores_term_is_killed_after_its_grace", term_then_kill),
        test("stop::a_double_forked_grandchild_in_its_own_session_is_gone", a_double_forked_grandchild),
        test("stop::what_a_worker_leaves_behind_is_ended_before_its_exit_is_told", leftovers_first),
        test("stop::a_grandchild_without_marks_is_found_by_its_parent", without_marks),
        test("stop::a_kill_shortens_a_stop_that_is_under_way", a_kill_shortens),
        test("stop::neighbours_are_unaffected", neighbours),
        test("stop::two_hundred_starts_and_stops_leak_no_descriptor", no_leak),
        test("stop::an_expired_lease_ends_all_workers", an_expired_lease),
        test("stop::a_guard_is_run_when_the_lease_is_over_until_it_has_done_its_work", a_guard),
        test("stop::a_lease_that_is_renewed_ends_its_guard", a_renewed_lease),
    ]
}

async fn term_ends_a_worker() {
    let keeper = Keeper::new().await;
    keeper.run("a", &["sleep", "600"]).await;
    assert_eq!(keeper.client.stop("a", 1, TERM).await.unwrap().status, ExitStatus::Signal(15));
}

async fn term_then_kill() {
    let keeper = Keeper::new().await;
    keeper.sh("a", "trap '' TERM; echo > ready; while :; do sleep 600; done").await;
    keeper.read_when_written("ready").await;
    let exit = keeper.client.stop("a", 1, StopPolicy { signal: 15, grace_ms: 50 }).await.unwrap();
    assert_eq!(exit.status, ExitStatus::Signal(9));
    assert_eq!(marked(&keeper.store), Vec::<u32>::new());
}

const DOUBLE_FORK: &str = "(setsid sh -c 'echo $$ > pid; trap \"\" TERM; while :; do sleep 600; done' &) ; ";

async fn a_double_forked_grandchild() {
    let keeper = Keeper::new().await;
    keeper.sh("a", &format!("{DOUBLE_FORK} exec sleep 600")).await;
    let grandchild: u32 = keeper.read_when_written("pid").await.trim().parse().unwrap();
    assert!(lives(grandchild));
    keeper.client.stop("a", 1, StopPolicy { signal: 15, grace_ms: 100 }).await.unwrap();
    assert!(!lives(grandchild));
    assert_eq!(marked(&keeper.store), Vec::<u32>::new());
}

async fn leftovers_first() {
    let mut keeper = Keeper::new().await;
    keeper.sh("a", &format!("{DOUBLE_FORK} sleep 600 & while ! test -s pid; do sleep 0.01; done; exit 5")).await;
    assert_eq!(keeper.exit_of("a").await.status, ExitStatus::Code(5));
    assert_eq!(marked(&keeper.store), Vec::<u32>::new());
}

async fn without_marks() {
    let keeper = Keeper::new().await;
    let script = "(env -i setsid sh -c 'echo $$ > pid; exec /bin/sleep 600' &); exec sleep 600";
    keeper.sh("a", script).await;
    let grandchild: u32 = keeper.read_when_written("pid").await.trim().parse().unwrap();
    keeper.client.stop("a", 1, TERM).await.unwrap();
    assert!(!lives(grandchild));
}

async fn a_kill_shortens() {
    let keeper = Keeper::new().await;
    keeper.sh("a", "trap '' TERM; echo > ready; while :; do sleep 600; done").await;
    keeper.read_when_written("ready").await;
    let client = keeper.client.clone();
    let stopping = tokio::spawn(async move { client.stop("a", 1, StopPolicy { signal: 15, grace_ms: 600_000 }).await });
    keeper.client.kill("a", 1).await.unwrap();
    assert_eq!(stopping.await.unwrap().unwrap().status, ExitStatus::Signal(9));
}

async fn neighbours() {
    let keeper = Keeper::new().await;
    let neighbour = keeper.sh("b", "sleep 600 & (setsid sleep 600 &); echo > ready; wait").await;
    keeper.read_when_written("ready").await;
    keeper.sh("a", "sleep 600 & exec sleep 600").await;
    let before = until(|| Some(marked(&keeper.store)).filter(|all| all.len() == 5)).await;
    keeper.client.kill("a", 1).await.unwrap();
    assert!(lives(neighbour.pid));
    let after = marked(&keeper.store);
    assert_eq!(after.len(), 3, "{before:?} {after:?}");
}

async fn no_leak() {
    let keeper = Keeper::new().await;
    // The first round opens what stays open: threads' descriptors, an output file.
    for round in 0..2 {
        let before = descriptors(keeper.pid());
        for number in 0..200 {
            let id = format!("w{number}");
            keeper.sh(&id, "echo hi; exec sleep 600").await;
            keeper.client.kill(&id, 1).await.unwrap();
            keeper.client.remove(&id, false).await.unwrap();
        }
        let after = descriptors(keeper.pid());
        assert!(round == 0 || after <= before, "{before} before, {after} after");
    }
}

async fn an_expired_lease() {
    let mut keeper = Keeper::new().await;
    keeper.run("a", &["sleep", "600"]).await;
    let lease = |ttl_ms| SetLease { ttl_ms, policy: TERM, ..SetLease::default() };
    keeper.client.set_lease(lease(Some(1))).await.unwrap();
    assert_eq!(keeper.exit_of("a").await.status, ExitStatus::Signal(15));
    keeper.client.set_lease(lease(Some(600_000))).await.unwrap();
    keeper.run("b", &["sleep", "600"]).await;
    keeper.client.set_lease(lease(None)).await.unwrap();
    assert_eq!(keeper.client.stop("b", 1, TERM).await.unwrap().status, ExitStatus::Signal(15));
    // What is to be kept runs on, and what is left of the lease can be asked for.
    assert_eq!(keeper.client.lease().await.unwrap(), SetLease::default());
    keeper.run("c", &["sleep", "600"]).await;
    keeper.run("d", &["sleep", "600"]).await;
    let keeping = SetLease { keep: ["d".to_owned()].into(), ..lease(Some(600_000)) };
    keeper.client.set_lease(keeping.clone()).await.unwrap();
    let left = keeper.client.lease().await.unwrap();
    assert!(left.ttl_ms.is_some_and(|left| left > 500_000 && left <= 600_000), "{left:?}");
    assert_eq!(left, SetLease { ttl_ms: left.ttl_ms, ..keeping.clone() });
    keeper.client.set_lease(SetLease { ttl_ms: Some(1), ..keeping.clone() }).await.unwrap();
    assert_eq!(keeper.exit_of("c").await.status, ExitStatus::Signal(15));
    let over = SetLease { ttl_ms: Some(0), ..keeping };
    assert_eq!(keeper.client.lease().await.unwrap(), over, "it is over, and says what it keeps");
    // Nothing begins after it, until it is set again.
    keeper.prepare("e", 1).await;
    let early = keeper.client.start(keeper.start("e", 1, &["sleep", "600"])).await;
    assert!(matches!(early, Err(KeeperError::Refused(Refusal::LeaseOver))), "{early:?}");
    keeper.client.set_lease(lease(Some(600_000))).await.unwrap();
    keeper.run("e", &["sleep", "600"]).await;
    assert_eq!(keeper.client.stop("e", 1, TERM).await.unwrap().status, ExitStatus::Signal(15));
    assert_eq!(keeper.client.stop("d", 1, TERM).await.unwrap().status, ExitStatus::Signal(15));
}

async fn a_guard() {
    let keeper = Keeper::new().await;
    assert!(keeper.client.welcome().guards);
    let file = keeper.path("guarded");
    let guard = ["guard", file.to_str().unwrap()].map(str::to_owned).to_vec();
    let lease = |ttl_ms| SetLease { ttl_ms: Some(ttl_ms), policy: TERM, guard: guard.clone(), ..SetLease::default() };
    keeper.client.set_lease(lease(600_000)).await.unwrap();
    assert!(!file.exists(), "it is not run before");
    keeper.client.set_lease(lease(1)).await.unwrap();
    let runs = until(|| std::fs::read_to_string(&file).ok().filter(|text| text.lines().count() == 3)).await;
    // Whatever can be asked to end was asked by the first one.
    assert_eq!(runs, format!("{}\n0\n0\n", TERM.grace_ms));
}

async fn a_renewed_lease() {
    let keeper = Keeper::new().await;
    let file = keeper.path("guarded");
    let guard = ["guard-that-hangs", file.to_str().unwrap()].map(str::to_owned).to_vec();
    let lease = |ttl_ms| SetLease { ttl_ms: Some(ttl_ms), policy: TERM, guard: guard.clone(), ..SetLease::default() };
    keeper.client.set_lease(lease(1)).await.unwrap();
    let pid: u32 = keeper.read_when_written("guarded").await.trim().parse().unwrap();
    assert!(lives(pid));
    keeper.client.set_lease(lease(600_000)).await.unwrap();
    until(|| (!lives(pid)).then_some(())).await;
}
