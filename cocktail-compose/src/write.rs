//! A project as TOML: what differs from the defaults, in the order of the Compose file.

use std::net::{IpAddr, Ipv4Addr};

use cocktail_core::quantity::CpuMillis;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value, value};

use crate::context::Context;
use crate::interpolate::escaped;
use crate::project::Project;
use crate::quantity::shown_duration;
use crate::unit::{Build, Check, Kind, Port, Probe, Restart, SecretSource, Signal, Unit, Update, When};

/// The manifest, before the decoder has seen it.
pub(crate) fn document(context: &Context<'_>, project: &Project) -> DocumentMut {
    let mut document = DocumentMut::new();
    let file = context.source.file.file_name().and_then(|name| name.to_str()).unwrap_or("a Compose file");
    // A comment ends with its line, so nothing of the name may begin another one.
    let file: String = file.chars().filter(|c| !c.is_control()).collect();
    let mut service = value(project.service.as_str());
    if let Some(service) = service.as_value_mut() {
        service.decor_mut().set_prefix(" ");
    }
    document.insert("service", service);
    if let Some(mut key) = document.as_table_mut().key_mut("service") {
        key.leaf_decor_mut().set_prefix(format!("# From {file}. Images need a provider of the kind docker.\n"));
    }
    let mut units = Table::new();
    units.set_implicit(true);
    for unit in &project.units {
        units.insert(&unit.name, Item::Table(table(unit, project)));
    }
    let mut map = Table::new();
    map.set_implicit(true);
    map.insert("units", Item::Table(units));
    let mut maps = Table::new();
    maps.set_implicit(true);
    maps.insert(&project.map, Item::Table(map));
    document.insert("maps", Item::Table(maps));
    document
}

fn table(unit: &Unit, project: &Project) -> Table {
    let mut table = Table::new();
    match &unit.build {
        Some(made) => table.insert("build", value(build(made))),
        None => table.insert("image", value(unit.image.as_str())),
    };
    for (key, words) in [("entrypoint", &unit.entrypoint), ("command", &unit.command)] {
        if let Some(words) = words {
            table.insert(key, value(array(words)));
        }
    }
    // In a manifest they are read-only by themselves.
    if !unit.read_only {
        table.insert("read_only", value(false));
    }
    if let Some(count) = unit.replicas.filter(|count| *count != 1) {
        table.insert("replicas", value(integer(count)));
    }
    for (key, text) in [("cwd", &unit.cwd), ("user", &unit.user)] {
        if let Some(text) = text {
            table.insert(key, value(text.as_str()));
        }
    }
    dotted(&mut table, "ports", unit.ports.iter().map(|it| (it.name.as_str(), Value::InlineTable(port(it)))));
    let resources =
        inline([("cpu", unit.cpu.map(cores)), ("memory", unit.memory.map(|size| Value::from(size.to_string())))]);
    put(&mut table, "resources", resources);
    if let Some(ready) = &unit.ready {
        put(&mut table, "ready", probe(ready, unit));
    }
    let signal = unit.stop_signal.as_ref().map(|signal| match signal {
        Signal::Name(name) => Value::from(name.as_str()),
        Signal::Number(number) => Value::from(*number),
    });
    let signal = signal.filter(|signal| signal.as_str() != Some("TERM") && signal.as_integer() != Some(15));
    let grace = unit.stop_grace.filter(|grace| grace.as_secs() != 10 || grace.subsec_millis() != 0);
    put(&mut table, "stop", inline([("signal", signal), ("grace", grace.map(span))]));
    put(&mut table, "restart", restart(&unit.restart));
    put(&mut table, "update", update(&unit.update));
    dotted(&mut table, "volumes", unit.volumes.iter().map(|it| (it.name.as_str(), volume(it, unit, project))));
    let limits = unit.rlimits.iter().map(|(name, limit)| {
        let bytes = ["as", "core", "data", "fsize", "memlock", "msgqueue", "rss", "stack"].contains(name);
        let limit = match limit {
            -1 => Value::from("unlimited"),
            limit if bytes => Value::from(format!("{limit}B")),
            limit => Value::from(*limit),
        };
        (*name, Some(limit))
    });
    put(&mut table, "rlimits", inline(limits));
    dotted(&mut table, "env", unit.environment.env.iter().map(|(name, text)| (name.as_str(), escaped(text).into())));
    if !unit.environment.env_from.is_empty() {
        table.insert("env_from", value(unit.environment.env_from.iter().collect::<Array>()));
    }
    let secrets = unit.environment.secrets.iter().map(|(name, source)| {
        let (key, text) = match source {
            SecretSource::File(path) => ("file", path),
            SecretSource::Variable(name) => ("env", name),
        };
        (name.as_str(), Value::InlineTable(inline([(key, Some(Value::from(text.as_str())))])))
    });
    dotted(&mut table, "secrets", secrets);
    dotted(&mut table, "labels", unit.labels.iter().map(|(name, text)| (name.as_str(), text.as_str().into())));
    table
}

