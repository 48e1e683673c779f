//! Credential helpers: programs that say who asks, as `docker login` uses them.
//!
//! `docker-credential-NAME get` reads the registry from its standard input and answers with JSON. Nothing that it writes is
//! ever repeated, since a password could be in it.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::time::human;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use super::Secret;

/// Longest time for an answer: it may ask a service elsewhere.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of the longest answer.
const ANSWER: u64 = 256 << 10;
/// The user by which helpers say that the secret is an identity token.
const TOKEN: &str = "<token>";
/// What the protocol has helpers write when they know nothing.
const NOTHING: &str = "credentials not found";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks the helper of that name about a registry. `key` is where the settings name it.
///
/// # Errors
/// `InvalidConfig` for a helper that is not there or answers something else, `Denied` by one that knows nothing or refuses,
/// `Unavailable` for one that does not answer in time.
pub(super) async fn ask(key: &str, name: &str, registry: &str) -> Result<Secret> {
    let program = format!("docker-credential-{name}");
    let fail = |kind, what: &str| Error::new(kind, format!("{key}: {program} {what}"));
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // What it starts ends with it.
    command.process_group(0).kill_on_drop(true);
    let child = command.spawn().map_err(|error| {
        let what = match error.kind() {
            io::ErrorKind::NotFound => "is not in the PATH of the manager",
            _ => "cannot be run",
        };
        fail(ErrorKind::InvalidConfig, what).because(error)
    })?;
    let mut group = Group { pid: child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) };
    let Ok(ended) = tokio::time::timeout(PATIENCE, converse(child, registry)).await else {
        let what = format!("did not answer within {}", human(PATIENCE));
        return Err(fail(ErrorKind::Unavailable, &what));
    };
    let (well, answer) = ended.map_err(|error| fail(ErrorKind::Unavailable, "cannot be spoken with").because(error))?;
    group.pid = None;
    if !well {
        let nothing = String::from_utf8_lossy(&answer).contains(NOTHING);
        let what = match nothing {
            true => format!("knows nothing about {registry}: log in there as the manager's user"),
            false => format!("failed when it was asked about {registry}"),
        };
        return Err(fail(ErrorKind::Denied, &what));
    }
    // The source is left out: it may quote what it does not understand.
    let answer: Answer = serde_json::from_slice(&answer)
        .map_err(|_| fail(ErrorKind::InvalidConfig, "did not answer as credential helpers do"))?;
    let secret = Zeroizing::new(answer.secret);
    if secret.is_empty() {
        return Err(fail(ErrorKind::Denied, &format!("has an empty secret for {registry}")));
    }
    Ok(match answer.username == TOKEN {
        true => Secret::Token(secret),
        false => Secret::Password { username: answer.username, password: secret },
    })
}

/// Whether it ended well, and what it wrote.
async fn converse(mut child: Child, registry: &str) -> io::Result<(bool, Zeroizing<Vec<u8>>)> {
    if let Some(mut stdin) = child.stdin.take() {
        // One that has ended without reading says so by its code.
        let _unread = stdin.write_all(format!("{registry}\n").as_bytes()).await;
    }
    let mut answer = Zeroizing::new(Vec::with_capacity(4096));
    if let Some(stdout) = child.stdout.take() {
        stdout.take(ANSWER).read_to_end(&mut answer).await?;
    }
    Ok((child.wait().await?.success(), answer))
}

/// The processes of a helper, which end when nobody waits for it any more.
struct Group {
    pid: Option<Pid>,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            let _gone = kill_process_group(pid, Signal::KILL);
        }
    }
}
