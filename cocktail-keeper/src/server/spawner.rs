//! Up to two threads that start processes.
//!
//! A start suspends its thread until the program executes, so starting on the main thread would delay everybody, and two
//! threads use two cores. They come when there is work and end when there is none. An in-process keeper starts
//! on its own thread: its workers are tied to the thread that started them.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, VecDeque},
    ffi::CString,
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rustix::{
    fs::{Gid, Mode, OFlags, Uid, fchown, open},
    pipe::{PipeFlags, pipe_with},
};
use tokio::sync::oneshot;

use super::Mode as KeeperMode;
use crate::{
    procfs,
    protocol::StartError,
    sys::{
        self,
        spawn::{Command, Failure, Stdio, Step},
    },
};

const THREADS: usize = 2;
const LINGER: Duration = Duration::from_secs(1);

/// One process to start.
pub(super) struct Job {
    pub(super) command: Command,
    /// Looked up on the thread: name services may be slow.
    pub(super) user: Option<String>,
    /// Give it new pipes as stdout and stderr.
    pub(super) pipes: bool,
    /// Descriptors that the command names.
    pub(super) keep: Vec<Arc<OwnedFd>>,
}

/// A process that executes its program.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) pid: u32,
    pub(super) start_time: u64,
    /// The reading ends of its stdout and stderr.
    pub(super) pipes: Option<[OwnedFd; 2]>,
}

type Outcome = Result<Spawned, StartError>;

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<(Job, oneshot::Sender<Outcome>)>,
    threads: usize,
    idle: usize,
}

pub(super) struct Spawner {
    mode: KeeperMode,
    shared: Arc<Shared>,
    begun: Cell<u64>,
    in_flight: RefCell<BTreeSet<u64>>,
}

/// Marks one start as in flight for as long as it is held.
pub(super) struct InFlight<'a> {
    spawner: &'a Spawner,
    number: u64,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.spawner.in_flight.borrow_mut().remove(&self.number);
    }
}

impl Spawner {
    pub(super) fn new(mode: KeeperMode) -> Self {
        Self { mode, shared: Arc::default(), begun: Cell::new(0), in_flight: RefCell::default() }
    }

    /// How many starts have begun so far.
    pub(super) fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// Whether a start that was among the first `begun` ones may still deliver its process.
    pub(super) fn may_deliver(&self, begun: u64) -> bool {
        self.in_flight.borrow().first().is_some_and(|oldest| *oldest <= begun)
    }

    /// Must be held from before [`spawn`](Self::spawn) until the process is known to the reaper.
    pub(super) fn begin(&self) -> InFlight<'_> {
        let number = self.begun.get() + 1;
        self.begun.set(number);
        self.in_flight.borrow_mut().insert(number);
        InFlight { spawner: self, number }
    }

    pub(super) async fn spawn(&self, mut job: Job) -> Outcome {
        if self.mode == KeeperMode::InProcess {
            job.command.die_with_parent = true;
            return carry_out(job, self.mode);
        }
        let (done, outcome) = oneshot::channel();
        {
            let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.jobs.push_back((job, done));
            if state.idle < state.jobs.len() && state.threads < THREADS {
                state.threads += 1;
                let shared = Arc::clone(&self.shared);
                let builder = thread::Builder::new().name("spawner".to_owned()).stack_size(256 * 1024);
                if builder.spawn(move || work(&shared)).is_err() {
                    state.threads -= 1;
                    if state.threads == 0 {
                        // Nobody else would take them.
                        state.jobs.clear();
                    }
                }
            }
        }
        self.shared.more.notify_one();
        let lost = || StartError::Other { step: "starting a spawner thread".to_owned(), errno: libc::EAGAIN };
        outcome.await.unwrap_or_else(|_| Err(lost()))
    }
}

fn work(shared: &Shared) {
    sys::take_short_turns();
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some((job, done)) = state.jobs.pop_front() {
            drop(state);
            if let Err(Ok(orphan)) = done.send(carry_out(job, KeeperMode::Detached)) {
                // The main thread is ending; the worker would run without a record, but the next keeper finds it.
                drop(orphan);
            }
            state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        state.idle += 1;
        let (back, waited) = shared.more.wait_timeout(state, LINGER).unwrap_or_else(PoisonError::into_inner);
        state = back;
        state.idle -= 1;
        if waited.timed_out() && state.jobs.is_empty() {
            state.threads -= 1;
            state.jobs = VecDeque::new();
            drop(state);
            sys::trim_heap();
            return;
        }
    }
}

