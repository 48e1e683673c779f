//! The `cocktail` program, driven as a user would: by its commands and their JSON.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::Setup;
use crate::proc::{self, Owned};

/// A fresh data dir with a copy of the program beside it.
///
/// The copy is what tells our processes from everybody else's: whatever executes it is the Manager or its keeper, under
/// any name. Dropping the value ends them all, and their workers.
pub(crate) struct Cocktail {
    folder: TempDir,
    program: PathBuf,
    /// Program name and marker of the workers, which are killed at the end whatever happened.
    workers: (String, String),
    serving: Option<Owned>,
}

impl Cocktail {
    /// Installs the program for workers that can be told by program name and an argument.
    pub(crate) fn install(setup: &Setup, original: &Path, workers: (&str, &str)) -> Result<Self> {
        let folder = setup.folder("cocktail")?;
        let program = folder.path().join("cocktail");
        fs::copy(original, &program).with_context(|| format!("cannot copy {}", original.display()))?;
        // The kernel reports executables without symbolic links.
        let program = program.canonicalize()?;
        Ok(Self { folder, program, workers: (workers.0.to_owned(), workers.1.to_owned()), serving: None })
    }

    /// A command on this data dir.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--data-dir").arg(self.data_dir()).args(args).current_dir(self.folder.path());
        command
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Writes a manifest and returns its path.
    pub(crate) fn manifest(&self, text: &str) -> Result<String> {
        let file = self.folder.path().join("cocktail.toml");
        fs::write(&file, text).context("cannot write the manifest")?;
        Ok(file.to_string_lossy().into_owned())
    }

    /// Starts a Manager without a manifest, and waits until it answers.
    pub(crate) fn serve(&mut self) -> Result<()> {
        let log = self.folder.path().join("serve.log");
        self.serving = Some(super::start(&mut self.command(&["serve"]), &log)?);
        let socket = self.data_dir().join("cocktail.sock");
        proc::wait_for("the Manager's socket", Duration::from_secs(20), || UnixStream::connect(&socket).is_ok())
            .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        self.json(&["units"]).map(drop)
    }

    /// Runs `apply FILE`.
    pub(crate) fn apply(&self, manifest: &str) -> Result<()> {
        super::run(&mut self.command(&["apply", manifest])).map(drop)
    }

    /// Runs `up FILE -d`: a Manager in the background, and everything ready when it returns.
    pub(crate) fn up(&self, manifest: &str) -> Result<()> {
        super::run(&mut self.command(&["up", manifest, "-d"])).map(drop)
    }

    /// What a command answers with `-o json`.
    pub(crate) fn json(&self, args: &[&str]) -> Result<Value> {
        let mut all = vec!["-o", "json"];
        all.extend(args);
        let output = super::run(&mut self.command(&all))?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("cocktail {} printed no JSON", args.join(" ")))
    }

    /// The Manager, the keeper, and whatever else of ours runs.
    pub(crate) fn processes(&self) -> Vec<i32> {
        proc::executing(&self.program)
    }

    /// Runs `down`, and fails if a worker outlives it.
    pub(crate) fn down(mut self) -> Result<()> {
        super::run(&mut self.command(&["down"]))?;
        if let Some(mut serving) = self.serving.take() {
            serving.end(Duration::from_secs(10));
        }
        let (program, marker) = &self.workers;
        let left = proc::marked(program, marker).len();
        anyhow::ensure!(left == 0, "{left} workers outlived cocktail down");
        Ok(())
    }
}

impl Drop for Cocktail {
    fn drop(&mut self) {
        for pid in self.processes() {
            proc::signal(pid, Signal::KILL);
        }
        let (program, marker) = &self.workers;
        if !proc::marked(program, marker).is_empty() {
            proc::kill_marked(program, marker);
        }
    }
}
