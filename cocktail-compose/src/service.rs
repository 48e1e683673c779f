//! One service of the Compose file as a Unit.

use std::collections::BTreeSet;

use crate::field::Field;
use crate::unit::{Unit, When};
use crate::yaml::{Node, Outcome, shown};
use crate::{command, deploy, environment, health, other, policy, ports, secrets, volumes};

/// What a service needs to know of the others.
pub(crate) struct Around<'a> {
    /// The top of the file.
    pub(crate) top: &'a Node,
    /// Services whose end others wait for.
    pub(crate) awaited: &'a BTreeSet<String>,
}

/// A Unit, and what only the project can judge.
pub(crate) struct Decoded {
    pub(crate) unit: Unit,
    /// Its networks by name.
    pub(crate) networks: BTreeSet<String>,
    /// Whether nothing says when it starts again.
    pub(crate) restart_unsaid: bool,
}

/// Decodes a service.
///
/// # Errors
/// The first value of a wrong type.
pub(crate) fn decode(field: &Field<'_>, name: String, service: &str, around: &Around<'_>) -> Outcome<Decoded> {
    let mut keys = field.keys()?;
    let mut unit = Unit { service: service.to_owned(), line: field.place.line, name, ..Unit::default() };
    command::image(&mut keys, &mut unit, field)?;
    command::decode(&mut keys, &mut unit)?;
    unit.ports = ports::decode(&mut keys)?;
    environment::decode(&mut keys, &mut unit)?;
    secrets::decode(&mut keys, &mut unit, around.top)?;
    unit.volumes = volumes::decode(&mut keys)?;
    if let Some(field) = keys.take("labels") {
        deploy::labels(&field, &mut unit)?;
    }
    let restart = policy::restart(&mut keys, &mut unit)?;
    deploy::decode(&mut keys, &mut unit)?;
    let said = restart.is_some() || unit.restart.base.is_some() || unit.restart.when != When::Always;
    let awaited = around.awaited.contains(service);
    if !said && awaited {
        unit.restart.when = When::Never;
    }
    let line = restart.as_ref().map_or(field.place.line, |restart| restart.place.line);
    deploy::settle_job(&mut unit, field, line);
    policy::stop(&mut keys, &mut unit)?;
    policy::limits(&mut keys, &mut unit)?;
    policy::place(&mut keys, &mut unit)?;
    health::decode(&mut keys, &mut unit)?;
    if let Some(field) = keys.take("profiles") {
        let profiles = field.texts()?;
        if !profiles.is_empty() {
            let profiles = profiles.iter().map(|profile| shown(profile)).collect::<Vec<_>>().join(", ");
            let instead = format!("it has 0 replicas: start it with `cocktail scale {} 1`", unit.name);
            field.note(format!("runs only with the profile {profiles}"), instead);
            unit.replicas = Some(0);
        }
    }
    let networks = networks(keys.take("networks"))?;
    other::finish(keys)?;
    let restart_unsaid = !said && !awaited;
    Ok(Decoded { unit, networks, restart_unsaid })
}

fn networks(field: Option<Field<'_>>) -> Outcome<BTreeSet<String>> {
    let Some(field) = field else { return Ok(BTreeSet::from(["default".to_owned()])) };
    let mut names = BTreeSet::new();
    if !field.is_map() {
        return Ok(field.texts()?.into_iter().collect());
    }
    for (name, field) in field.keys()?.all() {
        names.insert(name.to_owned());
        let mut keys = field.keys()?;
        if let Some(field) = keys.take("aliases") {
            let aliases = field.texts()?.iter().map(|alias| shown(alias)).collect::<Vec<_>>().join(", ");
            field.note(format!("there are no other names: {aliases}"), "Units of the map reach it by the Unit's name");
        }
        for (_, field) in keys.rest() {
            field.note("addresses are the engine's choice", "reach it by the Unit's name");
        }
    }
    Ok(names)
}
