//! Manifests that are applied when they change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cocktail_core::contract::{Actor, Manager, ManifestSource};
use cocktail_core::error::{Error, Result};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::orchestrator::Orchestrator;

/// Editors write a file in several steps; it is read when it has been quiet for this long.
const QUIET: Duration = Duration::from_millis(200);

/// Pause before what was refused for now is applied once more: a registry may answer later than we have started.
const AGAIN: Duration = Duration::from_secs(30);

/// Keeps the watch alive.
#[derive(Debug)]
pub(crate) struct Watcher {
    #[expect(dead_code, reason = "watching ends when this is dropped")]
    inner: RecommendedWatcher,
}

/// Applies `files` now and whenever one changes. A file that cannot be applied changes nothing and is said in the log.
pub(crate) fn watch(orchestrator: &Orchestrator, files: &[PathBuf]) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let (tell, mut changes) = mpsc::channel::<()>(1);
    let names: BTreeSet<_> = files.iter().filter_map(|file| file.file_name().map(ToOwned::to_owned)).collect();
    let mut inner = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let ours = |path: &PathBuf| path.file_name().is_some_and(|name| names.contains(name));
        if event.is_ok_and(|event| event.paths.iter().any(ours)) {
            // One waiting message stands for any number of changes.
            let _ = tell.try_send(());
        }
    })
    .map_err(|error| Error::unavailable("manifests cannot be watched").because(error))?;
    let folders: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    for folder in folders {
        // The folder and not the file: a file that is replaced would be lost otherwise.
        inner.watch(folder, RecursiveMode::NonRecursive).map_err(|error| {
            Error::invalid("a manifest to watch cannot be watched").with("folder", folder.display()).because(error)
        })?;
    }
    orchestrator.keep(Watcher { inner });
    let (orchestrator, files) = (orchestrator.clone(), files.to_vec());
    tokio::spawn(async move {
        let (mut applied, mut again) = (None, false);
        loop {
            let now = read(&files).await;
            if now.is_some() && (again || now != applied) {
                again = !apply(&orchestrator, now.clone().unwrap_or_default()).await;
                applied = now;
            }
            tokio::select! {
                _ = orchestrator.ended() => return,
                change = changes.recv() => if change.is_none() { return },
                () = tokio::time::sleep(AGAIN), if again => {}
            }
            tokio::time::sleep(QUIET).await;
            while changes.try_recv().is_ok() {}
        }
    });
    Ok(())
}

async fn read(files: &[PathBuf]) -> Option<Vec<ManifestSource>> {
    let files = files.to_vec();
    let read = tokio::task::spawn_blocking(move || {
        files
            .iter()
            .map(|file| {
                let text = std::fs::read_to_string(file)?;
                let base = file.parent().map(Path::to_path_buf).unwrap_or_default();
                Ok(ManifestSource { file: file.clone(), base, text })
            })
            .collect::<std::io::Result<Vec<_>>>()
    });
    match read.await {
        Ok(Ok(sources)) => Some(sources),
        Ok(Err(error)) => {
            warn!(%error, "a watched manifest cannot be read; what runs stays as it is");
            None
        }
        Err(_) => None,
    }
}

/// Says whether that is all that can be done before the files change.
async fn apply(orchestrator: &Orchestrator, sources: Vec<ManifestSource>) -> bool {
    match orchestrator.apply(&sources, &Actor("watch".into())).await {
        Ok(applied) => {
            info!(changed = applied.changed.len(), removed = applied.removed.len(), "manifests applied");
            true
        }
        Err(error) => {
            let first = error.diagnostics().first().map(ToString::to_string).unwrap_or_default();
            warn!(error = error.chain(), first, "watched manifests are not applied; what runs stays as it is");
            !error.kind().is_transient()
        }
    }
}
