//! The journal: lines that are each a turn or are refused; whatever turns say, replaying them never panics, gives the
//! same state each time, and a state that can be stored and looked at.

#![no_main]

use cocktail_core::event::Turn;
use cocktail_core::id::StoreId;
use cocktail_core::state::State;
use cocktail_fuzz::look;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let turns: Vec<Turn> =
        bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    if turns.is_empty() {
        return;
    }
    let replay = || {
        let mut state = State::new(StoreId::new("fuzz"));
        for turn in &turns {
            state.replay(turn);
        }
        state
    };
    let state = replay();
    assert_eq!(replay(), state, "the same turns have two meanings");
    look(&state);
    let stored = state.to_snapshot().expect("a replayed state can be written");
    let read = State::from_snapshot(&stored).expect("what was written can be read");
    assert_eq!(read, state, "a state changes by being stored");
});
