//! Where things are, and how commands are run.
//!
//! [`Context`] is made once in `main`. Build products go to `CARGO_TARGET_DIR`, or else to the user's cache folder:
//! never into the checkout, so that a fresh clone builds as quickly as the last one. Every command runs without stdin.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

/// The paths and settings that all commands share.
#[derive(Debug)]
pub(crate) struct Context {
    /// The workspace's folder, which is every command's working directory.
    pub(crate) root: PathBuf,
    /// Where cargo builds.
    pub(crate) target: PathBuf,
    /// Where tools are installed that have no place of their own.
    pub(crate) tools: PathBuf,
    /// Whether this is a CI run (`CI=true`): tools are installed unasked and skips are held against the list.
    pub(crate) ci: bool,
}

impl Context {
    /// Finds the workspace around this program's source, and the cache folder of the user.
    pub(crate) fn new() -> Result<Self> {
        let package =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = package.parent().context("the package folder has no parent")?.to_owned();
        let cache = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => {
                PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache")
            }
        };
        let cache = cache.join("cocktail");
        let target = match env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty()) {
            Some(folder) => env::current_dir()?.join(folder),
            None => cache.join("target"),
        };
        fs::create_dir_all(&target).with_context(|| format!("cannot create {}", target.display()))?;
        let ci = env::var_os("CI").is_some_and(|value| value == "true" || value == "1");
        Ok(Self { root, target, tools: cache.join("tools"), ci })
    }

    /// A command in the workspace's folder that builds into [`Context::target`] and reads no stdin.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target).stdin(Stdio::null());
        // What `cargo run` set for this program describes this program, not what the command works on.
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
                command.env_remove(name);
            }
        }
        command
    }

    /// [`Context::command`] for the cargo that runs this program, with arguments.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut command = self.command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(args);
        command
    }

    /// What `cargo metadata` says, with the lock file as it is. `extra` are further arguments.
    pub(crate) fn metadata(&self, extra: &[&str]) -> Result<serde_json::Value> {
        let text = output(self.cargo(&["metadata", "--format-version=1", "--locked"]).args(extra))?;
        serde_json::from_str(&text).context("cargo metadata printed something that is not JSON")
    }

    /// The path of a program that cargo built, in the folder of a profile (`debug`, `release`).
    pub(crate) fn built(&self, profile: &str, name: &str) -> PathBuf {
        self.target.join(profile).join(name)
    }
}

/// Runs the command and fails unless it succeeds; its output goes where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs the command and returns its stdout; on failure the error holds what it wrote to stderr.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stdout = String::from_utf8_lossy(&output.stdout);
        bail!("{} failed: {}\n{}{}", shown(command), output.status, stdout, stderr.trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed something that is not UTF-8", shown(command)))
}

/// The command as one would type it, without the folder of its program.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut text = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}
