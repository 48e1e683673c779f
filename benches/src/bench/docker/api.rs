//! The engine's API over its socket, as plainly as it goes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// What an answer may take.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone)]
pub(super) struct Api {
    socket: PathBuf,
}

impl Api {
    pub(super) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket).context("the engine does not listen")?;
        let kind = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
        let length = body.len();
        // HTTP/1.0, so that no answer comes in chunks.
        let head = format!("{method} {path} HTTP/1.0\r\nhost: docker\r\n{kind}content-length: {length}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
        Ok(stream)
    }

    /// The status and body of an answer.
    pub(super) fn ask(&self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let mut stream = self.send(method, path, body)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(|| format!("{method} {path}"))?;
        let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
        Ok((status, body.to_owned()))
    }

    /// An answer that must be a success.
    pub(super) fn call(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let (status, answer) = self.ask(method, path, body)?;
        ensure!((200..400).contains(&status), "{method} {path}: {status} {answer}");
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&answer).with_context(|| format!("{method} {path} answers no JSON"))
    }

    /// The ids of what runs, or is paused.
    pub(super) fn running(&self) -> Result<Vec<String>> {
        Ok(ids(&self.call("GET", "/containers/json", "")?, &["running", "paused"]))
    }

    /// The ids of what runs and is not paused.
    pub(super) fn serving(&self) -> Result<Vec<String>> {
        Ok(ids(&self.call("GET", "/containers/json", "")?, &["running"]))
    }

    /// The process of a container that its program runs in: the child of the one that the engine put before it.
    pub(super) fn pid(&self, id: &str) -> Result<i32> {
        let seen = self.call("GET", &format!("/containers/{id}/json"), "")?;
        let pid = seen["State"]["Pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
        pid.with_context(|| format!("{id} does not run"))
    }

    /// What happens to containers from now on.
    pub(super) fn events(&self, kinds: &[&str]) -> Result<Events> {
        let filters = serde_json::json!({ "type": ["container"], "event": kinds }).to_string();
        let encoded: String = filters.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let stream = self.send("GET", &format!("/events?filters={encoded}"), "")?;
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        // The head comes at once, and says that everything from now on is told.
        while lines.read_line(&mut line)? > 2 {
            line.clear();
        }
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let at = Instant::now();
                let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
                // Nobody listens any more when enough was seen.
                if sender.send((at, value)).is_err() {
                    return;
                }
            }
        });
        Ok(Events(receiver))
    }
}

fn ids(listed: &Value, states: &[&str]) -> Vec<String> {
    let all = listed.as_array().into_iter().flatten();
    let wanted = all.filter(|one| one["State"].as_str().is_some_and(|state| states.contains(&state)));
    wanted.filter_map(|one| one["Id"].as_str().map(str::to_owned)).collect()
}

pub(super) struct Events(mpsc::Receiver<(Instant, Value)>);

impl Events {
    /// The next one: when it came, what happened, and to which container.
    pub(super) fn next(&self, patience: Duration) -> Result<(Instant, String, String)> {
        let (at, value) = self.0.recv_timeout(patience).context("the event does not come")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok((at, text(&value["Action"]), text(&value["Actor"]["ID"])))
    }

    /// When the last of so many of a kind came.
    pub(super) fn wait(&self, kind: &str, count: usize, patience: Duration) -> Result<Instant> {
        let until = Instant::now() + patience;
        let mut seen = 0;
        while Instant::now() < until {
            let (at, action, _) = self.next(until.saturating_duration_since(Instant::now()))?;
            seen += usize::from(action == kind);
            if seen == count {
                return Ok(at);
            }
        }
        bail!("{seen} of {count} {kind} events came")
    }
}
