//! What proves an orchestrator and its back ends: a simulated world of many servers, and what must hold in it.
//!
//! Start at [`sim`].

pub mod sim;
