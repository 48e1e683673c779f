//! The description of the API against what the API says.

use std::collections::BTreeSet;

use cocktail_api::OPENAPI;
use cocktail_api::wire::{
    By, Count, Exec, Output, Rearrange, Rollback, Shutdown, Sources, Steer, Terminal, error_view,
};
use cocktail_core::contract::{ManifestSource, RolloutAction, ShutdownMode};
use cocktail_core::error::Error;
use cocktail_core::fleet::Late;
use serde::Serialize;
use serde_json::Value;

use crate::support::{self, Running, raw};

fn description() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// Says where `value` is not what `schema` describes. Values that use every field show fields that nobody described.
fn check(description: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.strip_prefix("#/components/schemas/").unwrap();
        let schema = &description["components"]["schemas"][name];
        assert!(schema.is_object(), "{name} is not described");
        return check(description, schema, value, at);
    }
    if let Some(options) = schema["oneOf"].as_array() {
        let fits = options.iter().any(|option| check(description, option, value, at).is_empty());
        return if fits { Vec::new() } else { vec![format!("{at}: {value} is none of {options:?}")] };
    }
    let types: BTreeSet<&str> = match &schema["type"] {
        Value::String(one) => [one.as_str()].into(),
        Value::Array(many) => many.iter().map(|one| one.as_str().unwrap()).collect(),
        _ => return Vec::new(),
    };
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        // Every integer is a number, too.
        Value::Number(number) if number.is_f64() || types.contains("number") => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !types.contains(found) {
        return vec![format!("{at}: {found} is not {types:?}")];
    }
    let mut wrong = Vec::new();
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        wrong.push(format!("{at}: {value} is not allowed"));
    }
    match value {
        Value::Array(items) => {
            for item in items {
                wrong.extend(check(description, &schema["items"], item, at));
            }
        }
        Value::Object(fields) if schema["additionalProperties"].is_object() => {
            for (key, value) in fields {
                wrong.extend(check(description, &schema["additionalProperties"], value, &format!("{at}.{key}")));
            }
        }
        Value::Object(fields) if schema["properties"].is_object() => {
            for (key, value) in fields {
                match schema["properties"].get(key) {
                    Some(schema) => wrong.extend(check(description, schema, value, &format!("{at}.{key}"))),
                    None => wrong.push(format!("{at}.{key} is not described")),
                }
            }
            for key in schema["properties"].as_object().unwrap().keys() {
                if !fields.contains_key(key) {
                    wrong.push(format!("{at}.{key} is described and missing"));
                }
            }
        }
        _ => {}
    }
    wrong
}

fn assert_described(name: &str, value: &impl Serialize) {
    let schema = serde_json::json!({"$ref": format!("#/components/schemas/{name}")});
    let wrong = check(&description(), &schema, &serde_json::to_value(value).unwrap(), name);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_body_is_described_field_by_field() {
    assert_described("About", &support::about());
    assert_described("Unit", &support::unit());
    assert_described("Container", &support::container());
    assert_described("Server", &support::server());
    assert_described("Endpoint", &support::endpoint());
    assert_described("BuildLine", &support::build_line());
    assert_described("Operation", &support::operation());
    assert_described("Rollout", &support::rollout());
    assert_described("Volume", &support::volume());
    assert_described("UsageReport", &support::usage());
    assert_described("History", &support::history());
    assert_described("Event", &support::event(1));
    assert_described("Why", &support::why());
    assert_described("Plan", &support::plan());
    assert_described("Applied", &support::applied());
    assert_described("Output", &Output::from(support::log_line("x")));
    let error = Error::refused("frozen").with_diagnostics(vec![support::warning()]);
    assert_described("Error", &error_view(&error));
    let source = ManifestSource { file: "a".into(), base: "/".into(), text: String::new() };
    assert_described("Sources", &Sources { sources: vec![source], pull: true });
    assert_described("Count", &Count { count: 1 });
    assert_described("By", &By::default());
    for action in [RolloutAction::Pause, RolloutAction::Resume, RolloutAction::Promote, RolloutAction::Abort] {
        assert_described("Steer", &Steer { action });
    }
    assert_described("Rollback", &Rollback { to: Some(3) });
    for late in [Late::Cancel, Late::Force] {
        assert_described("Rearrange", &Rearrange { deadline_millis: Some(1), late, give_back: true });
    }
    assert_described("Shutdown", &Shutdown { mode: ShutdownMode::Leave });
    let tty = Some(Terminal { rows: 24, columns: 80 });
    assert_described("Exec", &Exec { command: vec!["true".into()], tty, timeout_millis: Some(1) });
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    fn references(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                    into.insert(reference.to_owned());
                }
                fields.values().for_each(|value| references(value, into));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, into)),
            _ => {}
        }
    }
    let description = description();
    let mut used = BTreeSet::new();
    references(&description, &mut used);
    let mut defined = BTreeSet::new();
    for kind in ["schemas", "responses", "parameters"] {
        for name in description["components"][kind].as_object().unwrap().keys() {
            defined.insert(format!("#/components/{kind}/{name}"));
        }
    }
    assert_eq!(used, defined);
}

#[test]
fn every_route_has_a_name_of_its_own_and_says_what_an_error_looks_like() {
    let description = description();
    let mut names = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
            let name = operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has no name"));
            assert!(names.insert(name.to_owned()), "{name} is there twice");
            assert!(operation["summary"].is_string(), "{name} says nothing");
            assert!(operation["responses"]["default"].is_object(), "{name} has no errors");
        }
    }
}

#[tokio::test]
async fn the_api_answers_with_its_description() {
    let api = Running::start().await;
    let request = b"GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = String::from_utf8(raw(&api.socket(), request).await).unwrap();
    assert!(answer.ends_with(OPENAPI));
}
