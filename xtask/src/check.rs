//! `cargo xtask check`: everything about the sources that needs no running program.
//!
//! [`run`] goes through all steps even when one fails, so that one run shows every complaint. A step that cannot run on
//! this machine is skipped with a reason; in CI that is a failure.

mod features;
mod layers;
mod paths;

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::context::{Context, output, run as run_command};
use crate::setup::{self, Tool};

/// What became of a step that did not fail.
enum Outcome {
    Passed,
    Skipped(String),
}

type Step = fn(&Context) -> Result<Outcome>;

/// The steps, quickest complaint first.
const STEPS: [(&str, Step); 10] = [
    ("format", format),
    ("lock file", lock_file),
    ("licence texts", licence_texts),
    ("machine paths", machine_paths),
    ("layers", layers),
    ("licences, bans, sources", deny),
    ("advisories", audit),
    ("clippy", clippy),
    ("each feature alone", each_feature),
    ("documentation", documentation),
];

/// Where RustSec's database lies, seen from the workspace.
const ADVISORIES: &str = "../shared/advisory-db";

/// Runs every step and prints one line for each, and one for all.
///
/// # Errors
/// When a step failed, or could not run in CI.
pub(crate) fn run(context: &Context) -> Result<()> {
    if context.ci {
        setup::install(context, &Tool::CHECK, false)?;
    }
    let begin = Instant::now();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, step) in STEPS {
        let start = Instant::now();
        let result = step(context);
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(Outcome::Passed) => {
                passed += 1;
                println!("check: ok      {seconds:6.1} s  {name}");
            }
            Ok(Outcome::Skipped(reason)) if !context.ci => {
                skipped += 1;
                println!("check: skipped {seconds:6.1} s  {name}: {reason}");
            }
            Ok(Outcome::Skipped(reason)) => {
                failed += 1;
                println!("check: FAILED  {seconds:6.1} s  {name}: {reason}");
            }
            Err(error) => {
                failed += 1;
                println!("check: FAILED  {seconds:6.1} s  {name}\n{error:#}");
            }
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("check: {passed} steps passed, {failed} failed, {skipped} skipped in {seconds:.0} s");
    if failed > 0 {
        bail!("{failed} of {} checks failed", STEPS.len());
    }
    Ok(())
}

fn passed(result: Result<()>) -> Result<Outcome> {
    result.map(|()| Outcome::Passed)
}

fn format(context: &Context) -> Result<Outcome> {
    passed(run_command(&mut context.cargo(&["fmt", "--all", "--check"])))
}

fn clippy(context: &Context) -> Result<Outcome> {
    let mut command = context.cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--quiet"]);
    passed(run_command(command.args(["--", "--deny", "warnings"])))
}

/// Only libraries: the program and the facade are both called `cocktail`, and would overwrite each other's pages.
fn documentation(context: &Context) -> Result<Outcome> {
    let mut command = context.cargo(&["doc", "--workspace", "--no-deps", "--lib", "--locked", "--quiet"]);
    passed(run_command(command.env("RUSTDOCFLAGS", "--deny warnings")))
}

fn each_feature(context: &Context) -> Result<Outcome> {
    passed(features::check_each(context))
}

fn lock_file(context: &Context) -> Result<Outcome> {
    output(context.command("git").args(["ls-files", "--error-unmatch", "Cargo.lock"]))?;
    passed(context.metadata(&[]).map(drop))
}

fn machine_paths(context: &Context) -> Result<Outcome> {
    passed(paths::check(context))
}

fn layers(context: &Context) -> Result<Outcome> {
    passed(layers::check(context))
}

fn deny(context: &Context) -> Result<Outcome> {
    if let Some(skipped) = missing(context, Tool::Deny) {
        return Ok(skipped);
    }
    passed(run_command(&mut context.cargo(&["deny", "--log-level", "error", "check", "licenses", "bans", "sources"])))
}

fn audit(context: &Context) -> Result<Outcome> {
    if let Some(skipped) = missing(context, Tool::Audit) {
        return Ok(skipped);
    }
    if !context.root.join(ADVISORIES).is_dir() {
        return Ok(Outcome::Skipped(format!("there is no folder {ADVISORIES}")));
    }
    passed(run_command(&mut context.cargo(&[
        "audit",
        "--no-fetch",
        "--db",
        ADVISORIES,
        "--deny",
        "warnings",
        "--quiet",
    ])))
}

fn licence_texts(context: &Context) -> Result<Outcome> {
    for file in ["LICENSE-MIT", "LICENSE-APACHE"] {
        if !context.root.join(Path::new(file)).is_file() {
            bail!("{file} is missing, the manifests promise it");
        }
    }
    Ok(Outcome::Passed)
}

fn missing(context: &Context, tool: Tool) -> Option<Outcome> {
    let absent = tool.find(context).is_none();
    absent.then(|| Outcome::Skipped(format!("{} is not installed: {}", tool.name(), tool.hint())))
}
