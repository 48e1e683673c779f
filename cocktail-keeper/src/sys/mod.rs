//! What safe crates do not offer: spawning, user look-up, and three single calls.
//!
//! The only modules of the workspace with unsafe code are this one and [`spawn`]. Everything here is small, takes and
//! returns owned values, and leaves decisions to its callers.
#![expect(unsafe_code, reason = "each block names the guarantee that it relies on")]

pub(crate) mod spawn;

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// A user as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// Looks a user up by name or number, with all groups. `None` when there is no such user.
pub(crate) fn lookup_user(user: &str) -> io::Result<Option<Ids>> {
    let Ok(name) = CString::new(user) else { return Ok(None) };
    let mut text = vec![0_u8; 16 * 1024];
    // SAFETY: passwd is plain data for which all zeroes is a valid value.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found: *mut libc::passwd = std::ptr::null_mut();
    // SAFETY: all pointers are valid for the call, and the buffer's length is the one given.
    let mut errno = unsafe {
        libc::getpwnam_r(name.as_ptr(), &raw mut entry, text.as_mut_ptr().cast(), text.len(), &raw mut found)
    };
    if found.is_null()
        && let Ok(uid) = user.parse::<u32>()
    {
        // SAFETY: as above.
        errno = unsafe { libc::getpwuid_r(uid, &raw mut entry, text.as_mut_ptr().cast(), text.len(), &raw mut found) };
        if found.is_null() {
            return Ok(Some(Ids { uid, gid: uid, groups: vec![uid] }));
        }
    }
    if found.is_null() {
        // Several errno values mean "no such user" besides 0; only resource trouble is an error.
        return match errno {
            libc::EIO | libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ERANGE => {
                Err(io::Error::from_raw_os_error(errno))
            }
            _ => Ok(None),
        };
    }
    // SAFETY: a found entry's name is a string that lives in `text`.
    let name = unsafe { CStr::from_ptr(entry.pw_name) }.to_owned();
    let mut groups = vec![0_u32; 256];
    let mut count = 256;
    // SAFETY: `groups` has room for `count` entries; the call writes at most that many and sets `count`.
    let fits = unsafe { libc::getgrouplist(name.as_ptr(), entry.pw_gid, groups.as_mut_ptr(), &raw mut count) };
    groups.truncate(if fits < 0 { 256 } else { usize::try_from(count).unwrap_or(0) });
    Ok(Some(Ids { uid: entry.pw_uid, gid: entry.pw_gid, groups }))
}

/// Tells the allocator to use one arena: a keeper's few threads do not contend, and memory is what it must save.
pub(crate) fn small_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only changes parameters of the allocator and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 * 1024);
    }
}

/// Gives free memory back to the system, after a burst of work.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim is thread safe.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Asks the scheduler to give the calling thread short turns soon rather than long ones late: it passes on what others
/// wait for. What it starts does not inherit that. Kernels before 6.12 take no such wish, and a refusal changes nothing.
pub(crate) fn take_short_turns() {
    /// A tenth of a millisecond, the least that can be asked for.
    const TURN: u64 = 100_000;
    const RESET_ON_FORK: u64 = 1;
    #[repr(C)]
    #[derive(Default)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let size = u32::try_from(size_of::<Attributes>()).unwrap_or(0);
    let mut now = Attributes { size, ..Attributes::default() };
    // SAFETY: the kernel writes at most `size` bytes into a struct of that size, laid out as it expects.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut now, size, 0) };
    // Anything but the normal policy, or a raised priority, was somebody's decision.
    if got != 0 || now.policy != 0 || now.nice < 0 {
        return;
    }
    let wish = Attributes { size, flags: RESET_ON_FORK, nice: now.nice, runtime: TURN, ..Attributes::default() };
    // SAFETY: the kernel reads `size` bytes of a struct of that size.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wish, 0) };
}

/// Closes every descriptor from this one on: what a host left open when it started its keeper.
pub(crate) fn close_from(first: u32) {
    // SAFETY: called before this process opened anything of its own. Old kernels without the call keep them open.
    unsafe { libc::syscall(libc::SYS_close_range, libc::c_long::from(first), libc::c_long::from(u32::MAX), 0) };
}

/// A child that ended and was not reaped yet, left as it is. `None` when there is none.
pub(crate) fn peek_ended_child() -> Option<u32> {
    // SAFETY: siginfo_t is plain data; zeroes mean "no child" after a call that found none.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    loop {
        // SAFETY: `info` is valid for writing.
        let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) };
        if result == 0 {
            // SAFETY: waitid fills the child's fields, or leaves the zeroes.
            let pid = unsafe { info.si_pid() };
            return u32::try_from(pid).ok().filter(|pid| *pid != 0);
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

/// Lets the runtime watch a descriptor that nobody else can close.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names the same open descriptor until it is dropped, which the AsyncFd does.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(Into::into)
}

/// The head of the kernel's `struct pidfd_info`, as of its first version with an exit code.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 12],
    exit_code: i32,
    reserved: u32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)` for a structure of 72 bytes, the first size that has the exit code at its place.
const PIDFD_GET_INFO: libc::c_ulong = 0xC048_FF0B;

/// The wait status of a process that is gone and that was nobody's child here, where the kernel keeps it (Linux 6.15).
/// `None` when the kernel does not know, or not yet.
pub(crate) fn pidfd_exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    const { assert!(size_of::<PidfdInfo>() == 72) };
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request number encodes the size of `info`, which the kernel does not exceed.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (done == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let root = lookup_user("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(lookup_user("0").unwrap().unwrap().uid, 0);
        assert_eq!(lookup_user("no-such-user-here").unwrap(), None);
        assert_eq!(lookup_user("a\0b").unwrap(), None);
    }
}
