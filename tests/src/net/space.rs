//! Network namespaces with names, and what becomes of those that nobody removed.
//!
//! Start at [`Space::make`]. A namespace is named after the process that made it, by its id and its start, so that
//! [`sweep`] can tell those of a test run that was killed from those of one that goes on beside this one. Removing a
//! namespace ends what still runs in it: nothing but a test can have put it there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, id};
use std::thread;

use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{Process, signal_pid};
use crate::program::LOOK;

/// What the names of all our namespaces begin with.
const PREFIX: &str = "cocktail-test";

/// Where `ip` keeps namespaces that have a name.
const FOLDER: &str = "/run/netns";

/// How often what runs in a namespace is ended before it is removed all the same: it may be starting processes.
const ROUNDS: usize = 100;

/// What the names of this process's namespaces begin with.
pub fn own_prefix() -> String {
    let started = Process::find(id()).expect("this process runs").started;
    format!("{PREFIX}-{}-{started}-", id())
}

/// Names of all namespaces whose name begins like that.
pub fn names(prefix: &str) -> Vec<String> {
    // No folder: nobody has ever made one.
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.starts_with(prefix));
    names.sort();
    names
}

/// Removes the namespaces of test runs that have ended without doing so themselves.
pub(super) fn sweep() {
    for name in names(PREFIX) {
        if maker(&name).is_some_and(|(pid, started)| Process::find(pid).is_none_or(|now| now.started != started)) {
            // Another test may be sweeping the same one: it ends up gone either way.
            drop(Space { name });
        }
    }
}

/// The process that made a namespace: its id and its start.
fn maker(name: &str) -> Option<(u32, u64)> {
    let mut words = name.strip_prefix(PREFIX)?.strip_prefix('-')?.split('-');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// A namespace, which goes when this is dropped.
#[derive(Debug)]
pub(super) struct Space {
    name: String,
}

impl Space {
    /// Makes a namespace in which `lo` is up and nothing else is.
    pub(super) fn make(name: String) -> io::Result<Self> {
        tool("ip", &["netns", "add", &name], "")?;
        let space = Self { name };
        space.ip("link set lo up\n")?;
        Ok(space)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The file by which it can be entered.
    pub(super) fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// Runs lines of `ip` in it; the first that fails is the last.
    pub(super) fn ip(&self, lines: &str) -> io::Result<()> {
        tool("ip", &["-n", &self.name, "-batch", "-"], lines)
    }

    /// Runs lines of `tc` in it; the first that fails is the last.
    pub(super) fn tc(&self, lines: &str) -> io::Result<()> {
        tool("tc", &["-n", &self.name, "-batch", "-"], lines)
    }

    /// Takes this thread into the namespace until the answer is dropped.
    pub(super) fn enter(&self) -> io::Result<Inside> {
        let outside = File::open("/proc/thread-self/ns/net")?;
        go_to(&File::open(self.path())?)?;
        Ok(Inside { outside })
    }

    /// What runs in it. This process is left out, wherever its threads are.
    pub(super) fn processes(&self) -> Vec<Process> {
        let key = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
        let Some(space) = key(&self.path()) else { return Vec::new() };
        let is_inside = |process: &Process| {
            let link = format!("/proc/{}/ns/net", process.pid);
            process.pid != id() && key(Path::new(&link)) == Some(space)
        };
        Process::all().into_iter().filter(is_inside).collect()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        for _ in 0..ROUNDS {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            left.iter().for_each(|process| signal_pid(process.pid, Signal::KILL));
            thread::sleep(LOOK);
        }
        // It may be gone already, and a destructor has nobody to tell otherwise.
        tool("ip", &["netns", "delete", &self.name], "").ok();
    }
}

/// A thread that is in a namespace. It goes back when this is dropped, which must be on that thread.
#[derive(Debug)]
pub(super) struct Inside {
    outside: File,
}

impl Drop for Inside {
    fn drop(&mut self) {
        go_to(&self.outside).expect("a thread may go back to where it came from");
    }
}

fn go_to(space: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Runs a program of iproute2 with `input`, and says what it said if it fails.
fn tool(program: &str, args: &[&str], input: &str) -> io::Result<()> {
    let missing = |error: io::Error| io::Error::new(error.kind(), format!("cannot run {program} of iproute2: {error}"));
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(missing)?;
    // One that fails early need not read all of it; what it said is worth more than this.
    child.stdin.take().expect("it is a pipe").write_all(input.as_bytes()).ok();
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} {}: {}\n{input}", args.join(" "), said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_tells_who_made_it() {
        let mut own = own_prefix();
        own.push_str("3-switch");
        assert_eq!(maker(&own).map(|(pid, _)| pid), Some(id()));
        assert_eq!(maker("cocktail-test-7-9-0-manager"), Some((7, 9)));
        assert_eq!(maker("cocktail-tests"), None);
        assert_eq!(maker("somebody-7-9"), None);
    }
}
