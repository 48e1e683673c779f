//! Docker engines as Servers: containers from images.
//!
//! Start at [`DockerBuilder`], which makes a [`DockerProvider`]: each engine that its configuration names is a server, whose
//! runtime makes containers from images, probes them, and finds them again after this process, the engine or both died.
//!
//! What always holds:
//! - An engine's list and inspect are the truth; its events are hints to look.
//! - What does not carry our store's label is never touched, whatever its name.
//! - A container and its generation are one object in the engine, which is started once. The engine restarts nothing.
//! - An engine that does not answer says nothing about its containers.

mod body;
mod build;
mod builder;
mod check;
mod client;
mod config;
mod context;
mod error;
mod exec;
pub mod guard;
mod image;
mod label;
mod line;
mod logs;
mod network;
mod pausing;
mod provider;
mod prune;
mod registry;
mod resolve;
mod runtime;
mod shared;
mod steps;
mod target;
mod times;
mod tls;
mod usage;
mod volume;
mod watch;

pub use builder::DockerBuilder;
pub use config::{DockerConfig, EngineCapacity, EngineConfig, EngineTls};
pub use provider::DockerProvider;
