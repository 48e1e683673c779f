//! The file as a whole: its services, and what they have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::context::Context;
use crate::field::{Field, Keys};
use crate::names::{self, Taken};
use crate::service::{self, Around, Decoded};
use crate::unit::{Kind, Unit};
use crate::yaml::{Entry, Node, Outcome, Value, shown};
use crate::{Options, extends};

/// Most services of a file.
const MOST: usize = 1_000;

/// What becomes a manifest.
#[derive(Debug)]
pub(crate) struct Project {
    pub(crate) service: String,
    pub(crate) map: String,
    pub(crate) units: Vec<Unit>,
    /// Named volumes that become shared ones, by Unit and by name of the volume.
    pub(crate) shared: BTreeSet<(String, String)>,
}

/// Decodes the file.
///
/// # Errors
/// The first value of a wrong type; a file without services.
pub(crate) fn decode(context: &Context<'_>, top: &Node, options: &Options) -> Outcome<Project> {
    let whole = Field { cx: context, service: None, key: String::new(), place: top.place, node: top };
    let mut keys = whole.keys()?;
    let services = keys.take("services");
    let services = match services.as_ref().map(|field| (&field.node.value, field)) {
        Some((Value::Map(entries), _)) if !entries.is_empty() => entries,
        Some((Value::Map(_), field)) => return Err(field.problem("there are no services", "name at least one")),
        Some((_, field)) => return Err(field.problem(format!("expected a map, found {}", field.node.kind()), "")),
        None => return Err(context.problem(top.place, "there are no `services`", "check that this is a Compose file")),
    };
    let entries: Vec<&Entry> = services.iter().filter(|entry| !entry.key.starts_with("x-")).collect();
    if entries.is_empty() {
        return Err(context.problem(top.place, "there are no `services`", "name at least one"));
    }
    if entries.len() > MOST {
        let message = format!("the file has more than {MOST} services");
        return Err(context.problem(entries[MOST].place, message, "divide it"));
    }
    let name = keys.text("name")?;
    let service = service_name(context, name.as_deref(), options);
    let map = options.map.as_ref().map_or_else(|| "prod".to_owned(), ToString::to_string);
    // It says nothing any more, not to Compose either.
    keys.take("version");
    let (volumes, networks) = (keys.take("volumes"), keys.take("networks"));
    top_keys(keys)?;

    let owned: Vec<Entry> = entries.into_iter().cloned().collect();
    let resolved = extends::resolve(context, &owned)?;
    let awaited = awaited(&resolved);
    let around = Around { top, awaited: &awaited };
    let mut taken = Taken::default();
    let mut decoded = Vec::new();
    // Names that are valid as they are come first, so that another never takes one of them.
    let mut unit_names: BTreeMap<&str, String> = BTreeMap::new();
    for exact in [true, false] {
        for entry in &resolved {
            let nearest = names::nearest(&entry.key, "unit");
            if (nearest == *entry.key) == exact {
                unit_names.insert(&entry.key, taken.unique(&nearest));
            }
        }
    }
    for entry in &resolved {
        let name = unit_names.get(&*entry.key).cloned().unwrap_or_default();
        let field =
            Field { cx: context, service: Some(&entry.key), key: String::new(), place: entry.place, node: &entry.node };
        if name != *entry.key {
            let what = format!("is called `{name}` here");
            let instead = "others reach it by this name: change what they call it";
            context.note(Some(&entry.key), "services", Some(entry.place.line), what, instead);
        }
        decoded.push(service::decode(&field, name, &entry.key, &around)?);
    }
    restarts(context, &decoded);
    separated(context, &decoded, networks.as_ref())?;
    let mut units: Vec<Unit> = decoded.into_iter().map(|decoded| decoded.unit).collect();
    published_twice(context, &mut units);
    let shared = kinds(context, &mut units, volumes.as_ref())?;
    Ok(Project { service, map, units, shared })
}

