//! Checks that need more than one key: within a file, across files, and against a Manager's settings.
//!
//! [`check`] compares files that are applied together, [`check_settings`] one file with the settings that will be in
//! force. Both are pure and can be repeated; what depends on the machine (is the port free, does the program exist) is
//! found out later and reported through [`Spans`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use super::Parsed;
use super::diagnostic::{Diagnostic, Spans};
use super::manager::is_future;
use super::report::bounded;
use super::table::{join, nearest};
use super::volume::lexical;
use crate::name::Name;
use crate::quantity::{Bytes, CpuMillis};
use crate::settings::Settings;
use crate::spec::{Check, Quota, ServiceSpec, UnitSpec, VolumeKind};

/// Owners of one port that are compared with each further one, so that a long list takes no quadratic time.
const COMPARED: usize = 256;

/// Longest path that a message repeats, so that it can be copied from there.
const LONGEST_SHOWN: usize = 256;

/// Compares files that are applied together: maps that two of them define, ports that two Units want, a quota that
/// only all of them together exceed. What is wrong within one file was reported by [`super::parse`].
pub fn check(files: &[Parsed]) -> Vec<Diagnostic> {
    let services = || files.iter().filter_map(|file| Some((file.service.as_ref()?, &file.spans)));
    let mut problems = Vec::new();
    let mut maps: BTreeMap<(&Name, &Name), &Spans> = BTreeMap::new();
    for (service, spans) in services() {
        for map in service.maps.keys() {
            if let Some(first) = maps.insert((&service.name, map), spans) {
                let key = format!("maps.{map}");
                let message = format!("map `{map}` is already defined at {}", first.place(&key));
                let help = "one file owns a map: move the units together, or rename one map";
                problems.push(spans.error(&key, message).with_help(help));
            }
        }
    }
    let mut settings = files.iter().filter(|file| file.settings.is_some());
    if let (Some(first), Some(second)) = (settings.next(), settings.next()) {
        let message = format!("{} has Manager settings, too", first.spans.file());
        problems.push(second.spans.error("manager", message).with_help("keep them in one file"));
    }
    problems.extend(ports(services(), Scope::BetweenFiles));
    let mut by_name: BTreeMap<&Name, Vec<(&ServiceSpec, &Spans)>> = BTreeMap::new();
    for (service, spans) in services() {
        by_name.entry(&service.name).or_default().push((service, spans));
    }
    for files in by_name.values().filter(|files| files.len() > 1) {
        problems.extend(quota(files));
    }
    bounded(files.first().map_or("", |file| file.spans.file()), problems, 0)
}

/// Compares one file with the settings in force and with the kinds of providers that the program has: unknown
/// providers and binds of folders that nobody allowed are errors, declared ports inside the range of leased ports are
/// warnings. Paths are compared as text; where links lead is looked at when a volume is prepared.
pub fn check_settings(file: &Parsed, settings: &Settings, kinds: &[&str]) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    for (name, provider) in &settings.providers {
        if !kinds.contains(&provider.kind.as_str()) {
            let help = format!("kinds of this program: {}", kinds.join(", "));
            let message = format!("unknown kind of provider `{}`", provider.kind);
            problems.push(file.spans.error(&format!("providers.{name}.kind"), message).with_help(help));
        }
    }
    for (key, unit) in file.service.iter().flat_map(units) {
        for name in &unit.template.providers {
            if settings.providers.contains_key(name) || kinds.contains(&name.as_str()) {
                continue;
            }
            let known = || settings.providers.keys().map(Name::as_str).chain(kinds.iter().copied());
            let help = match nearest(name.as_str(), known()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("known here: {}", known().collect::<Vec<_>>().join(", ")),
            };
            let key = format!("{key}.provider");
            problems.push(file.spans.error(&key, format!("unknown provider `{name}`")).with_help(help));
        }
        for port in &unit.template.ports {
            for (kind, number) in [("service", port.service), ("fixed", port.fixed)] {
                let Some(number) = number.filter(|number| settings.port_range.contains(*number)) else { continue };
                let range = settings.port_range;
                let message = format!("{kind} port {number} lies in the range of leased ports, {range}");
                let key = format!("{key}.ports.{}.{kind}", port.name);
                let help = "choose a port outside, or change manager.port_range";
                problems.push(file.spans.warning(&key, message).with_help(help));
            }
        }
        for (name, volume) in &unit.template.volumes {
            let source = volume.source.as_deref().filter(|_| volume.kind == VolumeKind::Bind);
            let Some(source) = source.filter(|source| !may_bind(source, file, settings)) else { continue };
            let key = format!("{key}.volumes.{name}.source");
            let folder =
                lexical(source).to_str().filter(|text| text.len() <= LONGEST_SHOWN).map(|text| format!("{text:?}"));
            let folder = folder.as_deref().unwrap_or("it");
            let help = format!("add {folder} to manager.binds, or use a folder below that of the manifest");
            let message = "this folder is not among those that may be bound";
            problems.push(file.spans.error(&key, message).with_help(help));
        }
    }
    bounded(file.spans.file(), problems, 0)
}

