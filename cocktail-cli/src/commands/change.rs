//! Commands that change something: `scale`, `extend`, `reduce`, `stop`, `start`, `restart`, `rm`, `down`.
//!
//! They return when the Manager has taken the intent durably; `--wait` waits until it has come true. As JSON they
//! answer with the Unit, or with the names of the Units that they concern.

use std::time::Duration;

use cocktail_core::contract::{Actor, Manager};
use cocktail_core::error::Result;
use cocktail_core::id::UnitId;
use cocktail_core::view::UnitView;

use super::list::unit_name;
use crate::args::{Format, ObjectsArgs, ScaleArgs, StepArgs, WaitArg};
use crate::failure::Outcome;
use crate::output::Ui;
use crate::progress::{self, Goal};

/// `scale`.
pub(crate) async fn scale(manager: &dyn Manager, actor: &Actor, args: ScaleArgs, ui: &mut Ui) -> Outcome {
    let before = before(manager, args.wait).await?;
    counted(manager, manager.scale(&args.unit, args.count, actor).await, args.wait, &before, ui).await
}

/// `extend`.
pub(crate) async fn extend(manager: &dyn Manager, actor: &Actor, args: StepArgs, ui: &mut Ui) -> Outcome {
    let before = before(manager, args.wait).await?;
    counted(manager, manager.extend(&args.unit, args.count, actor).await, args.wait, &before, ui).await
}

/// `reduce`.
pub(crate) async fn reduce(manager: &dyn Manager, actor: &Actor, args: StepArgs, ui: &mut Ui) -> Outcome {
    let before = before(manager, args.wait).await?;
    counted(manager, manager.reduce(&args.unit, args.count, actor).await, args.wait, &before, ui).await
}

/// The Units before a command, if its end is waited for: what ended before it says nothing about it.
pub(crate) async fn before(manager: &dyn Manager, wait: WaitArg) -> Outcome<Vec<UnitView>> {
    Ok(if wait.wait.is_some() { manager.units().await? } else { Vec::new() })
}

/// Tells what a change of a count led to, and waits for it.
async fn counted(
    manager: &dyn Manager,
    answer: Result<UnitView>,
    wait: WaitArg,
    before: &[UnitView],
    ui: &mut Ui,
) -> Outcome {
    let mut unit = answer?;
    if let Some(deadline) = wait.wait {
        let units = progress::ids(std::slice::from_ref(&unit));
        progress::until(manager, &units, Goal::Ready { before }, deadline, ui).await?;
        let name = unit_name(&unit);
        let now = manager.units().await?.into_iter().find(|view| unit_name(view) == name);
        unit = now.unwrap_or(unit);
    }
    match ui.format {
        Format::Json => ui.json(&unit),
        Format::Table => {
            ui.note(&format!("{}: {} wanted, {} ready", unit_name(&unit), unit.desired, unit.ready));
            Ok(())
        }
    }
}

/// What happens to objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// `stop`.
    Stop,
    /// `start`.
    Start,
    /// `restart`.
    Restart,
    /// `rm`.
    Remove,
}

/// `stop`, `start`, `restart` and `rm`, one object after the other; the first that fails ends it.
pub(crate) async fn objects(
    manager: &dyn Manager,
    actor: &Actor,
    verb: Verb,
    args: ObjectsArgs,
    ui: &mut Ui,
) -> Outcome {
    let before = before(manager, args.wait).await?;
    let doing = match verb {
        Verb::Stop => "stopping",
        Verb::Start => "starting",
        Verb::Restart => "restarting",
        Verb::Remove => "removing",
    };
    let mut units: Vec<UnitId> = Vec::new();
    for object in &args.objects {
        let answer = match verb {
            Verb::Stop => manager.stop(object, actor).await,
            Verb::Start => manager.start(object, actor).await,
            Verb::Restart => manager.restart(object, actor).await,
            Verb::Remove => manager.remove(object, actor).await,
        };
        match answer {
            Ok(concerned) => units.extend(concerned),
            Err(error) => {
                // What was done for the objects before stays done, so that it has to be told.
                units.iter().for_each(|unit| ui.note(&format!("{doing} {unit}")));
                return Err(error.into());
            }
        }
    }
    units.sort();
    units.dedup();
    if let Some(deadline) = args.wait.wait {
        let goal = match verb {
            Verb::Stop => Goal::Stopped,
            Verb::Start | Verb::Restart => Goal::Ready { before: &before },
            Verb::Remove => Goal::Gone,
        };
        progress::until(manager, &units, goal, deadline, ui).await?;
    }
    let done = match verb {
        Verb::Stop => "stopped",
        Verb::Start => "started",
        Verb::Restart => "restarted",
        Verb::Remove => "removed",
    };
    told(&units, if args.wait.wait.is_some() { done } else { doing }, ui)
}

