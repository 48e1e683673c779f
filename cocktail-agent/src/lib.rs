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
//! - [`protocol`]: what the two say, generated from `proto/worker.proto`. A worker in another language generates its own.
//!
//! - [`artifact`] (feature `artifact`): a server that is not the Manager's own gets the files of a command. Start at
//!   [`artifact::Artifacts`].
//!
//! Neither end of the protocol knows what a Unit or a Manager is, so they depend on no other crate of ours; `artifact` does, on
//! the core.

#[cfg(feature = "artifact")]
pub mod artifact;
#[cfg(feature = "worker")]
pub mod balance;
#[cfg(feature = "worker")]
mod channel;
#[cfg(feature = "hub")]
pub mod hub;
pub mod protocol;
#[cfg(feature = "worker")]
pub mod worker;
