//! The generated code is that of the `.proto`, so that nobody who builds the crate needs a generator.

use std::path::Path;
use std::{env, fs};

/// Set to write the file instead of comparing it.
const UPDATE: &str = "COCKTAIL_UPDATE_GENERATED";

/// A `.proto`, and what is made of it.
struct Made {
    proto: &'static str,
    package: &'static str,
    kept: &'static str,
    /// Messages whose `Debug` is written by hand.
    secret: &'static [&'static str],
    client: &'static str,
    server: &'static str,
    codec: &'static str,
}

fn check(made: &Made) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile([root.join("proto").join(made.proto)], [root.join("proto")]).unwrap();
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .out_dir(out.path())
        .build_transport(false)
        .codec_path(made.codec)
        .skip_debug(made.secret)
        .client_mod_attribute(".", format!("#[cfg(feature = \"{}\")]", made.client))
        .server_mod_attribute(".", format!("#[cfg(feature = \"{}\")]", made.server))
        .compile_fds(descriptors)
        .unwrap();
    let text = fs::read_to_string(out.path().join(made.package)).unwrap();
    let kept = root.join(made.kept);
    if env::var_os(UPDATE).is_some() {
        fs::write(&kept, &text).unwrap();
    }
    let there = fs::read_to_string(&kept).unwrap_or_default();
    assert!(text == there, "{} is not up to date: run this test with {UPDATE}=1", kept.display());
}

#[test]
fn the_generated_code_of_workers_is_that_of_the_proto() {
    check(&Made {
        proto: "worker.proto",
        package: "cocktail.worker.v1.rs",
        kept: "src/protocol/generated.rs",
        // They hold what proves who a worker is, and what its configuration may hold.
        secret: &["Register", "Resume", "Registered", "Microservice"],
        client: "worker",
        server: "hub",
        codec: "tonic_prost::ProstCodec",
    });
}

#[test]
fn the_generated_code_of_agents_is_that_of_the_proto() {
    check(&Made {
        proto: "agent.proto",
        package: "cocktail.agent.v1.rs",
        kept: "src/wire/generated.rs",
        // A secret, and frames with values of secrets in them.
        secret: &["JoinRequest", "Frame"],
        client: "agent",
        server: "gate",
        codec: "crate::wire::LeanCodec",
    });
}
