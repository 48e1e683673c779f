//! `up`: from manifests to running Units with one command, and back with Ctrl-C.
//!
//! Start at [`up`]. Whatever happens after a Manager was started or joined, [`Host::leave`] decides what stays:
//!
//! | the Manager | ready, then a signal, or a failure | with `-d` |
//! | --- | --- | --- |
//! | ours, in this process | everything is stopped, and it ends | – |
//! | ours, in the background | – | all goes on; a refused apply ends it again |
//! | was there before | Units that `up` started are stopped again | all goes on |
//!
//! A Unit that was stopped by command is started, since that is what `up` is asked for, and is stopped again with the
//! rest. Signals are heeded between steps, never in the middle of an apply, so that we know what we began.

mod summary;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cocktail_core::contract::{Actor, ApplyOptions, EventFilter, Manager, ManifestSource, ShutdownMode};
use cocktail_core::id::UnitId;
use cocktail_core::manifest::Parsed;
use cocktail_core::view::UnitView;
use futures_util::StreamExt;
use serde_json::json;

use crate::args::{Format, Global, UpArgs};
use crate::background;
use crate::commands::apply;
use crate::commands::events::line;
use crate::daemon::Daemon;
use crate::data_dir::{DataDir, Surroundings};
use crate::failure::{Failure, Outcome};
use crate::interrupt::Interrupt;
use crate::log;
use crate::manager_link;
use crate::manifests::{self, Chosen};
use crate::output::Ui;
use crate::progress::{self, Goal};
use crate::traces;

/// Longest wait for Units to stop at the end; each has its own grace before it is ended by force.
const STOP: Duration = Duration::from_secs(120);

/// The Manager that `up` works with.
enum Host {
    /// It ran before.
    Joined(Arc<dyn Manager>),
    /// We started it as a process of its own.
    Background(Arc<dyn Manager>),
    /// It is ours.
    Own(Box<Daemon>),
}

/// What `up` began.
#[derive(Debug, Default)]
struct Begun {
    /// Units that the manifests name.
    units: Vec<UnitId>,
    /// Those that did not run before.
    started: Vec<UnitId>,
    /// All Units as they were before.
    before: Vec<UnitView>,
}

/// How far it went.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// All Units are ready, and we need not stay.
    Ready,
    /// A signal came while we waited.
    InterruptedBeforeReady,
    /// A signal came while we followed.
    Interrupted,
    /// The Manager ended by itself.
    ManagerEnded,
}

/// Runs `up`.
pub(crate) async fn up(args: &UpArgs, global: &Global, from: &Surroundings, ui: &mut Ui) -> Outcome {
    let sources = manifests::read(&args.files.files, &from.working_dir, &mut io::stdin())?;
    let parsed = manifests::check(&sources).map_err(|problems| manifests::failure(&problems, &sources, ui))?;
    let pairs: Vec<(&ManifestSource, &Parsed)> = sources.iter().zip(&parsed).collect();
    let chosen = manifests::settings(global.config.as_deref(), &pairs, &from.working_dir, ui)?;
    let dir = DataDir::find(from, true)?;
    let mut interrupt = Interrupt::listen()?;
    let host = Host::find_or_start(&dir, chosen, args.detach, ui).await?;
    let manager = host.manager();
    let actor = manager_link::actor();
    let mut begun = Begun::default();
    let outcome = match begin(&*manager, &actor, &sources, &mut begun, ui).await {
        Ok(()) => accompany(&host, &begun, args, &mut interrupt, ui).await,
        Err(failure) => {
            host.retract(ui).await;
            return Err(failure);
        }
    };
    if args.detach {
        return match outcome? {
            End::InterruptedBeforeReady => Err(Failure::Failed("interrupted; all goes on in the background".into())),
            _ => Ok(()),
        };
    }
    if matches!(outcome, Ok(End::ManagerEnded)) {
        ui.note("the Manager has ended");
        host.finish().await;
        return Ok(());
    }
    let left = leave_patiently(host, &actor, &begun, &mut interrupt, ui).await;
    match outcome? {
        End::InterruptedBeforeReady => left.and(Err(Failure::Failed("interrupted before all Units were ready".into()))),
        _ => left,
    }
}

