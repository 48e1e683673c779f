//! The API behind a real socket, with a Manager that is made up.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod errors;
mod exec;
mod garbage;
mod limits;
mod metrics;
mod peers;
mod round_trip;
mod schema;
mod socket;
mod streams;
mod support;
