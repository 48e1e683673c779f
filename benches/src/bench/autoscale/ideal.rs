//! What a load asks for at any time, and how far a count was from that.

use std::time::Duration;

use cocktail_benches::wave::{Phase, rate_at};

/// Pause between two times that are looked at.
const STEP: Duration = Duration::from_millis(20);

/// The ideal count.
#[derive(Debug)]
pub(super) struct Ideal {
    pub(super) phases: Vec<Phase>,
    /// Seconds of CPU that one answer costs.
    pub(super) cost: f64,
    /// Cores that one container is wanted to use.
    pub(super) target: f64,
    pub(super) most: u32,
    /// How long a count may stay after the load has gone.
    pub(super) held: Duration,
}

/// A change of the count.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) at: Duration,
    pub(super) count: u32,
    /// What the policy says about it.
    pub(super) because: String,
}

/// A part of a round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wave {
    pub(super) begin: Duration,
    pub(super) end: Duration,
}

impl Wave {
    fn times(&self) -> impl Iterator<Item = Duration> + use<> {
        let end = self.end;
        std::iter::successors(Some(self.begin), |time| Some(*time + STEP)).take_while(move |time| *time < end)
    }

    /// How often the count changed.
    pub(super) fn actions(&self, changes: &[Change]) -> u32 {
        let within = |change: &&Change| (self.begin..self.end).contains(&change.at);
        changes.iter().filter(within).count().try_into().unwrap_or(u32::MAX)
    }
}

impl Ideal {
    fn count(&self, time: Duration) -> u32 {
        let cores = rate_at(&self.phases, time) * self.cost;
        // Within the most that there may be, a float of so small a whole number is exact.
        (cores / self.target).ceil().clamp(1.0, f64::from(self.most)) as u32
    }

    /// How often the ideal count changes in a wave.
    pub(super) fn actions(&self, wave: &Wave) -> u32 {
        let mut last = self.count(wave.begin.saturating_sub(STEP));
        let mut changes = 0;
        for time in wave.times() {
            let count = self.count(time);
            changes += u32::from(count != last);
            last = count;
        }
        changes
    }

    /// The most by which the count is above the highest ideal one of the time for which it may stay.
    pub(super) fn overshoot(&self, wave: &Wave, changes: &[Change]) -> u32 {
        let above = |time: Duration| {
            let count = changes.iter().take_while(|change| change.at <= time).last().map_or(1, |change| change.count);
            self.above(time, count)
        };
        wave.times().map(above).max().unwrap_or(0)
    }

    /// By how much a count is above the highest ideal one of the time for which it may stay.
    pub(super) fn above(&self, time: Duration, count: u32) -> u32 {
        let held = Wave { begin: time.saturating_sub(self.held), end: time + STEP };
        count.saturating_sub(held.times().map(|time| self.count(time)).max().unwrap_or(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// One container for ten seconds, three for ten, one for ten; each takes a count down after two.
    fn square() -> (Ideal, Wave) {
        let phases = [10.0, 50.0, 10.0].map(|rate| Phase::steady(rate, seconds(10)));
        let ideal = Ideal { phases: phases.into(), cost: 0.01, target: 0.2, most: 6, held: seconds(2) };
        (ideal, Wave { begin: seconds(10), end: seconds(30) })
    }

    #[test]
    fn a_square_wave_asks_for_two_changes_and_a_ramp_for_one_at_each_count() {
        let (ideal, wave) = square();
        assert_eq!(ideal.actions(&wave), 2);
        let phases = vec![Phase { from: 10.0, to: 90.0, lasts: seconds(8) }, Phase::steady(90.0, seconds(2))];
        let ramp = Ideal { phases, ..ideal };
        assert_eq!(ramp.actions(&Wave { begin: seconds(0), end: seconds(10) }), 4);
    }

    #[test]
    fn a_count_overshoots_when_it_is_too_high_or_stays_for_too_long() {
        let (ideal, wave) = square();
        let overshoot = |changes: &[(u64, u32)]| {
            let change = |&(at, count): &(u64, u32)| Change { at: seconds(at), count, because: String::new() };
            let changes: Vec<Change> = changes.iter().map(change).collect();
            assert_eq!(wave.actions(&changes), changes.len() as u32);
            ideal.overshoot(&wave, &changes)
        };
        assert_eq!(overshoot(&[(11, 3), (22, 1)]), 0);
        assert_eq!(overshoot(&[(11, 4), (22, 1)]), 1);
        assert_eq!(overshoot(&[(11, 3), (25, 1)]), 2);
        assert_eq!(overshoot(&[(11, 2), (22, 1)]), 0);
    }
}
