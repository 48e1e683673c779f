//! From the engine's log to lines.

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use cocktail_core::contract::{LogLine, LogOptions, LogStream};
use cocktail_core::error::{Error, Result};
use cocktail_core::id::ContainerId;
use cocktail_core::time::WallTime;
use futures_util::{StreamExt, future};

use crate::client::Engine;
use crate::error::{self, Call};

/// Longest piece of a line that an engine writes at once.
const PIECE: usize = 16 << 10;

/// Output of a container of the engine, oldest first. After an error it ends.
pub(crate) async fn lines(
    engine: &Engine,
    id: &str,
    container: &ContainerId,
    options: &LogOptions,
) -> Result<LogStream> {
    let docker = engine.api().await?;
    let tail = options.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    let mut query = LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true).follow(options.follow);
    query = query.tail(&tail);
    if let Some(since) = options.since {
        // Whole seconds here; the rest is passed over below.
        query = query.since(i32::try_from(since.0.div_euclid(1_000_000)).unwrap_or(i32::MAX));
    }
    let (name, since) = (container.to_string(), options.since.unwrap_or(WallTime(i64::MIN)));
    let what = format!("read the output of {container}");
    let lines = docker.logs(id, Some(query.build()));
    let mut failed = false;
    let lines = lines.take_while(move |output| {
        let go_on = !failed;
        failed |= output.is_err();
        future::ready(go_on)
    });
    let mut last = WallTime(i64::MIN);
    let lines = lines.filter_map(move |output| {
        let line = match output {
            Ok(output) => line(&name, &output).filter(|line| line.at >= since).map(|mut line| {
                // The engine reads stdout and stderr each for itself, and one may overtake the other by a little.
                last = last.max(line.at);
                line.at = last;
                Ok(line)
            }),
            Err(error) => Some(Err::<LogLine, Error>(error::of(&error, Call::Reads, &what))),
        };
        future::ready(line)
    });
    Ok(lines.boxed())
}

fn line(container: &str, output: &LogOutput) -> Option<LogLine> {
    let stderr = matches!(output, LogOutput::StdErr { .. });
    let text = String::from_utf8_lossy(output.as_ref());
    let (at, text) = text.split_once(' ')?;
    let whole = text.strip_suffix('\n');
    let partial = whole.is_none() && text.len() >= PIECE;
    let text = whole.unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text).to_owned();
    Some(LogLine { container: container.to_owned(), at: WallTime::parse(at).ok()?, stderr, partial, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_time_its_stream_and_its_text() {
        let output = LogOutput::StdErr { message: "2026-11-23T04:29:02.265512243Z two words\n".into() };
        let found = line("web-1", &output).unwrap();
        assert_eq!((found.text.as_str(), found.stderr, found.partial), ("two words", true, false));
        assert_eq!(found.at.0 % 1_000_000, 265_512);
        let last = LogOutput::StdOut { message: "2026-11-23T04:29:02Z last".into() };
        assert_eq!(line("web-1", &last).map(|line| (line.text, line.partial)), Some(("last".into(), false)));
        assert_eq!(line("web-1", &LogOutput::StdOut { message: "no time".into() }), None);
    }
}
