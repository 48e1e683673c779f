//! Units whose containers run to completion: how many, how often, how long, and never again.

use std::fs;
use std::path::PathBuf;

use cocktail_tests::Home;
use serde_json::{Value, json};

/// A job that runs a script in the Home's root; `keys` say how.
fn job(script: &str, keys: &str) -> String {
    format!("service = \"shop\"\n[maps.batch.units.work]\ncommand = [\"sh\", \"-c\", '''{script}''']\n{keys}\n")
}

/// Writes down each run in the file `ran`.
const RAN: &str = "echo \"$COCKTAIL_CONTAINER\" >> ran";

fn ran(home: &Home) -> usize {
    fs::read_to_string(home.root().join("ran")).unwrap_or_default().lines().count()
}

/// What the Unit says of its containers that are done: succeeded, failed.
fn outcome(home: &Home) -> (u64, u64) {
    let unit = home.unit("work").unwrap();
    assert_eq!(unit["job"], true, "{unit}");
    (unit["succeeded"].as_u64().unwrap(), unit["failed"].as_u64().unwrap())
}

fn states(home: &Home) -> Vec<(Value, String)> {
    let of = |one: &Value| (one["state"].clone(), one["reason"].as_str().unwrap().to_owned());
    home.containers("work").iter().map(of).collect()
}

#[test]
fn a_job_runs_as_often_as_it_is_asked_for_and_never_again() {
    let home = Home::new();
    let manager = home.serve();
    home.write("job.toml", job(RAN, "replicas = 3\nrestart = { when = \"never\" }"));
    home.ok(&["apply", "--wait", "job.toml"]);
    home.eventually("three are done", || outcome(&home) == (3, 0));
    for (state, reason) in states(&home) {
        assert!(state == "stopped" && reason.contains("completed"), "{state}: {reason}");
    }
    let (ids, seq) = (home.containers("work"), home.seq());
    // Neither the same file, nor another Manager, nor any time makes it run again.
    home.ok(&["apply", "--wait", "job.toml"]);
    assert_eq!(home.seq(), seq);
    manager.kill();
    let _manager = home.serve();
    home.ok(&["apply", "--wait", "job.toml"]);
    assert_eq!(outcome(&home), (3, 0));
    assert_eq!(home.containers("work"), ids);
    assert_eq!(ran(&home), 3);
    // Another job under the same name does.
    home.write("job.toml", job(&format!("{RAN}; echo again"), "replicas = 2\nrestart = { when = \"never\" }"));
    home.ok(&["apply", "--wait", "job.toml"]);
    home.eventually("two more have run", || ran(&home) == 5 && outcome(&home) == (2, 0));
    home.finish();
}

#[test]
fn a_job_that_fails_is_tried_again_as_often_as_its_limit_says() {
    let home = Home::new();
    let _manager = home.serve();
    // The third attempt goes well.
    let third = format!("{RAN}; test $(wc -l < ran) -ge 3");
    let keys = "restart = { when = \"failure\", retries = 5, base = \"50ms\", max = \"100ms\" }";
    home.write("job.toml", job(&third, keys));
    home.ok(&["apply", "--wait", "job.toml"]);
    home.eventually("it has succeeded", || outcome(&home) == (1, 0));
    assert_eq!((ran(&home), home.containers("work")[0]["restarts"].as_u64()), (3, Some(2)));

    // No attempt does.
    fs::remove_file(home.root().join("ran")).unwrap();
    home.write("job.toml", job(&format!("{RAN}; exit 7"), &keys.replace('5', "2")));
    home.ok(&["apply", "job.toml"]);
    home.eventually("it has failed", || outcome(&home) == (0, 1));
    let (state, reason) = states(&home).remove(0);
    assert!(state == "failed" && reason.contains("code 7"), "{state}: {reason}");
    assert_eq!(ran(&home), 3, "one attempt and two more");
    assert!(home.why("work").iter().any(|because| because.contains("code 7")), "{:#?}", home.why("work"));

    // One attempt is all that was asked for.
    fs::remove_file(home.root().join("ran")).unwrap();
    home.write("job.toml", job(&format!("{RAN}; exit 8"), "restart = { when = \"never\" }"));
    home.ok(&["apply", "job.toml"]);
    home.eventually("it has failed", || outcome(&home) == (0, 1) && ran(&home) == 1);
    home.finish();
}

#[test]
fn a_job_that_takes_longer_than_its_deadline_is_ended_and_has_failed() {
    let home = Home::new();
    let _manager = home.serve();
    let keys = "restart = { when = \"failure\", retries = 5, deadline = \"600ms\" }\nstop = { grace = \"300ms\" }";
    home.write("job.toml", job(&format!("{RAN}; exec sleep 1000"), keys));
    home.ok(&["apply", "job.toml"]);
    home.eventually("it has failed", || outcome(&home) == (0, 1));
    let (state, reason) = states(&home).remove(0);
    assert!(state == "failed" && reason.contains("600ms"), "{state}: {reason}");
    assert_eq!((ran(&home), home.workers()), (1, vec![]), "it is neither left nor tried again");
    home.finish();
}

#[test]
fn a_job_that_ends_while_no_manager_runs_has_run_once() {
    let home = Home::new();
    let manager = home.serve();
    let wait: PathBuf = home.root().join("go");
    let script = format!("until test -e go; do sleep 0.02; done; {RAN}");
    home.write("job.toml", job(&script, "replicas = 2\nrestart = { when = \"failure\" }"));
    home.ok(&["apply", "--wait", "job.toml"]);
    let two = home.containers("work");
    assert!(
        two.len() == 2 && two.iter().all(|one| one["ready"] == true),
        "running is what there is to wait for: {two:?}"
    );
    manager.kill();
    fs::write(wait, "").unwrap();
    home.eventually("both have ended", || ran(&home) == 2 && home.workers().is_empty());
    let _manager = home.serve();
    home.eventually("it is known", || outcome(&home) == (2, 0));
    assert_eq!(ran(&home), 2);
    let starts = home.run(&["-o", "json", "events"]).json_lines();
    assert_eq!(starts.iter().filter(|event| event["kind"] == json!("started")).count(), 2);
    home.finish();
}

#[test]
fn a_job_that_a_killed_manager_began_is_watched_by_the_next_one() {
    let home = Home::new();
    let manager = home.serve();
    // It fails once, under another Manager than the one that started it.
    let script = format!("until test -e go; do sleep 0.02; done; {RAN}; test $(wc -l < ran) -ge 2");
    let keys = "restart = { when = \"failure\", retries = 3, base = \"50ms\", max = \"100ms\" }";
    home.write("job.toml", job(&script, keys));
    home.ok(&["apply", "--wait", "job.toml"]);
    manager.kill();
    let _manager = home.serve();
    assert_eq!(outcome(&home), (0, 0));
    fs::write(home.root().join("go"), "").unwrap();
    home.eventually("the second attempt has succeeded", || outcome(&home) == (1, 0));
    assert_eq!(ran(&home), 2);
    home.finish();
}
