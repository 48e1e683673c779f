//! Numbers that a worker reports by answering its readiness probe with a JSON object.

use std::collections::BTreeMap;

use serde_json::Value;

/// What was reported, by key.
pub type Numbers = BTreeMap<String, f64>;

/// Numbers that are taken of one answer: the first ones by key.
const MOST: usize = 32;
/// Longest key, in bytes.
const LONGEST: usize = 64;

/// The numeric members of an object; everything else in it is passed over. `None` where there is none.
pub(crate) fn of(body: &[u8]) -> Option<Numbers> {
    let Ok(Value::Object(object)) = serde_json::from_slice(body) else { return None };
    let numbers = object.iter().filter(|(key, _)| !key.is_empty() && key.len() <= LONGEST);
    let numbers = numbers.filter_map(|(key, value)| Some((key.clone(), value.as_f64().filter(|it| it.is_finite())?)));
    let mut numbers: Numbers = numbers.collect();
    while numbers.len() > MOST {
        numbers.pop_last();
    }
    (!numbers.is_empty()).then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_and_everything_else_is_passed_over() {
        let body = br#"{"queue": 7, "load": 0.5, "below": -3, "big": 1e300, "text": "8", "ok": true, "none": null,
            "nested": {"queue": 9}, "list": [1]}"#;
        let expected = [("below", -3.0), ("big", 1e300), ("load", 0.5), ("queue", 7.0)];
        assert_eq!(of(body), Some(expected.map(|(key, value)| (key.to_owned(), value)).into()));
    }

    #[test]
    fn what_is_no_object_of_numbers_reports_nothing() {
        for body in ["", "{", "[1]", "7", "{}", r#"{"a": "b"}"#, r#"{"": 1}"#, r#"{"a": 1e999}"#, "\u{fffd}"] {
            assert_eq!(of(body.as_bytes()), None, "{body}");
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(5_000), "}".repeat(5_000));
        assert_eq!(of(deep.as_bytes()), None);
    }

    #[test]
    fn there_is_a_most_of_keys_and_a_longest_key() {
        let (long, longer) = ("k".repeat(LONGEST), "k".repeat(LONGEST + 1));
        let numbers = of(format!("{{\"{long}\": 1, \"{longer}\": 2}}").as_bytes()).unwrap();
        assert_eq!(numbers.keys().collect::<Vec<_>>(), [&long]);
        let many: Vec<String> = (0..100).map(|n| format!("\"n{n:03}\": {n}")).collect();
        let numbers = of(format!("{{{}}}", many.join(",")).as_bytes()).unwrap();
        assert_eq!((numbers.len(), numbers.last_key_value()), (MOST, Some((&"n031".to_owned(), &31.0))));
    }
}
