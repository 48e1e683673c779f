//! Decodes `worker`, `microservices` and `config`: a program that loads what it is told.

use toml::de::{DeArray, DeTable, DeValue};

use super::environment::Variables;
use super::table::{Item, Table, nearest, shown};
use super::unit::decode_command;
use crate::spec::MicroserviceSpec;

/// Most microservices that one worker loads.
const MAX_MICROSERVICES: usize = 64;
/// Bytes of all configuration of one Unit, as JSON.
const MAX_CONFIG: usize = 1 << 20;

const WORKER: &str = "write worker = \"target/release/shop-worker\", or an array with its arguments";
const MICROSERVICES: &str = "write microservices = [\"orders\"]";
const BOOTSTRAP: &str = "write bootstrap = \"if-absent\", or leave it out";
const CONFIG: &str = "write config.orders = { … }";

/// A program that loads microservices.
#[derive(Debug, Default)]
pub(super) struct Worker {
    pub(super) command: Vec<String>,
    pub(super) microservices: Vec<MicroserviceSpec>,
    /// What it finds in [`BOOTSTRAP_VARIABLE`], if anything.
    pub(super) bootstrap: Option<&'static str>,
}

/// Tells a worker to host a Manager where none is.
pub(super) const BOOTSTRAP_VARIABLE: &str = "COCKTAIL_BOOTSTRAP";

/// Takes the keys of a worker; `None` where the Unit has none of them.
pub(super) fn decode(table: &mut Table<'_>, variables: &Variables) -> Option<Worker> {
    let (worker, names, config) = (table.take("worker"), table.take("microservices"), table.take("config"));
    let bootstrap = table.take("bootstrap");
    let (worker, names) = match (worker, names) {
        (Some(worker), Some(names)) => (worker, names),
        (Some(worker), None) => {
            worker.key_problem("a worker loads `microservices`", Some(MICROSERVICES.to_owned()));
            return Some(Worker::default());
        }
        (None, Some(names)) => {
            names.key_problem("microservices are loaded by a `worker`", Some(WORKER.to_owned()));
            return Some(Worker::default());
        }
        (None, None) => {
            if let Some(config) = config {
                let help = Some(format!("remove it, or {WORKER}"));
                config.key_problem("`config` is that of `microservices`", help);
            }
            if let Some(bootstrap) = bootstrap {
                let help = Some(format!("remove it, or {WORKER}"));
                bootstrap.key_problem("only a `worker` hosts a Manager", help);
            }
            return None;
        }
    };
    let command = match worker.value() {
        DeValue::String(_) => worker.filled_text(WORKER).map(|program| {
            variables.check(&worker, program);
            vec![program.to_owned()]
        }),
        _ => decode_command(&worker, variables),
    };
    let mut microservices = decode_names(&names);
    if let Some(config) = config {
        decode_config(config, &mut microservices);
    }
    let bootstrap = bootstrap.and_then(|item| match item.text(BOOTSTRAP)? {
        "if-absent" => Some("if-absent"),
        other => {
            item.problem(format!("there is no bootstrap {:?}", shown(other)), Some(BOOTSTRAP.to_owned()));
            None
        }
    });
    Some(Worker { command: command.unwrap_or_default(), microservices, bootstrap })
}

fn decode_names(item: &Item<'_>) -> Vec<MicroserviceSpec> {
    let items = item.items(MICROSERVICES).unwrap_or_default();
    if items.is_empty() && matches!(item.value(), DeValue::Array(_)) {
        item.problem("a worker loads at least one", Some(MICROSERVICES.to_owned()));
    }
    let mut found: Vec<MicroserviceSpec> = Vec::new();
    for (at, item) in items.into_iter().enumerate() {
        if at == MAX_MICROSERVICES {
            item.problem(format!("at most {MAX_MICROSERVICES} microservices can stand here"), None);
            break;
        }
        let Some(name) = item.name_value(MICROSERVICES) else { continue };
        if found.iter().any(|known| known.name == name) {
            item.problem(format!("`{name}` stands here twice"), None);
        } else {
            found.push(MicroserviceSpec { name, config: "{}".into() });
        }
    }
    found
}

fn decode_config(item: Item<'_>, microservices: &mut [MicroserviceSpec]) {
    let Some(mut table) = item.clone().table(CONFIG) else { return };
    let mut bytes = 0;
    for entry in table.drain() {
        let names = || microservices.iter().map(|known| known.name.as_str());
        let Some(index) = names().position(|known| known == entry.name) else {
            let help = match nearest(entry.name, names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("microservices here: {}", names().collect::<Vec<_>>().join(", ")),
            };
            entry.key_problem(format!("the unit loads no `{}`", shown(entry.name)), Some(help));
            continue;
        };
        let DeValue::Table(values) = entry.value() else {
            entry.problem("expected a table", Some(CONFIG.to_owned()));
            continue;
        };
        match json_of_table(values) {
            Ok(value) => {
                let config = value.to_string();
                bytes += config.len();
                microservices[index].config = config;
            }
            Err(why) => entry.problem(why, None),
        }
    }
    if bytes > MAX_CONFIG {
        item.key_problem(format!("all configuration together is longer than {MAX_CONFIG} bytes"), None);
    }
}

fn json_of_table(table: &DeTable<'_>) -> Result<serde_json::Value, String> {
    let entry = |(key, value): (&toml::Spanned<std::borrow::Cow<'_, str>>, &toml::Spanned<DeValue<'_>>)| {
        json_of(value.get_ref()).map(|value| (key.get_ref().to_string(), value))
    };
    table.iter().map(entry).collect::<Result<serde_json::Map<_, _>, _>>().map(serde_json::Value::Object)
}

fn json_of_array(array: &DeArray<'_>) -> Result<serde_json::Value, String> {
    array.iter().map(|value| json_of(value.get_ref())).collect::<Result<Vec<_>, _>>().map(serde_json::Value::Array)
}

/// A value as JSON; a date becomes its text.
fn json_of(value: &DeValue<'_>) -> Result<serde_json::Value, String> {
    Ok(match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(integer) => {
            let number = i64::from_str_radix(integer.as_str(), integer.radix());
            number.map_err(|_| format!("{} is too large a number", shown(integer.as_str())))?.into()
        }
        DeValue::Float(float) => {
            let number = float.as_str().parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            number.ok_or_else(|| format!("{} is no number that JSON has", shown(float.as_str())))?.into()
        }
        DeValue::Boolean(value) => (*value).into(),
        DeValue::Datetime(at) => at.to_string().into(),
        DeValue::Array(array) => json_of_array(array)?,
        DeValue::Table(table) => json_of_table(table)?,
    })
}
