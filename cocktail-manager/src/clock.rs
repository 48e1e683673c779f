//! Manager time: resumed from the last commit, running only while a Manager runs.

use cocktail_core::time::{ManagerTime, WallTime};
use tokio::time::Instant;

/// The one place that reads clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    resumed: ManagerTime,
    started: Instant,
}

impl Clock {
    /// Goes on from the time of the last turn.
    pub(crate) fn resume(from: ManagerTime) -> Self {
        Self { resumed: from, started: Instant::now() }
    }

    pub(crate) fn now(&self) -> ManagerTime {
        self.resumed + self.started.elapsed()
    }

    /// When Manager time will be `at`.
    pub(crate) fn instant(&self, at: ManagerTime) -> Instant {
        self.started + (at - self.resumed)
    }

    /// For people; nothing is decided by it.
    pub(crate) fn wall() -> WallTime {
        WallTime(jiff::Timestamp::now().as_microsecond())
    }
}
