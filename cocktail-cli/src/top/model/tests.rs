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
    assert_eq!((model.place(), model.press(Key::Down), model.press(Key::Why)), (None, Wish::Nothing, Wish::Nothing));
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
