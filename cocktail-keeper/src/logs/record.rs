//! From bytes of a pipe to records of a log: `TIME O text`, one a line.

/// The longest text of one record; a longer line goes on in the next.
pub(super) const MAX_TEXT: usize = 16 * 1024;

/// The unfinished line of one pipe, and which pipe it is.
#[derive(Debug)]
pub(super) struct Splitter {
    rest: Vec<u8>,
    stderr: bool,
}

impl Splitter {
    pub(super) fn new(stderr: bool) -> Self {
        Self { rest: Vec::new(), stderr }
    }

    /// Appends the records that `chunk` completes to `out`. Keeps less than [`MAX_TEXT`] bytes.
    pub(super) fn push(&mut self, chunk: &[u8], at: &str, out: &mut Vec<u8>) {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            while self.rest.len() + text.len() > MAX_TEXT {
                let (head, tail) = text.split_at(MAX_TEXT - self.rest.len());
                self.record(head, at, false, out);
                text = tail;
            }
            if whole {
                self.record(text, at, true, out);
            } else {
                self.rest.extend_from_slice(text);
            }
        }
    }

    /// Appends what is left when the pipe ends.
    pub(super) fn end(&mut self, at: &str, out: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            self.record(b"", at, false, out);
        }
    }

    fn record(&mut self, text: &[u8], at: &str, whole: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(at.as_bytes());
        out.extend_from_slice(match (self.stderr, whole) {
            (false, true) => b" O ",
            (false, false) => b" o ",
            (true, true) => b" E ",
            (true, false) => b" e ",
        });
        out.extend_from_slice(&self.rest);
        out.extend_from_slice(text);
        out.push(b'\n');
        // Dropped rather than cleared: most lines come whole, and idle workers must cost nothing.
        self.rest = Vec::new();
    }
}

/// A time as records carry it: UTC, microseconds, 27 characters, so that texts compare as times do.
pub(crate) fn timestamp(at: jiff::Timestamp) -> String {
    format!("{at:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-11-21T20:00:00.123456Z";

    fn records(splitter: &mut Splitter, chunk: &[u8]) -> String {
        let mut out = Vec::new();
        splitter.push(chunk, AT, &mut out);
        String::from_utf8(out).unwrap().replace(AT, "@")
    }

    #[test]
    fn lines_become_records_however_they_arrive() {
        let mut splitter = Splitter::new(false);
        assert_eq!(records(&mut splitter, b"a\n\nb"), "@ O a\n@ O \n");
        assert_eq!(records(&mut splitter, b"c\n"), "@ O bc\n");
    }

    #[test]
    fn a_line_without_end_becomes_partial_records_of_bounded_size() {
        let mut splitter = Splitter::new(true);
        let out = records(&mut splitter, &vec![b'x'; 3 * MAX_TEXT]);
        assert_eq!(out.matches("@ e ").count(), 2);
        assert!(splitter.rest.len() <= MAX_TEXT);
        let mut last = Vec::new();
        splitter.end(AT, &mut last);
        assert_eq!(last.len(), AT.len() + 3 + MAX_TEXT + 1);
    }

    #[test]
    fn times_have_a_fixed_width_and_compare_as_text() {
        let early = timestamp(jiff::Timestamp::from_microsecond(1_700_000_000_000_000).unwrap());
        let late = timestamp(jiff::Timestamp::from_microsecond(1_700_000_000_000_001).unwrap());
        assert_eq!(early.len(), 27);
        assert!(early < late);
    }
}
