//! What a crate must not know: dependencies point inward.
//!
//! The core decides in pure code, so nothing that reaches the outside world may be below it; a provider never imports
//! another; libraries do not depend on programs. Only dependencies for running count: tests may use what they like.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::context::Context;

/// Packages that read clocks, open sockets or files, or draw random numbers.
const OUTSIDE_WORLD: [&str; 13] = [
    "tokio",
    "mio",
    "async-std",
    "smol",
    "socket2",
    "hyper",
    "reqwest",
    "rustix",
    "nix",
    "rand",
    "fastrand",
    "redb",
    "notify",
];

/// Fails with every rule that the dependencies of the workspace break.
pub(super) fn check(context: &Context) -> Result<()> {
    let metadata = context.metadata(&[])?;
    let broken = broken_rules(&metadata)?;
    if !broken.is_empty() {
        bail!("{}", broken.join("\n"));
    }
    Ok(())
}

fn broken_rules(metadata: &Value) -> Result<Vec<String>> {
    let names = names_by_id(metadata)?;
    let edges = edges_by_id(metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let members = metadata["workspace_members"].as_array().context("cargo metadata lists no members")?;
    let mut broken = Vec::new();
    let members: BTreeSet<&str> = members.iter().filter_map(Value::as_str).collect();
    for &id in &members {
        let name = names.get(id).copied().unwrap_or(id);
        let below: BTreeSet<&str> = reachable(id, &edges).into_iter().filter_map(|id| names.get(id).copied()).collect();
        let direct: BTreeSet<&str> =
            edges.get(id).into_iter().flatten().filter_map(|id| names.get(id).copied()).collect();
        if name == "cocktail-core" {
            for outside in OUTSIDE_WORLD.iter().filter(|outside| below.contains(*outside)) {
                broken.push(format!("{name} must do without I/O, but {outside} is below it"));
            }
            for ours in below.iter().filter(|below| below.starts_with("cocktail")) {
                broken.push(format!("{name} knows nobody, but depends on {ours}"));
            }
        }
        if name == "cocktail-compose" {
            for outside in OUTSIDE_WORLD.iter().filter(|outside| below.contains(*outside)) {
                broken.push(format!("{name} is given what it reads, but {outside} is below it"));
            }
            for ours in below.iter().filter(|below| below.starts_with("cocktail") && **below != "cocktail-core") {
                broken.push(format!("{name} knows manifests only, but depends on {ours}"));
            }
        }
        if name.starts_with("cocktail") && name != "cocktail-cli" && direct.contains("cocktail-compose") {
            broken.push(format!("{name} must not read Compose files: that is for the program"));
        }
        if name.starts_with("cocktail-provider-") {
            for other in direct.iter().filter(|direct| direct.starts_with("cocktail-provider-")) {
                broken.push(format!("{name} must not import the provider {other}"));
            }
        }
        if name == "cocktail-keeper" && below.contains("cocktail-core") {
            broken.push(format!("{name} outlives upgrades, so its protocol must not be made of cocktail-core's types"));
        }
        if name == "cocktail-agent" {
            for ours in direct.iter().filter(|direct| direct.starts_with("cocktail") && **direct != "cocktail-core") {
                broken.push(format!("{name} is the agent of any runtime, but depends on {ours}"));
            }
            // The core is for the agents of servers.
            let package = packages.iter().find(|package| package["id"].as_str() == Some(id));
            for feature in ["worker", "hub"].iter().filter(|feature| needs(package, feature, "dep:cocktail-core")) {
                broken.push(format!("{name} is compiled into workers, but {feature} needs cocktail-core"));
            }
        }
        if name.starts_with("cocktail")
            && !matches!(name, "cocktail-cli" | "cocktail-tests")
            && direct.contains("cocktail-cli")
        {
            broken.push(format!("{name} must not depend on the program"));
        }
    }
    Ok(broken)
}

fn names_by_id(metadata: &Value) -> Result<BTreeMap<&str, &str>> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    Ok(packages.iter().filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?))).collect())
}

/// Whether a feature of a package enables something, by whatever features lie between.
fn needs(package: Option<&Value>, feature: &str, what: &str) -> bool {
    let enables = |name: &str| package.map_or(&Value::Null, |package| &package["features"][name]);
    let (mut open, mut seen) = (vec![feature.to_owned()], BTreeSet::new());
    while let Some(name) = open.pop() {
        let enabled = enables(&name).as_array().into_iter().flatten().filter_map(Value::as_str);
        for enabled in enabled.filter(|enabled| seen.insert((*enabled).to_owned())) {
            open.push(enabled.to_owned());
        }
    }
    seen.contains(what)
}

