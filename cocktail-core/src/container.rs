//! Containers: their lifecycle as one enum and one pure transition function, and the record of each.
//!
//! Start at [`ContainerState::on`]. It is used live and by the replay after a crash, so a transition that it refuses
//! is a bug of ours and never the outside world's doing: observations that come too late are dropped before.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::contract::{Exit, Handle};
use crate::id::{ContainerId, Generation, OperationId, Revision, ServerId, UnitId};
use crate::name::Name;
use crate::scaling::Sample;
use crate::time::{ManagerTime, WallTime};
use crate::why::WhyLog;

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Intended: it has its id, its server and its ports.
    Claimed,
    /// Folders, volumes and ports are being made and proved.
    Preparing,
    /// Everything is done but the start.
    Prepared,
    /// The process is being started.
    Starting,
    /// Up, with nothing loaded or paused, until a Unit needs it.
    Waiting,
    /// Up, not yet or no longer ready.
    Loading,
    /// Takes traffic. The only state that does.
    Ready,
    /// Out of the routing table; its connections end, then it is stopped.
    Draining,
    /// It ended; started again at the given time.
    Backoff {
        /// When.
        until: ManagerTime,
    },
    /// It ended, as was asked for.
    Stopped,
    /// It ended and is not started again.
    Failed,
    /// Its server is silent.
    Lost,
    /// Its server came back after a replacement took over.
    Fenced,
}

/// What can happen to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A start was intended.
    Begin,
    /// Preparation is done.
    Prepared,
    /// It runs; `ready` says that nothing needs to be waited for.
    Started {
        /// No readiness probe: it is ready now.
        ready: bool,
    },
    /// It is up with nothing loaded.
    Registered,
    /// It is told what to load.
    Assign,
    /// It has closed what it had loaded.
    Returned,
    /// The readiness probe turned good.
    TurnedReady,
    /// The readiness probe turned bad.
    TurnedUnready,
    /// Its server is lost.
    Silent,
    /// Its server is back, and it runs there.
    Regained {
        /// No readiness probe: it is ready now.
        ready: bool,
    },
    /// It is replaced although nobody can reach it: wherever it is found it ends.
    Fence,
    /// It shall go.
    Drain,
    /// It ended, and nobody wants it back.
    Ended,
    /// It ended or could not be started, and is wanted back at the given time.
    Crashed {
        /// When.
        until: ManagerTime,
    },
    /// The start cannot be done with these ports: back to the claim.
    Reclaim,
    /// It ran to completion.
    Completed,
    /// It failed for good: no attempt is left, or no time.
    GaveUp,
}

/// A step that makes no sense in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a container in state {state} cannot take the step {step:?}")]
pub struct IllegalStep {
    /// The state.
    pub state: ContainerState,
    /// The step.
    pub step: Step,
}

impl ContainerState {
    /// The state after `step`.
    ///
    /// # Errors
    /// [`IllegalStep`] when the step makes no sense here.
    pub fn on(self, step: Step) -> Result<Self, IllegalStep> {
        match (self, step) {
            (Self::Claimed | Self::Backoff { .. }, Step::Begin) => Ok(Self::Preparing),
            (Self::Preparing, Step::Prepared) => Ok(Self::Starting),
            (Self::Preparing | Self::Prepared | Self::Starting, Step::Started { ready }) => {
                Ok(if ready { Self::Ready } else { Self::Loading })
            }
            (Self::Loading, Step::Registered) | (Self::Draining, Step::Returned) => Ok(Self::Waiting),
            (Self::Waiting, Step::Assign) => Ok(Self::Loading),
            (Self::Loading | Self::Ready, Step::TurnedReady) => Ok(Self::Ready),
            (Self::Loading | Self::Ready, Step::TurnedUnready) => Ok(Self::Loading),
            (
                Self::Claimed
                | Self::Preparing
                | Self::Prepared
                | Self::Starting
                | Self::Waiting
                | Self::Loading
                | Self::Ready
                | Self::Backoff { .. },
                Step::Silent,
            ) => Ok(Self::Lost),
            (Self::Lost, Step::Regained { ready }) => Ok(if ready { Self::Ready } else { Self::Loading }),
            (Self::Lost, Step::Fence) => Ok(Self::Fenced),
            (
                Self::Claimed
                | Self::Preparing
                | Self::Prepared
                | Self::Starting
                | Self::Waiting
                | Self::Loading
                | Self::Ready
                | Self::Draining
                | Self::Backoff { .. }
                | Self::Lost
                | Self::Fenced,
                Step::Drain,
            ) => Ok(Self::Draining),
            (
                Self::Claimed
                | Self::Preparing
                | Self::Prepared
                | Self::Starting
                | Self::Waiting
                | Self::Loading
                | Self::Ready
                | Self::Draining
                | Self::Backoff { .. }
                | Self::Lost
                | Self::Fenced
                | Self::Stopped,
                Step::Ended,
            ) => Ok(Self::Stopped),
            (
                Self::Preparing
                | Self::Prepared
                | Self::Starting
                | Self::Waiting
                | Self::Loading
                | Self::Ready
                | Self::Lost,
                Step::Crashed { until },
            ) => Ok(Self::Backoff { until }),
            (Self::Preparing | Self::Prepared | Self::Starting, Step::Reclaim) => Ok(Self::Claimed),
            (
                Self::Preparing | Self::Prepared | Self::Starting | Self::Loading | Self::Ready | Self::Lost,
                Step::Completed,
            ) => Ok(Self::Stopped),
            (
                Self::Preparing | Self::Prepared | Self::Starting | Self::Loading | Self::Ready | Self::Lost,
                Step::GaveUp,
            ) => Ok(Self::Failed),
            (state, step) => Err(IllegalStep { state, step }),
        }
    }

