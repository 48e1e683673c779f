//! One way to start a process: `clone(CLONE_VM | CLONE_VFORK)`, as posix_spawn does it, with the steps that it lacks.
//!
//! Start at [`Command`] and [`spawn`]. The child shares our memory until it executes the program, and the calling thread
//! is suspended for that long; so no page table is copied (fork costs more the larger the caller is) and a failure is
//! reported exactly, by step, through memory. posix_spawn cannot set limits, users, a controlling terminal, a
//! cgroup or `LISTEN_PID`, and helpers between us and the program would cost a second exec.
//! Always holds: the child has no signal handler, an empty mask, and no descriptors but those it was given.
//!
//! Where stdio is named by path the descriptor table is shared first and then left behind empty
//! (`CLOSE_RANGE_UNSHARE`), so that a start costs the same however many descriptors the keeper has.
#![expect(unsafe_code, reason = "each block names the guarantee that it relies on")]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_long, c_void},
    mem::MaybeUninit,
    os::fd::RawFd,
    sync::OnceLock,
};

use super::Ids;

/// Where a standard stream comes from.
#[derive(Debug)]
pub(crate) enum Stdio {
    /// Opened in the child with these flags.
    Path(CString, c_int),
    /// Taken from this descriptor, which must stay open during the call.
    Fd(RawFd),
}

/// Everything about a process that is to be started.
#[derive(Debug)]
pub(crate) struct Command {
    /// Paths to try in order.
    pub(crate) programs: Vec<CString>,
    pub(crate) argv: Vec<CString>,
    pub(crate) env: Vec<CString>,
    pub(crate) cwd: CString,
    pub(crate) stdio: [Stdio; 3],
    /// Become 3, 4, … in the child; `LISTEN_PID` is then added to its environment.
    pub(crate) listen: Vec<RawFd>,
    pub(crate) user: Option<Ids>,
    pub(crate) rlimits: Vec<(c_int, libc::rlimit64)>,
    /// A `cgroup.procs` file to join.
    pub(crate) cgroup: Option<CString>,
    pub(crate) umask: u32,
    /// Ends the child when the calling thread ends.
    pub(crate) die_with_parent: bool,
    /// Make stdin the controlling terminal.
    pub(crate) terminal: bool,
}

/// The step of a start that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Clone,
    Descriptors,
    Session,
    Cgroup,
    Limit,
    User,
    Cwd,
    Parent,
    Terminal,
    Exec,
}

impl Step {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Clone => "creating the process",
            Self::Descriptors => "opening its standard streams",
            Self::Session => "making its session",
            Self::Cgroup => "joining its cgroup",
            Self::Limit => "setting its limits",
            Self::User => "becoming its user",
            Self::Cwd => "entering its working directory",
            Self::Parent => "tying it to its parent",
            Self::Terminal => "taking its terminal",
            Self::Exec => "executing the program",
        }
    }
}

/// A start that failed. No process is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) errno: i32,
}

/// Standard streams and inherited sockets of one process.
pub(crate) const MAX_DESCRIPTORS: usize = 64;
const STACK: usize = 64 * 1024;
/// Long enough for any pid; the child overwrites the digits.
const LISTEN_PID: &[u8] = b"LISTEN_PID=0000000000\0";

/// What parent and child share while the parent is suspended.
struct Shared<'a> {
    command: &'a Command,
    argv: &'a [*const c_char],
    env: &'a [*const c_char],
    listen_pid: *mut u8,
    by_path: bool,
    parent: libc::pid_t,
    failure: Option<Failure>,
}

fn can_unshare_descriptors() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    // SAFETY: the range holds no descriptor that anybody could have.
    *ANSWER.get_or_init(|| unsafe {
        libc::syscall(libc::SYS_close_range, c_long::from(u32::MAX), c_long::from(u32::MAX), 0) == 0
    })
}

