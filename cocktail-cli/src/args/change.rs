//! What is asked of one object or several.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{WaitArg, duration};

/// One object.
#[derive(Debug, Args)]
pub(crate) struct ObjectArg {
    /// Unit, container, server or operation
    pub(crate) object: String,
}

/// Objects, and whether to wait.
#[derive(Debug, Args)]
pub(crate) struct ObjectsArgs {
    /// Unit, map, Service or container
    #[arg(required = true, value_name = "OBJECT")]
    pub(crate) objects: Vec<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArg,
}

/// `scale`.
#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// The Unit
    pub(crate) unit: String,
    /// How many containers it shall have
    pub(crate) count: u32,
    #[command(flatten)]
    pub(crate) wait: WaitArg,
}

/// `extend` and `reduce`.
#[derive(Debug, Args)]
pub(crate) struct StepArgs {
    /// The Unit
    pub(crate) unit: String,
    /// How many containers
    #[arg(default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    #[command(flatten)]
    pub(crate) wait: WaitArg,
}

/// `rollout`.
#[derive(Debug, Subcommand)]
pub(crate) enum RolloutCommand {
    /// Print where the last rollout stands
    Status(UnitArg),
    /// Replace nothing more until it is resumed; what serves stays
    Pause(UnitArg),
    /// Let it go on; what failed is tried again
    Resume(UnitArg),
    /// Call the canary good, so that the others follow
    Promote(UnitArg),
    /// Go back to what served before
    Abort(UnitArg),
}

/// One Unit.
#[derive(Debug, Args)]
pub(crate) struct UnitArg {
    /// The Unit
    pub(crate) unit: String,
}

/// One server.
#[derive(Debug, Args)]
pub(crate) struct ServerArg {
    /// The server by id or unique prefix
    pub(crate) server: String,
}

/// `rearrange`.
#[derive(Debug, Args)]
pub(crate) struct RearrangeArgs {
    /// The server by id or unique prefix
    pub(crate) server: String,
    /// Longest time for it; what has not moved by then stays, and the server is used again
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) deadline: Option<Duration>,
    /// At the deadline, drain what has not moved although nothing replaces it yet
    #[arg(long, requires = "deadline")]
    pub(crate) force: bool,
    /// Give the server back to its provider once it is empty
    #[arg(long)]
    pub(crate) give_back: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArg,
}

/// `rollback`.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The Unit
    pub(crate) unit: String,
    /// The revision to go back to [default: the one that served before]
    #[arg(long, value_name = "REVISION")]
    pub(crate) to: Option<u64>,
    #[command(flatten)]
    pub(crate) wait: WaitArg,
}
