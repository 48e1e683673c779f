//! HAProxy in TCP mode, with nothing switched on or off but what the mode needs.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::Setup;
use crate::proc::{self, Owned};

/// A HAProxy that forwards one port to one worker, with as many threads as it chooses (one per core).
pub(crate) struct HaProxy {
    _folder: TempDir,
    process: Owned,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl HaProxy {
    pub(crate) fn start(setup: &Setup, worker: SocketAddr) -> Result<Self> {
        let folder = setup.folder("haproxy")?;
        let address = SocketAddr::from(([127, 0, 0, 1], super::free_port()?));
        let config = folder.path().join("haproxy.cfg");
        let text = format!(
            "global\n    maxconn 4096\n\
             defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n\
             frontend service\n    bind {address}\n    default_backend workers\n\
             backend workers\n    balance leastconn\n    server worker {worker}\n"
        );
        fs::write(&config, text).context("cannot write HAProxy's configuration")?;
        let log = folder.path().join("output.log");
        let process = super::start(Command::new(setup.haproxy()?).arg("-db").arg("-f").arg(&config), &log)?;
        proc::wait_for("HAProxy", Duration::from_secs(10), || TcpStream::connect(address).is_ok())
            .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(Self { _folder: folder, process, address })
    }

    /// All its processes.
    pub(crate) fn processes(&self) -> Vec<i32> {
        proc::tree(self.process.pid())
    }

    /// Name and version, for reports.
    pub(crate) fn version(setup: &Setup) -> Result<String> {
        let output = super::run(Command::new(setup.haproxy()?).arg("-v"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(format!("HAProxy {}", text.split_whitespace().nth(2).context("HAProxy names no version")?))
    }
}
