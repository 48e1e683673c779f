//! A keeper for one test, and what a worker can be asked to do.

use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    io::{self, BufRead, Read, Seek, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{FromRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use cocktail_keeper::{
    EventStream, Hello, KeeperClient, KeeperError, KeeperHandle, KeeperOptions, LogItem,
    protocol::{Event, Exit, LogsRequest, Prepare, Start, StartOutcome, Started, StopPolicy},
};
use libtest_mimic::{Failed, Trial};

/// Nothing here takes that long; a test that hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const TERM: StopPolicy = StopPolicy { signal: 15, grace_ms: 20_000 };

/// A test on a runtime of its own.
pub(crate) fn test<F: Future<Output = ()> + 'static>(name: &str, body: fn() -> F) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime
            .block_on(async { tokio::time::timeout(PATIENCE, body()).await })
            .map_err(|_| Failed::from("it did not end"))
    })
}

/// The parts that this program plays when it is started as a worker.
pub(crate) fn play() {
    match std::env::args().nth(1).as_deref() {
        Some("accept-inherited") => accept(&inherited()),
        Some("accept-moved") => {
            let listener = inherited();
            let moved = listener.try_clone().unwrap();
            drop(listener);
            accept(&moved);
        }
        Some("accept-until-term") => accept_until_term(inherited()),
        Some("guard") => guard(),
        Some("guard-that-hangs") => guard_that_hangs(),
        _ => {}
    }
}

/// Writes down with which grace it was run, and has done its work at the third time.
#[expect(clippy::exit, reason = "a guard says by its code whether it has done its work")]
fn guard() {
    let mut arguments = std::env::args().skip(2);
    let (file, grace) = (arguments.next().unwrap(), arguments.next().unwrap());
    let mut file = fs::OpenOptions::new().create(true).append(true).read(true).open(file).unwrap();
    writeln!(file, "{grace}").unwrap();
    file.rewind().unwrap();
    let runs = io::BufReader::new(file).lines().count();
    std::process::exit(i32::from(runs < 3));
}

/// Says who it is, and has never done its work.
fn guard_that_hangs() {
    fs::write(std::env::args().nth(2).unwrap(), format!("{}\n", std::process::id())).unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(600));
    }
}

fn inherited() -> TcpListener {
    assert_eq!(std::env::var("LISTEN_PID").unwrap(), std::process::id().to_string());
    assert_eq!(std::env::var("LISTEN_FDS").unwrap(), "1");
    // SAFETY: the keeper promised that descriptor 3 is ours and listens.
    #[expect(unsafe_code, reason = "this is how an inherited socket is taken")]
    let listener = TcpListener::from(unsafe { OwnedFd::from_raw_fd(3) });
    listener
}

fn greet(mut stream: impl Write) {
    let name = std::env::var("LISTEN_FDNAMES").unwrap();
    write!(stream, "{name} {}", std::process::id()).unwrap();
}

fn accept(listener: &TcpListener) {
    for stream in listener.incoming() {
        greet(stream.unwrap());
    }
}

/// As services do: what was accepted is answered before the end.
#[expect(clippy::disallowed_methods, reason = "a worker is a program")]
fn accept_until_term(listener: TcpListener) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        loop {
            tokio::select! {
                biased;
                _ = term.recv() => break,
                accepted = listener.accept() => greet(accepted.unwrap().0.into_std().unwrap()),
            }
        }
    });
    std::process::exit(0);
}

/// A keeper of one test.
pub(crate) struct Keeper {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) options: KeeperOptions,
    pub(crate) store: String,
    pub(crate) client: KeeperClient,
    pub(crate) events: EventStream,
    in_process: Option<KeeperHandle>,
}

