//! What a container has written: its last lines, in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use cocktail_core::contract::{LogLine, LogOptions, LogStream};
use cocktail_core::id::ContainerId;
use cocktail_core::time::WallTime;
use futures_util::{StreamExt, stream};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;

/// Lines that are kept; the oldest make room.
const KEPT: usize = 10_000;

#[derive(Debug)]
pub(crate) struct Output {
    container: ContainerId,
    lines: Mutex<Lines>,
    /// Number of lines so far, for those who follow.
    written: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<LogLine>,
    /// Number of the first line that is kept.
    first: u64,
}

impl Output {
    pub(crate) fn new(container: ContainerId) -> Arc<Self> {
        Arc::new(Self { container, lines: Mutex::default(), written: watch::Sender::new(0) })
    }

    /// Takes lines until nobody can write any more.
    pub(crate) async fn read(&self, from: impl AsyncRead + Unpin, stderr: bool) {
        let mut lines = BufReader::new(from).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            let text = String::from_utf8_lossy(&line).into_owned();
            let (container, at) = (self.container.to_string(), now());
            self.push(LogLine { container, at, stderr, partial: false, text });
        }
    }

    fn push(&self, mut line: LogLine) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // The clock may be set back, the order of lines not.
        line.at = lines.kept.back().map_or(line.at, |last| last.at.max(line.at));
        lines.kept.push_back(line);
        if lines.kept.len() > KEPT {
            lines.kept.pop_front();
            lines.first += 1;
        }
        self.written.send_replace(lines.first + lines.kept.len() as u64);
    }

    /// Lines from number `from` on, and the number after the last.
    fn since(&self, from: u64) -> (Vec<LogLine>, u64) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = usize::try_from(from.saturating_sub(lines.first)).unwrap_or(usize::MAX);
        (lines.kept.iter().skip(skip).cloned().collect(), lines.first + lines.kept.len() as u64)
    }

    /// Lines as they are asked for. A stream that follows ends when the container is removed.
    pub(crate) fn stream(self: &Arc<Self>, options: &LogOptions) -> LogStream {
        let (since, grep) = (options.since, options.grep.clone());
        let wanted = move |line: &LogLine| {
            since.is_none_or(|since| line.at >= since) && grep.as_ref().is_none_or(|text| line.text.contains(text))
        };
        let (mut lines, next) = self.since(0);
        lines.retain(&wanted);
        let tail = options.tail.and_then(|tail| usize::try_from(tail).ok()).unwrap_or(usize::MAX);
        lines.drain(..lines.len().saturating_sub(tail));
        let there = stream::iter(lines).map(Ok);
        if !options.follow {
            return there.boxed();
        }
        // The container alone keeps the output alive, so whoever follows does not.
        let following = (Arc::downgrade(self), self.written.subscribe(), next);
        let coming = stream::unfold(following, |(output, mut written, next)| async move {
            written.wait_for(|count| *count > next).await.ok()?;
            let (lines, next) = output.upgrade()?.since(next);
            Some((stream::iter(lines), (output, written, next)))
        });
        let coming = coming.flatten().filter(move |line| std::future::ready(wanted(line))).map(Ok);
        there.chain(coming).boxed()
    }
}

fn now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
