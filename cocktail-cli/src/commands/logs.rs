//! `logs`: output of workers.
//!
//! Lines of several containers carry the container's id in front. Long lines come in parts, which are put together
//! again unless another container speaks in between. On a terminal, lines that are JSON are told for people
//! ([`fields`]); whoever reads from a pipe gets them as they were written.

mod fields;

use cocktail_core::contract::{LogLine, LogOptions, Manager};
use cocktail_core::quantity::parse_duration;
use cocktail_core::time::WallTime;
use futures_util::StreamExt;
use serde::Serialize;
use serde_json::{Map, Value};

use super::list::unit_name;
use crate::args::{Format, LogsArgs};
use crate::failure::{Failure, Outcome};
use crate::output::Ui;

/// Colours that tell containers apart; none of those that tell good from bad.
const COLOURS: [&str; 6] = ["36", "35", "34", "96", "95", "94"];

/// A line as JSON.
#[derive(Debug, Serialize)]
struct JsonLine<'a> {
    container: &'a str,
    at: String,
    stream: &'static str,
    partial: bool,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Map<String, Value>>,
}

/// Prints output; with `-f` until the Manager or the reader goes.
pub(crate) async fn logs(manager: &dyn Manager, args: LogsArgs, ui: &mut Ui) -> Outcome {
    let since = args.since.as_deref().map(|text| since(text, ui.now())).transpose()?;
    let options = LogOptions { follow: args.follow, tail: args.tail, since, grep: args.grep };
    let prefix = ui.format == Format::Table && is_unit(manager, &args.object).await?;
    let mut stream = manager.logs(&args.object, &options).await?;
    let mut layout = Layout {
        prefix,
        timestamps: args.timestamps,
        told: ui.data_is_seen() && !args.raw,
        colour: ui.colour_for_data(),
        open: None,
    };
    while let Some(line) = stream.next().await {
        let line = line?;
        match ui.format {
            Format::Json => ui.json_line(&JsonLine {
                container: &line.container,
                at: line.at.to_string(),
                stream: if line.stderr { "stderr" } else { "stdout" },
                partial: line.partial,
                text: &line.text,
                fields: if line.partial { None } else { fields::fields(&line.text) },
            })?,
            Format::Table => {
                let text = layout.write(&line);
                ui.data(&text)?;
            }
        }
    }
    if layout.open.is_some() {
        ui.data("\n")?;
    }
    Ok(())
}

/// Whether a name is that of a Unit, whose containers must be told apart. An id of a container begins with the
/// name of its Unit, so that only the list of Units can tell.
async fn is_unit(manager: &dyn Manager, object: &str) -> Outcome<bool> {
    let units = manager.units().await?;
    Ok(units.iter().map(unit_name).any(|name| name == object || name.ends_with(&format!("/{object}"))))
}

/// Reads `--since`: a time, or an age.
fn since(text: &str, now: WallTime) -> Outcome<WallTime> {
    if let Ok(age) = parse_duration(text) {
        let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        return Ok(WallTime(now.0.saturating_sub(age).max(0)));
    }
    WallTime::parse(text).map_err(|_| {
        Failure::Usage(format!("--since takes a time like 2026-01-01T12:00:00Z or an age like 5m, not {text:?}"))
    })
}

/// Puts lines together.
#[derive(Debug)]
struct Layout {
    prefix: bool,
    timestamps: bool,
    /// Lines that are JSON are told for people.
    told: bool,
    colour: bool,
    /// Container and stream whose last line was only a part.
    open: Option<(String, bool)>,
}

impl Layout {
    fn write(&mut self, line: &LogLine) -> String {
        let mut text = String::with_capacity(line.text.len() + 64);
        let goes_on = self
            .open
            .as_ref()
            .is_some_and(|(container, stderr)| *container == line.container && *stderr == line.stderr);
        if !goes_on {
            if self.open.is_some() {
                text.push('\n');
            }
            if self.timestamps {
                text.push_str(&line.at.to_string());
                text.push(' ');
            }
            if self.prefix {
                text.push_str(&named(&line.container, self.colour));
                text.push_str(" | ");
            }
        }
        let told = (self.told && !goes_on && !line.partial)
            .then(|| fields::fields(&line.text).and_then(|fields| fields::told(fields, self.colour)))
            .flatten();
        text.push_str(told.as_deref().unwrap_or(&line.text));
        self.open = line.partial.then(|| (line.container.clone(), line.stderr));
        if !line.partial {
            text.push('\n');
        }
        text
    }
}

