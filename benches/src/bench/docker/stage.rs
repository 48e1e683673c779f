//! An engine with a Manager beside it, in the network of this program.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tempfile::TempDir;
use xtask::engine::{Network, PrivateEngine};

use super::api::Api;
use super::recorder::Recorder;
use super::{PATIENCE, SURGE, UPDATED};
use crate::Setup;
use crate::drivers::{self, Cocktail};
use crate::proc;

/// The image that everything is made from: a busybox.
pub(super) const IMAGE: &str = "cocktail-bench:1";

pub(super) struct Stage {
    pub(super) ours: Cocktail,
    pub(super) api: Api,
    pub(super) recorder: Recorder,
    port: u16,
    engine: PrivateEngine,
    // After the engine, which has its files there.
    folder: TempDir,
}

/// A Unit that only waits.
pub(super) fn sleepers(count: usize) -> String {
    format!(
        "image = \"{IMAGE}\"\ncommand = [\"sleep\", \"36000\"]\nreplicas = {count}\n\
         restart = {{ base = \"0s\" }}\nstop = {{ grace = \"10s\" }}\n"
    )
}

impl Stage {
    pub(super) fn start(setup: &Setup, program: &Path) -> Result<Self> {
        // The path of a socket must be short.
        let folder = tempfile::Builder::new().prefix("ckb").tempdir_in("/tmp")?;
        let engine = PrivateEngine::start(folder.path(), Network::Ours)?;
        engine.import_busybox(IMAGE)?;
        let recorder = Recorder::start(&folder.path().join("r"), &engine.socket())?;
        let mut ours = Cocktail::install(setup, program, ("none", "cocktail-bench-none"))?;
        let url = format!("unix://{}", recorder.path().display());
        ours.settle(&format!("[providers.boxes]\nkind = \"docker\"\nendpoint = \"{url}\"\n"))?;
        ours.serve()?;
        let api = Api::new(&engine.socket());
        Ok(Self { ours, api, recorder, port: drivers::free_port()?, engine, folder })
    }

    /// Applies a manifest of one Unit.
    pub(super) fn apply(&self, unit: &str, keys: &str) -> Result<()> {
        let file = self.ours.manifest(&format!("service = \"bench\"\n[maps.bench.units.{unit}]\n{keys}"))?;
        self.ours.apply(&file)
    }

    /// Waits until a Unit is as it shall be.
    pub(super) fn settle(&self, unit: &str, count: usize) -> Result<()> {
        proc::wait_for("the unit", PATIENCE, || {
            let units = self.ours.json(&["units"]).unwrap_or_default();
            let found = units.as_array().and_then(|all| all.iter().find(|it| it["unit"] == unit).cloned());
            found.is_some_and(|it| it["ready"] == count && it["desired"] == count)
        })
    }

    /// Waits until the engine has nothing any more.
    pub(super) fn gone(&self) -> Result<()> {
        proc::wait_for("the end of all containers", PATIENCE, || {
            let left = self.api.call("GET", "/containers/json?all=true", "");
            left.is_ok_and(|left| left.as_array().is_some_and(Vec::is_empty))
        })
    }

    /// A Unit that serves, behind a service port.
    pub(super) fn servers(&self, version: u32) -> String {
        let port = self.port;
        format!(
            "image = \"{IMAGE}\"\nreplicas = {UPDATED}\nenv = {{ V = \"{version}\" }}\n\
             command = [\"sh\", \"-c\", \"cd /tmp && echo hello > index.html && exec httpd -f -p 80\"]\n\
             ports.http = {{ service = {port}, container = 80 }}\nready = {{ http = \"/index.html\" }}\n\
             update = {{ surge = {SURGE}, monitor = \"0s\" }}\nstop = {{ grace = \"10s\" }}\n"
        )
    }

    /// Asks the service port all the time, each time with a new connection.
    pub(super) fn load(&self) -> Result<Load> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let counts = Arc::new(Counts::default());
        let shared = counts.clone();
        let asking = thread::spawn(move || {
            while !shared.over.load(Ordering::Relaxed) {
                let asked = TcpStream::connect(address).context("no connection");
                match asked.and_then(|stream| drivers::ask(stream, "/index.html")) {
                    Ok(_) => shared.answered.fetch_add(1, Ordering::Relaxed),
                    Err(_) => shared.failed.fetch_add(1, Ordering::Relaxed),
                };
                thread::sleep(Duration::from_millis(10));
            }
        });
        Ok(Load { counts, asking })
    }

    /// The engine and what it runs containers with, without what stands before each of them.
    pub(super) fn engine_processes(&self) -> Vec<i32> {
        let engine = i32::try_from(self.engine.pid()).unwrap_or_default();
        let named = |pid: &i32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            matches!(name.trim(), "dockerd" | "containerd")
        };
        proc::tree(engine).into_iter().filter(named).collect()
    }

    /// Stops the Manager where it is, or lets it go on.
    pub(super) fn freeze(&self, still: bool) -> Result<()> {
        proc::signal(self.ours.manager()?, if still { Signal::STOP } else { Signal::CONT });
        Ok(())
    }

    /// Ends the Manager; what is left is the engine.
    pub(super) fn without_us(self) -> Result<(Engine, Api)> {
        self.ours.down()?;
        Ok((Engine { engine: self.engine, _folder: self.folder }, self.api))
    }
}

/// An engine without a Manager.
pub(super) struct Engine {
    engine: PrivateEngine,
    _folder: TempDir,
}

impl std::ops::Deref for Engine {
    type Target = PrivateEngine;
    fn deref(&self) -> &PrivateEngine {
        &self.engine
    }
}

#[derive(Default)]
struct Counts {
    over: AtomicBool,
    answered: AtomicU64,
    failed: AtomicU64,
}

/// A client that asks until it is stopped.
pub(super) struct Load {
    counts: Arc<Counts>,
    asking: JoinHandle<()>,
}

impl Load {
    /// How many requests were answered, and how many failed.
    pub(super) fn stop(self) -> Result<(u64, u64)> {
        self.counts.over.store(true, Ordering::Relaxed);
        self.asking.join().map_err(|_| anyhow::anyhow!("the load panicked"))?;
        Ok((self.counts.answered.load(Ordering::Relaxed), self.counts.failed.load(Ordering::Relaxed)))
    }
}
