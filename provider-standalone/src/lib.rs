//! This machine as a Server: worker processes through the keeper.
//!
//! Start at [`StandaloneBuilder`], which makes a [`StandaloneProvider`]: a provider of one server, whose runtime starts
//! processes through the keeper of a data dir, probes them, and finds them again after this process or the keeper died.
//!
//! Processes are held by the keeper, so that they outlive this process; what is kept here is only what can be asked of
//! the keeper again. Secrets are resolved at a start and are in no Debug, error or file.

mod accepted;
mod bind;
mod builder;
mod check;
mod client;
mod config;
mod disk;
mod error;
mod exec;
mod forwarder;
mod launch;
mod logs;
mod machine;
mod mark;
mod probe;
mod provider;
mod release;
mod runtime;
mod shared;
mod sockets;
mod usage;
mod users;
mod volumes;
mod workers;

pub use builder::StandaloneBuilder;
pub use config::{KeeperMode, Runs, StandaloneConfig};
pub use provider::StandaloneProvider;
pub use release::{Release, Worker};
