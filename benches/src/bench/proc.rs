//! Observing and ending processes from outside, through `/proc`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// The numbers of all processes.
pub(crate) fn all() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Processor time of this machine so far: all of it, and what its host gave to others although it was wanted here.
/// `None` where the system does not say.
pub(crate) fn stolen() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let times: Vec<f64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|text| text.parse().ok()).collect();
    Some((times.iter().take(8).sum(), *times.get(7)?))
}

/// How much of the processor time since then went to others, in percent.
pub(crate) fn stolen_since(before: Option<(f64, f64)>) -> Option<f64> {
    let ((all, stolen), (all_now, stolen_now)) = before.zip(stolen())?;
    Some((stolen_now - stolen) * 100.0 / (all_now - all).max(1.0))
}

/// How many processes ran or wanted to, on average over the last minute.
pub(crate) fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

/// An argument for `sleep` that no other process has: about six weeks, and a few seconds that differ from call to call.
pub(crate) fn unique_sleep() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let serial = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("36{:07}{serial:03}", std::process::id() % 10_000_000)
}

/// The `sleep` of this machine: its path, and the name of the file that then executes, which may be another.
pub(crate) fn sleep_program() -> Result<(String, String)> {
    let path = ["/bin/sleep", "/usr/bin/sleep"].into_iter().find(|path| Path::new(path).exists());
    let path = path.context("there is no sleep on this machine")?;
    let executed = Path::new(path).canonicalize()?;
    let name = executed.file_name().context("sleep has no name")?;
    Ok((path.to_owned(), name.to_string_lossy().into_owned()))
}

/// Whether one of the process's arguments is exactly `marker`.
fn has_argument(pid: i32, marker: &str) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|&byte| byte == 0).any(|arg| arg == marker.as_bytes())
}

/// The running processes that have an argument, but for shells and the like: `program` is what the first one ends in.
pub(crate) fn marked(program: &str, marker: &str) -> Vec<i32> {
    all().into_iter().filter(|&pid| is_marked(pid, program, marker)).collect()
}

fn is_marked(pid: i32, program: &str, marker: &str) -> bool {
    has_argument(pid, marker) && executable(pid).is_some_and(|exe| exe.file_name().is_some_and(|name| name == program))
}

/// Counts processes as they appear, reading each of them only until it is known.
///
/// A process counts once it executes the program, not when it was forked: its executable is looked at.
pub(crate) struct Census {
    program: String,
    marker: String,
    other: BTreeSet<i32>,
    found: BTreeSet<i32>,
}

impl Census {
    /// Begins to count. What runs now is not looked at again.
    pub(crate) fn new(program: &str, marker: &str) -> Self {
        let other = all().into_iter().collect();
        Self { program: program.to_owned(), marker: marker.to_owned(), other, found: BTreeSet::new() }
    }

    /// Looks at processes that are not known yet, and returns how many were found so far.
    pub(crate) fn count(&mut self) -> usize {
        for pid in all() {
            if !self.other.contains(&pid) && !self.found.contains(&pid) && is_marked(pid, &self.program, &self.marker) {
                self.found.insert(pid);
            }
        }
        self.found.len()
    }

    /// Returns the time at which `wanted` processes run. It looks rarely while many are missing: looking through `/proc`
    /// takes processor time from what is measured.
    ///
    /// # Errors
    /// When `patience` is over before.
    pub(crate) fn wait(&mut self, wanted: usize, patience: Duration) -> Result<Instant> {
        let begin = Instant::now();
        loop {
            let count = self.count();
            let now = Instant::now();
            if count >= wanted {
                return Ok(now);
            }
            if now - begin > patience {
                bail!("only {count} of {wanted} processes run after {} s", patience.as_secs());
            }
            thread::sleep(Duration::from_millis(if count * 4 < wanted * 3 { 25 } else { 5 }));
        }
    }
}

