//! From a [`Launch`] to what the keeper is told: environment, limits, ports.
//!
//! Secrets are read here, at each start, and go nowhere but into the worker's environment.

use std::collections::BTreeMap;
use std::env::{self, VarError};
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use cocktail_core::contract::{Launch, LaunchPort};
use cocktail_core::error::{Error, Result};
use cocktail_core::spec::{Resources, SecretSource};
use cocktail_keeper::protocol::{CgroupLimits, PortSpec, Prepare, Rlimit, RlimitKind, Start};

use crate::shared::Fixed;
use crate::volumes::Volumes;

/// Variables of the Manager's own environment that every worker gets.
const PASSED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// Largest file that is taken for a secret.
const SECRET: u64 = 64 << 10;

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
    for name in &launch.env_from {
        all.insert(name.clone(), variable(name, name, "env_from")?);
    }
    for volume in &launch.volumes {
        let folder = volumes.folder(volume);
        let folder = folder.to_str().ok_or_else(|| Error::invalid("the path of the data dir is no text"))?;
        all.insert(format!("COCKTAIL_VOLUME_{}", volume.name.to_env()), folder.to_owned());
    }
    for (name, source) in &launch.secrets {
        let value = match source {
            SecretSource::File(path) => secret_file(name, path)?,
            SecretSource::Env(from) => variable(name, from, "secrets")?,
        };
        all.insert(name.clone(), value);
    }
    all.extend(launch.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(all)
}

/// A variable of the Manager's environment, for `name` of the worker's.
fn variable(name: &str, from: &str, table: &str) -> Result<String> {
    env::var(from).map_err(|error| {
        let what = match error {
            VarError::NotPresent => "is not set",
            VarError::NotUnicode(_) => "is no text",
        };
        let message = format!("{table}: the variable {from} {what} in the manager's environment");
        let error = Error::invalid(message);
        if name == from { error } else { error.with("for", name) }
    })
}

/// The content of a secret's file without its last line break.
fn secret_file(name: &str, path: &Path) -> Result<String> {
    let shown = path.display();
    let problem = |what: &str| Error::invalid(format!("secrets.{name}: the file {shown} {what}"));
    // Without the flag, opening a pipe would wait for its other end.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
    let file = file.map_err(|error| problem("cannot be read").because(error))?;
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Err(problem("is no ordinary file"));
    }
    let mut text = String::new();
    let read = file.take(SECRET + 1).read_to_string(&mut text);
    // The source of this error says nothing of the content.
    read.map_err(|error| problem("holds no text").because(error))?;
    if text.len() as u64 > SECRET {
        return Err(problem("is larger than 64KiB"));
    }
    if text.contains('\0') {
        return Err(problem("holds a zero byte, which no variable can"));
    }
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
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