/// A container's id, always in the same colour.
fn named(container: &str, colour: bool) -> String {
    if !colour {
        return container.to_owned();
    }
    // Ids differ in their last letters, which a sum alone would often not tell apart.
    let mixed = container.bytes().fold(5381_usize, |mixed, byte| mixed.wrapping_mul(33) ^ usize::from(byte));
    format!("\x1b[{}m{container}\x1b[0m", COLOURS[mixed % COLOURS.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::{seen, ui};
    use crate::testing::{FakeManager, SINCE, unit};

    fn line(container: &str, text: &str, partial: bool) -> LogLine {
        let at = WallTime::parse(SINCE).unwrap();
        LogLine { container: container.into(), at, stderr: false, partial, text: text.into() }
    }

    fn args(object: &str, timestamps: bool) -> LogsArgs {
        LogsArgs {
            follow: false,
            tail: Some(9),
            since: Some("5m".into()),
            grep: Some("e".into()),
            raw: false,
            timestamps,
            object: object.into(),
        }
    }

    fn manager() -> FakeManager {
        let logs = vec![
            line("web-1", "hello", false),
            line("web-1", "long ", true),
            line("web-1", "line", false),
            line("web-1", "cut", true),
            line("web-2", "between", false),
            line("web-1", "rest", true),
        ];
        FakeManager { units: vec![unit("web", 2, 2)], logs, ..FakeManager::default() }
    }

    #[tokio::test]
    async fn lines_of_a_unit_carry_their_container_and_parts_are_put_together() {
        let manager = manager();
        let (mut ui, data, _) = ui(Format::Table);
        logs(&manager, args("web", false), &mut ui).await.unwrap();
        let expected = "web-1 | hello\nweb-1 | long line\nweb-1 | cut\nweb-2 | between\nweb-1 | rest\n";
        assert_eq!(data.text(), expected);
        let asked = "logs web LogOptions { follow: false, tail: Some(9), since: Some(WallTime(1767268500000000)), \
                     grep: Some(\"e\") }";
        assert_eq!(manager.calls(), [asked]);
    }

    #[tokio::test]
    async fn lines_of_one_container_are_as_it_wrote_them() {
        let (mut ui, data, _) = ui(Format::Table);
        logs(&manager(), args("web-1", true), &mut ui).await.unwrap();
        assert!(
            data.text().starts_with("2026-01-01T11:55:00.000Z hello\n2026-01-01T11:55:00.000Z long line\n"),
            "{}",
            data.text()
        );
    }

    #[tokio::test]
    async fn json_lines_tell_the_stream_and_the_time() {
        let (mut ui, data, _) = ui(Format::Json);
        logs(&manager(), args("web", false), &mut ui).await.unwrap();
        let expected = "{\"container\":\"web-1\",\"at\":\"2026-01-01T11:55:00.000Z\",\"stream\":\"stdout\",\"partial\":false,\"text\":\"hello\"}";
        assert_eq!(data.text().lines().next(), Some(expected));
        assert_eq!(data.text().lines().count(), 6);
    }

    fn structured() -> FakeManager {
        let log = r#"{"level":"warn","msg":"slow","took":3}"#;
        let logs = vec![line("web-1", log, false), line("web-2", "plain", false), line("web-1", log, true)];
        FakeManager { units: vec![unit("web", 2, 2)], logs, ..FakeManager::default() }
    }

    #[tokio::test]
    async fn on_a_terminal_lines_of_json_are_told_for_people() {
        let (mut out, data, _) = seen(Format::Table, false);
        logs(&structured(), args("web", false), &mut out).await.unwrap();
        let cut = r#"{"level":"warn","msg":"slow","took":3}"#;
        assert_eq!(data.text(), format!("web-1 | WARN  slow took=3\nweb-2 | plain\nweb-1 | {cut}\n"));
        for (raw, (mut out, data, _)) in [(true, seen(Format::Table, false)), (false, ui(Format::Table))] {
            logs(&structured(), LogsArgs { raw, ..args("web", false) }, &mut out).await.unwrap();
            assert!(data.text().starts_with(&format!("web-1 | {cut}\n")), "{}", data.text());
        }
    }

    #[tokio::test]
    async fn in_colour_each_container_has_its_own() {
        let (mut out, data, _) = seen(Format::Table, true);
        logs(&structured(), args("web", false), &mut out).await.unwrap();
        let text = data.text();
        let prefix = |line: usize| text.lines().nth(line).unwrap().split(" | ").next().unwrap().to_owned();
        assert_eq!(prefix(0), prefix(2));
        assert!(prefix(0).contains("web-1") && prefix(0)[..5] != prefix(1)[..5], "{text:?}");
    }

    #[tokio::test]
    async fn as_json_a_line_of_json_is_parsed() {
        let (mut out, data, _) = ui(Format::Json);
        logs(&structured(), args("web", false), &mut out).await.unwrap();
        let lines: Vec<Value> = data.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            (&lines[0]["fields"]["took"], &lines[1]["fields"], &lines[2]["fields"]),
            (&3.into(), &Value::Null, &Value::Null)
        );
    }

    #[test]
    fn since_takes_a_time_or_an_age() {
        let now = WallTime::parse("2026-01-01T12:00:00Z").unwrap();
        assert_eq!(since("5m", now).unwrap(), WallTime::parse(SINCE).unwrap());
        assert_eq!(since(SINCE, now).unwrap(), WallTime::parse(SINCE).unwrap());
        assert_eq!(since("yesterday", now).unwrap_err().code(), 2);
    }
}