impl Keeper {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut KeeperOptions)) -> Self {
        let (dir, mut options) = dirs();
        change(&mut options);
        cocktail_keeper::spawn(&options).unwrap();
        Self::connect(dir, options, None).await
    }

    pub(crate) async fn in_process() -> Self {
        let (dir, options) = dirs();
        let handle = cocktail_keeper::serve_in_process(options.clone()).unwrap();
        Self::connect(dir, options, Some(handle)).await
    }

    async fn connect(dir: tempfile::TempDir, options: KeeperOptions, in_process: Option<KeeperHandle>) -> Self {
        let store = format!("store-{}", dir.path().file_name().unwrap().to_str().unwrap());
        let (client, events) =
            KeeperClient::connect(options.socket(), Hello { store: store.clone(), epoch: 1, ..Default::default() })
                .await
                .unwrap();
        client.subscribe(0).await.unwrap();
        Self { dir, options, store, client, events, in_process }
    }

    /// Drops the connection, as a Manager that dies does. Uses an in-process keeper elsewhere to have a client to keep.
    pub(crate) async fn let_go(&mut self) {
        let dir = tempfile::tempdir().unwrap();
        let options = KeeperOptions::new(dir.path().join("run"), dir.path().join("logs"));
        let other = cocktail_keeper::serve_in_process(options.clone()).unwrap();
        let hello = Hello { store: "elsewhere".to_owned(), epoch: 1, ..Default::default() };
        (self.client, self.events) = KeeperClient::connect(options.socket(), hello).await.unwrap();
        other.shutdown();
    }

    pub(crate) fn hello(&self, epoch: u64) -> Hello {
        Hello { store: self.store.clone(), epoch, ..Default::default() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.client.welcome().pid
    }

    /// Prepares and starts `argv` as generation 1.
    pub(crate) async fn run(&self, container: &str, argv: &[&str]) -> Started {
        self.prepare(container, 1).await;
        match self.client.start(self.start(container, 1, argv)).await.unwrap() {
            StartOutcome::Started(started) => started,
            StartOutcome::Exited(exit) => panic!("{exit:?}"),
        }
    }

    pub(crate) async fn sh(&self, container: &str, script: &str) -> Started {
        self.run(container, &["sh", "-c", script]).await
    }

    pub(crate) async fn prepare(&self, container: &str, generation: u64) {
        let prepare = Prepare { container: container.to_owned(), generation, ports: Vec::new() };
        self.client.prepare(prepare).await.unwrap();
    }

    pub(crate) fn start(&self, container: &str, generation: u64, argv: &[&str]) -> Start {
        Start {
            container: container.to_owned(),
            generation,
            argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
            env: BTreeMap::from([("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())]),
            cwd: self.dir.path().canonicalize().unwrap(),
            leftovers: StopPolicy { signal: 15, grace_ms: 200 },
            ..Start::default()
        }
    }

    /// Waits for the exit of a container.
    pub(crate) async fn exit_of(&mut self, container: &str) -> Exit {
        loop {
            let frame = self.events.next().await.expect("the keeper lives");
            if let Event::Exited { container: who, exit, .. } = frame.event
                && who == container
            {
                return exit;
            }
        }
    }

    /// The whole log so far, without times.
    pub(crate) async fn log(&self, container: &str) -> String {
        self.log_with(LogsRequest { container: container.to_owned(), ..LogsRequest::default() }).await
    }

    pub(crate) async fn log_with(&self, request: LogsRequest) -> String {
        let mut stream = self.client.logs(request).await.unwrap();
        let mut text = String::new();
        while let Some(item) = stream.next().await.unwrap() {
            text.push_str(&without_times(&item));
        }
        text
    }

    /// A file in the test's directory.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until a worker wrote this file, whole lines.
    pub(crate) async fn read_when_written(&self, name: &str) -> String {
        let path = self.path(name);
        until(|| fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'))).await
    }
}

/// Kills the keeper and brings up another.
pub(crate) async fn replace(keeper: &mut Keeper) {
    let old = keeper.pid();
    kill(old, 9);
    keeper.client.closed().await;
    until(|| (!lives(old)).then_some(())).await;
    (keeper.client, keeper.events) = loop {
        cocktail_keeper::spawn(&keeper.options).unwrap();
        match KeeperClient::connect(keeper.options.socket(), keeper.hello(2)).await {
            Ok(connected) => break connected,
            // Threads of the dying one may hold its lock and socket a moment longer than it is seen to live.
            Err(KeeperError::Disconnected | KeeperError::Unreachable { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other:?}"),
        }
    };
    keeper.client.subscribe(0).await.unwrap();
    assert_ne!(keeper.pid(), old);
}

/// Waits until a condition holds that nobody tells us about.
pub(crate) async fn until<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(value) = condition() {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn without_times(item: &LogItem) -> String {
    match item {
        LogItem::Records(records) => {
            let text = String::from_utf8_lossy(records);
            text.lines().map(|line| line[28..].to_owned() + "\n").collect()
        }
        LogItem::Notice(notice) => format!("NOTICE {notice}\n"),
    }
}

fn dirs() -> (tempfile::TempDir, KeeperOptions) {
    let dir = tempfile::tempdir().unwrap();
    let options = KeeperOptions::new(dir.path().join("run"), dir.path().join("logs"));
    (dir, options)
}

pub(crate) fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])))
}

/// Whether a process was stopped by a signal and can go on.
pub(crate) fn stands_still(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T')))
}

pub(crate) fn kill(pid: u32, signal: i32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::from_named_raw(signal).unwrap());
}

/// Processes that carry this store's mark.
pub(crate) fn marked(store: &str) -> Vec<u32> {
    let mark = format!("COCKTAIL_MARKER={store}");
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|env| env.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()))
            && lives(*pid)
    })
    .collect()
}

/// A port that nobody has. Somebody could take it before it is used, as nobody on a test machine does.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// What a server says on its own before it closes.
pub(crate) fn said_by(addr: SocketAddr) -> String {
    let mut text = String::new();
    TcpStream::connect(addr).unwrap().read_to_string(&mut text).unwrap();
    text
}

pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

impl Drop for Keeper {
    fn drop(&mut self) {
        match self.in_process.take() {
            Some(handle) => handle.shutdown(),
            None => {
                // The one that has the lock now may be another than the one we met first.
                for pid in keepers_of(&self.options.dir) {
                    kill(pid, 9);
                }
            }
        }
        for pid in marked(&self.store) {
            kill(pid, 9);
        }
    }
}

/// Keepers of a directory, by their command line.
pub(crate) fn keepers_of(dir: &Path) -> Vec<u32> {
    let dir = dir.to_str().unwrap().to_owned();
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.starts_with("cocktail-keeper\0") && line.contains(&dir))
            && lives(*pid)
    })
    .collect()
}
