//! Workers, loads and baselines that the benchmarks run.
//!
//! `cargo xtask bench` builds the programs of this package and runs `cocktail-bench` (`src/bench/`), which starts the
//! others: `bench-spawn`, a bare loop of `posix_spawn`; `bench-replace`, which replaces workers by hand; `bench-beacon`, a
//! worker that says when it runs; `bench-worker`, an HTTP worker that costs next to nothing; `bench-load`, which asks it;
//! `bench-event`, state and planner with many containers; `bench-manager`, a whole Manager with many containers;
//! `bench-agents`, many agents of simulated servers.
//! Each is a process of its own, so that what is measured never shares a process with what measures. This library holds
//! what two of them share.

pub mod counting;
pub mod load;
pub mod poll;
pub mod simulated;
pub mod wave;

use std::time::Duration;

/// Shortest pause between two looks at a worker that is coming up.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// Longer pauses are this share of the time that it has taken so far.
const SHARE: u32 = 12;

/// The pause before the next look at a worker that is coming up since `elapsed`, as ours makes it: in proportion to the
/// time that it takes, up to what the probe asks for.
pub fn pause(elapsed: Duration, every: Duration) -> Duration {
    (elapsed / SHARE).max(SHORTEST_PAUSE).min(every)
}
