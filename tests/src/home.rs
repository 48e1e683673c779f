//! A folder with a data dir, the real program in it, and everything that it started.
//!
//! Start at [`Home::new`]. [`Home::run`] runs a command to its end; [`Home::up`] and [`Home::serve`] start a Manager that
//! goes on. Everything runs in [`Home::root`] with [`Home::base`] as `HOME`, which workers are given, too: by that
//! their processes are known. A test ends with [`Home::finish`], which fails where something was left.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, net, thread};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::output::Output;
use crate::ports::Block;
use crate::process::{self, Process};
use crate::program::{self, LOOK};

/// Longest that anything may take to come true. Much longer than it takes: a machine can be busy.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Longest text of a log in a report.
const SHOWN: usize = 6_000;

/// A folder of its own, with ports of its own.
#[derive(Debug)]
pub struct Home {
    base: TempDir,
    program: PathBuf,
    ports: RefCell<Block>,
    given: RefCell<Vec<u16>>,
    /// Whether a Manager was told to leave its workers, so that a keeper may wait for the next one.
    left: Cell<bool>,
    number: Cell<u32>,
}

impl Home {
    /// Makes a folder and takes ports.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn new() -> Self {
        let base = tempfile::Builder::new().prefix("cocktail-").tempdir().expect("a temporary folder can be made");
        for folder in ["work", "out", "tmp"] {
            fs::create_dir(base.path().join(folder)).expect("a folder can be made in a new one");
        }
        Self {
            base,
            program: program::cocktail(),
            ports: RefCell::new(Block::take()),
            given: RefCell::default(),
            left: Cell::new(false),
            number: Cell::new(0),
        }
    }

    /// The folder that everything is in. `HOME` of all that is started.
    pub fn base(&self) -> &Path {
        self.base.path()
    }

    /// The working directory of commands, where manifests are.
    pub fn root(&self) -> PathBuf {
        self.base().join("work")
    }

    /// The data dir.
    pub fn data_dir(&self) -> PathBuf {
        self.root().join(".cocktail")
    }

    /// A free port, another one each time, that the Manager does not lease.
    pub fn port(&self) -> u16 {
        let port = self.ports.borrow_mut().port();
        self.given.borrow_mut().push(port);
        port
    }

    /// What the Manager leases ports from.
    pub fn port_range(&self) -> String {
        self.ports.borrow().range()
    }

    /// Whether the Manager may lease this port.
    pub fn leases(&self, port: u16) -> bool {
        self.ports.borrow().leases(port)
    }

    /// The table `[manager]` with this Home's ports and short times, for manifests and settings files.
    pub fn settings(&self) -> String {
        format!("[manager]\nport_range = \"{}\"\nport_hold_down = \"100ms\"\ndrain = \"1s\"\n", self.port_range())
    }

    /// Writes a file into [`Home::root`] and returns its path.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().expect("it is in the root")).expect("a folder can be made");
        fs::write(&path, text).expect("a file can be written");
        path
    }

    /// Writes a manifest of the Service `shop` with [`Home::settings`]; `body` are its maps.
    pub fn manifest(&self, name: &str, body: &str) -> PathBuf {
        self.write(name, format!("service = \"shop\"\n\n{}\n{body}", self.settings()))
    }

    /// The program with arguments, in this Home, not started yet. The environment has nothing of ours but `PATH`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args);
        self.settle(&mut command);
        command
    }

    /// Gives any command the working directory and the environment of this Home.
    pub fn settle(&self, command: &mut Command) {
        command.current_dir(self.root()).env_clear().env("HOME", self.base()).env("LANG", "C.UTF-8");
        command.env("COCKTAIL_DATA_DIR", self.data_dir()).env("TMPDIR", self.base().join("tmp"));
        if let Some(path) = env::var_os("PATH") {
            command.env("PATH", path);
        }
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        program::run(&mut self.command(args), b"")
    }

    /// Runs the program, which must succeed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> Output {
        self.run(args).ok()
    }

    /// Runs the program with `-o json`, which must succeed.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        self.run(&[&["-o", "json"], args].concat()).json()
    }

    /// Starts the program and leaves it running; its output goes to files.
    pub fn spawn(&self, args: &[&str]) -> Manager {
        self.spawn_command(self.command(args))
    }

    /// The same for a command that was made by hand.
    pub fn spawn_command(&self, mut command: Command) -> Manager {
        let number = self.number.get();
        self.number.set(number + 1);
        let file = |kind: &str| self.base().join("out").join(format!("{number}.{kind}"));
        let (stdout, stderr) = (file("stdout"), file("stderr"));
        let create = |path: &Path| File::create(path).expect("a file can be made");
        command.stdin(Stdio::null()).stdout(create(&stdout)).stderr(create(&stderr));
        let shown = format!("{command:?}");
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {shown}: {error}"));
        Manager { child, shown, stdout, stderr }
    }

    /// `up` in the foreground: returns when all Units are ready.
    #[track_caller]
    pub fn up(&self, args: &[&str]) -> Manager {
        let mut manager = self.spawn(&[&["up"], args].concat());
        self.eventually("all Units are ready", || {
            manager.must_run();
            manager.said().contains("all Units are ready")
        });
        manager
    }

    /// `serve` with [`Home::settings`]: returns when it answers.
    #[track_caller]
    pub fn serve(&self) -> Manager {
        self.serve_with(&self.settings())
    }

    /// `serve` with the text of a settings file: returns when it answers.
    #[track_caller]
    pub fn serve_with(&self, settings: &str) -> Manager {
        self.serve_through(&[], settings)
    }

    /// The same by way of another program, given as words, which becomes ours.
    #[track_caller]
    pub fn serve_through(&self, through: &[&str], settings: &str) -> Manager {
        self.left.set(true);
        let file = self.base().join("out/settings.toml");
        fs::write(&file, settings).expect("a file can be written");
        let program = self.program.to_string_lossy();
        let file = file.to_string_lossy();
        let words = [through, &[&program, "--config", &file, "serve"]].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        self.settle(&mut command);
        let mut manager = self.spawn_command(command);
        let pid = manager.pid();
        self.eventually("the Manager answers", || {
            manager.must_run();
            self.manager_pid() == Some(pid)
        });
        manager
    }

    /// Process id of the Manager that answers.
    pub fn manager_pid(&self) -> Option<u32> {
        if !self.data_dir().join("cocktail.sock").exists() {
            return None;
        }
        let pid = self.run(&["-o", "json", "version"]).json()["manager"]["pid"].as_u64()?;
        u32::try_from(pid).ok()
    }

    /// The containers, as `ps` tells.
    #[track_caller]
    pub fn ps(&self) -> Vec<Value> {
        self.json(&["ps"]).as_array().expect("ps is an array").clone()
    }

    /// The containers of a Unit, by its last name.
    #[track_caller]
    pub fn containers(&self, unit: &str) -> Vec<Value> {
        self.ps().into_iter().filter(|container| container["unit"] == unit).collect()
    }

    /// Process ids of a Unit's ready containers, by container.
    #[track_caller]
    pub fn pids(&self, unit: &str) -> BTreeMap<String, u32> {
        let pid = |container: &Value| u32::try_from(container["pid"].as_u64()?).ok();
        self.containers(unit)
            .iter()
            .filter(|container| container["ready"] == true)
            .filter_map(|container| Some((container["id"].as_str()?.to_owned(), pid(container)?)))
            .collect()
    }

    /// One Unit, as `units` tells, by its last name.
    #[track_caller]
    pub fn unit(&self, unit: &str) -> Option<Value> {
        let units = self.json(&["units"]);
        units.as_array().expect("units is an array").iter().find(|view| view["unit"] == unit).cloned()
    }

    /// Waits until a Unit has exactly `count` containers, all ready and of its revision, and returns their process ids.
    #[track_caller]
    pub fn settled(&self, unit: &str, count: usize) -> BTreeMap<String, u32> {
        self.eventually(&format!("{unit} has {count} containers, all ready"), || {
            let Some(view) = self.unit(unit) else { return false };
            let all = self.containers(unit);
            view["desired"] == count
                && all.len() == count
                && all.iter().all(|one| one["ready"] == true && one["revision"] == view["revision"])
        });
        self.pids(unit)
    }

    /// The last turn that is durable.
    #[track_caller]
    pub fn seq(&self) -> u64 {
        self.json(&["version"])["manager"]["seq"].as_u64().expect("a Manager runs")
    }

    /// What `why` gives as reasons for an object, newest last.
    #[track_caller]
    pub fn why(&self, object: &str) -> Vec<String> {
        let decisions = self.json(&["why", object]);
        let decisions = decisions.as_array().expect("why is an array");
        decisions.iter().filter_map(|one| Some(one["because"].as_str()?.to_owned())).collect()
    }

    /// Processes of this Home.
    pub fn processes(&self) -> Vec<Process> {
        Process::of(self.base())
    }

    /// Processes of this Home that run in containers, those of `exec` included.
    pub fn workers(&self) -> Vec<Process> {
        self.processes().into_iter().filter(|process| process.container().is_some()).collect()
    }

    /// The keepers of this Home.
    pub fn keepers(&self) -> Vec<Process> {
        self.processes().into_iter().filter(Process::is_keeper).collect()
    }

    /// Waits until something is so.
    ///
    /// # Panics
    /// When it does not come true, with all that can be told.
    #[track_caller]
    pub fn eventually(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        self.until(what, || is_so().then_some(()));
    }

    /// Waits until there is something.
    ///
    /// # Panics
    /// When it does not come, with all that can be told.
    #[track_caller]
    pub fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(begin.elapsed() < PATIENCE, "in {PATIENCE:?} it did not come true that {what}\n{}", self.report());
            thread::sleep(LOOK);
        }
    }

    /// All that can be told about this Home, for a test that has failed.
    pub fn report(&self) -> String {
        let mut text = String::new();
        if self.data_dir().join("cocktail.sock").exists() {
            for args in [&["units"][..], &["ps"], &["endpoints"], &["ops"], &["events", "--tail", "60"]] {
                let _ = writeln!(text, "\n=== {}", self.run(args));
            }
            let lists = ["units", "ps"].map(|list| self.run(&["-o", "json", list]));
            let values = lists.iter().filter_map(|list| serde_json::from_str::<Value>(&list.stdout).ok());
            for value in values.flat_map(|list| list.as_array().cloned().unwrap_or_default()) {
                let unit = ["service", "map", "unit"].map(|part| value[part].as_str().unwrap_or_default()).join("/");
                let _ = writeln!(text, "\n=== {}", self.run(&["why", value["id"].as_str().unwrap_or(&unit)]));
            }
        }
        let mut files = vec![self.data_dir().join("manager.log"), self.data_dir().join("run/keeper.log")];
        files.extend(fs::read_dir(self.base().join("out")).into_iter().flatten().flatten().map(|file| file.path()));
        for file in files {
            if let Ok(bytes) = fs::read(&file) {
                let end = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(SHOWN)..]).into_owned();
                let _ = writeln!(text, "\n=== {}\n{end}", file.display());
            }
        }
        text.push_str("\n=== processes\n");
        for process in self.processes() {
            let container = process.container().unwrap_or_default();
            let _ = writeln!(
                text,
                "{} of {} {} {container} {}",
                process.pid, process.parent, process.state, process.command
            );
        }
        text
    }

    /// Ends everything by command and makes sure that nothing is left.
    ///
    /// # Panics
    /// When something is: a process, or a port that cannot be bound.
    #[track_caller]
    pub fn finish(self) {
        if self.manager_pid().is_some() {
            self.ok(&["down"]);
        }
        self.eventually("no worker is left", || self.workers().is_empty());
        if self.left.get() {
            // A Manager that was served is its owner's to end, and its keeper waits a while for the next one.
            // The Manager first: it would start another keeper.
            let (keepers, others): (Vec<_>, Vec<_>) = self.processes().into_iter().partition(Process::is_keeper);
            others.iter().for_each(|process| process.signal(Signal::KILL));
            self.eventually("no Manager is left", || !others.iter().any(Process::runs));
            keepers.iter().for_each(|process| process.signal(Signal::KILL));
        }
        self.nothing_is_left();
    }

    /// Waits until no process and no port is taken any more, without ending anything.
    ///
    /// # Panics
    /// When something stays.
    #[track_caller]
    pub fn nothing_is_left(&self) {
        self.eventually("no process is left", || self.processes().is_empty());
        self.eventually("no port is taken", || self.taken_ports().is_empty());
    }

    /// Ports of this Home that somebody listens on.
    pub fn taken_ports(&self) -> Vec<u16> {
        let range = self.port_range();
        let (first, last) = range.split_once('-').expect("a range has two ends");
        let bound = |text: &str| text.parse::<u16>().expect("a range is two ports");
        let leased = bound(first)..=bound(last);
        let given = self.given.borrow().clone();
        given.into_iter().chain(leased).filter(|port| net::TcpListener::bind(("127.0.0.1", *port)).is_err()).collect()
    }

    /// Says that what is left of keepers at the end is as it should be: a Manager was told to leave.
    pub fn expect_keepers(&self) {
        self.left.set(true);
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A test that has failed must not leave its processes to the others. Killed parents may leave new orphans.
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            // Managers and keepers first, so that nobody starts anything anew.
            for process in left.iter().filter(|process| process.container().is_none()) {
                process.signal(Signal::KILL);
            }
            for process in left {
                process.signal(Signal::KILL);
            }
            thread::sleep(LOOK);
        }
    }
}

