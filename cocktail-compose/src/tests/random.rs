//! Whatever comes in, a manifest that decodes comes out, or an error with its place.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Machine, map_of};

/// Keys of services, and of what lies in them.
const KEYS: [&str; 72] = [
    "image",
    "build",
    "command",
    "entrypoint",
    "environment",
    "env_file",
    "ports",
    "expose",
    "volumes",
    "tmpfs",
    "healthcheck",
    "deploy",
    "scale",
    "mem_limit",
    "cpus",
    "restart",
    "stop_grace_period",
    "stop_signal",
    "user",
    "working_dir",
    "ulimits",
    "init",
    "labels",
    "depends_on",
    "networks",
    "secrets",
    "configs",
    "profiles",
    "extends",
    "read_only",
    "replicas",
    "resources",
    "limits",
    "reservations",
    "memory",
    "update_config",
    "restart_policy",
    "condition",
    "parallelism",
    "order",
    "monitor",
    "test",
    "interval",
    "timeout",
    "retries",
    "start_period",
    "disable",
    "target",
    "published",
    "host_ip",
    "source",
    "type",
    "size",
    "bind",
    "soft",
    "hard",
    "nofile",
    "max_attempts",
    "delay",
    "window",
    "path",
    "required",
    "file",
    "service",
    "context",
    "PORT",
    "A_FILE",
    "core",
    "name",
    "services",
    "<<",
    "x-a",
];

/// Words that mean something somewhere, and some that only look so.
const WORDS: [&str; 60] = [
    "a",
    "",
    "80",
    "80:80",
    "127.0.0.1:1:2",
    "1-70",
    "8000-8099:8000-8099",
    "0",
    "-1",
    "1.5",
    "64m",
    "1g",
    "10s",
    "100ms",
    "0s",
    "9999h",
    "true",
    "false",
    "no",
    "always",
    "on-failure",
    "on-failure:3",
    "unless-stopped",
    "./x:/y",
    "v:/data",
    "/data",
    "/",
    "/a/../b",
    "~",
    "~/x:/h",
    "v:/data/inner",
    "/var/run/docker.sock:/s",
    "bind",
    "volume",
    "tmpfs",
    "web",
    "db",
    "NONE",
    "CMD",
    "CMD-SHELL",
    "curl -f localhost:80",
    "'",
    "\"a b\" c",
    "$",
    "$$",
    "${A}",
    "${A:-b}",
    "${A",
    "$${PORT}",
    "${PORT}",
    "A=b",
    "PORT=80",
    "1000:1000",
    "-x",
    "SIGINT",
    "SIGWINCH",
    "nginx:1",
    "UPPER",
    "\u{0}",
    "é\n\"",
];

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => prop::sample::select(WORDS.to_vec()).prop_map(|word| json!(word)),
        1 => any::<String>().prop_map(|text| json!(text)),
        1 => any::<i64>().prop_map(|number| json!(number)),
        1 => any::<bool>().prop_map(|truth| json!(truth)),
        1 => Just(Value::Null),
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => prop::sample::select(KEYS.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::btree_map(key(), inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// What fits a key more often than not, so that the import gets far.
fn fitting(key: &str) -> BoxedStrategy<Value> {
    let texts = || prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..5);
    let map = || prop::collection::btree_map(key_of_map(), leaf(), 0..6);
    match key {
        "ports" | "expose" | "volumes" | "tmpfs" | "command" | "entrypoint" | "env_file" | "profiles" | "secrets"
        | "configs" => texts().prop_map(|texts| json!(texts)).boxed(),
        "environment" | "labels" | "ulimits" | "healthcheck" => map().prop_map(|map| json!(map)).boxed(),
        _ => leaf().boxed(),
    }
}

fn key_of_map() -> impl Strategy<Value = String> {
    prop_oneof![prop::sample::select(KEYS.to_vec()).prop_map(str::to_owned), "[A-Za-z_.]{1,8}"]
}

fn service() -> impl Strategy<Value = Value> {
    let likely = prop::sample::subsequence(KEYS[..29].to_vec(), 0..8).prop_flat_map(|keys| {
        keys.into_iter().map(|key| fitting(key).prop_map(move |value| (key.to_owned(), value))).collect::<Vec<_>>()
    });
    prop_oneof![
        4 => likely.prop_map(|pairs| json!(pairs.into_iter().collect::<BTreeMap<_, _>>())),
        1 => value(),
    ]
}

/// Imports twice, and looks at what came out.
fn holds(text: &str) -> Result<bool, TestCaseError> {
    let machine = Machine::default().with("A", "80").file("a", "X=1\nPORT=7\n").file("x/", "");
    let first = machine.import(text);
    prop_assert_eq!(&first, &machine.import(text));
    match first {
        Ok(imported) => {
            prop_assert_eq!(map_of(&imported).units.len(), imported.units);
            for note in &imported.notes {
                prop_assert!(!note.to_string().contains(|c: char| c.is_control()), "{:?}", note);
            }
            Ok(true)
        }
        Err(problem) => {
            prop_assert!(problem.line >= 1 && problem.column >= 1, "{:?}", problem);
            prop_assert!(text.get(problem.span.clone()).is_some(), "{:?}", problem);
            prop_assert!(!problem.message.contains(|c: char| c.is_control()), "{:?}", problem);
            prop_assert!(!problem.message.contains("no manifest can be made"), "{:?}", problem);
            Ok(false)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn services_of_any_values_decode_or_are_errors(
        services in prop::collection::btree_map("[a-zA-Z_.0-9-]{1,8}", service(), 1..4),
        top in prop::collection::btree_map(key(), value(), 0..2),
    ) {
        let mut all: serde_json::Map<String, Value> = top.into_iter().collect();
        all.insert("services".into(), json!(services));
        holds(&Value::Object(all).to_string())?;
    }

    #[test]
    fn any_text_decodes_or_is_an_error(text in "[ \\-:&*a<{}\\[\\]\"'|>#\n!?,$éservices\\t]{0,80}") {
        holds(&text)?;
        holds(&format!("services:\n  web:\n    image: a\n    {text}"))?;
    }
}

#[test]
fn most_of_the_services_that_are_made_up_get_through() {
    // Otherwise the test above says less than it seems to.
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let through = (0..300).filter(|_| {
        let service = service().new_tree(&mut runner).unwrap().current();
        holds(&json!({ "services": { "web": service } }).to_string()).unwrap()
    });
    let through = through.count();
    assert!(through > 60, "{through} of 300");
}
