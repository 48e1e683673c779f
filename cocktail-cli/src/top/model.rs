//! What `top` shows and what a key does: a value, without a terminal and without a Manager.
//!
//! Start at [`Model::update`], which takes what the Manager said, and [`Model::press`], which takes a key and says what
//! is to be done. The selection is a name and no place in a list, so that it stays where it is when the order changes.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use cocktail_core::scaling::Sample;
use cocktail_core::view::{ContainerView, HistoryView, ManagerView, UnitView, UsageReport};

use crate::commands::list::{unit_name, unit_reason};
use crate::output::{cores, memory};
use crate::progress::there;

/// What the Manager said in one look.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    pub(super) about: Option<ManagerView>,
    pub(super) units: Vec<UnitView>,
    pub(super) containers: Vec<ContainerView>,
    pub(super) usage: UsageReport,
    /// By Unit.
    pub(super) histories: BTreeMap<String, HistoryView>,
}

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Back,
    Sort,
    Logs,
    Why,
    Quit,
}

/// What is to be done about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    /// Somebody must be asked for a panel.
    Look(Question),
}

/// What a panel shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    /// The last lines of an object.
    Logs(String),
    /// The decisions about an object.
    Why(String),
}

impl Question {
    /// The heading of the panel.
    pub(super) fn title(&self) -> String {
        match self {
            Self::Logs(object) => format!("last lines of {object}"),
            Self::Why(object) => format!("why {object}"),
        }
    }
}

/// Text over the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Panel {
    pub(super) question: Question,
    pub(super) lines: Vec<String>,
    /// Lines above the end that are scrolled away.
    pub(super) scrolled: usize,
}

/// What one Unit or container does.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Load {
    pub(super) cpu_millis: u64,
    pub(super) memory_bytes: u64,
    /// Requests a second, in flight, and both times in milliseconds.
    pub(super) traffic: Option<(f64, u64, f64, f64)>,
}

impl Load {
    fn of(sample: &Sample) -> Self {
        let traffic = sample.traffic.map(|traffic| (traffic.rps, traffic.in_flight, traffic.p50_ms, traffic.p99_ms));
        Self { cpu_millis: sample.cpu_millis, memory_bytes: sample.memory_bytes, traffic }
    }

    /// Cpu, memory, requests a second, in flight, median and slowest hundredth, as people read them.
    pub(super) fn texts(&self) -> [String; 6] {
        let none = || "-".to_owned();
        let (rps, in_flight, p50, p99) = match self.traffic {
            None => (none(), none(), none(), none()),
            Some((rps, in_flight, p50, p99)) => (rate(rps), in_flight.to_string(), millis(p50), millis(p99)),
        };
        [cores(self.cpu_millis), memory(self.memory_bytes), rps, in_flight, p50, p99]
    }

    /// What rows are ordered by.
    fn by(&self, column: Column) -> f64 {
        let traffic = self.traffic.unwrap_or((-1.0, 0, -1.0, -1.0));
        match column {
            Column::Name => 0.0,
            Column::Cpu => self.cpu_millis as f64,
            Column::Memory => self.memory_bytes as f64,
            Column::Requests => traffic.0,
            Column::InFlight => traffic.1 as f64,
            Column::Median => traffic.2,
            Column::Slowest => traffic.3,
        }
    }
}

/// A rate without needless digits.
fn rate(rps: f64) -> String {
    if rps >= 10.0 || rps == 0.0 { format!("{rps:.0}") } else { format!("{rps:.1}") }
}

/// A time in milliseconds, in one unit.
fn millis(ms: f64) -> String {
    if ms >= 1_000.0 { format!("{:.1}s", ms / 1_000.0) } else { format!("{ms:.1}ms") }
}

/// One Unit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct UnitRow {
    pub(super) name: String,
    pub(super) ready: String,
    pub(super) is_ready: bool,
    pub(super) load: Load,
    /// Requests a second of the last minutes, or cpu where there are no requests.
    pub(super) history: Vec<f64>,
    pub(super) rollout: String,
    pub(super) reason: String,
}

/// One container.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ContainerRow {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) state: String,
    pub(super) load: Load,
    pub(super) restarts: u64,
    pub(super) reason: String,
}

/// What rows are ordered by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Column {
    #[default]
    Name,
    Cpu,
    Memory,
    Requests,
    InFlight,
    Median,
    Slowest,
}

impl Column {
    fn next(self) -> Self {
        match self {
            Self::Name => Self::Cpu,
            Self::Cpu => Self::Memory,
            Self::Memory => Self::Requests,
            Self::Requests => Self::InFlight,
            Self::InFlight => Self::Median,
            Self::Median => Self::Slowest,
            Self::Slowest => Self::Name,
        }
    }
}

