//! Reaching the Manager of a data dir, and telling whether it is one that `up -d` started.

use std::fs;
use std::sync::Arc;

use cocktail_api::Client;
use cocktail_core::contract::{Actor, Manager};
use cocktail_core::error::ErrorKind;
use cocktail_core::view::ManagerView;

use crate::data_dir::DataDir;
use crate::failure::{Failure, Outcome};

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
