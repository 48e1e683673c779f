//! Snapshots: any bytes are a state or are refused, and a state can be looked at and written again.

#![no_main]

use cocktail_core::state::State;
use cocktail_fuzz::look;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(state) = State::from_snapshot(bytes) else { return };
    look(&state);
    let stored = state.to_snapshot().expect("a state that was read can be written");
    let read = State::from_snapshot(&stored).expect("what was written can be read");
    assert_eq!(read, state, "a state changes by being stored");
});
