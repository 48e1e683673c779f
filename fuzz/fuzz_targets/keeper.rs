//! The keeper's protocol: any bytes, in any pieces, are frames or close the connection.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cocktail_keeper::fuzzing::frames(bytes));
