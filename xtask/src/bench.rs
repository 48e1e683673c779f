//! `cargo xtask bench`: builds what is measured and what measures, then lets `cocktail-bench` do it.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::context::{Context, run as run_command};
use crate::setup::{self, Tool};

/// What was asked for on the command line.
#[derive(Debug)]
pub(crate) struct Options {
    /// The benchmark; all of them if none is named.
    pub(crate) name: Option<String>,
    /// Where the result goes beside the terminal.
    pub(crate) json: Option<PathBuf>,
    /// Install the peers first.
    pub(crate) setup: bool,
    /// How many rounds, instead of what each benchmark thinks enough.
    pub(crate) rounds: Option<u32>,
}

/// Builds the program and the benchmarks with the release profile, and runs them.
///
/// # Errors
/// When something does not build, a peer is missing, or a measurement fails. A bar that is missed is not an error.
pub(crate) fn run(context: &Context, options: &Options) -> Result<()> {
    if options.setup || context.ci {
        setup::install(context, &Tool::PEERS, true)?;
    }
    // One after the other: together, cargo would build the program with the features that the benchmarks ask for.
    for package in ["cocktail-cli", "cocktail-benches", "cocktail-example-load"] {
        run_command(&mut context.cargo(&["build", "--release", "--locked", "--quiet", "--package", package]))?;
    }
    let mut command = context.command(context.built("release", "cocktail-bench"));
    command.args(&options.name).arg("--cocktail").arg(context.built("release", "cocktail"));
    command.arg("--work-dir").arg(context.target.join("bench")).arg("--source").arg(&context.root);
    for (tool, option) in [(Tool::HaProxy, "--haproxy"), (Tool::Supervisor, "--supervisord"), (Tool::Pm2, "--pm2")] {
        if let Some(program) = tool.find(context) {
            command.arg(option).arg(program);
        }
    }
    if let Some(file) = &options.json {
        command.arg("--json").arg(env::current_dir().context("there is no working directory")?.join(file));
    }
    if let Some(rounds) = options.rounds {
        command.arg("--rounds").arg(rounds.to_string());
    }
    run_command(&mut command)
}
