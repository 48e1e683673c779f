//! What `/proc` says about processes: identity, use of resources, ancestry, and whose worker one is.
//!
//! Start at [`Stat`] and [`scan`]. Reading is never proof of absence of a process that may not be read: callers treat
//! an error other than "not there" as unknown. Nothing here sends signals.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
};

use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
};

use crate::protocol::{ENV_CONTAINER, ENV_GENERATION, ENV_MARKER};

/// The fields of `/proc/PID/stat` that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: u32,
    pub(crate) state: u8,
    pub(crate) ppid: u32,
    pub(crate) session: u32,
    /// User and system time in ticks, that of reaped children included.
    pub(crate) cpu_ticks: u64,
    pub(crate) start_time: u64,
    pub(crate) rss_pages: u64,
}

impl Stat {
    /// Neither a zombie nor dead.
    pub(crate) fn lives(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Reads a small file of `/proc` in as few calls as possible.
fn read_small(path: &str, buf: &mut [u8]) -> io::Result<usize> {
    let file: OwnedFd = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::io::read(&file, buf)?)
}

/// One process. `Ok(None)` means that there is none of that pid.
pub(crate) fn stat(pid: u32) -> io::Result<Option<Stat>> {
    let mut buf = [0_u8; 1024];
    match read_small(&format!("/proc/{pid}/stat"), &mut buf) {
        Ok(length) => {
            parse_stat(pid, &buf[..length]).map(Some).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
        }
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

fn is_gone(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

fn parse_stat(pid: u32, text: &[u8]) -> Option<Stat> {
    // The name stands in parentheses and may hold anything, parentheses included.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(text.get(end + 2..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        pid,
        state: *fields.first()?.as_bytes().first()?,
        ppid: u32::try_from(number(1)?).ok()?,
        session: u32::try_from(number(3)?).ok()?,
        cpu_ticks: number(11)? + number(12)? + number(13)? + number(14)?,
        start_time: number(19)?,
        rss_pages: number(21)?,
    })
}

/// Whose worker a process is, by its environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) store: String,
    pub(crate) container: String,
    pub(crate) generation: u64,
}

/// The marks in a process's environment. `Ok(None)`: readable and without them.
pub(crate) fn marks(pid: u32) -> io::Result<Option<Marks>> {
    let mut text = Vec::new();
    // A worker's environment is its own to fill; what is beyond this is not ours.
    fs::File::open(format!("/proc/{pid}/environ"))?.take(256 * 1024).read_to_end(&mut text)?;
    let mut marks = Marks::default();
    for entry in text.split(|byte| *byte == 0) {
        let Ok(entry) = std::str::from_utf8(entry) else { continue };
        let Some((name, value)) = entry.split_once('=') else { continue };
        if name == ENV_MARKER {
            value.clone_into(&mut marks.store);
        } else if name == ENV_CONTAINER {
            value.clone_into(&mut marks.container);
        } else if name == ENV_GENERATION {
            marks.generation = value.parse().unwrap_or(0);
        }
    }
    Ok((!marks.store.is_empty() && !marks.container.is_empty()).then_some(marks))
}

/// Every process's pid.
pub(crate) fn pids() -> io::Result<Vec<u32>> {
    let names = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(names.collect())
}

/// Every process's [`Stat`]; those that end meanwhile are left out.
pub(crate) fn scan() -> io::Result<Vec<Stat>> {
    Ok(pids()?.into_iter().filter_map(|pid| stat(pid).ok().flatten()).collect())
}

/// The children of this process, whichever thread started them. `None` where the kernel does not list them, or when
/// threads ended while they were read.
pub(crate) fn own_children() -> Option<BTreeSet<u32>> {
    let mut children = BTreeSet::new();
    for task in fs::read_dir("/proc/self/task").ok()? {
        let list = fs::read_to_string(task.ok()?.path().join("children")).ok()?;
        children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Some(children)
}

/// Whether stdout or stderr of a process is one of these files, named by device and inode.
pub(crate) fn writes_to(pid: u32, files: &[(u64, u64)]) -> bool {
    [1, 2].iter().any(|fd| {
        fs::metadata(format!("/proc/{pid}/fd/{fd}")).is_ok_and(|found| files.contains(&(found.dev(), found.ino())))
    })
}

/// Opens the pipe behind a process's descriptor for reading, if it is one that a keeper made: nobody else opens pipes for
/// reading and writing at once.
pub(crate) fn worker_pipe(pid: u32, fd: u32) -> Option<OwnedFd> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let flags = i32::from_str_radix(flags.trim(), 8).ok()?;
    let path = format!("/proc/{pid}/fd/{fd}");
    if flags & libc::O_ACCMODE != libc::O_RDWR || !fs::metadata(&path).ok()?.file_type().is_fifo() {
        return None;
    }
    open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// `name (pid N)` of a process, for people.
pub(crate) fn describe(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
    format!("{name} (pid {pid})")
}

/// Who listens on a TCP port, as far as this user may see it.
pub(crate) fn port_holder(port: u16) -> Option<String> {
    let mut inodes = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (Some(local), Some(state), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9)) else {
                continue;
            };
            let local_port = local.rsplit_once(':').and_then(|(_, hex)| u16::from_str_radix(hex, 16).ok());
            if *state == "0A" && local_port == Some(port) {
                inodes.insert(format!("socket:[{inode}]"));
            }
        }
    }
    if inodes.is_empty() {
        return None;
    }
    let holds = |pid: &u32| {
        fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|fds| {
            fds.flatten().any(|fd| {
                fs::read_link(fd.path()).is_ok_and(|link| link.to_str().is_some_and(|link| inodes.contains(link)))
            })
        })
    };
    pids().ok()?.iter().find(|pid| holds(pid)).map(|pid| describe(*pid))
}

/// The kernel's boot id.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Whether an error of a signal or look-up says that the process is gone.
pub(crate) fn gone(errno: Errno) -> bool {
    errno == Errno::SRCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let text =
            b"42 (a) b (c) S 7 42 41 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 12345 1000 77 18446744073709551615";
        let stat = parse_stat(42, text).unwrap();
        assert_eq!((stat.state, stat.ppid, stat.session), (b'S', 7, 41));
        assert_eq!((stat.cpu_ticks, stat.start_time, stat.rss_pages), (100, 12345, 77));
        assert_eq!(parse_stat(1, b"garbage"), None);
    }

    #[test]
    fn this_process_is_found_and_a_missing_one_is_not() {
        let own = stat(std::process::id()).unwrap().unwrap();
        assert!(own.lives() && own.start_time > 0);
        assert_eq!(stat(u32::MAX / 2).unwrap(), None);
        assert!(!boot_id().is_empty());
    }

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = port_holder(listener.local_addr().unwrap().port()).unwrap();
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
    }
}
