//! Whole-system scenarios: real processes, started and judged through the real `cocktail` program.
//!
//! Every test has a [`Home`](cocktail_tests::Home) of its own and ends with `finish`, which fails where anything is left.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod agents;
mod bootstrap;
mod commands;
mod crash;
mod disk;
mod drains;
mod embed;
mod endpoints;
mod engine;
mod faults;
mod handover;
mod jobs;
mod manifests;
mod net;
mod production;
mod python;
mod rollouts;
mod scaling;
mod sdk;
mod services;
mod shop;
mod unit_table;
mod warm;
mod witness;
mod workers;

use cocktail_tests::Home;

/// A worker that starts at once; see its source for what it can be told.
const WORKER: &str = env!("CARGO_BIN_EXE_test-worker");

/// One Unit `web` in the map `prod` that answers through a service port with `word`; more keys can follow.
fn web(port: u16, replicas: u32, word: &str) -> String {
    format!(
        "[maps.prod.units.web]\ncommand = [\"{WORKER}\", \"serve\", \"{word}\"]\nreplicas = {replicas}\n\
         ports.http = {{ service = {port} }}\nready = {{ http = \"/\", every = \"100ms\" }}\n\
         stop = {{ signal = \"TERM\", grace = \"2s\" }}\n"
    )
}

/// A web server that finishes what it was asked, and fails as it is told; see its source.
const WEB: &str = env!("CARGO_BIN_EXE_web-worker");

/// One Unit `web` in the map `prod` that answers through a service port, each time with `version` first. `env` are further
/// variables, each after a comma; more keys can follow.
fn site(port: u16, version: &str, env: &str, more: &str) -> String {
    format!(
        "[maps.prod.units.web]\ncommand = [\"{WEB}\"]\nenv = {{ VERSION = \"{version}\"{env} }}\n\
         ports.http = {{ service = {port} }}\nready = {{ http = \"/ready\", every = \"100ms\", timeout = \"5s\" }}\n\
         {more}\n"
    )
}

#[test]
fn a_home_that_started_nothing_ends_with_nothing() {
    let home = Home::new();
    assert!(home.taken_ports().is_empty());
    home.finish();
}