/// Everything that is shown.
#[derive(Debug, Default)]
pub(super) struct Model {
    about: Option<ManagerView>,
    units: Vec<UnitRow>,
    containers: Vec<ContainerRow>,
    /// The Unit whose containers are shown.
    inside: Option<String>,
    selected: String,
    sort: Column,
    panel: Option<Panel>,
    lost: Option<String>,
}

impl Model {
    /// Takes what the Manager said.
    pub(super) fn update(&mut self, snapshot: Snapshot) {
        self.lost = None;
        self.about = snapshot.about;
        self.units = snapshot
            .units
            .iter()
            .map(|unit| {
                let name = unit_name(unit);
                let usage = snapshot.usage.units.get(&name);
                UnitRow {
                    ready: format!("{}/{}", there(unit), unit.desired),
                    is_ready: there(unit) >= unit.desired,
                    load: usage.map(|usage| Load::of(&usage.sample)).unwrap_or(Load {
                        cpu_millis: unit.usage.cpu_millis,
                        memory_bytes: unit.usage.memory_bytes,
                        traffic: None,
                    }),
                    history: snapshot.histories.get(&name).map(line_of).unwrap_or_default(),
                    rollout: if unit.stopped { "stopped".into() } else { unit.rollout.state.clone() },
                    reason: unit_reason(unit),
                    name,
                }
            })
            .collect();
        self.containers = snapshot
            .containers
            .iter()
            .map(|container| ContainerRow {
                name: container.id.clone(),
                unit: format!("{}/{}/{}", container.service, container.map, container.unit),
                state: container.state.clone(),
                load: snapshot.usage.containers.get(&container.id).map(Load::of).unwrap_or(Load {
                    cpu_millis: container.usage.cpu_millis,
                    memory_bytes: container.usage.memory_bytes,
                    traffic: None,
                }),
                restarts: container.restarts,
                reason: if container.ready { String::new() } else { container.reason.clone() },
            })
            .collect();
        if self.inside.as_ref().is_some_and(|unit| !self.units.iter().any(|row| row.name == *unit)) {
            self.leave();
        }
        self.order();
    }

    /// The Manager does not answer; what was seen last stays.
    pub(super) fn lose(&mut self, why: String) {
        self.lost = Some(why);
    }

    /// Takes the answer for a panel, unless nobody waits for it any more.
    pub(super) fn show(&mut self, panel: Panel) {
        if self.panel.as_ref().is_some_and(|open| open.question == panel.question) {
            self.panel = Some(panel);
        }
    }

    /// Takes a key.
    pub(super) fn press(&mut self, key: Key) -> Wish {
        if key == Key::Quit {
            return Wish::Quit;
        }
        if let Some(panel) = &mut self.panel {
            let longest = panel.lines.len().saturating_sub(1);
            match key {
                Key::Up => panel.scrolled = (panel.scrolled + 1).min(longest),
                Key::PageUp => panel.scrolled = (panel.scrolled + 10).min(longest),
                Key::Home => panel.scrolled = longest,
                Key::Down => panel.scrolled = panel.scrolled.saturating_sub(1),
                Key::PageDown => panel.scrolled = panel.scrolled.saturating_sub(10),
                Key::End => panel.scrolled = 0,
                Key::Back | Key::Enter => self.panel = None,
                Key::Logs => return self.look(Question::Logs),
                Key::Why => return self.look(Question::Why),
                Key::Sort | Key::Quit => {}
            }
            return Wish::Nothing;
        }
        match key {
            Key::Up => self.step(-1),
            Key::Down => self.step(1),
            Key::PageUp => self.step(-10),
            Key::PageDown => self.step(10),
            Key::Home => self.step(isize::MIN),
            Key::End => self.step(isize::MAX),
            Key::Sort => {
                self.sort = self.sort.next();
                self.order();
            }
            Key::Enter if self.inside.is_none() && !self.selected.is_empty() => {
                self.inside = Some(std::mem::take(&mut self.selected));
                self.step(0);
            }
            Key::Back if self.inside.is_some() => self.leave(),
            Key::Back => return Wish::Quit,
            Key::Logs => return self.look(Question::Logs),
            Key::Why => return self.look(Question::Why),
            Key::Enter | Key::Quit => {}
        }
        Wish::Nothing
    }

    /// Opens a panel about what is selected.
    fn look(&mut self, question: fn(String) -> Question) -> Wish {
        let object = match (&self.inside, self.selected.as_str()) {
            (Some(unit), "") => unit.clone(),
            (None, "") => return Wish::Nothing,
            (_, selected) => selected.to_owned(),
        };
        let question = question(object);
        self.panel = Some(Panel { question: question.clone(), lines: vec!["…".into()], scrolled: 0 });
        Wish::Look(question)
    }

