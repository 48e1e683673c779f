//! pm2, driven through its command line.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::Setup;
use crate::proc;

/// A pm2 daemon with a home of its own.
pub(crate) struct Pm2 {
    folder: TempDir,
    program: PathBuf,
    workers: (String, String),
}

impl Pm2 {
    /// Starts the daemon and `count` processes of a program that is no script. Logs are on, as they are by default.
    pub(crate) fn start(setup: &Setup, program: &str, arg: &str, count: usize) -> Result<Self> {
        let name = program.rsplit('/').next().unwrap_or(program);
        let workers = (name.to_owned(), arg.to_owned());
        let this = Self { folder: setup.folder("pm2")?, program: setup.pm2()?.to_owned(), workers };
        let file = this.folder.path().join("ecosystem.json");
        let app = json!({"name": "w", "script": program, "args": [arg], "interpreter": "none",
                         "exec_mode": "fork", "instances": count});
        fs::write(&file, json!({ "apps": [app] }).to_string()).context("cannot write pm2's configuration")?;
        let file = file.to_string_lossy().into_owned();
        super::run(&mut this.command(&["start", &file]))?;
        Ok(this)
    }

    /// Name and version, for reports; read from the package, because asking the program would start a daemon.
    pub(crate) fn version(setup: &Setup) -> Result<String> {
        let program = setup.pm2()?.canonicalize()?;
        let package = program.ancestors().map(|folder| folder.join("package.json")).find(|file| file.is_file());
        let text = fs::read_to_string(package.context("pm2 lies in no package")?)?;
        let package: serde_json::Value = serde_json::from_str(&text).context("pm2's package.json")?;
        Ok(format!("pm2 {}", package["version"].as_str().context("pm2's package has no version")?))
    }

    /// The daemon's process.
    pub(crate) fn pid(&self) -> Result<i32> {
        let text = fs::read_to_string(self.folder.path().join("home/pm2.pid")).context("pm2 has no pid file")?;
        text.trim().parse().context("pm2's pid file holds no number")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).arg("--silent").current_dir(self.folder.path());
        command.env("PM2_HOME", self.folder.path().join("home"));
        command
    }
}

impl Drop for Pm2 {
    fn drop(&mut self) {
        let pid = self.pid();
        super::run(&mut self.command(&["kill"])).ok();
        if let Ok(pid) = pid {
            // Usually gone by now; the number is its own only if it still runs node.
            if proc::executable(pid).is_some_and(|exe| exe.ends_with("node")) {
                proc::signal(pid, Signal::KILL);
            }
        }
        let (program, marker) = &self.workers;
        proc::kill_marked(program, marker);
    }
}
