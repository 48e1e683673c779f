//! Counts that follow the load, the clock and what workers say; from nothing and to nothing.

use std::thread;
use std::time::Duration;

use cocktail_tests::{Home, Load, Manager, Shape, http};
use serde_json::Value;

use crate::site;

/// A Home that looks at the load often.
fn watchful() -> (Home, Manager, u16) {
    let home = Home::new();
    let manager = home.serve_with(&format!("{}usage = \"100ms\"\n", home.settings()));
    let port = home.port();
    (home, manager, port)
}

fn apply(home: &Home, unit: &str) {
    home.write("m.toml", format!("service = \"shop\"\n{unit}"));
    home.ok(&["apply", "m.toml"]);
}

#[track_caller]
fn desired(home: &Home, count: u64) {
    home.eventually(&format!("{count} are wanted and ready"), || {
        home.look("web").is_some_and(|unit| unit["desired"] == count && unit["ready"] == count)
    });
}

#[test]
fn from_nothing_the_first_connection_is_held_and_answered_and_it_goes_back_to_nothing() {
    let (home, manager, port) = watchful();
    let scale = "scale = { min = 0, max = 2, in_flight = 10, down = { stabilize = \"500ms\" } }";
    apply(&home, &site(port, "one", ", SLOW_START = \"400\"", scale));
    desired(&home, 0);
    assert_eq!(home.workers(), []);
    for round in 0..2 {
        // Several come at once: none is refused, none waits for another.
        let ask = || thread::spawn(move || http::get(port, "/"));
        for answer in [ask(), ask(), ask(), ask(), ask()] {
            let answer = answer.join().unwrap().unwrap();
            assert!(answer.status == 200 && answer.body.starts_with("one "), "in round {round}: {answer:?}");
        }
        let why = home.why("web");
        assert!(why.iter().any(|because| because.contains("client waits at its service port")), "{why:#?}");
        desired(&home, 0);
        home.eventually("nothing of it is left", || home.workers().is_empty());
    }
    // Another Manager knows, too.
    manager.kill();
    let _manager = home.serve();
    assert_eq!(http::get(port, "/").unwrap().status, 200);
    home.finish();
}

#[test]
fn a_load_brings_more_and_its_end_fewer_and_no_request_fails() {
    let (home, _manager, port) = watchful();
    // 300 a second of 30 ms each are nine at a time.
    let scale = "scale = { min = 1, max = 6, in_flight = 3, down = { stabilize = \"1s\", step = 2 } }";
    apply(&home, &site(port, "one", "", scale));
    desired(&home, 1);
    let load = Load::of(port, Shape::default().path("/slow?30"));
    home.eventually("there are three at least", || {
        home.look("web").is_some_and(|unit| unit["ready"].as_u64() >= Some(3))
    });
    let begin = load.answered();
    home.eventually("they have worked", || load.answered() > begin + 100);
    let why = home.json(&["why", "web"]);
    let scaled: Vec<&Value> = why.as_array().unwrap().iter().filter(|one| one["decision"] == "scale").collect();
    assert!(scaled.iter().all(|one| one["because"].as_str().unwrap().contains("in_flight")), "{scaled:?}");
    // Down again under a tenth of the load: those that go must finish.
    let little = Load::of(port, Shape { kept_rate: 15, kept: 2, new_rate: 15, ..Shape::default() });
    load.stop_after(100);
    desired(&home, 1);
    little.stop_after(10);
    home.finish();
}

#[test]
fn a_metric_of_the_workers_own_decides_scraped_or_in_the_answer_to_a_probe() {
    let (home, _manager, port) = watchful();
    let down = "down = { stabilize = \"300ms\" }";
    for (ready, scale) in [
        ("/ready", format!("custom = {{ jobs_waiting = 10 }}, metrics = {{ http = \"/metrics\" }}, {down}")),
        ("/numbers", format!("queue = 10, {down}")),
    ] {
        let unit = site(port, "one", "", &format!("scale = {{ min = 1, max = 4, {scale} }}"));
        apply(&home, &unit.replace("http = \"/ready\"", &format!("http = \"{ready}\"")));
        home.settled("web", 1);
        let name = if ready == "/numbers" { "queue" } else { "jobs_waiting" };
        let set = |count: u32| {
            // Each has its share, whoever is there by now.
            for one in home.containers("web").iter().filter(|one| one["ready"] == true) {
                let port = u16::try_from(one["ports"][0]["port"].as_u64().unwrap()).unwrap();
                http::get(port, &format!("/set?{name}={count}")).ok();
            }
        };
        set(25);
        home.eventually("three share it", || home.look("web").is_some_and(|unit| unit["desired"].as_u64() >= Some(3)));
        let why = home.why("web");
        assert!(why.iter().any(|because| because.contains(&format!("{name} is 25"))), "{why:#?}");
        home.eventually("one is left when there is nothing to do", || {
            set(0);
            home.look("web").is_some_and(|unit| unit["desired"] == 1 && unit["ready"] == 1)
        });
    }
    home.finish();
}

#[test]
fn of_a_schedule_what_began_last_is_in_force_from_the_start() {
    let (home, manager, port) = watchful();
    // Every minute something begins, and once a year something else did.
    let schedule = "schedule = [{ cron = \"* * * * *\", min = 3 }, { cron = \"0 0 1 1 *\", min = 1, max = 1 }]";
    apply(&home, &site(port, "one", "", &format!("scale = {{ min = 0, max = 5, {schedule} }}")));
    desired(&home, 3);
    let unit = home.unit("web").unwrap();
    assert_eq!(unit["limits"], serde_json::json!([3, 5]), "{unit}");
    let why = home.why("web");
    assert!(why.iter().any(|because| because.contains("scheduled")), "{why:#?}");
    // What is in force stays so under another Manager.
    let pids = home.settled("web", 3);
    manager.kill();
    let manager = home.serve();
    assert_eq!(home.settled("web", 3), pids);
    // Without a schedule the bounds are those of the file.
    apply(&home, &site(port, "one", "", "scale = { min = 0, max = 5, rps = 1000, down = { stabilize = \"0s\" } }"));
    home.eventually("the bounds are the file's", || home.unit("web").unwrap()["limits"] == serde_json::json!([0, 5]));
    home.finish();
    drop(manager);
}

#[test]
fn a_worker_that_comes_up_slowly_holds_the_first_request_no_longer_than_it_needs() {
    let (home, _manager, port) = watchful();
    let scale = "scale = { min = 0, max = 1, in_flight = 10, down = { stabilize = \"300ms\" } }";
    // Longer than a connection is held by default would be refused; this is well within.
    apply(&home, &site(port, "one", ", SLOW_START = \"1500\"", scale));
    desired(&home, 0);
    let load = Load::of(port, Shape::only_new(20));
    home.eventually("it is awake", || load.answered() > 40);
    let report = load.stop_after(40);
    assert!(report.slowest > Duration::from_millis(1400), "nothing was held: {report}");
    home.finish();
}
