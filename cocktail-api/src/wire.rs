//! Bodies, queries and lines of the API, as both ends write and read them.
//!
//! Answers are the views of [`cocktail_core::view`] as JSON, or one of them a line where they are a stream; what is
//! here is the rest. Times are RFC 3339. Requests with unknown keys are refused rather than half obeyed, so that a
//! newer client learns that an older Manager does not know what it asks for; answers may gain keys.

use std::time::Duration;

use cocktail_core::contract::{
    ApplyOptions, EventFilter, ExecSpec, LogLine, LogOptions, ManifestSource, RearrangeOptions, RolloutAction,
    ShutdownMode,
};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::fleet::Late;
use cocktail_core::id::Seq;
use cocktail_core::time::WallTime;
use cocktail_core::view::ErrorView;
use serde::{Deserialize, Serialize};

/// Longest manifest that is taken, in bytes. A Manager's memory must not depend on what it is sent.
pub const LONGEST_MANIFEST: usize = 1 << 20;

/// What the exec route upgrades to.
pub const EXEC_PROTOCOL: &str = "cocktail-exec";

/// Body of `apply` and `plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sources {
    /// The manifests.
    pub sources: Vec<ManifestSource>,
    /// Asks again what the references of images stand for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pull: bool,
}

impl Sources {
    /// What is asked beside the manifests.
    pub fn options(&self) -> ApplyOptions {
        ApplyOptions { pull: self.pull }
    }

    /// Checks what can be said without reading the manifests.
    ///
    /// # Errors
    /// `InvalidConfig` for a manifest that is too long and for a folder that is not absolute.
    pub fn check(&self) -> Result<()> {
        for source in &self.sources {
            let file = source.file.display();
            if source.text.len() > LONGEST_MANIFEST {
                let found = source.text.len();
                return Err(Error::invalid(format!(
                    "{file} has {found} bytes, a manifest has at most {LONGEST_MANIFEST}"
                )));
            }
            if !source.base.is_absolute() {
                return Err(Error::invalid(format!("the folder of {file} must be an absolute path")));
            }
        }
        Ok(())
    }
}

/// Body of `scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Count {
    /// Containers wanted.
    pub count: u32,
}

/// Body of `extend` and `reduce`; by one when there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct By {
    /// How many containers more or less.
    pub by: u32,
}

impl Default for By {
    fn default() -> Self {
        Self { by: 1 }
    }
}

/// Body of `steer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Steer {
    /// What to do to the rollout.
    pub action: RolloutAction,
}

/// Body of `rollback`; to the revision that served before when there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rollback {
    /// The revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}

/// Body of `token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// How long it is good, in milliseconds.
    pub ttl_millis: u64,
}

/// Body of `revoke`; without a reason the server is let in again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Revoke {
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// Body of `rotate`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rotate {
    /// The old authority is trusted no longer.
    pub finish: bool,
}

/// Body of `rearrange`; as long as it takes, and without giving the server back, when there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rearrange {
    /// Time until the server has to be empty, in milliseconds; as long as it takes when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_millis: Option<u64>,
    /// What happens then with what is still there.
    pub late: Late,
    /// The server is given back once it is empty.
    pub give_back: bool,
}

impl From<RearrangeOptions> for Rearrange {
    fn from(options: RearrangeOptions) -> Self {
        let deadline_millis = options.deadline.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        Self { deadline_millis, late: options.late, give_back: options.give_back }
    }
}

impl From<Rearrange> for RearrangeOptions {
    fn from(body: Rearrange) -> Self {
        let deadline = body.deadline_millis.map(Duration::from_millis);
        Self { deadline, late: body.late, give_back: body.give_back }
    }
}

/// Body of `shutdown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// What becomes of the workers.
    pub mode: ShutdownMode,
}

/// Body of commands that need none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nothing {}

/// Body of `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// With a terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<Terminal>,
    /// Longest time for it, in milliseconds; no limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_millis: Option<u64>,
}

/// Size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terminal {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl From<&ExecSpec> for Exec {
    fn from(spec: &ExecSpec) -> Self {
        Self {
            command: spec.command.clone(),
            tty: spec.tty.map(|(rows, columns)| Terminal { rows, columns }),
            timeout_millis: spec.timeout.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

impl From<Exec> for ExecSpec {
    fn from(body: Exec) -> Self {
        Self {
            command: body.command,
            tty: body.tty.map(|size| (size.rows, size.columns)),
            timeout: body.timeout_millis.map(Duration::from_millis),
        }
    }
}

/// Query of `events`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventQuery {
    /// First position; the oldest that is kept when absent.
    pub from: Option<u64>,
    /// Only the last that many of what is there.
    pub tail: Option<usize>,
    /// Go on with what happens.
    pub follow: bool,
    /// Only events of this object.
    pub object: Option<String>,
}

impl From<EventQuery> for EventFilter {
    fn from(query: EventQuery) -> Self {
        Self { from: query.from.map(Seq), tail: query.tail, follow: query.follow, object: query.object }
    }
}

/// Query of `watch/endpoints`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchQuery {
    /// Only the endpoints of Units with this name, `service/map/unit` or the end of that.
    pub unit: Option<String>,
}

