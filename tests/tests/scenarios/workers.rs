//! Workers that do everything wrong that a worker can do: each ends in the documented state, and harms nobody.

/// A worker that falls ill on request; see its source for what it can be told.
pub(crate) const FAULTY: &str = env!("CARGO_BIN_EXE_faulty-worker");
