//! How `top` looks. Draws a [`Model`] and knows nothing else; text of others is stripped of control characters here.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::bar::NINE_LEVELS;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Table, TableState, Wrap};

use super::model::{Column, Load, Model, Panel};
use crate::output::{Tone, plain};

/// Points of a history that are shown.
const POINTS: usize = 24;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let [head, list, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(3), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(Paragraph::new(heading(model)), head);
    if model.inside().is_some() {
        containers(frame, list, model);
    } else {
        units(frame, list, model);
    }
    frame.render_widget(Paragraph::new(footer(model)), foot);
    if let Some(open) = model.panel() {
        panel(frame, list, open);
    }
}

/// Which Manager, and how it is.
fn heading(model: &Model) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut spans = vec![Span::styled("cocktail ", bold)];
    let (about, lost) = model.manager();
    if let Some(about) = about {
        let tone = if about.state == "running" { Tone::Good } else { Tone::Bad };
        spans.push(Span::styled(plain(&about.state).into_owned(), style(tone)));
        if !about.reason.is_empty() {
            spans.push(Span::raw(format!(": {}", plain(&about.reason))));
        }
        spans.push(Span::raw(format!("  {}", plain(&about.data_dir))));
    }
    spans.push(Span::raw(format!("  {} Units, {} containers", model.units().len(), model.count())));
    if let Some(why) = lost {
        spans.push(Span::styled(format!("  not answering: {}", plain(why)), style(Tone::Bad)));
    }
    Line::from(spans)
}

fn footer(model: &Model) -> Line<'static> {
    let keys: &[(&str, &str)] = match (model.panel().is_some(), model.inside().is_some()) {
        (true, _) => &[("↑↓", "scroll"), ("l", "logs"), ("w", "why"), ("Esc", "close"), ("q", "quit")],
        (false, true) => {
            &[("↑↓", "select"), ("s", "sort"), ("l", "logs"), ("w", "why"), ("Esc", "Units"), ("q", "quit")]
        }
        (false, false) => {
            &[("↑↓", "select"), ("Enter", "containers"), ("s", "sort"), ("l", "logs"), ("w", "why"), ("q", "quit")]
        }
    };
    let spans = keys.iter().flat_map(|(key, does)| {
        [Span::styled(*key, Style::new().add_modifier(Modifier::BOLD)), Span::raw(format!(" {does}   "))]
    });
    Line::from_iter(spans)
}

fn units(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let rows = model.units().iter().map(|unit| {
        let ready = style(if unit.is_ready { Tone::Good } else { Tone::Busy });
        let mut cells = vec![Cell::from(unit.name.clone()), Cell::from(right(&unit.ready, 7)).style(ready)];
        cells.extend(load(&unit.load));
        cells.push(Cell::from(spark(&unit.history, POINTS)));
        cells.push(Cell::from(unit.rollout.clone()).style(style(Tone::of_state(&unit.rollout))));
        cells.push(Cell::from(plain(&unit.reason).into_owned()));
        Row::new(cells)
    });
    let name = width(model.units().iter().map(|unit| unit.name.as_str()), "UNIT");
    let mut widths = vec![Constraint::Length(name), Constraint::Length(7)];
    widths.extend(LOAD.map(|(_, _, width)| Constraint::Length(width)));
    widths.extend([Constraint::Length(POINTS as u16), Constraint::Length(12), Constraint::Min(10)]);
    let head = header(model.sort(), "UNIT", &[right("READY", 7)], &["LAST MINUTES", "ROLLOUT", "REASON"]);
    list(frame, area, model, Table::new(rows, widths).header(head));
}

fn containers(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let rows = model.containers().map(|container| {
        let state = style(Tone::of_state(&container.state));
        let mut cells = vec![Cell::from(container.name.clone()), Cell::from(container.state.clone()).style(state)];
        cells.extend(load(&container.load));
        cells.push(Cell::from(right(&container.restarts.to_string(), 8)));
        cells.push(Cell::from(plain(&container.reason).into_owned()));
        Row::new(cells)
    });
    let name = width(model.containers().map(|container| container.name.as_str()), "CONTAINER");
    let mut widths = vec![Constraint::Length(name), Constraint::Length(9)];
    widths.extend(LOAD.map(|(_, _, width)| Constraint::Length(width)));
    widths.extend([Constraint::Length(8), Constraint::Min(10)]);
    let head = header(model.sort(), "CONTAINER", &["STATE".into()], &["RESTARTS", "REASON"]);
    let title = format!(" {} ", model.inside().unwrap_or_default());
    list(frame, area, model, Table::new(rows, widths).header(head).block(Block::bordered().title(title)));
}

