//! `rollout` and `rollback`: where the update of a Unit stands, and what to do about it.
//!
//! The Manager answers when the intent is durable; what follows is told in a word, and `rollback --wait` waits for it.

use cocktail_core::contract::{Actor, Manager, RolloutAction};
use cocktail_core::id::UnitId;
use cocktail_core::view::{RolloutView, UnitView};

use super::list::unit_name;
use crate::args::{Format, RollbackArgs, RolloutCommand, UnitArg};
use crate::failure::{Failure, Outcome};
use crate::output::{Cell, Table, Ui, age, plain};
use crate::progress::{self, Goal};

/// `rollout`.
pub(crate) async fn rollout(manager: &dyn Manager, actor: &Actor, command: RolloutCommand, ui: &mut Ui) -> Outcome {
    let (UnitArg { unit }, action) = match command {
        RolloutCommand::Status(args) => return status(manager, &args.unit, ui).await,
        RolloutCommand::Pause(args) => (args, RolloutAction::Pause),
        RolloutCommand::Resume(args) => (args, RolloutAction::Resume),
        RolloutCommand::Promote(args) => (args, RolloutAction::Promote),
        RolloutCommand::Abort(args) => (args, RolloutAction::Abort),
    };
    let view = manager.steer(&unit, action, actor).await?;
    told(&unit, &view, ui)
}

/// `rollback`.
pub(crate) async fn rollback(manager: &dyn Manager, actor: &Actor, args: RollbackArgs, ui: &mut Ui) -> Outcome {
    let mut view = manager.rollback(&args.unit, args.to, actor).await?;
    if let Some(deadline) = args.wait.wait {
        let id = named(&manager.units().await?, &args.unit)?;
        let to = args.to.or(view.to);
        progress::until(manager, &[id], Goal::Back { to }, deadline, ui).await?;
        view = manager.rollout(&args.unit).await?;
    }
    told(&args.unit, &view, ui)
}

async fn status(manager: &dyn Manager, unit: &str, ui: &mut Ui) -> Outcome {
    let view = manager.rollout(unit).await?;
    match ui.format {
        Format::Json => ui.json(&view),
        Format::Table => {
            let mut table = Table::new(&["STATE", "AGE", "FROM", "TO", "STEP", "REASON"]);
            let revision = |revision: Option<u64>| revision.map(|revision| revision.to_string()).unwrap_or_default();
            table.row(vec![
                Cell::state(&view.state),
                Cell::text(age(&view.since, ui.now())),
                Cell::text(revision(view.from)),
                Cell::text(revision(view.to)),
                Cell::text(&view.step),
                Cell::tail(&view.reason),
            ]);
            ui.table(&table, "no rollout")?;
            if let Some(hint) = hint(unit, &view) {
                ui.note(&hint);
            }
            Ok(())
        }
    }
}

/// Tells what a command led to.
fn told(unit: &str, view: &RolloutView, ui: &mut Ui) -> Outcome {
    match ui.format {
        Format::Json => ui.json(view),
        Format::Table => {
            let mut text = format!("{unit}: {}", sentence(view));
            if !view.reason.is_empty() {
                text.push_str(&format!(": {}", plain(&view.reason)));
            }
            ui.note(&text);
            if let Some(hint) = hint(unit, view) {
                ui.note(&hint);
            }
            Ok(())
        }
    }
}

fn sentence(view: &RolloutView) -> String {
    let to = view.to.map(|to| format!(" revision {to}")).unwrap_or_default();
    match view.state.as_str() {
        "rolling-back" => format!("going back to{to}"),
        "rolled-back" => format!("back at{to}"),
        "running" => format!("going on to{to}"),
        "paused" => "paused".into(),
        state => format!("{state}{to}"),
    }
}

/// What can be done now.
fn hint(unit: &str, view: &RolloutView) -> Option<String> {
    match view.state.as_str() {
        "paused" => {
            Some(format!("`cocktail rollout resume {unit}` goes on, `cocktail rollout abort {unit}` goes back"))
        }
        "running" if view.asks_promotion => {
            Some(format!("`cocktail rollout promote {unit}` lets the others follow, `abort` goes back"))
        }
        "running" | "rolling-back" => Some(format!("`cocktail rollout status {unit}` tells how far it is")),
        _ => None,
    }
}

