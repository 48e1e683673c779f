//! What this machine is and has.

use std::fs;
use std::path::Path;

use cocktail_core::error::{Error, Result};
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::spec::Resources;

/// All cores and all memory.
pub(crate) fn capacity() -> Result<Resources> {
    let failed = |error| Error::unavailable("the size of this machine cannot be read").because(error);
    let cores = std::thread::available_parallelism().map_err(failed)?.get();
    let meminfo = fs::read_to_string("/proc/meminfo").map_err(failed)?;
    let memory = mem_total(&meminfo).ok_or_else(|| Error::unexpected("/proc/meminfo names no MemTotal"))?;
    Ok(Resources { cpu: CpuMillis(cores as u64 * 1_000), memory: Bytes(memory) })
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The boot that is running now.
pub(crate) fn boot_id() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let text = text.map_err(|error| Error::unavailable("the boot id cannot be read").because(error))?;
    Ok(text.trim().to_owned())
}

/// The machine's own id, which survives a change of its name; else its name.
pub(crate) fn id() -> String {
    ["/etc/machine-id", "/proc/sys/kernel/hostname"]
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .map(|text| text.trim().to_owned())
        .find(|text| !text.is_empty() && text != "uninitialized")
        .unwrap_or_else(|| "localhost".to_owned())
}

/// The machine's name.
pub(crate) fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

/// Whether limits of cpu and memory can be enforced: both controllers exist, and we may make groups.
pub(crate) fn enforces_limits() -> bool {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return false };
    let Some(mount) = cgroup_mount(&mounts) else { return false };
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::/")) else { return false };
    let group = Path::new(&mount).join(path);
    let controllers = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    let has = |name| controllers.split_whitespace().any(|controller| controller == name);
    let writable = rustix::fs::access(&group, rustix::fs::Access::WRITE_OK).is_ok();
    has("cpu") && has("memory") && writable
}

fn cgroup_mount(mountinfo: &str) -> Option<String> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4).map(str::to_owned))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cores_memory_and_a_boot() {
        let capacity = capacity().unwrap();
        assert!(capacity.cpu.0 >= 1_000 && capacity.memory.0 > 64 << 20);
        assert_eq!(boot_id().unwrap().len(), 36);
        assert!(!id().is_empty());
    }

    #[test]
    fn the_unified_hierarchy_is_found_among_mounts() {
        let mounts = "24 1 0:22 / /proc rw - proc proc rw\n31 24 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup_mount(mounts).as_deref(), Some("/sys/fs/cgroup"));
    }
}
