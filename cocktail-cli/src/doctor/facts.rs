//! What the machine says about itself. What cannot be read is `None`, which is not the same as a bad answer.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cocktail_core::view::ManagerView;
use rustix::process::{Resource, Rlimit, getrlimit};

use crate::data_dir::DataDir;
use crate::manager_link;

/// Everything that the checks look at.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Release of the kernel: `6.12.8-arch1`.
    pub(super) kernel: String,
    /// Controllers of cgroup v2 for our group; `None` without cgroup v2.
    pub(super) controllers: Option<String>,
    /// Whether we may make groups below our own.
    pub(super) may_make_groups: bool,
    /// Limits on open files.
    pub(super) files: Limit,
    /// Limits on processes of this user.
    pub(super) processes: Limit,
    /// First and last ephemeral port.
    pub(super) ephemeral: Option<(u16, u16)>,
    /// The systemd service that we, or the Manager that runs, belong to.
    pub(super) service: Option<String>,
    /// Its `KillMode`.
    pub(super) kill_mode: Option<String>,
    /// The data dir.
    pub(super) data_dir: PathBuf,
    /// Length of the path of the longest socket in it.
    pub(super) socket_path: usize,
    /// Owner and mode of the data dir, if it exists.
    pub(super) owner_and_mode: Option<(u32, u32)>,
    /// Our uid.
    pub(super) uid: u32,
    /// Type of the file system below the data dir, as statfs gives it.
    pub(super) file_system: Option<u64>,
    /// Bytes that we may still write there.
    pub(super) free: Option<u64>,
    /// The Manager, if one answers; the error if one refuses.
    pub(super) manager: Result<Option<ManagerView>, String>,
    /// Whether a keeper answers.
    pub(super) keeper: bool,
}

/// A soft and a hard limit; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) soft: Option<u64>,
    pub(super) hard: Option<u64>,
}

impl From<Rlimit> for Limit {
    fn from(limit: Rlimit) -> Self {
        Self { soft: limit.current, hard: limit.maximum }
    }
}

/// Reads the machine. Nothing is changed.
pub(super) async fn gather(dir: &DataDir) -> Facts {
    let manager = match manager_link::find(dir).await {
        Ok(None) => Ok(None),
        Ok(Some(manager)) => manager.about().await.map(Some).map_err(|error| error.chain()),
        Err(failure) => Err(failure.to_string()),
    };
    let pid = manager.as_ref().ok().and_then(Option::as_ref).map(|manager| manager.pid);
    let cgroup = read("/proc/self/cgroup").unwrap_or_default();
    let group = group_of(&cgroup).map(|group| Path::new("/sys/fs/cgroup").join(group.trim_start_matches('/')));
    let of_manager = pid.and_then(|pid| read(&format!("/proc/{pid}/cgroup")));
    let ours = std::env::var_os("INVOCATION_ID").is_some().then_some(cgroup.as_str());
    let service = of_manager.as_deref().or(ours).and_then(service_of);
    let existing = dir.path().ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let meta = fs::metadata(dir.path()).ok();
    let space = rustix::fs::statvfs(existing).ok();
    Facts {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        controllers: group.as_ref().and_then(|group| fs::read_to_string(group.join("cgroup.controllers")).ok()),
        may_make_groups: group
            .as_ref()
            .is_some_and(|group| rustix::fs::access(group, rustix::fs::Access::WRITE_OK).is_ok()),
        files: getrlimit(Resource::Nofile).into(),
        processes: getrlimit(Resource::Nproc).into(),
        ephemeral: read("/proc/sys/net/ipv4/ip_local_port_range").as_deref().and_then(two_ports),
        kill_mode: service.as_deref().and_then(kill_mode),
        service,
        data_dir: dir.path().to_owned(),
        socket_path: dir.keeper_socket().as_os_str().len(),
        owner_and_mode: meta.map(|meta| (meta.uid(), meta.mode() & 0o777)),
        uid: rustix::process::geteuid().as_raw(),
        // The type is a number whose width and sign differ by platform; its 32 low bits are what counts.
        file_system: rustix::fs::statfs(existing).ok().map(|stat| (stat.f_type as u64) & 0xffff_ffff),
        free: space.map(|space| space.f_bavail.saturating_mul(space.f_frsize)),
        manager,
        keeper: UnixStream::connect(dir.keeper_socket()).is_ok(),
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Our group of cgroup v2: the line `0::/…`.
fn group_of(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The innermost systemd service in the path of a group.
fn service_of(cgroup: &str) -> Option<String> {
    let group = group_of(cgroup).or_else(|| cgroup.lines().find_map(|line| line.rsplit(':').next()))?;
    let service = group.rsplit('/').find(|part| part.ends_with(".service"))?;
    // A login session of systemd's user manager ends in user@1000.service, which is no service that runs us.
    (!service.starts_with("user@")).then(|| service.to_owned())
}

/// First and last port of `ip_local_port_range`.
fn two_ports(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// How systemd ends a service. Asked of systemd itself, which knows its drop-ins; not longer than two seconds.
fn kill_mode(service: &str) -> Option<String> {
    let mut child = Command::new("systemctl")
        .args(["show", "--property=KillMode", "--value", "--", service])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    for _ in 0..100 {
        if let Ok(Some(_)) = child.try_wait() {
            let output = child.wait_with_output().ok()?;
            let mode = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            return (!mode.is_empty()).then_some(mode);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_read_from_the_group() {
        for (cgroup, expected) in [
            ("0::/system.slice/shop.service\n", Some("shop.service")),
            ("0::/system.slice/shop.service/workers\n", Some("shop.service")),
            ("0::/user.slice/user-0.slice/session-3.scope\n", None),
            ("0::/user.slice/user@0.service/app.slice/x.scope\n", None),
            ("1:name=systemd:/system.slice/old.service\n", Some("old.service")),
            ("", None),
        ] {
            assert_eq!(service_of(cgroup).as_deref(), expected, "{cgroup}");
        }
    }

    #[test]
    fn the_ephemeral_range_is_two_numbers() {
        assert_eq!(two_ports("32768\t60999\n"), Some((32_768, 60_999)));
        assert_eq!(two_ports("x"), None);
    }
}
