//! `cordon`, `uncordon` and `rearrange`: what may run on one server.
//!
//! `rearrange --wait` waits until nothing is left there, and fails when it was called off, by somebody or at its deadline.

use std::time::Duration;

use cocktail_core::contract::{Actor, Manager, RearrangeOptions};
use cocktail_core::fleet::Late;
use cocktail_core::view::ServerView;
use tokio::time::MissedTickBehavior;

use super::list::server_reason;
use crate::args::{Format, RearrangeArgs};
use crate::failure::{Failure, Outcome};
use crate::output::{Ui, plain};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// `cordon`.
pub(crate) async fn cordon(manager: &dyn Manager, actor: &Actor, server: &str, ui: &mut Ui) -> Outcome {
    told(&manager.cordon(server, actor).await?, ui)
}

/// `uncordon`.
pub(crate) async fn uncordon(manager: &dyn Manager, actor: &Actor, server: &str, ui: &mut Ui) -> Outcome {
    told(&manager.uncordon(server, actor).await?, ui)
}

/// `rearrange`.
pub(crate) async fn rearrange(manager: &dyn Manager, actor: &Actor, args: RearrangeArgs, ui: &mut Ui) -> Outcome {
    let late = if args.force { Late::Force } else { Late::Cancel };
    let options = RearrangeOptions { deadline: args.deadline, late, give_back: args.give_back };
    let mut view = manager.rearrange(&args.server, options, actor).await?;
    if let Some(deadline) = args.wait.wait {
        let id = view.id.clone();
        match tokio::time::timeout(deadline, empty(manager, &mut view, ui)).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(Failure::Deadline(late_report(manager, &id, &view, deadline).await)),
        }
    }
    told(&view, ui)
}

/// Waits until nothing is left on a server; `view` is how it was seen last.
async fn empty(manager: &dyn Manager, view: &mut ServerView, ui: &mut Ui) -> Outcome {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown = None;
    loop {
        ticks.tick().await;
        let Some(now) = manager.servers().await?.into_iter().find(|server| server.id == view.id) else {
            // It is given back, and nothing is left of it.
            view.containers = 0;
            "gone".clone_into(&mut view.state);
            return Ok(());
        };
        *view = now;
        if view.containers == 0 {
            return Ok(());
        }
        if view.rearrangement.is_none() && matches!(&*view.state, "ready" | "cordoned") {
            return Err(Failure::Failed(format!("{}: {}", view.id, plain(&view.reason))));
        }
        if shown.replace(view.containers) != Some(view.containers) {
            ui.note(&format!("wait {}  {} containers left", view.id, view.containers));
        }
    }
}

/// What to tell when the deadline has passed: what is still there, and what keeps it.
async fn late_report(manager: &dyn Manager, id: &str, view: &ServerView, deadline: Duration) -> String {
    let after = cocktail_core::time::human(deadline);
    let mut text = format!("{id} still has {} containers after {after}", view.containers);
    let why = manager.why(id).await.unwrap_or_default();
    for why in why.iter().filter(|why| why.decision == "wait") {
        text.push_str(&format!("\n  {}: {}", why.object, plain(&why.because)));
    }
    text
}

