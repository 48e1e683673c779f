//! Decodes what a worker finds in its environment, and checks `${…}` before anything is started.

use std::collections::{BTreeMap, BTreeSet};

use super::substitute::{SubstituteError, references};
use super::table::{Item, Table, nearest, shown};
use crate::spec::{PortSpec, SecretSource};

/// Variables that `${…}` may name in one Unit.
pub(super) struct Variables {
    names: Vec<String>,
}

impl Variables {
    pub(super) fn of(ports: &[PortSpec]) -> Self {
        let mut names = vec!["CONTAINER".to_owned(), "SERVER".to_owned(), "UNIT".to_owned()];
        if !ports.is_empty() {
            names.push("PORT".to_owned());
        }
        names.extend(ports.iter().map(|port| format!("PORT_{}", port.name.to_env())));
        Self { names }
    }

    /// Reports what cannot be substituted in `template`, which stands at `item`.
    pub(super) fn check(&self, item: &Item<'_>, template: &str) {
        let escape = "write $$ for a dollar sign: $${…}";
        for reference in references(template) {
            if item.report.is_full() {
                return;
            }
            match reference {
                Ok(name) if self.names.iter().any(|known| known == name) => {}
                Ok(name) if name == "PORT" || (name.starts_with("PORT_") && !self.has_ports()) => {
                    let help = "add ports.http = {}, or write $$ for a dollar sign";
                    item.problem(
                        format!("${{{}}} needs a port, and the Unit has none", shown(name)),
                        Some(help.to_owned()),
                    );
                }
                Ok(name) => {
                    let names = || self.names.iter().map(String::as_str);
                    let help = match nearest(name, names()) {
                        Some(near) => format!("did you mean ${{{near}}}?"),
                        None => format!("known here: {}; {escape}", names().collect::<Vec<_>>().join(", ")),
                    };
                    item.problem(format!("${{{}}} is not known", shown(name)), Some(help));
                }
                Err(why @ (SubstituteError::Open | SubstituteError::Unknown(_))) => {
                    item.problem(why.to_string(), Some(escape.to_owned()));
                }
            }
        }
    }

    fn has_ports(&self) -> bool {
        self.names.iter().any(|name| name == "PORT")
    }
}

/// The three ways into a worker's environment.
pub(super) struct Environment {
    pub(super) env: BTreeMap<String, String>,
    pub(super) env_from: Vec<String>,
    pub(super) secrets: BTreeMap<String, SecretSource>,
}

/// Takes `env`, `env_from` and `secrets`, which may not set the same variable.
pub(super) fn decode(table: &mut Table<'_>, variables: &Variables) -> Environment {
    let mut taken = BTreeSet::new();
    let mut found = Environment { env: BTreeMap::new(), env_from: Vec::new(), secrets: BTreeMap::new() };
    let help = "write env = { GREETING = \"hi\" }";
    for item in table.take("env").and_then(|item| item.table(help)).map(|mut env| env.drain()).unwrap_or_default() {
        let Some(value) = item.text("write the value in quotes") else { continue };
        variables.check(&item, value);
        if variable_name(&item, item.name, &mut taken) {
            found.env.insert(item.name.to_owned(), value.to_owned());
        }
    }
    let help = "write env_from = [\"DATABASE_URL\"]";
    for item in table.take("env_from").and_then(|item| item.items(help)).unwrap_or_default() {
        let Some(name) = item.text(help) else { continue };
        if variable_name(&item, name, &mut taken) {
            found.env_from.push(name.to_owned());
        }
    }
    let help = "write secrets.API_KEY = { file = \"/run/key\" } or { env = \"API_KEY\" }";
    let secrets = table.take("secrets").and_then(|item| item.table(help)).map(|mut secrets| secrets.drain());
    for item in secrets.unwrap_or_default() {
        if variable_name(&item, item.name, &mut taken)
            && let Some(source) = decode_secret(item.clone())
        {
            found.secrets.insert(item.name.to_owned(), source);
        }
    }
    found
}

/// Where a value comes from that is never written down.
pub(super) fn decode_secret(item: Item<'_>) -> Option<SecretSource> {
    let help =
        "name its source: { file = \"/run/key\" } or { env = \"API_KEY\" }; the value itself is never written here";
    let mut table = item.clone().table(help)?;
    let file = table.take("file").map(|item| item.path(help).map(SecretSource::File));
    let env = table.take("env").map(|item| {
        let name = item.text(help)?;
        if name_problem(name).is_none() {
            return Some(SecretSource::Env(name.to_owned()));
        }
        // The text is not repeated: it could be the value itself.
        item.problem("is no name of a variable", Some(help.to_owned()));
        None
    });
    table.finish();
    match (file, env) {
        (Some(source), None) | (None, Some(source)) => source,
        _ => {
            item.key_problem("a secret has exactly one source", Some(help.to_owned()));
            None
        }
    }
}

/// Whether `name` may be set; reports why not.
fn variable_name(item: &Item<'_>, name: &str, taken: &mut BTreeSet<String>) -> bool {
    if let Some(why) = name_problem(name) {
        item.key_problem(why, Some("use letters, digits and underscores, and no digit first".to_owned()));
        return false;
    }
    if let Some((family, owner)) = reserved(name) {
        item.key_problem(
            format!("`{}` is reserved: {family} {owner}", shown(name)),
            Some("choose another name".to_owned()),
        );
        return false;
    }
    if !taken.insert(name.to_owned()) {
        let help = "keep one of `env`, `env_from` and `secrets`";
        item.key_problem(format!("`{}` is set twice", shown(name)), Some(help.to_owned()));
        return false;
    }
    true
}

fn name_problem(name: &str) -> Option<String> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (!first || !rest).then(|| format!("`{}` is no name of a variable", shown(name)))
}

/// Which names the system sets itself, or must not be set by a manifest.
fn reserved(name: &str) -> Option<(&'static str, &'static str)> {
    match name {
        "PORT" => Some(("PORT", "is the worker's first port")),
        "LISTEN_FDS" | "LISTEN_PID" | "LISTEN_FDNAMES" => {
            Some(("LISTEN_*", "describes the sockets that are handed over"))
        }
        _ if name.starts_with("PORT_") => Some(("PORT_*", "are the worker's ports")),
        _ if name.starts_with("COCKTAIL_") => Some(("COCKTAIL_*", "is what a worker is told about itself")),
        _ if name.starts_with("LD_") => Some(("LD_*", "changes which code the loader runs")),
        _ => None,
    }
}