fn service_name(context: &Context<'_>, name: Option<&str>, options: &Options) -> String {
    if let Some(name) = &options.service {
        return name.to_string();
    }
    let folder = context.source.folder.file_name().and_then(|name| name.to_str());
    let wanted = name.filter(|name| !name.is_empty()).or(folder).unwrap_or_default();
    let nearest = names::nearest(wanted, "app");
    if nearest != wanted && name.is_some() {
        context.note(None, "name", None, format!("the Service is called `{nearest}` here"), "choose with --service");
    }
    nearest
}

/// What stands beside the services.
fn top_keys(mut keys: Keys<'_>) -> Outcome<()> {
    if let Some(field) = keys.take("include") {
        let instead = "`docker compose config` writes one file with everything in it: import that";
        field.note("other files are not read", instead);
    }
    if let Some(field) = keys.take("secrets") {
        for (_, field) in field.keys()?.all() {
            let mut keys = field.keys()?;
            keys.take("file");
            keys.take("environment");
            keys.take("name");
            keys.finish("a secret is a file or a variable of the Manager's host");
        }
    }
    // Each use is noted where it stands.
    keys.take("configs");
    keys.finish("it is left out");
    Ok(())
}

/// Services that others wait for until they are done: jobs.
fn awaited(services: &[Entry]) -> BTreeSet<String> {
    let mut awaited = BTreeSet::new();
    for entry in services {
        let Some(Value::Map(others)) = entry.node.get("depends_on").map(|node| &node.value) else { continue };
        for other in others {
            let condition = other.node.get("condition").map(|node| &node.value);
            if matches!(condition, Some(Value::Text(text)) if text == "service_completed_successfully") {
                awaited.insert(other.key.to_string());
            }
        }
    }
    awaited
}

/// What Compose leaves as it ended is started again here.
fn restarts(context: &Context<'_>, decoded: &[Decoded]) {
    let names: Vec<String> = decoded.iter().filter(|it| it.restart_unsaid).map(|it| shown(&it.unit.service)).collect();
    if !names.is_empty() {
        let what = format!("started again when they end, which Compose does not do: {}", names.join(", "));
        context.note(None, "restart", None, what, "write restart.when = \"never\" for what runs once");
    }
}

/// A map has one network, so services that Compose keeps apart reach each other.
fn separated(context: &Context<'_>, decoded: &[Decoded], top: Option<&Field<'_>>) -> Outcome<()> {
    let apart = decoded.iter().enumerate().find_map(|(at, one)| {
        let other = decoded[at + 1..].iter().find(|other| one.networks.is_disjoint(&other.networks))?;
        Some((one, other))
    });
    if let Some((one, other)) = apart {
        let what = format!(
            "networks keep services apart, such as {} and {}; here all Units of a map reach each other",
            shown(&one.unit.service),
            shown(&other.unit.service)
        );
        let line = top.map(|field| field.place.line);
        context.note(None, "networks", line, what, "import them into different maps if they must not");
    }
    let Some(top) = top else { return Ok(()) };
    for (name, field) in top.keys()?.all() {
        let mut keys = field.keys()?;
        if let Some(external) = keys.take("external")
            && (external.is_map() || external.boolean()?)
        {
            let what = format!("the network {} of others is not joined", shown(name));
            external.note(what, "reach what is there by its published ports");
        }
        if let Some(internal) = keys.take("internal")
            && internal.boolean()?
        {
            internal.note("the way out is not closed", "close it for the engine's machine");
        }
        // Its name and the usual driver say nothing that could matter here.
        keys.take("name");
        keys.take("attachable");
        if let Some(driver) = keys.take("driver")
            && !matches!(driver.text()?.as_str(), "bridge" | "default" | "overlay" | "")
        {
            driver.note("the network is a bridge of the engine", "it is left out");
        }
        keys.finish("the network of a map has no settings");
    }
    Ok(())
}

