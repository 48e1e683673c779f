//! The worker protocol from outside: what is generated, both ends against each other, and workers that mean harm. And
//! identities: who is let in, and who is not; also at the gate, over real sockets.

#![cfg_attr(
    any(feature = "artifact", feature = "identity", all(feature = "hub", feature = "worker")),
    expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")
)]

#[cfg(feature = "artifact")]
mod artifact;
#[cfg(all(feature = "hub", feature = "worker"))]
mod endpoints;
#[cfg(all(feature = "agent", feature = "gate"))]
mod gate;
mod generated;
#[cfg(all(feature = "hub", feature = "worker"))]
mod hostile;
#[cfg(feature = "identity")]
mod identity;
#[cfg(all(feature = "hub", feature = "worker"))]
mod pair;
#[cfg(all(feature = "hub", feature = "worker"))]
mod support;
