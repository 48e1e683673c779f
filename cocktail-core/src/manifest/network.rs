//! Decodes ports and probes.
//!
//! A Unit with a port and without `ready` gets a TCP readiness check of its first port. Readiness looks every 200 ms,
//! liveness every 5 s; both wait 1 s and give up after 3 failures in a row, so that one slow answer takes nothing
//! out of the routing table.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::environment::Variables;
use super::table::{Item, Table, nearest};
use super::unit::decode_command;
use crate::name::Name;
use crate::spec::{Check, PortSpec, Probe};

/// Shortest pause and time-out of a probe.
const LEAST: Duration = Duration::from_millis(100);

/// Most ports of a Unit.
const MAX_PORTS: usize = 64;

const READY_EVERY: Duration = Duration::from_millis(200);
const LIVE_EVERY: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(1);
const FAILURES: u32 = 3;

const PORT: &str = "write ports.http = { service = 8080 }, or ports.http = {}";

/// Decodes `ports`, in the order of the text. A job takes no traffic, so its ports are its own.
pub(super) fn decode_ports(item: Option<Item<'_>>, job: bool) -> Vec<PortSpec> {
    let Some(table) = item.and_then(|item| item.table(PORT)) else {
        return Vec::new();
    };
    let mut ports: Vec<PortSpec> = Vec::new();
    for (name, item) in table.named(MAX_PORTS) {
        let place = item.clone();
        let Some(port) = item.table(PORT).map(|table| decode_port(name, table, job)) else {
            continue;
        };
        let same = ports.iter().find(|other| port.fixed.is_some() && other.fixed == port.fixed);
        if let Some(same) = same {
            let fixed = port.fixed.unwrap_or_default();
            place.key_problem(format!("port {fixed} is already the fixed port of `{}`", same.name), None);
        }
        ports.push(port);
    }
    ports
}

fn decode_port(name: Name, mut table: Table<'_>, job: bool) -> PortSpec {
    let number = |item: &Item<'_>| item.number::<u16>(1..=65_535);
    let service = table.take("service");
    let address = table.take("address");
    if let (None, Some(address)) = (&service, &address) {
        let help = "add service = 8080, the port that it listens on";
        address.key_problem("`address` needs `service`: it is where the service port listens", Some(help.to_owned()));
    }
    if let (Some(service), true) = (&service, job) {
        let help = "leave `service` out, or `restart.when`, so that it is no job";
        service.key_problem("a job takes no traffic and has no service port", Some(help.to_owned()));
    }
    let container = table.take("container");
    let port = PortSpec {
        name,
        service: service.as_ref().and_then(number),
        fixed: table.take("fixed").as_ref().and_then(number),
        inherit: table.take("inherit").and_then(|item| item.boolean()).unwrap_or(false),
        address: address.and_then(|item| decode_address(&item)).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        container: container.as_ref().and_then(number),
    };
    table.finish();
    if let (Some(item), true) = (&service, port.service.is_some() && port.service == port.fixed) {
        let help = "give the container another fixed port, or leave `fixed` out";
        item.problem("the worker and the service port cannot both have the same port", Some(help.to_owned()));
    }
    port
}

fn decode_address(item: &Item<'_>) -> Option<IpAddr> {
    let help = "write an IP address: \"127.0.0.1\", \"0.0.0.0\", \"::1\"";
    let address = item.text(help)?.parse().ok();
    if address.is_none() {
        item.problem("is no IP address", Some(help.to_owned()));
    }
    address
}

/// Decodes `ready`, with its default.
pub(super) fn decode_ready(
    item: Option<Item<'_>>,
    worker: bool,
    ports: &[PortSpec],
    variables: &Variables,
) -> Option<Probe> {
    if worker {
        if let Some(item) = item {
            let help = "remove it; `live` can be checked from outside";
            item.key_problem("a worker says itself when it is ready", Some(help.to_owned()));
        }
        return Some(Probe { check: Check::Worker, every: READY_EVERY, timeout: TIMEOUT, failures: 1 });
    }
    match item {
        Some(item) => decode_probe(item, READY_EVERY, ports, variables),
        None if ports.is_empty() => None,
        None => {
            Some(Probe { check: Check::Tcp { port: None }, every: READY_EVERY, timeout: TIMEOUT, failures: FAILURES })
        }
    }
}