    /// Goes back from a Unit's containers to the Units.
    fn leave(&mut self) {
        self.selected = self.inside.take().unwrap_or_default();
        self.step(0);
    }

    fn step(&mut self, by: isize) {
        let names = self.names();
        let Some(last) = names.len().checked_sub(1) else {
            self.selected.clear();
            return;
        };
        let at = names.iter().position(|name| *name == self.selected);
        // Who was selected and has gone makes room for the first.
        let to = at.map_or(0, |at| at.saturating_add_signed(by).min(last));
        self.selected = names[to].clone();
    }

    fn names(&self) -> Vec<String> {
        match &self.inside {
            None => self.units.iter().map(|unit| unit.name.clone()).collect(),
            Some(_) => self.containers().map(|container| container.name.clone()).collect(),
        }
    }

    fn order(&mut self) {
        let sort = self.sort;
        let by = |a: &Load, b: &Load| b.by(sort).partial_cmp(&a.by(sort)).unwrap_or(Ordering::Equal);
        self.units.sort_by(|a, b| by(&a.load, &b.load).then_with(|| a.name.cmp(&b.name)));
        self.containers.sort_by(|a, b| by(&a.load, &b.load).then_with(|| a.name.cmp(&b.name)));
        self.step(0);
    }

    /// The Units in their order.
    pub(super) fn units(&self) -> &[UnitRow] {
        &self.units
    }

    /// The containers that are shown, in their order.
    pub(super) fn containers(&self) -> impl Iterator<Item = &ContainerRow> {
        self.containers.iter().filter(|container| self.inside.as_ref() == Some(&container.unit))
    }

    /// The Unit whose containers are shown; `None` while Units are.
    pub(super) fn inside(&self) -> Option<&str> {
        self.inside.as_deref()
    }

    /// The place of the selected row.
    pub(super) fn place(&self) -> Option<usize> {
        self.names().iter().position(|name| *name == self.selected)
    }

    /// What rows are ordered by.
    pub(super) fn sort(&self) -> Column {
        self.sort
    }

    /// The text over the list.
    pub(super) fn panel(&self) -> Option<&Panel> {
        self.panel.as_ref()
    }

    /// The Manager, and why it does not answer.
    pub(super) fn manager(&self) -> (Option<&ManagerView>, Option<&str>) {
        (self.about.as_ref(), self.lost.as_deref())
    }

    /// How many containers there are of all Units.
    pub(super) fn count(&self) -> usize {
        self.containers.len()
    }
}

