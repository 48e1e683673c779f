//! How a keeper comes to life.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::error::{KeeperError, Result};

/// What a keeper is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeeperOptions {
    /// The runtime directory, made 0700: socket, lock, the keeper's own log, the workers' pipes. One keeper per directory.
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

/// A keeper that runs on a thread of this process.
#[derive(Debug)]
pub struct KeeperHandle {
    socket: PathBuf,
}

impl KeeperHandle {
    /// Where it listens.
    pub fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// Ends it and waits for its thread. Its workers end too.
    pub fn shutdown(self) {}
}

/// First line of `main` of every program that starts keepers: a program becomes its own keeper by running itself again.
///
/// Returns at once in an ordinary run. In a run that was started to be a keeper it does not return.
pub fn init() {}

/// Starts a detached keeper for `options.dir` and returns when it accepts connections. If one runs already that one
/// stays. Blocks for some milliseconds. Installs no signal handler and waits for no process but its own.
///
/// # Errors
/// [`KeeperError::NotInitialised`] if [`init`] was not called in this process; [`KeeperError::NotStarted`].
pub fn spawn(options: &KeeperOptions) -> Result<()> {
    let _ = options;
    Err(KeeperError::NotInitialised)
}

/// Runs a keeper on a thread of this process, for tests and `keeper = "in-process"`. Same socket, same protocol; no
/// signal handler, no subreaper; workers end with the process.
///
/// # Errors
/// [`KeeperError::Io`], or [`KeeperError::NotStarted`] when another keeper has the directory.
pub fn serve_in_process(options: KeeperOptions) -> Result<KeeperHandle> {
    Ok(KeeperHandle { socket: options.socket() })
}
