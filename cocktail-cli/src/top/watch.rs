//! What `top` asks the Manager, in tasks of its own.

use std::sync::Arc;
use std::time::Duration;

use cocktail_core::contract::{LogOptions, Manager};
use cocktail_core::error::Result;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::model::{Panel, Question, Snapshot};
use crate::commands::list::unit_name;

/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Units whose history is asked for: more than fit on any screen.
const HISTORIES: usize = 200;

/// Lines of output in a panel.
const LINES: u64 = 200;

/// What a task has to tell.
#[derive(Debug)]
pub(super) enum News {
    Snapshot(Box<Snapshot>),
    Panel(Panel),
    /// The Manager does not answer.
    Away(String),
}

/// Looks again and again, until nobody wants to know any more.
pub(super) async fn watch(manager: Arc<dyn Manager>, news: mpsc::Sender<News>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let found = match look(&*manager).await {
            Ok(snapshot) => News::Snapshot(Box::new(snapshot)),
            Err(error) => News::Away(error.chain()),
        };
        if news.send(found).await.is_err() {
            return;
        }
    }
}

/// Looks once.
pub(super) async fn look(manager: &dyn Manager) -> Result<Snapshot> {
    let mut snapshot = Snapshot {
        about: Some(manager.about().await?),
        units: manager.units().await?,
        containers: manager.containers().await?,
        usage: manager.usage().await?,
        ..Snapshot::default()
    };
    for name in snapshot.units.iter().map(unit_name).take(HISTORIES) {
        // One that has gone meanwhile has no history.
        if let Ok(history) = manager.history(&name).await {
            snapshot.histories.insert(name, history);
        }
    }
    Ok(snapshot)
}

/// Asks what a panel shows.
pub(super) async fn ask(manager: Arc<dyn Manager>, question: Question, news: mpsc::Sender<News>) {
    let lines = match answer(&*manager, &question).await {
        Ok(lines) if lines.is_empty() => vec!["nothing yet".into()],
        Ok(lines) => lines,
        Err(error) => vec![error.chain()],
    };
    // Nobody looks any more: then nobody misses it.
    let _ = news.send(News::Panel(Panel { question, lines, scrolled: 0 })).await;
}

async fn answer(manager: &dyn Manager, question: &Question) -> Result<Vec<String>> {
    match question {
        Question::Why(object) => {
            let decisions = manager.why(object).await?;
            let line = |decision: &cocktail_core::view::WhyView| {
                let mut lines = vec![format!("{}  {}: {}", decision.at, decision.decision, decision.because)];
                let options = decision.considered.iter();
                lines.extend(options.map(|option| format!("    not {}: {}", option.option, option.rejected_because)));
                lines
            };
            Ok(decisions.iter().flat_map(line).collect())
        }
        Question::Logs(object) => {
            let options = LogOptions { tail: Some(LINES), ..LogOptions::default() };
            let mut stream = manager.logs(object, &options).await?;
            let mut lines = Vec::new();
            while let Some(line) = stream.next().await {
                let line = line?;
                lines.push(format!("{} | {}", line.container, line.text));
            }
            Ok(lines)
        }
    }
}

#[cfg(test)]
mod tests {
    use cocktail_core::view::{HistoryView, WhyView};

    use super::*;
    use crate::testing::{FakeManager, SINCE, point, unit};

    #[tokio::test]
    async fn a_look_has_the_history_of_every_unit() {
        let history = HistoryView { points: vec![point(3.0)], ..HistoryView::default() };
        let manager =
            FakeManager { units: vec![unit("web", 1, 1), unit("db", 1, 1)], history, ..FakeManager::default() };
        let snapshot = look(&manager).await.unwrap();
        assert_eq!(snapshot.histories.keys().collect::<Vec<_>>(), ["shop/prod/db", "shop/prod/web"]);
    }

    #[tokio::test]
    async fn an_answer_that_fails_is_shown_in_its_panel() {
        let error = cocktail_core::error::Error::not_found("no unit web");
        let manager = Arc::new(FakeManager { error: Some(error), ..FakeManager::default() });
        let (news, mut told) = mpsc::channel(1);
        ask(manager, Question::Why("web".into()), news).await;
        assert!(matches!(told.recv().await, Some(News::Panel(panel)) if panel.lines == ["no unit web"]));
    }

    #[tokio::test]
    async fn decisions_come_with_their_reasons() {
        let why = vec![WhyView {
            at: SINCE.into(),
            decision: "wait".into(),
            object: "web".into(),
            because: "no room".into(),
            considered: Vec::new(),
        }];
        let manager = FakeManager { why, ..FakeManager::default() };
        let lines = answer(&manager, &Question::Why("web".into())).await.unwrap();
        assert_eq!(lines, [format!("{SINCE}  wait: no room")]);
    }
}
