//! Lines of output that are JSON objects, as most logging libraries write them: told as a line that people can read.
//!
//! Start at [`fields`]. What is no object is none of ours; nothing is dropped but the time, which the line has anyway.

use serde_json::{Map, Value};

use crate::output::{Tone, plain};

/// Keys that hold the level, the message, and the time.
const LEVEL: [&str; 4] = ["level", "severity", "lvl", "log.level"];
const MESSAGE: [&str; 2] = ["msg", "message"];
const TIME: [&str; 4] = ["timestamp", "time", "ts", "@timestamp"];

/// The object that a line is, if it is one.
pub(super) fn fields(line: &str) -> Option<Map<String, Value>> {
    let line = line.trim();
    // Most lines are none: parsing begins only where it can end well.
    if !(line.starts_with('{') && line.ends_with('}')) {
        return None;
    }
    serde_json::from_str(line).ok()
}

/// `LEVEL message key=value…`; as it is where there is neither level nor message, for then it is data and no log.
pub(super) fn told(mut fields: Map<String, Value>, colour: bool) -> Option<String> {
    if let Some(Value::Object(inner)) = fields.get("fields").cloned() {
        // As `tracing` writes it: what belongs to the event lies one deeper.
        fields.remove("fields");
        for (key, value) in inner {
            fields.entry(key).or_insert(value);
        }
    }
    let level = take(&mut fields, &LEVEL, level).map(|(_, level)| level);
    let message = take(&mut fields, &MESSAGE, |value| value.as_str().map(str::to_owned)).map(|(_, message)| message);
    if level.is_none() && message.is_none() {
        return None;
    }
    let _ = take(&mut fields, &TIME, |value| (value.is_string() || value.is_number()).then_some(()));
    let mut text = String::new();
    if let Some(level) = level {
        let padded = format!("{level:<5}");
        text.push_str(&tone(&level).paint(&padded, colour));
    }
    if let Some(message) = message {
        separate(&mut text);
        text.push_str(&plain(&message));
    }
    for (key, value) in &fields {
        separate(&mut text);
        let key = Tone::Faint.paint(&format!("{}=", plain(key)), colour);
        text.push_str(&format!("{key}{}", plain(&short(value))));
    }
    Some(text.trim_end().to_owned())
}

/// Takes the first of `keys` whose value `read` understands.
fn take<T>(
    fields: &mut Map<String, Value>,
    keys: &[&'static str],
    read: impl Fn(&Value) -> Option<T>,
) -> Option<(&'static str, T)> {
    let found = keys.iter().find_map(|key| Some((*key, read(fields.get(*key)?)?)))?;
    fields.remove(found.0);
    Some(found)
}

/// A level as a word; some libraries write numbers.
fn level(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if text.len() <= 16 => Some(plain(text).to_uppercase()),
        Value::Number(number) => Some(
            match number.as_u64()? {
                0..15 => "TRACE",
                15..25 => "DEBUG",
                25..35 => "INFO",
                35..45 => "WARN",
                45..55 => "ERROR",
                _ => "FATAL",
            }
            .to_owned(),
        ),
        _ => None,
    }
}

fn tone(level: &str) -> Tone {
    match level {
        "ERROR" | "ERR" | "FATAL" | "CRITICAL" | "PANIC" | "EMERGENCY" | "ALERT" => Tone::Bad,
        "WARN" | "WARNING" => Tone::Busy,
        "INFO" | "NOTICE" => Tone::Good,
        "DEBUG" | "TRACE" => Tone::Faint,
        _ => Tone::Plain,
    }
}

/// A value: a word as it is, text in quotes, everything else as JSON.
fn short(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && !text.contains([' ', '"', '=', '\n', '\t']) => text.clone(),
        other => other.to_string(),
    }
}

fn separate(text: &mut String) {
    if !text.is_empty() {
        text.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> Option<String> {
        told(fields(line)?, false)
    }

    #[test]
    fn level_and_message_come_first_and_the_time_is_dropped() {
        for (line, expected) in [
            (r#"{"level":"info","msg":"listening","port":8080}"#, "INFO  listening port=8080"),
            (
                r#"{"severity":"WARNING","message":"slow query","took":"1.5 s","time":"2026-01-01"}"#,
                "WARNING slow query took=\"1.5 s\"",
            ),
            (r#"{"level":50,"time":1767268500000,"msg":"boom","err":{"code":1}}"#, "ERROR boom err={\"code\":1}"),
            (
                r#"{"timestamp":"x","level":"DEBUG","fields":{"message":"hi","n":1},"target":"app"}"#,
                "DEBUG hi n=1 target=app",
            ),
            (r#"{"message":"only this"}"#, "only this"),
            (r#"{"level":"error"}"#, "ERROR"),
            (r#"{"level":"error","msg":"a\nb\u001b[2J"}"#, "ERROR a b [2J"),
            (r#"{"level":"info","msg":{"odd":1},"e":""}"#, "INFO  e=\"\" msg={\"odd\":1}"),
        ] {
            assert_eq!(shown(line).as_deref(), Some(expected), "{line}");
        }
    }

    #[test]
    fn what_is_no_log_in_json_is_left_as_it_is() {
        for line in ["", "{", "{}", "[1]", "{\"a\":1}", "{not json}", "plain text", "{\"level\":[]}", "{\"a\":1} x"] {
            assert_eq!(shown(line), None, "{line}");
        }
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        let line = r#"{"level":"error","msg":"boom","n":1}"#;
        let mut coloured = told(fields(line).unwrap(), true).unwrap();
        assert!(coloured.contains("\x1b[31mERROR\x1b[0m"), "{coloured:?}");
        for code in ["\x1b[31m", "\x1b[2m", "\x1b[0m"] {
            coloured = coloured.replace(code, "");
        }
        assert_eq!(Some(coloured), shown(line));
    }
}
