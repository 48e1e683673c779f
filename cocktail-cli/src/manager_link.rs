//! Reaching the Manager of a data dir, and telling whether it is one that `up -d` started.

use std::fs;
use std::sync::Arc;

use cocktail_api::Client;
use cocktail_core::contract::{Actor, Manager, ShutdownMode};
use cocktail_core::error::ErrorKind;
use cocktail_core::view::ManagerView;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::data_dir::DataDir;
use crate::failure::{Failure, Outcome};

/// Longest wait for the process of a Manager that has ended.
const GOING: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Who we are to the Manager. It asks the socket all the same and believes that.
pub(crate) fn actor() -> Actor {
    Actor::uid(rustix::process::geteuid().as_raw())
}

/// The Manager of a data dir.
///
/// # Errors
/// [`Failure::NoManager`] if none runs, with what to do about it.
pub(crate) async fn connect(dir: &DataDir) -> Outcome<Arc<dyn Manager>> {
    find(dir).await?.ok_or_else(|| {
        Failure::NoManager(format!(
            "no Manager runs for {}; start one with `cocktail up -d FILE` or `cocktail serve`",
            dir.path().display()
        ))
    })
}

/// The Manager of a data dir, if one runs.
///
/// # Errors
/// One seems to run but refuses us, or does not answer sensibly.
pub(crate) async fn find(dir: &DataDir) -> Outcome<Option<Arc<dyn Manager>>> {
    match Client::connect(dir.socket()).await {
        Ok(client) => Ok(Some(Arc::new(client))),
        Err(error) if *error.kind() == ErrorKind::Unavailable => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether `up -d` started this Manager, so that `down` ends it.
pub(crate) fn is_in_background(dir: &DataDir, manager: &ManagerView) -> bool {
    fs::read_to_string(dir.background_file()).is_ok_and(|text| text.trim() == manager.pid.to_string())
}

/// Ends a Manager of another process and returns when that process has gone, so that whoever comes next finds the data
/// dir free.
///
/// # Errors
/// It cannot be reached or could not finish; [`Failure::Deadline`] if its process stays.
pub(crate) async fn end(manager: &dyn Manager, mode: ShutdownMode) -> Outcome {
    let pid = manager.about().await?.pid;
    // Opened before, so that nobody else's process of the same number is waited for.
    let process =
        i32::try_from(pid).ok().and_then(Pid::from_raw).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    manager.shutdown(mode).await?;
    // Without a descriptor it has gone already, or it lives where we cannot see it.
    let Some(process) = process else {
        return Ok(());
    };
    let ended = tokio::task::spawn_blocking(move || poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&GOING)));
    match ended.await {
        Ok(Ok(0)) => Err(Failure::Deadline(format!("the Manager has ended, but its process {pid} stays"))),
        _ => Ok(()),
    }
}
