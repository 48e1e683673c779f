//! `secrets` and `configs`: files of the host that Compose mounts.
//!
//! A secret becomes a variable whose value is read at each start. Where the program is told about the file by a variable
//! `NAME_FILE`, as many images take it, that variable becomes the secret `NAME` itself.

use crate::field::{Field, Keys};
use crate::names;
use crate::unit::{SecretSource, Unit};
use crate::yaml::{Node, Outcome, shown};

/// Takes `secrets` and `configs` of a service. `top` are those of the file.
pub(crate) fn decode(keys: &mut Keys<'_>, unit: &mut Unit, top: &Node) -> Outcome<()> {
    if let Some(field) = keys.take("secrets") {
        for item in field.list()? {
            secret(&item, unit, top)?;
        }
    }
    if let Some(field) = keys.take("configs") {
        for item in field.list()? {
            let (name, target) = named(&item, "")?;
            let instead = "files are not mounted one by one: bind their folder, or make them part of the image";
            let at = if target.is_empty() { format!("/{name}") } else { target };
            item.note(format!("the config `{}` is not put to {}", shown(&name), shown(&at)), instead);
        }
    }
    Ok(())
}

/// The name of what is used, and where it is wanted.
fn named(item: &Field<'_>, folder: &str) -> Outcome<(String, String)> {
    if !item.is_map() {
        let name = item.text()?;
        let target = format!("{folder}{name}");
        return Ok((name, target));
    }
    let mut keys = item.keys()?;
    let name = keys.text("source")?.unwrap_or_default();
    let target = keys.text("target")?.unwrap_or_else(|| name.clone());
    keys.finish("the owner and the mode of a file have no counterpart");
    let target = if target.starts_with('/') { target } else { format!("{folder}{target}") };
    Ok((name, target))
}

fn secret(item: &Field<'_>, unit: &mut Unit, top: &Node) -> Outcome<()> {
    let (name, target) = named(item, "/run/secrets/")?;
    let Some(definition) = top.get("secrets").and_then(|secrets| secrets.get(&name)) else {
        item.note(format!("the secret `{}` is not defined", shown(&name)), "define it at the top level");
        return Ok(());
    };
    let of = Field {
        node: definition,
        place: definition.place,
        service: None,
        key: format!("secrets.{name}"),
        ..item.clone()
    };
    let mut keys = of.keys()?;
    let file = keys.text("file")?;
    let variable = keys.text("environment")?;
    let source = match (file, variable) {
        (Some(file), _) if !file.is_empty() => SecretSource::File(item.cx.path(&file)),
        (_, Some(variable)) if !variable.is_empty() => SecretSource::Variable(variable),
        _ => {
            let instead = "write secrets.NAME = { file = \"…\" } with a file of the Manager's host";
            item.note(format!("the secret `{}` is no file and no variable", shown(&name)), instead);
            return Ok(());
        }
    };
    // POSTGRES_PASSWORD_FILE=/run/secrets/db is secrets.POSTGRES_PASSWORD.
    let environment = &mut unit.environment;
    let told = environment.env.iter().position(|(name, value)| *value == target && name.ends_with("_FILE"));
    let variable = match told {
        Some(at) => {
            let (name, _) = environment.env.remove(at);
            let plain = name.trim_end_matches("_FILE").to_owned();
            item.note(
                format!("{name} names a file that is not there: {plain} has its content instead"),
                "check that the image takes the variable without _FILE",
            );
            plain
        }
        None => {
            let variable = names::nearest(&name, "secret").to_ascii_uppercase().replace('-', "_");
            item.note(
                format!("there is no file {}: the variable {variable} has its content", shown(&target)),
                "let the program read the variable, or bind the folder of the file",
            );
            variable
        }
    };
    let taken = environment.env.iter().any(|(name, _)| *name == variable)
        || environment.env_from.contains(&variable)
        || environment.secrets.iter().any(|(name, _)| *name == variable);
    if taken || variable.starts_with(|first: char| first.is_ascii_digit()) || variable.is_empty() {
        item.note(format!("the variable {variable} cannot be used"), "write secrets.NAME with another name");
    } else {
        environment.secrets.push((variable, source));
    }
    Ok(())
}