/// `down`, up to the point where nothing of any Unit is left.
pub(crate) async fn down(manager: &dyn Manager, actor: &Actor, wait: Duration, ui: &mut Ui) -> Outcome {
    let units = manager.down(actor).await?;
    progress::until(manager, &units, Goal::Gone, wait, ui).await?;
    told(&units, "removed", ui)
}

/// Names the Units that a command concerned.
fn told(units: &[UnitId], verb: &str, ui: &mut Ui) -> Outcome {
    match ui.format {
        Format::Json => ui.json(&units),
        Format::Table => {
            for unit in units {
                ui.note(&format!("{verb} {unit}"));
            }
            if units.is_empty() {
                ui.note("nothing to do");
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use cocktail_core::error::Error;

    use super::*;
    use crate::output::testing::ui;
    use crate::testing::{FakeManager, unit};

    fn args(objects: &[&str], wait: Option<u64>) -> ObjectsArgs {
        let wait = WaitArg { wait: wait.map(Duration::from_secs) };
        ObjectsArgs { objects: objects.iter().map(|&object| object.into()).collect(), wait }
    }

    #[tokio::test]
    async fn each_verb_is_given_to_the_manager_for_each_object() {
        let manager = FakeManager::default();
        let (mut ui, data, people) = ui(Format::Table);
        for verb in [Verb::Stop, Verb::Start, Verb::Restart, Verb::Remove] {
            objects(&manager, &Actor::uid(0), verb, args(&["web", "db"], None), &mut ui).await.unwrap();
        }
        let expected =
            ["stop web", "stop db", "start web", "start db", "restart web", "restart db", "remove web", "remove db"];
        assert_eq!(manager.calls(), expected);
        assert!(people.text().starts_with("stopping shop/prod/web\nstarting shop/prod/web\n"), "{}", people.text());
        assert_eq!(data.text(), "");
    }

    #[tokio::test]
    async fn json_answers_with_names_or_with_the_unit() {
        let manager = FakeManager { units: vec![unit("web", 4, 1)], ..FakeManager::default() };
        let (mut out, data, _) = ui(Format::Json);
        objects(&manager, &Actor::uid(0), Verb::Stop, args(&["web"], None), &mut out).await.unwrap();
        assert_eq!(data.text(), "[\n  \"shop/prod/web\"\n]\n");
        let (mut out, data, _) = ui(Format::Json);
        let scaled = ScaleArgs { unit: "web".into(), count: 4, wait: WaitArg { wait: None } };
        scale(&manager, &Actor::uid(0), scaled, &mut out).await.unwrap();
        let value: serde_json::Value = serde_json::from_str(&data.text()).unwrap();
        assert_eq!(value["desired"], 4);
    }

    #[tokio::test(start_paused = true)]
    async fn with_wait_a_count_that_does_not_come_true_is_exit_code_5() {
        let manager = FakeManager { units: vec![unit("web", 4, 1)], ..FakeManager::default() };
        let (mut ui, _, _) = ui(Format::Table);
        let wait = WaitArg { wait: Some(Duration::from_secs(1)) };
        let step = StepArgs { unit: "web".into(), count: 3, wait };
        assert_eq!(extend(&manager, &Actor::uid(0), step, &mut ui).await.unwrap_err().code(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_wait_the_unit_is_told_as_it_is_then() {
        let before = Mutex::new(vec![vec![unit("web", 3, 1)]]);
        let manager = FakeManager { units: vec![unit("web", 3, 3)], units_before: before, ..FakeManager::default() };
        let (mut ui, _, people) = ui(Format::Table);
        let scaled = unit("web", 3, 1);
        let wait = WaitArg { wait: Some(Duration::from_secs(9)) };
        counted(&manager, Ok(scaled), wait, &[], &mut ui).await.unwrap();
        assert_eq!(people.text().lines().last(), Some("shop/prod/web: 3 wanted, 3 ready"));
    }

    #[tokio::test]
    async fn a_refusal_is_exit_code_4_and_nothing_more_is_asked() {
        let manager = FakeManager { error: Some(Error::refused("frozen")), ..FakeManager::default() };
        let (mut ui, _, _) = ui(Format::Table);
        let failure = objects(&manager, &Actor::uid(0), Verb::Remove, args(&["a", "b"], None), &mut ui).await;
        assert_eq!((failure.unwrap_err().code(), manager.calls()), (4, vec!["remove a".to_owned()]));
    }
}
