//! Workers that wait with nothing loaded: taken at once, filled up, and used again.

use std::collections::{BTreeMap, BTreeSet};

use cocktail_tests::{Home, Load, Shape, http};

const WORKER: &str = env!("CARGO_BIN_EXE_sdk-worker");

fn unit(name: &str, greeting: &str, more: &str) -> String {
    format!(
        "[maps.prod.units.{name}]\nworker = \"{WORKER}\"\nmicroservices = [\"orders\"]\n\
         config.orders = {{ greeting = \"{greeting}\" }}\nupdate = {{ monitor = \"300ms\" }}\n{more}\n"
    )
}

fn manifest(units: &[String]) -> String {
    format!("service = \"shop\"\n{}", units.concat())
}

/// Process ids of a Unit's containers in one state, by container.
fn pids(home: &Home, unit: &str, state: &str) -> BTreeMap<String, u64> {
    let all = home.look_at_containers(unit).unwrap_or_default();
    let of = |it: &serde_json::Value| Some((it["id"].as_str()?.to_owned(), it["pid"].as_u64()?));
    all.iter().filter(|it| it["state"] == state).filter_map(of).collect()
}

/// Waits until a Unit has so many that serve and so many that wait, and no others.
fn rest(home: &Home, unit: &str, serving: usize, waiting: usize) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
    home.eventually(&format!("{serving} of {unit} serve and {waiting} wait"), || {
        let all = home.look_at_containers(unit).unwrap_or_default().len();
        let (ready, waits) = (pids(home, unit, "ready").len(), pids(home, unit, "waiting").len());
        (ready, waits, all) == (serving, waiting, serving + waiting)
    });
    (pids(home, unit, "ready"), pids(home, unit, "waiting"))
}

fn numbers(pids: &BTreeMap<String, u64>) -> BTreeSet<u64> {
    pids.values().copied().collect()
}

#[test]
fn what_waits_is_taken_first_and_filled_up_and_its_manager_may_die() {
    let home = Home::new();
    let manager = home.serve();
    let port = home.port();
    let orders = |count: u32| {
        unit("orders", "hi", &format!("replicas = {count}\nwarm = 2\nports.http = {{ service = {port} }}"))
    };
    home.write("m.toml", manifest(&[orders(1)]));
    home.ok(&["apply", "--wait", "m.toml"]);
    let (serving, waiting) = rest(&home, "orders", 1, 2);
    manager.kill();
    let _manager = home.serve();
    assert_eq!(rest(&home, "orders", 1, 2), (serving.clone(), waiting.clone()), "none was touched");
    home.ok(&["scale", "orders", "3"]);
    let (now, fresh) = rest(&home, "orders", 3, 2);
    let expected: BTreeSet<u64> = numbers(&serving).union(&numbers(&waiting)).copied().collect();
    assert_eq!(numbers(&now), expected, "those that waited serve now");
    assert!(numbers(&fresh).is_disjoint(&expected), "others wait in their place");
    let taken = waiting.keys().next().unwrap();
    assert!(home.why(taken).iter().any(|line| line.contains("it was waiting")), "{:?}", home.why(taken));
    let answered: BTreeSet<String> = (0..30).map(|_| http::get(port, "/").unwrap().body).collect();
    assert_eq!(answered.len(), 3, "all of them answer: {answered:?}");
    home.finish();
}

