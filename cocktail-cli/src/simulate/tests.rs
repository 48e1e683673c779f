//! The example, complaints about files, and what has to follow from what.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cocktail_core::manifest;

use super::*;
use crate::failure::Failure;

const MANIFEST: &str = include_str!("../../../examples/simulate/cocktail.toml");
const LOAD: &str = include_str!("../../../examples/simulate/load.csv");
const PRICES: &str = include_str!("../../../examples/simulate/prices.csv");

fn source(file: &str, text: &str) -> Source {
    Source { file: PathBuf::from(file), text: text.into() }
}

fn input(manifest: &str, load: &str, prices: Option<&str>) -> Input {
    let parsed = manifest::parse(manifest, Path::new("cocktail.toml"), Path::new("/")).expect("it is a manifest");
    Input {
        services: parsed.service.into_iter().collect(),
        settings: Settings::default(),
        load: source("load.csv", load),
        prices: prices.map(|text| source("prices.csv", text)),
        limits: FleetLimits::default(),
        seed: 1,
        start: Duration::from_secs(1),
        cpu_per_request: Duration::from_millis(10),
    }
}

fn example() -> Input {
    input(MANIFEST, LOAD, Some(PRICES))
}

fn simulated(input: &Input) -> Record {
    run(input).expect("it can be simulated")
}

fn refused(input: &Input) -> String {
    let failure: Failure = run(input).expect_err("it is refused");
    assert_eq!(failure.code(), 2, "{failure}");
    failure.to_string()
}

#[test]
fn the_same_seed_gives_the_same_record_and_picture_byte_for_byte_and_another_seed_another_one() {
    let bytes = |input: &Input| {
        let record = simulated(input);
        (serde_json::to_string(&record).unwrap(), draw(&record).unwrap())
    };
    let first = bytes(&example());
    assert_eq!(first, bytes(&example()));
    assert_ne!(first, bytes(&Input { seed: 2, ..example() }));
}

