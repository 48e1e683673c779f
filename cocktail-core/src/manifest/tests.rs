//! The schema and the decoder accept the same keys.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::report::Report;
use super::{decode, schema};

/// A file in which every table that a manifest can have stands at least once.
const EVERYTHING: &str = r#"
service = "shop"
quota = {}
[maps.prod.units.web]
command = ["web"]
scale = { max = 2, up = {}, down = {}, schedule = [{ cron = "* * * * *" }], metrics = { http = "/" } }
artifact = { file = "dist.tar", sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }
resources = {}
ready = {}
live = {}
stop = {}
restart = {}
update = {}
rlimits = {}
warm = { count = 0 }
place = { constraints = {}, affinity = {} }
ports.http = {}
secrets.KEY = { env = "KEY" }
volumes.data = { mount = "data" }
[maps.prod.units.built]
build = { context = "." }
[manager]
[providers.local]
kind = "standalone"
[registries.hub]
host = "registry.example.com"
username = "shop"
password = { file = "password" }
"#;

#[test]
fn decoder_and_schema_accept_the_same_keys() {
    let report = Report::new(EVERYTHING, Path::new("all.toml"), Path::new("/srv"));
    decode(EVERYTHING, &report).expect("the file is well");
    let accepted = report.accepted.borrow().clone();
    let (problems, failed) = report.finish();
    assert!(!failed, "{problems:#?}");

    let schema = schema();
    let mut tables = BTreeSet::new();
    for (table, keys) in &accepted {
        let described = at(&schema, table);
        let properties = described["properties"].as_object().unwrap_or_else(|| panic!("{table} is not described"));
        let described: BTreeSet<_> = properties.keys().map(String::as_str).collect();
        assert_eq!(described, *keys, "keys of `{table}`");
        tables.insert(described);
    }
    assert_eq!(tables.len(), objects(&schema).len(), "every described table is compared");
}

/// The schema of the table at a dotted path.
fn at<'s>(schema: &'s Value, path: &str) -> &'s Value {
    let mut here = schema;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (name, items) = part.split_once('[').map_or((part, false), |(name, _)| (name, true));
        let next = match here["properties"].get(name) {
            Some(next) => next,
            None => &here["additionalProperties"],
        };
        here = resolve(schema, if items { &next["items"] } else { next });
    }
    here
}

fn resolve<'s>(schema: &'s Value, part: &'s Value) -> &'s Value {
    match part["$ref"].as_str() {
        Some(name) => &schema["$defs"][name.trim_start_matches("#/$defs/")],
        // Of several forms the table is compared.
        None => {
            let forms = part["anyOf"].as_array().into_iter().flatten();
            forms.into_iter().find(|form| form.get("properties").is_some()).unwrap_or(part)
        }
    }
}

/// Key sets of all tables that the schema describes, however deep.
fn objects(part: &Value) -> BTreeSet<BTreeSet<&str>> {
    let mut found = BTreeSet::new();
    if let Some(properties) = part.get("properties").and_then(Value::as_object) {
        found.insert(properties.keys().map(String::as_str).collect());
    }
    let inner: Vec<&Value> = match part {
        Value::Object(members) => members.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    found.extend(inner.into_iter().flat_map(objects));
    found
}
