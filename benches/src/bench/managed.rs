//! What `bench-manager` is asked and what it answers: a whole Manager over simulated servers, in a process of its own.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;

use crate::{Setup, drivers};

/// Runs one measurement with a fresh store on the disk of the work dir.
pub(crate) fn run<T: DeserializeOwned>(setup: &Setup, mode: &str, numbers: &[usize]) -> Result<T> {
    let folder = setup.folder(mode)?;
    let mut command = Command::new(setup.program("bench-manager"));
    command.arg(mode).arg(folder.path()).args(numbers.iter().map(ToString::to_string));
    let output = drivers::run(&mut command)?;
    serde_json::from_slice(&output.stdout).context("bench-manager printed something else")
}
