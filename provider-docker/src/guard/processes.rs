//! The processes of containers, without their engine: found by their environment, and killed.
//!
//! A container ends with its first process, which has the environment that the engine was given. Processes of other users
//! can be looked at by root alone, and those of another machine by nobody: what is not found here only its engine can end.

use std::fs::{self, File};
use std::io::Read as _;

use cocktail_core::error::{Error, Result};
use cocktail_core::id::StoreId;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::body::{OUTLIVES_VARIABLE, STORE_VARIABLE};

/// What is read of an environment: a process says itself how long its own is.
const MOST: u64 = 256 << 10;

/// Kills every process of a store's containers that are not to run on; how many that were.
///
/// # Errors
/// `Unavailable` without `/proc`. A process that cannot be looked at is left out.
pub(super) fn kill(store: &StoreId) -> Result<usize> {
    let all = fs::read_dir("/proc").map_err(|error| Error::unavailable("/proc cannot be read").because(error))?;
    let mut killed = 0;
    for entry in all.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        // Opened first, so that it is the same one that is looked at and killed.
        let Some(process) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { continue };
        let mut environment = Vec::new();
        let read = File::open(entry.path().join("environ")).and_then(|it| it.take(MOST).read_to_end(&mut environment));
        if read.is_err() {
            continue;
        }
        if is_over(&environment, store) && pidfd_send_signal(&process, Signal::KILL).is_ok() {
            killed += 1;
        }
    }
    Ok(killed)
}

fn is_over(environment: &[u8], store: &StoreId) -> bool {
    let says = |name: &str, value: &str| {
        let entry = format!("{name}={value}");
        environment.split(|byte| *byte == 0).any(|own| own == entry.as_bytes())
    };
    says(STORE_VARIABLE, store.as_str()) && says(OUTLIVES_VARIABLE, "false")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_and_not_to_run_on_is_over() {
        let store = StoreId::new("agent-1");
        for (environment, over) in [
            ("PATH=/bin\0COCKTAIL_STORE=agent-1\0COCKTAIL_OUTLIVES_LEASE=false\0", true),
            ("COCKTAIL_STORE=agent-1\0COCKTAIL_OUTLIVES_LEASE=true\0", false),
            ("COCKTAIL_STORE=agent-12\0COCKTAIL_OUTLIVES_LEASE=false\0", false),
            ("COCKTAIL_STORE=agent-1\0", false),
            ("", false),
        ] {
            assert_eq!(is_over(environment.as_bytes(), &store), over, "{environment:?}");
        }
    }
}
