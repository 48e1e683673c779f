//! What Managers say: any bytes, in any order, are refused or are orders that an agent can carry out.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cocktail_agent::wire::fuzzing::to_agent(bytes));
