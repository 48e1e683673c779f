//! The spans of a session, and the proof that they are safe together.
//!
//! Start at [`Timing::new`]. What always holds for a [`Timing`]: when `replace_after` has passed on the Manager's clock
//! since it sent an answer, the lease that this answer gave, and the ending that follows it, are over on the agent's.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::Terms;

/// What can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spans {
    /// Pause between two beats of an agent, and between two sendings of what was not acknowledged.
    pub beat: Duration,
    /// How long an answered beat lets an agent's containers serve, by the agent's clock, from when it was sent.
    pub lease: Duration,
    /// Longest time from the lease's end until nothing serves any more: the grace that containers get then.
    pub fence: Duration,
    /// Largest error of rate of either clock against true time, in millionths.
    pub clock_ppm: u32,
    /// What is added on top: reading of clocks and waking of timers.
    pub margin: Duration,
    /// Silence after which each end stops to trust a connection.
    pub silent_after: Duration,
    /// When a server is lost and its containers may be replaced, by the Manager's clock, after its last answer was sent.
    pub replace_after: Duration,
}

impl Default for Spans {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(3),
            lease: Duration::from_secs(30),
            fence: Duration::from_secs(5),
            clock_ppm: 500,
            margin: Duration::from_secs(1),
            silent_after: Duration::from_secs(10),
            replace_after: Duration::from_secs(40),
        }
    }
}

/// Spans that are safe together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Spans", into = "Spans")]
pub struct Timing(Spans);

/// Why spans are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// Something is zero that needs time.
    #[error("beat, lease and margin must be at least a millisecond")]
    Zero,
    /// No clock is that bad.
    #[error("a clock error of {ppm} millionths is not below a half")]
    Clock {
        /// What was asked for.
        ppm: u32,
    },
    /// One lost message would break a connection.
    #[error("silent_after of {silent_after:?} is not two beats of {beat:?}")]
    Hasty {
        /// What was asked for.
        silent_after: Duration,
        /// What was asked for.
        beat: Duration,
    },
    /// The lease would end before the connection is given up, so that no new one could save it.
    #[error("lease of {lease:?} is not longer than silent_after of {silent_after:?} and a beat")]
    ShortLease {
        /// What was asked for.
        lease: Duration,
        /// What was asked for.
        silent_after: Duration,
    },
    /// A replacement could serve beside what it replaces.
    #[error("replace_after of {replace_after:?} is not longer than {least:?}, when an agent surely has ended all")]
    ReplacesEarly {
        /// What was asked for.
        replace_after: Duration,
        /// What it must exceed.
        least: Duration,
    },
}

impl Timing {
    /// Checks spans.
    ///
    /// # Errors
    /// The first [`TimingError`] that is found.
    pub fn new(spans: Spans) -> Result<Self, TimingError> {
        let Spans { beat, lease, silent_after, replace_after, clock_ppm, margin, .. } = spans;
        if [beat, lease, margin].iter().any(|span| span.as_millis() == 0) {
            return Err(TimingError::Zero);
        }
        if clock_ppm >= 500_000 {
            return Err(TimingError::Clock { ppm: clock_ppm });
        }
        if silent_after < beat.saturating_mul(2) {
            return Err(TimingError::Hasty { silent_after, beat });
        }
        if lease <= silent_after.saturating_add(beat) {
            return Err(TimingError::ShortLease { lease, silent_after });
        }
        let least = spans.surely_over(lease);
        if replace_after <= least {
            return Err(TimingError::ReplacesEarly { replace_after, least });
        }
        Ok(Self(spans))
    }

    /// The spans.
    pub fn spans(&self) -> &Spans {
        &self.0
    }

    /// What an agent is told of them.
    pub(super) fn terms(&self) -> Terms {
        let Spans { beat, lease, fence, silent_after, .. } = self.0;
        Terms { beat, lease, fence, patience: silent_after }
    }

    /// When to replace after an answer that gave a lease of `promised`, perhaps under other settings.
    pub(super) fn replace_after(&self, promised: Duration) -> Duration {
        let Spans { lease, replace_after, .. } = self.0;
        if promised <= lease { replace_after } else { replace_after.max(self.0.surely_over(promised)) }
    }
}

impl Spans {
    /// The longest that a lease and the ending after it take on the Manager's clock, if the agent's is as slow and the
    /// Manager's as fast as they may be.
    fn surely_over(&self, lease: Duration) -> Duration {
        let (slow, fast) = (1_000_000 - self.clock_ppm.min(999_999), 1_000_000 + self.clock_ppm);
        let serving = lease.saturating_add(self.fence).as_nanos();
        let stretched = serving.saturating_mul(u128::from(fast)).div_ceil(u128::from(slow));
        Duration::from_nanos(u64::try_from(stretched).unwrap_or(u64::MAX)).saturating_add(self.margin)
    }
}

impl TryFrom<Spans> for Timing {
    type Error = TimingError;
    fn try_from(spans: Spans) -> Result<Self, TimingError> {
        Self::new(spans)
    }
}

impl From<Timing> for Spans {
    fn from(timing: Timing) -> Self {
        timing.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Spans)) -> Result<Timing, TimingError> {
        let mut spans = Spans::default();
        change(&mut spans);
        Timing::new(spans)
    }

    #[test]
    fn the_defaults_are_safe() {
        assert_eq!(Timing::new(Spans::default()), Ok(Timing::default()));
    }

    #[test]
    fn a_replacement_waits_for_the_slowest_agent_by_the_fastest_clock_and_the_margin() {
        let spans = Spans { clock_ppm: 100_000, lease: Duration::from_secs(40), ..Spans::default() };
        // 45 s last 50 s on a clock that is a tenth slow, and 55 s of one that is a tenth fast.
        let least = Duration::from_secs(56);
        let refused = Timing::new(Spans { replace_after: least, ..spans });
        assert_eq!(refused, Err(TimingError::ReplacesEarly { replace_after: least, least }));
        Timing::new(Spans { replace_after: least + Duration::from_nanos(1), ..spans }).unwrap();
    }

    #[test]
    fn what_breaks_a_session_by_itself_is_refused() {
        let second = Duration::from_secs(1);
        assert_eq!(with(|spans| spans.beat = Duration::ZERO), Err(TimingError::Zero));
        assert_eq!(with(|spans| spans.clock_ppm = 500_000), Err(TimingError::Clock { ppm: 500_000 }));
        assert!(matches!(with(|spans| spans.silent_after = 5 * second), Err(TimingError::Hasty { .. })));
        assert!(matches!(with(|spans| spans.silent_after = 28 * second), Err(TimingError::ShortLease { .. })));
        assert!(matches!(with(|spans| spans.fence = 9 * second), Err(TimingError::ReplacesEarly { .. })));
    }

    #[test]
    fn a_longer_lease_of_earlier_settings_is_waited_for() {
        let timing = Timing::default();
        assert_eq!(timing.replace_after(Duration::from_secs(10)), Duration::from_secs(40));
        assert!(timing.replace_after(Duration::from_secs(300)) > Duration::from_secs(306));
    }

    #[test]
    fn spans_that_are_read_back_are_checked_again() {
        let text = serde_json::to_string(&Timing::default()).unwrap();
        assert_eq!(serde_json::from_str::<Timing>(&text).unwrap(), Timing::default());
        let unsafe_spans = Spans { replace_after: Duration::from_secs(30), ..Spans::default() };
        let text = serde_json::to_string(&unsafe_spans).unwrap();
        assert!(serde_json::from_str::<Timing>(&text).is_err());
    }
}
