//! What the planner would do over time: a manifest against a load and a price list, without anything that really runs.
//!
//! Start at [`run`]. [`load`] and [`prices`] read CSV ([`sheet`]), [`world`] moves time and answers what the planner
//! intends, [`flow`] says what a load does to containers, and what came of it is a [`record::Record`], which [`picture`]
//! draws.
//!
//! What always holds: the decisions are the core's own, the ones that a Manager takes from the same state. No clock is
//! read and nothing is left to chance, so that the same input and seed give the same record.

mod flow;
mod load;
mod picture;
mod prices;
mod record;
mod sheet;
#[cfg(test)]
mod tests;
mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cocktail_core::fleet::FleetLimits;
use cocktail_core::settings::Settings;
use cocktail_core::spec::ServiceSpec;

use crate::failure::Outcome;

pub(crate) use picture::{clock, draw};
pub(crate) use record::Record;

/// What is simulated.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// What runs.
    pub(crate) services: Vec<ServiceSpec>,
    /// Times and limits of the Manager.
    pub(crate) settings: Settings,
    /// The load.
    pub(crate) load: Source,
    /// What can be bought; one server with room for everything when `None`.
    pub(crate) prices: Option<Source>,
    /// Limits of every provider of the price list.
    pub(crate) limits: FleetLimits,
    /// What looks like chance: ids, and how long a start takes beyond `start`.
    pub(crate) seed: u64,
    /// From the order to start a container until it is ready, at least.
    pub(crate) start: Duration,
    /// Time of a whole core that one request takes where the load does not say.
    pub(crate) cpu_per_request: Duration,
}

/// A CSV file as text.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Its name, for messages.
    pub(crate) file: PathBuf,
    /// What it holds.
    pub(crate) text: String,
}

impl Source {
    fn file(&self) -> &Path {
        &self.file
    }
}

/// A step that people count in, so that there are at most `most` of them in `span`; both in milliseconds.
pub(crate) fn step(span: u64, most: u64) -> u64 {
    const MINUTE: u64 = 60_000;
    const STEPS: [u64; 12] = [
        1_000,
        5_000,
        10_000,
        30_000,
        MINUTE,
        5 * MINUTE,
        10 * MINUTE,
        30 * MINUTE,
        60 * MINUTE,
        120 * MINUTE,
        360 * MINUTE,
        1_440 * MINUTE,
    ];
    STEPS.into_iter().find(|step| span / step <= most).unwrap_or((span / most.max(1)).max(1))
}

/// Simulates from the first row of the load to the last one.
///
/// # Errors
/// A load or price list that cannot be used, with file, line and column; a manifest that would be refused.
pub(crate) fn run(input: &Input) -> Outcome<Record> {
    let prices = match &input.prices {
        Some(source) => prices::read(source)?,
        None => BTreeMap::new(),
    };
    let world = world::World::new(input, prices)?;
    let load = load::read(&input.load, world.state(), input.cpu_per_request)?;
    world.run(load)
}
