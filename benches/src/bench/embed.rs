//! `embed`: what embedding us costs a program that is compiled for the first time.
//!
//! The program is the example that we show to people: the first Rust block with a `main` that uses us, and the first TOML
//! block with dependencies, in the facade's documentation or else a README. Ours then points at this checkout. Sources are fetched before the clock starts; then `cargo build`
//! runs with the debug profile into an empty folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::Setup;
use crate::drivers;
use crate::report::{Report, median};

const FACADE: &str = "cocktail-orchestrator";

pub(crate) fn run(setup: &Setup) -> Result<Report> {
    let mut report = Report::new("embed");
    let example = Example::from_docs(&shown_to_people(&setup.source)?)?;
    let rounds = setup.rounds(3);
    let mut seconds = Vec::new();
    let mut crates = 0;
    for _ in 0..rounds {
        let folder = setup.folder("embed")?;
        example.write(folder.path(), &setup.source)?;
        let cargo = |args: &[&str]| {
            let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            command.args(args).current_dir(folder.path()).env("CARGO_TARGET_DIR", folder.path().join("target"));
            // What speeds up this workspace's builds is not what a newcomer has.
            for name in ["RUSTC_WRAPPER", "CARGO_BUILD_RUSTC_WRAPPER", "RUSTFLAGS", "CARGO_INCREMENTAL"] {
                command.env_remove(name);
            }
            command
        };
        drivers::run(&mut cargo(&["fetch", "--quiet"]))?;
        let host = host_triple()?;
        let metadata =
            drivers::run(&mut cargo(&["metadata", "--format-version=1", "--offline", "--filter-platform", &host]))?;
        crates = compiled(&serde_json::from_slice(&metadata.stdout).context("cargo metadata printed no JSON")?)?;
        let begin = Instant::now();
        drivers::run(&mut cargo(&["build", "--quiet", "--offline"]))?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    report.figure("crates", crates as f64, "packages compiled below the example, build dependencies included");
    report.figure("seconds", median(&seconds), "cold cargo build with the debug profile, on all cores");
    report.note(format!("median of {rounds} builds into empty folders, sources fetched before"));
    Ok(report)
}

/// The documentation of the facade's crate, and the READMEs, one after the other.
fn shown_to_people(workspace: &Path) -> Result<String> {
    let source = fs::read_to_string(workspace.join("cocktail/src/lib.rs")).context("cannot read the facade")?;
    let docs = source.lines().filter_map(|line| line.strip_prefix("//!"));
    let mut text: String = docs.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect();
    for readme in ["cocktail/README.md", "README.md"] {
        text.push_str(&fs::read_to_string(workspace.join(readme)).unwrap_or_default());
    }
    Ok(text)
}

/// A program and what it depends on.
struct Example {
    main: String,
    dependencies: toml::Table,
}

impl Example {
    fn from_docs(docs: &str) -> Result<Self> {
        let mut main = None;
        let mut dependencies = None;
        for (language, text) in blocks(docs) {
            let rust = ["", "rust", "no_run"].contains(&language.split(',').next().unwrap_or_default());
            if rust && main.is_none() && text.contains("fn main") && text.contains("cocktail") {
                // Lines that documentation hides are part of the program.
                let shown = text.lines().map(|line| line.strip_prefix("# ").unwrap_or(line));
                main = Some(shown.collect::<Vec<_>>().join("\n"));
            } else if language == "toml" && dependencies.is_none() {
                // Manifests of ours are TOML too, and may be shown in part.
                let table = text.parse::<toml::Table>().ok();
                dependencies = table.and_then(|table| table.get("dependencies")?.as_table().cloned());
            }
        }
        Ok(Self {
            main: main.context("neither the facade's docs nor a README have a Rust block with a main")?,
            dependencies: dependencies
                .context("neither the facade's docs nor a README have a TOML block with [dependencies]")?,
        })
    }

    /// Writes the program as a package of its own, outside any workspace, with the versions that this one has locked.
    fn write(&self, folder: &Path, workspace: &Path) -> Result<()> {
        let mut dependencies = self.dependencies.clone();
        let ours = dependencies.get_mut("cocktail").and_then(toml::Value::as_table_mut);
        let ours = ours.with_context(|| format!("the example does not depend on cocktail as {FACADE}"))?;
        for key in ["git", "branch", "tag", "rev", "version"] {
            ours.remove(key);
        }
        ours.insert("path".to_owned(), workspace.join("cocktail").to_string_lossy().into_owned().into());
        let mut manifest = toml::toml! {
            [package]
            name = "embedding"
            version = "0.0.0"
            edition = "2024"
            [workspace]
        };
        manifest.insert("dependencies".to_owned(), dependencies.into());
        fs::create_dir(folder.join("src"))?;
        fs::write(folder.join("Cargo.toml"), toml::to_string(&manifest)?)?;
        fs::write(folder.join("src/main.rs"), &self.main)?;
        fs::copy(workspace.join("Cargo.lock"), folder.join("Cargo.lock")).context("cannot copy the lock file")?;
        Ok(())
    }
}

/// The fenced blocks of a text, with what stands behind the opening fence.
fn blocks(text: &str) -> Vec<(&str, &str)> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("```") {
        let Some((language, body)) = after.split_once('\n') else { break };
        let Some((block, next)) = body.split_once("```") else { break };
        blocks.push((language.trim(), block));
        rest = next;
    }
    blocks
}

