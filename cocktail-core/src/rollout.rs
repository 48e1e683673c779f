//! Rollouts: how a revision of a Unit takes over from another, as one enum and one pure transition function.
//!
//! Start at [`RolloutState::on`]. The planner (`plan/rollout.rs`) takes the steps that follow from what containers do;
//! commands take those that users ask for. A failed update goes back once; a failed way back pauses and keeps what
//! serves, so that no two revisions ever roll back in turn.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::Revision;
use crate::time::{ManagerTime, WallTime};

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutState {
    /// Containers are being replaced.
    Running,
    /// Nothing is replaced until somebody says so.
    Paused,
    /// Every container is of the new revision and was ready for the monitor window.
    Completed,
    /// Another revision was applied before it ended.
    Superseded,
    /// Containers are being replaced by an earlier revision.
    RollingBack,
    /// Every container is of the earlier revision again.
    RolledBack,
}

/// What can happen to a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutStep {
    /// A user or a failure stops it.
    Pause,
    /// A user lets it go on, or tries it again.
    Resume,
    /// Everything is replaced.
    Finish,
    /// It goes back to the given revision.
    RollBack {
        /// Where it goes back to.
        to: Revision,
    },
    /// Another revision was applied.
    Supersede,
}

/// A step that makes no sense in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rollout that is {state} cannot take the step {step:?}")]
pub struct IllegalRollout {
    /// The state.
    pub state: RolloutState,
    /// The step.
    pub step: RolloutStep,
}

impl RolloutState {
    /// The state after `step`; `back` says that the rollout is on its way back to an earlier revision.
    ///
    /// # Errors
    /// [`IllegalRollout`] when the step makes no sense here.
    pub fn on(self, step: RolloutStep, back: bool) -> Result<Self, IllegalRollout> {
        match (self, step) {
            (Self::Running | Self::RollingBack, RolloutStep::Pause) => Ok(Self::Paused),
            (Self::Paused, RolloutStep::Resume) => Ok(if back { Self::RollingBack } else { Self::Running }),
            (Self::Running, RolloutStep::Finish) => Ok(Self::Completed),
            (Self::RollingBack, RolloutStep::Finish) => Ok(Self::RolledBack),
            (
                Self::Running | Self::Paused | Self::Completed | Self::RolledBack | Self::RollingBack,
                RolloutStep::RollBack { .. },
            ) => Ok(Self::RollingBack),
            (Self::Running | Self::Paused | Self::RollingBack, RolloutStep::Supersede) => Ok(Self::Superseded),
            (state, step) => Err(IllegalRollout { state, step }),
        }
    }

    /// The name in JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Superseded => "superseded",
            Self::RollingBack => "rolling-back",
            Self::RolledBack => "rolled-back",
        }
    }

    /// Whether containers are being replaced.
    pub const fn is_moving(self) -> bool {
        matches!(self, Self::Running | Self::RollingBack)
    }

    /// Whether it has not ended: it moves, or it is paused.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Running | Self::RollingBack | Self::Paused)
    }
}

impl fmt::Display for RolloutState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The last rollout of a Unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The revision that served before, where one did: what a failure goes back to.
    pub from: Option<Revision>,
    /// The revision that takes over.
    pub to: Revision,
    /// Where it stands.
    pub state: RolloutState,
    /// It goes back to an earlier revision.
    #[serde(default)]
    pub back: bool,
    /// Why it is in this state, for people.
    pub reason: String,
    /// Since when.
    pub since: WallTime,
    /// It was paused by a failure, not by a user.
    #[serde(default)]
    pub failed: bool,
    /// Containers that the Unit had made when it began: later ones are its replacements.
    pub made: u64,
    /// Most replacements so far that stayed ready for the monitor window.
    #[serde(default)]
    pub proved: u32,
    /// When it fails unless another replacement is ready by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<ManagerTime>,
    /// Containers that go first; 0 once they are promoted, and without a canary.
    #[serde(default)]
    pub canary: u32,
    /// When the canary is promoted by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promote_at: Option<ManagerTime>,
    /// The canary stayed ready for the monitor window.
    #[serde(default)]
    pub canary_proved: bool,
}

/// One revision in the history of a Unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionRecord {
    /// Its number.
    pub revision: Revision,
    /// Identity of its template.
    pub digest: String,
    /// When it was applied.
    pub at: WallTime,
    /// Who applied it.
    pub actor: String,
    /// What became of it: `serving`, `running`, `completed`, `superseded`, `failed: …`.
    pub outcome: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [RolloutState; 6] = [
        RolloutState::Running,
        RolloutState::Paused,
        RolloutState::Completed,
        RolloutState::Superseded,
        RolloutState::RollingBack,
        RolloutState::RolledBack,
    ];

    #[test]
    fn what_has_ended_is_neither_paused_nor_resumed_nor_finished() {
        for state in ALL.into_iter().filter(|state| !state.is_open()) {
            for step in [RolloutStep::Pause, RolloutStep::Resume, RolloutStep::Finish, RolloutStep::Supersede] {
                assert_eq!(state.on(step, false), Err(IllegalRollout { state, step }));
            }
        }
    }

    #[test]
    fn a_paused_way_back_goes_on_as_a_way_back() {
        assert_eq!(RolloutState::Paused.on(RolloutStep::Resume, true), Ok(RolloutState::RollingBack));
        assert_eq!(RolloutState::Paused.on(RolloutStep::Resume, false), Ok(RolloutState::Running));
    }

    #[test]
    fn a_way_back_ends_rolled_back_and_never_completed() {
        assert_eq!(RolloutState::RollingBack.on(RolloutStep::Finish, true), Ok(RolloutState::RolledBack));
        assert_eq!(RolloutState::Running.on(RolloutStep::Finish, false), Ok(RolloutState::Completed));
    }
}
