//! The Orchestrator: cocktail's [`Manager`](cocktail_core::contract::Manager) inside a process.
//!
//! Start at [`Orchestrator`] and [`Builder`]. One task, the *writer*, owns the state: it collects what was observed and
//! asked for, lets the planner decide, commits the turn, and only then hands operations to the executor, whose outcomes
//! are observations again. Nothing else changes the state; everybody else sends to the writer.
//!
//! It is a good guest: no signal handler, no global subscriber, no runtime of its own. Several Orchestrators fit in one
//! process. It decides nothing itself (that is `cocktail-core`) and touches no process, file or socket (that is the
//! provider's runtime and the store).
//!
//! Spans for whoever has a subscriber (names and fields stay as they are; further fields may come):
//!
//! | span | level | fields |
//! | --- | --- | --- |
//! | `cocktail.turn` | debug | `seq` of the committed turn, number of its `events` and `operations` |
//! | `cocktail.operation` | info | `id`, `kind` (`start`, `stop`, `remove`), `container`, `unit`, `attempt`, and when it ends `outcome`: `done`, `failed: …`, `dropped` |
//!
//! An operation follows from the turn that intended it, and outlives it.

mod agents;
mod apply;
mod builder;
mod builds;
mod clock;
mod endpoints;
mod executor;
mod fleet;
mod floor;
mod images;
mod logs;
mod monitor;
mod observe;
mod orchestrator;
mod prune;
mod routing;
mod schedule;
mod shared;
mod streams;
mod volumes;
mod watch;
mod writer;

pub use builder::{Builder, last_settings};
pub use orchestrator::{Ended, Orchestrator};
