//! `cargo xtask test`: every test and doctest, with skips counted and held against the list.
//!
//! [`run`] builds the programs that whole-system tests start, runs everything, reads what was skipped, and prints one
//! closing line, `N passed, N failed, N skipped`. Tests find the programs through `COCKTAIL_BIN` (the `cocktail`
//! program) and `COCKTAIL_BIN_DIR` (its folder, with the examples). A skipped test returns early and so counts as passed
//! for its runner; here it counts as skipped.

mod counts;
mod expected;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::{fs, io};

use anyhow::{Context as _, Result, bail};

use self::counts::Counts;
use crate::context::{Context, run as run_command};
use crate::setup::{self, Tool};

/// What we ask of cargo-nextest, but for the place of its report.
const NEXTEST: &str = include_str!("../nextest.toml");

/// Runs all tests, or those whose names contain `filter`.
///
/// # Errors
/// When a test failed, none was run, or (in CI) a skip is not allowed by `tests/expected-skips.toml`.
pub(crate) fn run(context: &Context, setup: bool, filter: Option<&str>) -> Result<()> {
    if setup || context.ci {
        setup::install(context, &Tool::ALL, false)?;
    }
    for tool in [Tool::Python, Tool::Grpc, Tool::IpRoute, Tool::Nextest] {
        if tool.find(context).is_none() {
            println!("test: {} is not installed, what needs it is skipped or slower ({})", tool.name(), tool.hint());
        }
    }

    let expected = expected::read(&context.root.join("tests/expected-skips.toml"))?;
    let log = context.target.join("skipped-tests.log");
    fs::write(&log, "").with_context(|| format!("cannot write {}", log.display()))?;

    run_command(&mut context.cargo(&["build", "--workspace", "--bins", "--locked", "--quiet"]))?;
    let mut counts = match Tool::Nextest.find(context) {
        Some(_) => run_nextest(context, &log, filter)?,
        None => run_libtest(context, &log, &["--workspace", "--all-targets"], filter)?,
    };
    counts.add(run_libtest(context, &log, &["--workspace", "--doc"], filter)?);

    let text = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let skips = expected::parse_log(&text)?;
    for skip in &skips {
        println!("test: skipped {}: {}", skip.test, skip.reason);
    }
    let complaints = expected::complaints(&skips, &expected, xtask::Condition::holds);
    for complaint in &complaints {
        println!("test: {complaint}");
    }
    counts.skip(skips.len());
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);

    if counts.failed > 0 {
        bail!("{} tests failed", counts.failed);
    }
    if counts.broken {
        bail!("a test program did not build or did not end as it should");
    }
    if counts.passed + counts.skipped == 0 {
        bail!("no test was run");
    }
    if context.ci && !complaints.is_empty() {
        bail!("{} skips are not allowed", complaints.len());
    }
    Ok(())
}

/// What cargo-nextest exits with when no test matched.
const NO_TESTS: i32 = 4;

fn run_nextest(context: &Context, log: &Path, filter: Option<&str>) -> Result<Counts> {
    let folder = context.target.join("xtask");
    let (config, report) = (folder.join("nextest.toml"), folder.join("junit.xml"));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::remove_file(&report).ok();
    // Without an absolute path the report would land in the checkout.
    let path = toml::Value::from(report.to_string_lossy().into_owned());
    let text = format!("{NEXTEST}\n[profile.default.junit]\npath = {path}\n");
    fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;

    let mut command = with_programs(context, context.cargo(&["nextest", "run", "--workspace", "--locked"]), log);
    // A tool's settings rank below the project's own, so that those can still group tests or lengthen a deadline.
    command.args(["--no-fail-fast", "--no-tests=fail", "--hide-progress-bar", "--tool-config-file"]);
    command.arg(format!("xtask:{}", config.display())).args(filter);
    let status = command.status().context("cannot run cargo nextest")?;
    if status.code() == Some(NO_TESTS) {
        return Ok(Counts::default());
    }
    let mut counts = match fs::read_to_string(&report) {
        Ok(text) => counts::from_junit(&text)?,
        // Nothing was run because something did not compile; what, the compiler has said.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !status.success() => Counts::default(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", report.display())),
    };
    counts.broken = !status.success() && counts.failed == 0;
    Ok(counts)
}

/// Runs tests through `cargo test`, which prints while they run, and adds up what the programs say at their end.
fn run_libtest(context: &Context, log: &Path, which: &[&str], filter: Option<&str>) -> Result<Counts> {
    let mut command = with_programs(context, context.cargo(&["test", "--locked", "--quiet", "--no-fail-fast"]), log);
    command.args(which).arg("--").args(filter).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot run cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no stdout")?;
    let mut counts = Counts::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read what cargo test prints")?;
        counts.add(counts::from_libtest_line(&line));
        if !line.is_empty() && !NOISE.iter().any(|noise| line.starts_with(noise)) {
            println!("{line}");
        }
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    counts.broken = !status.success() && counts.failed == 0;
    Ok(counts)
}

/// What programs without a matching test say; with many programs it would bury the rest.
const NOISE: [&str; 3] = ["running 0 tests", "test result: ok. 0 passed", "all doctests ran"];

fn with_programs(context: &Context, mut command: std::process::Command, log: &Path) -> std::process::Command {
    command
        .env(xtask::skip::LOG, log)
        .env("COCKTAIL_BIN", context.built("debug", "cocktail"))
        .env("COCKTAIL_BIN_DIR", context.target.join("debug"));
    if let Some(python) = Tool::Grpc.find(context).and_then(|it| Some(it.parent()?.join("python"))) {
        command.env("COCKTAIL_GRPC_PYTHON", python);
    }
    command
}
