//! Workers that know their Manager: the protocol, the SDK that workers use, and the other end of it.
//!
//! A program that knows nothing of cocktail is run and watched with environment variables, probes and signals. One that
//! uses [`worker`] can do more: it loads what it is told, waits with nothing loaded so that it serves within milliseconds
//! when it is needed, asks for help, says what is wrong, and leaves without losing a request.
//!
//! - [`worker`] (feature `worker`): a program registers its microservices and runs. Start at [`worker::Worker`].
//! - [`balance`] (feature `worker`): calls go to the container of a Unit that has least to do. Start at
//!   [`balance::Balancer`].
//! - [`hub`] (feature `hub`): whoever runs workers keeps their sessions. Start at [`hub::Hub`].
//! - `identity` (feature `identity`): who is who between a Manager and the agents of its servers. Start at
//!   `identity::Authority`.
//! - [`protocol`]: what the two say, generated from `proto/worker.proto`. A worker in another language generates its own.
//!
//! - `artifact` (feature `artifact`): a server that is not the Manager's own gets the files of a command. Start at
//!   `artifact::Artifacts`.
//! - `agent` (feature `agent`): the process on a server that the Manager drives. Start at `agent::Agent`.
//! - `registries` (feature `registries`): what proves to a registry of images who asks.
//! - `gate` (feature `gate`): where agents connect to the Manager. Start at `gate::AgentGate`.
//!
//! Neither end of the worker protocol knows what a Unit or a Manager is, so they depend on no other crate of ours; what is
//! for the agents of servers depends on the core.

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "artifact")]
pub mod artifact;
#[cfg(feature = "worker")]
pub mod balance;
#[cfg(feature = "worker")]
mod channel;
#[cfg(feature = "gate")]
pub mod gate;
#[cfg(feature = "hub")]
pub mod hub;
#[cfg(feature = "identity")]
pub mod identity;
pub mod protocol;
#[cfg(feature = "registries")]
pub mod registries;
#[cfg(feature = "values")]
pub mod values;
#[cfg(any(feature = "agent", feature = "fuzzing", feature = "gate"))]
pub mod wire;
#[cfg(feature = "worker")]
pub mod worker;
