//! How a keeper comes to life: as a process of its own, or on a thread of a host.
//!
//! A detached keeper is the grandchild of whoever asked for it: the program runs itself, that process starts the keeper
//! and exits at once, and the asker waits for that process alone, by its pid. The keeper says on a pipe when it
//! listens; nothing is polled. A lock on `keeper.lock` lets one keeper live in a directory, and ends with it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{OpenOptionsExt, PermissionsExt},
        net::UnixStream,
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    rc::Rc,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tokio::sync::oneshot;

use crate::{
    error::{KeeperError, Result},
    logs::private_dir,
    options::KeeperOptions,
    protocol::StopPolicy,
    server::{Mode, Server},
    sys,
};

/// First argument of a run that starts a keeper and exits.
const LAUNCH: &str = "__cocktail-launch";
/// First argument of a run that is a keeper.
const KEEPER: &str = "__cocktail-keeper";
/// What a keeper says when it listens, and what it says when another one has the directory.
const LISTENING: &str = "listening";
const TAKEN: &str = "taken";
/// How long a keeper may take to come up.
const COME_UP: Duration = Duration::from_secs(10);
/// The keeper's own log is begun anew above this size.
const OWN_LOG: u64 = 1024 * 1024;
/// Descriptors that a keeper wants to be able to have: two for each worker, two for each connection.
const DESCRIPTORS: u64 = 65_536;

static INITIALISED: AtomicBool = AtomicBool::new(false);
static NOFILE: OnceLock<(u64, u64)> = OnceLock::new();

/// The limit on descriptors that this process had before it raised its own.
pub(crate) fn original_nofile() -> Option<(u64, u64)> {
    NOFILE.get().copied()
}

/// First line of `main` of every program that starts keepers: a program becomes its own keeper by running itself again.
///
/// Returns at once in an ordinary run. In a run that was started to be a keeper it does not return.
#[expect(clippy::exit, reason = "a run that is a keeper must not go on into the program's own main")]
pub fn init() {
    INITIALISED.store(true, Ordering::Release);
    let mut args = std::env::args_os().skip(1);
    let Some(role) = args.next() else { return };
    let code = match (role.to_str(), args.next()) {
        (Some(LAUNCH), Some(options)) => launch(&options),
        (Some(KEEPER), Some(options)) => keeper(options.as_bytes()),
        _ => return,
    };
    std::process::exit(code)
}

/// Starts a detached keeper for `options.dir` and returns when it accepts connections. If one runs already that one
/// stays. Blocks for some milliseconds. Installs no signal handler and waits for no process but its own.
///
/// # Errors
/// [`KeeperError::NotInitialised`] if [`init`] was not called in this process; [`KeeperError::NotStarted`];
/// [`KeeperError::Io`] when a directory cannot be made.
pub fn spawn(options: &KeeperOptions) -> Result<()> {
    if !INITIALISED.load(Ordering::Acquire) {
        return Err(KeeperError::NotInitialised);
    }
    let options = make_dirs(options)?;
    let text = serde_json::to_string(&options).map_err(|e| KeeperError::NotStarted { why: e.to_string() })?;
    let until = Instant::now() + COME_UP;
    loop {
        if UnixStream::connect(options.socket()).is_ok() {
            return Ok(());
        }
        let said = ask(&text)?;
        match said.trim() {
            LISTENING => return Ok(()),
            // One is just coming up, or just ending.
            TAKEN if Instant::now() < until => thread::sleep(Duration::from_millis(10)),
            TAKEN => {
                return Err(KeeperError::NotStarted {
                    why: "another process holds its lock and does not listen".into(),
                });
            }
            why => return Err(KeeperError::NotStarted { why: why.to_owned() }),
        }
    }
}

