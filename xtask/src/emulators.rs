//! Something to try providers against: `cargo xtask emulators docker` is a Docker engine of its own, as tests have it, with a
//! registry that wants a password.

use std::process::Command;

use anyhow::{Result, bail};
use xtask::engine::{Network, PrivateEngine};
use xtask::registry::{PASSWORD, PrivateRegistry, USER};

use crate::context::Context;
use crate::setup::{self, Tool};

/// The image that is there already: a busybox.
const IMAGE: &str = "busybox:latest";

/// Installs what the emulator of that name needs, starts it, says how to use it, and waits until it is ended.
///
/// # Errors
/// When there is none of that name, or it cannot be started.
pub(crate) fn run(context: &Context, name: Option<&str>) -> Result<()> {
    let Some("docker") = name else { bail!("emulators: docker") };
    setup::install(context, &[Tool::IpRoute, Tool::Docker, Tool::Registry, Tool::Busybox], false)?;
    let folder = tempfile::Builder::new().prefix("ckt").tempdir_in("/tmp")?;
    let engine = PrivateEngine::start(folder.path(), Network::Own)?;
    engine.import_busybox(IMAGE)?;
    println!("engine   {} (process {}), with the image {IMAGE}", engine.url(), engine.pid());
    let registry = PrivateRegistry::start(&folder.path().join("registry"), &engine)?;
    let pushed = registry.push(&engine, IMAGE, IMAGE)?;
    println!("registry {} (process {}), with the image {pushed}", registry.host(), registry.pid());
    println!("         username {USER:?}, password {PASSWORD:?}");
    println!("network  nsenter --net=/proc/{}/ns/net COMMAND, where its published ports are", engine.pid());
    println!("end      close the standard input (Ctrl-D)");
    // Whatever is typed, until there is no more.
    Command::new("cat").stdout(std::process::Stdio::null()).status()?;
    Ok(())
}
