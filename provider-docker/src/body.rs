//! From a [`Launch`] to what an engine is told to make.
//!
//! Secrets are read here, at each start, and go nowhere but into the container's environment, which the engine keeps for as
//! long as the container.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, NetworkingConfig, PortBinding,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use cocktail_agent::values;
use cocktail_core::contract::{Launch, LaunchImage};
use cocktail_core::error::{Error, Result};
use cocktail_core::spec::SecretSource;

use crate::shared::Fixed;
use crate::{label, volume};

/// Least that an engine takes: a hundredth of a core.
const LEAST_CPU: u64 = 10;

/// Limits that an engine can set, by their name in a manifest. What is not here it cannot.
pub(crate) const RLIMITS: [&str; 14] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "sigpending",
    "stack",
];

/// The variable that says whose container it is.
pub(crate) const STORE_VARIABLE: &str = "COCKTAIL_STORE";
/// The variable that says whether it runs on when the lease of whoever drives the engine is over.
pub(crate) const OUTLIVES_VARIABLE: &str = "COCKTAIL_OUTLIVES_LEASE";

/// Where programs write what passes with them. In a read-only image these are in memory, and begin with what the image has.
const PASSING: [&str; 5] = ["/tmp", "/run", "/var/cache", "/var/log", "/var/tmp"];

/// The folders of a read-only image that can be written, but for those that are volumes.
fn passing(launch: &Launch) -> HashMap<String, String> {
    let volume =
        |folder: &str| launch.volumes.iter().any(|it| it.link.as_deref() == Some(std::path::Path::new(folder)));
    let folders = PASSING.into_iter().filter(|folder| !volume(folder));
    // Of a program's own limit of memory, and no set-user programs in there.
    folders.map(|folder| (folder.to_owned(), "rw,nosuid,nodev".to_owned())).collect()
}

/// The image of a launch.
///
/// # Errors
/// `InvalidConfig` for a program without one.
pub(crate) fn image(launch: &Launch) -> Result<&LaunchImage> {
    let message = || Error::invalid(format!("{} has no image, and an engine runs nothing else", launch.container));
    launch.image.as_ref().ok_or_else(message)
}

/// Whether a start has to look into files that may be slow.
pub(crate) fn reads_files(launch: &Launch) -> bool {
    launch.secrets.values().any(|source| matches!(source, SecretSource::File(_)))
}

/// What the engine makes, on the network of this id. May wait for a disk.
///
/// # Errors
/// `InvalidConfig` for variables that are missing, and for volumes that cannot be.
pub(crate) fn of(launch: &Launch, fixed: &Fixed, network: &str) -> Result<ContainerCreateBody> {
    let image = image(launch)?;
    let endpoint = EndpointSettings { aliases: Some(vec![image.unit.unit.to_string()]), ..EndpointSettings::default() };
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let cwd = launch.cwd.to_str().ok_or_else(|| Error::invalid("the working directory is no text"))?;
    let inside = || launch.ports.iter().map(|port| format!("{}/tcp", port.inside()));
    Ok(ContainerCreateBody {
        image: Some(image.reference.clone()),
        entrypoint: image.entrypoint.clone(),
        cmd: (!launch.argv.is_empty()).then(|| launch.argv.clone()),
        env: Some(environment(launch)?.into_iter().map(|(name, value)| format!("{name}={value}")).collect()),
        working_dir: some(cwd),
        user: launch.user.clone(),
        labels: Some(label::of(launch, fixed.cluster.as_deref())),
        exposed_ports: Some(inside().collect()),
        host_config: Some(host(launch, fixed, network)?),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network.to_owned(), endpoint)])),
        }),
        ..ContainerCreateBody::default()
    })
}

fn environment(launch: &Launch) -> Result<BTreeMap<String, String>> {
    let mut all = values::of(launch)?;
    for volume in &launch.volumes {
        let inside = volume.link.as_deref().and_then(|link| link.to_str()).unwrap_or_default();
        all.insert(format!("COCKTAIL_VOLUME_{}", volume.name.to_env()), inside.to_owned());
    }
    all.extend(launch.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    // As its labels say, for who has only its processes.
    all.insert(STORE_VARIABLE.to_owned(), launch.store.to_string());
    all.insert(OUTLIVES_VARIABLE.to_owned(), launch.outlives_lease.to_string());
    Ok(all)
}

fn host(launch: &Launch, fixed: &Fixed, network: &str) -> Result<HostConfig> {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let (cpu, memory) = (launch.resources.cpu.0, launch.resources.memory.0);
    let memory = (memory > 0).then(|| signed(memory));
    let log = HashMap::from([
        ("max-size".to_owned(), fixed.log_bytes.max(1).to_string()),
        ("max-file".to_owned(), fixed.log_files.max(1).to_string()),
    ]);
    let mut ports: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &launch.ports {
        let (host_ip, host_port) = (Some(fixed.publish.to_string()), Some(port.port.to_string()));
        let bindings = ports.entry(format!("{}/tcp", port.inside())).or_default();
        bindings.get_or_insert_default().push(PortBinding { host_ip, host_port });
    }
    let read_only = launch.image.as_ref().and_then(|image| image.read_only).unwrap_or(fixed.read_only);
    let ulimit = |(name, &value): (&String, &u64)| {
        let value = if value == u64::MAX { -1 } else { signed(value) };
        ResourcesUlimits { name: Some(name.clone()), soft: Some(value), hard: Some(value) }
    };
    Ok(HostConfig {
        network_mode: Some(network.to_owned()),
        port_bindings: Some(ports),
        mounts: Some(volume::mounts(launch, fixed)?),
        memory,
        // What is above the limit ends, instead of being swapped out.
        memory_swap: memory,
        nano_cpus: (cpu > 0).then(|| signed(cpu.max(LEAST_CPU).saturating_mul(1_000_000))),
        ulimits: Some(launch.rlimits.iter().map(ulimit).collect()),
        // We restart, and nobody else does.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        readonly_rootfs: Some(read_only),
        tmpfs: read_only.then(|| passing(launch)),
        init: Some(fixed.init),
        log_config: Some(HostConfigLogConfig { typ: Some("json-file".to_owned()), config: Some(log) }),
        ..HostConfig::default()
    })
}
