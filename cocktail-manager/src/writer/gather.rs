//! What one turn takes in, and how long it waits for more.
//!
//! Start at [`Writer::gather`]. Each turn that writes costs a synced commit, so what comes together is taken together: in a
//! burst by a pause after each turn, otherwise by holding up only what nobody waits for. The first event after a quiet
//! time never waits, and neither does what a turn left over because it may make only so many containers.

use std::time::Duration;

use cocktail_core::contract::{RuntimeEvent, WorkerSaid};
use cocktail_core::event::{Event, Soft};
use cocktail_core::id::ContainerId;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::{End, Gathered, RETRY, Writer, far};
use crate::shared::Observation;

/// Inputs that one turn takes at most: what the containers of a few turns tell while they start.
const BATCH: usize = 4 * MOST;
/// Shortest pause after a turn in a burst, and longest time for which something is held up otherwise.
const PACE: Duration = Duration::from_millis(5);
/// Longest pause in a burst; it is twice as long as the last turn took, so that a large state is looked at less often.
const LONGEST_PACE: Duration = Duration::from_millis(50);
/// Calls under way that are no burst.
const FEW: usize = 16;
/// Events of a turn after which the next one may wait for longer.
const MANY: usize = 256;
/// Containers that the first turn of a burst makes: they start while the many others are decided.
const FIRST: usize = 64;
/// Containers that one turn makes at most: it takes some tens of milliseconds.
const MOST: usize = 4096;

impl Writer {
    /// Waits for something to do, then takes what else is there.
    pub(super) async fn gather(&mut self, gathered: &mut Gathered) -> Result<(), End> {
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
                () = self.executor.freed() => {}
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
            // Others get a turn on this thread before the next one is decided.
            yield_now().await;
            self.advance();
        }
        self.executor.begin(&self.state);
        match self.paced.take() {
            Some(paced) if gathered.replies.is_empty() && !unfinished => self.pause(paced).await,
            None if !urgent => self.linger(gathered).await,
            _ => {}
        }
        for _ in 0..BATCH {
            let Ok(observation) = self.observations.try_recv() else { break };
            if sends_again(&observation) {
                self.land().await?;
            }
            self.observation(observation, gathered);
        }
        if !self.requests.is_empty() {
            // Whoever asks is shown no turn that is still on its way.
            self.land().await?;
        }
        while gathered.close.is_none()
            && let Ok(request) = self.requests.try_recv()
        {
            self.request(request, gathered);
        }
        Ok(())
    }

    /// Waits; starts go on meanwhile.
    async fn pause(&mut self, until: Instant) {
        loop {
            tokio::select! {
                () = sleep_until(until) => return,
                () = self.executor.freed() => self.executor.begin(&self.state),
            }
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

    /// Whether something follows from it at once. A start of what is still to become ready is only noted, and so is that a
    /// worker was told what to load or waits, that a client waits for what is on its way, that the routes are set, and that the
    /// files of what has stopped are gone.
    fn is_urgent(&self, observation: &Observation) -> bool {
        match observation {
            Observation::Soft(Soft::Prepared { .. }) | Observation::Removed(_) | Observation::Routes(_) => false,
            // What the worker makes of it comes in a moment; what has no probe serves from now on.
            Observation::Event(Event::Assigned { failure: None, operation }) => {
                let operation = self.state.operations.get(operation);
                operation.is_some_and(|open| self.is_probed(&open.container) == Some(false))
            }
            Observation::Runtime(_, RuntimeEvent::Worker { said: WorkerSaid::Waiting, .. }) => false,
            // A container is on its way: that a client waits for it is known.
            Observation::Runtime(_, RuntimeEvent::Demand { unit }) => {
                self.state.units.get(unit).is_none_or(|unit| unit.desired == 0)
            }
            Observation::Event(Event::Started { container, .. }) => self.is_probed(container) != Some(true),
            _ => true,
        }
    }

    /// Whether a container is ready only when a probe says so.
    fn is_probed(&self, container: &ContainerId) -> Option<bool> {
        let record = self.state.containers.get(container)?;
        Some(self.state.units.get(&record.unit)?.template(record.revision).ready.is_some())
    }

    /// How many containers the turn may make: few at first, so that their calls are not kept waiting for long, and twice as
    /// many in each turn that follows, so that very many do not take very many turns.
    pub(super) fn claims(&mut self) -> usize {
        let left_over = self.state.is_unfinished();
        self.claims = if left_over { (self.claims * 2).min(MOST) } else { FIRST };
        self.claims
    }

    /// Sets the pause before the next turn, after one that wrote that many events and took that long.
    pub(super) fn pace(&mut self, took: Duration, events: usize) {
        let burst = self.state.operations.len() > FEW;
        // What comes in small turns is soon taken in: a long pause would only let it pile up.
        let longest = if events > MANY { LONGEST_PACE } else { PACE };
        self.paced = burst.then(|| Instant::now() + (took * 2).clamp(PACE, longest));
    }
}

/// Whether open operations are sent to a server because of it, or are told to it: those have to be durable before.
fn sends_again(observation: &Observation) -> bool {
    matches!(
        observation,
        Observation::Connected { .. }
            | Observation::Listed { attached: true, .. }
            | Observation::Runtime(_, RuntimeEvent::Resync { .. })
    )
}