/// Applies the manifests and starts those of their Units that were stopped by command.
async fn begin(
    manager: &dyn Manager,
    actor: &Actor,
    sources: &[ManifestSource],
    begun: &mut Begun,
    ui: &mut Ui,
) -> Outcome {
    let before = manager.units().await?;
    let ran: Vec<UnitId> = progress::ids(&before.iter().filter(|unit| !unit.stopped).cloned().collect::<Vec<_>>());
    let applied = apply::send(manager, actor, sources, ApplyOptions::default(), ui).await?;
    manifests::warn(&applied.warnings, sources, ui);
    apply::tell(&applied.changed, &applied.removed, ui);
    begun.started = applied.units.iter().filter(|unit| !ran.contains(unit)).cloned().collect();
    begun.units = applied.units;
    begun.before = before;
    let after = manager.units().await?;
    let stopped: Vec<_> = after.into_iter().filter(|unit| unit.stopped).collect();
    for unit in progress::ids(&stopped) {
        if begun.units.contains(&unit) {
            manager.start(&unit.to_string(), actor).await?;
        }
    }
    Ok(())
}

/// Waits until all is ready, tells where, and in the foreground shows events until something ends it.
async fn accompany(host: &Host, begun: &Begun, args: &UpArgs, interrupt: &mut Interrupt, ui: &mut Ui) -> Outcome<End> {
    let manager = host.manager();
    let goal = Goal::Updated { before: &begun.before };
    tokio::select! {
        ready = progress::until(&*manager, &begun.units, goal, args.wait, ui) => ready?,
        () = interrupt.wait() => return Ok(End::InterruptedBeforeReady),
        ended = host.ended() => return ended.map(|()| End::ManagerEnded),
    }
    tell_endpoints(&*manager, &begun.units, ui).await?;
    if args.detach {
        return Ok(End::Ready);
    }
    ui.note("all Units are ready; Ctrl-C stops what was started");
    tokio::select! {
        followed = follow(host, ui) => followed.map(|()| End::ManagerEnded),
        () = interrupt.wait() => Ok(End::Interrupted),
        ended = host.ended() => ended.map(|()| End::ManagerEnded),
    }
}

/// Prints where the Units can be reached.
async fn tell_endpoints(manager: &dyn Manager, of: &[UnitId], ui: &mut Ui) -> Outcome {
    let mut units = manager.units().await?;
    let mut endpoints = manager.endpoints().await?;
    let ours = |service: &str, map: &str, unit: &str| {
        of.iter().any(|id| id.service.as_str() == service && id.map.as_str() == map && id.unit.as_str() == unit)
    };
    units.retain(|view| ours(&view.service, &view.map, &view.unit));
    endpoints.retain(|view| ours(&view.service, &view.map, &view.unit));
    match ui.format {
        Format::Json => ui.json_line(&json!({ "units": units, "endpoints": endpoints })),
        Format::Table => ui.data(&summary::summary(&units, &endpoints)),
    }
}

/// Shows what happens from now on. Returns when the Manager has gone, unless it is ours: that tells us itself.
async fn follow(host: &Host, ui: &mut Ui) -> Outcome {
    let outcome = show_events(&*host.manager(), ui).await;
    match (host, outcome) {
        (_, Err(Failure::BrokenPipe)) => Err(Failure::BrokenPipe),
        (Host::Own(_), outcome) => {
            if let Err(failure) = outcome {
                ui.note(&format!("events are no longer shown: {failure}"));
            }
            std::future::pending().await
        }
        (_, outcome) => outcome,
    }
}

async fn show_events(manager: &dyn Manager, ui: &mut Ui) -> Outcome {
    let filter = EventFilter { tail: Some(0), follow: true, ..EventFilter::default() };
    let mut events = manager.events(&filter).await?;
    while let Some(event) = events.next().await {
        let event = event?;
        match ui.format {
            Format::Json => ui.json_line(&event)?,
            Format::Table => ui.note(&line(&event)),
        }
    }
    Ok(())
}

/// Ends what was begun, and says so to whoever presses Ctrl-C again.
async fn leave_patiently(host: Host, actor: &Actor, begun: &Begun, interrupt: &mut Interrupt, ui: &mut Ui) -> Outcome {
    ui.note("stopping what was started");
    let mut leaving = Box::pin(host.leave(actor, &begun.started));
    let outcome = loop {
        tokio::select! {
            outcome = &mut leaving => break outcome,
            () = interrupt.wait() => ui.note("still stopping: workers have their grace period to end"),
        }
    };
    if outcome.is_ok() {
        ui.note("stopped");
    }
    outcome
}

impl Host {
    /// The Manager of the data dir, or a new one.
    async fn find_or_start(dir: &DataDir, chosen: Chosen, detach: bool, ui: &mut Ui) -> Outcome<Self> {
        if let Some(manager) = manager_link::find(dir).await? {
            if chosen.file.is_some() {
                ui.note("a Manager runs already and keeps the settings that it was started with");
            }
            return Ok(Self::Joined(manager));
        }
        traces::missing().into_iter().for_each(|text| ui.note(text));
        if detach {
            return Ok(Self::Background(background::start(dir, &chosen).await?));
        }
        log::to_stderr("warn")?;
        Ok(Self::Own(Box::new(Daemon::start(dir, chosen.settings, false).await?)))
    }