/// A program that goes on: a Manager, or a command that follows something. Dropping it kills it.
#[derive(Debug)]
pub struct Manager {
    child: Child,
    shown: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Manager {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said to people so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// The data that it wrote so far.
    pub fn data(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        process::signal_pid(self.pid(), signal);
    }

    /// Fails the test if it has ended.
    ///
    /// # Panics
    /// When it has ended, with what it said.
    #[track_caller]
    pub fn must_run(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
            panic!("it ended too early: {}", self.output(status));
        }
    }

    /// Waits for its end, which must be a success.
    ///
    /// # Panics
    /// When it does not end, or failed.
    #[track_caller]
    pub fn succeed(self) -> Output {
        self.wait().ok()
    }

    /// Sends a signal and waits for its end.
    #[track_caller]
    pub fn end(self, signal: Signal) -> Output {
        self.signal(signal);
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        match program::end_of(&mut self.child, PATIENCE) {
            Some(status) => self.output(status),
            None => panic!("{} did not end; it said:\n{}", self.shown, self.said()),
        }
    }

    /// Kills it, as the kernel or an operator in a hurry would, and returns when it has gone.
    pub fn kill(mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    fn output(&self, status: std::process::ExitStatus) -> Output {
        Output { shown: self.shown.clone(), status, stdout: self.data(), stderr: self.said() }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
