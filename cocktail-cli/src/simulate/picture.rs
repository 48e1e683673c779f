//! A record as a picture: counts, queues, servers, cost and decisions below each other, over the same time.

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::record::{Point, Record, UnitPoint};
use crate::failure::{Failure, Outcome};

/// Size of the picture, and of one of its parts, in pixels.
const WIDTH: u32 = 1000;
const PART: u32 = 190;
/// Colours of Units, one after the other, that are told apart also by those who see fewer colours.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
const FONT: (&str, u32) = ("sans-serif", 14);

type Part<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn<'a> = Result<(), Box<dyn std::error::Error + 'a>>;

/// What is shown of a Unit.
type OfUnit = fn(&UnitPoint) -> f64;

/// One line of a chart.
struct Line {
    /// What the legend calls it, where it is to be in one.
    name: Option<String>,
    colour: RGBColor,
    width: u32,
    points: Vec<(f64, f64)>,
}

/// Draws a record as SVG.
///
/// # Errors
/// Something cannot be drawn, which says that a number is none.
pub(crate) fn draw(record: &Record) -> Outcome<String> {
    let mut text = String::new();
    parts(record, &mut text).map_err(|error| Failure::Failed(format!("cannot draw the picture: {error}")))?;
    Ok(text)
}

fn parts<'a>(record: &Record, text: &'a mut String) -> Drawn<'a> {
    let area = SVGBackend::with_string(text, (WIDTH, PART * 5)).into_drawing_area();
    area.fill(&WHITE)?;
    let parts = area.split_evenly((5, 1));
    let [counts, queues, servers, cost, decisions] = &parts[..] else { return Ok(()) };
    let end = seconds(record.summary.duration_ms);
    let of_units = |values: &[(u32, OfUnit)]| {
        let units = record.summary.units.iter().enumerate();
        let lines = units.flat_map(|(index, unit)| {
            let colour = COLOURS[index % COLOURS.len()];
            values.iter().enumerate().map(move |(order, (width, value))| {
                let value = |point: &Point| point.units.get(index).map_or(0.0, value);
                let name = (order == 0).then(|| unit.unit.clone());
                Line { name, colour, width: *width, points: over_time(record, value) }
            })
        });
        lines.collect::<Vec<_>>()
    };
    let ready: OfUnit = |unit| f64::from(unit.ready);
    let wanted: OfUnit = |unit| f64::from(unit.wanted);
    chart(counts, "containers: ready, and wanted as a thin line", end, &of_units(&[(3, ready), (1, wanted)]))?;
    chart(queues, "requests that wait", end, &of_units(&[(2, |unit| unit.queue)]))?;
    let line = |value: fn(&Point) -> f64| {
        vec![Line { name: None, colour: COLOURS[0], width: 2, points: over_time(record, value) }]
    };
    chart(servers, "servers", end, &line(|point| f64::from(point.servers)))?;
    chart(cost, "cost so far", end, &line(|point| point.cost))?;
    marks(decisions, record, end)?;
    area.present()?;
    Ok(())
}

/// A value as steps: it holds until the next point.
fn over_time(record: &Record, value: impl Fn(&Point) -> f64) -> Vec<(f64, f64)> {
    let mut steps: Vec<(f64, f64)> = Vec::new();
    for point in &record.points {
        let (at, now) = (seconds(point.at_ms), value(point));
        match steps.last() {
            // A long time without a change is one line.
            Some((_, before)) if *before == now && point.at_ms != record.summary.duration_ms => continue,
            Some((_, before)) => steps.push((at, *before)),
            None => {}
        }
        steps.push((at, now));
    }
    steps
}

fn chart<'a>(area: &Part<'a>, title: &str, end: f64, lines: &[Line]) -> Drawn<'a> {
    let top = lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value).fold(0.0, f64::max);
    let top = if top > 0.0 { top * 1.1 } else { 1.0 };
    let mut builder = ChartBuilder::on(area);
    let builder = builder.caption(title, FONT).margin(8).x_label_area_size(22).y_label_area_size(60);
    let mut chart = builder.build_cartesian_2d(0.0..end, 0.0..top)?;
    mesh(&mut chart, 4)?;
    for line in lines {
        let style = line.colour.stroke_width(line.width);
        let drawn = chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
        if let Some(name) = &line.name {
            drawn.label(name.as_str()).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        }
    }
    if lines.iter().any(|line| line.name.is_some()) {
        let mut legend = chart.configure_series_labels();
        legend.position(SeriesLabelPosition::UpperRight).background_style(WHITE.mix(0.7)).label_font(FONT).draw()?;
    }
    Ok(())
}

/// What was decided when: a row for each kind.
fn marks<'a>(area: &Part<'a>, record: &Record, end: f64) -> Drawn<'a> {
    let mut kinds: Vec<&str> = record.decisions.iter().map(|decision| decision.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut builder = ChartBuilder::on(area);
    let builder = builder.caption("decisions", FONT).margin(8).x_label_area_size(22).y_label_area_size(60);
    let mut chart = builder.build_cartesian_2d(0.0..end, -0.5..kinds.len() as f64)?;
    mesh(&mut chart, 0)?;
    for (row, kind) in kinds.iter().enumerate() {
        let (height, colour) = (row as f64, COLOURS[row % COLOURS.len()]);
        let of_kind = record.decisions.iter().filter(|decision| decision.kind == *kind);
        chart.draw_series(of_kind.map(|it| Circle::new((seconds(it.at_ms), height), 3, colour.filled())))?;
        chart.draw_series([Text::new((*kind).to_owned(), (end * 0.005, height + 0.45), FONT)])?;
    }
    Ok(())
}

fn mesh<'a>(
    chart: &mut ChartContext<'_, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>,
    rows: usize,
) -> Drawn<'a> {
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(10)
        .y_labels(rows)
        .x_label_formatter(&|seconds| clock((*seconds * 1000.0).round() as u64))
        .y_label_formatter(&|value| ((*value * 1000.0).round() / 1000.0).to_string())
        .label_style(FONT)
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .draw()?;
    Ok(())
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

/// Time since the beginning: `1:05:30`.
pub(crate) fn clock(millis: u64) -> String {
    let seconds = millis / 1000;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