fn host_triple() -> Result<String> {
    let output = drivers::run(Command::new("rustc").arg("-vV"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    Ok(host.to_owned())
}

/// How many packages a build of the root compiles: everything reachable but for what only tests need.
fn compiled(metadata: &Value) -> Result<usize> {
    let nodes = metadata["resolve"]["nodes"].as_array().context("cargo metadata has no resolution")?;
    let edges: BTreeMap<&str, Vec<&str>> = nodes
        .iter()
        .filter_map(|node| {
            let needed = |dep: &&Value| {
                dep["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"] != "dev"))
            };
            let deps = node["deps"].as_array()?.iter().filter(needed).filter_map(|dep| dep["pkg"].as_str());
            Some((node["id"].as_str()?, deps.collect()))
        })
        .collect();
    let root = metadata["resolve"]["root"].as_str().context("cargo metadata has no root")?;
    let mut seen = BTreeSet::new();
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        open.extend(edges.get(id).into_iter().flatten().filter(|id| seen.insert(**id)));
    }
    match seen.len() {
        0 => bail!("the example depends on nothing"),
        count => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DOCS: &str =
        "//! Words.\n//!\n//! ```no_run\n//! # use cocktail::x;\n//! fn main() {}\n//! ```\npub fn x() {}\n";
    const README: &str = "A manifest:\n```toml\nservice = \"shop\"\n```\n\
                          ```toml\n[dependencies]\ncocktail = { package = \"cocktail-orchestrator\", git = \"x\" }\n```\n";

    #[test]
    fn the_example_is_taken_from_the_docs_and_points_at_the_checkout() {
        let workspace = tempfile::tempdir().unwrap();
        fs::create_dir_all(workspace.path().join("cocktail/src")).unwrap();
        fs::write(workspace.path().join("cocktail/src/lib.rs"), DOCS).unwrap();
        fs::write(workspace.path().join("README.md"), README).unwrap();
        fs::write(workspace.path().join("Cargo.lock"), "").unwrap();
        let example = Example::from_docs(&shown_to_people(workspace.path()).unwrap()).unwrap();
        assert_eq!(example.main, "use cocktail::x;\nfn main() {}");

        let made = tempfile::tempdir().unwrap();
        example.write(made.path(), workspace.path()).unwrap();
        let manifest: toml::Table = fs::read_to_string(made.path().join("Cargo.toml")).unwrap().parse().unwrap();
        let ours = manifest["dependencies"]["cocktail"].as_table().unwrap();
        assert_eq!(ours.keys().map(String::as_str).collect::<Vec<_>>(), ["package", "path"]);
    }

    #[test]
    fn docs_without_an_example_are_refused_with_what_is_missing() {
        let error = Example::from_docs("Words.\n").map(|example| example.main).unwrap_err().to_string();
        assert!(error.contains("a Rust block"), "{error}");
    }

    #[test]
    fn what_only_tests_need_is_not_compiled() {
        let node = |id: &str, deps: Value| json!({"id": id, "deps": deps});
        let dep = |id: &str, kind: Value| json!({"pkg": id, "dep_kinds": [{"kind": kind}]});
        let nodes = json!([
            node("root", json!([dep("a", Value::Null), dep("t", json!("dev"))])),
            node("a", json!([dep("b", json!("build"))])),
            node("b", json!([])),
            node("t", json!([])),
        ]);
        assert_eq!(compiled(&json!({"resolve": {"root": "root", "nodes": nodes}})).unwrap(), 2);
    }
}
