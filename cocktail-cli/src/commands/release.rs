//! `adopt` and `release`: what a person decides where a Manager is refused because of what runs.

use cocktail::standalone::Worker;
use cocktail::{Builder, Cocktail};
use cocktail_core::error::Error;
use cocktail_core::settings::Settings;
use serde_json::json;

use crate::args::Format;
use crate::data_dir::DataDir;
use crate::failure::Outcome;
use crate::manager_link;
use crate::output::Ui;

/// `adopt`: goes on with this copy of the data dir.
pub(crate) async fn adopt(dir: &DataDir, settings: Settings, ui: &mut Ui) -> Outcome {
    let workers = builder(dir, settings).await?.adopt().await?;
    match ui.format {
        Format::Json => ui.json(&listed(&workers)),
        Format::Table => {
            workers.iter().for_each(|worker| ui.note(&format!("runs on: {}", named(worker))));
            ui.note(&format!("the next Manager of {} takes over what runs", dir.path().display()));
            Ok(())
        }
    }
}

/// `release`: names what runs for the data dir and ends it.
pub(crate) async fn release(dir: &DataDir, settings: Settings, ui: &mut Ui) -> Outcome {
    let Some(release) = builder(dir, settings).await?.release().await? else {
        ui.note(&format!("nothing runs for {}", dir.path().display()));
        return match ui.format {
            Format::Json => ui.json(&listed(&[])),
            Format::Table => Ok(()),
        };
    };
    let workers = release.workers().to_vec();
    workers.iter().for_each(|worker| ui.note(&format!("ending {}", named(worker))));
    release.end().await?;
    match ui.format {
        Format::Json => ui.json(&listed(&workers)),
        Format::Table => {
            ui.note("nothing is left; logs and volumes stay");
            Ok(())
        }
    }
}

/// # Errors
/// A Manager runs: it has commands of its own for both.
async fn builder(dir: &DataDir, settings: Settings) -> Outcome<Builder> {
    if manager_link::find(dir).await?.is_some() {
        let text = format!("a Manager runs for {}; `cocktail down` ends what it runs", dir.path().display());
        return Err(Error::refused(text).into());
    }
    Ok(Cocktail::builder().data_dir(dir.path()).settings(settings))
}

fn named(worker: &Worker) -> String {
    match worker.pid {
        Some(pid) => format!("{} (process {pid})", worker.container),
        None => format!("{} (no process)", worker.container),
    }
}

fn listed(workers: &[Worker]) -> serde_json::Value {
    workers.iter().map(|worker| json!({ "container": worker.container, "pid": worker.pid })).collect()
}
