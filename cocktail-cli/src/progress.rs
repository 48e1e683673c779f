//! Waiting until what was asked for has come true, with something to look at meanwhile.
//!
//! Start at [`until`]. Whether a Unit is there yet is decided by the pure [`standing()`]; [`Progress`] shows changes: on
//! a terminal as one live line a Unit, elsewhere as one plain line a change. Where only the reason changes, plain lines
//! keep a distance of [`QUIET`], so that the log of a Unit with hundreds of containers stays short.
//!
//! Lists are read again and again rather than followed as events: what is shown then cannot miss anything, and a
//! Manager in this machine answers in well under a millisecond.

mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cocktail_core::contract::{LogOptions, Manager};
use cocktail_core::id::UnitId;
use cocktail_core::view::{ContainerView, UnitView};
use futures_util::StreamExt;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use crate::commands::list::unit_name;
use crate::failure::{Failure, Outcome};
use crate::output::{Tone, Ui, plain};

pub(crate) use standing::there;
pub(crate) use standing::{Goal, Standing, standing};
use standing::{belongs, is};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Least time between two plain lines of a Unit that differ only in the reason.
const QUIET: Duration = Duration::from_secs(2);

/// Lines of output that are shown of a container that does not come up.
const LAST_LINES: u64 = 5;

/// Waits until every one of `units` has reached `goal`.
///
/// # Errors
/// [`Failure::Deadline`] with the reason of each Unit that has not, [`Failure::Failed`] for one that never will.
pub(crate) async fn until(
    manager: &dyn Manager,
    units: &[UnitId],
    goal: Goal<'_>,
    deadline: Duration,
    ui: &mut Ui,
) -> Outcome {
    let mut progress = Progress::new(ui);
    let mut late: BTreeMap<UnitId, String> = BTreeMap::new();
    let wait = look(manager, units, goal, &mut late, Some((&mut progress, ui)));
    let ended = tokio::time::timeout(deadline, wait).await;
    progress.finish();
    match ended {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::Deadline(deadline_report(manager, units, &late, goal, deadline).await)),
    }
}

/// The same as [`until`] without a word meanwhile.
///
/// # Errors
/// [`Failure::Deadline`], [`Failure::Failed`] as there.
pub(crate) async fn quietly(manager: &dyn Manager, units: &[UnitId], goal: Goal<'_>, deadline: Duration) -> Outcome {
    let mut late = BTreeMap::new();
    let wait = look(manager, units, goal, &mut late, None);
    match tokio::time::timeout(deadline, wait).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::Deadline(deadline_report(manager, units, &late, goal, deadline).await)),
    }
}

/// Looks until all are there or one has failed. `late` always holds those that are not there, with the reason.
async fn look(
    manager: &dyn Manager,
    wanted: &[UnitId],
    goal: Goal<'_>,
    late: &mut BTreeMap<UnitId, String>,
    mut shown: Option<(&mut Progress, &mut Ui)>,
) -> Outcome {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // The containers first: a Unit that is gone from the later list has none in an older one that matter.
        let containers = manager.containers().await?;
        let units = manager.units().await?;
        late.clear();
        for unit in wanted {
            let standing = standing(unit, goal, &units, &containers);
            let view = units.iter().find(|view| is(view, unit));
            if let Some((progress, ui)) = &mut shown {
                progress.show(unit, view, goal, &standing, ui);
            }
            match standing {
                Standing::Done(_) => {}
                Standing::Waiting(reason) => drop(late.insert(unit.clone(), reason)),
                Standing::Failed(reason) => return Err(Failure::Failed(format!("{unit}: {reason}"))),
            }
        }
        if let (Goal::Ready { .. } | Goal::Updated { .. } | Goal::Back { .. }, Some((progress, ui))) =
            (goal, &mut shown)
        {
            let broken = containers.iter().filter(|container| {
                matches!(container.state.as_str(), "backoff" | "failed")
                    && late.keys().any(|unit| belongs(container, unit))
            });
            for container in broken {
                progress.trouble(manager, container, ui).await;
            }
        }
        if late.is_empty() {
            return Ok(());
        }
    }
}

/// What to tell when the deadline has passed: every Unit that is late, with its reason.
async fn deadline_report(
    manager: &dyn Manager,
    wanted: &[UnitId],
    late: &BTreeMap<UnitId, String>,
    goal: Goal<'_>,
    deadline: Duration,
) -> String {
    let goal = match goal {
        Goal::Ready { .. } | Goal::Updated { .. } => "ready",
        Goal::Back { .. } => "back",
        Goal::Stopped => "stopped",
        Goal::Gone => "gone",
    };
    let after = cocktail_core::time::human(deadline);
    // Without a single answer in time, nothing is known of any of them.
    let unseen: BTreeMap<UnitId, String> = wanted.iter().map(|unit| (unit.clone(), String::new())).collect();
    let late = if late.is_empty() { &unseen } else { late };
    let mut text = format!("{} of {} Units not {goal} after {after}", late.len(), wanted.len());
    for (unit, reason) in late {
        let mut reason = plain(reason).into_owned();
        if reason.is_empty() {
            let decisions = manager.why(&unit.to_string()).await.unwrap_or_default();
            reason = decisions.last().map_or_else(|| "no reason is known".into(), |last| plain(&last.because).into());
        }
        text.push_str(&format!("\n  {unit}: {reason}"));
    }
    text
}