/// Columns of a load: what they are ordered by, heading, width.
const LOAD: [(Column, &str, u16); 6] = [
    (Column::Cpu, "CPU", 6),
    (Column::Memory, "MEMORY", 9),
    (Column::Requests, "RPS", 7),
    (Column::InFlight, "IN-FL", 6),
    (Column::Median, "P50", 8),
    (Column::Slowest, "P99", 8),
];

fn load(load: &Load) -> impl Iterator<Item = Cell<'static>> {
    load.texts().into_iter().zip(LOAD).map(|(text, (_, _, width))| Cell::from(right(&text, width)))
}

/// The headings; the column that rows are ordered by is marked, and not by its colour alone.
fn header(sort: Column, first: &str, before: &[String], after: &[&str]) -> Row<'static> {
    let first = if sort == Column::Name { format!("{first}▼") } else { first.to_owned() };
    let mut cells = vec![Cell::from(first)];
    cells.extend(before.iter().cloned().map(Cell::from));
    cells.extend(LOAD.map(|(column, title, width)| {
        let title = if column == sort { format!("{title}▼") } else { title.to_owned() };
        Cell::from(right(&title, width))
    }));
    cells.extend(after.iter().map(|title| Cell::from((*title).to_owned())));
    Row::new(cells).style(Style::new().add_modifier(Modifier::BOLD))
}

fn list(frame: &mut Frame<'_>, area: Rect, model: &Model, table: Table<'_>) {
    let table = table.row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(model.place());
    frame.render_stateful_widget(table, area, &mut state);
}

/// Text over the lower part of the list, its end first.
fn panel(frame: &mut Frame<'_>, area: Rect, panel: &Panel) {
    let [_, area] = Layout::vertical([Constraint::Percentage(25), Constraint::Percentage(75)]).areas(area);
    let height = usize::from(area.height.saturating_sub(2)).max(1);
    let end = panel.lines.len().saturating_sub(panel.scrolled).max(1).min(panel.lines.len());
    let lines = &panel.lines[end.saturating_sub(height)..end];
    let text: Vec<Line<'_>> = lines.iter().map(|line| Line::from(plain(line).into_owned())).collect();
    let block = Block::bordered().title(format!(" {} ", plain(&panel.question.title())));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }).block(block), area);
}

/// The last `points` of a history as a line of bars; the highest of them is full.
fn spark(history: &[f64], points: usize) -> String {
    let shown = &history[history.len().saturating_sub(points)..];
    let most = shown.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
    let bars = [
        NINE_LEVELS.one_eighth,
        NINE_LEVELS.one_quarter,
        NINE_LEVELS.three_eighths,
        NINE_LEVELS.half,
        NINE_LEVELS.five_eighths,
        NINE_LEVELS.three_quarters,
        NINE_LEVELS.seven_eighths,
        NINE_LEVELS.full,
    ];
    let bar = |value: &f64| match (value / most * 8.0).ceil() {
        // Nothing, and what is no number, is a dot: it was looked, and there was none.
        level if level >= 1.0 && value.is_finite() => bars[(level as usize).min(8) - 1],
        _ => "·",
    };
    shown.iter().map(bar).collect()
}

fn right(text: &str, width: u16) -> String {
    format!("{text:>width$}", width = usize::from(width))
}

/// The width of a column of names.
fn width<'a>(names: impl Iterator<Item = &'a str>, title: &str) -> u16 {
    let longest = names.map(|name| name.chars().count()).max().unwrap_or(0).max(title.len() + 1);
    u16::try_from(longest).unwrap_or(u16::MAX)
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Good => Style::new().fg(Color::Green),
        Tone::Busy => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red),
        Tone::Faint => Style::new().add_modifier(Modifier::DIM),
    }
}

#[cfg(test)]
mod tests {
    use cocktail_core::view::{HistoryView, ManagerView, UsageReport};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::testing::{container, point, unit, usage_of};
    use crate::top::model::{Key, Question, Snapshot};