/// The numbers of a history that say most.
fn line_of(history: &HistoryView) -> Vec<f64> {
    let requests = history.points.iter().any(|point| point.rps > 0.0);
    history.points.iter().map(|point| if requests { point.rps } else { point.cpu_millis as f64 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{container, point, unit, usage_of};

    fn snapshot() -> Snapshot {
        let mut busy = usage_of(300.0);
        busy.sample.cpu_millis = 900;
        Snapshot {
            units: vec![unit("web", 3, 3), unit("api", 2, 1), unit("worker", 1, 1)],
            containers: vec![
                container("web-1", "web", "ready"),
                container("web-2", "web", "ready"),
                container("api-1", "api", "ready"),
            ],
            usage: UsageReport {
                units: [("shop/prod/web".into(), usage_of(10.0)), ("shop/prod/api".into(), busy)].into(),
                ..UsageReport::default()
            },
            histories: [(
                "shop/prod/web".to_owned(),
                HistoryView { points: vec![point(1.0), point(2.0)], ..HistoryView::default() },
            )]
            .into(),
            about: None,
        }
    }

    fn model() -> Model {
        let mut model = Model::default();
        model.update(snapshot());
        model
    }

    fn names(model: &Model) -> Vec<&str> {
        model.units().iter().map(|unit| unit.name.rsplit('/').next().unwrap()).collect()
    }

    fn selected(model: &Model) -> &str {
        model.selected.rsplit('/').next().unwrap()
    }

    #[test]
    fn arrows_move_the_selection_and_stop_at_the_ends() {
        let mut model = model();
        assert_eq!((names(&model), selected(&model)), (vec!["api", "web", "worker"], "api"));
        for (key, expected) in [
            (Key::Up, "api"),
            (Key::Down, "web"),
            (Key::Down, "worker"),
            (Key::Down, "worker"),
            (Key::Home, "api"),
            (Key::End, "worker"),
            (Key::PageUp, "api"),
            (Key::PageDown, "worker"),
        ] {
            assert_eq!(model.press(key), Wish::Nothing);
            assert_eq!(selected(&model), expected, "{key:?}");
        }
    }

    #[test]
    fn each_sort_is_another_column_and_the_selection_stays_with_its_row() {
        let mut model = model();
        model.press(Key::End);
        let mut seen = vec![model.sort()];
        loop {
            model.press(Key::Sort);
            assert_eq!(selected(&model), "worker");
            if seen.contains(&model.sort()) {
                break;
            }
            seen.push(model.sort());
            if model.sort() == Column::Cpu {
                assert_eq!(names(&model), ["api", "web", "worker"]);
            }
            if model.sort() == Column::Memory {
                assert_eq!(names(&model), ["api", "web", "worker"]);
            }
        }
        assert_eq!(seen.len(), 7);
    }

    #[test]
    fn enter_opens_the_containers_of_a_unit_and_back_returns_to_it() {
        let mut model = model();
        model.press(Key::Down);
        model.press(Key::Enter);
        assert_eq!(model.inside(), Some("shop/prod/web"));
        let shown: Vec<_> = model.containers().map(|container| container.name.as_str()).collect();
        assert_eq!((shown, selected(&model)), (vec!["web-1", "web-2"], "web-1"));
        assert_eq!(model.press(Key::Enter), Wish::Nothing);
        assert_eq!(model.press(Key::Back), Wish::Nothing);
        assert_eq!((model.inside(), selected(&model)), (None, "web"));
        assert_eq!(model.press(Key::Back), Wish::Quit);
    }

    #[test]
    fn a_unit_that_goes_while_it_is_looked_at_leads_back_to_the_list() {
        let mut model = model();
        model.press(Key::Down);
        model.press(Key::Enter);
        let mut later = snapshot();
        later.units.remove(0);
        model.update(later);
        assert_eq!((model.inside(), selected(&model)), (None, "api"));
        model.update(Snapshot::default());
        assert_eq!(
            (model.place(), model.press(Key::Down), model.press(Key::Why)),
            (None, Wish::Nothing, Wish::Nothing)
        );
    }

    #[test]
    fn logs_and_why_are_of_what_is_selected_and_an_answer_too_late_is_not_shown() {
        let mut model = model();
        let why = Question::Why("shop/prod/api".into());
        assert_eq!(model.press(Key::Why), Wish::Look(why.clone()));
        let panel = Panel { question: why, lines: vec!["because".into(); 30], scrolled: 0 };
        model.show(panel.clone());
        assert_eq!(model.panel(), Some(&panel));
        model.press(Key::Up);
        model.press(Key::PageUp);
        assert_eq!(model.panel().unwrap().scrolled, 11);
        model.press(Key::Home);
        assert_eq!(model.panel().unwrap().scrolled, 29);
        model.press(Key::End);
        assert_eq!(model.panel().unwrap().scrolled, 0);
        assert_eq!(model.press(Key::Logs), Wish::Look(Question::Logs("shop/prod/api".into())));
        model.show(panel.clone());
        assert_ne!(model.panel(), Some(&panel), "the answer to an older question is shown");
        assert_eq!(model.press(Key::Back), Wish::Nothing);
        assert_eq!(model.panel(), None);
        model.show(panel);
        assert_eq!(model.panel(), None);
    }

    #[test]
    fn quit_quits_from_everywhere() {
        let mut model = model();
        assert_eq!(model.press(Key::Quit), Wish::Quit);
        model.press(Key::Enter);
        model.press(Key::Logs);
        assert_eq!(model.press(Key::Quit), Wish::Quit);
    }

    #[test]
    fn a_manager_that_goes_away_leaves_what_was_seen_last() {
        let mut model = model();
        model.lose("no Manager runs".into());
        assert_eq!((model.units().len(), model.manager().1), (3, Some("no Manager runs")));
        model.update(snapshot());
        assert_eq!(model.manager().1, None);
    }

    #[test]
    fn a_history_tells_requests_where_there_are_some_and_cpu_elsewhere() {
        let of = |rps: f64| line_of(&HistoryView { points: vec![point(rps), point(0.0)], ..HistoryView::default() });
        assert_eq!((of(7.0), of(0.0)), (vec![7.0, 0.0], vec![250.0, 250.0]));
    }

    #[test]
    fn numbers_have_no_needless_digits() {
        assert_eq!((rate(0.0), rate(0.25), rate(1234.5)), ("0".into(), "0.2".into(), "1234".into()));
        assert_eq!((millis(0.04), millis(12.0), millis(2_500.0)), ("0.0ms".into(), "12.0ms".into(), "2.5s".into()));
    }
}
