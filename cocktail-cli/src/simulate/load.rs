//! The load: what each Unit is asked for, from one row to the next.
//!
//! A row holds until the next one of its Unit; the last row of all ends the simulation.

use std::collections::BTreeMap;
use std::time::Duration;

use cocktail_core::id::UnitId;
use cocktail_core::state::State;

use super::Source;
use super::sheet::{Sheet, span};
use crate::failure::Outcome;

/// What a Unit is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Demand {
    /// Requests a second.
    pub(super) rps: f64,
    /// Seconds of a whole core that one takes.
    pub(super) cpu: f64,
}

/// What all Units are asked for over time.
#[derive(Debug, Clone, Default)]
pub(super) struct Load {
    units: BTreeMap<UnitId, Vec<(u64, Demand)>>,
    end: u64,
}

/// Reads a load: `at,unit` and either `requests_per_s` (with `cpu_per_request`, if it differs) or `load` in cores.
///
/// # Errors
/// With file, line and column: a time or number that is none, a Unit that the manifests do not have, rows of a Unit that
/// go back in time.
pub(super) fn read(source: &Source, state: &State, cpu_per_request: Duration) -> Outcome<Load> {
    let sheet = Sheet::read(source, &["at", "unit"], &["requests_per_s", "cpu_per_request", "load"])?;
    if sheet.has("requests_per_s") == sheet.has("load") {
        return Err(sheet.wrong("the load is in one column: requests_per_s, or load in cores"));
    }
    let mut load = Load::default();
    for row in sheet.rows() {
        let time = "seconds, as in 90, or a duration, as in 1m30s";
        let text = row.needed("at", time)?;
        let at = span(text).ok_or_else(|| row.wrong("at", &format!("{text:?} is no time: write {time}")))?;
        let name = row.needed("unit", "the name of a unit of the manifest")?;
        let unit = state.unit_named(name).map_err(|error| row.wrong("unit", error.message()))?;
        let cpu = match row.text("cpu_per_request") {
            None => cpu_per_request.as_secs_f64(),
            Some(_) if !sheet.has("requests_per_s") => {
                return Err(row.wrong("cpu_per_request", "goes with requests_per_s, not with load"));
            }
            Some(text) => {
                let instead = "seconds of a core, as in 0.02, or a duration, as in 20ms";
                let number = text.parse::<f64>().ok().filter(|it| it.is_finite() && *it > 0.0 && *it <= 86_400.0);
                let cpu = number.or_else(|| span(text).filter(|it| *it > 0).map(|it| it as f64 / 1000.0));
                cpu.ok_or_else(|| row.wrong("cpu_per_request", &format!("{text:?} is no time: write {instead}")))?
            }
        };
        let rps = if sheet.has("load") {
            row.number("load", "cores, as in 2.5")? / cpu
        } else {
            row.number("requests_per_s", "requests a second, as in 120")?
        };
        let rows = load.units.entry(unit).or_default();
        if rows.last().is_some_and(|(before, _)| *before >= at) {
            return Err(
                row.wrong("at", &format!("{text} is not after the row of {name} before: sort the rows by time"))
            );
        }
        rows.push((at, Demand { rps, cpu }));
        load.end = load.end.max(at);
    }
    Ok(load)
}

impl Load {
    /// When it ends, in milliseconds.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// What a Unit is asked for at a time.
    pub(super) fn demand(&self, unit: &UnitId, now: u64) -> Demand {
        let Some(rows) = self.units.get(unit) else { return Demand::default() };
        let begun = rows.partition_point(|(at, _)| *at <= now);
        begun.checked_sub(1).and_then(|last| rows.get(last)).map(|(_, demand)| *demand).unwrap_or_default()
    }

    /// When any of it changes next.
    pub(super) fn next(&self, now: u64) -> Option<u64> {
        let next = |rows: &Vec<(u64, Demand)>| rows.get(rows.partition_point(|(at, _)| *at <= now)).map(|(at, _)| *at);
        self.units.values().filter_map(next).min()
    }
}