    /// The name in JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Preparing => "preparing",
            Self::Prepared => "prepared",
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Backoff { .. } => "backoff",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Lost => "lost",
            Self::Fenced => "fenced",
        }
    }

    /// Whether it counts as one of the Unit's containers: it is wanted, or not known to have ended.
    pub const fn is_live(self) -> bool {
        match self {
            Self::Claimed
            | Self::Preparing
            | Self::Prepared
            | Self::Starting
            | Self::Waiting
            | Self::Loading
            | Self::Ready
            | Self::Backoff { .. }
            | Self::Lost => true,
            Self::Draining | Self::Stopped | Self::Failed | Self::Fenced => false,
        }
    }

    /// Whether a process may exist.
    pub const fn may_run(self) -> bool {
        match self {
            Self::Preparing
            | Self::Prepared
            | Self::Starting
            | Self::Waiting
            | Self::Loading
            | Self::Ready
            | Self::Draining
            | Self::Lost
            | Self::Fenced => true,
            Self::Claimed | Self::Backoff { .. } | Self::Stopped | Self::Failed => false,
        }
    }
}

impl fmt::Display for ContainerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Whose it is.
    pub unit: UnitId,
    /// Which version of the Unit.
    pub revision: Revision,
    /// Number of its starts; 0 before the first.
    pub generation: Generation,
    /// Where it is.
    pub server: ServerId,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Why, for people.
    pub reason: String,
    /// Since when, for people.
    pub since: WallTime,
    /// Since when, for deadlines.
    pub entered: ManagerTime,
    /// Order of creation within the Unit.
    pub ordinal: u64,
    /// Its ports in the manifest's order.
    pub ports: Vec<ContainerPort>,
    /// Which of the Unit's exclusive volumes it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// How to find it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<Handle>,
    /// The open operation on it; there is never more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationId>,
    /// Restarts in place.
    #[serde(default)]
    pub restarts: u64,
    /// Exits in a row without a healthy time between.
    #[serde(default)]
    pub crashes: u32,
    /// When the running generation was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<ManagerTime>,
    /// What the state waits for at the longest: readiness while loading, connections while draining.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<ManagerTime>,
    /// Its connections have ended.
    #[serde(default)]
    pub drained: bool,
    /// The liveness probe has failed with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwell: Option<String>,
    /// Why it shall be replaced, where somebody asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace: Option<String>,
    /// Why it is being ended although it is wanted: the reason for the restart that follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<String>,
    /// What the readiness probe saw last; before its start, what keeps it from being prepared.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub probe: String,
    /// How it ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<Exit>,
    /// It ran to completion, and is kept to show that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub completed: bool,
    /// When a job's container has to be done, all attempts together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_by: Option<ManagerTime>,
    /// Its last end says nothing about its program: nobody saw it, or somebody else asked it to end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub excused: bool,
    /// It crashed after running for longer than its back-off is: one that waits may take its place at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub relieve: bool,
    /// What is known of its program, if that is a worker; of any other container, that it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Box<WorkerRecord>>,
    /// Its last start was told to run on when the lease of its server's agent ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outlives_lease: bool,
    /// Decisions about it.
    #[serde(default)]
    pub why: WhyLog,
    /// Last reading of what runs, if there was one; soft.
    #[serde(skip)]
    pub usage: Option<Sample>,
}

/// What is known of a worker: a program that is told what to load, and can be told something else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// Identity of what it was started from, see [`crate::unit::pool`].
    pub pool: String,
    /// Number of its last assignment; 0 before the first.
    pub assignment: u64,
    /// It is to have nothing loaded, and waits for a Unit that needs it.
    pub spare: bool,
    /// It was told after its start: nobody has proved its ports but itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// It could not be unloaded: it ends when it leaves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub worn: bool,
}

/// One port of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPort {
    /// Its name.
    pub name: Name,
    /// The number; `None` after it turned out taken, until another is leased.
    pub port: Option<u16>,
}

impl Container {
    /// Whether it is to stay: live, and nobody asked for its replacement.
    pub fn is_wanted(&self) -> bool {
        self.state.is_live() && self.replace.is_none()
    }

    /// Whether it serves nobody yet, or no longer, and is kept for a Unit that needs it.
    pub fn is_spare(&self) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.spare)
    }

    /// Whether it is a job's container that is done, well or not, and stays to show that.
    pub fn is_done(&self) -> bool {
        self.completed || self.state == ContainerState::Failed
    }

    /// Whether it has been ready for `monitor` without a break.
    pub fn is_proved(&self, now: ManagerTime, monitor: std::time::Duration) -> bool {
        self.state == ContainerState::Ready && self.unwell.is_none() && self.entered + monitor <= now
    }

    /// Whether its ports are its own: they rest from its observed end on.
    pub fn holds_ports(&self) -> bool {
        !matches!(self.state, ContainerState::Stopped | ContainerState::Failed)
    }

    /// Port numbers that it was given.
    pub fn port_numbers(&self) -> impl Iterator<Item = u16> {
        self.ports.iter().filter_map(|port| port.port)
    }
}

#[cfg(test)]
mod tests;
