//! Percentiles from a histogram of latencies as forwarders count them.

/// Entries of a histogram.
pub(super) const BUCKETS: usize = 16;

/// Answers by the time to their first byte: entry `n` holds those below `2^(n+6)` microseconds that no entry before
/// holds, the last one all others.
pub(super) type Buckets = [u64; BUCKETS];

/// The time in milliseconds that a share of all answers stays below; 0 without answers.
///
/// Inside an entry answers are taken to be spread evenly. The last entry has no end: an answer in it is said to take as
/// long as the entry begins, which is less than it took.
pub(super) fn percentile(buckets: &Buckets, share: f64) -> f64 {
    let total: u64 = buckets.iter().fold(0, |sum, count| sum.saturating_add(*count));
    if total == 0 {
        return 0.0;
    }
    let rank = share * total as f64;
    let mut before = 0.0;
    for (n, count) in buckets.iter().enumerate() {
        let count = *count as f64;
        if count > 0.0 && before + count >= rank {
            let begin = if n == 0 { 0.0 } else { end_of(n - 1) };
            if n == BUCKETS - 1 {
                return begin;
            }
            return begin + (end_of(n) - begin) * ((rank - before) / count).clamp(0.0, 1.0);
        }
        before += count;
    }
    end_of(BUCKETS - 2)
}

/// Where an entry ends, in milliseconds.
fn end_of(n: usize) -> f64 {
    (1_u64 << (n + 6)) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(entries: &[(usize, u64)]) -> Buckets {
        let mut buckets = Buckets::default();
        for (n, count) in entries {
            buckets[*n] = *count;
        }
        buckets
    }

    #[test]
    fn answers_are_spread_evenly_inside_an_entry() {
        // Entry 4 is from 512 to 1024 microseconds.
        let buckets = of(&[(4, 100)]);
        assert!((percentile(&buckets, 0.5) - 0.768).abs() < 1e-9);
        assert!((percentile(&buckets, 0.25) - 0.640).abs() < 1e-9);
        assert!((percentile(&of(&[(0, 2)]), 0.5) - 0.032).abs() < 1e-9);
    }

    #[test]
    fn one_slow_answer_in_fifty_moves_the_ninety_ninth_and_not_the_median() {
        let buckets = of(&[(0, 98), (10, 2)]);
        assert!(percentile(&buckets, 0.5) < 0.064);
        let p99 = percentile(&buckets, 0.99);
        assert!((49.152 - p99).abs() < 1e-9, "half-way through 32.768 to 65.536: {p99}");
    }

    #[test]
    fn no_answers_take_no_time_and_endless_ones_at_least_a_second() {
        assert_eq!(percentile(&Buckets::default(), 0.99), 0.0);
        assert!((percentile(&of(&[(15, 3)]), 0.99) - 1048.576).abs() < 1e-9);
        assert!(percentile(&of(&[(3, u64::MAX), (15, u64::MAX)]), 0.99).is_finite());
    }
}
