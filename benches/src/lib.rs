//! Workers, loads and baselines that the benchmarks run.
//!
//! `cargo xtask bench` builds the programs of this package and runs `cocktail-bench` (`src/bench/`), which starts the
//! others: `bench-spawn`, a bare loop of `posix_spawn`; `bench-replace`, which replaces workers by hand; `bench-beacon`, a
//! worker that says when it runs; `bench-worker`, an HTTP worker that costs next to nothing; `bench-load`, which asks it.
//! Each is a process of its own, so that what is measured never shares a process with what measures. This library holds
//! what two of them share.

pub mod load;
pub mod poll;
pub mod wave;

use std::time::Duration;

/// First pause between two looks at a worker that is coming up.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// Pauses between looks at a worker that is coming up, as ours makes them: each twice as long as the one before, up to
/// what the probe asks for.
pub fn pauses(every: Duration) -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(FIRST_PAUSE), |pause| Some(pause.saturating_mul(2))).map(move |pause| pause.min(every))
}
