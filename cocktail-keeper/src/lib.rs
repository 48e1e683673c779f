//! The keeper: a small process that outlives its Manager and holds what must not die with it.
//!
//! It spawns and reaps workers, holds their pipes and writes their logs, holds listening sockets, forwards service ports
//! by the last table it was given, and ends the workers when a lease runs out. It plans nothing and stores nothing.
//! Call [`init`] as the first line of `main`, [`spawn`] to have a keeper, and [`KeeperClient::connect`] to command it.
//! This crate knows nothing of cocktail's nouns but ids: it must understand older and newer Managers.

mod client;
mod error;
mod forward;
mod frame;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod life;
mod logs;
mod options;
mod procfs;
pub mod protocol;
mod server;
mod sockets;
mod sys;

pub use client::{EventStream, ExecInput, ExecOutput, ExecSession, Hello, KeeperClient, LogItem, LogRecord, LogStream};
pub use error::{KeeperError, Result};
pub use life::{KeeperHandle, init, serve_in_process, spawn};
pub use options::KeeperOptions;
