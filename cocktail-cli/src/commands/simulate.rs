//! `simulate`: what the planner would do with a load and a price list, as a table, as JSON and as a picture.
//!
//! No Manager is asked, and nothing runs. What is decided comes from [`crate::simulate`]; here files are read and written.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use cocktail_core::contract::ManifestSource;
use cocktail_core::fleet::FleetLimits;
use cocktail_core::time::human;

use crate::args::{Format, SimulateArgs};
use crate::failure::{Failure, Outcome};
use crate::manifests;
use crate::output::{Cell, Table, Ui};
use crate::simulate::{Input, Record, Source, clock, draw, run, step};

/// Longest CSV file that is read.
const LONGEST: u64 = 64 << 20;
/// Rows of the table over time, unless told otherwise, and decisions that people are shown.
const ROWS: u64 = 24;
const DECISIONS: usize = 100;

/// `simulate`.
pub(crate) fn simulate(
    args: &SimulateArgs,
    sources: &[ManifestSource],
    config: Option<&Path>,
    working_dir: &Path,
    ui: &mut Ui,
) -> Outcome {
    if args.cpu_per_request.is_zero() {
        return Err(Failure::Usage("--cpu-per-request: a request that takes nothing needs no container".into()));
    }
    let parsed = manifests::check(sources).map_err(|problems| manifests::failure(&problems, sources, ui))?;
    let pairs: Vec<_> = sources.iter().zip(&parsed).collect();
    let settings = manifests::settings(config, &pairs, working_dir, ui)?.settings;
    for file in &parsed {
        manifests::warn(&file.warnings, sources, ui);
    }
    let defaults = FleetLimits::default();
    let input = Input {
        services: parsed.into_iter().filter_map(|file| file.service).collect(),
        settings,
        load: text_of(&args.load, working_dir)?,
        prices: args.prices.as_deref().map(|file| text_of(file, working_dir)).transpose()?,
        limits: FleetLimits {
            max_servers: args.max_servers.unwrap_or(defaults.max_servers),
            min_servers: args.min_servers.unwrap_or(defaults.min_servers),
            idle: args.idle.unwrap_or(defaults.idle),
            ..defaults
        },
        seed: args.seed,
        start: args.start_time,
        cpu_per_request: args.cpu_per_request,
    };
    let record = run(&input)?;
    if let Some(file) = &args.svg {
        let written = fs::write(working_dir.join(file), draw(&record)?);
        written.map_err(|error| Failure::Failed(format!("cannot write {}: {error}", file.display())))?;
    }
    for note in &record.notes {
        ui.note(&format!("note: {note}"));
    }
    match ui.format {
        Format::Json => ui.json(&record),
        Format::Table => {
            let span = args.every.map_or(0, |every| u64::try_from(every.as_millis()).unwrap_or(u64::MAX));
            let every = if span > 0 { span } else { step(record.summary.duration_ms, ROWS) };
            let text = page(&record, every, ui.colour_for_data());
            ui.data(&text)
        }
    }
}

/// A CSV file as text.
fn text_of(file: &Path, working_dir: &Path) -> Outcome<Source> {
    let failed = |error: std::io::Error| Failure::Usage(format!("cannot read {}: {error}", file.display()));
    let mut text = String::new();
    let read = File::open(working_dir.join(file)).and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text));
    if read.map_err(failed)? as u64 > LONGEST {
        return Err(Failure::Usage(format!("{} is longer than 64MiB: take longer steps", file.display())));
    }
    Ok(Source { file: file.to_owned(), text })
}

