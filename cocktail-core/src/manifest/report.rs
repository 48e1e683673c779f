//! Where a decoder puts what it finds, so that one pass reports every problem of a file.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Lines, Severity, Spans};

/// Problems that are shown; what exceeds them is counted.
pub(super) const SHOWN: usize = 20;

/// Problems that are kept for sorting, so that a hostile file costs a bounded amount of memory.
const KEPT: usize = 1_000;

/// Collects the problems and the places of one file.
pub(super) struct Report<'a> {
    pub(super) base: &'a Path,
    file: String,
    lines: Arc<Lines>,
    found: RefCell<Found>,
    /// Keys that each table accepts; only the test that compares them with the schema reads it.
    #[cfg(test)]
    pub(super) accepted: RefCell<BTreeMap<String, std::collections::BTreeSet<&'static str>>>,
}

#[derive(Default)]
struct Found {
    problems: Vec<Diagnostic>,
    dropped: usize,
    errors: usize,
    keys: BTreeMap<String, Range<usize>>,
}

impl<'a> Report<'a> {
    pub(super) fn new(text: &str, file: &Path, base: &'a Path) -> Self {
        Self {
            base,
            file: file.display().to_string(),
            lines: Arc::new(Lines::new(text)),
            found: RefCell::default(),
            #[cfg(test)]
            accepted: RefCell::default(),
        }
    }

    /// The file as the caller named it.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// Notes a problem.
    pub(super) fn add(
        &self,
        severity: Severity,
        span: Range<usize>,
        key: &str,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        let (line, column) = self.lines.position(span.start);
        let (file, key, message) = (self.file.clone(), key.to_owned(), message.into());
        self.push(Diagnostic { severity, file, span, line, column, key, message, help });
    }

    /// Notes a problem that is already complete.
    pub(super) fn push(&self, problem: Diagnostic) {
        let mut found = self.found.borrow_mut();
        found.errors += usize::from(problem.severity == Severity::Error);
        if found.problems.len() < KEPT {
            found.problems.push(problem);
        } else {
            found.dropped += 1;
        }
    }

    /// Whether further problems are only counted, so that nobody need look for suggestions.
    pub(super) fn is_full(&self) -> bool {
        self.found.borrow().problems.len() >= KEPT
    }

    /// Notes where a key stands.
    pub(super) fn place(&self, key: &str, span: Range<usize>) {
        self.found.borrow_mut().keys.insert(key.to_owned(), span);
    }

    /// Places noted so far, for checks that look at the decoded value.
    pub(super) fn spans(&self) -> Spans {
        Spans::new(self.file.clone(), Arc::clone(&self.lines), self.found.borrow().keys.clone())
    }

    /// The problems in the order of the text, and whether one of them is an error.
    pub(super) fn finish(self) -> (Vec<Diagnostic>, bool) {
        let found = self.found.into_inner();
        let failed = found.errors > 0;
        (bounded(&self.file, found.problems, found.dropped), failed)
    }
}

/// Sorts problems (errors before warnings, then by place) and replaces what exceeds [`SHOWN`] with a count.
pub(super) fn bounded(file: &str, mut problems: Vec<Diagnostic>, dropped: usize) -> Vec<Diagnostic> {
    problems.sort_by(|a, b| {
        (a.severity, &a.file, a.span.start, &a.message).cmp(&(b.severity, &b.file, b.span.start, &b.message))
    });
    problems.dedup();
    let more = problems.len().saturating_sub(SHOWN) + dropped;
    if more > 0 {
        let severity =
            if problems.iter().any(|p| p.severity == Severity::Error) { Severity::Error } else { Severity::Warning };
        problems.truncate(SHOWN);
        problems.push(Diagnostic::of_file(severity, file, format!("and {more} more")));
    }
    problems
}
