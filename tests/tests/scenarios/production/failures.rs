//! Updates that fail: they go back by themselves, once, and what served goes on serving.

use super::{Site, UPDATE, rounds};

/// Applies a version that does not work, round after round the same one, and waits until it has gone back.
fn fails(env: &'static str, update: &'static str, says: &'static str) {
    rounds(
        2,
        |site| _ = site.next("", UPDATE),
        |site, _| {
            let before = site.ids();
            let revision = site.home.look("web").unwrap()["revision"].clone();
            site.apply("broken", env, update);
            site.middle();
            site.ends("rolled-back");
            went_back(site, says);
            assert_eq!(site.home.look("web").unwrap()["revision"], revision);
            site.answers("v1");
            assert!(!before.is_disjoint(&site.ids()), "what served was replaced altogether");
        },
    );
}

/// It says of itself that a failure brought it back, and which.
fn went_back(site: &Site, says: &str) {
    let unit = site.home.look("web").unwrap();
    assert_eq!(unit["rollout"]["failed"], true, "{unit}");
    let why = site.home.why("web");
    assert!(why.iter().any(|because| because.contains(says)), "nothing says {says:?}: {why:#?}");
}

#[test]
fn an_update_that_exits_at_once_goes_back_and_loses_no_request() {
    fails(", EXIT = \"3\"", UPDATE, "exited with code 3");
}

#[test]
fn an_update_that_is_never_ready_goes_back_and_loses_no_request() {
    const SHORT: &str = "update = { surge = 1, monitor = \"300ms\", progress = \"1s\" }";
    fails(", DEAF = \"1\"", SHORT, "not ready within 1s");
}

#[test]
fn an_update_that_dies_in_the_monitor_window_goes_back_and_loses_no_request() {
    // Far beyond the 200 ms: a machine that stands still for some seconds has watched nothing, but its clock went on.
    const LONG: &str = "update = { surge = 1, monitor = \"10s\", progress = \"20s\" }";
    // In the middle of some answers, too.
    fails(", DIES_AFTER = \"200\", SLOW_ANSWER = \"40\"", LONG, "exited with code 9");
}
