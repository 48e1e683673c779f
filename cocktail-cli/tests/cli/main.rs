//! The program as scripts see it: streams, exit codes, signals and what stays behind.
//!
//! Units here have no containers, or ones that sleep: what workers do is tested with the whole system.

#![expect(clippy::unwrap_used, reason = "what helpers of tests do must work, or the test fails")]

mod import;
mod program;
mod replay;
mod servers;
mod simulate;
mod support;
mod terminal;
mod units;
