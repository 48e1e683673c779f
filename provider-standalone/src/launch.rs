//! From a [`Launch`] to what the keeper is told: environment, limits, ports.
//!
//! Secrets are read here, at each start, and go nowhere but into the worker's environment.

use std::collections::BTreeMap;
use std::env;

use cocktail_agent::values;
use cocktail_core::contract::{Launch, LaunchPort};
use cocktail_core::error::{Error, Result};
use cocktail_core::spec::{Resources, SecretSource};
use cocktail_keeper::protocol::{CgroupLimits, PortSpec, Prepare, Rlimit, RlimitKind, Start};

use crate::shared::Fixed;
use crate::volumes::Volumes;

/// Variables of the Manager's own environment that every worker gets.
const PASSED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// Limits that the keeper can set, by their name in a manifest.
const RLIMITS: [(&str, RlimitKind); 9] = [
    ("as", RlimitKind::As),
    ("core", RlimitKind::Core),
    ("cpu", RlimitKind::Cpu),
    ("data", RlimitKind::Data),
    ("fsize", RlimitKind::Fsize),
    ("memlock", RlimitKind::Memlock),
    ("nofile", RlimitKind::Nofile),
    ("nproc", RlimitKind::Nproc),
    ("stack", RlimitKind::Stack),
];

/// What every worker gets of this process' environment, read once.
pub(crate) fn passed() -> BTreeMap<String, String> {
    PASSED.iter().filter_map(|name| Some(((*name).to_owned(), env::var(name).ok()?))).collect()
}

/// Whether a limit of that name can be set here.
pub(crate) fn knows_rlimit(name: &str) -> bool {
    RLIMITS.iter().any(|(known, _)| *known == name)
}

/// What the keeper makes ready.
pub(crate) fn prepare(launch: &Launch, fixed: &Fixed) -> Prepare {
    let ports = ports(&launch.ports, fixed);
    Prepare { container: launch.container.to_string(), generation: launch.generation.0, ports }
}

/// What the keeper starts.
///
/// # Errors
/// As [`environment`]; `InvalidConfig` for a limit that does not exist here.
pub(crate) fn start(launch: &Launch, fixed: &Fixed) -> Result<Start> {
    Ok(Start {
        container: launch.container.to_string(),
        generation: launch.generation.0,
        argv: launch.argv.clone(),
        env: environment(launch, &fixed.passed, &fixed.volumes)?,
        cwd: launch.cwd.clone(),
        user: launch.user.clone(),
        rlimits: rlimits(&launch.rlimits)?,
        cgroup: fixed.limits.then(|| cgroup(launch.resources)).flatten(),
        ..Start::default()
    })
}

/// Ports as the keeper knows them.
pub(crate) fn ports(ports: &[LaunchPort], fixed: &Fixed) -> Vec<PortSpec> {
    let port = |port: &LaunchPort| PortSpec {
        name: port.name.to_string(),
        port: port.port,
        inherit: port.inherit,
        address: Some(fixed.config.address),
    };
    ports.iter().map(port).collect()
}

/// The whole environment of a worker: what the plan determines, what is passed on, and secrets.
///
/// # Errors
/// `InvalidConfig` with the name, never the value, of what is missing or unreadable.
pub(crate) fn environment(
    launch: &Launch,
    passed: &BTreeMap<String, String>,
    volumes: &Volumes,
) -> Result<BTreeMap<String, String>> {
    let mut all = passed.clone();
    for volume in &launch.volumes {
        let folder = volumes.folder(volume);
        let folder = folder.to_str().ok_or_else(|| Error::invalid("the path of the data dir is no text"))?;
        all.insert(format!("COCKTAIL_VOLUME_{}", volume.name.to_env()), folder.to_owned());
    }
    all.extend(values::of(launch)?);
    all.extend(launch.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(all)
}

/// Whether a start has to look into files that may be slow.
pub(crate) fn reads_files(launch: &Launch) -> bool {
    launch.secrets.values().any(|source| matches!(source, SecretSource::File(_)))
}

fn rlimits(limits: &BTreeMap<String, u64>) -> Result<Vec<Rlimit>> {
    limits
        .iter()
        .map(|(name, &value)| {
            let (_, resource) = RLIMITS
                .iter()
                .find(|(known, _)| known == name)
                .ok_or_else(|| Error::invalid(format!("rlimits.{name} cannot be set on this machine")))?;
            let value = (value != u64::MAX).then_some(value);
            Ok(Rlimit { resource: *resource, soft: value, hard: value })
        })
        .collect()
}

fn cgroup(resources: Resources) -> Option<CgroupLimits> {
    let some = |value: u64| (value > 0).then_some(value);
    let limits = CgroupLimits { cpu_millis: some(resources.cpu.0), memory_bytes: some(resources.memory.0) };
    (limits != CgroupLimits::default()).then_some(limits)
}
