//! What one turn takes in, and how long it waits for more.
//!
//! Start at [`Writer::gather`]. Each turn that writes costs a synced commit, so what comes together is taken together: in a
//! burst by a pause after each turn, otherwise by holding up only what nobody waits for. The first event after a quiet
//! time never waits, and neither does what a turn left over because it may make only so many containers.

use std::time::Duration;

use cocktail_core::event::{Event, Soft};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::{Gathered, RETRY, Writer, far};
use crate::shared::Observation;

/// Inputs that one turn takes at most.
const BATCH: usize = 4096;
/// Shortest pause after a turn in a burst, and longest time for which something is held up otherwise.
const PACE: Duration = Duration::from_millis(5);
/// Longest pause in a burst; it is twice as long as the last turn took, so that a large state is looked at less often.
const LONGEST_PACE: Duration = Duration::from_millis(50);
/// Calls under way that are no burst.
const FEW: usize = 16;
/// Containers that the first turns of a burst make: they start while the many others are decided.
const FIRST: usize = 64;

impl Writer {
    /// Waits for something to do, then takes what else is there.
    pub(super) async fn gather(&mut self, gathered: &mut Gathered) {
        let mut urgent = true;
        let unfinished = self.state.is_dirty();
        if !unfinished {
            let wake = self.state.wake_at().map_or_else(far, |at| self.clock.instant(at));
            let retry = if self.reserve_used { Instant::now() + RETRY * 5 } else { far() };
            let (mut request, mut observation) = (None, None);
            tokio::select! {
                biased;
                Some(asked) = self.requests.recv() => request = Some(asked),
                Some(seen) = self.observations.recv() => observation = Some(seen),
                () = sleep_until(wake.min(retry)) => {}
            }
            // Time moves once a turn, so that a replay of the turn sees the same.
            self.advance();
            if let Some(request) = request {
                self.request(request, gathered);
            }
            if let Some(observation) = observation {
                urgent = self.is_urgent(&observation);
                self.observation(observation, gathered);
            }
        } else {
            // The calls of the last turn go out before the next one is decided.
            yield_now().await;
            self.advance();
        }
        match self.paced.take() {
            Some(paced) if gathered.replies.is_empty() && !unfinished => sleep_until(paced).await,
            None if !urgent => self.linger(gathered).await,
            _ => {}
        }
        for _ in 0..BATCH {
            let Ok(observation) = self.observations.try_recv() else { break };
            self.observation(observation, gathered);
        }
        while gathered.close.is_none()
            && let Ok(request) = self.requests.try_recv()
        {
            self.request(request, gathered);
        }
    }

    /// Takes what comes until there is something that others wait for, or the time is over.
    async fn linger(&mut self, gathered: &mut Gathered) {
        let until = Instant::now() + PACE;
        for _ in 0..BATCH {
            tokio::select! {
                biased;
                Some(seen) = self.observations.recv() => {
                    let urgent = self.is_urgent(&seen);
                    self.observation(seen, gathered);
                    if urgent {
                        return;
                    }
                }
                // Whoever was shown something finds it in the journal when asking for it next.
                Some(asked) = self.requests.recv() => return self.request(asked, gathered),
                () = sleep_until(until) => return,
            }
        }
    }

    /// Whether something follows from it at once. A start of what is still to become ready is only noted, and so is that
    /// the files of what has stopped are gone.
    fn is_urgent(&self, observation: &Observation) -> bool {
        match observation {
            Observation::Soft(Soft::Prepared { .. }) | Observation::Removed(_) => false,
            Observation::Event(Event::Started { container, .. }) => {
                let containers = &self.state.containers;
                let probed = containers.get(container).and_then(|record| {
                    Some(self.state.units.get(&record.unit)?.template(record.revision).ready.is_some())
                });
                probed != Some(true)
            }
            _ => true,
        }
    }

    /// How many containers the turn may make: a part of what is on its way, so that its calls are not kept waiting for long.
    pub(super) fn claims(&self) -> usize {
        (self.state.operations.len() / 4).clamp(FIRST, BATCH)
    }

    /// Sets the pause before the next turn, after one that wrote and took that long.
    pub(super) fn pace(&mut self, took: Duration) {
        let burst = self.state.operations.len() > FEW;
        self.paced = burst.then(|| Instant::now() + (took * 2).clamp(PACE, LONGEST_PACE));
    }
}
