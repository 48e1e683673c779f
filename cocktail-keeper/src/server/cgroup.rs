//! Limits by cgroup v2, where this machine lets us set them.
//!
//! Start at [`Cgroup::make`]. The keeper makes one group for each limited worker below a base: the group that it was
//! started in. A group with processes of its own cannot hand controllers down (the kernel's rule of no internal
//! processes), so the keeper moves itself into a leaf below the base first. Where the controllers are missing, or the
//! keeper may not hand them down, the worker runs without limits and its start says why.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::protocol::CgroupLimits;

/// Name of the leaf that the processes of the base go to.
const LEAF: &str = "cocktail-keeper";

/// The group of one worker; removed when dropped, which is when nothing runs in it.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the group. With `move_self`, this process may be moved to a leaf for it. The error is a sentence for
    /// people.
    pub(super) fn make(store: &str, container: &str, limits: CgroupLimits, move_self: bool) -> Result<Self, String> {
        let base = base().ok_or("this machine has no cgroup v2")?;
        let mut wanted = Vec::new();
        if limits.cpu_millis.is_some() {
            wanted.push("cpu");
        }
        if limits.memory_bytes.is_some() {
            wanted.push("memory");
        }
        hand_down(&base, &wanted, move_self)?;
        let short: String = store.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
        let group = Self { path: base.join(format!("cocktail-{short}-{container}")) };
        make_dir(&group.path).map_err(say("making a cgroup"))?;
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
        pids(&self.path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A group that is not empty stays; the next start of the container finds and uses it.
        let _ = fs::remove_dir(&self.path);
    }
}

fn say(what: &'static str) -> impl Fn(io::Error) -> String {
    move |e| format!("{what}: {e}")
}

fn pids(group: &Path) -> BTreeSet<u32> {
    let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// The group that workers' groups are made in.
fn base() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let roots = [Path::new("/sys/fs/cgroup"), Path::new("/sys/fs/cgroup/unified")];
    let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists())?;
    Some(base_of(root.join(own)))
}

/// The base for a process in `own`: what is in the leaf has been moved there, by this keeper or by one before it.
fn base_of(own: PathBuf) -> PathBuf {
    match own.parent() {
        Some(above) if own.file_name().is_some_and(|name| name == LEAF) => above.to_path_buf(),
        _ => own,
    }
}

/// Lets groups below `base` use these controllers.
fn hand_down(base: &Path, controllers: &[&str], move_self: bool) -> Result<(), String> {
    let words = |file: &str| -> BTreeSet<String> {
        let text = fs::read_to_string(base.join(file)).unwrap_or_default();
        text.split_ascii_whitespace().map(str::to_owned).collect()
    };
    let available = words("cgroup.controllers");
    if let Some(missing) = controllers.iter().find(|name| !available.contains(**name)) {
        return Err(format!("cgroup v2 controller `{missing}` is not available to the keeper"));
    }
    let handed = words("cgroup.subtree_control");
    for name in controllers.iter().filter(|name| !handed.contains(**name)) {
        let enable = || fs::write(base.join("cgroup.subtree_control"), format!("+{name}"));
        let enabled = match enable() {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && move_self => {
                make_room(base).map_err(say("moving the keeper to a cgroup of its own"))?;
                enable()
            }
            other => other,
        };
        enabled.map_err(|e| match e.kind() {
            io::ErrorKind::ResourceBusy => format!(
                "handing cgroup controllers down: other processes are in {}, which is not delegated to us",
                base.display()
            ),
            _ => say("handing cgroup controllers down")(e),
        })?;
    }
    Ok(())
}

/// Empties `base` into its leaf: of this process and, where the group was delegated to us, of all others in it, the
/// Manager and workers without limits. Elsewhere the others are not ours to move.
fn make_room(base: &Path) -> io::Result<()> {
    let leaf = base.join(LEAF);
    make_dir(&leaf)?;
    let join = leaf.join("cgroup.procs");
    fs::write(&join, std::process::id().to_string())?;
    if is_delegated(base) {
        for pid in pids(base) {
            // It may have ended; what cannot be moved is told by the kernel when controllers are handed down.
            let _ = fs::write(&join, pid.to_string());
        }
    }
    Ok(())
}

