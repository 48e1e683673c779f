//! Workers, loads and baselines that the benchmarks run.
//!
//! `cargo xtask bench` builds the programs of this package and runs `cocktail-bench` (`src/bench/`), which starts the
//! others: `bench-spawn`, a bare loop of `posix_spawn`; `bench-beacon`, a worker that says when it runs;
//! `bench-worker`, an HTTP worker that costs next to nothing; `bench-load`, which asks it. Each is a process of its own,
//! so that what is measured never shares a process with what measures. This library holds what two of them share.

pub mod load;
pub mod poll;
