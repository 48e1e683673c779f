//! What the targets share. Run them with `cargo xtask fuzz`.
//!
//! A target hands bytes to a decoder and fails by panicking; overflows panic, too. `examples/seeds.rs` writes what the
//! fuzzer starts from: without real manifests, turns and frames it would not get past the parsers.

use cocktail_core::state::State;

/// Looks at a state in every way that users can.
pub fn look(state: &State) {
    state.unit_views();
    state.container_views();
    state.server_views();
    state.endpoint_views();
    state.operation_views();
    state.volume_views();
    state.routing_table();
    let names = state.units.keys().map(ToString::to_string);
    let names = names.chain(state.containers.keys().map(ToString::to_string));
    for name in names.chain(state.servers.keys().map(ToString::to_string)).take(8) {
        // A name can mean several things; then it is refused.
        let _ = state.why(&name);
        let _ = state.inspect(&name);
    }
}
