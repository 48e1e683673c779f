//! What agents say: any bytes, in any order, are refused or change what the Manager knows of one server, and no more.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cocktail_agent::wire::fuzzing::from_agent(bytes));
