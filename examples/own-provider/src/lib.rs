//! A provider of one's own, small enough to be read in one go.
//!
//! Its "cloud" is a folder: a server is a folder in it, with a file that says whose it is, and the containers of a server
//! are child processes of this program. That is of little use, but everything that a real provider has to get right is
//! here. `docs/guide/provider.md` walks through it; `tests/conformance.rs` proves it.
//!
//! Read in this order: `cloud` (what the outside world offers), `provider` (servers), `runtime` (containers on one of
//! them), `worker` (one process).

mod cloud;
mod error;
mod exec;
mod output;
mod probe;
mod provider;
mod runtime;
mod worker;

pub use provider::FolderProvider;
