//! `cargo xtask fuzz`: every fuzz target for a while, from seeds that the repository itself makes.
//!
//! The targets are in `fuzz/`, a workspace of its own, since cargo-fuzz needs a nightly compiler. Seeds come from the
//! manifests of the examples and of the documentation (`fuzz/examples/seeds.rs` makes journals, snapshots and frames of
//! them), and from `fuzz/regressions/TARGET/`, which keeps every input that was ever found. What the fuzzer learns stays
//! in the build folder, so that the next run goes on from there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::context::{Context, output, run as run_command};
use crate::setup::{self, Tool};

/// The targets, as in `fuzz/Cargo.toml`.
const TARGETS: [&str; 8] = ["manifest", "journal", "snapshot", "store", "keeper", "worker", "from_agent", "to_agent"];

/// Longest input. More bytes reach no further code and cost rounds.
const MAX_LEN: usize = 32 << 10;

/// Lines of the fuzzer's log that are shown of a finding.
const SHOWN: usize = 30;

/// What was asked for on the command line.
#[derive(Debug)]
pub(crate) struct Options {
    /// The target; all of them if none is named.
    pub(crate) target: Option<String>,
    /// How long each target runs.
    pub(crate) seconds: u32,
}

/// Builds the targets, makes the seeds, and runs each target in turn.
///
/// # Errors
/// When a target found something, or something is missing or does not build.
pub(crate) fn run(context: &Context, options: &Options) -> Result<()> {
    let targets: Vec<&str> = match &options.target {
        None => TARGETS.to_vec(),
        Some(name) => match TARGETS.iter().find(|target| *target == name) {
            Some(target) => vec![target],
            None => bail!("there is no target {name:?}: there are {}", TARGETS.join(", ")),
        },
    };
    setup::install(context, &[Tool::Fuzz], false)?;
    let fuzz = Folder::new(context)?;
    fuzz.make_seeds(context)?;
    run_command(&mut fuzz.cargo(context, "build"))?;
    let mut findings = Vec::new();
    for target in targets {
        match fuzz.run(context, target, options.seconds)? {
            None => println!("fuzz: ok      {target}: {}", fuzz.stats(target)),
            Some(finding) => {
                println!("fuzz: FINDING {target}: {finding}");
                findings.push(target);
            }
        }
    }
    if !findings.is_empty() {
        bail!(
            "{} of the targets found something: put the input into fuzz/regressions/TARGET/ and repair what it shows",
            findings.join(", ")
        );
    }
    Ok(())
}

/// Where everything of a run is.
struct Folder {
    /// `fuzz/` of the workspace.
    source: PathBuf,
    /// In the build folder: seeds, what was learned, findings, logs.
    work: PathBuf,
}

impl Folder {
    fn new(context: &Context) -> Result<Self> {
        let folder = Self { source: context.root.join("fuzz"), work: context.target.join("fuzz") };
        for target in TARGETS {
            for path in [folder.learned(target), folder.findings(target)] {
                fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
            }
        }
        Ok(folder)
    }

    fn seeds(&self) -> PathBuf {
        self.work.join("seeds")
    }
    fn learned(&self, target: &str) -> PathBuf {
        self.work.join("learned").join(target)
    }
    fn findings(&self, target: &str) -> PathBuf {
        self.work.join("findings").join(target)
    }
    fn log(&self, target: &str) -> PathBuf {
        self.work.join(format!("{target}.log"))
    }

