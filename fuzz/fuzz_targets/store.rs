//! Rows of the store: any bytes are a row of each table or are refused.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cocktail_store::fuzzing::rows(bytes));