/// Whether `source` lies below the file's own folder, or below one that the settings name.
fn may_bind(source: &Path, file: &Parsed, settings: &Settings) -> bool {
    let source = lexical(source);
    let base = lexical(&file.base);
    // A manifest in `/`, or one that claims to be there, would own every folder.
    let own = base.parent().is_some() && source.starts_with(base);
    own || settings.binds.iter().any(|folder| source.starts_with(lexical(folder)))
}

/// What can be told from one file alone.
pub(super) fn within(service: &ServiceSpec, settings: Option<&Settings>, spans: &Spans) -> Vec<Diagnostic> {
    let mut problems = ports([(service, spans)].into_iter(), Scope::WithinFile);
    problems.extend(quota(&[(service, spans)]));
    for (key, unit) in units(service) {
        for name in unit.template.providers.iter().filter(|name| is_future(name, settings)) {
            let message = format!("providers of kind `{name}` are not supported yet");
            let help = "this version has \"standalone\" and \"docker\"";
            problems.push(spans.error(&format!("{key}.provider"), message).with_help(help));
        }
        problems.extend(unmeasured(&key, unit, spans));
    }
    problems
}

/// Targets of metrics that only the worker knows, where nothing asks the worker.
fn unmeasured(key: &str, unit: &UnitSpec, spans: &Spans) -> Option<Diagnostic> {
    let scaling = unit.replicas.scaling.as_ref().filter(|scaling| scaling.scrape.is_none())?;
    let probes = [&unit.template.ready, &unit.template.live];
    if probes.into_iter().flatten().any(|probe| matches!(probe.check, Check::Http { .. } | Check::Worker)) {
        return None;
    }
    let own = |metric: &&String| !matches!(metric.as_str(), "cpu" | "memory" | "in_flight" | "rps" | "connections");
    let metric = scaling.targets.keys().find(own)?;
    let table = if metric == "queue" { "scale" } else { "scale.custom" };
    let help = "add metrics = { http = \"/metrics\" }, or a probe with http whose answer is JSON";
    let message = format!("nothing asks the worker for `{metric}`");
    Some(spans.warning(&join(&format!("{key}.{table}"), metric), message).with_help(help))
}

/// The Units with their keys.
fn units(service: &ServiceSpec) -> impl Iterator<Item = (String, &UnitSpec)> {
    let entries =
        service.maps.iter().flat_map(|(map, spec)| spec.units.iter().map(move |(unit, spec)| (map, unit, spec)));
    entries.map(|(map, unit, spec)| (format!("maps.{map}.units.{unit}"), spec))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    WithinFile,
    BetweenFiles,
}

/// One port that a Unit wants for itself on the Manager's host.
struct Wanted<'a> {
    number: u16,
    kind: &'static str,
    /// Address of a service port; a worker binds a fixed port wherever it likes.
    address: Option<IpAddr>,
    owner: String,
    unit: String,
    key: String,
    spans: &'a Spans,
}

