//! How cocktail and its peers are started, asked and ended, one module each.

mod cocktail;
mod haproxy;
mod pm2;
mod supervisord;

pub(crate) use cocktail::{Cocktail, Event};
pub(crate) use haproxy::HaProxy;
pub(crate) use pm2::Pm2;
pub(crate) use supervisord::Supervisord;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cocktail_benches::wave::complete;
use serde_json::Value;

/// Longest that an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("no port is free")?.local_addr()?.port())
}

/// Runs a command to its end and fails with what it printed unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stdout = String::from_utf8_lossy(&output.stdout);
        bail!("{name} failed: {}: {} {}", output.status, stdout.trim(), stderr.trim());
    }
    Ok(output)
}

/// Starts a program in the background; what it prints goes to a file, which errors quote.
fn start(command: &mut Command, log: &Path) -> Result<crate::proc::Owned> {
    let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn();
    Ok(crate::proc::Owned(child.with_context(|| format!("cannot start {name}"))?))
}

/// Sends a request and reads its answer, which must be 200: its body.
pub(crate) fn ask(mut stream: TcpStream, path: &str) -> Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n")?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        let length = stream.read(&mut buffer).context("no answer")?;
        answer.extend_from_slice(&buffer[..length]);
        match complete(&answer) {
            Ok(Some(status)) => {
                ensure!(status == 200, "answered {status}");
                let text = String::from_utf8(answer).context("the answer is no text")?;
                return Ok(text.split_once("\r\n\r\n").unwrap_or_default().1.to_owned());
            }
            Ok(None) => ensure!(length > 0, "the connection was closed before the answer"),
            Err(because) => bail!(because),
        }
    }
}

/// One call of the Manager's API.
pub(crate) fn call(socket: &Path, method: &str, path: &str, body: &str) -> Result<Value> {
    let mut stream = UnixStream::connect(socket).context("the Manager does not listen")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let kind = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: cocktail\r\nconnection: close\r\n{kind}content-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the Manager answers half")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {answer}");
    serde_json::from_str(body).with_context(|| format!("{method} {path} answers no JSON: {body}"))
}
