//! From the keeper's log records to lines.

use std::collections::VecDeque;

use cocktail_core::contract::{LogLine, LogOptions, LogStream};
use cocktail_core::error::Error;
use cocktail_core::id::ContainerId;
use cocktail_core::time::WallTime;
use cocktail_keeper::protocol::LogsRequest;
use cocktail_keeper::{LogItem, LogRecord};
use futures_util::StreamExt;
use futures_util::stream;

use crate::error::{Call, of_keeper};

/// What the keeper is asked for.
pub(crate) fn request(container: &ContainerId, options: &LogOptions) -> LogsRequest {
    LogsRequest {
        container: container.to_string(),
        follow: options.follow,
        since_us: options.since.map(|at| at.0),
        tail: options.tail,
    }
}

/// Lines of a log, oldest first. After an error it ends.
pub(crate) fn lines(container: &ContainerId, log: cocktail_keeper::LogStream) -> LogStream {
    let reading = Reading { container: container.to_string(), log: Some(log), ready: VecDeque::new() };
    stream::unfold(reading, |mut reading| async move {
        let line = reading.next().await?;
        Some((line, reading))
    })
    .boxed()
}

struct Reading {
    container: String,
    log: Option<cocktail_keeper::LogStream>,
    ready: VecDeque<LogLine>,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<LogLine, Error>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            match self.log.as_mut()?.next().await {
                Ok(Some(LogItem::Records(records))) => {
                    let lines = records.split_inclusive(|&byte| byte == b'\n');
                    let lines = lines.filter_map(|line| of_record(&self.container, LogRecord::parse(line)?));
                    self.ready.extend(lines);
                }
                Ok(Some(LogItem::Notice(text))) => self.ready.push_back(LogLine {
                    container: self.container.clone(),
                    at: WallTime::default(),
                    stderr: true,
                    partial: false,
                    text: format!("[{text}]"),
                }),
                Ok(None) => self.log = None,
                Err(error) => {
                    self.log = None;
                    return Some(Err(of_keeper(error, Call::Reads)));
                }
            }
        }
    }
}

fn of_record(container: &str, record: LogRecord<'_>) -> Option<LogLine> {
    Some(LogLine {
        container: container.to_owned(),
        at: WallTime::parse(record.at).ok()?,
        stderr: record.stderr,
        partial: record.partial,
        text: String::from_utf8_lossy(record.text).into_owned(),
    })
}
