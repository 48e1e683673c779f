//! What a command said and how it ended.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use serde_json::Value;

/// What a command said and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, for people.
    pub shown: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its data.
    pub stdout: String,
    /// What it said to people.
    pub stderr: String,
}

impl Output {
    /// Its exit code; 128 and the signal for one that a signal ended.
    pub fn code(&self) -> i32 {
        self.status.code().or_else(|| self.status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
    }

    /// The same, of a command that must have succeeded.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code(), 0, "a command failed: {self}");
        self
    }

    /// What it said to people, of a command that must have ended with `code`. It must not have written data, since a
    /// script would take them for an answer, and must have said something: a script's author wants to know why.
    ///
    /// # Panics
    /// When it is otherwise.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code(), code, "a command ended differently: {self}");
        assert!(self.stdout.is_empty(), "a command that failed wrote data: {self}");
        assert!(!self.stderr.trim().is_empty(), "a command failed without a word: {self}");
        assert!(!self.stderr.contains("panicked"), "a command panicked: {self}");
        self.stderr
    }

    /// Its data as JSON, of a command that must have succeeded.
    ///
    /// # Panics
    /// When it has not, or the data is something else.
    #[track_caller]
    pub fn json(self) -> Value {
        let output = self.ok();
        match serde_json::from_str(&output.stdout) {
            Ok(value) => value,
            Err(error) => panic!("no JSON ({error}): {output}"),
        }
    }

    /// Its data as one JSON value a line, of a command that must have succeeded.
    ///
    /// # Panics
    /// When it has not, or the data is something else.
    #[track_caller]
    pub fn json_lines(self) -> Vec<Value> {
        let output = self.ok();
        let value = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}): {output}"));
        output.stdout.lines().map(value).collect()
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({})", self.shown, self.status)?;
        writeln!(f, "--- stdout\n{}", self.stdout.trim_end())?;
        write!(f, "--- stderr\n{}", self.stderr.trim_end())
    }
}
