//! The `cocktail` program, driven as a user would: by its commands and their JSON.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::Setup;
use crate::proc::{self, Owned};

/// A fresh data dir with a copy of the program beside it.
///
/// The copy is what tells our processes from everybody else's: whatever executes it is the Manager or its keeper, under
/// any name. Dropping the value ends them all, and their workers.
pub(crate) struct Cocktail {
    folder: TempDir,
    program: PathBuf,
    /// Program name and marker of the workers, which are killed at the end whatever happened.
    workers: (String, String),
    serving: Option<Owned>,
    settings: Option<PathBuf>,
    agents: Vec<Owned>,
}

impl Cocktail {
    /// Installs the program for workers that can be told by program name and an argument.
    pub(crate) fn install(setup: &Setup, original: &Path, workers: (&str, &str)) -> Result<Self> {
        let folder = setup.folder("cocktail")?;
        let program = folder.path().join("cocktail");
        fs::copy(original, &program).with_context(|| format!("cannot copy {}", original.display()))?;
        // The kernel reports executables without symbolic links.
        let program = program.canonicalize()?;
        let workers = (workers.0.to_owned(), workers.1.to_owned());
        Ok(Self { folder, program, workers, serving: None, settings: None, agents: Vec::new() })
    }

    /// Settings for the Manager, from its next start on.
    pub(crate) fn settle(&mut self, text: &str) -> Result<()> {
        let file = self.folder.path().join("settings.toml");
        fs::write(&file, text).context("cannot write the settings")?;
        self.settings = Some(file);
        Ok(())
    }

