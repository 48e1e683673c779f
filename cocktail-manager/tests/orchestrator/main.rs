//! The Orchestrator over a store in memory and a runtime that only pretends.

mod behaviour;
mod fleet;
mod images;
mod pretend;
mod production;
