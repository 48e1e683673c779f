//! Rollouts that somebody steers, and what Managers remember of them.

use std::collections::BTreeSet;

use cocktail_tests::{Home, Manager, http};
use serde_json::{Value, json};

use crate::site;

struct Stage {
    home: Home,
    manager: Option<Manager>,
    port: u16,
    replicas: u32,
}

impl Stage {
    /// Version `v1` serves.
    fn new(replicas: u32) -> Self {
        let home = Home::new();
        let port = home.port();
        let stage = Self { manager: Some(home.serve()), home, port, replicas };
        stage.apply("v1", "", "");
        stage.home.settled("web", replicas as usize);
        stage
    }

    fn apply(&self, version: &str, env: &str, update: &str) {
        let keys =
            format!("replicas = {}\nupdate = {{ monitor = \"300ms\", progress = \"20s\"{update} }}", self.replicas);
        self.home.write("web.toml", format!("service = \"shop\"\n{}", site(self.port, version, env, &keys)));
        self.home.ok(&["apply", "web.toml"]);
    }

    /// Another Manager after the death of this one.
    fn again(&mut self) {
        self.manager.take().unwrap().kill();
        self.manager = Some(self.home.serve());
    }

    fn rollout(&self) -> Value {
        self.home.json(&["rollout", "status", "web"])
    }

    #[track_caller]
    fn ends(&self, state: &str) {
        self.home.eventually(&format!("it is {state}"), || self.rollout()["state"] == state);
        self.home.settled("web", self.replicas as usize);
    }

    /// How many containers there are of each revision, drained ones left out.
    fn revisions(&self) -> Vec<u64> {
        let live = self.home.containers("web").into_iter().filter(|one| one["ready"] == true);
        let mut all: Vec<u64> = live.filter_map(|one| one["revision"].as_u64()).collect();
        all.sort_unstable();
        all
    }

    /// Waits until exactly these are there, and sees that nothing is still on its way.
    #[track_caller]
    fn rests(&self, revisions: &[u64]) {
        self.home.eventually(&format!("these revisions are there: {revisions:?}"), || {
            self.revisions() == revisions && self.home.containers("web").len() == revisions.len()
        });
    }

    #[track_caller]
    fn answers(&self, version: &str) {
        assert_eq!(http::get(self.port, "/").unwrap().body.split(' ').next(), Some(version));
    }
}

#[test]
fn a_paused_rollout_stays_paused_under_every_manager_until_it_is_resumed() {
    let mut stage = Stage::new(3);
    stage.apply("v2", ", SLOW_START = \"300\"", "");
    stage.home.eventually("one is replaced", || stage.revisions().contains(&2));
    let paused = stage.home.json(&["rollout", "pause", "web"]);
    assert_eq!(paused["state"], "paused", "{paused}");
    let rests = stage.home.until("nothing moves", || {
        let (all, ready) = (stage.home.containers("web"), stage.revisions());
        (all.len() == 3 && ready.len() == 3).then_some(ready)
    });
    assert!(rests.contains(&1) && rests.contains(&2), "{rests:?}");
    let seq = stage.home.seq();
    for _ in 0..2 {
        stage.again();
        assert_eq!((stage.rollout()["state"].clone(), stage.revisions()), (json!("paused"), rests.clone()));
    }
    // A start of a Manager is all that happened since.
    let events = stage.home.run(&["-o", "json", "events"]).json_lines();
    let since: BTreeSet<_> = events
        .iter()
        .filter(|event| event["seq"].as_u64() > Some(seq))
        .map(|event| event["kind"].as_str().unwrap().to_owned())
        .collect();
    assert!(since.is_subset(&BTreeSet::from(["manager-started".to_owned(), "server-seen".to_owned()])), "{since:?}");
    // Twice is once; and the count still holds.
    stage.home.ok(&["rollout", "pause", "web"]);
    stage.home.ok(&["rollout", "resume", "web"]);
    stage.ends("completed");
    stage.answers("v2");
    let said = stage.home.run(&["rollout", "pause", "web"]).fails(4);
    assert!(said.contains("no rollout to pause"), "{said}");
    stage.home.finish();
}