/// Two Units cannot have one service port.
fn published_twice(context: &Context<'_>, units: &mut [Unit]) {
    let covers = |wide: IpAddr, other: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || other.is_ipv4());
    let mut wanted: Vec<(u16, IpAddr, String)> = Vec::new();
    for unit in units {
        for port in &mut unit.ports {
            let (Some(number), Some(address)) = (port.service, port.address) else { continue };
            let same = wanted.iter().find(|(other, at, _)| {
                *other == number && (*at == address || covers(*at, address) || covers(address, *at))
            });
            if let Some((.., owner)) = same {
                let what = format!("port {number} is already published by {}", shown(owner));
                let key = format!("ports.{}", port.name);
                context.note(Some(&unit.service), key, Some(port.line), what, "add `service` with another number");
                (port.service, port.address) = (None, None);
            } else {
                wanted.push((number, address, unit.service.clone()));
            }
        }
    }
}

/// Decides which named volumes are shared, and notes what is lost.
fn kinds(context: &Context<'_>, units: &mut [Unit], top: Option<&Field<'_>>) -> Outcome<BTreeSet<(String, String)>> {
    let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for unit in units.iter() {
        for volume in &unit.volumes {
            if let Kind::Named(name) = &volume.kind {
                users.entry(name.clone()).or_default().insert(unit.service.clone());
            }
        }
    }
    let mut shared = BTreeSet::new();
    for unit in units.iter_mut() {
        let several = unit.replicas.is_some_and(|count| count > 1);
        for volume in &mut unit.volumes {
            if several && matches!(volume.kind, Kind::Named(_)) {
                shared.insert((unit.name.clone(), volume.name.clone()));
            }
        }
    }
    for unit in units.iter().filter(|unit| unit.replicas.is_none_or(|count| count == 1)) {
        both_write(context, unit);
    }
    for (name, users) in users.iter().filter(|(_, users)| users.len() > 1) {
        let all = users.iter().map(|user| shown(user)).collect::<Vec<_>>().join(", ");
        let what = format!("{} is not one for {all}: each Unit has its own", shown(name));
        let line = top.map(|field| field.place.line);
        context.note(None, "volumes", line, what, "bind one folder in all of them");
    }
    if !users.is_empty() {
        let names = users.keys().map(|name| shown(name)).collect::<Vec<_>>().join(", ");
        let what = format!("volumes of the engine begin empty: {names}");
        context.note(None, "volumes", top.map(|field| field.place.line), what, "copy what Compose's volumes hold");
    }
    let Some(top) = top else { return Ok(shared) };
    for (_, field) in top.keys()?.all() {
        let mut keys = field.keys()?;
        keys.take("name");
        if let Some(external) = keys.take("external")
            && (external.is_map() || external.boolean()?)
        {
            external.note("a volume of others is not used", "copy what it holds, or bind a folder");
        }
        if let Some(driver) = keys.take("driver")
            && driver.text()? != "local"
        {
            driver.note("volumes are those of the engine itself", "bind a folder that is mounted on the host");
        }
        keys.finish("bind a folder that is mounted on the host, or leave it out");
    }
    Ok(shared)
}

/// Compose ends a container before it makes the next one. Here that is so with an exclusive volume only.
fn both_write(context: &Context<'_>, unit: &Unit) {
    let exclusive = unit.volumes.iter().any(|volume| matches!(volume.kind, Kind::Named(_)));
    let bound = |volume: &&crate::unit::Volume| matches!(volume.kind, Kind::Bind(_)) && !volume.read_only;
    let folders: Vec<String> = unit.volumes.iter().filter(bound).map(|volume| shown(&volume.mount)).collect();
    if exclusive || folders.is_empty() {
        return;
    }
    let what = format!("during an update the old and the new container both write to {}", folders.join(", "));
    let instead = "make it an exclusive volume where only one may write, as with a database: leave `kind` and `source` out, \
        and copy its data";
    context.note(Some(&unit.service), "volumes", Some(unit.line), what, instead);
}
