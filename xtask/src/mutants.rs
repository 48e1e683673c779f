//! `cargo xtask mutants`: whether the tests of the planner notice when it is wrong.
//!
//! cargo-mutants lists every small change that it can make to the decisions in [`FILES`]; [`sample`] takes some of them,
//! the same ones each time, and the core's own tests run once for each. A change that no test notices survives. What is
//! taken hangs on what a change does and not on the line that it is in, so that an edit elsewhere changes no sample.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::context::{Context, output};
use crate::setup::{self, Tool};

/// Where decisions are made.
const FILES: [&str; 8] = [
    "cocktail-core/src/plan/**",
    "cocktail-core/src/ports.rs",
    "cocktail-core/src/ports/**",
    "cocktail-core/src/scaling.rs",
    "cocktail-core/src/scaling/**",
    "cocktail-core/src/rollout.rs",
    "cocktail-core/src/rollout/**",
    "cocktail-core/src/contract/policy.rs",
];

/// Share of the changes that may survive, in hundredths.
const BAR: usize = 10;

/// Random cases of each property in the first run. What a few find wrong, many would; what a few do not find wrong is run again
/// with all of them.
const FEW: &str = "4";

/// What the order of the sample is drawn from. Another number is another sample.
const SEED: u64 = 4;

/// A change that can be made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Mutant {
    /// Place and change, as cargo-mutants shows it.
    name: String,
    file: String,
}

/// What became of the changes.
#[derive(Debug, Deserialize)]
struct Outcomes {
    outcomes: Vec<Outcome>,
}

/// What became of one run of the tests.
#[derive(Debug, Deserialize)]
struct Outcome {
    scenario: Scenario,
    summary: String,
}

/// What the tests ran on.
#[derive(Debug, Deserialize)]
enum Scenario {
    /// The code as it is.
    Baseline,
    /// The code with a change.
    Mutant(Mutant),
}

/// Changes by what became of them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    /// A test failed, or did not end.
    caught: usize,
    /// They do not compile, and say nothing about tests.
    unviable: usize,
    survivors: Vec<String>,
}

/// Runs the core's tests on `count` changes of the sample, after the first `from`, and says which survived.
///
/// # Errors
/// When more survive than may, or the tests do not pass without a change.
pub(crate) fn run(context: &Context, from: usize, count: usize) -> Result<()> {
    setup::install(context, &[Tool::Mutants], false)?;
    let mut list = context.cargo(&["mutants", "--no-config", "--list", "--json", "--package", "cocktail-core"]);
    let text = output(list.args(files()))?;
    let all: Vec<Mutant> = serde_json::from_str(&text).context("cargo mutants lists something else")?;
    let chosen = sample(&all, from + count).split_off(from.min(all.len()));
    println!("mutants: {} of {} changes", chosen.len(), all.len());

    let mut tally = tested(context, &chosen, Some(FEW))?;
    let tested_at_all = tally.caught + tally.unviable + tally.survivors.len();
    // One name may stand for several changes.
    if tested_at_all < chosen.len() {
        bail!("{tested_at_all} changes were tested, and {} were chosen", chosen.len());
    }
    if !tally.survivors.is_empty() {
        let survived = |mutant: &&&Mutant| tally.survivors.contains(&mutant.name);
        let again: Vec<&Mutant> = chosen.iter().filter(survived).copied().collect();
        let second = tested(context, &again, None)?;
        tally.caught += second.caught;
        tally.survivors = second.survivors;
    }
    judge(&tally)
}

/// Runs the tests on each of the changes, with as many random cases as is said or as is usual.
fn tested(context: &Context, chosen: &[&Mutant], cases: Option<&str>) -> Result<Tally> {
    let folder = context.target.join("mutants");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut command =
        context.cargo(&["mutants", "--no-config", "--package", "cocktail-core", "--no-times", "--caught"]);
    // It ends with the first test that fails.
    command.args(["--test-tool", "nextest"]);
    command.args(files()).args(["--colors", "never", "--annotations", "none", "--output"]).arg(&folder);
    for mutant in chosen {
        command.arg("--re").arg(format!("^{}$", literal(&mutant.name)));
    }
    // One crate is compiled again and again, mostly by one thread, each time with one change.
    command.args(["--jobs", "2"]).env("CARGO_INCREMENTAL", "1").env("CARGO_PROFILE_TEST_DEBUG", "0");
    command.env("NEXTEST_PROFILE", "mutants");
    command.env_remove("CARGO_TARGET_DIR");
    if let Some(cases) = cases {
        command.env("PROPTEST_CASES", cases);
    }
    let status = command.args(["--", "--lib"]).status().context("cannot run cargo mutants")?;
    // Changes that survive or do not end have exit codes of their own; they are counted below.
    if !matches!(status.code(), Some(0 | 2 | 3)) {
        bail!("cargo mutants failed: {status}");
    }
    read(&folder.join("mutants.out/outcomes.json"))
}

fn files() -> impl Iterator<Item = &'static str> {
    FILES.into_iter().flat_map(|file| ["--file", file])
}

/// Some of the changes: the first ones of an order that looks like chance and is always the same.
fn sample(all: &[Mutant], count: usize) -> Vec<&Mutant> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut order: Vec<(u64, &Mutant)> = Vec::with_capacity(all.len());
    for mutant in all {
        // The same change is often possible in several places of a file, which must not be drawn together.
        let change = what(mutant);
        let times = seen.entry(change.clone()).or_default();
        *times += 1;
        order.push((hash(&format!("{change} {times}")), mutant));
    }
    order.sort_by_key(|(hash, _)| *hash);
    order.into_iter().take(count).map(|(_, mutant)| mutant).collect()
}

