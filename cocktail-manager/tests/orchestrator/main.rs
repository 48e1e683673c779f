//! The Orchestrator over a store in memory and a runtime that only pretends.

mod behaviour;
mod fleet;
mod pretend;
mod production;
