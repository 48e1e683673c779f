//! The session between a Manager and the agent of one server: who may command, whose lease runs, what runs where.
//!
//! Start at [`ManagerEnd`] and [`AgentEnd`]: two values, one at each end, that take messages, the passing of their own
//! clock and what their owner wants or sees, and answer with messages, things to do and facts. Whoever drives them owns
//! the sockets, the clock and the disk. [`Timing`] holds the spans and refuses those that are not safe together.
//!
//! What always holds:
//! - No clock is compared with another one's. The agent's lease runs from when the *agent* sent the beat that was
//!   answered; the Manager replaces so long after it *sent* its last answer that the agent's lease is over by then.
//! - What the agent may not serve any longer it ends, or blocks from traffic, before the Manager says
//!   [`Fact::Released`]; and only a new order unblocks it.
//! - The epoch that an agent obeys and the generation of a container on it never decrease.
//! - An order is carried out once. Its outcome is told until it was received, or the session ends and the Manager says
//!   [`Fact::Undecided`].
//! - A boot of a server that another one took over from never comes back.
//!
//! Messages may be lost, doubled, delayed and overtake one another. Which container runs where is the planner's
//! business; how it is run is the runtime's.

mod agent;
mod frame;
mod lineage;
mod manager;
mod message;
mod timing;

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use agent::{AgentConfig, AgentEnd, AgentMemory, AgentOutput, Effect, Mark, Memo, Survivor, Survivors};
pub use frame::{AgentFrame, Answer, Ask, Facts, ManagerFrame, Readings, Values};
pub use manager::{
    Claim, Contact, Fact, ManagerEnd, ManagerOutput, OrderError, RETIRED_BOOTS, Record, Standing, Verdict,
};
pub use message::{
    Attempt, Decline, Failure, Held, Hello, LeaseEnd, Order, OrderRefusal, Outcome, Phase, Refusal, Report, Terms,
    ToAgent, ToManager, VERSIONS, Welcome,
};
pub use timing::{Spans, Timing, TimingError};

use crate::id::Epoch;

/// Orders that may wait for their outcome in one session; an agent takes no more.
pub const OPEN_ORDERS: usize = 256;

/// Orders or reports in one message.
const PAGE: usize = 64;

/// Milliseconds of an agent's own clock, which goes on while the machine sleeps and over restarts of the agent, and
/// begins anew with each boot. Its own type, so that it cannot be compared with [`crate::time::ManagerTime`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AgentTime(pub u64);

impl Add<Duration> for AgentTime {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Sub for AgentTime {
    type Output = Duration;
    /// The time between; zero if `earlier` is not earlier.
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A connection as the driver of an end numbers it; the same number is never used again at that end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection(pub u64);

/// One session of one server. A Manager never gives the same one twice: the epoch is its lease's, the number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId {
    /// The Manager's lease.
    pub epoch: Epoch,
    /// From 1 within the epoch.
    pub number: u64,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

/// One boot of a server with one memory: the kernel's boot id together with a random id that the agent's state got when
/// it was made. So a cloned disk has a new one, as has an agent that lost its state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(String);

impl BootId {
    /// Takes what the driver made of both ids.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
