//! `top`: what every Unit does, live.
//!
//! Start at [`top`]. What is shown and what a key does is a value ([`model`]) and pure; [`view`] draws it, [`screen`]
//! holds the terminal, [`watch`] asks the Manager in a task of its own, so that keys are answered also while a Manager
//! is slow or away. Without a terminal there is one table, and as JSON one report.

mod model;
mod screen;
mod view;
mod watch;

use std::sync::Arc;

use cocktail_core::contract::Manager;
use tokio::sync::mpsc;

use crate::args::Format;
use crate::failure::Outcome;
use crate::interrupt::Interrupt;
use crate::output::{Cell, Table, Ui};
use model::{Model, UnitRow, Wish};
use screen::{Input, Screen};
use watch::News;

/// Answers that wait to be shown.
const NEWS: usize = 16;

/// Shows what every Unit does until a key or a signal ends it.
///
/// # Errors
/// The Manager cannot be reached at the start; the terminal refuses.
pub(crate) async fn top(manager: Arc<dyn Manager>, ui: &mut Ui) -> Outcome {
    if ui.format == Format::Json {
        return ui.json(&manager.usage().await?);
    }
    let first = watch::look(&*manager).await?;
    let mut model = Model::default();
    model.update(first);
    if !Screen::is_possible() {
        return ui.table(&table(model.units()), "no Units; apply a manifest: cocktail apply FILE");
    }
    let mut interrupt = Interrupt::listen()?;
    let (news, mut told) = mpsc::channel(NEWS);
    let watching = tokio::spawn(watch::watch(Arc::clone(&manager), news.clone()));
    let mut screen = Screen::open()?;
    let outcome = loop {
        if let Err(error) = screen.draw(&model) {
            break Err(error.into());
        }
        let wish = tokio::select! {
            input = screen.input() => match input {
                Some(Input::Key(key)) => model.press(key),
                Some(Input::Resized) => Wish::Nothing,
                None => Wish::Quit,
            },
            Some(news) = told.recv() => {
                match news {
                    News::Snapshot(snapshot) => model.update(*snapshot),
                    News::Panel(panel) => model.show(panel),
                    News::Away(why) => model.lose(why),
                }
                Wish::Nothing
            }
            () = interrupt.wait() => Wish::Quit,
        };
        match wish {
            Wish::Nothing => {}
            Wish::Quit => break Ok(()),
            Wish::Look(question) => {
                tokio::spawn(watch::ask(Arc::clone(&manager), question, news.clone()));
            }
        }
    };
    watching.abort();
    outcome
}

/// The Units as one table, for a reader that is no terminal.
fn table(units: &[UnitRow]) -> Table {
    let head = &["UNIT", "READY", "CPU", "MEMORY", "RPS", "IN-FLIGHT", "P50", "P99", "ROLLOUT"];
    let mut table = Table::new(head);
    for unit in units {
        let mut cells = vec![Cell::text(&unit.name), Cell::number(&unit.ready)];
        cells.extend(unit.load.texts().into_iter().map(Cell::number));
        cells.push(Cell::state(&unit.rollout));
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use cocktail_core::view::UsageReport;

    use super::*;
    use crate::output::testing::ui;
    use crate::testing::{FakeManager, unit, usage_of};

    fn manager() -> Arc<dyn Manager> {
        let usage =
            UsageReport { units: [("shop/prod/web".to_owned(), usage_of(120.0))].into(), ..UsageReport::default() };
        Arc::new(FakeManager { units: vec![unit("web", 3, 3), unit("db", 1, 0)], usage, ..FakeManager::default() })
    }

    #[tokio::test]
    async fn without_a_terminal_it_is_one_table() {
        let (mut ui, data, _) = ui(Format::Table);
        top(manager(), &mut ui).await.unwrap();
        let expected = "\
UNIT           READY   CPU   MEMORY  RPS  IN-FLIGHT    P50     P99  ROLLOUT
shop/prod/db     0/1  0.00       0B    -          -      -       -  running
shop/prod/web    3/3  0.25  25.0MiB  120          2  1.5ms  12.0ms  completed
";
        assert_eq!(data.text(), expected);
    }

    #[tokio::test]
    async fn as_json_it_is_the_report_once() {
        let (mut ui, data, _) = ui(Format::Json);
        top(manager(), &mut ui).await.unwrap();
        let value: serde_json::Value = serde_json::from_str(&data.text()).unwrap();
        assert_eq!(value["units"]["shop/prod/web"]["requests_total"], 1_000);
    }
}
