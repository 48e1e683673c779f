//! What a container uses, as this machine's kernel counts it: the engine would be asked a hundred times as much for it.
//!
//! Only for engines of this machine, and only where the group of a process has the container's id in its path; whatever
//! is otherwise, the engine is asked.

use std::fs;
use std::path::{Path, PathBuf};

use super::Counted;

/// Where the groups are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// What the container with this main process has used.
pub(super) fn read(pid: u32, id: &str) -> Option<Counted> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    count(Path::new(ROOT), &groups, id)
}

/// `groups` is what the kernel says of the process: a line for each hierarchy.
fn count(root: &Path, groups: &str, id: &str) -> Option<Counted> {
    if let Some(folder) = folder(root, groups, id, "cpuacct") {
        let memory = self::folder(root, groups, id, "memory")?;
        let used = number(&folder.join("cpuacct.usage"))?;
        let all = number(&memory.join("memory.usage_in_bytes"))?;
        let cache = field(&memory.join("memory.stat"), "total_inactive_file").unwrap_or_default();
        return Some(Counted { cpu_nanos: used, memory_bytes: all.saturating_sub(cache) });
    }
    let folder = folder(root, groups, id, "")?;
    let used = field(&folder.join("cpu.stat"), "usage_usec")?;
    let all = number(&folder.join("memory.current"))?;
    let cache = field(&folder.join("memory.stat"), "inactive_file").unwrap_or_default();
    Some(Counted { cpu_nanos: used.saturating_mul(1_000), memory_bytes: all.saturating_sub(cache) })
}

/// The group's folder in the hierarchy of a controller; the unified one has no name.
fn folder(root: &Path, groups: &str, id: &str, controller: &str) -> Option<PathBuf> {
    let path = groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|it| it == controller).then_some(path)
    })?;
    // Processes get numbers that others had; and what is below its container counts less than that.
    let end = path.find(id)? + id.len();
    let scope = path[end..].split('/').next()?;
    let path = path.get(..end + scope.len())?;
    let mount = if controller.is_empty() { root.to_owned() } else { root.join(controller) };
    Some(mount.join(path.trim_start_matches('/')))
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn field(file: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    #[test]
    fn both_kinds_of_groups_are_read_without_what_can_be_taken_back() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path();
        write(at, "system.slice/docker-abc.scope/cpu.stat", "usage_usec 7\nuser_usec 3\n");
        write(at, "system.slice/docker-abc.scope/memory.current", "5000\n");
        write(at, "system.slice/docker-abc.scope/memory.stat", "anon 1\ninactive_file 1000\n");
        let unified = count(at, "0::/system.slice/docker-abc.scope/init\n", "abc").unwrap();
        assert_eq!((unified.cpu_nanos, unified.memory_bytes), (7_000, 4_000));

        write(at, "cpuacct/docker/abc/cpuacct.usage", "9\n");
        write(at, "memory/docker/abc/memory.usage_in_bytes", "5000\n");
        write(at, "memory/docker/abc/memory.stat", "inactive_file 9\ntotal_inactive_file 3000\n");
        let old = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n";
        let separate = count(at, old, "abc").unwrap();
        assert_eq!((separate.cpu_nanos, separate.memory_bytes), (9, 2_000));
    }

    #[test]
    fn a_process_that_is_in_no_group_of_the_container_says_nothing() {
        let root = tempfile::tempdir().unwrap();
        for groups in ["", "0::/user.slice\n", "5:memory:/docker/other\n4:cpu,cpuacct:/docker/other\n", "nonsense"] {
            assert!(count(root.path(), groups, "abc").is_none(), "{groups:?}");
        }
    }
}