    /// `cargo fuzz COMMAND` of a nightly compiler. The code under test has no unsafe block, so that sanitizers of memory
    /// would find nothing and halve the speed; overflows and debug assertions panic.
    fn cargo(&self, context: &Context, command: &str) -> Command {
        // cargo-fuzz builds into its own folder below: another compiler would only throw away what others have built.
        let mut cargo = context.command("rustup");
        cargo.args(["run", "nightly", "cargo", "fuzz", command, "--sanitizer", "none", "--fuzz-dir"]);
        cargo.arg(&self.source).env("CARGO_TARGET_DIR", self.work.join("target"));
        for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
            cargo.env_remove(name);
        }
        cargo
    }

    fn make_seeds(&self, context: &Context) -> Result<()> {
        let seeds = self.seeds();
        if seeds.exists() {
            fs::remove_dir_all(&seeds).with_context(|| format!("cannot empty {}", seeds.display()))?;
        }
        let manifests = seeds.join("manifests");
        fs::create_dir_all(&manifests).with_context(|| format!("cannot create {}", manifests.display()))?;
        let mut paths = Vec::new();
        let files = output(context.command("git").args(["ls-files", "-z", "*.toml", "*.md"]))?;
        for file in files.split('\0').filter(|file| !file.is_empty()) {
            let Ok(text) = fs::read_to_string(context.root.join(file)) else { continue };
            let found =
                if Path::new(file).extension().is_some_and(|kind| kind == "md") { blocks(&text) } else { vec![text] };
            for text in found.into_iter().filter(|text| is_manifest(text)) {
                let path = manifests.join(format!("{}.toml", paths.len()));
                fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
                paths.push(path);
            }
        }
        let mut cargo = context.cargo(&["run", "--quiet", "--locked", "--example", "seeds", "--manifest-path"]);
        cargo.arg(self.source.join("Cargo.toml")).arg("--").arg(&seeds).args(&paths);
        run_command(&mut cargo)
    }

    /// Runs one target; a finding is told by the input that shows it.
    fn run(&self, context: &Context, target: &str, seconds: u32) -> Result<Option<String>> {
        println!("fuzz: {target} for {seconds} s");
        let log = self.log(target);
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut cargo = self.cargo(context, "run");
        cargo.arg(target).arg(self.learned(target)).arg(self.seeds().join(target));
        let regressions = self.source.join("regressions").join(target);
        if regressions.is_dir() {
            cargo.arg(regressions);
        }
        cargo.arg("--").arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={MAX_LEN}"));
        cargo.arg(format!("-artifact_prefix={}/", self.findings(target).display()));
        let words = self.seeds().join(format!("{target}.dict"));
        if words.is_file() {
            cargo.arg(format!("-dict={}", words.display()));
        }
        // Seconds for one input, and MiB: what takes longer or more is a finding, too.
        cargo.args(["-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]);
        cargo.stdout(file.try_clone()?).stderr(file);
        let status = cargo.status().context("cannot run cargo fuzz")?;
        if status.success() {
            return Ok(None);
        }
        let text = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[lines.len().saturating_sub(SHOWN)..] {
            println!("  {line}");
        }
        let written = lines.iter().rev().find_map(|line| line.split_once("Test unit written to "));
        match written {
            Some((_, path)) => Ok(Some(path.trim().to_owned())),
            None => bail!("the target {target} did not run: {status}"),
        }
    }

    /// What the fuzzer says at its end.
    fn stats(&self, target: &str) -> String {
        stats(&fs::read_to_string(self.log(target)).unwrap_or_default())
    }
}

/// Blocks of TOML in a text of Markdown.
fn blocks(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        match (&mut open, line.trim()) {
            (None, "```toml") => open = Some(String::new()),
            (Some(_), "```") => found.extend(open.take()),
            (Some(block), _) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    found
}

/// Whether a text looks like a manifest rather than like another file of TOML.
fn is_manifest(text: &str) -> bool {
    let starts = ["service = ", "[maps.", "[manager]", "[providers."];
    text.lines().any(|line| starts.iter().any(|start| line.starts_with(start)))
}

/// Runs, code reached and memory, out of the fuzzer's log.
fn stats(log: &str) -> String {
    let stat = |name: &str| log.lines().rev().find_map(|line| Some(line.split_once(name)?.1.trim().to_owned()));
    let runs = stat("stat::number_of_executed_units:").unwrap_or_default();
    let covered = log.lines().rev().find_map(|line| line.split_once(" cov: ")?.1.split(' ').next().map(str::to_owned));
    let memory = stat("stat::peak_rss_mb:").unwrap_or_default();
    format!("{runs} inputs, {} places reached, {memory} MiB", covered.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_found_in_documents_and_told_from_other_toml() {
        let text = "# Title\n```toml\nservice = \"shop\"\n```\ntext\n```sh\nls\n```\n```toml\n[package]\n```\n";
        let found = blocks(text);
        assert_eq!(found, ["service = \"shop\"\n", "[package]\n"]);
        assert_eq!(found.iter().filter(|block| is_manifest(block)).count(), 1);
    }

    #[test]
    fn the_end_of_a_run_is_told_in_a_line() {
        let log = "#9 NEW    cov: 12 ft: 15 corp: 4\n#10 DONE   cov: 14 ft: 19 corp: 5\nDone 10 runs in 1 second(s)\n\
                   stat::number_of_executed_units: 10\nstat::peak_rss_mb:              52\n";
        assert_eq!(stats(log), "10 inputs, 14 places reached, 52 MiB");
    }
}
