//! How cocktail and its peers are started, asked and ended, one module each.

mod cocktail;
mod haproxy;
mod pm2;
mod supervisord;

pub(crate) use cocktail::{Cocktail, Event};
pub(crate) use haproxy::HaProxy;
pub(crate) use pm2::Pm2;
pub(crate) use supervisord::Supervisord;

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("no port is free")?.local_addr()?.port())
}

/// Runs a command to its end and fails with what it printed unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stdout = String::from_utf8_lossy(&output.stdout);
        bail!("{name} failed: {}: {} {}", output.status, stdout.trim(), stderr.trim());
    }
    Ok(output)
}

/// Starts a program in the background; what it prints goes to a file, which errors quote.
fn start(command: &mut Command, log: &Path) -> Result<crate::proc::Owned> {
    let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn();
    Ok(crate::proc::Owned(child.with_context(|| format!("cannot start {name}"))?))
}
