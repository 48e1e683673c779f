//! The identity of a revision: a hash of what a container is made from.

use data_encoding::BASE32_NOPAD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::spec::Template;

/// A short, stable name for the content of a template: 12 characters of lower-case base32 (60 bits of SHA-256).
///
/// The same template has the same name on every machine and in every build: keys are sorted, and members that are
/// absent or empty do not count, so that a field which a later version adds changes no revision by itself.
pub fn template_hash(template: &Template) -> String {
    // Only a path that is not UTF-8 has no JSON. A manifest cannot have one, a program that makes its own template can.
    let mut value = serde_json::to_value(template).unwrap_or_else(|_| Value::from(format!("{template:?}")));
    if let Some(Value::Object(restart)) = value.get_mut("restart") {
        // These came later, and their defaults are not empty. What was named without them keeps its name.
        restart.retain(|key, value| match key.as_str() {
            "when" => *value != "always",
            "retries" => *value != 0,
            _ => true,
        });
    }
    let mut text = String::from("template 1\n");
    canonical(&value, &mut text);
    let mut name = BASE32_NOPAD.encode(&Sha256::digest(text.as_bytes())).to_ascii_lowercase();
    name.truncate(12);
    name
}

/// JSON with sorted keys and without empty members, whatever order the map type of `serde_json` keeps.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().filter(|(_, value)| !is_empty(value)).collect();
            members.sort_by(|a, b| a.0.cmp(b.0));
            text.push('{');
            for (key, value) in members {
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