/// The program that the process executes.
pub(crate) fn executable(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// The processes that execute this file.
pub(crate) fn executing(program: &Path) -> Vec<i32> {
    all().into_iter().filter(|&pid| executable(pid).as_deref() == Some(program)).collect()
}

/// User and system time of the processes together. One that is gone counts nothing.
pub(crate) fn cpu_time(pids: &[i32]) -> Duration {
    let ticks: u64 = pids.iter().filter_map(|&pid| cpu_ticks(pid)).sum();
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn cpu_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, so that fields are counted from its end: user and system time are the
    // twelfth and thirteenth after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The proportional set size of the processes together, in MiB.
pub(crate) fn pss_mib(pids: &[i32]) -> Result<f64> {
    let mut kib = 0;
    for pid in pids {
        let file = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        kib += text
            .lines()
            .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
            .with_context(|| format!("{file} has no Pss"))?;
    }
    Ok(kib as f64 / 1024.0)
}

/// The resident memory of one process, in MiB.
pub(crate) fn rss_mib(pid: i32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.map(|kib: f64| kib / 1024.0).context("the process has no memory")
}

/// Waits until the processes use less than a fiftieth of a core over two seconds, at most for `patience`.
pub(crate) fn wait_until_quiet(pids: &[i32], patience: Duration) -> Result<()> {
    let begin = Instant::now();
    loop {
        let before = cpu_time(pids);
        thread::sleep(Duration::from_secs(2));
        if cpu_time(pids).saturating_sub(before) < Duration::from_millis(40) {
            return Ok(());
        }
        if begin.elapsed() > patience {
            bail!("still busy after {} s", patience.as_secs());
        }
    }
}

/// The share of a core that the processes use over a time, in percent.
pub(crate) fn cpu_percent(pids: &[i32], over: Duration) -> f64 {
    let (before, begin) = (cpu_time(pids), Instant::now());
    thread::sleep(over);
    cpu_time(pids).saturating_sub(before).as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0
}

/// Polls until `condition` is true.
pub(crate) fn wait_for(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    let begin = Instant::now();
    while !condition() {
        if begin.elapsed() > patience {
            bail!("{what}: not after {} s", patience.as_secs());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Sends a signal to one process. That it is gone is not an error.
pub(crate) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        kill_process(pid, signal).ok();
    }
}

/// Kills the marked processes, and those that appear while it does, until none is left for a moment.
pub(crate) fn kill_marked(program: &str, marker: &str) {
    let mut quiet = 0;
    let begin = Instant::now();
    while quiet < 3 && begin.elapsed() < Duration::from_secs(20) {
        let pids = marked(program, marker);
        quiet = if pids.is_empty() { quiet + 1 } else { 0 };
        for pid in pids {
            signal(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A child that ends with the value.
#[derive(Debug)]
pub(crate) struct Owned(pub(crate) Child);

impl Owned {
    pub(crate) fn pid(&self) -> i32 {
        // Linux gives out numbers below 2^22.
        self.0.id().cast_signed()
    }

    /// Asks the child to end, and insists after `patience`.
    pub(crate) fn end(&mut self, patience: Duration) {
        signal(self.pid(), Signal::TERM);
        let begin = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && begin.elapsed() < patience {
            thread::sleep(Duration::from_millis(5));
        }
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The process and all below it.
pub(crate) fn tree(root: i32) -> Vec<i32> {
    let parents: BTreeMap<i32, i32> = all().into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| **parent == pid).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

/// The parent of a process.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_census_counts_only_what_runs_with_the_marker() {
        let marker = unique_sleep();
        let mut census = Census::new("sleep", &marker);
        assert_eq!(census.count(), 0);
        let child = Owned(Command::new("sleep").arg(&marker).spawn().unwrap());
        let other = Owned(Command::new("sleep").arg(unique_sleep()).spawn().unwrap());
        census.wait(1, Duration::from_secs(10)).unwrap();
        assert_eq!(marked("sleep", &marker), [child.pid()]);
        assert_eq!(parent(other.pid()), Some(std::process::id().cast_signed()));
        kill_marked("sleep", &marker);
        drop(child);
        assert_eq!(marked("sleep", &marker), Vec::<i32>::new());
    }

    #[test]
    fn our_own_memory_and_time_can_be_read() {
        let own = std::process::id().cast_signed();
        assert!(pss_mib(&[own]).unwrap() > 0.1);
        assert!(cpu_ticks(own).is_some());
        assert!(tree(own).contains(&own));
    }
}