/// Query of `logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogQuery {
    /// Go on with what is written.
    pub follow: bool,
    /// Only the last that many lines.
    pub tail: Option<u64>,
    /// Only lines from this time on, RFC 3339.
    pub since: Option<String>,
    /// Only lines that contain this text.
    pub grep: Option<String>,
}

impl TryFrom<LogQuery> for LogOptions {
    type Error = Error;
    fn try_from(query: LogQuery) -> Result<Self> {
        let since = match &query.since {
            None => None,
            Some(text) => Some(WallTime::parse(text).map_err(|error| {
                Error::invalid("since is no time: write it as in 2026-01-31T12:00:00Z").because(error)
            })?),
        };
        Ok(Self { follow: query.follow, tail: query.tail, since, grep: query.grep })
    }
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The container.
    pub container: String,
    /// When it was read, RFC 3339 in UTC with microseconds.
    pub at: String,
    /// Whether it came from stderr.
    pub stderr: bool,
    /// Whether the line goes on in the next one.
    pub partial: bool,
    /// The text.
    pub text: String,
}

impl From<LogLine> for Output {
    fn from(line: LogLine) -> Self {
        Self {
            container: line.container,
            at: exact_time(line.at),
            stderr: line.stderr,
            partial: line.partial,
            text: line.text,
        }
    }
}

impl TryFrom<Output> for LogLine {
    type Error = Error;
    fn try_from(line: Output) -> Result<Self> {
        let at = WallTime::parse(&line.at)
            .map_err(|error| Error::unexpected("the Manager sent a line with a time that is none").because(error))?;
        Ok(Self { container: line.container, at, stderr: line.stderr, partial: line.partial, text: line.text })
    }
}

/// RFC 3339 with microseconds: who goes on from the time of a last line must not see it again.
pub(crate) fn exact_time(at: WallTime) -> String {
    let fraction = at.0.rem_euclid(1_000_000);
    let second = WallTime(at.0 - fraction).to_string();
    format!("{}.{fraction:06}Z", second.trim_end_matches(".000Z"))
}

/// An error as it travels: the kind, and the message with everything below it in one line.
pub fn error_view(error: &Error) -> ErrorView {
    ErrorView { error: error.kind().clone(), message: error.chain(), diagnostics: error.diagnostics().to_vec() }
}

/// The error that [`error_view`] was made from, without its sources: they are in the message.
pub fn error_from(view: ErrorView) -> Error {
    Error::new(view.error, view.message).with_diagnostics(view.diagnostics)
}

/// One line of a stream: an item, or what went wrong instead of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<T> {
    /// An item.
    Item(T),
    /// An error; the stream may go on after it.
    Failed(ErrorView),
}

impl<T: for<'de> Deserialize<'de>> Line<T> {
    /// Reads one line. Items have no key `error` that holds an object, errors always have one.
    ///
    /// # Errors
    /// `Unexpected` when it is neither.
    pub fn read(text: &[u8]) -> Result<Self> {
        match serde_json::from_slice(text) {
            Ok(item) => Ok(Self::Item(item)),
            Err(error) => match serde_json::from_slice(text) {
                Ok(view) => Ok(Self::Failed(view)),
                Err(_) => {
                    Err(Error::new(ErrorKind::Unexpected, "the Manager sent a line that cannot be read").because(error))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_keeps_its_microseconds() {
        for micros in [0, 1, 999_999, 1_700_000_000_123_456, -1, 1_700_000_000_000_000] {
            let text = exact_time(WallTime(micros));
            assert_eq!(WallTime::parse(&text).unwrap(), WallTime(micros), "{text}");
        }
    }

    #[test]
    fn a_manifest_that_is_too_long_is_refused() {
        let source = |text: String| ManifestSource { file: "a.toml".into(), base: "/srv".into(), text };
        assert!(Sources { sources: vec![source("x".repeat(LONGEST_MANIFEST))], pull: false }.check().is_ok());
        let error =
            Sources { sources: vec![source("x".repeat(LONGEST_MANIFEST + 1))], pull: false }.check().unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::InvalidConfig);
    }

    #[test]
    fn a_folder_that_is_relative_is_refused() {
        let source = ManifestSource { file: "a.toml".into(), base: "srv".into(), text: String::new() };
        assert!(Sources { sources: vec![source], pull: false }.check().is_err());
    }
}