/// Whether systemd says that this group, or one above it, was given to its service to divide (`Delegate=yes`).
fn is_delegated(base: &Path) -> bool {
    let marked = |group: &Path| {
        ["trusted.delegate", "user.delegate"].iter().any(|name| {
            let mut value = [0_u8; 8];
            rustix::fs::getxattr(group, *name, &mut value[..]).is_ok_and(|length| value[..length] == *b"1")
        })
    };
    base.ancestors().any(marked)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    /// One test at a time moves this program about.
    static MOVING: Mutex<()> = Mutex::new(());

    /// A cgroup of one test with a process in it, removed at its end.
    struct Group {
        path: PathBuf,
        child: Child,
        _alone: MutexGuard<'static, ()>,
    }

    impl Group {
        /// `None` where this machine does not let us make groups.
        fn make(name: &str) -> Option<Self> {
            let alone = MOVING.lock().unwrap_or_else(PoisonError::into_inner);
            let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
            let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists())?;
            let path = root.join(format!("cocktail-test-{name}-{}", std::process::id()));
            fs::create_dir(&path).ok()?;
            let child = Command::new("sleep").arg("600").spawn().unwrap();
            let group = Self { path, child, _alone: alone };
            fs::write(group.path.join("cgroup.procs"), group.child.id().to_string()).ok()?;
            Some(group)
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            let _ = fs::remove_dir(self.path.join(LEAF));
            let _ = fs::remove_dir(&self.path);
        }
    }

    fn mark_delegated(group: &Path) {
        rustix::fs::setxattr(group, "trusted.delegate", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    }

    #[test]
    fn who_is_in_the_leaf_has_the_base_above_it() {
        assert_eq!(base_of("/cg/app.service".into()), Path::new("/cg/app.service"));
        assert_eq!(base_of("/cg/app.service/cocktail-keeper".into()), Path::new("/cg/app.service"));
    }

    #[test]
    fn a_controller_that_is_not_there_is_named() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("cgroup.controllers"), "cpuset cpu\n").unwrap();
        let said = hand_down(base.path(), &["cpu", "memory"], false).unwrap_err();
        assert!(said.contains("`memory` is not available"), "{said}");
    }

    #[test]
    fn what_is_handed_down_already_is_not_written_again() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("cgroup.controllers"), "cpu memory\n").unwrap();
        fs::write(base.path().join("cgroup.subtree_control"), "cpu memory\n").unwrap();
        hand_down(base.path(), &["cpu", "memory"], true).unwrap();
        assert_eq!(fs::read_to_string(base.path().join("cgroup.subtree_control")).unwrap(), "cpu memory\n");
        assert!(!base.path().join(LEAF).exists());
    }

    #[test]
    fn a_delegated_group_is_emptied_into_its_leaf() {
        let Some(group) = Group::make("delegated") else {
            return eprintln!("skipped: no cgroup v2 that we may make groups in");
        };
        let leaf = group.path.join(LEAF);
        mark_delegated(&group.path);
        let home = own_cgroup_procs();
        fs::write(group.path.join("cgroup.procs"), std::process::id().to_string()).unwrap();
        let moved = make_room(&group.path);
        let (left, there) = (pids(&group.path), pids(&leaf));
        // Back to where this program was started, before anything can fail.
        fs::write(home, std::process::id().to_string()).unwrap();
        moved.unwrap();
        assert_eq!(left, BTreeSet::new());
        assert_eq!(there, BTreeSet::from([std::process::id(), group.child.id()]));
    }

    #[test]
    fn in_a_group_of_others_only_the_keeper_moves() {
        let Some(group) = Group::make("foreign") else {
            return eprintln!("skipped: no cgroup v2 that we may make groups in");
        };
        let home = own_cgroup_procs();
        let moved = make_room(&group.path);
        let there = pids(&group.path.join(LEAF));
        fs::write(home, std::process::id().to_string()).unwrap();
        moved.unwrap();
        assert_eq!(there, BTreeSet::from([std::process::id()]));
        assert_eq!(pids(&group.path), BTreeSet::from([group.child.id()]));
    }

    fn own_cgroup_procs() -> PathBuf {
        base().unwrap().join("cgroup.procs")
    }
}
