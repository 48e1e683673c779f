//! Many seeds, on several threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use super::{Options, Outcome, Planted, run};

/// Runs `count` seeds from `first` on, on `threads` threads; `each` sees every outcome as it comes. Returns all, by seed.
pub fn run_many(
    first: u64,
    count: u64,
    threads: usize,
    options: &Options,
    each: &(dyn Fn(&Outcome) + Sync),
) -> Vec<Outcome> {
    let next = AtomicU64::new(first);
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(count) {
                        break;
                    }
                    let outcome = run(seed, options);
                    each(&outcome);
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.push(outcome);
                    }
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_default();
    outcomes.sort_by_key(|outcome| outcome.seed);
    outcomes
}

/// Runs seeds with a planted bug until the first breach; `None` if none of `seeds` has one.
pub fn catch(bug: Planted, seeds: u64, options: &Options) -> Option<Outcome> {
    let options = Options { planted: Some(bug), ..options.clone() };
    (1..=seeds).map(|seed| run(seed, &options)).find(|outcome| outcome.breach.is_some())
}

/// [`catch`] for every planted bug, on `threads` threads; in the order of their numbers.
pub fn catch_all(seeds: u64, threads: usize, options: &Options) -> Vec<(Planted, Option<Outcome>)> {
    let next = AtomicUsize::new(0);
    let caught = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some(bug) = Planted::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = catch(*bug, seeds, options);
                    if let Ok(mut caught) = caught.lock() {
                        caught.push((*bug, outcome));
                    }
                }
            });
        }
    });
    let mut caught = caught.into_inner().unwrap_or_default();
    caught.sort_by_key(|(bug, _)| *bug);
    caught
}
