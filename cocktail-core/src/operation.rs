//! Operations: durable intents with an outcome.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;
use crate::id::{ContainerId, Generation, OperationId, UnitId};
use crate::time::{ManagerTime, WallTime};

/// One attempt to fulfil a claim by one outside call. Durable before the call is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What is done.
    pub kind: OperationKind,
    /// To which container.
    pub container: ContainerId,
    /// Of which Unit.
    pub unit: UnitId,
    /// Which start of the container.
    pub generation: Generation,
    /// Where it stands.
    pub state: OperationState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why it was decided.
    pub because: String,
    /// Since when.
    pub since: WallTime,
    /// When it was intended.
    pub intended: ManagerTime,
    /// When it is given up; ends of containers are never given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<ManagerTime>,
}

/// What an operation does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Prepare and start one generation.
    Start,
    /// Ask it to end, then end it by force.
    Stop {
        /// Signal that asks.
        signal: i32,
        /// Time until everything is killed.
        grace: Duration,
    },
    /// Forget what has ended, with its files.
    Remove,
    /// Tell a worker that waits what to load.
    Assign,
    /// Have a worker close what it has loaded, and wait.
    Unload {
        /// Time until what is in flight has to have ended.
        grace: Duration,
        /// For whom it waits from then on.
        home: UnitId,
    },
}

impl OperationKind {
    /// The name in JSON and tables.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop { .. } => "stop",
            Self::Remove => "remove",
            Self::Assign => "assign",
            Self::Unload { .. } => "unload",
        }
    }
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperationState {
    /// Durable, not sent.
    Intended,
    /// Sent.
    Issued,
    /// Done.
    Succeeded,
    /// Not done, surely.
    Failed,
    /// It may have acted; being looked up.
    OutcomeUnknown,
    /// Looked up after its outcome was unknown.
    Resolved,
}

impl OperationState {
    /// The name in JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Issued => "issued",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::OutcomeUnknown => "outcome-unknown",
            Self::Resolved => "resolved",
        }
    }
}

/// Why an operation failed, as far as the next decision depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind.
    pub kind: ErrorKind,
    /// One line.
    pub message: String,
    /// The port that turned out taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}