/// Starts a process in a session of its own and returns its pid once it executes the program. The caller must reap it.
pub(crate) fn spawn(command: &Command) -> Result<u32, Failure> {
    if command.listen.len() > MAX_DESCRIPTORS - 3 {
        return Err(Failure { step: Step::Descriptors, errno: libc::EMFILE });
    }
    let mut listen_pid = LISTEN_PID.to_vec();
    let argv = pointers(&command.argv, None);
    let extra = (!command.listen.is_empty()).then_some(listen_pid.as_mut_ptr());
    let env = pointers(&command.env, extra.map(<*mut u8>::cast_const));
    let by_path = command.listen.is_empty()
        && command.stdio.iter().all(|stdio| matches!(stdio, Stdio::Path(..)))
        && can_unshare_descriptors();
    let mut shared = Shared {
        command,
        argv: &argv,
        env: &env,
        listen_pid: listen_pid.as_mut_ptr(),
        by_path,
        parent: rustix::process::getpid().as_raw_nonzero().get(),
        failure: None,
    };
    let mut stack: Vec<MaybeUninit<u8>> = Vec::with_capacity(STACK);
    let mut flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    if by_path {
        flags |= libc::CLONE_FILES;
    }
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are written before they are read. Blocking all signals keeps a handler of this process from
    // running in the child while memory is shared. The stack is STACK bytes long, its top is aligned to 16, and it
    // outlives the child's use of it because CLONE_VFORK suspends this thread until the child executes or ends.
    // `shared` is used by one side at a time for the same reason.
    let (pid, errno) = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        let top = (stack.as_mut_ptr() as usize + STACK) & !15;
        let pid = libc::clone(child, top as *mut c_void, flags, (&raw mut shared).cast());
        let errno = *libc::__errno_location();
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        (pid, errno)
    };
    if pid < 0 {
        return Err(Failure { step: Step::Clone, errno });
    }
    // SAFETY: the child wrote through a pointer to `shared`; a volatile read sees it.
    match unsafe { std::ptr::read_volatile(&raw const shared.failure) } {
        None => Ok(pid.unsigned_abs()),
        Some(failure) => {
            // SAFETY: `pid` is a child of ours that ended; when somebody else reaped it there is nothing to do.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            Err(failure)
        }
    }
}

fn pointers(strings: &[CString], extra: Option<*const u8>) -> Vec<*const c_char> {
    let mut list: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
    list.extend(extra.map(<*const u8>::cast));
    list.push(std::ptr::null());
    list
}

/// Runs in the child. Calls nothing that allocates, locks or unwinds.
extern "C" fn child(arg: *mut c_void) -> c_int {
    // SAFETY: `arg` is the `shared` of the suspended caller.
    let shared = unsafe { &mut *arg.cast::<Shared<'_>>() };
    // SAFETY: this is the child, and everything `become_program` reads outlives it.
    let Err(step) = unsafe { become_program(shared) };
    // SAFETY: errno belongs to the suspended thread, whose thread-local storage we share.
    let errno = unsafe { *libc::__errno_location() };
    shared.failure = Some(Failure { step, errno });
    // SAFETY: ends the child without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

fn ok(result: c_int, step: Step) -> Result<c_int, Step> {
    if result < 0 { Err(step) } else { Ok(result) }
}

fn okl(result: c_long, step: Step) -> Result<(), Step> {
    if result < 0 { Err(step) } else { Ok(()) }
}

/// SAFETY: only in a child made by [`spawn`].
unsafe fn become_program(shared: &mut Shared<'_>) -> Result<std::convert::Infallible, Step> {
    let command = shared.command;
    // SAFETY: plain system calls on values that outlive the call. The raw ones replace functions of the C library
    // that would act on every thread of the parent (set*id).
    unsafe {
        // The raw call, because the library's leaves its own two signals alone, which may be ignored since long before
        // us. Zeroes are the default action without flags, restorer and mask.
        let default = [0_u64; 4];
        for signal in 1..=64 as c_long {
            let none = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8 as c_long);
        }
        ok(libc::setsid(), Step::Session)?;
        if shared.by_path {
            // Leaves the shared table for an empty one of our own; then the lowest free numbers are 0, 1, 2.
            let unshare = c_long::from(libc::CLOSE_RANGE_UNSHARE);
            okl(libc::syscall(libc::SYS_close_range, 0, c_long::from(u32::MAX), unshare), Step::Descriptors)?;
            for stdio in &command.stdio {
                if let Stdio::Path(path, flags) = stdio {
                    ok(libc::open(path.as_ptr(), *flags), Step::Descriptors)?;
                }
            }
        } else {
            descriptors(command)?;
        }
        if let Some(path) = &command.cgroup {
            let fd = ok(libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC), Step::Cgroup)?;
            if libc::write(fd, c"0".as_ptr().cast(), 1) != 1 {
                return Err(Step::Cgroup);
            }
            libc::close(fd);
        }
        for (resource, limit) in &command.rlimits {
            let none = std::ptr::null_mut::<libc::rlimit64>();
            let resource = c_long::from(*resource);
            okl(libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const *limit, none), Step::Limit)?;
        }
        libc::umask(command.umask);
        if let Some(ids) = &command.user {
            become_user(ids)?;
        }
        ok(libc::chdir(command.cwd.as_ptr()), Step::Cwd)?;
        if command.die_with_parent {
            ok(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), Step::Parent)?;
            if libc::getppid() != shared.parent {
                return Err(Step::Parent);
            }
        }
        if command.terminal {
            ok(libc::ioctl(0, libc::TIOCSCTTY, 0), Step::Terminal)?;
        }
        write_pid(shared.listen_pid, libc::getpid().unsigned_abs());
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
        exec(&command.programs, shared.argv, shared.env)
    }
}

