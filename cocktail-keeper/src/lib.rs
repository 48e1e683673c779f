//! The keeper: a small process that outlives its Manager and holds what must not die with it.
//!
//! It spawns and reaps workers, holds their pipes and writes their logs, holds listening sockets, forwards service ports
//! by the last table it was given, and ends the workers when a lease runs out. It plans nothing and stores nothing.
//! Call [`init`] as the first line of `main`, [`spawn`] to have a keeper, and [`KeeperClient::connect`] to command it.
//! This crate knows nothing of cocktail's nouns but ids: it must understand older and newer Managers.

mod client;
mod error;
mod frame;
mod options;
pub mod protocol;

pub use client::{
    EventStream, ExecInput, ExecOutput, ExecSession, Hello, KeeperClient, LogItem, LogRecord, LogStream,
};
pub use error::{KeeperError, Result};
pub use options::{KeeperHandle, KeeperOptions, init, serve_in_process, spawn};
