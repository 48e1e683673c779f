//! Random histories of a small cluster. What must hold after every event is in [`super::world`]; here is what must hold
//! once nothing fails any more.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::world::{SECOND, World};

const FAULTY: u64 = 90 * SECOND;
/// From the last fault until both ends agree: a lost server's lease, a refused hello's pause, and a few starts.
const HEALED: u64 = 25 * SECOND;

fn cases() -> ProptestConfig {
    let config = ProptestConfig::default();
    let cases = if config.cases == 256 { 40 } else { config.cases };
    // A seed shrinks to another history, not to a shorter one.
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 0, ..config }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn whatever_fails_nothing_serves_twice_and_both_ends_agree_in_the_end(seed in any::<u64>()) {
        World::run(seed, FAULTY, HEALED).assert_settled();
    }
}

/// Seeds that have found something.
const FOUND: [u64; 4] =
    [10_671_766_305_850_477_800, 13_749_614_047_031_846_473, 15_736_066_545_756_468_701, 15_791_332_672_115_330_263];

#[test]
fn what_was_found_once_stays_found() {
    for seed in FOUND {
        World::run(seed, FAULTY, HEALED).assert_settled();
    }
}

#[test]
fn the_histories_are_rich() {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in 0..12 {
        let world = World::run(seed, FAULTY, HEALED);
        world.assert_settled();
        for (what, count) in world.counts {
            *counts.entry(what).or_default() += count;
        }
    }
    let expected = [
        "cut",
        "broken",
        "paused",
        "agent killed",
        "rebooted",
        "rebooted without state",
        "cloned",
        "process crashed",
        "manager crashed",
        "manager paused",
        "manager stranded",
        "store copied",
        "joined",
        "lost",
        "released",
        "outcome",
        "undecided",
        "twin",
        "contested",
        "declined",
    ];
    let missing: Vec<_> = expected.iter().filter(|what| !counts.contains_key(*what)).collect();
    assert!(missing.is_empty(), "never happened: {missing:?} in {counts:?}");
}

#[test]
fn the_same_seed_lives_the_same_history() {
    let history = |seed| format!("{:?}", World::run(seed, FAULTY / 3, HEALED / 5));
    assert_eq!(history(7), history(7));
    assert_ne!(history(7), history(8));
}
