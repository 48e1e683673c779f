//! A world of many servers in which a Manager lives through two hours of faults, from one seed.
//!
//! Start at [`run`]. The state and the planner are the real ones of `cocktail-core`; the provider, the servers, the
//! network, the store, the user and the thin executor between them are simulated, on virtual time. Everything that
//! chance decides comes from the seed, so a seed is a run: the same events, the same trace hash. Each seed draws its own
//! rates of faults. After the faults end, everything has to come to rest within fifteen simulated minutes.
//!
//! What must hold is in `invariants`; the first breach ends the run and is its result. [`Planted`] bugs show that
//! breaches are found.

mod chance;
mod executor;
mod faults;
mod ghost;
mod invariants;
mod load;
mod machine;
mod machines;
mod manager;
mod network;
mod planted;
mod provider;
mod rates;
mod regressions;
mod rest;
mod runner;
mod store;
mod trace;
mod turn;
mod user;
mod world;

use std::fmt;
use std::time::Duration;

use cocktail_core::time::WallTime;

pub use self::planted::Planted;
pub use self::regressions::{REGRESSIONS, Regression};
pub use self::runner::{catch, catch_all, run_many};

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long things go wrong, in simulated time.
    pub faulty: Duration,
    /// How long everything may take to come to rest after that.
    pub rest: Duration,
    /// Most servers.
    pub servers: u32,
    /// Keep a line for each thing that happens.
    pub lines: bool,
    /// A bug that is planted.
    pub planted: Option<Planted>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            faulty: Duration::from_secs(2 * 60 * 60),
            rest: Duration::from_secs(15 * 60),
            servers: 30,
            lines: false,
            planted: None,
        }
    }
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Things that happened in the world, and events of the Manager's state.
    pub events: u64,
    /// The same for the same run.
    pub hash: u64,
    /// Most servers at a time.
    pub peak: usize,
    /// What did not hold, if anything.
    pub breach: Option<Breach>,
    /// What happened, where that was asked for.
    pub lines: Vec<String>,
}

/// Something that must hold and did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Which promise.
    pub invariant: &'static str,
    /// Simulated time in milliseconds.
    pub at: u64,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}.{:03} s: {}", self.invariant, self.at / 1000, self.at % 1000, self.detail)
    }
}

/// Runs one seed to its end or to the first breach.
pub fn run(seed: u64, options: &Options) -> Outcome {
    world::World::new(seed, options.clone()).run()
}

/// The wall clock at a simulated time, without steps.
fn wall(now: u64) -> WallTime {
    const START: i64 = 1_800_000_000_000_000;
    WallTime(START + i64::try_from(now).unwrap_or(i64::MAX / 2_000) * 1_000)
}