/// Decodes `live`; without it nothing but an exit ends a container.
pub(super) fn decode_live(item: Option<Item<'_>>, ports: &[PortSpec], variables: &Variables) -> Option<Probe> {
    decode_probe(item?, LIVE_EVERY, ports, variables)
}

fn decode_probe(item: Item<'_>, every: Duration, ports: &[PortSpec], variables: &Variables) -> Option<Probe> {
    let mut table = item.table("write { http = \"/\", every = \"1s\" }, { tcp = true } or { exec = [\"…\"] }")?;
    let (http, tcp, exec, port) = (table.take("http"), table.take("tcp"), table.take("exec"), table.take("port"));
    let every = table.take("every").and_then(|item| item.duration(LEAST)).unwrap_or(every);
    let timeout = table.take("timeout").and_then(|item| item.duration(LEAST)).unwrap_or(TIMEOUT);
    let failures = table.take("failures").and_then(|item| item.number(1..=1_000)).unwrap_or(FAILURES);

    let kinds: Vec<&Item<'_>> = [&http, &tcp, &exec].into_iter().flatten().collect();
    if let [_, second, ..] = kinds.as_slice() {
        second.key_problem("a probe is one of `http`, `tcp` and `exec`", Some("keep one of them".to_owned()));
    }
    if ports.is_empty() && exec.is_none() {
        let help = "add ports.http = {}, or check with exec = [\"…\"]";
        match kinds.first() {
            Some(kind) => kind.key_problem("the probe needs a port, and the Unit has none", Some(help.to_owned())),
            None => table.problem("the probe needs a port, and the Unit has none", Some(help.to_owned())),
        }
    }
    if let (Some(exec), Some(port)) = (&exec, &port)
        && http.is_none()
        && tcp.is_none()
    {
        port.key_problem("`port` has no meaning for `exec`", Some(format!("remove it, or `{}`", exec.name)));
    }
    let port = port.and_then(|item| decode_port_name(&item, ports));
    let tcp_off = tcp.filter(|item| item.boolean() == Some(false));
    if let Some(item) = tcp_off {
        item.problem("can only be true", Some("write http = \"/\" or exec = [\"…\"] for another check".to_owned()));
    }
    let check = match (http, exec) {
        (Some(item), _) => decode_path(&item).map(|path| Check::Http { path, port }),
        (None, Some(item)) => decode_command(&item, variables).map(|command| Check::Exec { command }),
        (None, None) => Some(Check::Tcp { port }),
    };
    table.finish();
    Some(Probe { check: check?, every, timeout, failures })
}

/// One of the Unit's ports, by name.
pub(super) fn decode_port_name(item: &Item<'_>, ports: &[PortSpec]) -> Option<Name> {
    let name = item.text("write the name of a port: \"http\"")?;
    let found = ports.iter().find(|port| port.name.as_str() == name);
    if found.is_none() && !ports.is_empty() {
        let names = || ports.iter().map(|port| port.name.as_str());
        let help = match nearest(name, names()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("ports here: {}", names().collect::<Vec<_>>().join(", ")),
        };
        item.problem("the Unit has no port of this name", Some(help));
    }
    found.map(|port| port.name.clone())
}

/// The path goes into a request line, so it must not hold what could end that line.
pub(super) fn decode_path(item: &Item<'_>) -> Option<String> {
    let path = item.text("write http = \"/\"")?;
    if !path.starts_with('/') {
        item.problem("a path starts with a slash", Some("write http = \"/\"".to_owned()));
        return None;
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) || path.contains('#') {
        let help = "write spaces and other characters as %20 and the like";
        item.problem("a path holds visible ASCII characters without `#`", Some(help.to_owned()));
        return None;
    }
    Some(path.to_owned())
}
