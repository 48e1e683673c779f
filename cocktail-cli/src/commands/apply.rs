//! `apply` and `plan`.

use cocktail_core::contract::{Actor, Applied, ApplyOptions, Manager, ManifestSource};
use cocktail_core::id::UnitId;
use futures_util::stream::{self, StreamExt};

use super::change;
use crate::args::{Format, WaitArg};
use crate::failure::Outcome;
use crate::manifests;
use crate::output::{Cell, Table, Ui};
use crate::progress::{self, Goal};

/// Applies manifests and tells what changed.
pub(crate) async fn apply(
    manager: &dyn Manager,
    actor: &Actor,
    sources: &[ManifestSource],
    options: ApplyOptions,
    wait: WaitArg,
    ui: &mut Ui,
) -> Outcome {
    let before = change::before(manager, wait).await?;
    let applied = send(manager, actor, sources, options, ui).await?;
    manifests::warn(&applied.warnings, sources, ui);
    if let Some(deadline) = wait.wait {
        progress::until(manager, &applied.units, Goal::Updated { before: &before }, deadline, ui).await?;
        progress::until(manager, &applied.removed, Goal::Gone, deadline, ui).await?;
    }
    match ui.format {
        Format::Json => ui.json(&applied),
        Format::Table => {
            tell(&applied.changed, &applied.removed, ui);
            Ok(())
        }
    }
}

/// Applies manifests, and shows what builds of their images say meanwhile.
pub(crate) async fn send(
    manager: &dyn Manager,
    actor: &Actor,
    sources: &[ManifestSource],
    options: ApplyOptions,
    ui: &mut Ui,
) -> Outcome<Applied> {
    let mut builds = match sources.iter().any(|source| source.text.contains("build")) {
        // Without them it is applied all the same.
        true => manager.builds().await.unwrap_or_else(|_| stream::empty().boxed()),
        false => stream::empty().boxed(),
    };
    let mut applying = manager.apply_with(sources, options, actor);
    loop {
        tokio::select! {
            biased;
            Some(Ok(line)) = builds.next() => ui.note(&format!("{} on {}: {}", line.unit, line.server, line.line)),
            applied = &mut applying => return applied.map_err(|error| manifests::answered(error, sources, ui)),
        }
    }
}

/// Tells people what an apply changed.
pub(crate) fn tell(changed: &[UnitId], removed: &[UnitId], ui: &mut Ui) {
    for unit in changed {
        ui.note(&format!("changed {unit}"));
    }
    for unit in removed {
        ui.note(&format!("removed {unit}"));
    }
    if changed.is_empty() && removed.is_empty() {
        ui.note("nothing changed");
    }
}

/// Prints what an apply would do, and why.
pub(crate) async fn plan(
    manager: &dyn Manager,
    sources: &[ManifestSource],
    options: ApplyOptions,
    ui: &mut Ui,
) -> Outcome {
    let plan = manager.plan_with(sources, options).await.map_err(|error| manifests::answered(error, sources, ui))?;
    manifests::warn(&plan.warnings, sources, ui);
    match ui.format {
        Format::Json => ui.json(&plan),
        Format::Table => {
            let mut table = Table::new(&["ACTION", "OBJECT", "BECAUSE"]);
            for action in &plan.actions {
                table.row(vec![Cell::text(&action.action), Cell::text(&action.object), Cell::tail(&action.because)]);
            }
            ui.table(&table, &plan.summary)?;
            if !table.is_empty() {
                ui.note(&plan.summary);
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use cocktail_core::error::Error;
    use cocktail_core::manifest::{Diagnostic, Severity};
    use cocktail_core::view::{PlanAction, PlanView};

    use super::*;
    use crate::output::testing::ui;
    use crate::testing::{FakeManager, unit_id};

    const NO_WAIT: WaitArg = WaitArg { wait: None };

    fn sources() -> Vec<ManifestSource> {
        let text = "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"python9\"]\n";
        vec![ManifestSource { file: "shop.toml".into(), base: "/".into(), text: text.into() }]
    }

    #[tokio::test]
    async fn a_plan_is_a_table_and_its_summary_is_for_people() {
        let action = PlanAction {
            action: "create".into(),
            object: "shop/prod/web".into(),
            because: "the manifest names it, 0 of 3 exist".into(),
        };
        let plan_view = PlanView { actions: vec![action], summary: "1 Unit to create".into(), warnings: Vec::new() };
        let manager = FakeManager { plan: plan_view, ..FakeManager::default() };
        let (mut ui, data, people) = ui(Format::Table);
        plan(&manager, &sources(), ApplyOptions::default(), &mut ui).await.unwrap();
        let expected = "ACTION  OBJECT         BECAUSE\ncreate  shop/prod/web  the manifest names it, 0 of 3 exist\n";
        assert_eq!((data.text().as_str(), people.text().as_str()), (expected, "1 Unit to create\n"));
    }

    #[tokio::test]
    async fn a_plan_that_changes_nothing_has_an_empty_list_as_json() {
        let plan_view = PlanView { summary: "nothing would change".into(), ..PlanView::default() };
        let manager = FakeManager { plan: plan_view, ..FakeManager::default() };
        let (mut ui, data, _) = ui(Format::Json);
        plan(&manager, &sources(), ApplyOptions::default(), &mut ui).await.unwrap();
        let value: serde_json::Value = serde_json::from_str(&data.text()).unwrap();
        assert_eq!((&value["actions"], &value["summary"]), (&serde_json::json!([]), &"nothing would change".into()));
    }

    #[tokio::test]
    async fn apply_tells_what_changed() {
        let applied = Applied { changed: vec![unit_id("web")], removed: vec![unit_id("old")], ..Applied::default() };
        let manager = FakeManager { applied, ..FakeManager::default() };
        let (mut out, data, people) = ui(Format::Table);
        apply(&manager, &Actor::uid(0), &sources(), ApplyOptions::default(), NO_WAIT, &mut out).await.unwrap();
        let expected = "changed shop/prod/web\nremoved shop/prod/old\n";
        assert_eq!((data.text().as_str(), people.text().as_str()), ("", expected));
        let (mut out, _, people) = ui(Format::Table);
        apply(&FakeManager::default(), &Actor::uid(0), &sources(), ApplyOptions::default(), NO_WAIT, &mut out)
            .await
            .unwrap();
        assert_eq!(people.text(), "nothing changed\n");
    }

    #[tokio::test]
    async fn what_the_manager_says_about_a_manifest_is_shown_with_its_line() {
        let sources = sources();
        let text = &sources[0].text;
        let start = text.find("[\"python9\"]").unwrap();
        let diagnostic = Diagnostic {
            span: start..start + 11,
            line: 3,
            column: 11,
            key: "maps.prod.units.web.command".into(),
            ..Diagnostic::of_file(Severity::Error, "shop.toml", "the program `python9` was not found")
        };
        let error = Error::invalid("the manifest cannot be applied").with_diagnostics(vec![diagnostic]);
        let manager = FakeManager { error: Some(error), ..FakeManager::default() };
        let (mut ui, _, _) = ui(Format::Table);
        let failure =
            apply(&manager, &Actor::uid(0), &sources, ApplyOptions::default(), NO_WAIT, &mut ui).await.unwrap_err();
        assert_eq!(failure.code(), 2);
        let text = failure.to_string();
        assert!(
            text.contains("python9` was not found") && text.contains("shop.toml:3:11") && text.contains("^^^"),
            "{text}"
        );
    }
}
