//! What happened, as a number that is the same for the same run, and as lines for people.

use std::fmt::{self, Write as _};

/// The trace of one run.
#[derive(Debug, Default)]
pub(super) struct Trace {
    hash: u64,
    /// Things that happened in the world, and events of the Manager's state.
    pub(super) events: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// A trace that keeps its lines if `lines` says so.
    pub(super) fn new(lines: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, events: 0, lines: lines.then(Vec::new) }
    }

    /// Something happened at `now` (milliseconds).
    pub(super) fn note(&mut self, now: u64, what: fmt::Arguments<'_>) {
        self.events += 1;
        // Writing into a number cannot fail.
        let _ = writeln!(self, "{now} {what}");
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>5}.{:03} {what}", now / 1000, now % 1000));
        }
    }

    /// Bytes that belong to the run, such as a turn of the journal.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Whether lines are kept.
    pub(super) fn has_lines(&self) -> bool {
        self.lines.is_some()
    }

    /// A line for people that is no part of the hash.
    pub(super) fn line(&mut self, now: u64, what: fmt::Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>5}.{:03}   {what}", now / 1000, now % 1000));
        }
    }

    /// The hash of everything so far.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines, where they were kept.
    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

impl fmt::Write for Trace {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}