/// SAFETY: only in the child, whose descriptor table is a copy.
unsafe fn descriptors(command: &Command) -> Result<(), Step> {
    let mut moved = [-1; MAX_DESCRIPTORS];
    let count = 3 + command.listen.len();
    // Sources may sit where targets go, so all of them move above the targets first.
    for (target, moved) in moved.iter_mut().enumerate().take(count) {
        // SAFETY: plain system calls; `count` counts exactly these two lists.
        *moved = unsafe {
            let source = match command.stdio.get(target) {
                Some(Stdio::Path(path, flags)) => {
                    ok(libc::open(path.as_ptr(), *flags | libc::O_CLOEXEC), Step::Descriptors)?
                }
                Some(Stdio::Fd(fd)) => *fd,
                None => command.listen[target - 3],
            };
            ok(libc::fcntl(source, libc::F_DUPFD_CLOEXEC, count as c_int), Step::Descriptors)?
        };
    }
    for (target, moved) in moved.iter().enumerate().take(count) {
        // SAFETY: plain system call.
        ok(unsafe { libc::dup2(*moved, target as c_int) }, Step::Descriptors)?;
    }
    // Ours all close on exec; this is for those that a host of an in-process keeper left open. Old kernels lack it.
    // SAFETY: plain system call on the child's own table.
    unsafe { libc::syscall(libc::SYS_close_range, count as c_long, c_long::from(u32::MAX), 0) };
    Ok(())
}

/// SAFETY: only in the child.
unsafe fn become_user(ids: &Ids) -> Result<(), Step> {
    // SAFETY: raw calls act on this thread alone, which is the whole child.
    unsafe {
        let current = (libc::geteuid(), libc::getegid());
        if current != (ids.uid, ids.gid) || libc::geteuid() == 0 {
            let (count, groups) = (ids.groups.len() as c_long, ids.groups.as_ptr());
            okl(libc::syscall(libc::SYS_setgroups, count, groups), Step::User)?;
            let gid = c_long::from(ids.gid);
            okl(libc::syscall(libc::SYS_setresgid, gid, gid, gid), Step::User)?;
            let uid = c_long::from(ids.uid);
            okl(libc::syscall(libc::SYS_setresuid, uid, uid, uid), Step::User)?;
        }
        // A worker that was given a user of its own must not climb back through a setuid program.
        ok(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), Step::User)?;
    }
    Ok(())
}

/// Writes the digits of `pid` over those of [`LISTEN_PID`], without leading zeroes.
///
/// SAFETY: `text` must point to a writable copy of `LISTEN_PID`.
unsafe fn write_pid(text: *mut u8, pid: u32) {
    let mut digits = [0_u8; 10];
    let mut length = 0;
    let mut rest = pid;
    loop {
        digits[length] = b'0' + (rest % 10) as u8;
        length += 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    for (place, digit) in digits[..length].iter().rev().enumerate() {
        // SAFETY: the copy has ten digits after the equals sign, and a terminator.
        unsafe { *text.add(11 + place) = *digit };
    }
    // SAFETY: as above.
    unsafe { *text.add(11 + length) = 0 };
}

/// Tries each path as `execvp` does: a missing one is passed over, a forbidden one remembered.
///
/// SAFETY: only in the child; both lists end with a null pointer.
unsafe fn exec(
    programs: &[CString],
    argv: &[*const c_char],
    env: &[*const c_char],
) -> Result<std::convert::Infallible, Step> {
    let mut denied = false;
    for program in programs {
        let program: &CStr = program;
        // SAFETY: null-terminated strings in null-terminated lists.
        let errno = unsafe {
            libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr());
            *libc::__errno_location()
        };
        match errno {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => denied = true,
            _ => return Err(Step::Exec),
        }
    }
    // SAFETY: errno of this thread.
    unsafe { *libc::__errno_location() = if denied { libc::EACCES } else { libc::ENOENT } };
    Err(Step::Exec)
}
