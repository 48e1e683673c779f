//! Whether JSON has the promised keys with values of the promised types. More keys are welcome.

use serde_json::Value;

/// What a value must be.
#[derive(Debug, Clone, Copy)]
pub enum Is {
    /// Text.
    Text,
    /// Text that is not empty.
    Word,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A time: RFC 3339 in UTC.
    Time,
    /// A whole number from 0 on.
    Count,
    /// True or false.
    Flag,
    /// An object with these keys.
    Object(&'static [(&'static str, Is)]),
    /// An array of these.
    Array(&'static Is),
    /// Any of two.
    Either(&'static Is, &'static Is),
    /// Nothing.
    Null,
    /// Anything.
    Anything,
}

/// Fails the test unless `value` is what it must be.
///
/// # Panics
/// When it is not, with the path to the place.
#[track_caller]
pub fn check(value: &Value, is: Is) {
    if let Err(problem) = judge(value, is, "$") {
        panic!("{problem}, in {value:#}");
    }
}

fn judge(value: &Value, is: Is, path: &str) -> Result<(), String> {
    let well = match is {
        Is::Anything => true,
        Is::Null => value.is_null(),
        Is::Text => value.is_string(),
        Is::Word => value.as_str().is_some_and(|text| !text.is_empty()),
        Is::OneOf(words) => value.as_str().is_some_and(|text| words.contains(&text)),
        Is::Time => value.as_str().is_some_and(is_time),
        Is::Count => value.is_u64(),
        Is::Flag => value.is_boolean(),
        Is::Either(one, other) => judge(value, *one, path).is_ok() || judge(value, *other, path).is_ok(),
        Is::Object(keys) => {
            let Some(object) = value.as_object() else { return Err(format!("{path} is no object")) };
            for (key, is) in keys {
                let Some(value) = object.get(*key) else { return Err(format!("{path}.{key} is missing")) };
                judge(value, *is, &format!("{path}.{key}"))?;
            }
            true
        }
        Is::Array(each) => {
            let Some(items) = value.as_array() else { return Err(format!("{path} is no array")) };
            for (at, item) in items.iter().enumerate() {
                judge(item, *each, &format!("{path}[{at}]"))?;
            }
            true
        }
    };
    if well { Ok(()) } else { Err(format!("{path} is {value}, not {is:?}")) }
}

fn is_time(text: &str) -> bool {
    text.ends_with('Z') && text.contains('T') && text.parse::<jiff::Timestamp>().is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const POINT: Is = Is::Object(&[("at", Is::Time), ("ports", Is::Array(&Is::Count))]);

    #[test]
    fn what_is_promised_is_found_and_more_is_welcome() {
        check(&json!({ "at": "2026-01-01T00:00:00.5Z", "ports": [1, 2], "more": true }), POINT);
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_named_by_its_path() {
        for (value, problem) in [
            (json!({ "ports": [] }), "$.at is missing"),
            (json!({ "at": "2026-01-01", "ports": [] }), "$.at is \"2026-01-01\", not Time"),
            (json!({ "at": "2026-01-01T00:00:00+01:00", "ports": [] }), "not Time"),
            (json!({ "at": "2026-01-01T00:00:00Z", "ports": [1, -2] }), "$.ports[1] is -2, not Count"),
        ] {
            let said = judge(&value, POINT, "$").unwrap_err();
            assert!(said.contains(problem), "{said}");
        }
    }
}
