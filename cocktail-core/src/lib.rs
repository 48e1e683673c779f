//! The core of cocktail: what things are, what may happen to them, and what to do next.
//!
//! Everything here is a value or a pure function. [`state::State`] holds what was asked for and what was seen,
//! [`state::State::apply`] is the only way to change it, and [`plan::plan`] says what to do about it. The traits in
//! [`contract`] are what stores, providers and runtimes implement and what a Manager offers.
//!
//! Start at [`state`] and [`plan`]; [`view`] holds what users see as JSON.
//!
//! Nothing here reads a clock, a socket, a file or a random source, and nothing iterates in hash order: the same
//! events give the same state and the same plan, live, in a replay after a crash and in a simulation.

pub mod backoff;
pub mod command;
pub mod container;
pub mod contract;
pub mod error;
pub mod event;
pub mod fleet;
pub mod id;
mod lookup;
pub mod manifest;
pub mod name;
pub mod operation;
pub mod plan;
pub mod ports;
pub mod quantity;
pub mod rollout;
pub mod scaling;
pub mod server;
pub mod session;
pub mod settings;
mod short;
pub mod spec;
pub mod state;
pub mod text;
pub mod time;
pub mod unit;
pub mod view;
pub mod why;

#[cfg(test)]
mod world;
