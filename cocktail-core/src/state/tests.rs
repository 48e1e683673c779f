//! Tests of what commands and events do to the state, on a simulated machine.

mod applies;
mod commands;
mod names;
mod restarts;
mod rosters;
mod texts;
