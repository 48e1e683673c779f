//! `environment` and `env_file`, and what may not be set here.

use crate::context::Context;
use crate::field::{Field, Keys};
use crate::ports;
use crate::unit::{Environment, Port, Unit};
use crate::yaml::{Outcome, Place, shown};

/// Parts of names of variables whose values should not stand in a file.
const SECRET: [&str; 7] = ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "API_KEY", "ACCESS_KEY", "PRIVATE_KEY"];

/// A variable, before it is checked.
struct Variable {
    name: String,
    value: Option<String>,
    line: u32,
}

/// Takes the variables of a service, those of files first.
pub(crate) fn decode(keys: &mut Keys<'_>, unit: &mut Unit) -> Outcome<()> {
    let mut variables: Vec<Variable> = Vec::new();
    if let Some(field) = keys.take("env_file") {
        for item in field.list_or_one()? {
            of_file(&item, &mut variables)?;
        }
    }
    let context = keys.of().cx;
    if let Some(field) = keys.take("environment") {
        for (name, value, field) in field.pairs()? {
            variables.push(Variable { name, value, line: field.place.line });
        }
    }
    let mut kept: Vec<Variable> = Vec::new();
    let mut at = std::collections::BTreeMap::new();
    for variable in variables {
        match at.get(&variable.name) {
            Some(&at) => kept[at] = variable,
            None => {
                at.insert(variable.name.clone(), kept.len());
                kept.push(variable);
            }
        }
    }
    let mut found = Environment::default();
    let mut told = Told::default();
    for variable in kept {
        take(context, unit, variable, &mut found, &mut told);
    }
    told.finish(context, unit);
    unit.environment = found;
    Ok(())
}

/// Names that are told together, because there can be hundreds.
#[derive(Default)]
struct Told {
    secret: Vec<String>,
    inherited: Vec<String>,
    unset: Vec<String>,
}

impl Told {
    fn finish(self, context: &Context<'_>, unit: &Unit) {
        let all = [
            (
                self.secret,
                "what looks like a secret stands in the manifest",
                "write secrets.NAME = { file = \"…\" } or { env = \"…\" }, which is never stored",
            ),
            (self.inherited, "taken from the environment", "they must be set where the Manager runs"),
            (self.unset, "without a value, and not set here", "they are left out: set those that are needed"),
        ];
        for (names, what, instead) in all {
            if !names.is_empty() {
                let what = format!("{what}: {}", listed(&names));
                context.note(Some(&unit.service), "environment", Some(unit.line), what, instead);
            }
        }
    }
}

/// Some of the names, and how many more there are.
fn listed(names: &[String]) -> String {
    let some = names.iter().take(10).map(|name| shown(name)).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(10) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}

fn take(context: &Context<'_>, unit: &mut Unit, variable: Variable, found: &mut Environment, told: &mut Told) {
    let Variable { name, value, line } = variable;
    let service = unit.service.clone();
    let note = |what: String, instead: &str| {
        context.note(Some(&service), format!("environment.{}", shown(&name)), Some(line), what, instead);
    };
    if name == "PORT" {
        return port(&mut unit.ports, value, line, &note);
    }
    if let Some(why) = refused(&name) {
        return note(why.to_owned(), "it is left out: give it to the program in another way, as an argument or a file");
    }
    let Some(value) = value else {
        if context.in_environment(&name) {
            told.inherited.push(name.clone());
            return found.env_from.push(name);
        }
        match context.variable(&name) {
            Some(value) => found.env.push((name, value)),
            None => told.unset.push(name),
        }
        return;
    };
    let upper = name.to_ascii_uppercase();
    let looks = SECRET.iter().any(|part| upper.contains(part)) && !upper.ends_with("_FILE");
    if looks && !value.is_empty() {
        told.secret.push(name.clone());
    }
    found.env.push((name, value));
}

/// `PORT` is what the manifest itself tells the program: its first port.
fn port(ports: &mut Vec<Port>, value: Option<String>, line: u32, note: &dyn Fn(String, &str)) {
    let number = value.as_deref().and_then(|value| value.trim().parse::<u16>().ok()).filter(|number| *number > 0);
    let Some(number) = number else {
        return note("PORT is set by cocktail, and this is no number".to_owned(), "it is left out");
    };
    let port = match ports.iter().position(|port| port.container == number) {
        Some(at) => ports.remove(at),
        None => {
            let plain = ports::name_of(None, number);
            let taken = ports.iter().any(|port| port.name == plain);
            let name = if taken { format!("p{number}") } else { plain };
            Port { name, container: number, service: None, address: None, line }
        }
    };
    // The first one is what PORT says.
    ports.insert(0, port);
}

/// Why a variable may not be set in a manifest, if so.
fn refused(name: &str) -> Option<&'static str> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !first || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Some("is no name of a variable here: those have letters, digits and underscores");
    }
    let reserved = ["PORT_", "COCKTAIL_", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LD_"];
    let exact = |word: &str| !word.ends_with('_') && name == word;
    let family = |word: &str| word.ends_with('_') && name.starts_with(word);
    reserved.iter().any(|word| exact(word) || family(word)).then_some("is reserved")
}

/// One entry of `env_file`: a path, or a path that need not be there.
fn of_file(field: &Field<'_>, variables: &mut Vec<Variable>) -> Outcome<()> {
    let (path, required, substituted) = if field.is_map() {
        let mut keys = field.keys()?;
        let path = keys.text("path")?.unwrap_or_default();
        let required = keys.take("required").map(|field| field.boolean()).transpose()?.unwrap_or(true);
        let format = keys.text("format")?;
        keys.finish("leave it out");
        (path, required, format.as_deref() != Some("raw"))
    } else {
        (field.text()?, true, true)
    };
    let context = field.cx;
    let text = match context.source.surroundings.read(&context.source.folder.join(&path)) {
        Ok(Some(text)) => text,
        Ok(None) if !required => return Ok(()),
        Ok(None) => {
            field.note(
                format!("{} is not there", shown(&path)),
                "import again where it is, or write its variables into `env`",
            );
            return Ok(());
        }
        Err(why) => {
            field.note(format!("{} cannot be read: {why}", shown(&path)), "make it readable, and import again");
            return Ok(());
        }
    };
    field
        .note(format!("the variables of {} stand in the manifest", shown(&path)), "import again when the file changes");
    let place = Place { line: field.place.line, column: field.place.column };
    for (name, value) in context.dotenv(&path, &text, substituted, place)? {
        variables.push(Variable { name, value, line: field.place.line });
    }
    Ok(())
}
