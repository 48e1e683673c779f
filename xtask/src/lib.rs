//! The part of the development commands that tests link against.
//!
//! Start at [`skip_if!`]: a test that needs something which this machine may lack says so in its first line. The
//! commands themselves (`cargo xtask check`, `test`, `bench`) are in the program of the same name, which reads what
//! this module writes. It stays cheap to compile: every test program of the workspace may link it.

pub mod condition;
pub mod engine;
pub mod registry;
pub mod skip;

pub use condition::Condition;