/// Runs this program as a keeper and returns what it said.
fn ask(options: &str) -> Result<String> {
    let mut launcher = Command::new("/proc/self/exe")
        .arg0("cocktail-keeper")
        .args([LAUNCH, options])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(KeeperError::io("starting the keeper"))?;
    let mut said = String::new();
    if let Some(stdout) = launcher.stdout.take() {
        // Ends when the keeper closed its end, or died.
        let read = stdout.take(4096).read_to_string(&mut said);
        read.map_err(KeeperError::io("reading from the keeper"))?;
    }
    // A host that ignores child signals has nothing to wait for.
    let _ = launcher.wait();
    Ok(if said.is_empty() { "it ended without a word; see keeper.log".to_owned() } else { said })
}

/// Makes the directories and the paths absolute.
fn make_dirs(options: &KeeperOptions) -> Result<KeeperOptions> {
    let make = |path: &Path| -> io::Result<PathBuf> {
        private_dir(path)?;
        path.canonicalize()
    };
    let dir = make(&options.dir).map_err(KeeperError::io("making the runtime directory"))?;
    let logs = make(&options.logs).map_err(KeeperError::io("making the log directory"))?;
    if dir.join("keeper.sock").as_os_str().len() >= 108 {
        let source = io::Error::from(io::ErrorKind::InvalidFilename);
        return Err(KeeperError::Io {
            what: "naming the keeper's socket, whose path is longer than 107 bytes,",
            source,
        });
    }
    Ok(KeeperOptions { dir, logs, ..options.clone() })
}

/// The process in between: starts the keeper in a session of its own and exits, which gives the keeper to init.
fn launch(options: &std::ffi::OsStr) -> i32 {
    let _ = rustix::process::setsid();
    let keeper = Command::new("/proc/self/exe").arg0("cocktail-keeper").arg(KEEPER).arg(options).spawn();
    match keeper {
        Ok(_) => 0,
        Err(e) => {
            say(&e.to_string());
            1
        }
    }
}

fn say(text: &str) {
    // Nobody may be listening any more.
    let _ = io::stdout().write_all(text.as_bytes());
    let _ = io::stdout().flush();
}

/// The keeper's process, from its first line to its last.
fn keeper(options: &[u8]) -> i32 {
    let run = || -> io::Result<()> {
        // First of all: whatever the host left open is not ours, and what follows must stay open.
        sys::close_from(3);
        let options: KeeperOptions = serde_json::from_slice(options)?;
        let Some(lock) = lock(&options.dir)? else {
            say(TAKEN);
            return Ok(());
        };
        become_keeper()?;
        let log = own_log(&options.dir)?;
        let runtime = runtime()?;
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let server = Server::new(options.clone(), Mode::Detached)?;
            let listener = listen(&options)?;
            say(LISTENING);
            // From here on stdout and stderr are the log, and whoever waits on the pipe goes on.
            rustix::stdio::dup2_stdout(&log)?;
            rustix::stdio::dup2_stderr(&log)?;
            note(&log, "listening");
            server.run(listener).await;
            note(&log, "ending");
            io::Result::Ok(())
        })?;
        // Whoever connects from now on finds nobody rather than somebody who does not answer.
        let _ = std::fs::remove_file(options.socket());
        drop(lock);
        Ok(())
    };
    match run() {
        Ok(()) => 0,
        Err(e) => {
            say(&e.to_string());
            1
        }
    }
}

fn become_keeper() -> io::Result<()> {
    sys::small_heap();
    sys::take_short_turns();
    rustix::thread::set_name(c"cocktail-keeper")?;
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let limit = getrlimit(Resource::Nofile);
    let infinite = u64::MAX;
    let soft = limit.current.unwrap_or(infinite);
    let hard = limit.maximum.unwrap_or(infinite);
    let wanted = DESCRIPTORS.min(hard);
    if soft < wanted {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })?;
        // Set once, before anything is started.
        let _ = NOFILE.set((soft, hard));
    }
    Ok(())
}

