//! Planned changes under load: no request fails, and never are fewer containers ready than the floor allows.
//!
//! Start at [`rounds`]: a Unit behind a service port, 300 requests a second on it, half over kept connections, and a
//! change that is repeated, first as it is, then with the Manager killed in the middle of it and another one that has to
//! finish it. `COCKTAIL_ROUNDS` says how often each (20 is what is promised), `COCKTAIL_SEED` when Managers are killed.

mod failures;
mod python;
mod steps;
mod updates;

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cocktail_tests::journal::Journal;
use cocktail_tests::{Home, Load, Manager, http};
use serde_json::Value;

use crate::crash::{Dice, number};

/// Rounds of each kind, unless told otherwise.
const ROUNDS: u64 = 2;

/// Longest time between a command and the end of the Manager, in milliseconds.
const MIDDLE: u64 = 700;

/// The Unit.
const UNIT: &str = "shop/prod/web";

/// How replacements are watched: shortly, so that a round is short; and with time enough to come up on a busy machine.
const UPDATE: &str = "update = { surge = 1, monitor = \"300ms\", progress = \"20s\" }";

/// A Unit under load.
struct Site {
    home: Home,
    manager: Option<Manager>,
    load: Option<Load>,
    port: u16,
    /// Containers that are ready at least.
    floor: usize,
    /// The turn from which on that is so.
    from: u64,
    /// Whether Managers are killed.
    kills: bool,
    dice: Dice,
    /// Versions that were applied.
    version: u32,
}

/// Runs a change under load as often as is asked for, as it is and with killed Managers. `first` is what runs before.
#[expect(clippy::print_stdout, reason = "what a failure is repeated with is shown with it")]
fn rounds(floor: usize, first: impl Fn(&mut Site), mut change: impl FnMut(&mut Site, u64)) {
    let rounds = number("COCKTAIL_ROUNDS").unwrap_or(ROUNDS);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("COCKTAIL_SEED").unwrap_or(now.as_secs());
    println!("COCKTAIL_SEED={seed} COCKTAIL_ROUNDS={rounds}");
    let mut site = Site::new(floor, seed);
    first(&mut site);
    site.under_load();
    for kills in [false, true] {
        site.kills = kills;
        for round in 0..rounds {
            change(&mut site, round);
            let failed = site.load.as_ref().unwrap().failed();
            assert_eq!(failed, 0, "in round {round}, kills: {kills}: {}", site.said());
        }
    }
    site.finish();
}

impl Site {
    fn new(floor: usize, seed: u64) -> Self {
        let home = Home::new();
        let port = home.port();
        let mut site = Self {
            home,
            manager: None,
            load: None,
            port,
            floor,
            from: 0,
            kills: false,
            dice: Dice::new(seed),
            version: 0,
        };
        site.serve();
        site
    }

    fn serve(&mut self) {
        let settings = format!("{}budget_deletions = 10000\nusage = \"500ms\"\n", self.home.settings());
        self.manager = Some(self.home.serve_with(&settings));
    }

    /// Begins to ask, once the Unit is as it shall be.
    fn under_load(&mut self) {
        self.home.settled("web", self.floor);
        self.from = self.home.seq();
        let load = Load::start(self.port);
        self.home.eventually("the load is at work", || load.answered() > 60 || load.failed() > 0);
        self.load = Some(load);
    }

    /// The next version, whose worker has these further variables.
    fn next(&mut self, env: &str, more: &str) -> String {
        self.version += 1;
        self.apply(&format!("v{}", self.version), env, more)
    }

    /// Applies a version without waiting for it.
    fn apply(&self, version: &str, env: &str, more: &str) -> String {
        let replicas = format!("replicas = {}\n{more}", self.floor);
        self.home.write("web.toml", format!("service = \"shop\"\n{}", crate::site(self.port, version, env, &replicas)));
        self.home.ok(&["apply", "web.toml"]);
        version.to_owned()
    }

    /// Kills the Manager somewhere in the middle of what was just begun, if this is a round for that.
    fn middle(&mut self) {
        if self.kills {
            // When it is killed is what such a round is about.
            thread::sleep(Duration::from_millis(self.dice.throw(MIDDLE)));
            self.manager.take().unwrap().kill();
            self.serve();
        }
    }

    /// Waits until the Unit is as it shall be, and looks at the floor meanwhile.
    #[track_caller]
    fn until(&self, what: &str, mut is_so: impl FnMut(&Value) -> bool) {
        self.home.eventually(what, || {
            let Some(unit) = self.home.look("web") else { return false };
            let ready = unit["ready"].as_u64().unwrap_or_default();
            assert!(ready >= self.floor as u64, "only {ready} are ready: {unit}\n{}", self.said());
            assert_eq!(self.load.as_ref().unwrap().failed(), 0, "{}", self.said());
            is_so(&unit)
        });
    }

    /// Waits until the rollout has come to a state in which nothing moves any more.
    #[track_caller]
    fn ends(&self, state: &str) {
        self.until(&format!("the rollout is {state} and nothing moves"), |unit| {
            let all = self.home.look_at_containers("web").unwrap_or_default();
            unit["rollout"]["state"] == state
                && all.len() as u64 == unit["desired"].as_u64().unwrap_or_default()
                && all.iter().all(|one| one["ready"] == true && one["revision"] == unit["revision"])
        });
    }

    /// Which version answers. It must be one only.
    #[track_caller]
    fn answers(&self, version: &str) {
        for _ in 0..6 {
            let answer = http::get(self.port, "/").unwrap();
            assert_eq!(answer.body.split(' ').next(), Some(version), "{}", self.home.report());
        }
    }

    /// Ids of the containers.
    fn ids(&self) -> BTreeSet<String> {
        let all = self.home.look_at_containers("web").unwrap_or_default();
        all.iter().filter_map(|one| Some(one["id"].as_str()?.to_owned())).collect()
    }

    /// What the load met, and all that the Manager can tell.
    fn said(&self) -> String {
        let load = self.load.as_ref().map(|load| load.so_far().to_string()).unwrap_or_default();
        format!("{load}\n{}", self.home.report())
    }

    #[expect(clippy::print_stdout, reason = "how much was asked is worth a look")]
    fn finish(mut self) {
        let load = self.load.take().unwrap();
        self.home.eventually("both kinds of connections were asked over", || {
            let report = load.so_far();
            report.failed > 0 || (report.kept > 50 && report.new > 50)
        });
        let report = load.stop();
        assert_eq!(report.failed, 0, "{report}\n{}", self.home.report());
        println!("{report}");
        Journal::read(&self.home).never_below(UNIT, self.floor, self.from);
        self.home.finish();
    }
}

#[test]
fn a_floor_that_is_too_high_and_a_port_that_nobody_serves_are_noticed() {
    let mut site = Site::new(2, 1);
    site.next("", UPDATE);
    site.under_load();
    let from = site.from;
    let journal = Journal::read(&site.home);
    let below = std::panic::catch_unwind(|| journal.never_below(UNIT, 3, 0));
    assert!(below.is_err(), "one is ready before the second");
    journal.never_below(UNIT, 2, from);
    // The program is stopped under the load: that must not pass for well.
    site.home.ok(&["rm", "web", "--wait"]);
    let load = site.load.take().unwrap();
    site.home.eventually("requests fail", || load.failed() > 0);
    assert!(load.stop().failures[0].to_string().contains("connection"));
    site.home.finish();
}
