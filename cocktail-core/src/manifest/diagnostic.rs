//! What is wrong with a manifest, and where.
//!
//! Start at [`Diagnostic`]. It carries everything that a reader needs except the text itself, travels over the API,
//! and is drawn with caret and help by [`super::render`]. [`Spans`] remembers where each key of a decoded file stands,
//! so that what is found out later (a command that does not exist, a port that is taken) can point there, too.
//!
//! A diagnostic never repeats a value that could be a secret: messages name keys and say what was expected.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Whether a [`Diagnostic`] stops the manifest from being applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is applied.
    Error,
    /// Applied all the same.
    Warning,
}

/// One thing that is wrong in one place of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Whether it stops the manifest.
    pub severity: Severity,
    /// The file as the caller named it.
    pub file: String,
    /// Place in the text, in bytes. Empty for what concerns the file as a whole.
    pub span: Range<usize>,
    /// Line of the start, from 1; 0 for what concerns the file as a whole.
    pub line: u32,
    /// Column of the start in characters, from 1; 0 for what concerns the file as a whole.
    pub column: u32,
    /// Dotted path of the key, such as `maps.prod.units.web.command`; empty outside of any key.
    pub key: String,
    /// What is wrong: one lower-case line without full stop.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl Diagnostic {
    /// Something that concerns the file as a whole.
    pub fn of_file(severity: Severity, file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity,
            file: file.into(),
            span: 0..0,
            line: 0,
            column: 0,
            key: String::new(),
            message: message.into(),
            help: None,
        }
    }

    /// The same with a sentence that says what to write instead.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Whether the source line may be shown: not where secrets are declared, because people paste values there.
    pub fn may_quote(&self) -> bool {
        !self.key.split('.').any(|part| part == "secrets" || part == "providers" || part == "registries")
    }
}

impl fmt::Display for Diagnostic {
    /// One line: `shop.toml:4:1: unknown key `comand` (did you mean `command`?)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// Where the keys of one decoded file stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spans {
    file: String,
    lines: Arc<Lines>,
    keys: BTreeMap<String, Range<usize>>,
}

impl Spans {
    pub(super) fn new(file: String, lines: Arc<Lines>, keys: BTreeMap<String, Range<usize>>) -> Self {
        Self { file, lines, keys }
    }

    /// The file as the caller named it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Place of `key`, or of the nearest table above it that the file has. `0..0` if there is none.
    pub fn find(&self, key: &str) -> Range<usize> {
        let mut key = key;
        loop {
            if let Some(span) = self.keys.get(key) {
                return span.clone();
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return 0..0,
            }
        }
    }

    /// An error at `key` (see [`Spans::find`]).
    pub fn error(&self, key: &str, message: impl Into<String>) -> Diagnostic {
        self.diagnostic(Severity::Error, key, message)
    }

    /// A warning at `key` (see [`Spans::find`]).
    pub fn warning(&self, key: &str, message: impl Into<String>) -> Diagnostic {
        self.diagnostic(Severity::Warning, key, message)
    }

    fn diagnostic(&self, severity: Severity, key: &str, message: impl Into<String>) -> Diagnostic {
        let span = self.find(key);
        let (line, column) = if span.is_empty() { (0, 0) } else { self.lines.position(span.start) };
        Diagnostic {
            severity,
            file: self.file.clone(),
            span,
            line,
            column,
            key: key.to_owned(),
            message: message.into(),
            help: None,
        }
    }

    /// `file:line:column` of `key`, to refer to it from a message about another place.
    pub fn place(&self, key: &str) -> String {
        let span = self.find(key);
        if span.is_empty() {
            return self.file.clone();
        }
        let (line, column) = self.lines.position(span.start);
        format!("{}:{line}:{column}", self.file)
    }
}

/// Starts of lines, and of the characters that take more than one byte, to turn bytes into lines and columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lines {
    starts: Vec<usize>,
    /// Bytes that only continue a character.
    continued: Vec<usize>,
}

impl Lines {
    pub(super) fn new(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let starts = std::iter::once(0).chain(ends).collect();
        let continued =
            text.bytes().enumerate().filter(|(_, byte)| byte & 0b1100_0000 == 0b1000_0000).map(|(at, _)| at).collect();
        Self { starts, continued }
    }

    /// Line and column of a byte, both from 1, the column in characters.
    pub(super) fn position(&self, at: usize) -> (u32, u32) {
        let line = self.starts.partition_point(|start| *start <= at).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let continued = |to: usize| self.continued.partition_point(|byte| *byte <= to);
        let column = at.saturating_sub(start) - (continued(at) - continued(start)) + 1;
        (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
    }
}
