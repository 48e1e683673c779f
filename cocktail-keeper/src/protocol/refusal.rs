//! Every "no" that a keeper can say. Texts name things, never values of the environment.

use serde::{Deserialize, Serialize};

/// Why a worker could not be started. Nothing of it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum StartError {
    /// No such program, in `PATH` or at that path.
    #[error("program `{program}` was not found")]
    NotFound {
        /// As it was asked for.
        program: String,
    },
    /// The program may not be executed by that user.
    #[error("program `{program}` may not be executed")]
    PermissionDenied {
        /// As it was asked for.
        program: String,
    },
    /// The user does not exist on this machine.
    #[error("user `{user}` does not exist")]
    NoSuchUser {
        /// As it was asked for.
        user: String,
    },
    /// The keeper may not become that user.
    #[error("the keeper may not run processes as user `{user}`")]
    UserDenied {
        /// As it was asked for.
        user: String,
    },
    /// The working directory cannot be entered.
    #[error("working directory `{cwd}` cannot be entered (errno {errno})")]
    Cwd {
        /// As it was asked for.
        cwd: String,
        /// What the kernel said.
        errno: i32,
    },
    /// Anything else, with the step that failed.
    #[error("{step} failed (errno {errno})")]
    Other {
        /// The step of the start.
        step: String,
        /// What the kernel said.
        errno: i32,
    },
}

/// Why a keeper did not do what it was asked. Nothing was changed unless the text says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The keeper belongs to another store.
    #[error("the keeper belongs to store {owner}")]
    WrongStore {
        /// Its store.
        owner: String,
    },
    /// A newer Manager is in command.
    #[error("epoch {current} is in command")]
    StaleEpoch {
        /// Its epoch.
        current: u64,
    },
    /// The lease does not descend from the one in command: the client's store is an older copy.
    #[error("the lease does not descend from the one in command, of epoch {current}")]
    OlderCopy {
        /// The epoch in command.
        current: u64,
    },
    /// No common version.
    #[error("the keeper speaks protocol {min} to {max}")]
    Version {
        /// Oldest it speaks.
        min: u32,
        /// Newest it speaks.
        max: u32,
    },
    /// The peer's user is neither the keeper's nor root.
    #[error("user {uid} may not command this keeper")]
    Peer {
        /// The peer's user.
        uid: u32,
    },
    /// A port is not free.
    #[error("port {port} is taken by {}", holder.as_deref().unwrap_or("another process"))]
    PortTaken {
        /// The port.
        port: u16,
        /// Process name and pid, or another container, when that could be found.
        holder: Option<String>,
    },
    /// The worker could not be started.
    #[error(transparent)]
    Start(StartError),
    /// The lease under which workers may run is over.
    #[error("the lease under which workers may run is over")]
    LeaseOver,
    /// The keeper does not know that container.
    #[error("container {container} is not known to the keeper")]
    NoSuchContainer {
        /// The container.
        container: String,
    },
    /// That generation was not prepared.
    #[error("container {container} generation {generation} is not prepared")]
    NotPrepared {
        /// The container.
        container: String,
        /// The generation.
        generation: u64,
    },
    /// The record is of another generation.
    #[error("container {container} is at generation {current}")]
    Generation {
        /// The container.
        container: String,
        /// The generation of the record.
        current: u64,
    },
    /// The container runs.
    #[error("container {container} is running")]
    Running {
        /// The container.
        container: String,
    },
    /// The container does not run.
    #[error("container {container} is not running")]
    NotRunning {
        /// The container.
        container: String,
    },
    /// Something was killed and is still there: a process in uninterruptible sleep.
    #[error("processes of container {container} do not end: {pids:?}")]
    Unkillable {
        /// The container.
        container: String,
        /// What is left.
        pids: Vec<u32>,
    },
    /// The events asked for are gone; list, then subscribe from the listing's number.
    #[error("events before {oldest} are gone")]
    Gap {
        /// The oldest that is still there.
        oldest: u64,
    },
    /// A bound of the keeper is reached.
    #[error("limit reached: {what}")]
    Limit {
        /// Which bound.
        what: String,
    },
    /// The request makes no sense.
    #[error("bad request: {why}")]
    BadRequest {
        /// What is wrong with it.
        why: String,
    },
    /// The machine refused.
    #[error("{what} failed (errno {errno})")]
    Io {
        /// The step.
        what: String,
        /// What the kernel said.
        errno: i32,
    },
    /// The keeper is ending.
    #[error("the keeper is ending")]
    Ending,
}
