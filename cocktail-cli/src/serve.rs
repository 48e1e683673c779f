//! `serve`: a Manager in the foreground, for systemd and the like, and what `up -d` leaves behind.

use cocktail_core::contract::ShutdownMode;
use serde_json::json;

use crate::args::{Format, Global, ServeArgs};
use crate::daemon::Daemon;
use crate::data_dir::{DataDir, Surroundings};
use crate::failure::{Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::log;
use crate::manager_link;
use crate::manifests;
use crate::output::Ui;
use crate::traces;

/// Runs a Manager until a signal, which leaves the workers running for the next one.
///
/// # Errors
/// A Manager runs already (exit code 4), it cannot be started, or it lost its lease.
pub(crate) async fn serve(args: &ServeArgs, global: &Global, from: &Surroundings, ui: &mut Ui) -> Outcome {
    let dir = DataDir::find(from, true)?;
    let chosen = manifests::settings(global.config.as_deref(), &[], &from.working_dir, ui)?;
    if args.background {
        log::to_file(dir.log_file())?;
    } else {
        log::to_stderr("info")?;
    }
    if let Some(other) = manager_link::find(&dir).await? {
        let pid = other.about().await.map(|about| format!(", process {}", about.pid)).unwrap_or_default();
        let text = format!("a Manager runs for {} already{pid}", dir.path().display());
        return Err(Failure::Manager(cocktail_core::error::Error::refused(text)));
    }
    traces::missing().into_iter().for_each(|text| ui.note(text));
    let mut interrupt = Interrupt::listen()?;
    let daemon = Daemon::start(&dir, chosen.settings, args.background).await?;
    let socket = dir.socket().display().to_string();
    match ui.format {
        Format::Json => {
            let mut told = json!({ "socket": socket, "pid": std::process::id() });
            if let (Some(address), Some(told)) = (daemon.metrics(), told.as_object_mut()) {
                told.insert("metrics".into(), address.to_string().into());
            }
            ui.json_line(&told)?;
        }
        Format::Table => {
            ui.note(&format!("listening on {socket}"));
            if let Some(address) = daemon.metrics() {
                ui.note(&format!("metrics on http://{address}/metrics"));
            }
        }
    }
    let ended = tokio::select! {
        () = interrupt.wait() => None,
        ended = daemon.ended() => Some(ended),
    };
    match ended {
        None => {
            tracing::info!("a signal came: the workers stay for the next Manager");
            daemon.stop(ShutdownMode::Leave).await
        }
        Some(ended) => {
            daemon.finish().await;
            ended
        }
    }
}
