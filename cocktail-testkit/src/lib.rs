//! What people need who write a provider, a runtime or a store for the cocktail orchestrator.
//!
//! Start at [`conformance`]: three suites that take trait objects and say, case by case, whether they keep the promises
//! of the contracts in `cocktail_core::contract`.
//!
//! What always holds: nothing here knows a back end; what a case needs of the outside world, a fixture gives it.

pub mod conformance;
