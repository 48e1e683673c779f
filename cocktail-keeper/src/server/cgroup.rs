//! Limits by cgroup v2, where this machine lets us set them.
//!
//! The keeper makes one group for each limited worker below its own. Where the controllers are missing, or the keeper may
//! not hand them down, the worker runs without limits and its start says why.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::protocol::CgroupLimits;

/// The group of one worker; removed when dropped, which is when nothing runs in it.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the group. The error is a sentence for people.
    pub(super) fn make(store: &str, container: &str, limits: CgroupLimits) -> Result<Self, String> {
        let base = own_group().ok_or("this machine has no cgroup v2")?;
        let controllers = fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
        let has = |name: &str| controllers.split_ascii_whitespace().any(|have| have == name);
        let mut wanted = Vec::new();
        if limits.cpu_millis.is_some() {
            wanted.push("cpu");
        }
        if limits.memory_bytes.is_some() {
            wanted.push("memory");
        }
        if let Some(missing) = wanted.iter().find(|name| !has(name)) {
            return Err(format!("cgroup v2 controller `{missing}` is not available to the keeper"));
        }
        let say = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
        for name in wanted {
            let enable = format!("+{name}");
            fs::write(base.join("cgroup.subtree_control"), enable).map_err(say("handing cgroup controllers down"))?;
        }
        let short: String = store.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
        let path = base.join(format!("cocktail-{short}-{container}"));
        match fs::create_dir(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(say("making a cgroup")(e)),
            _ => {}
        }
        let group = Self { path };
        if let Some(millis) = limits.cpu_millis {
            let text = format!("{} 100000", millis.saturating_mul(100).max(1000));
            fs::write(group.path.join("cpu.max"), text).map_err(say("limiting cpu"))?;
        }
        if let Some(bytes) = limits.memory_bytes {
            fs::write(group.path.join("memory.max"), bytes.to_string()).map_err(say("limiting memory"))?;
        }
        Ok(group)
    }

    /// The file that a process joins the group through.
    pub(super) fn procs(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Kills everything in the group, where the kernel offers that.
    pub(super) fn kill(&self) {
        // Without it (before Linux 5.14) the processes are killed one by one, by their pids.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }

    /// The processes in the group.
    pub(super) fn pids(&self) -> BTreeSet<u32> {
        let list = fs::read_to_string(self.procs()).unwrap_or_default();
        list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A group that is not empty stays; the next start of the container finds and uses it.
        let _ = fs::remove_dir(&self.path);
    }
}

fn own_group() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let roots = [Path::new("/sys/fs/cgroup"), Path::new("/sys/fs/cgroup/unified")];
    let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists())?;
    Some(root.join(own))
}
