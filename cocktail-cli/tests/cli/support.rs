//! A folder to work in, commands that run in it, and a terminal to look at.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tempfile::TempDir;

/// A Unit that is ready with no container.
pub(crate) const EMPTY: &str =
    "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"sleep\", \"60\"]\nreplicas = 0\n";

/// A Unit that never becomes ready: nothing listens on its port.
pub(crate) const NEVER: &str =
    "service = \"shop\"\n[maps.slow.units.deaf]\ncommand = [\"sleep\", \"60\"]\nports.http = {}\n";

/// A folder to work in. A Manager that is left in it is ended when it goes.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("empty.toml", EMPTY);
        folder.write("never.toml", NEVER);
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), text).unwrap();
    }

    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.path().join(".cocktail").join(name)
    }

    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cocktail"));
        command.args(arguments.split_whitespace()).current_dir(self.path());
        for variable in ["COCKTAIL_DATA_DIR", "COCKTAIL_LOG", "NO_COLOR", "INVOCATION_ID"] {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &str) -> Run {
        Run::of(self.command(arguments).output().unwrap())
    }

    /// Starts a command that stays, and returns it with its first line of data.
    pub(crate) fn stay(&self, arguments: &str) -> (Staying, String) {
        let mut child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        (Staying { child, _stdout: stdout }, line)
    }

    /// The process id in `manager.pid`.
    pub(crate) fn manager(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.state("manager.pid")).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    pub(crate) fn no_manager_runs(&self) -> bool {
        !self.state("manager.pid").exists() && !self.state("cocktail.sock").exists()
    }

    pub(crate) fn nothing_runs(&self) -> bool {
        self.no_manager_runs() && UnixStream::connect(self.state("run/keeper.sock")).is_err()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.nothing_runs() {
            return;
        }
        // A keeper that a `serve` left for the next Manager goes with one that is asked to end everything.
        self.run("up -d empty.toml");
        if let Some(manager) = self.manager() {
            self.run("down");
            if self.manager() == Some(manager) {
                let _ = kill_process(manager, Signal::KILL);
            }
        }
    }
}

/// A command that stays until it gets a signal.
pub(crate) struct Staying {
    child: Child,
    _stdout: BufReader<ChildStdout>,
}

impl Staying {
    pub(crate) fn end(mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process runs; one that only waits for its parent to notice that it ended does not.
pub(crate) fn runs(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_pid())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) data: String,
    pub(crate) people: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), data: text(output.stdout), people: text(output.stderr) }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A terminal: the end that a person looks at, and the end that a program gets.
pub(crate) fn terminal() -> (fs::File, fs::File) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap().into_string().unwrap();
    let program = fs::File::options().read(true).write(true).open(name).unwrap();
    let size = Winsize { ws_row: 31, ws_col: 97, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&program, size).unwrap();
    (person.into(), program)
}

/// What a person has seen when the program has closed its end.
pub(crate) fn seen(mut person: fs::File) -> String {
    let mut bytes = Vec::new();
    // The end of the other side is an error here, after everything was read.
    let _ = person.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A Unit of one sleeping container whose updates are watched for a moment.
pub(crate) fn sleeping(seconds: u32) -> String {
    let update = "update = { monitor = \"100ms\", progress = \"20s\" }";
    format!("service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"sleep\", \"{seconds}\"]\n{update}\n")
}