    /// A command on this data dir.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--data-dir").arg(self.data_dir()).args(args).current_dir(self.folder.path());
        command
    }

    /// Its data dir.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Writes a manifest and returns its path.
    pub(crate) fn manifest(&self, text: &str) -> Result<String> {
        let file = self.folder.path().join("cocktail.toml");
        fs::write(&file, text).context("cannot write the manifest")?;
        Ok(file.to_string_lossy().into_owned())
    }

    /// Starts a Manager without a manifest, and waits until it answers.
    pub(crate) fn serve(&mut self) -> Result<()> {
        let log = self.folder.path().join("serve.log");
        let mut command = self.command(&["serve"]);
        if let Some(settings) = &self.settings {
            command.arg("--config").arg(settings);
        }
        self.serving = Some(super::start(&mut command, &log)?);
        let socket = self.data_dir().join("cocktail.sock");
        proc::wait_for("the Manager's socket", Duration::from_secs(20), || UnixStream::connect(&socket).is_ok())
            .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        self.json(&["units"]).map(drop)
    }

    /// The process of the Manager that was started last.
    pub(crate) fn manager(&self) -> Result<i32> {
        Ok(self.serving.as_ref().context("no Manager was started")?.pid())
    }

    /// Kills the Manager, and nothing else.
    pub(crate) fn kill_manager(&mut self) {
        self.serving = None;
    }

    /// One call of the API.
    pub(crate) fn call(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        super::call(&self.data_dir().join("cocktail.sock"), method, path, body)
    }

    /// A token with which the agent of a server joins.
    pub(crate) fn token(&self, server: &str) -> Result<String> {
        let ticket = self.call("POST", &format!("/v1/token/{server}"), r#"{"ttl_millis":3600000}"#)?;
        Ok(ticket["token"].as_str().context("a ticket has no token")?.to_owned())
    }

    /// Starts the agent of a server, on this machine. It ends with the value, and so does what it has started.
    pub(crate) fn start_agent(&mut self, server: &str, manager: &str) -> Result<()> {
        let file = self.folder.path().join(format!("{server}.token"));
        fs::write(&file, self.token(server)?).context("cannot write a token")?;
        let mut command = Command::new(&self.program);
        command.arg("--data-dir").arg(self.folder.path().join(server)).args(["agent", "--join", manager]);
        command.arg("--token-file").arg(&file).args(["--address", "127.0.0.1"]).current_dir(self.folder.path());
        let log = self.folder.path().join(format!("{server}.log"));
        self.agents.push(super::start(&mut command, &log)?);
        Ok(())
    }

    /// Runs `apply FILE`.
    pub(crate) fn apply(&self, manifest: &str) -> Result<()> {
        super::run(&mut self.command(&["apply", manifest])).map(drop)
    }

    /// Runs `up FILE -d`: a Manager in the background, and everything ready when it returns.
    pub(crate) fn up(&self, manifest: &str) -> Result<()> {
        super::run(&mut self.command(&["up", manifest, "-d"])).map(drop)
    }

    /// What a command answers with `-o json`.
    pub(crate) fn json(&self, args: &[&str]) -> Result<Value> {
        let mut all = vec!["-o", "json"];
        all.extend(args);
        let output = super::run(&mut self.command(&all))?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("cocktail {} printed no JSON", args.join(" ")))
    }

    /// Runs `apply FILE --wait`: everything is ready when it returns.
    pub(crate) fn apply_and_wait(&self, manifest: &str) -> Result<()> {
        super::run(&mut self.command(&["apply", manifest, "--wait"])).map(drop)
    }

    /// Follows the journal: whatever happens after this has returned.
    pub(crate) fn follow(&self) -> Result<Events> {
        self.follow_from(1)
    }

    /// Follows the journal from that many events before its end.
    pub(crate) fn follow_from(&self, before: usize) -> Result<Events> {
        let mut command = self.command(&["-o", "json", "events", "-f", "--tail", &before.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = Owned(command.spawn().context("cannot follow the events")?);
        let output = child.0.stdout.take().context("the events have no output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody listens any more when the benchmark has seen enough.
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        // An event that was there says that it listens.
        lines.recv_timeout(Duration::from_secs(20)).context("the journal shows nothing")?;
        Ok(Events { lines, _child: child })
    }

    /// The Manager, the keeper, and whatever else of ours runs.
    pub(crate) fn processes(&self) -> Vec<i32> {
        proc::executing(&self.program)
    }

    /// Runs `down`, and fails if a worker outlives it.
    pub(crate) fn down(mut self) -> Result<()> {
        super::run(&mut self.command(&["down"]))?;
        if let Some(mut serving) = self.serving.take() {
            serving.end(Duration::from_secs(10));
        }
        let (program, marker) = &self.workers;
        let left = proc::marked(program, marker).len();
        anyhow::ensure!(left == 0, "{left} workers outlived cocktail down");
        Ok(())
    }
}

/// The journal, as it grows.
pub(crate) struct Events {
    lines: mpsc::Receiver<(Instant, String)>,
    _child: Owned,
}

/// One event, with the time at which it was seen.
pub(crate) struct Event {
    pub(crate) at: Instant,
    /// When it happened, as the journal has it.
    pub(crate) happened: jiff::Timestamp,
    pub(crate) kind: String,
    pub(crate) object: String,
    pub(crate) reason: String,
    pub(crate) detail: Value,
}

impl Events {
    /// The next event.
    ///
    /// # Errors
    /// When there is none until `until`, or the Manager has gone.
    pub(crate) fn next(&self, until: Instant) -> Result<Event> {
        let rest = until.saturating_duration_since(Instant::now());
        let (at, line) = self.lines.recv_timeout(rest).context("the event does not come")?;
        event(at, &line)
    }

    /// The next event of a kind about an object; those before it are dropped.
    pub(crate) fn wait(&self, kinds: &[&str], object: &str, patience: Duration) -> Result<Event> {
        let until = Instant::now() + patience;
        loop {
            let event = self.next(until).with_context(|| format!("{} of {object}", kinds.join(" or ")))?;
            if kinds.contains(&event.kind.as_str()) && event.object == object {
                return Ok(event);
            }
        }
    }

    /// What has come by now.
    pub(crate) fn drain(&self) -> Result<Vec<Event>> {
        self.lines.try_iter().map(|(at, line)| event(at, &line)).collect()
    }
}

fn event(at: Instant, line: &str) -> Result<Event> {
    let value: Value = serde_json::from_str(line).context("an event is no JSON")?;
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    Ok(Event {
        at,
        happened: text("at").parse().context("an event has no time")?,
        kind: text("kind"),
        object: text("object"),
        reason: text("reason"),
        detail: value["detail"].clone(),
    })
}

impl Drop for Cocktail {
    fn drop(&mut self) {
        for pid in self.processes() {
            proc::signal(pid, Signal::KILL);
        }
        let (program, marker) = &self.workers;
        if !proc::marked(program, marker).is_empty() {
            proc::kill_marked(program, marker);
        }
    }
}
