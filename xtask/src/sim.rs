//! `cargo xtask sim`: builds the simulated world with the release profile and runs seeds of it.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::context::{Context, run as run_command};

/// Where the table of planted bugs stands.
const TABLE: &str = "docs/testing.md";
/// Lines around the table.
const MARKS: (&str, &str) = ("<!-- planted: begin -->\n", "<!-- planted: end -->");

/// What was asked for on the command line.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// How many seeds.
    pub(crate) seeds: Option<u64>,
    /// The first of them.
    pub(crate) from: Option<u64>,
    /// Tell everything that happens with this seed.
    pub(crate) trace: Option<u64>,
    /// How many simulated seconds things go wrong, instead of two hours.
    pub(crate) faulty: Option<u64>,
    /// Run the planted bugs and say which seed and invariant caught which: into the document as well, but for CI.
    pub(crate) planted: bool,
}

/// Runs what failed once and then seeds, or one seed with a trace, or the planted bugs.
///
/// # Errors
/// When it does not build, a seed has a breach, or a planted bug is not caught.
pub(crate) fn run(context: &Context, options: &Options) -> Result<()> {
    let build = ["build", "--release", "--locked", "--quiet", "--package", "cocktail-testkit"];
    run_command(&mut context.cargo(&build))?;
    let mut command = context.command(context.built("release", "cocktail-sim"));
    if options.planted {
        let output = command.arg("--planted").output().context("the simulation does not start")?;
        let table = String::from_utf8(output.stdout).context("the table is no text")?;
        println!("{table}");
        ensure!(output.status.success(), "a planted bug was not caught");
        if context.ci {
            // Which seed it is changes with every change of the planner; that there is one does not.
            return Ok(());
        }
        let path = context.root.join(TABLE);
        let text = fs::read_to_string(&path).with_context(|| format!("{TABLE} cannot be read"))?;
        let (before, rest) = text.split_once(MARKS.0).with_context(|| format!("{TABLE} has no place for the table"))?;
        let (_, after) = rest.split_once(MARKS.1).with_context(|| format!("{TABLE} has no end of the table"))?;
        fs::write(&path, format!("{before}{}{table}{}{after}", MARKS.0, MARKS.1))?;
        return Ok(());
    }
    if options.trace.is_none() {
        run_command(context.command(context.built("release", "cocktail-sim")).arg("--regressions"))?;
    }
    let given = [
        ("--seeds", options.seeds),
        ("--from", options.from),
        ("--trace", options.trace),
        ("--faulty", options.faulty),
    ];
    for (option, value) in given {
        if let Some(value) = value {
            command.arg(option).arg(value.to_string());
        }
    }
    run_command(&mut command)
}
