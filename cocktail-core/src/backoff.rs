//! Restart back-off: exponential from the first exit on, with jitter that a hash decides.

use std::time::Duration;

/// Exits in a row from which on it is called a crash loop.
pub const CRASH_LOOP: u32 = 5;

/// The pause before restart number `crashes` (from 1): `base` doubled at each exit, at most `max`, shortened by up to
/// a quarter so that workers that ended together do not come back together. A `base` of zero restarts at once.
///
/// ```
/// use std::time::Duration;
/// use cocktail_core::backoff::delay;
/// let first = delay(Duration::from_millis(100), Duration::from_secs(300), 1, 7);
/// assert!(first <= Duration::from_millis(100) && first >= Duration::from_millis(75));
/// ```
pub fn delay(base: Duration, max: Duration, crashes: u32, hash: u64) -> Duration {
    let doublings = crashes.saturating_sub(1).min(31);
    let full = base.saturating_mul(1 << doublings).min(max);
    let quarter = full / 4;
    let nanos = u64::try_from(quarter.as_nanos()).unwrap_or(u64::MAX);
    let cut = hash % nanos.saturating_add(1);
    full - Duration::from_nanos(cut)
}

/// A well-mixed number from a seed, a text and a count: the only source of chance in the core.
pub fn mix(seed: u64, text: &str, count: u64) -> u64 {
    let mut hash = seed ^ 0x9e37_79b9_7f4a_7c15;
    let bytes = text.bytes().chain(count.to_le_bytes());
    for byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // The finalizer of SplitMix64 spreads the low entropy of short texts over all bits.
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::{delay, mix};
    use std::time::Duration;

    const BASE: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(300);

    #[test]
    fn the_first_pause_is_jittered_already() {
        let pauses: std::collections::BTreeSet<_> =
            (0..100).map(|container| delay(BASE, MAX, 1, mix(1, "web", container))).collect();
        assert!(pauses.len() > 90, "workers that ended together come back together: {}", pauses.len());
        assert!(pauses.iter().all(|pause| (Duration::from_millis(75)..=BASE).contains(pause)));
    }

    #[test]
    fn each_exit_doubles_the_pause_up_to_the_longest() {
        let full = |crashes| delay(BASE, MAX, crashes, 0);
        let millis: Vec<u128> = [1, 2, 3, 4, 12, 13, 1_000, u32::MAX].map(|crashes| full(crashes).as_millis()).into();
        assert_eq!(millis, [100, 200, 400, 800, 204_800, 300_000, 300_000, 300_000]);
    }

    #[test]
    fn a_pause_is_shortened_by_a_quarter_at_most() {
        for hash in [0, 1, 24_999_999, 25_000_000, 25_000_001, u64::MAX] {
            let pause = delay(BASE, MAX, 1, hash);
            assert!((Duration::from_millis(75)..=BASE).contains(&pause), "{hash}: {pause:?}");
        }
    }

    #[test]
    fn a_base_of_zero_restarts_at_once() {
        assert_eq!(delay(Duration::ZERO, MAX, 9, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn the_longest_durations_that_a_manifest_can_hold_are_no_panic() {
        let longest = Duration::from_millis(u64::MAX);
        for hash in [0, 7, u64::MAX] {
            assert!(delay(longest, longest, u32::MAX, hash) <= longest);
        }
        assert!(delay(Duration::MAX, Duration::MAX, 3, u64::MAX) <= Duration::MAX);
    }
}
