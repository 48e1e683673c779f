//! What a machine may lack: the conditions under which a test may be skipped.
//!
//! [`Condition`] is a closed list, so that a test and `tests/expected-skips.toml` cannot disagree about a name. Each
//! condition is evaluated by looking at the machine, by the test that skips and once more by `cargo xtask test`: a
//! listed skip whose condition does not hold is a failure in CI.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fmt, fs, net};

use crate::engine;

/// Something that this machine lacks, and that a test may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The effective user is not root, so users cannot be switched and nothing can be mounted.
    NotRoot,
    /// No cgroup v2 hierarchy here has both the `cpu` and the `memory` controller.
    NoCgroupV2Controllers,
    /// `[::1]` cannot be bound.
    NoIpv6,
    /// The kernel does not hand out exit status through a pidfd (`PIDFD_GET_INFO` with `PIDFD_INFO_EXIT`, 6.15).
    KernelWithoutPidfdInfo,
    /// A tmpfs cannot be mounted, so that a full disk cannot be simulated.
    NoTmpfsMount,
    /// No network namespace with a virtual link in it can be made: not root, no `ip`, or a kernel without.
    NoNetworkNamespaces,
    /// Packets cannot be delayed: no network namespace, no `tc`, or a kernel without netem.
    NoNetem,
    /// There is no `python3` on the `PATH`.
    NoPython3,
    /// No engine of a test's own can be started, or no registry beside it: not root, or no `dockerd`, `docker-registry`,
    /// static busybox or network namespaces.
    NoDockerEngine,
    /// Nobody says where a Python with grpcio-tools is (`COCKTAIL_GRPC_PYTHON`).
    NoGrpcPython,
}

impl Condition {
    /// Every condition, in the order of the enum.
    pub const ALL: [Self; 10] = [
        Self::NotRoot,
        Self::NoCgroupV2Controllers,
        Self::NoIpv6,
        Self::KernelWithoutPidfdInfo,
        Self::NoTmpfsMount,
        Self::NoNetworkNamespaces,
        Self::NoNetem,
        Self::NoPython3,
        Self::NoDockerEngine,
        Self::NoGrpcPython,
    ];

    /// The name by which `tests/expected-skips.toml` knows the condition.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotRoot => "not-root",
            Self::NoCgroupV2Controllers => "no-cgroup-v2-controllers",
            Self::NoIpv6 => "no-ipv6",
            Self::KernelWithoutPidfdInfo => "kernel-without-pidfd-info",
            Self::NoTmpfsMount => "no-tmpfs-mount",
            Self::NoNetworkNamespaces => "no-network-namespaces",
            Self::NoNetem => "no-netem",
            Self::NoPython3 => "no-python3",
            Self::NoDockerEngine => "no-docker-engine",
            Self::NoGrpcPython => "no-grpc-python",
        }
    }

    /// The condition of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|condition| condition.name() == name)
    }

    /// Whether this machine lacks the thing now. It looks every time: nothing is remembered between calls.
    pub fn holds(self) -> bool {
        match self {
            Self::NotRoot => effective_uid() != Some(0),
            Self::NoCgroupV2Controllers => !has_cgroup_v2_controllers(),
            Self::NoIpv6 => net::TcpListener::bind("[::1]:0").is_err(),
            Self::KernelWithoutPidfdInfo => kernel_release().is_none_or(|release| release < (6, 15)),
            Self::NoTmpfsMount => !can_mount_tmpfs(),
            Self::NoNetworkNamespaces => !can_change_network("ip link add first type veth peer name second"),
            Self::NoNetem => !can_change_network("tc qdisc add dev lo root netem delay 1ms"),
            Self::NoPython3 => find_program("python3").is_none(),
            Self::NoDockerEngine => {
                let programs = ["dockerd", "docker", "docker-registry", "busybox", "sshd"];
                effective_uid() != Some(0)
                    || programs.iter().any(|name| engine::find(name).is_none())
                    || !can_change_network("ip link add first type veth peer name second")
            }
            Self::NoGrpcPython => env::var_os("COCKTAIL_GRPC_PYTHON").is_none(),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The first executable file of that name on the `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn effective_uid() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn has_cgroup_v2_controllers() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    cgroup_v2_mounts(&mounts).any(|mount| {
        let controllers = fs::read_to_string(Path::new(mount).join("cgroup.controllers")).unwrap_or_default();
        let has = |name| controllers.split_whitespace().any(|controller| controller == name);
        has("cpu") && has("memory")
    })
}

/// The mount points of type `cgroup2` in the text of a `mountinfo` file.
fn cgroup_v2_mounts(mountinfo: &str) -> impl Iterator<Item = &str> {
    mountinfo.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        filesystem.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4))?
    })
}

fn kernel_release() -> Option<(u32, u32)> {
    parse_release(&fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Mounts a tmpfs in a mount namespace of its own, so that no trace of the attempt remains.
fn can_mount_tmpfs() -> bool {
    let folder = env::temp_dir();
    succeeds(
        Command::new("unshare").args(["--mount", "--", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(folder),
    )
}

/// Runs a command, given as words, in a network namespace of its own, so that no trace of the attempt remains.
fn can_change_network(words: &str) -> bool {
    succeeds(Command::new("unshare").args(["--net", "--"]).args(words.split(' ')))
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_is_found_by_its_name() {
        for condition in Condition::ALL {
            assert_eq!(Condition::from_name(condition.name()), Some(condition));
        }
        assert_eq!(Condition::from_name("no-moon"), None);
    }

    #[test]
    fn releases_with_suffixes_are_understood() {
        assert_eq!(parse_release("6.18.44-vendor\n"), Some((6, 18)));
        assert_eq!(parse_release("6.1"), Some((6, 1)));
        assert_eq!(parse_release("next"), None);
    }

    #[test]
    fn only_cgroup2_mounts_are_taken_from_mountinfo() {
        let text = "29 25 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw\n\
                    30 29 0:27 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw\n\
                    31 29 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        assert_eq!(cgroup_v2_mounts(text).collect::<Vec<_>>(), ["/sys/fs/cgroup/unified"]);
    }
}