fn lock(dir: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(dir.join("keeper.lock"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn own_log(dir: &Path) -> io::Result<File> {
    let path = dir.join("keeper.log");
    let large = path.metadata().is_ok_and(|meta| meta.len() > OWN_LOG);
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let log = options.open(path)?;
    if large {
        log.set_len(0)?;
    }
    Ok(log)
}

fn note(mut log: &File, what: &str) {
    let at = crate::logs::timestamp(jiff::Timestamp::now());
    // A log that cannot be written must not end the keeper.
    let _ = writeln!(log, "{at} keeper {} {what}", std::process::id());
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(1))
        .thread_stack_size(256 * 1024)
        .build()
}

/// Listens on the socket, replacing what a dead keeper left there. The lock must be held.
fn listen(options: &KeeperOptions) -> io::Result<tokio::net::UnixListener> {
    let path = options.socket();
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = tokio::net::UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// A keeper that runs on a thread of this process. Dropping it ends the keeper and its workers soon;
/// [`shutdown`](Self::shutdown) does so and waits.
#[derive(Debug)]
pub struct KeeperHandle {
    socket: PathBuf,
    end: Mutex<Option<oneshot::Sender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl KeeperHandle {
    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Kills its workers, ends it and waits for its thread. Blocks for some milliseconds. Repeating it does nothing.
    pub fn shutdown(&self) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic there was printed there.
            let _ = thread.join();
        }
    }
}

/// Runs a keeper on a thread of this process, for tests and `keeper = "in-process"`. Same socket, same protocol; no
/// signal handler, no subreaper; workers end with the process. [`init`] is not needed.
///
/// # Errors
/// [`KeeperError::Io`], or [`KeeperError::NotStarted`] when another keeper has the directory.
pub fn serve_in_process(options: KeeperOptions) -> Result<KeeperHandle> {
    let options = make_dirs(&options)?;
    let taken = || KeeperError::NotStarted { why: "another keeper has the directory".to_owned() };
    let lock = lock(&options.dir).map_err(KeeperError::io("locking the runtime directory"))?.ok_or_else(taken)?;
    let socket = options.socket();
    let (end, ended) = oneshot::channel::<()>();
    let (tell, listening) = mpsc::channel();
    let thread = thread::Builder::new().name("keeper".to_owned()).stack_size(512 * 1024);
    let thread = thread
        .spawn(move || {
            if let Err(e) = serve(&options, ended, &tell) {
                // Whoever started it may be gone.
                let _ = tell.send(Err(e));
            }
            let _ = std::fs::remove_file(options.socket());
            drop(lock);
        })
        .map_err(KeeperError::io("starting the keeper's thread"))?;
    match listening.recv() {
        Ok(Ok(())) => Ok(KeeperHandle { socket, end: Mutex::new(Some(end)), thread: Mutex::new(Some(thread)) }),
        Ok(Err(source)) => Err(KeeperError::Io { what: "starting the keeper", source }),
        Err(_) => Err(KeeperError::NotStarted { why: "its thread ended".to_owned() }),
    }
}

fn serve(options: &KeeperOptions, ended: oneshot::Receiver<()>, tell: &mpsc::Sender<io::Result<()>>) -> io::Result<()> {
    let runtime = runtime()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let server = Server::new(options.clone(), Mode::InProcess)?;
        let listener = listen(options)?;
        // Whoever started it may be gone.
        let _ = tell.send(Ok(()));
        tokio::select! {
            () = Rc::clone(&server).run(listener) => {}
            _ = ended => {}
        }
        server.kill_all(StopPolicy { signal: 9, grace_ms: 0 }).await;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_did_not_call_init_is_not_run_again() {
        let dir = tempfile::tempdir().unwrap();
        let options = KeeperOptions::new(dir.path().join("run"), dir.path().join("logs"));
        assert!(matches!(spawn(&options), Err(KeeperError::NotInitialised)));
        assert!(!options.dir.exists());
    }

    #[test]
    fn a_socket_path_that_is_too_long_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(100));
        let refused = serve_in_process(KeeperOptions::new(long, dir.path().join("logs"))).unwrap_err();
        assert!(refused.to_string().contains("107"), "{refused}");
    }

    #[test]
    fn one_keeper_lives_in_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let options = KeeperOptions::new(dir.path().join("run"), dir.path().join("logs"));
        let first = serve_in_process(options.clone()).unwrap();
        assert!(serve_in_process(options.clone()).is_err());
        first.shutdown();
        first.shutdown();
        serve_in_process(options).unwrap().shutdown();
    }
}
