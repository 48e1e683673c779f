//! Short runs of the simulated world. `cargo xtask sim` runs the long ones.

use std::time::Duration;

use cocktail_testkit::sim::{Options, Planted, REGRESSIONS, catch, run, run_many};

fn short() -> Options {
    Options { faulty: Duration::from_secs(10 * 60), ..Options::default() }
}

#[test]
fn short_seeds_come_to_rest_without_a_breach() {
    // What longer and other runs find is listed in docs/testing.md.
    let outcomes = run_many(1, 8, 2, &short(), &|_| {});
    let breaches: Vec<String> = outcomes
        .iter()
        .filter_map(|outcome| Some(format!("seed {}: {}", outcome.seed, outcome.breach.as_ref()?)))
        .collect();
    assert_eq!(breaches, Vec::<String>::new());
    assert!(outcomes.iter().all(|outcome| outcome.events > 100), "nothing happened");
}

#[test]
fn runs_that_once_failed_come_to_rest() {
    for regression in REGRESSIONS.iter().filter(|it| it.faulty <= 600) {
        let breach = run(regression.seed, &regression.options()).breach.map(|breach| breach.to_string());
        assert_eq!(breach, None, "seed {}, which showed {}", regression.seed, regression.showed);
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let (one, other) = (run(7, &short()), run(7, &short()));
    assert_eq!((one.hash, one.events, one.peak), (other.hash, other.events, other.peak));
    assert_ne!(one.hash, run(8, &short()).hash);
}

#[test]
fn a_planted_bug_ends_a_run() {
    let caught = catch(Planted::VolumeDeleted, 20, &short());
    let breach = caught.and_then(|outcome| outcome.breach).expect("a volume that goes is seen");
    assert_eq!(breach.invariant, "I10 volumes");
}