/// Shows how far each Unit is.
#[derive(Debug)]
struct Progress {
    /// Lines on a terminal; `None` elsewhere.
    live: Option<(MultiProgress, BTreeMap<UnitId, ProgressBar>)>,
    /// What was shown last of each Unit.
    shown: BTreeMap<UnitId, Shown>,
    /// Units whose trouble was shown.
    troubled: BTreeSet<String>,
}

/// What was shown of a Unit.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    count: String,
    text: String,
    at: Instant,
}

impl Progress {
    fn new(ui: &Ui) -> Self {
        let live = ui
            .is_live()
            .then(|| (MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)), BTreeMap::new()));
        Self { live, shown: BTreeMap::new(), troubled: BTreeSet::new() }
    }

    fn show(&mut self, unit: &UnitId, view: Option<&UnitView>, goal: Goal<'_>, standing: &Standing, ui: &mut Ui) {
        let count = count(view, goal, standing);
        let text = with_reason(&count, standing);
        if let Some(shown) = self.shown.get(unit) {
            let only_the_reason = shown.count == count && matches!(standing, Standing::Waiting(_));
            let too_soon = self.live.is_none() && only_the_reason && shown.at.elapsed() < QUIET;
            if shown.text == text || too_soon {
                return;
            }
        }
        match &mut self.live {
            None => {
                let (tone, word) = match standing {
                    Standing::Done(_) => (Tone::Good, "ok  "),
                    Standing::Waiting(_) => (Tone::Busy, "wait"),
                    Standing::Failed(_) => (Tone::Bad, "fail"),
                };
                ui.toned_note(tone, word, &format!("{unit}  {text}"));
            }
            Some((lines, bars)) => {
                let bar = bars.entry(unit.clone()).or_insert_with(|| {
                    let bar = lines.add(ProgressBar::new(0));
                    // The template is ours and known to be right; without it the bar is only less pretty.
                    if let Ok(style) = ProgressStyle::with_template("{spinner:.yellow} {prefix} {bar:20} {wide_msg}") {
                        bar.set_style(style.progress_chars("━━ "));
                    }
                    bar.set_prefix(unit.to_string());
                    bar.enable_steady_tick(LOOK);
                    bar
                });
                let (ready, desired) = view.map_or((1, 1), |view| (there(view), view.desired));
                bar.set_length(u64::from(desired.max(1)));
                bar.set_position(u64::from(if desired == 0 { 1 } else { ready.min(desired) }));
                bar.set_message(text.clone());
            }
        }
        self.shown.insert(unit.clone(), Shown { count, text, at: Instant::now() });
    }

    /// Tells once for each Unit why a container of it does not come up, with its last words.
    async fn trouble(&mut self, manager: &dyn Manager, container: &ContainerView, ui: &mut Ui) {
        let unit = format!("{}/{}/{}", container.service, container.map, container.unit);
        if !self.troubled.insert(unit) {
            return;
        }
        let mut lines = vec![format!("{} is in {}: {}", container.id, container.state, plain(&container.reason))];
        let options = LogOptions { tail: Some(LAST_LINES), ..LogOptions::default() };
        if let Ok(mut logs) = manager.logs(&container.id, &options).await {
            while let Some(Ok(line)) = logs.next().await {
                lines.push(format!("  | {}", plain(&line.text)));
            }
        }
        lines.push(format!("  more: cocktail logs {0}; cocktail why {0}", container.id));
        for line in lines {
            match &self.live {
                Some((live, _)) => drop(live.println(&line)),
                None => ui.note(&line),
            }
        }
    }

    /// Leaves the last state of the lines on the terminal.
    fn finish(&mut self) {
        if let Some((_, bars)) = self.live.take() {
            for bar in bars.into_values() {
                bar.abandon();
            }
        }
    }
}

/// How far a Unit is, in a few words.
fn count(view: Option<&UnitView>, goal: Goal<'_>, standing: &Standing) -> String {
    match (goal, view, standing) {
        (Goal::Ready { .. } | Goal::Updated { .. } | Goal::Back { .. }, Some(view), _) => counted(view),
        (Goal::Ready { .. } | Goal::Updated { .. } | Goal::Back { .. }, None, _) => String::new(),
        (Goal::Stopped, _, Standing::Done(_)) => "stopped".into(),
        (Goal::Gone, _, Standing::Done(_)) => "gone".into(),
        (Goal::Stopped | Goal::Gone, ..) => "stopping".into(),
    }
}

