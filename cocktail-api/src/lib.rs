//! REST and event streams over the Unix socket of a Manager, and the client of it.
//!
//! The two ends are features. `server` gives [`Api`], which answers for any [`Manager`]; `client` gives [`Client`],
//! which is a [`Manager`] itself, so that a program works the same with an Orchestrator of its own and with one that
//! runs in another process. What both ends must agree on is in [`wire`] and [`frame`], for people in [`OPENAPI`].
//!
//! The socket is the boundary of trust: its mode is 0600, and a peer that is neither this user nor root is answered
//! with 403. The peer's uid becomes the actor of every command; nothing that a client sends can change it.
//! No request, however wrong, panics, and no client, however slow, makes the Manager wait.
//!
//! What a command means is the Manager's business; this crate only carries it.
//!
//! [`Manager`]: cocktail_core::contract::Manager

#[cfg(any(feature = "client", feature = "server"))]
mod address;
pub mod frame;
pub mod wire;

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "server")]
mod server;

#[cfg(feature = "client")]
pub use client::Client;
#[cfg(feature = "server")]
pub use server::{Api, ApiLimits, MetricsListener, metrics, serve};

/// The description of the API (OpenAPI 3.1, JSON), as `GET /v1/openapi.json` answers it.
pub const OPENAPI: &str = include_str!("../openapi.json");