/// Tells where a server stands after a command.
pub(super) fn told(view: &ServerView, ui: &mut Ui) -> Outcome {
    match ui.format {
        Format::Json => ui.json(view),
        Format::Table => {
            let mut text = format!("{}: {}, {} containers", view.id, view.state, view.containers);
            let reason = server_reason(view);
            if !reason.is_empty() {
                text.push_str(&format!(": {}", plain(&reason)));
            }
            ui.note(&text);
            if view.rearrangement.is_some() && view.containers > 0 {
                ui.note(&format!(
                    "`cocktail why {0}` tells what keeps it, `cocktail uncordon {0}` calls it off",
                    view.id
                ));
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use cocktail_core::error::Error;
    use cocktail_core::view::{RearrangementView, WhyView};

    use super::*;
    use crate::args::WaitArg;
    use crate::output::testing::ui;
    use crate::testing::{FakeManager, SINCE, server};

    fn emptying(containers: u32) -> ServerView {
        let rearrangement = RearrangementView {
            because: "uid 0 asked to empty local".into(),
            deadline: Some("2026-01-01T12:10:00.000Z".into()),
            late: Late::Cancel,
            give_back: false,
        };
        ServerView { state: "draining".into(), containers, rearrangement: Some(rearrangement), ..server() }
    }

    fn args(wait: Option<u64>) -> RearrangeArgs {
        let wait = WaitArg { wait: wait.map(Duration::from_secs) };
        RearrangeArgs { server: "local".into(), deadline: None, force: false, give_back: false, wait }
    }

    fn fake(before: Vec<ServerView>, last: Vec<ServerView>) -> FakeManager {
        let servers_before = Mutex::new(before.into_iter().map(|view| vec![view]).collect());
        FakeManager { servers: last, servers_before, ..FakeManager::default() }
    }

    #[tokio::test]
    async fn each_command_reaches_the_manager_and_its_answer_is_told() {
        let manager = fake(Vec::new(), vec![emptying(2)]);
        let (mut out, data, people) = ui(Format::Table);
        cordon(&manager, &Actor::uid(0), "lo", &mut out).await.unwrap();
        uncordon(&manager, &Actor::uid(0), "lo", &mut out).await.unwrap();
        rearrange(&manager, &Actor::uid(0), args(None), &mut out).await.unwrap();
        let minute = Some(Duration::from_secs(60));
        let all = RearrangeArgs { deadline: minute, force: true, give_back: true, ..args(None) };
        rearrange(&manager, &Actor::uid(0), all, &mut out).await.unwrap();
        let expected =
            ["cordon lo", "uncordon lo", "rearrange local None Cancel false", "rearrange local Some(60s) Force true"];
        assert_eq!(manager.calls(), expected);
        let told = "local: draining, 2 containers: uid 0 asked to empty local; called off at 2026-01-01T12:10:00.000Z\n\
                    `cocktail why local` tells what keeps it, `cocktail uncordon local` calls it off\n";
        assert_eq!((people.text(), data.text().as_str()), (told.repeat(4), ""));
        let (mut out, data, _) = ui(Format::Json);
        cordon(&manager, &Actor::uid(0), "local", &mut out).await.unwrap();
        let value: serde_json::Value = serde_json::from_str(&data.text()).unwrap();
        assert_eq!((&value["state"], &value["rearrangement"]["late"]), (&"draining".into(), &"cancel".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn with_wait_it_ends_when_the_server_is_empty_or_given_back() {
        for last in [vec![emptying(0)], Vec::new()] {
            let manager = fake(vec![emptying(2), emptying(2), emptying(1)], last);
            let (mut ui, _, people) = ui(Format::Table);
            rearrange(&manager, &Actor::uid(0), args(Some(9)), &mut ui).await.unwrap();
            let text = people.text();
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines[..2], ["wait local  2 containers left", "wait local  1 containers left"]);
            assert!(lines[2].contains(", 0 containers"), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn with_wait_what_was_called_off_is_exit_code_1_and_what_is_late_is_5_with_what_keeps_it() {
        let kept = ServerView { reason: "uid 0 uncordoned it".into(), ..server() };
        let (mut out, ..) = ui(Format::Table);
        let manager = fake(vec![emptying(2)], vec![kept]);
        let failure = rearrange(&manager, &Actor::uid(0), args(Some(9)), &mut out).await.unwrap_err();
        assert_eq!((failure.code(), failure.to_string().as_str()), (1, "local: uid 0 uncordoned it"));

        let why = WhyView {
            at: SINCE.into(),
            decision: "wait".into(),
            object: "web-1".into(),
            because: "no room on the only server".into(),
            considered: Vec::new(),
        };
        let manager = FakeManager { why: vec![why], ..fake(Vec::new(), vec![emptying(1)]) };
        let failure = rearrange(&manager, &Actor::uid(0), args(Some(9)), &mut out).await.unwrap_err();
        assert_eq!(failure.code(), 5);
        let text = "local still has 1 containers after 9s\n  web-1: no room on the only server";
        assert_eq!(failure.to_string(), text);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_exit_code_3() {
        let manager = FakeManager { error: Some(Error::not_found("no server")), ..FakeManager::default() };
        let (mut out, ..) = ui(Format::Table);
        assert_eq!(cordon(&manager, &Actor::uid(0), "mars", &mut out).await.unwrap_err().code(), 3);
    }
}
