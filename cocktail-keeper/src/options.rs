//! What a keeper is started with.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// What a keeper is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeeperOptions {
    /// The runtime directory, made 0700: socket, lock, the keeper's own log. One keeper per directory.
    pub dir: PathBuf,
    /// Where the workers' logs go, made 0700.
    pub logs: PathBuf,
    /// A keeper that holds nothing and that nobody is connected to ends after this time.
    pub idle_exit: Duration,
    /// A log file is rotated when it is larger than this.
    pub log_bytes: u64,
    /// How many files a container's log has at most, the current one included.
    pub log_files: u32,
    /// Exec sessions at a time.
    pub exec_sessions: u32,
}

impl Default for KeeperOptions {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            logs: PathBuf::new(),
            idle_exit: Duration::from_secs(60),
            log_bytes: 8 * 1024 * 1024,
            log_files: 4,
            exec_sessions: 32,
        }
    }
}

impl KeeperOptions {
    /// Options with defaults for these two directories.
    pub fn new(dir: impl Into<PathBuf>, logs: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), logs: logs.into(), ..Self::default() }
    }

    /// The socket of the keeper of this directory.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("keeper.sock")
    }
}
