//! What turns a connection into a stream.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Asks for a container's log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogsRequest {
    /// Container id; one that is forgotten but whose files were kept works too.
    pub container: String,
    /// Go on with new records until the client closes.
    pub follow: bool,
    /// Only records at or after this time, in microseconds since the Unix epoch.
    pub since_us: Option<i64>,
    /// At most this many of the last records.
    pub tail: Option<u64>,
}

/// Runs a command beside a container's main process, with its environment, directory and user.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecRequest {
    /// Container id.
    pub container: String,
    /// The program and its arguments, as in [`Start`](super::Start).
    pub argv: Vec<String>,
    /// Added to the container's environment.
    pub env: BTreeMap<String, String>,
    /// Give it a terminal.
    pub tty: bool,
    /// Rows of the terminal.
    pub rows: u16,
    /// Columns of the terminal.
    pub cols: u16,
}

impl std::fmt::Debug for ExecRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecRequest")
            .field("container", &self.container)
            .field("tty", &self.tty)
            .finish_non_exhaustive()
    }
}