/// The Unit that a name means. The Manager has taken the name, so that there is one.
fn named(units: &[UnitView], name: &str) -> Outcome<UnitId> {
    let tail = format!("/{name}");
    let full = units.iter().map(unit_name).find(|full| full == name || full.ends_with(&tail));
    full.and_then(|full| UnitId::try_from(full).ok()).ok_or_else(|| Failure::Failed(format!("{name} was removed")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::args::WaitArg;
    use crate::output::testing::ui;
    use crate::testing::{FakeManager, SINCE, unit};

    fn with(state: &str, reason: &str) -> FakeManager {
        let rollout = RolloutView {
            state: state.into(),
            step: "1 of 3 are of revision 2".into(),
            reason: reason.into(),
            from: Some(1),
            to: Some(2),
            since: SINCE.into(),
            ..RolloutView::default()
        };
        FakeManager { units: vec![UnitView { rollout, revision: 2, ..unit("web", 3, 3) }], ..FakeManager::default() }
    }

    fn web() -> UnitArg {
        UnitArg { unit: "web".into() }
    }

    #[tokio::test]
    async fn status_as_json_has_the_promised_keys() {
        let (mut ui, data, _) = ui(Format::Json);
        let manager = with("running", "applied by uid 0");
        rollout(&manager, &Actor::uid(0), RolloutCommand::Status(web()), &mut ui).await.unwrap();
        let value: serde_json::Value = serde_json::from_str(&data.text()).unwrap();
        let told = (&value["state"], &value["step"], &value["reason"]);
        assert_eq!(told, (&"running".into(), &"1 of 3 are of revision 2".into(), &"applied by uid 0".into()));
        assert_eq!(manager.calls(), ["rollout web"]);
    }

    #[tokio::test]
    async fn status_as_a_table_says_what_can_be_done() {
        let (mut ui, data, people) = ui(Format::Table);
        let manager = with("paused", "web-7 ended by itself");
        rollout(&manager, &Actor::uid(0), RolloutCommand::Status(web()), &mut ui).await.unwrap();
        let expected = "\
STATE   AGE  FROM  TO  STEP                      REASON
paused  5m   1     2   1 of 3 are of revision 2  web-7 ended by itself
";
        assert_eq!(data.text(), expected);
        assert!(people.text().contains("cocktail rollout resume web"), "{}", people.text());
    }

    #[tokio::test]
    async fn each_action_is_given_to_the_manager_and_what_follows_is_told() {
        let (mut ui, data, people) = ui(Format::Table);
        let manager = with("rolling-back", "asked for by uid 0");
        for command in [
            RolloutCommand::Pause(web()),
            RolloutCommand::Resume(web()),
            RolloutCommand::Promote(web()),
            RolloutCommand::Abort(web()),
        ] {
            rollout(&manager, &Actor::uid(0), command, &mut ui).await.unwrap();
        }
        assert_eq!(manager.calls(), ["steer web pause", "steer web resume", "steer web promote", "steer web abort"]);
        assert!(people.text().starts_with("web: going back to revision 2: asked for by uid 0\n"), "{}", people.text());
        assert_eq!(data.text(), "");
    }

    fn back(to: Option<u64>, wait: Option<u64>) -> RollbackArgs {
        RollbackArgs { unit: "web".into(), to, wait: WaitArg { wait: wait.map(Duration::from_secs) } }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rollback_returns_at_once_or_waits_until_it_is_back() {
        let (mut out, _, people) = ui(Format::Table);
        let manager = with("rolling-back", "asked for by uid 0");
        rollback(&manager, &Actor::uid(0), back(None, None), &mut out).await.unwrap();
        assert_eq!(manager.calls(), ["rollback web None"]);
        assert!(people.text().contains("going back"), "{}", people.text());
        let failure = rollback(&manager, &Actor::uid(0), back(None, Some(1)), &mut out).await.unwrap_err();
        assert_eq!(failure.code(), 5);
        let manager = with("rolled-back", "all 3 containers are of revision 2 again");
        let (mut out, _, people) = ui(Format::Table);
        rollback(&manager, &Actor::uid(0), back(Some(2), Some(1)), &mut out).await.unwrap();
        assert_eq!(
            people.text().lines().last(),
            Some("web: back at revision 2: all 3 containers are of revision 2 again")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_rollback_that_fails_is_exit_code_1() {
        let (mut ui, _, _) = ui(Format::Table);
        let manager = with("paused", "web-8 ended by itself");
        let failure = rollback(&manager, &Actor::uid(0), back(None, Some(1)), &mut ui).await.unwrap_err();
        assert_eq!(failure.code(), 1);
        assert!(failure.to_string().contains("web-8 ended by itself"), "{failure}");
    }
}