/// A change without its line and column.
fn what(mutant: &Mutant) -> String {
    let rest = mutant.name.strip_prefix(&mutant.file).unwrap_or(&mutant.name);
    let change = rest.split_once(": ").map_or(rest, |(_, change)| change);
    format!("{}: {change}", mutant.file)
}

/// FNV-1a: small, and the same on every machine and in every version.
fn hash(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let start = SEED.to_le_bytes().into_iter().fold(0xcbf2_9ce4_8422_2325, step);
    let mixed = text.bytes().fold(start, step);
    // The last bytes have moved the high bits too little to sort by them.
    (mixed ^ (mixed >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A regular expression for exactly this text.
fn literal(text: &str) -> String {
    let mut expression = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        // Others must not be escaped: a backslash gives `<` and `>` a meaning.
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            expression.push('\\');
        }
        expression.push(c);
    }
    expression
}

fn read(path: &Path) -> Result<Tally> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let outcomes: Outcomes = serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display()))?;
    let mut tally = Tally::default();
    for outcome in outcomes.outcomes {
        let Scenario::Mutant(mutant) = outcome.scenario else { continue };
        match outcome.summary.as_str() {
            // A loop without end is noticed by whoever waits for the tests.
            "CaughtMutant" | "Timeout" => tally.caught += 1,
            "Unviable" => tally.unviable += 1,
            "MissedMutant" => tally.survivors.push(mutant.name),
            other => bail!("{}: the tests ended with {other}", mutant.name),
        }
    }
    Ok(tally)
}

fn judge(tally: &Tally) -> Result<()> {
    let survived = tally.survivors.len();
    let viable = tally.caught + survived;
    for survivor in &tally.survivors {
        println!("mutants: survived: {survivor}");
    }
    let hundredths = if viable == 0 { 0.0 } else { 100.0 * survived as f64 / viable as f64 };
    println!("mutants: {} caught, {survived} survived ({hundredths:.1} %), {} unviable", tally.caught, tally.unviable);
    if viable == 0 {
        bail!("no change was tested");
    }
    if survived * 100 > viable * BAR {
        bail!("{survived} of {viable} changes survived, and {BAR} % may");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(line: usize, change: &str) -> Mutant {
        Mutant { name: format!("src/a.rs:{line}:5: {change}"), file: "src/a.rs".into() }
    }

    #[test]
    fn the_sample_is_the_same_wherever_the_lines_are() {
        let changes: Vec<String> = (0..50).map(|number| format!("replace f{number} -> bool with true")).collect();
        let at = |from: usize| -> Vec<Mutant> {
            changes.iter().zip(from..).map(|(change, line)| mutant(line, change)).collect()
        };
        let (here, there) = (at(1), at(1_000));
        let taken = |all: &[Mutant]| -> Vec<String> { sample(all, 10).into_iter().map(what).collect() };
        assert_eq!(taken(&here), taken(&there));
        assert_eq!(taken(&here).len(), 10);
        assert_ne!(taken(&here), here[..10].iter().map(what).collect::<Vec<_>>(), "it is no sample but the beginning");
    }

    #[test]
    fn the_same_change_in_many_places_is_drawn_like_any_other() {
        let alike = (0..50).map(|line| mutant(line, "replace += with -= in f"));
        let all: Vec<Mutant> = alike.chain((50..100).map(|line| mutant(line, &format!("replace f{line}")))).collect();
        let drawn = sample(&all, 20).into_iter().filter(|mutant| mutant.name.contains("+=")).count();
        assert!((1..20).contains(&drawn), "{drawn} of 20 are alike");
    }

    #[test]
    fn more_survivors_than_the_bar_fail_and_what_does_not_compile_is_not_counted() {
        let tally = |caught, survivors: usize| Tally { caught, unviable: 50, survivors: vec!["x".into(); survivors] };
        judge(&tally(90, 10)).unwrap();
        judge(&tally(89, 11)).unwrap_err();
        judge(&tally(0, 0)).unwrap_err();
    }

    #[test]
    fn outcomes_are_read_as_they_are_written() {
        let mutant = r#"{"Mutant": {"name": "src/a.rs:1:1: replace", "file": "src/a.rs", "genre": "FnValue"}}"#;
        let outcome = |scenario: &str, summary: &str| format!(r#"{{"scenario": {scenario}, "summary": "{summary}"}}"#);
        let outcomes = [
            outcome(r#""Baseline""#, "Success"),
            outcome(mutant, "CaughtMutant"),
            outcome(mutant, "Timeout"),
            outcome(mutant, "MissedMutant"),
            outcome(mutant, "Unviable"),
        ];
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!(r#"{{"outcomes": [{}], "caught": 1}}"#, outcomes.join(","))).unwrap();
        let expected = Tally { caught: 2, unviable: 1, survivors: vec!["src/a.rs:1:1: replace".into()] };
        assert_eq!(read(file.path()).unwrap(), expected);
    }

    #[test]
    fn a_name_is_matched_as_it_stands() {
        assert_eq!(literal("a.rs:1: replace + -> Vec<T> with *"), r"a\.rs:1: replace \+ \-> Vec<T> with \*");
    }
}