/// How many containers of a Unit are there.
pub(crate) fn counted(view: &UnitView) -> String {
    if !view.job {
        return format!("{}/{} ready", view.ready, view.desired);
    }
    let mut text = format!("{}/{} done", view.succeeded, view.desired);
    if view.ready > 0 {
        text.push_str(&format!(", {} running", view.ready));
    }
    if view.failed > 0 {
        text.push_str(&format!(", {} failed", view.failed));
    }
    text
}

/// The same with what stands in the way.
fn with_reason(count: &str, standing: &Standing) -> String {
    let (Standing::Done(reason) | Standing::Waiting(reason) | Standing::Failed(reason)) = standing;
    let reason = plain(reason);
    if reason.is_empty() || count.is_empty() { format!("{count}{reason}") } else { format!("{count}: {reason}") }
}

/// The names of all Units in a list.
pub(crate) fn ids(units: &[UnitView]) -> Vec<UnitId> {
    units.iter().filter_map(|view| UnitId::try_from(unit_name(view)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use cocktail_core::contract::LogLine;
    use cocktail_core::time::WallTime;
    use cocktail_core::view::WhyView;

    use super::*;
    use crate::args::Format;
    use crate::output::testing::ui;
    use crate::testing::{FakeManager, SINCE, container, unit, unit_id};

    const READY: Goal<'static> = Goal::Ready { before: &[] };

    #[tokio::test(start_paused = true)]
    async fn without_a_terminal_each_change_is_one_line() {
        let before = vec![vec![unit("web", 2, 0)], vec![unit("web", 2, 0)], vec![unit("web", 2, 1)]];
        let manager =
            FakeManager { units: vec![unit("web", 2, 2)], units_before: Mutex::new(before), ..FakeManager::default() };
        let (mut ui, data, people) = ui(Format::Table);
        until(&manager, &[unit_id("web")], READY, Duration::from_secs(10), &mut ui).await.unwrap();
        let expected = "\
wait shop/prod/web  0/2 ready
wait shop/prod/web  1/2 ready
ok   shop/prod/web  2/2 ready
";
        assert_eq!((people.text().as_str(), data.text().as_str()), (expected, ""));
    }

    #[tokio::test(start_paused = true)]
    async fn reasons_that_change_all_the_time_do_not_fill_the_log() {
        let with = |n: usize| vec![UnitView { reason: format!("web-{n} waits"), ..unit("web", 9, 0) }];
        let before = Mutex::new((0..40).map(with).collect());
        let manager = FakeManager { units: vec![unit("web", 9, 9)], units_before: before, ..FakeManager::default() };
        let (mut ui, _, people) = ui(Format::Table);
        until(&manager, &[unit_id("web")], READY, Duration::from_secs(10), &mut ui).await.unwrap();
        let expected = "\
wait shop/prod/web  0/9 ready: web-0 waits
wait shop/prod/web  0/9 ready: web-20 waits
ok   shop/prod/web  9/9 ready
";
        assert_eq!(people.text(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crash_loop_is_shown_once_with_its_last_words_and_the_deadline_names_the_reason() {
        let mut broken = container("web-1", "web", "backoff");
        broken.reason = "exited with code 1".into();
        let words = LogLine {
            container: "web-1".into(),
            at: WallTime::parse(SINCE).unwrap(),
            stderr: true,
            partial: false,
            text: "no such table: users".into(),
        };
        let why = WhyView {
            at: SINCE.into(),
            decision: "wait".into(),
            object: "shop/prod/web".into(),
            because: "next start in 4s".into(),
            considered: Vec::new(),
        };
        let manager = FakeManager {
            units: vec![unit("web", 1, 0), unit("db", 1, 1)],
            containers: vec![broken],
            logs: vec![words],
            why: vec![why],
            ..FakeManager::default()
        };
        let (mut ui, _, people) = ui(Format::Table);
        let wanted = [unit_id("web"), unit_id("db")];
        let failure = until(&manager, &wanted, READY, Duration::from_secs(3), &mut ui).await.unwrap_err();
        assert_eq!(failure.code(), 5);
        assert_eq!(failure.to_string(), "1 of 2 Units not ready after 3s\n  shop/prod/web: next start in 4s");
        let expected = "\
wait shop/prod/web  0/1 ready
ok   shop/prod/db  1/1 ready
web-1 is in backoff: exited with code 1
  | no such table: users
  more: cocktail logs web-1; cocktail why web-1
";
        assert_eq!(people.text(), expected);
    }
}