#[test]
fn a_canary_stays_a_canary_under_every_manager_until_it_is_promoted() {
    let mut stage = Stage::new(3);
    stage.apply("v2", "", ", canary = 1");
    stage.home.eventually("it waits for its promotion", || stage.rollout()["asks_promotion"] == true);
    stage.rests(&[1, 1, 2]);
    for _ in 0..2 {
        stage.again();
        assert_eq!(stage.rollout()["asks_promotion"], true);
        assert_eq!(stage.revisions(), [1, 1, 2]);
    }
    // More while it waits are of what serves.
    stage.home.ok(&["scale", "web", "4", "--wait"]);
    stage.rests(&[1, 1, 1, 2]);
    stage.home.ok(&["scale", "web", "3", "--wait"]);
    stage.home.ok(&["rollout", "promote", "web"]);
    stage.again();
    stage.ends("completed");
    stage.rests(&[2, 2, 2]);
    stage.home.finish();
}

#[test]
fn a_canary_is_promoted_by_itself_after_its_time() {
    let stage = Stage::new(2);
    stage.apply("v2", "", ", canary = 1, promote = \"500ms\"");
    stage.ends("completed");
    let events = stage.home.run(&["-o", "json", "events", "web"]).json_lines();
    let kinds: Vec<_> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    let at = |kind: &str| kinds.iter().position(|one| *one == kind).unwrap_or_else(|| panic!("no {kind}: {kinds:?}"));
    assert!(at("canary-proved") < at("promoted") && at("promoted") < at("rollout-finished"), "{kinds:?}");
    stage.home.finish();
}

#[test]
fn a_failed_canary_goes_back_and_was_never_more_than_one() {
    let stage = Stage::new(3);
    stage.apply("v2", ", DIES_AFTER = \"100\"", ", canary = 1");
    stage.ends("rolled-back");
    let made = stage.home.run(&["-o", "json", "events"]).json_lines();
    let of_two = made.iter().filter(|event| event["kind"] == "claimed" && event["detail"]["revision"] == 2).count();
    assert_eq!(of_two, 1);
    stage.answers("v1");
    stage.home.finish();
}

#[test]
fn on_failure_pause_asks_and_keeps_what_serves_and_the_same_file_is_a_new_attempt() {
    let mut stage = Stage::new(2);
    let old = stage.home.settled("web", 2);
    stage.apply("v2", ", EXIT = \"3\"", ", on_failure = \"pause\"");
    stage.home.eventually("it is paused", || stage.rollout()["state"] == "paused");
    let rollout = stage.rollout();
    assert!(rollout["failed"] == true && rollout["reason"].as_str().unwrap().contains("code 3"), "{rollout}");
    stage.again();
    assert_eq!(stage.rollout()["state"], "paused");
    let pids = stage.home.pids("web");
    assert!(old.iter().all(|(id, pid)| pids.get(id) == Some(pid)), "{old:?} became {pids:?}");
    stage.home.ok(&["rollout", "abort", "web"]);
    stage.ends("rolled-back");
    // The same file once more.
    stage.apply("v2", ", EXIT = \"3\"", ", on_failure = \"pause\"");
    stage.home.eventually("it is paused again", || stage.rollout()["state"] == "paused");
    // And one that works.
    stage.apply("v3", "", "");
    stage.ends("completed");
    stage.answers("v3");
    stage.home.finish();
}

#[test]
fn a_newer_file_takes_over_from_an_update_in_progress() {
    let mut stage = Stage::new(3);
    stage.apply("v2", ", SLOW_START = \"500\"", "");
    stage.home.eventually("one is on its way", || stage.home.unit("web").unwrap()["updated"].as_u64() > Some(0));
    stage.apply("v3", "", "");
    stage.again();
    stage.ends("completed");
    stage.rests(&[3, 3, 3]);
    stage.answers("v3");
    let revisions = stage.home.json(&["inspect", "web"])["revisions"].clone();
    let outcome = |number: u64| {
        let all = revisions.as_array().unwrap().iter();
        all.filter(|one| one["revision"] == number).map(|one| one["outcome"].as_str().unwrap()).next().unwrap()
    };
    assert!(outcome(2).starts_with("superseded") && outcome(3) == "completed", "{revisions}");
    // Back goes to what served, not to what never did.
    stage.home.ok(&["rollback", "web", "--wait"]);
    stage.answers("v1");
    stage.home.finish();
}
