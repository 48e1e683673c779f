//! The worker protocol: whatever a worker sends is told on within its bounds, or ends its session.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cocktail_agent::hub::fuzzing::messages(bytes));