    fn model() -> Model {
        let mut model = Model::default();
        let about = ManagerView {
            version: "0.1.0".into(),
            pid: 1,
            store: "s".into(),
            epoch: 1,
            data_dir: "/srv/.cocktail".into(),
            seq: 1,
            state: "running".into(),
            reason: String::new(),
            anomalies: 0,
        };
        let mut stuck = unit("api", 2, 0);
        stuck.reason = "crash\u{1b}[2J loop".into();
        model.update(Snapshot {
            about: Some(about),
            units: vec![unit("web", 3, 3), stuck],
            containers: vec![container("web-k3v9qx", "web", "ready"), container("web-m2aaaa", "web", "backoff")],
            usage: UsageReport { units: [("shop/prod/web".into(), usage_of(120.0))].into(), ..UsageReport::default() },
            histories: [(
                "shop/prod/web".to_owned(),
                HistoryView { points: [0.0, 1.0, 4.0, 8.0].map(point).to_vec(), ..HistoryView::default() },
            )]
            .into(),
        });
        model
    }

    /// The screen as text, without the spaces at the ends of lines.
    fn shown(model: &Model, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| {
            let cells = (0..width).map(|x| buffer[(x, y)].symbol());
            cells.collect::<String>().trim_end().to_owned()
        };
        (0..height).map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn units_are_shown_with_their_load_and_history() {
        let expected = "\
cocktail running  /srv/.cocktail  2 Units, 2 containers
UNIT▼           READY    CPU    MEMORY     RPS  IN-FL      P50      P99 LAST MINUTES             ROLLOUT      REASON
shop/prod/api     0/2   0.00        0B       -      -        -        -                          running      crash [2J loop
shop/prod/web     3/3   0.25   25.0MiB     120      2    1.5ms   12.0ms ·▁▄█                     completed

↑↓ select   Enter containers   s sort   l logs   w why   q quit";
        assert_eq!(shown(&model(), 130, 6), expected);
    }

    #[test]
    fn the_column_that_rows_are_ordered_by_is_marked() {
        let mut model = model();
        model.press(Key::Sort);
        let text = shown(&model, 130, 6);
        assert!(text.contains("  CPU▼") && !text.contains("UNIT▼"), "{text}");
        assert!(text.lines().nth(2).unwrap().starts_with("shop/prod/web"), "{text}");
    }

    #[test]
    fn containers_of_a_unit_have_their_own_list() {
        let mut model = model();
        model.press(Key::Down);
        model.press(Key::Enter);
        let text = shown(&model, 100, 8);
        for part in ["shop/prod/web", "web-k3v9qx ready", "web-m2aaaa backoff", "the probe passed", "Esc Units"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn a_panel_shows_the_end_and_scrolls_back() {
        let mut model = model();
        model.press(Key::Down);
        model.press(Key::Logs);
        let lines: Vec<String> = (0..50).map(|n| format!("line {n}\u{1b}[31m")).collect();
        model.show(Panel { question: Question::Logs("shop/prod/web".into()), lines, scrolled: 0 });
        let text = shown(&model, 80, 14);
        assert!(text.contains("last lines of shop/prod/web") && text.contains("line 49"), "{text}");
        assert!(!text.contains("line 30") && !text.contains('\u{1b}'), "{text}");
        model.press(Key::Home);
        assert!(shown(&model, 80, 14).contains("line 0"));
    }

    #[test]
    fn a_manager_that_does_not_answer_is_said() {
        let mut model = model();
        model.lose("no Manager runs".into());
        assert!(shown(&model, 130, 6).contains("not answering: no Manager runs"));
    }

    #[test]
    fn every_size_can_be_drawn() {
        let mut model = model();
        model.press(Key::Why);
        for (width, height) in [(1, 1), (3, 2), (10, 4), (300, 100)] {
            shown(&model, width, height);
        }
    }

    #[test]
    fn a_line_of_bars_reaches_from_nothing_to_the_highest() {
        assert_eq!(spark(&[], 4), "");
        assert_eq!(spark(&[0.0, 0.0], 4), "··");
        assert_eq!(spark(&[1.0, 2.0, 4.0, 8.0, f64::NAN], 4), "▂▄█·");
        assert_eq!(spark(&[0.001, 8.0], 4), "▁█");
    }
}
