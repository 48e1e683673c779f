//! Ctrl-C and its relatives, for the commands that must tidy up: `up` and `serve`.

use std::fs;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Failure, Outcome};

/// Listens for SIGINT, SIGTERM and SIGHUP. From its making on they no longer end the process by themselves.
#[derive(Debug)]
pub(crate) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
    /// `None` where whoever started us, such as `nohup`, wants SIGHUP ignored.
    hang_up: Option<Signal>,
}

impl Interrupt {
    /// Begins to listen.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn listen() -> Outcome<Self> {
        let ignored = fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hang_up(&status));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hang_up: if ignored { None } else { Some(on(SignalKind::hangup())?) },
        })
    }

    /// Returns when a signal has come. Signals that came before count as one.
    pub(crate) async fn wait(&mut self) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hang_up => {}
        }
    }
}

/// Listens for one kind of signal, which no longer does what it does by itself.
///
/// # Errors
/// The system refuses.
#[expect(clippy::disallowed_methods, reason = "this is the program: the library leaves signals to it")]
pub(crate) fn on(kind: SignalKind) -> Outcome<Signal> {
    signal(kind).map_err(|error| Failure::Failed(format!("cannot listen for signals: {error}")))
}

/// Whether SIGHUP (1) is in the mask of ignored signals of `/proc/PID/status`.
fn ignores_hang_up(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_hang_up_is_seen() {
        assert!(ignores_hang_up("Name:\tx\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hang_up("Name:\tx\nSigIgn:\t0000000000001000\n"));
        assert!(!ignores_hang_up(""));
    }
}
