//! The Manager that `up -d` leaves behind: `cocktail serve` in a session of its own.
//!
//! Start at [`start`]; [`detach`] is its other end, in the new process. Nothing that `up` inherited stays open there,
//! so that `x=$(cocktail up -d FILE)` returns when `up` does.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cocktail_core::contract::Manager;
use cocktail_core::settings::Settings;

use crate::data_dir::DataDir;
use crate::failure::{Failure, Outcome};
use crate::log;
use crate::manager_link;
use crate::manifests::Chosen;

/// Longest wait for the new Manager's socket. A large journal may have to be read first.
const START: Duration = Duration::from_secs(60);

/// Pause between two tries.
const RETRY: Duration = Duration::from_millis(20);

/// How much of the log is shown when the Manager does not start.
const SHOWN: u64 = 2048;

/// Starts a Manager in the background and returns when it answers.
///
/// # Errors
/// It ended before it answered, with its exit code and the end of its log; or it did not answer in time.
pub(crate) async fn start(dir: &DataDir, chosen: &Chosen) -> Outcome<Arc<dyn Manager>> {
    if chosen.file.is_none() && chosen.settings != Settings::default() {
        let text = "settings from standard input cannot be handed to a Manager in the background; give --config FILE";
        return Err(Failure::Usage(text.into()));
    }
    dir.make()?;
    let path = dir.log_file();
    let failed = |error: io::Error| Failure::Failed(format!("cannot start a Manager in the background: {error}"));
    let file = log::open(&path).map_err(failed)?;
    let before = file.metadata().map_err(failed)?.len();
    let mut command = Command::new("/proc/self/exe");
    command.arg0("cocktail").arg("--data-dir").arg(dir.path());
    if let Some(config) = &chosen.file {
        command.arg("--config").arg(config);
    }
    // The data dir as working directory: it keeps no other file system busy, and has no cocktail.toml of its own.
    command.args(["serve", "--background"]).current_dir(dir.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    let mut child = command.spawn().map_err(failed)?;
    let answered = tokio::time::timeout(START, answer(dir, &mut child)).await;
    match answered {
        Ok(Ok(Some(manager))) => Ok(manager),
        Ok(Ok(None)) => {
            let end = end_of(&path, before).unwrap_or_default();
            let text = format!("the Manager ended before it answered; {} says:\n{end}", path.display());
            Err(Failure::Background(code_of(&mut child), text))
        }
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure::Deadline(format!(
            "the Manager, process {}, does not answer after {}; see {}",
            child.id(),
            cocktail_core::time::human(START),
            path.display()
        ))),
    }
}

/// The exit code of a Manager that has ended: what it was refused for, we are. One that was killed, or that ended well
/// without having answered, failed.
fn code_of(child: &mut Child) -> u8 {
    let code = child.wait().ok().and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok());
    code.filter(|code| *code != 0).unwrap_or(1)
}

/// Waits until the Manager answers; `None` if it has ended and no other one answers either.
async fn answer(dir: &DataDir, child: &mut Child) -> Outcome<Option<Arc<dyn Manager>>> {
    loop {
        // In this order: one that has ended lost to another `up`, which then answers.
        let has_ended = !matches!(child.try_wait(), Ok(None));
        if let Some(manager) = manager_link::find(dir).await? {
            return Ok(Some(manager));
        }
        if has_ended {
            return Ok(None);
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The end of a log, from `start` on.
fn end_of(path: &Path, start: u64) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(start.max(length.saturating_sub(SHOWN))))?;
    let mut bytes = Vec::new();
    file.take(SHOWN).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// Makes this process one of the background: a session of its own, and nothing open but the three standard streams,
/// which [`start`] has set. To be called before anything else is opened.
pub(crate) fn detach() {
    // Fails only for the leader of a session or group, which one that `start` made is not; then it is detached enough.
    let _ = rustix::process::setsid();
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    for number in names.iter().filter_map(|name| name.to_str()?.parse::<i32>().ok()) {
        if number > 2 {
            // The folder that was listed is among them and is closed already: that error is expected.
            let _ = nix::unistd::close(number);
        }
    }
}
