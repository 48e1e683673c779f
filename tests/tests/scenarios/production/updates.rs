//! Updates that go well, those with a canary, and the way back that somebody asked for.

use super::{UPDATE, rounds};

#[test]
fn an_update_loses_no_request() {
    rounds(
        2,
        |site| _ = site.next("", UPDATE),
        |site, _| {
            let before = site.ids();
            let version = site.next("", UPDATE);
            site.middle();
            site.ends("completed");
            site.answers(&version);
            assert!(site.ids().is_disjoint(&before), "a container of the old version is left");
        },
    );
}

#[test]
fn an_update_of_workers_that_start_and_answer_slowly_loses_no_request() {
    let slow = ", SLOW_START = \"300\", SLOW_ANSWER = \"100\"";
    rounds(
        2,
        |site| _ = site.next(slow, UPDATE),
        |site, _| {
            let version = site.next(slow, UPDATE);
            site.middle();
            site.ends("completed");
            site.answers(&version);
        },
    );
}

#[test]
fn a_way_back_that_somebody_asks_for_loses_no_request() {
    rounds(
        2,
        |site| _ = site.next("", UPDATE),
        |site, round| {
            // From the middle of an update, and from its end.
            let old = format!("v{}", site.version);
            let revision = site.home.look("web").unwrap()["revision"].clone();
            site.apply("unwanted", "", UPDATE);
            if round % 2 == 0 {
                site.until("one is replaced", |unit| unit["updated"] == 1);
            } else {
                site.ends("completed");
                site.answers("unwanted");
            }
            site.home.ok(&["rollback", "web"]);
            site.middle();
            site.ends("rolled-back");
            assert_eq!(site.home.look("web").unwrap()["revision"], revision);
            site.answers(&old);
        },
    );
}

const CANARY: &str = "update = { surge = 1, monitor = \"300ms\", progress = \"20s\", canary = 1 }";

#[test]
fn a_canary_that_is_promoted_loses_no_request() {
    rounds(
        3,
        |site| _ = site.next("", CANARY),
        |site, _| {
            let version = site.next("", CANARY);
            site.middle();
            site.until("the canary waits for its promotion", |unit| unit["rollout"]["asks_promotion"] == true);
            let unit = site.home.look("web").unwrap();
            assert_eq!((&unit["updated"], &unit["rollout"]["state"]), (&1.into(), &"running".into()), "{unit}");
            site.home.ok(&["rollout", "promote", "web"]);
            site.middle();
            site.ends("completed");
            site.answers(&version);
        },
    );
}

#[test]
fn a_canary_that_is_given_up_loses_no_request() {
    rounds(
        3,
        |site| _ = site.next("", CANARY),
        |site, round| {
            let old = format!("v{}", site.version);
            site.apply("bird", "", CANARY);
            // While it proves itself, and once it has.
            if round % 2 == 0 {
                site.until("the canary waits for its promotion", |unit| unit["rollout"]["asks_promotion"] == true);
            } else {
                site.until("the canary is there", |unit| unit["updated"] == 1);
            }
            site.home.ok(&["rollout", "abort", "web"]);
            site.middle();
            site.ends("rolled-back");
            site.answers(&old);
        },
    );
}