#[test]
fn who_is_not_needed_any_more_waits_again_where_too_few_do() {
    let home = Home::new();
    let _manager = home.serve();
    let port = home.port();
    let text = |count: u32| {
        let more = format!("replicas = {count}\nwarm = 2\nports.http = {{ service = {port} }}");
        // What is taken cannot be filled up: there may be no more.
        manifest(&[unit("orders", "hi", &more)]).replacen('\n', "\nquota = { containers = 3 }\n", 1)
    };
    home.write("m.toml", text(3));
    home.ok(&["apply", "--wait", "m.toml"]);
    let (all, _) = rest(&home, "orders", 3, 0);
    let held = home.why("orders");
    assert!(held.iter().any(|line| line.contains("0 of 2 wait")), "{held:?}");
    let load = Load::of(port, Shape::only_new(100));
    home.eventually("the load is at work", || load.answered() > 20 || load.failed() > 0);
    for round in 0..3 {
        home.ok(&["scale", "orders", "1"]);
        let (serving, waiting) = rest(&home, "orders", 1, 2);
        let both: BTreeSet<u64> = numbers(&serving).union(&numbers(&waiting)).copied().collect();
        assert_eq!(both, numbers(&all), "round {round}: they are the same processes");
        home.ok(&["scale", "orders", "3"]);
        assert_eq!(numbers(&rest(&home, "orders", 3, 0).0), numbers(&all), "round {round}: and serve again");
    }
    load.stop_after(50);
    home.finish();
}

#[test]
fn a_version_that_tells_something_else_uses_what_waits_and_one_that_starts_something_else_does_not() {
    let home = Home::new();
    let _manager = home.serve();
    let port = home.port();
    let more = |extra: &str| format!("replicas = 2\nwarm = 2\nports.http = {{ service = {port} }}\n{extra}");
    home.write("m.toml", manifest(&[unit("orders", "v1", &more(""))]));
    home.ok(&["apply", "--wait", "m.toml"]);
    let (_, waiting) = rest(&home, "orders", 2, 2);
    let load = Load::of(port, Shape::only_new(100));
    home.eventually("the load is at work", || load.answered() > 20 || load.failed() > 0);
    home.write("m.toml", manifest(&[unit("orders", "v2", &more(""))]));
    home.ok(&["apply", "--wait", "m.toml"]);
    home.eventually("the second version is alone", || {
        home.look("orders").is_some_and(|unit| unit["rollout"]["state"] == "completed")
    });
    let (serving, waiting_now) = rest(&home, "orders", 2, 2);
    assert!(
        numbers(&serving).iter().any(|pid| numbers(&waiting).contains(pid)),
        "who waited serves the second version"
    );
    assert!(http::get(port, "/").unwrap().body.starts_with("v2 "));
    home.write("m.toml", manifest(&[unit("orders", "v3", &more("env = { OTHER = \"1\" }"))]));
    home.ok(&["apply", "--wait", "m.toml"]);
    home.eventually("the third version is alone", || {
        home.look("orders").is_some_and(|unit| unit["rollout"]["state"] == "completed")
    });
    let (serving, last) = rest(&home, "orders", 2, 2);
    let before: BTreeSet<u64> = numbers(&waiting_now);
    assert!(
        numbers(&serving).is_disjoint(&before) && numbers(&last).is_disjoint(&before),
        "none of the old ones is left"
    );
    load.stop_after(50);
    home.finish();
}

#[test]
fn units_of_a_service_share_what_waits_and_a_stopped_one_keeps_none() {
    let home = Home::new();
    let _manager = home.serve();
    let port = home.port();
    let first = unit("orders", "first", "replicas = 1\nwarm = 1");
    let second =
        |count: u32| unit("other", "second", &format!("replicas = {count}\nports.http = {{ service = {port} }}"));
    home.write(
        "m.toml",
        manifest(&[first.replace("[\"orders\"]", "[\"idle\"]").replace("config.orders", "config.idle"), second(0)]),
    );
    home.ok(&["apply", "--wait", "m.toml"]);
    let (_, waiting) = rest(&home, "orders", 1, 1);
    home.ok(&["scale", "other", "1"]);
    let (serving, _) = rest(&home, "other", 1, 0);
    assert_eq!(numbers(&serving), numbers(&waiting), "it takes what waits for the other");
    assert!(http::get(port, "/").unwrap().body.starts_with("second "));
    rest(&home, "orders", 1, 1);
    home.ok(&["stop", "orders"]);
    home.eventually("nothing of it is left", || home.look_at_containers("orders").is_some_and(|all| all.is_empty()));
    home.finish();
}
