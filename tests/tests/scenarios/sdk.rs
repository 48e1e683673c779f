//! Workers that know their Manager: started by the real program, on the real protocol.

use cocktail_tests::{Home, Load, Shape, http};

const WORKER: &str = env!("CARGO_BIN_EXE_sdk-worker");

fn orders(port: u16, greeting: &str, more: &str) -> String {
    format!(
        "service = \"shop\"\n[maps.prod.units.orders]\nworker = \"{WORKER}\"\nmicroservices = [\"orders\"]\n\
         config.orders = {{ greeting = \"{greeting}\" }}\nports.http = {{ service = {port} }}\n\
         update = {{ monitor = \"300ms\" }}\nstop = {{ signal = \"TERM\", grace = \"10s\" }}\n{more}\n"
    )
}

fn body(port: u16, path: &str) -> String {
    http::get(port, path).unwrap().body
}

#[test]
fn a_worker_loads_what_its_manifest_says_and_an_update_loses_no_request() {
    let home = Home::new();
    let _manager = home.serve();
    let port = home.port();
    home.write("m.toml", orders(port, "v0", "replicas = 2"));
    home.ok(&["apply", "--wait", "m.toml"]);
    assert!(body(port, "/").starts_with("v0 orders-"), "{}", body(port, "/"));
    let load = Load::of(port, Shape::only_new(100));
    home.eventually("the load is at work", || load.answered() > 50 || load.failed() > 0);
    for round in 1..=2 {
        home.write("m.toml", orders(port, &format!("v{round}"), "replicas = 2"));
        home.ok(&["apply", "--wait", "m.toml"]);
        home.eventually("the new ones are alone", || {
            home.look("orders").is_some_and(|unit| unit["rollout"]["state"] == "completed")
                && home.look_at_containers("orders").is_some_and(|all| all.len() == 2)
        });
        assert!(body(port, "/").starts_with(&format!("v{round} ")), "{}", body(port, "/"));
    }
    load.stop_after(100);
    home.finish();
}

#[test]
fn a_worker_serves_on_without_its_manager_and_is_known_again() {
    let home = Home::new();
    let manager = home.serve();
    let port = home.port();
    home.write("m.toml", orders(port, "hi", "scale = { min = 1, max = 3 }"));
    home.ok(&["apply", "--wait", "m.toml"]);
    let before = home.settled("orders", 1);
    manager.kill();
    assert!(body(port, "/").starts_with("hi "));
    let _manager = home.serve();
    home.settled("orders", 1);
    assert_eq!(home.pids("orders"), before, "the worker was touched");
    // It is heard again.
    assert_eq!(body(port, "/help"), "told\n");
    home.eventually("help has come", || home.look("orders").is_some_and(|unit| unit["ready"] == 2));
    let why = home.why("orders");
    assert!(why.iter().any(|line| line.contains("too much to do")), "{why:?}");
    home.finish();
}

#[test]
fn a_broken_worker_is_replaced_after_another_serves_and_a_degraded_one_is_shown() {
    let home = Home::new();
    let _manager = home.serve();
    let port = home.port();
    home.write("m.toml", orders(port, "hi", "replicas = 1"));
    home.ok(&["apply", "--wait", "m.toml"]);
    let first = home.settled("orders", 1);
    let container = home.containers("orders")[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(body(port, "/degraded"), "told\n");
    home.eventually("it is shown", || home.why(&container).iter().any(|line| line.contains("cache is cold")));
    assert_eq!(home.pids("orders"), first, "a degraded worker stays");
    let load = Load::of(port, Shape::only_new(100));
    home.eventually("the load is at work", || load.answered() > 20 || load.failed() > 0);
    assert_eq!(body(port, "/broken"), "told\n");
    home.eventually("another one is there alone", || {
        home.look_at_containers("orders")
            .is_some_and(|all| all.len() == 1 && all[0]["id"] != container.as_str() && all[0]["ready"] == true)
    });
    load.stop_after(20);
    home.finish();
}

#[test]
fn what_a_worker_cannot_load_is_said_with_its_reason() {
    let home = Home::new();
    let _manager = home.serve();
    let port = home.port();
    let manifest = orders(port, "hi", "").replace("[\"orders\"]", "[\"orders\", \"unable\"]");
    home.write("m.toml", manifest);
    home.ok(&["apply", "m.toml"]);
    home.eventually("the reason is shown", || {
        home.look_at_containers("orders").is_some_and(|all| {
            all.iter()
                .any(|it| it["reason"].as_str().unwrap().contains("unable cannot be loaded: there is no such table"))
        })
    });
    home.finish();
}

#[test]
fn liveness_is_looked_at_when_a_worker_has_said_that_it_is_ready() {
    let home = Home::new();
    let _manager = home.serve();
    let port = home.port();
    let live = "live = { http = \"/\", every = \"100ms\", failures = 1 }";
    let manifest = orders(port, "hi", live).replace("greeting =", "slow_start = 1500, greeting =");
    home.write("m.toml", manifest);
    home.ok(&["apply", "--wait", "m.toml"]);
    let container = &home.containers("orders")[0];
    assert_eq!((&container["restarts"], &container["generation"]), (&0.into(), &1.into()), "{container}");
    home.finish();
}
