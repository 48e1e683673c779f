//! A past moment for people: what was known, then why, then what happened.

use cocktail_core::time::WallTime;

use super::{Known, Replay};
use crate::commands::list::{container_table, operation_table, server_table, unit_table};
use crate::commands::{events, inspect};
use crate::output::{Table, plain};

/// The page of a replay. Ages count from its moment.
pub(super) fn page(replay: &Replay, colour: bool) -> String {
    let mut text = format!("turn {} of {}, at {}\n", replay.seq, replay.newest.seq, replay.at);
    if let Some(oldest) = &replay.oldest {
        text.push_str(&format!("kept from turn {} on, at {}\n", oldest.seq, oldest.at));
    }
    let now = WallTime::parse(&replay.at).unwrap_or_default();
    match &replay.state {
        Some(known) => text.push_str(&tables(known, now, colour)),
        None => text.push_str("\nState\nnot known\n"),
    }
    if !replay.why.is_empty() {
        text.push_str("\nWhy\n");
        text.extend(replay.why.iter().map(inspect::paragraph));
    }
    if !replay.events.is_empty() {
        text.push_str("\nEvents\n");
        for event in &replay.events {
            text.push_str(&format!("{:>6}  {}\n", event.seq, events::line(event)));
        }
    }
    text
}

fn tables(known: &Known, now: WallTime, colour: bool) -> String {
    let mut text = format!("epoch {}\n", known.epoch);
    if let Some(because) = &known.frozen {
        text.push_str(&format!("frozen: {}\n", plain(because)));
    }
    let mut section = |title: &str, table: &Table| {
        if table.is_empty() {
            text.push_str(&format!("\n{title}\nnone\n"));
        } else {
            text.push_str(&format!("\n{title}\n{}", table.render(colour)));
        }
    };
    section("Units", &unit_table(&known.units));
    section("Containers", &container_table(&known.containers, now));
    section("Servers", &server_table(&known.servers, now));
    section("Open operations", &operation_table(&known.operations, now));
    text
}