fn build(build: &Build) -> InlineTable {
    let file = build.file.as_deref().filter(|file| *file != "Dockerfile");
    let args = build.args.iter().map(|(name, text)| (name.as_str(), Some(Value::from(text.as_str()))));
    let args = Some(inline(args)).filter(|args| !args.is_empty());
    inline([
        ("context", Some(Value::from(build.context.as_str()))),
        ("file", file.map(Value::from)),
        ("args", args.map(Value::InlineTable)),
        ("target", build.target.as_deref().map(Value::from)),
        ("platform", build.platform.as_deref().map(Value::from)),
    ])
}

fn port(port: &Port) -> InlineTable {
    let address = port.address.filter(|address| *address != IpAddr::V4(Ipv4Addr::LOCALHOST));
    inline([
        ("service", port.service.map(|number| Value::from(i64::from(number)))),
        ("address", address.map(|address| Value::from(address.to_string()))),
        ("container", Some(Value::from(i64::from(port.container)))),
    ])
}

fn probe(probe: &Probe, unit: &Unit) -> InlineTable {
    let (kind, what, port) = match &probe.check {
        Check::Exec(words) => ("exec", Value::Array(array(words)), None),
        Check::Http { path, port } => {
            let first = unit.ports.first().is_some_and(|first| first.name == *port);
            ("http", Value::from(path.as_str()), (!first).then(|| Value::from(port.as_str())))
        }
    };
    let failures = (probe.failures != 3).then(|| integer(probe.failures).into());
    inline([
        (kind, Some(what)),
        ("port", port),
        ("every", Some(span(probe.every))),
        ("timeout", Some(span(probe.timeout))),
        ("failures", failures),
    ])
}

fn restart(restart: &Restart) -> InlineTable {
    let when = match restart.when {
        When::Always => None,
        When::Failure => Some("failure"),
        When::Never => Some("never"),
    };
    let retries = restart.retries.filter(|_| restart.when == When::Failure).filter(|count| *count != 3);
    // The longest pause is never below the first one.
    let longest = restart.base.filter(|base| base.as_secs() >= 300);
    inline([
        ("when", when.map(Value::from)),
        ("retries", retries.map(|count| integer(count).into())),
        ("base", restart.base.map(span)),
        ("max", longest.map(span)),
        ("reset", restart.reset.map(span)),
    ])
}

fn update(update: &Update) -> InlineTable {
    inline([
        ("surge", update.surge.map(|count| integer(count).into())),
        ("progress", update.progress.map(span)),
        ("monitor", update.monitor.map(span)),
        ("on_failure", update.pause.then(|| Value::from("pause"))),
    ])
}

/// A volume, with the reason for its kind.
fn volume(volume: &crate::unit::Volume, unit: &Unit, project: &Project) -> Value {
    let shared = project.shared.contains(&(unit.name.clone(), volume.name.clone()));
    let (kind, source, reason) = match &volume.kind {
        Kind::Named(_) if shared => (Some("shared"), None, "all containers of the Unit write to it, as in Compose"),
        Kind::Named(_) => (None, None, "exclusive: one container, which ends before its replacement starts"),
        Kind::Bind(path) => (Some("bind"), Some(path.as_str()), ""),
        Kind::Ephemeral => (Some("ephemeral"), None, "it goes with its container"),
    };
    let table = inline([
        ("mount", Some(Value::from(volume.mount.as_str()))),
        ("kind", kind.map(Value::from)),
        ("source", source.map(Value::from)),
        ("size", volume.size.map(|size| Value::from(size.to_string()))),
    ]);
    let mut value = Value::InlineTable(table);
    if !reason.is_empty() {
        value.decor_mut().set_suffix(format!(" # {reason}"));
    }
    value
}

/// Cores as a number.
fn cores(cpu: CpuMillis) -> Value {
    let text = cpu.to_string();
    match text.parse::<i64>() {
        Ok(whole) => Value::from(whole),
        // Three decimals come back as they are written.
        Err(_) => text.parse::<f64>().map_or_else(|_| Value::from(text), Value::from),
    }
}

fn span(duration: std::time::Duration) -> Value {
    Value::from(shown_duration(duration))
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Words in which the manifest would substitute nothing.
fn array(words: &[String]) -> Array {
    words.iter().map(|word| escaped(word)).collect()
}

fn inline<'a>(entries: impl IntoIterator<Item = (&'a str, Option<Value>)>) -> InlineTable {
    entries.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

fn put(table: &mut Table, key: &str, entries: InlineTable) {
    if !entries.is_empty() {
        table.insert(key, value(entries));
    }
}

/// `key.name = value`, a line for each.
fn dotted<'a>(table: &mut Table, key: &str, entries: impl Iterator<Item = (&'a str, Value)>) {
    let mut inner = Table::new();
    inner.set_dotted(true);
    for (name, entry) in entries {
        inner.insert(name, Item::Value(entry));
    }
    if !inner.is_empty() {
        table.insert(key, Item::Table(inner));
    }
}
