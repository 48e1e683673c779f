//! Services and maps: labels, quotas, several of them in one Manager, and a map as a whole.

use std::collections::{BTreeMap, BTreeSet};

use cocktail_tests::{Home, http};
use serde_json::json;

use crate::{WEB, site};

/// A Unit that sleeps.
fn sleeps(map: &str, unit: &str, keys: &str) -> String {
    format!("[maps.{map}.units.{unit}]\ncommand = [\"sleep\", \"1000\"]\n{keys}\n")
}

#[test]
fn labels_of_all_levels_are_shown_and_replace_nothing() {
    let home = Home::new();
    let _manager = home.serve();
    let text = |tier: &str| {
        format!(
            "service = \"shop\"\nlabels = {{ team = \"shop\", cost = \"42\" }}\n[maps.prod.labels]\nstage = \"prod\"\n{}",
            sleeps("prod", "web", &format!("labels = {{ team = \"web\", tier = \"{tier}\" }}"))
        )
    };
    home.write("m.toml", text("front"));
    home.ok(&["apply", "--wait", "m.toml"]);
    let before = home.settled("web", 1);
    let labels = |home: &Home| home.unit("web").unwrap()["labels"].clone();
    // The nearest one counts.
    assert_eq!(labels(&home), json!({ "team": "web", "tier": "front", "stage": "prod", "cost": "42" }));
    assert_eq!(home.json(&["inspect", "shop"])["labels"], json!({ "team": "shop", "cost": "42" }));
    assert_eq!(home.json(&["inspect", "shop/prod"])["labels"], json!({ "stage": "prod" }));
    home.write("m.toml", text("back"));
    home.ok(&["apply", "--wait", "m.toml"]);
    assert_eq!(labels(&home)["tier"], "back");
    assert_eq!((home.settled("web", 1), &home.unit("web").unwrap()["revision"]), (before, &json!(1)));
    home.finish();
}

#[test]
fn a_quota_is_refused_at_apply_and_at_scale_with_its_numbers() {
    let home = Home::new();
    let _manager = home.serve();
    let text = |replicas: u32, memory: &str| {
        let unit = sleeps("prod", "web", &format!("replicas = {replicas}\nresources = {{ memory = \"{memory}\" }}"));
        format!("service = \"shop\"\nquota = {{ containers = 4, memory = \"100MiB\" }}\n{unit}")
    };
    for (replicas, memory, says) in [(5, "1MiB", "quota of containers: 5 in all"), (2, "60MiB", "quota of memory")] {
        home.write("m.toml", text(replicas, memory));
        let said = home.run(&["apply", "m.toml"]).fails(2);
        assert!(said.contains(says), "{said}");
        assert!(home.unit("web").is_none() && home.ps().is_empty());
    }
    home.write("m.toml", text(2, "20MiB"));
    home.ok(&["apply", "--wait", "m.toml"]);
    let said = home.run(&["scale", "web", "5"]).fails(4);
    assert!(said.contains("quota of service shop") && said.contains("4 containers"), "{said}");
    home.run(&["extend", "web", "3"]).fails(4);
    home.ok(&["scale", "web", "4", "--wait"]);
    home.settled("web", 4);
    // Other Services have their own.
    home.write("other.toml", format!("service = \"other\"\n{}", sleeps("prod", "more", "replicas = 3")));
    home.ok(&["apply", "--wait", "other.toml"]);
    let used = &home.json(&["inspect", "shop"])["used"];
    assert_eq!((&used["containers"], &used["memory_bytes"]), (&json!(4), &json!(80 << 20)), "{used}");
    // What it leaves no room for waits, and says for what: a replacement.
    home.ok(&["restart", "web"]);
    home.eventually("the reason is known", || {
        let unit = home.unit("web").unwrap();
        unit["ready"] == 4 && unit["reason"].as_str().unwrap().contains("quota")
    });
    home.finish();
}

#[test]
fn several_services_and_maps_live_in_one_manager_and_do_not_meet() {
    let home = Home::new();
    let _manager = home.serve();
    let mut ports = BTreeMap::new();
    for service in ["shop", "bank"] {
        let mut text = format!("service = \"{service}\"\n");
        for map in ["dev", "prod"] {
            let port = home.port();
            let version = format!("{service}-{map}");
            text.push_str(&site(port, &version, "", "").replace("maps.prod", &format!("maps.{map}")));
            ports.insert(version, port);
        }
        home.write(&format!("{service}.toml"), text);
    }
    home.ok(&["apply", "--wait", "shop.toml", "bank.toml"]);
    for (version, port) in &ports {
        assert!(http::get(*port, "/").unwrap().body.starts_with(version), "{version}");
    }
    // A name that several have means none of them.
    let said = home.run(&["restart", "web"]).fails(4);
    assert!(said.contains("bank/dev/web") && said.contains("shop/prod/web"), "{said}");
    home.ok(&["scale", "bank/prod/web", "2", "--wait"]);
    let rows = home.ps();
    let of =
        |service: &str, map: &str| rows.iter().filter(|one| one["service"] == service && one["map"] == map).count();
    assert_eq!((of("shop", "dev"), of("shop", "prod"), of("bank", "dev"), of("bank", "prod")), (1, 1, 1, 2));
    // One goes; the others do not notice.
    let pids = |service: &str| -> BTreeSet<u64> {
        home.ps().iter().filter(|one| one["service"] == service).filter_map(|one| one["pid"].as_u64()).collect()
    };
    let bank = pids("bank");
    home.ok(&["rm", "--wait", "shop"]);
    assert_eq!((pids("shop").len(), pids("bank")), (0, bank));
    assert!(http::get(ports["shop-dev"], "/").is_err());
    home.finish();
}

#[test]
fn a_map_is_stopped_started_restarted_and_removed_as_a_whole_and_no_other_is() {
    let home = Home::new();
    let _manager = home.serve();
    let unit = |map: &str, name: &str| {
        format!(
            "[maps.{map}.units.{name}]\ncommand = [\"{WEB}\"]\nreplicas = 2\nports.http = {{}}\n\
             ready = {{ http = \"/ready\", every = \"100ms\", timeout = \"5s\" }}\nupdate = {{ monitor = \"100ms\" }}\n"
        )
    };
    home.write("m.toml", format!("service = \"shop\"\n{}{}{}", unit("prod", "a"), unit("prod", "b"), unit("dev", "c")));
    home.ok(&["apply", "--wait", "m.toml"]);
    let all = || ["a", "b", "c"].map(|unit| home.pids(unit));
    let [a, b, c] = all();
    home.ok(&["stop", "--wait", "shop/prod"]);
    assert_eq!(all().map(|pids| pids.len()), [0, 0, 2]);
    home.ok(&["start", "--wait", "shop/prod"]);
    let [second_a, second_b, _] = all();
    assert_eq!((second_a.len(), second_b.len()), (2, 2));
    home.ok(&["restart", "--wait", "shop/prod"]);
    home.settled("a", 2);
    home.settled("b", 2);
    let [third_a, third_b, same] = all();
    for (one, other) in [(&a, &second_a), (&b, &second_b), (&second_a, &third_a), (&second_b, &third_b)] {
        assert!(one.keys().all(|id| !other.contains_key(id)), "{one:?} and {other:?}");
    }
    assert_eq!(same, c);
    home.ok(&["rm", "--wait", "shop/prod"]);
    assert!(home.unit("a").is_none() && home.unit("b").is_none());
    assert_eq!(home.settled("c", 2), c);
    assert_eq!(home.workers().len(), 2);
    home.finish();
}
