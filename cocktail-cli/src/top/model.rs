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
mod tests;