/// What people see: where everything stood, what was decided, and the sum of it.
fn page(record: &Record, every: u64, colour: bool) -> String {
    let mut over_time = Table::new(&["TIME", "UNIT", "REQUESTS/S", "WANTED", "READY", "QUEUE", "SERVERS", "COST"]);
    let mut next = 0;
    for point in &record.points {
        if point.at_ms < next && point.at_ms != record.summary.duration_ms {
            continue;
        }
        next = (point.at_ms / every + 1).saturating_mul(every);
        for unit in &point.units {
            over_time.row(vec![
                Cell::text(clock(point.at_ms)),
                Cell::text(&unit.unit),
                Cell::number(format!("{:.1}", unit.requests_per_s)),
                Cell::number(unit.wanted),
                Cell::number(unit.ready),
                Cell::number(format!("{:.0}", unit.queue)),
                Cell::number(point.servers),
                Cell::number(format!("{:.2}", point.cost)),
            ]);
        }
    }
    let mut decisions = Table::new(&["TIME", "DECISION", "OBJECT", "BECAUSE"]);
    for decision in record.decisions.iter().take(DECISIONS) {
        decisions.row(vec![
            Cell::text(clock(decision.at_ms)),
            Cell::text(&decision.kind),
            Cell::text(&decision.object),
            Cell::tail(&decision.because),
        ]);
    }
    let head = &["UNIT", "REQUESTS", "LONGEST QUEUE", "TIME WITH QUEUE", "MOST READY", "CONTAINER HOURS"];
    let mut units = Table::new(head);
    for unit in &record.summary.units {
        units.row(vec![
            Cell::text(&unit.unit),
            Cell::number(unit.requests),
            Cell::number(format!("{:.0}", unit.longest_queue)),
            Cell::number(format!("{:.1}%", unit.time_with_queue * 100.0)),
            Cell::number(unit.most_ready),
            Cell::number(format!("{:.2}", unit.container_hours)),
        ]);
    }
    let mut text = over_time.render(colour);
    if !record.decisions.is_empty() {
        text.push('\n');
        text.push_str(&decisions.render(colour));
        if let Some(more) = record.decisions.len().checked_sub(DECISIONS).filter(|more| *more > 0) {
            text.push_str(&format!("and {more} more: -o json has them all\n"));
        }
    }
    let summary = &record.summary;
    text.push('\n');
    text.push_str(&units.render(colour));
    text.push_str(&format!(
        "\n{}: cost {:.2}, {:.2} server hours, at most {} servers, {} decisions\n",
        human(std::time::Duration::from_millis(summary.duration_ms)),
        summary.cost,
        summary.server_hours,
        summary.most_servers,
        summary.decisions
    ));
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::args::FilesArgs;
    use crate::output::testing::ui;

    const MANIFEST: &str = "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"serve\"]\n\
                            resources = { cpu = 1, memory = \"64MiB\" }\nscale = { min = 1, max = 4, cpu = 0.5 }\n";
    const LOAD: &str = "at,unit,load\n0,web,0.4\n600,web,1.4\n1200,web,1.4\n";
    const PRICES: &str = "offering,cpu,memory,price_per_hour,boot\nbig,4,8GiB,0.60,30s\n";

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("a.toml", MANIFEST), ("load.csv", LOAD), ("prices.csv", PRICES)] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn args() -> SimulateArgs {
        SimulateArgs {
            files: FilesArgs { files: vec!["a.toml".into()] },
            load: "load.csv".into(),
            prices: Some("prices.csv".into()),
            max_servers: None,
            min_servers: None,
            idle: None,
            start_time: Duration::from_secs(1),
            cpu_per_request: Duration::from_millis(10),
            seed: 0,
            every: Some(Duration::from_secs(300)),
            svg: Some("a.svg".into()),
        }
    }

    fn told(args: &SimulateArgs, folder: &Path, format: Format) -> Outcome<String> {
        let (mut ui, data, _) = ui(format);
        let sources = manifests::read(&args.files.files, folder, &mut std::io::empty())?;
        simulate(args, &sources, None, folder, &mut ui)?;
        Ok(data.text())
    }

    #[test]
    fn people_get_a_table_over_time_the_decisions_and_the_sum_and_a_picture_in_a_file() {
        let folder = folder();
        let text = told(&args(), folder.path(), Format::Table).unwrap();
        let squeezed: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let expected = [
            "TIME UNIT REQUESTS/S WANTED READY QUEUE SERVERS COST",
            "0:00:00 shop/prod/web 40.0 1 0 0 0 0.00",
            "0:05:00 shop/prod/web 40.0 1 1 0 1 0.05",
            "0:10:00 shop/prod/web 140.0 1 1 0 1 0.10",
            "0:15:00 shop/prod/web 140.0 3 3 0 1 0.15",
            "0:20:00 shop/prod/web 140.0 3 3 0 1 0.20",
        ];
        assert_eq!(squeezed[..6], expected, "{text}");
        assert!(squeezed.iter().any(|line| line.contains("provision-intended")), "{text}");
        assert!(squeezed.iter().any(|line| line.contains("autoscaled shop/prod/web set to")), "{text}");
        assert!(text.contains("20m: cost 0.20, 0.33 server hours, at most 1 servers, "), "{text}");
        assert!(fs::read_to_string(folder.path().join("a.svg")).unwrap().starts_with("<svg"));
    }

    #[test]
    fn programs_get_the_whole_record() {
        let folder = folder();
        let text = told(&args(), folder.path(), Format::Json).unwrap();
        assert_eq!(text, told(&args(), folder.path(), Format::Json).unwrap());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["decisions", "notes", "points", "summary"]);
        assert_eq!(value["summary"]["units"][0]["unit"], "shop/prod/web");
        assert_eq!(value["points"][0]["at_ms"], 0);
    }

    #[test]
    fn limits_of_servers_and_files_that_are_not_there_are_told() {
        let folder = folder();
        let limited = SimulateArgs { max_servers: Some(0), ..args() };
        let text = told(&limited, folder.path(), Format::Table).unwrap();
        assert!(text.contains("at most 0 servers"), "{text}");
        let missing = SimulateArgs { load: "no.csv".into(), ..args() };
        let failure = told(&missing, folder.path(), Format::Table).unwrap_err();
        assert_eq!(failure.code(), 2);
        assert!(failure.to_string().starts_with("cannot read no.csv: "), "{failure}");
        let free = SimulateArgs { cpu_per_request: Duration::ZERO, ..args() };
        assert_eq!(told(&free, folder.path(), Format::Table).unwrap_err().code(), 2);
    }
}