/// Two Units on one port. Each port is reported once, against the first that wants it.
fn ports<'a>(services: impl Iterator<Item = (&'a ServiceSpec, &'a Spans)>, scope: Scope) -> Vec<Diagnostic> {
    let mut all = Vec::new();
    for (file, (service, spans)) in services.enumerate() {
        for (key, unit) in units(service) {
            let name = key.replacen("maps.", "", 1).replacen(".units.", "/", 1);
            for port in &unit.template.ports {
                let both = [("service", port.service, Some(port.address)), ("fixed", port.fixed, None)];
                for (kind, number, address) in both {
                    let Some(number) = number else { continue };
                    let new = Wanted {
                        number,
                        kind,
                        address,
                        owner: format!("{}/{name}", service.name),
                        unit: format!("{}:{key}", spans.file()),
                        key: format!("{key}.ports.{}.{kind}", port.name),
                        spans,
                    };
                    all.push((file, spans.find(&new.key).start, new));
                }
            }
        }
    }
    // In the order of the text, so that the later one is the one that is reported.
    all.sort_by_key(|(file, start, _)| (*file, *start));
    let mut by_port: BTreeMap<u16, Vec<Wanted<'a>>> = BTreeMap::new();
    let mut problems = Vec::new();
    for (_, _, new) in all {
        let others = by_port.entry(new.number).or_default();
        if let Some(other) = others.iter().find(|other| conflict(other, &new))
            && (scope == Scope::WithinFile) == std::ptr::eq(other.spans, new.spans)
        {
            problems.push(taken(&new, other));
        }
        if others.len() < COMPARED {
            others.push(new);
        }
    }
    problems
}

fn conflict(a: &Wanted<'_>, b: &Wanted<'_>) -> bool {
    match (a.address, b.address) {
        (Some(a), Some(b)) => overlap(a, b),
        // Ports of one Unit were compared when they were decoded.
        _ => a.unit != b.unit,
    }
}

fn taken(new: &Wanted<'_>, other: &Wanted<'_>) -> Diagnostic {
    let message = format!(
        "port {} is already the {} port of {} ({})",
        new.number,
        other.kind,
        other.owner,
        other.spans.place(&other.key)
    );
    new.spans.error(&new.key, message).with_help("give one of them another port")
}

/// Whether listening on both addresses needs the same socket. `::` takes IPv4 as well on a machine with defaults.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    let covers = |wide: IpAddr, other: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || other.is_ipv4());
    a == b || covers(a, b) || covers(b, a)
}

/// Sums what the Units of one Service ask for, and compares it with the quota.
fn quota(files: &[(&ServiceSpec, &Spans)]) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    let mut declared = files.iter().filter(|(service, _)| service.quota != Quota::default());
    let Some((first, spans)) = declared.next() else {
        return problems;
    };
    for (other, spans) in declared.filter(|(other, _)| other.quota != first.quota) {
        let message = format!("{} gives another quota for service `{}`", files[0].1.file(), other.name);
        problems.push(spans.error("quota", message).with_help("write it in one of the files"));
    }
    let (mut containers, mut cpu, mut memory) = (0_u64, 0_u64, 0_u64);
    for (_, unit) in files.iter().flat_map(|(service, _)| units(service)) {
        let count = u64::from(unit.replicas.initial);
        let resources = unit.template.resources;
        containers = containers.saturating_add(count);
        cpu = cpu.saturating_add(resources.cpu.0.saturating_mul(count));
        memory = memory.saturating_add(resources.memory.0.saturating_mul(count));
    }
    let Quota { cpu: cpu_limit, memory: memory_limit, containers: containers_limit } = &first.quota;
    let sums = [
        ("containers", containers_limit.map(u64::from), containers, containers.to_string()),
        ("cpu", cpu_limit.map(|limit| limit.0), cpu, format!("{} cores", CpuMillis(cpu))),
        ("memory", memory_limit.map(|limit| limit.0), memory, Bytes(memory).to_string()),
    ];
    for (name, limit, sum, shown) in sums {
        if limit.is_some_and(|limit| sum > limit) {
            let message = format!("the units ask for more than the quota of {name}: {shown} in all");
            problems.push(spans.error(&format!("quota.{name}"), message).with_help("raise the quota, or ask for less"));
        }
    }
    problems
}
