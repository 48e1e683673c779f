//! The worker protocol from outside: what is generated, both ends against each other, and workers that mean harm.

#![cfg_attr(
    all(feature = "hub", feature = "worker"),
    expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")
)]

#[cfg(all(feature = "hub", feature = "worker"))]
mod endpoints;
mod generated;
#[cfg(all(feature = "hub", feature = "worker"))]
mod hostile;
#[cfg(all(feature = "hub", feature = "worker"))]
mod pair;
#[cfg(all(feature = "hub", feature = "worker"))]
mod support;
