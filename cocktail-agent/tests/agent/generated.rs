//! The generated code is that of the `.proto`, so that nobody who builds the crate needs a generator.

use std::path::Path;
use std::{env, fs};

/// Messages whose `Debug` is written by hand.
const SECRET: [&str; 4] = ["Register", "Resume", "Registered", "Microservice"];

/// Set to write the file instead of comparing it.
const UPDATE: &str = "COCKTAIL_UPDATE_GENERATED";

#[test]
fn the_generated_code_is_that_of_the_proto() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile([root.join("proto/worker.proto")], [root.join("proto")]).unwrap();
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .out_dir(out.path())
        .build_transport(false)
        // They hold what proves who a worker is, and what its configuration may hold.
        .skip_debug(SECRET)
        .client_mod_attribute(".", "#[cfg(feature = \"worker\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"hub\")]")
        .compile_fds(descriptors)
        .unwrap();
    let made = fs::read_to_string(out.path().join("cocktail.worker.v1.rs")).unwrap();
    let kept = root.join("src/protocol/generated.rs");
    if env::var_os(UPDATE).is_some() {
        fs::write(&kept, &made).unwrap();
    }
    let there = fs::read_to_string(&kept).unwrap_or_default();
    assert!(made == there, "{} is not up to date: run this test with {UPDATE}=1", kept.display());
}