fn carry_out(mut job: Job, mode: KeeperMode) -> Outcome {
    let program = job.command.argv.first().map(|arg| arg.to_string_lossy().into_owned()).unwrap_or_default();
    if let Some(user) = &job.user {
        let found = sys::lookup_user(user).map_err(|e| other("looking its user up", &e))?;
        job.command.user = Some(found.ok_or_else(|| StartError::NoSuchUser { user: user.clone() })?);
    }
    let pipes = if job.pipes { Some([make_pipe(&mut job, mode, 1)?, make_pipe(&mut job, mode, 2)?]) } else { None };
    let cwd = job.command.cwd.clone();
    let pid = sys::spawn::spawn(&job.command).map_err(|failure| {
        explain(failure, program, &cwd.to_string_lossy(), job.user.as_deref().unwrap_or_default())
    })?;
    drop(job.keep);
    // It is not reaped before it is known, so its entry is there even if it ended already.
    let start_time = procfs::stat(pid).ok().flatten().map_or(0, |stat| stat.start_time);
    Ok(Spawned { pid, start_time, pipes })
}

/// Makes one of a worker's pipes and returns the end that is read here.
///
/// The worker's own end is opened for reading and writing, so that it never writes into a pipe without reader when the
/// keeper dies, and so that the next keeper can open it again through `/proc`. Named pipes would do the same at the
/// price of two files for each worker, which file systems make slowly when many come and go.
fn make_pipe(job: &mut Job, mode: KeeperMode, stream: usize) -> Result<OwnedFd, StartError> {
    let failed = |e: rustix::io::Errno| other("making its pipes", &e.into());
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(failed)?;
    drop(writer);
    if let Some(ids) = &job.command.user {
        // So that it can open /dev/stdout again; without it only that fails.
        let _ = fchown(&reader, Some(Uid::from_raw(ids.uid)), Some(Gid::from_raw(ids.gid)));
    }
    let own = format!("/proc/{}/fd/{}", std::process::id(), reader.as_raw_fd());
    job.command.stdio[stream] = if mode == KeeperMode::Detached {
        Stdio::Path(CString::new(own).unwrap_or_default(), libc::O_RDWR)
    } else {
        let end = open(own, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
        let end = Arc::new(end);
        job.keep.push(Arc::clone(&end));
        Stdio::Fd(end.as_raw_fd())
    };
    Ok(reader)
}

fn other(step: &str, e: &io::Error) -> StartError {
    StartError::Other { step: step.to_owned(), errno: e.raw_os_error().unwrap_or(0) }
}

fn explain(failure: Failure, program: String, cwd: &str, user: &str) -> StartError {
    let Failure { step, errno } = failure;
    match (step, errno) {
        (Step::Exec, libc::ENOENT) => StartError::NotFound { program },
        (Step::Exec, libc::EACCES | libc::EPERM) => StartError::PermissionDenied { program },
        (Step::User, libc::EPERM) => StartError::UserDenied { user: user.to_owned() },
        (Step::Cwd, errno) => StartError::Cwd { cwd: cwd.to_owned(), errno },
        (step, errno) => StartError::Other { step: step.name().to_owned(), errno },
    }
}

/// The paths that a program's name stands for, as a shell would look them up.
pub(super) fn candidates(program: &str, path: Option<&str>) -> Vec<CString> {
    if program.contains('/') {
        return CString::new(program).into_iter().collect();
    }
    let path = path.unwrap_or("/usr/local/bin:/usr/bin:/bin");
    // An empty entry would mean the working directory, which nobody means.
    let dirs = path.split(':').filter(|dir| !dir.is_empty());
    dirs.filter_map(|dir| CString::new(format!("{dir}/{program}")).ok()).collect()
}

/// Nothing to read and nowhere to write.
pub(super) fn no_stdio() -> [Stdio; 3] {
    [libc::O_RDONLY, libc::O_WRONLY, libc::O_WRONLY].map(|flags| Stdio::Path(c"/dev/null".to_owned(), flags))
}
