//! The worker protocol from outside: what is generated, both ends against each other, and workers that mean harm.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[cfg(feature = "artifact")]
mod artifact;
mod endpoints;
mod generated;
mod hostile;
mod pair;
mod support;
