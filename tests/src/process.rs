//! Processes as `/proc` shows them.
//!
//! What a test started is known by the folder of its Home: Managers and workers have it in their environment (`HOME`),
//! keepers on their command line. Nothing else is ever signalled.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

/// One process, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its parent.
    pub parent: u32,
    /// Its state: `R`, `S`, `Z`, `T` and so on.
    pub state: char,
    /// When it started, in ticks since boot: with the id it names a process for ever.
    pub started: u64,
    /// Its command line, with blanks between the arguments.
    pub command: String,
    /// Its environment, as it was started with.
    pub environment: Vec<(String, String)>,
}

impl Process {
    /// The process of that id; `None` if there is none.
    pub fn find(pid: u32) -> Option<Self> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let stat = fs::read_to_string(folder.join("stat")).ok()?;
        // The name in parentheses may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        let command = fs::read(folder.join("cmdline")).unwrap_or_default();
        let command = words(&command).collect::<Vec<_>>().join(" ");
        let environment = fs::read(folder.join("environ")).unwrap_or_default();
        let pair = |word: String| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = words(&environment).filter_map(pair).collect();
        Some(Self { pid, parent, state, started, command, environment })
    }

    /// All processes.
    pub fn all() -> Vec<Self> {
        let entries = fs::read_dir("/proc").expect("there is /proc");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter_map(Self::find).collect()
    }

    /// Those that belong to a Home, by its folder. One that has ended and was not waited for no longer tells.
    pub fn of(root: &Path) -> Vec<Self> {
        let root = root.to_string_lossy();
        let is_home = |(name, value): &(String, String)| name == "HOME" && value == &root;
        Self::all()
            .into_iter()
            .filter(|process| process.command.contains(&*root) || process.environment.iter().any(is_home))
            .collect()
    }

    /// A variable of its environment.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The container that it runs in.
    pub fn container(&self) -> Option<&str> {
        self.variable("COCKTAIL_CONTAINER")
    }

    /// Whether it is a keeper.
    pub fn is_keeper(&self) -> bool {
        self.command.starts_with("cocktail-keeper")
    }

    /// Whether this very process, and no later one of the same id, still runs.
    pub fn runs(&self) -> bool {
        Self::find(self.pid).is_some_and(|now| now.started == self.started && now.state != 'Z')
    }

    /// Sends it a signal. One that has gone is left alone.
    pub fn signal(&self, signal: Signal) {
        if self.runs() {
            signal_pid(self.pid, signal);
        }
    }

    /// Its proportional share of memory, in bytes: 0 for one that has gone.
    pub fn memory(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kibibytes: Option<u64> = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        kibibytes.unwrap_or_default() * 1024
    }

    /// What is resident of it, in bytes: 0 for one that has gone.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most that was resident of it at once since [`Process::forget_peak`], in bytes, however short that was: 0 for one
    /// that has gone.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// Lets its peak be what is resident now.
    ///
    /// # Panics
    /// When the kernel does not let us.
    pub fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.pid), "5").expect("a peak of a child can be forgotten");
    }

    /// A number of kibibytes that its status tells, in bytes.
    fn status(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes: Option<u64> = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        kibibytes.unwrap_or_default() * 1024
    }

    /// What its descriptors lead to, by number.
    pub fn descriptors(&self) -> Vec<(u32, String)> {
        let Ok(entries) = fs::read_dir(format!("/proc/{}/fd", self.pid)) else { return Vec::new() };
        let mut all: Vec<_> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let number = entry.file_name().to_str()?.parse().ok()?;
                Some((number, fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
            })
            .collect();
        all.sort();
        all
    }
}

/// Sends a signal to a process by its id. One that has gone is no matter.
pub fn signal_pid(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        rustix::process::kill_process(pid, signal).ok();
    }
}

/// The parts between zeros.
fn words(bytes: &[u8]) -> impl Iterator<Item = String> {
    bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| OsStr::from_bytes(word).to_string_lossy().into_owned())
}