/// For each package the ids of those that it needs to run.
fn edges_by_id<'a>(metadata: &'a Value) -> Result<BTreeMap<&'a str, Vec<&'a str>>> {
    let nodes = metadata["resolve"]["nodes"].as_array().context("cargo metadata has no resolution")?;
    let needed = |node: &'a Value| -> Option<(&'a str, Vec<&'a str>)> {
        let deps = node["deps"].as_array()?.iter().filter(|dep| runs(dep));
        Some((node["id"].as_str()?, deps.filter_map(|dep| dep["pkg"].as_str()).collect()))
    };
    Ok(nodes.iter().filter_map(needed).collect())
}

/// Whether a dependency is there for running, and not only for tests or builds.
fn runs(dep: &Value) -> bool {
    dep["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
}

fn reachable<'a>(from: &'a str, edges: &BTreeMap<&'a str, Vec<&'a str>>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&str> = edges.get(from).cloned().unwrap_or_default();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            open.extend(edges.get(id).into_iter().flatten());
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(id: &str, deps: &[(&str, Option<&str>)]) -> Value {
        let deps: Vec<Value> =
            deps.iter().map(|(pkg, kind)| json!({"pkg": pkg, "dep_kinds": [{"kind": kind}]})).collect();
        json!({"id": id, "deps": deps})
    }

    fn metadata(nodes: &[Value]) -> Value {
        let ids: Vec<&Value> = nodes.iter().map(|node| &node["id"]).collect();
        let packages: Vec<Value> = ids.iter().map(|id| json!({"id": id, "name": id})).collect();
        json!({"packages": packages, "workspace_members": ids, "resolve": {"nodes": nodes}})
    }

    #[test]
    fn a_core_that_reaches_a_socket_through_another_crate_is_named() {
        let nodes = [node("cocktail-core", &[("helper", None)]), node("helper", &[("mio", None)]), node("mio", &[])];
        let broken = broken_rules(&metadata(&nodes)).unwrap();
        assert_eq!(broken, ["cocktail-core must do without I/O, but mio is below it"]);
    }

    #[test]
    fn what_only_the_tests_of_the_core_use_is_allowed() {
        let nodes = [node("cocktail-core", &[("tokio", Some("dev"))]), node("tokio", &[])];
        assert_eq!(broken_rules(&metadata(&nodes)).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_workers_are_compiled_with_needs_no_other_crate_of_ours() {
        let nodes = [
            node("cocktail-agent", &[("cocktail-core", None), ("cocktail-manager", None)]),
            node("cocktail-core", &[]),
            node("cocktail-manager", &[]),
        ];
        let mut metadata = metadata(&nodes);
        metadata["packages"][0]["features"] = json!({
            "agent": ["dep:cocktail-core"], "hub": ["tokio/time"], "worker": ["channel"], "channel": ["agent"],
        });
        let broken = broken_rules(&metadata).unwrap();
        let expected = [
            "cocktail-agent is the agent of any runtime, but depends on cocktail-manager",
            "cocktail-agent is compiled into workers, but worker needs cocktail-core",
        ];
        assert_eq!(broken, expected);
    }

    #[test]
    fn what_reads_compose_files_knows_manifests_only_and_is_for_the_program() {
        let nodes = [
            node("cocktail-compose", &[("cocktail-core", None), ("cocktail-manager", None), ("rustix", None)]),
            node("cocktail-core", &[]),
            node("cocktail-manager", &[]),
            node("cocktail-api", &[("cocktail-compose", None)]),
            node("cocktail-cli", &[("cocktail-compose", None)]),
            node("rustix", &[]),
        ];
        let broken = broken_rules(&metadata(&nodes)).unwrap();
        let expected = [
            "cocktail-api must not read Compose files: that is for the program",
            "cocktail-compose is given what it reads, but rustix is below it",
            "cocktail-compose knows manifests only, but depends on cocktail-manager",
        ];
        let (broken, expected): (BTreeSet<_>, BTreeSet<_>) =
            (broken.iter().map(String::as_str).collect(), expected.into_iter().collect());
        assert_eq!(broken, expected);
    }

    #[test]
    fn a_provider_that_imports_another_is_named() {
        let nodes = [
            node("cocktail-provider-ec2", &[("cocktail-provider-docker", None)]),
            node("cocktail-provider-docker", &[]),
        ];
        assert_eq!(broken_rules(&metadata(&nodes)).unwrap().len(), 1);
    }
}