#[test]
fn servers_of_the_example_are_bought_for_the_rush_and_given_back_after_it() {
    let record = simulated(&example());
    let web: Vec<_> = record.points.iter().map(|point| (point.at_ms, point.servers, &point.units[1])).collect();
    let (_, _, last) = web.last().unwrap();
    assert_eq!(last.unit, "shop/prod/web");
    let at = |minute: u64| web.iter().find(|(at, ..)| *at >= minute * 60_000).copied().unwrap();
    let ((_, few, before), (_, many, rush), (_, after, calm)) = (at(15), at(44), at(119));
    // 420 requests of 20 ms are 8.4 cores: at 0.6 of half a core each that is 28 containers, and a tenth more is near enough.
    assert!((28..=30).contains(&rush.ready), "{:#?}", record.decisions);
    assert_eq!((before.ready, rush.wanted, calm.ready), (4, rush.ready, 4), "{:#?}", record.decisions);
    assert!(few < many && after < many, "{few} {many} {after}");
    let summary = &record.summary;
    assert_eq!((summary.duration_ms, summary.most_servers >= many), (7_200_000, true));
    assert!(summary.cost > 0.0 && summary.server_hours > 2.0, "{summary:?}");
    assert!(summary.units.iter().all(|unit| unit.time_with_queue < 0.2), "{summary:?}");
    assert_eq!(summary.units[1].requests, 1_134_000.0);
    let kinds: Vec<&str> = record.decisions.iter().map(|decision| decision.kind.as_str()).collect();
    for kind in ["autoscaled", "provision-intended", "terminate-intended"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    assert_eq!(record.notes, [""; 0]);
    assert!(record.points.windows(2).all(|pair| pair[0].at_ms < pair[1].at_ms && pair[0].cost <= pair[1].cost));
}

#[test]
fn servers_that_come_up_later_make_requests_wait_longer() {
    let waits = |prices: &str| {
        let record = simulated(&input(MANIFEST, LOAD, Some(prices)));
        record.summary.units[1].time_with_queue
    };
    let slow = PRICES.replace("45s", "12m").replace("90s", "12m");
    assert!(waits(&slow) > waits(PRICES) + 0.05, "{} {}", waits(&slow), waits(PRICES));
}

#[test]
fn without_a_price_list_there_is_room_for_everything_and_nothing_to_pay() {
    let record = simulated(&input(MANIFEST, LOAD, None));
    assert_eq!((record.summary.cost, record.summary.most_servers), (0.0, 0));
    assert_eq!(record.points.last().unwrap().units[1].ready, 4);
}

#[test]
fn a_unit_at_zero_comes_back_for_the_first_request() {
    let manifest = "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"serve\"]\n\
                    ports.http = { service = 8080 }\nscale = { min = 0, max = 4, rps = 10 }\n";
    let load = "at,unit,requests_per_s\n0,web,0\n60,web,5\n180,web,5\n";
    let record = simulated(&input(manifest, load, None));
    let ready = |second: u64| record.points.iter().find(|it| it.at_ms >= second * 1000).unwrap().units[0].ready;
    assert_eq!((ready(59), ready(90)), (0, 1), "{:#?}", record.decisions);
    assert!(record.summary.units[0].longest_queue >= 5.0, "{:?}", record.summary);
}

#[test]
fn what_is_not_simulated_is_said() {
    let manifest = "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"serve\"]\n\
                    resources = { memory = \"1GiB\" }\nscale = { min = 1, max = 4, memory = 0.5 }\n";
    let record = simulated(&input(manifest, "at,unit,load\n0,web,1\n60,web,1\n", None));
    assert!(record.notes[0].contains("scales by memory"), "{:?}", record.notes);
}

#[test]
fn complaints_name_file_line_and_what_to_write_instead() {
    for (load, expected) in [
        ("", "load.csv:1: the column \"at\" is missing: the first line has to name at,unit"),
        ("at,unit\n0,web\n", "load.csv:1: the load is in one column: requests_per_s, or load in cores"),
        ("at,unit,rps\n", "load.csv:1: there is no column \"rps\": the first line names some of at,unit,"),
        ("at,at,unit,load\n", "load.csv:1: the column \"at\" is there twice"),
        ("at,unit,load\n", "load.csv:1: there is no row under the first line"),
        ("at,unit,load\n0,web\n", "load.csv:2: 2 values under 3 columns"),
        ("at,unit,load\nsoon,web,1\n", "load.csv:2: at: \"soon\" is no time: write seconds, as in 90"),
        ("# a\nat,unit,load\n\n0,web,much\n", "load.csv:4: load: \"much\" is no such number: write cores, as in 2.5"),
        ("at,unit,load\n0,web,-1\n", "load.csv:2: load: \"-1\" is no such number"),
        ("at,unit,load\n0,web,\n", "load.csv:2: load: is empty: write cores, as in 2.5"),
        ("at,unit,load\n0,wep,1\n", "load.csv:2: unit: no unit \"wep\": there are the units shop/prod/search"),
        ("at,unit,load\n5,web,1\n5s,web,2\n", "load.csv:3: at: 5s is not after the row of web before: sort"),
        ("at,unit,requests_per_s,cpu_per_request\n0,web,1,0\n", "load.csv:2: cpu_per_request: \"0\" is no time"),
        ("at,unit,load\n0,web,1\n", "the load ends where it begins: its last row says when the simulation ends"),
    ] {
        let told = refused(&input(MANIFEST, load, None));
        assert!(told.starts_with(expected), "{load:?}: {told}");
    }
    let list = "offering,cpu,memory,price_per_hour,boot\n";
    for (row, expected) in [
        ("a,two,1GiB,1,1s", "prices.csv:2: cpu: \"two\": "),
        ("a,2,1,1,1s", "prices.csv:2: memory: \"1\": "),
        ("a,2,1GiB,cheap,1s", "prices.csv:2: price_per_hour: \"cheap\" is no such number"),
        ("a,2,1GiB,1,later", "prices.csv:2: boot: \"later\" is no time"),
        (",2,1GiB,1,1s", "prices.csv:2: offering: is empty: write a name, as in large"),
        ("a,2,1GiB,1,1s\na,4,1GiB,1,1s", "prices.csv:3: offering: \"a\" is there twice"),
    ] {
        let told = refused(&input(MANIFEST, LOAD, Some(&format!("{list}{row}\n"))));
        assert!(told.starts_with(expected), "{row:?}: {told}");
    }
}

#[test]
fn the_picture_shows_every_part() {
    let picture = draw(&simulated(&example())).unwrap();
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"), "{}", &picture[..80]);
    for text in [
        "containers: ready",
        "requests that wait",
        "servers",
        "cost so far",
        "decisions",
        "shop/prod/web",
        "autoscaled",
    ] {
        assert!(picture.contains(text), "{text}");
    }
}
