//! Several logs as one, by the time of their lines.
//!
//! Start at [`Merge::next`]. It holds one line of each log, so that long logs take little memory and none runs ahead of
//! the others. The earliest line goes out when no other log can bring an earlier one: each has a line too, or has ended,
//! or was silent for the [`WINDOW`] once, which says that it has no old lines left. What is written while it is followed
//! goes out when it is as old as the window. Lines of one log keep their order, whatever times they carry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cocktail_core::contract::{LogLine, LogStream};
use cocktail_core::error::Result;
use cocktail_core::time::WallTime;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use crate::clock::Clock;

/// Longest time that a line waits for earlier ones of other logs.
pub(super) const WINDOW: Duration = Duration::from_millis(100);
/// Unwanted lines after which a log says that it is still being read.
const SKIPPED: usize = 256;

/// Which lines are wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    pub(super) grep: Option<Arc<str>>,
    pub(super) since: Option<WallTime>,
}

impl Filter {
    pub(super) fn takes(&self, line: &LogLine) -> bool {
        // What has no time is a notice about the log itself.
        let in_time = self.since.is_none_or(|since| line.at >= since || line.at == WallTime::default());
        in_time && self.grep.as_ref().is_none_or(|text| line.text.contains(&**text))
    }
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Next {
    Line(Result<LogLine>),
    /// Every log has given what it had when it was added; told once.
    Settled,
}

/// Logs that are read, and the next line of each.
pub(super) struct Merge {
    filter: Filter,
    /// Logs without a line here.
    reading: FuturesUnordered<BoxFuture<'static, Read>>,
    /// The other logs by the time of their line.
    heads: BTreeMap<(WallTime, usize), Head>,
    /// Logs that are being read and may have old lines left, and since when they are silent.
    silent: BTreeMap<usize, Instant>,
    /// Logs without old lines.
    settled: BTreeSet<usize>,
    told: bool,
    added: usize,
    /// Lines of that time or later were written since the merge was made.
    opened: WallTime,
}

struct Head {
    line: Result<LogLine>,
    log: Log,
    /// When it goes out even though a log that is silent could bring an earlier one.
    due: Instant,
}

struct Log {
    number: usize,
    stream: LogStream,
    /// Time of its last line.
    last: WallTime,
    /// Its last line goes on in the next one.
    partial: bool,
}

struct Read {
    log: Log,
    found: Found,
}

enum Found {
    Line(Result<LogLine>),
    /// Nothing that is wanted, yet.
    Skipped,
    Ended,
}

impl Merge {
    pub(super) fn new(filter: Filter) -> Self {
        Self {
            filter,
            reading: FuturesUnordered::new(),
            heads: BTreeMap::new(),
            silent: BTreeMap::new(),
            settled: BTreeSet::new(),
            told: false,
            added: 0,
            opened: Clock::wall(),
        }
    }

    /// Adds a log.
    pub(super) fn add(&mut self, stream: LogStream) {
        let number = self.added;
        self.added += 1;
        self.read(Log { number, stream, last: WallTime::default(), partial: false });
    }

    /// Whether every log has ended.
    pub(super) fn is_empty(&self) -> bool {
        self.heads.is_empty() && self.reading.is_empty()
    }

    /// Whether a line was written after the merge was made.
    pub(super) fn is_new(&self, line: &LogLine) -> bool {
        line.at >= self.opened
    }

    /// What comes next; `None` when every log has ended. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Next> {
        loop {
            let now = Instant::now();
            self.settle(now);
            let due = self.heads.first_key_value().map(|(_, head)| head.due);
            match due {
                None if self.reading.is_empty() => return None,
                None if self.silent.is_empty() && !self.told => {
                    self.told = true;
                    return Some(Next::Settled);
                }
                Some(due) if self.silent.is_empty() && (self.reading.is_empty() || due <= now) => {
                    let (_, head) = self.heads.pop_first()?;
                    if head.line.is_ok() {
                        self.read(head.log);
                    }
                    return Some(Next::Line(head.line));
                }
                _ => {}
            }
            let wake = self.silent.values().min().map(|since| *since + WINDOW).or(due);
            tokio::select! {
                biased;
                Some(read) = self.reading.next() => self.take(read),
                () = sleep_until(wake.unwrap_or(now + WINDOW)) => {}
            }
        }
    }

    /// Logs that have been silent for long enough have no old lines.
    fn settle(&mut self, now: Instant) {
        let Self { silent, settled, .. } = self;
        silent.retain(|number, since| {
            let over = *since + WINDOW <= now;
            if over {
                settled.insert(*number);
            }
            !over
        });
    }

    fn take(&mut self, Read { mut log, found }: Read) {
        self.silent.remove(&log.number);
        match found {
            Found::Line(line) => {
                let now = Instant::now();
                let mut due = now;
                if let Ok(line) = &line {
                    if self.is_new(line) {
                        self.settled.insert(log.number);
                    }
                    // A part of a line follows the part before it, and a clock that was set back changes no order.
                    log.last = if log.partial { log.last } else { log.last.max(line.at) };
                    log.partial = line.partial;
                    let left = line.at.0.saturating_add(WINDOW.as_micros() as i64).saturating_sub(Clock::wall().0);
                    due += Duration::from_micros(u64::try_from(left).unwrap_or(0)).min(WINDOW);
                }
                self.heads.insert((log.last, log.number), Head { line, log, due });
            }
            Found::Skipped => self.read(log),
            Found::Ended => {
                self.settled.remove(&log.number);
            }
        }
    }

    fn read(&mut self, mut log: Log) {
        if !self.settled.contains(&log.number) {
            self.silent.insert(log.number, Instant::now());
        }
        let filter = self.filter.clone();
        self.reading.push(Box::pin(async move {
            for _ in 0..SKIPPED {
                match log.stream.next().await {
                    Some(Ok(line)) if !filter.takes(&line) => {}
                    Some(line) => return Read { log, found: Found::Line(line) },
                    None => return Read { log, found: Found::Ended },
                }
            }
            Read { log, found: Found::Skipped }
        }));
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