    fn manager(&self) -> Arc<dyn Manager> {
        match self {
            Self::Joined(manager) | Self::Background(manager) => Arc::clone(manager),
            Self::Own(daemon) => daemon.manager(),
        }
    }

    /// Returns when a Manager of this process has ended by itself.
    async fn ended(&self) -> Outcome {
        match self {
            Self::Joined(_) | Self::Background(_) => std::future::pending().await,
            Self::Own(daemon) => daemon.ended().await,
        }
    }

    /// Undoes the start of a Manager whose first apply was refused. One that found workers of an earlier Manager
    /// leaves them as they were.
    async fn retract(self, ui: &mut Ui) {
        let manager = self.manager();
        let mode = match manager.units().await {
            Ok(units) if units.is_empty() => ShutdownMode::Stop,
            _ => ShutdownMode::Leave,
        };
        let outcome = match self {
            Self::Joined(_) => Ok(()),
            Self::Background(manager) => manager_link::end(&*manager, mode).await,
            Self::Own(daemon) => daemon.stop(mode).await,
        };
        if let Err(failure) = outcome {
            ui.note(&format!("the Manager did not end well: {failure}"));
        }
    }

    /// Leaves a Manager that has ended.
    async fn finish(self) {
        if let Self::Own(daemon) = self {
            daemon.finish().await;
        }
    }

    /// Ends what a foreground `up` began.
    async fn leave(self, actor: &Actor, started: &[UnitId]) -> Outcome {
        match self {
            Self::Own(daemon) => daemon.stop(ShutdownMode::Stop).await,
            Self::Joined(manager) | Self::Background(manager) => {
                for unit in started {
                    match manager.stop(&unit.to_string(), actor).await {
                        Err(error) if *error.kind() != cocktail_core::error::ErrorKind::NotFound => {
                            return Err(error.into());
                        }
                        _ => {}
                    }
                }
                progress::quietly(&*manager, started, Goal::Stopped, STOP).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cocktail_core::contract::Applied;

    use super::*;
    use crate::args::Format;
    use crate::output::testing::ui;
    use crate::testing::{FakeManager, unit, unit_id};

    #[tokio::test]
    async fn what_did_not_run_before_is_what_was_started() {
        let stopped = UnitView { stopped: true, ..unit("db", 1, 0) };
        let manager = FakeManager {
            units: vec![unit("web", 1, 1), stopped.clone(), unit("new", 1, 0)],
            units_before: std::sync::Mutex::new(vec![vec![unit("web", 1, 1), stopped]]),
            applied: Applied { units: vec![unit_id("web"), unit_id("db"), unit_id("new")], ..Applied::default() },
            ..FakeManager::default()
        };
        let (mut ui, _, _) = ui(Format::Table);
        let mut begun = Begun::default();
        begin(&manager, &Actor::uid(0), &[], &mut begun, &mut ui).await.unwrap();
        assert_eq!(begun.started, [unit_id("db"), unit_id("new")]);
        assert_eq!(manager.calls(), ["apply 0", "start shop/prod/db"]);
    }

    #[tokio::test]
    async fn leaving_a_manager_that_ran_before_stops_only_what_was_started() {
        let manager = Arc::new(FakeManager { units: vec![unit("web", 1, 1)], ..FakeManager::default() });
        let host = Host::Joined(Arc::clone(&manager) as Arc<dyn Manager>);
        host.leave(&Actor::uid(0), &[unit_id("new")]).await.unwrap();
        assert_eq!(manager.calls(), ["stop shop/prod/new"]);
    }

    #[tokio::test]
    async fn a_refused_apply_ends_the_manager_that_was_started_for_it() {
        let (mut ui, _, _) = ui(Format::Table);
        let fresh = Arc::new(FakeManager::default());
        Host::Background(Arc::clone(&fresh) as Arc<dyn Manager>).retract(&mut ui).await;
        assert_eq!(fresh.calls(), ["shutdown Stop"]);
        let used = Arc::new(FakeManager { units: vec![unit("web", 1, 1)], ..FakeManager::default() });
        Host::Background(Arc::clone(&used) as Arc<dyn Manager>).retract(&mut ui).await;
        assert_eq!(used.calls(), ["shutdown Leave"]);
        let joined = Arc::new(FakeManager::default());
        Host::Joined(Arc::clone(&joined) as Arc<dyn Manager>).retract(&mut ui).await;
        assert!(joined.calls().is_empty());
    }
}
