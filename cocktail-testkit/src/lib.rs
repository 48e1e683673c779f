//! What proves an orchestrator and its back ends, for people who write a provider, a runtime or a store.
//!
//! Start at [`conformance`]: three suites that take trait objects and say, case by case, whether they keep the promises
//! of the contracts in `cocktail_core::contract`. [`sim`] is a simulated world of many servers, driven by the planner that
//! the Manager has, and what must hold in it.
//!
//! What always holds: nothing here knows a back end; what a case needs of the outside world, a fixture gives it.

pub mod conformance;
pub mod sim;
