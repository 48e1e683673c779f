//! Servers: their lifecycle and the record of each.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::fleet::{Rearrangement, Tenure};
use crate::id::ServerId;
use crate::name::Name;
use crate::spec::Resources;
use crate::time::WallTime;

/// Where a server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerState {
    /// Intended.
    Claimed,
    /// Asked for.
    Provisioning,
    /// It exists and has not joined.
    Booting,
    /// It answers; not yet checked.
    Joined,
    /// Takes containers.
    Ready,
    /// Keeps its containers and takes no new ones.
    Cordoned,
    /// Being emptied.
    Draining,
    /// Being given back.
    Terminating,
    /// Given back.
    Gone,
    /// Kept stopped, to be started when needed.
    Suspended,
    /// It will not become ready.
    Failed,
    /// It is silent.
    Lost,
}

/// What can happen to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerStep {
    /// Its provisioning was intended.
    Provision,
    /// The provider accepted.
    Accepted,
    /// It answers.
    Joined,
    /// It may take containers.
    Admitted,
    /// It shall take no new ones.
    Cordon,
    /// It may take new ones again.
    Uncordon,
    /// It shall be emptied.
    Drain,
    /// It shall be given back.
    Terminate,
    /// The provider no longer has it.
    Vanished,
    /// It does not answer.
    Silent,
    /// It will not become ready.
    Fail,
}

impl ServerStep {
    /// What the journal calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provision => "server-provisioning",
            Self::Accepted => "server-accepted",
            Self::Joined => "server-joined",
            Self::Admitted => "server-admitted",
            Self::Cordon => "server-cordoned",
            Self::Uncordon => "server-uncordoned",
            Self::Drain => "server-draining",
            Self::Terminate => "server-terminating",
            Self::Vanished => "server-gone",
            Self::Silent => "server-silent",
            Self::Fail => "server-failed",
        }
    }
}

/// A step that makes no sense in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a server in state {state} cannot take the step {step:?}")]
pub struct IllegalServerStep {
    /// The state.
    pub state: ServerState,
    /// The step.
    pub step: ServerStep,
}

impl ServerState {
    /// The state after `step`.
    ///
    /// # Errors
    /// [`IllegalServerStep`] when the step makes no sense here.
    pub fn on(self, step: ServerStep) -> Result<Self, IllegalServerStep> {
        use ServerState as S;
        match (self, step) {
            (S::Claimed, ServerStep::Provision) => Ok(S::Provisioning),
            (S::Provisioning, ServerStep::Accepted) => Ok(S::Booting),
            (S::Claimed | S::Provisioning | S::Booting | S::Suspended | S::Lost, ServerStep::Joined) => Ok(S::Joined),
            (S::Joined, ServerStep::Admitted) => Ok(S::Ready),
            (S::Terminating, ServerStep::Uncordon) => Ok(S::Ready),
            (S::Terminating, ServerStep::Terminate) => Ok(S::Terminating),
            (S::Ready | S::Draining | S::Terminating, ServerStep::Cordon) => Ok(S::Cordoned),
            (S::Cordoned | S::Draining, ServerStep::Uncordon) => Ok(S::Ready),
            (S::Ready | S::Cordoned, ServerStep::Drain) => Ok(S::Draining),
            (S::Draining | S::Cordoned | S::Failed | S::Lost | S::Booting, ServerStep::Terminate) => Ok(S::Terminating),
            (
                S::Claimed
                | S::Provisioning
                | S::Booting
                | S::Joined
                | S::Ready
                | S::Cordoned
                | S::Draining
                | S::Terminating
                | S::Gone
                | S::Failed
                | S::Lost,
                ServerStep::Vanished,
            ) => Ok(S::Gone),
            (S::Joined | S::Ready | S::Cordoned | S::Draining, ServerStep::Silent) => Ok(S::Lost),
            (S::Claimed | S::Provisioning | S::Booting | S::Joined, ServerStep::Fail) => Ok(S::Failed),
            (state, step) => Err(IllegalServerStep { state, step }),
        }
    }

    /// The name in JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Provisioning => "provisioning",
            Self::Booting => "booting",
            Self::Joined => "joined",
            Self::Ready => "ready",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Terminating => "terminating",
            Self::Gone => "gone",
            Self::Suspended => "suspended",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Ours.
    pub id: ServerId,
    /// The provider by name.
    pub provider: Name,
    /// The provider's own id.
    pub provider_id: String,
    /// Where it is in its life.
    pub state: ServerState,
    /// Why, for people.
    pub reason: String,
    /// Since when.
    pub since: WallTime,
    /// Zone, where there are zones.
    pub zone: Option<String>,
    /// Offering that it is of.
    pub offering: String,
    /// The boot that is running.
    pub incarnation: String,
    /// Address of its containers as the Manager's host reaches them.
    pub address: IpAddr,
    /// What containers can use.
    pub capacity: Resources,
    /// What containers have reserved.
    pub allocated: Resources,
    /// Containers on it.
    pub containers: u32,
    /// Whether it runs images, and nothing else; programs and nothing else where it does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub images: bool,
    /// How it came, and why it goes.
    #[serde(default)]
    pub tenure: Tenure,
}

impl Server {
    /// Whether its provider has been asked to let it go, or is to be asked.
    pub(crate) fn is_about_to_go(&self) -> bool {
        let asks = |it: &Rearrangement| it.give_back.is_some() && !it.cleared;
        self.state == ServerState::Terminating || self.tenure.rearrangement.as_ref().is_none_or(asks)
    }

    /// Whether it has joined, and nobody has said yet what its provider calls it.
    pub(crate) fn is_nameless(&self) -> bool {
        self.provider_id.is_empty() && !matches!(self.state, ServerState::Claimed | ServerState::Provisioning)
    }

    /// The step back from being emptied: it takes new containers again, unless a user wants none on it.
    pub(crate) const fn step_back(&self) -> ServerStep {
        if self.tenure.cordoned { ServerStep::Cordon } else { ServerStep::Uncordon }
    }
}

#[cfg(test)]
mod tests;
