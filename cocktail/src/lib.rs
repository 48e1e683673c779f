//! Run and scale workers from inside a Rust service, with no cluster to operate.
