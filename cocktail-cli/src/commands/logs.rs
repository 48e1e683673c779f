//! `logs`: output of workers.
//!
//! Lines of several containers carry the container's id in front. Long lines come in parts, which are put together
//! again unless another container speaks in between.

use cocktail_core::contract::{LogLine, LogOptions, Manager};
use cocktail_core::quantity::parse_duration;
use cocktail_core::time::WallTime;
use futures_util::StreamExt;
use serde::Serialize;

use super::list::unit_name;
use crate::args::{Format, LogsArgs};
use crate::failure::{Failure, Outcome};
use crate::output::Ui;

/// A line as JSON.
#[derive(Debug, Serialize)]
struct JsonLine<'a> {
    container: &'a str,
    at: String,
    stream: &'static str,
    partial: bool,
    text: &'a str,
}

/// Prints output; with `-f` until the Manager or the reader goes.
pub(crate) async fn logs(manager: &dyn Manager, args: LogsArgs, ui: &mut Ui) -> Outcome {
    let since = args.since.as_deref().map(|text| since(text, ui.now())).transpose()?;
    let options = LogOptions { follow: args.follow, tail: args.tail, since, grep: args.grep.clone() };
    let prefix = ui.format == Format::Table && is_unit(manager, &args.object).await?;
    let mut stream = manager.logs(&args.object, &options).await?;
    let mut layout = Layout { prefix, timestamps: args.timestamps, open: None };
    while let Some(line) = stream.next().await {
        let line = line?;
        match ui.format {
            Format::Json => ui.json_line(&JsonLine {
                container: &line.container,
                at: line.at.to_string(),
                stream: if line.stderr { "stderr" } else { "stdout" },
                partial: line.partial,
                text: &line.text,
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
                text.push_str(&line.container);
                text.push_str(" | ");
            }
        }
        text.push_str(&line.text);
        self.open = line.partial.then(|| (line.container.clone(), line.stderr));
        if !line.partial {
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::ui;
    use crate::testing::{FakeManager, SINCE, unit};

    fn line(container: &str, text: &str, partial: bool) -> LogLine {
        let at = WallTime::parse(SINCE).unwrap();
        LogLine { container: container.into(), at, stderr: false, partial, text: text.into() }
    }

    fn args(object: &str, timestamps: bool) -> LogsArgs {
        LogsArgs { follow: false, tail: Some(9), since: Some("5m".into()), timestamps, object: object.into() }
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
        let asked = "logs web LogOptions { follow: false, tail: Some(9), since: Some(WallTime(1767268500000000)) }";
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

    #[test]
    fn since_takes_a_time_or_an_age() {
        let now = WallTime::parse("2026-01-01T12:00:00Z").unwrap();
        assert_eq!(since("5m", now).unwrap(), WallTime::parse(SINCE).unwrap());
        assert_eq!(since(SINCE, now).unwrap(), WallTime::parse(SINCE).unwrap());
        assert_eq!(since("yesterday", now).unwrap_err().code(), 2);
    }
}
