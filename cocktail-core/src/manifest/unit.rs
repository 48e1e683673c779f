//! Decodes one Unit. Start at [`decode`]; its count is in `scale`, ports and probes are in `network`, environment and
//! secrets in `environment`, stop, restart and update in `policy`, volumes in `volume`, where its files come from in
//! `artifact`, its image in `image` and `build`.

use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::table::{Item, shown};
use super::{artifact, environment, image, labels, network, policy, scale, volume, warm, worker};
use crate::name::Name;
use crate::spec::{Resources, Template, UnitSpec};

/// Kinds of providers that are promised, but not there yet.
pub(super) const FUTURE_KINDS: [&str; 3] = ["azure", "ec2", "kubernetes"];

/// Most providers that a Unit may name.
const MAX_PROVIDERS: usize = 16;

const COMMAND: &str = "write it as an array: [\"python3\", \"-m\", \"http.server\"]";

/// Decodes a Unit. `None` after a problem that leaves nothing to check further; it has been reported.
pub(super) fn decode(item: Item<'_>) -> Option<UnitSpec> {
    let mut table = item.table("write [maps.prod.units.web] and the keys below it")?;
    let restart = policy::decode_restart(table.take("restart"));
    let ports = network::decode_ports(table.take("ports"), restart.is_job());
    let variables = environment::Variables::of(&ports);

    let worker = worker::decode(&mut table, &variables);
    let (has_image, image) = image::decode(&mut table, &variables);
    if has_image {
        image::refuse_others(&mut table);
        if worker.is_some() {
            let help = "leave `worker` out: this version runs an image as it is";
            table.problem("a unit runs a `worker` or an `image`", Some(help.to_owned()));
        }
        if let Some(port) = ports.iter().find(|port| port.inherit) {
            let problem = format!("the port `{}` cannot be inherited by an image", port.name);
            table.problem(problem, Some("leave `inherit` out: an image listens itself".to_owned()));
        }
    } else if let Some(port) = ports.iter().find(|port| port.container.is_some()) {
        let problem = format!("the port `{}` has a number inside a container, and there is no image", port.name);
        table.problem(problem, Some("leave `container` out, or run an `image`".to_owned()));
    }
    // The image has a command of its own.
    let command = match has_image || worker.is_some() {
        true => table.take("command"),
        false => table.require("command", COMMAND),
    };
    if let (Some(command), Some(_)) = (&command, &worker) {
        let help = "keep one of them: a worker is a program that loads `microservices`";
        command.key_problem("a unit runs a `command` or a `worker`", Some(help.to_owned()));
    }
    if let (true, Some(_)) = (restart.is_job(), &worker) {
        let help = "leave `when` out, or run a program with `command`";
        table.problem("a worker waits to be told what to do, so it cannot run to completion", Some(help.to_owned()));
    }
    let command = command.and_then(|item| decode_command(&item, &variables));
    let (command, microservices, bootstrap) = match worker {
        Some(worker) => (Some(worker.command), worker.microservices, worker.bootstrap),
        None => (command, Vec::new(), None),
    };
    let (resources, memory) = table.take("resources").map(decode_resources).unwrap_or_default();
    let replicas = scale::decode(&mut table, &scale::Around { ports: &ports, memory, job: restart.is_job() });
    let mut env = environment::decode(&mut table, &variables);
    env.env.extend(bootstrap.map(|word| (worker::BOOTSTRAP_VARIABLE.to_owned(), word.to_owned())));
    let template = Template {
        command: command.unwrap_or_default(),
        image,
        providers: decode_providers(table.take("provider")),
        cwd: match table.take("cwd") {
            Some(item) if has_image => decode_folder(&item),
            None if has_image => None,
            Some(item) => item.path("write cwd = \"site\", relative to this file, or leave it out"),
            None => Some(table.report.base.to_owned()),
        }
        .unwrap_or_default(),
        user: table.take("user").and_then(|item| decode_user(&item)),
        env: env.env,
        env_from: env.env_from,
        secrets: env.secrets,
        resources,
        ready: network::decode_ready(table.take("ready"), !microservices.is_empty(), &ports, &variables),
        live: network::decode_live(table.take("live"), &ports, &variables),
        stop: policy::decode_stop(table.take("stop")),
        restart,
        volumes: volume::decode(table.take("volumes"), has_image),
        rlimits: policy::decode_rlimits(table.take("rlimits")),
        ports,
        microservices,
        artifact: artifact::decode(table.take("artifact")),
    };
    let update = policy::decode_update(table.take("update"));
    let place = policy::decode_place(table.take("place"));
    let warm = table.take("warm").map(|item| warm::decode(item, &template)).unwrap_or_default();
    let labels = labels::decode(table.take("labels"));
    table.finish();
    Some(UnitSpec { labels, replicas, template, update, place, warm })
}

/// A folder inside an image.
fn decode_folder(item: &Item<'_>) -> Option<PathBuf> {
    let help = "write a folder of the image: cwd = \"/app\", or leave it out";
    let folder = Path::new(item.filled_text(help)?);
    if !folder.is_absolute() {
        item.problem("the working directory of an image is an absolute path in it", Some(help.to_owned()));
        return None;
    }
    Some(folder.to_owned())
}

/// A program with its arguments, as in `command` and in a probe's `exec`.
pub(super) fn decode_command(item: &Item<'_>, variables: &environment::Variables) -> Option<Vec<String>> {
    if let DeValue::String(line) = item.value() {
        let words: Vec<_> = line.split_whitespace().map(|word| format!("\"{}\"", shown(word))).collect();
        let simple = !line.contains(['"', '\'', '\\', '|', '&', ';', '<', '>', '\n']) && line.len() <= 80;
        let help = format!("write it as an array: [{}]", words.join(", "));
        item.problem(
            "expected an array, found a string: no shell splits it",
            Some(if simple && !words.is_empty() { help } else { COMMAND.to_owned() }),
        );
        return None;
    }
    let parts = item.items(COMMAND)?;
    let texts: Vec<_> = parts.iter().map(|part| part.text(COMMAND)).collect();
    match texts.first() {
        None => item.problem("must name a program", Some(COMMAND.to_owned())),
        Some(Some("")) => parts[0].problem("the program must not be empty", Some(COMMAND.to_owned())),
        Some(_) => {}
    }
    for (part, text) in parts.iter().zip(&texts) {
        if let Some(text) = text {
            variables.check(part, text);
        }
    }
    texts.into_iter().map(|text| text.map(str::to_owned)).collect()
}

fn decode_providers(item: Option<Item<'_>>) -> Vec<Name> {
    let Some(item) = item else {
        return Vec::new();
    };
    let help = "write provider = \"standalone\", or an array in order of preference";
    let items = if item.value().is_str() { vec![item] } else { item.items(help).unwrap_or_default() };
    let mut names: Vec<Name> = Vec::new();
    for (at, item) in items.into_iter().enumerate() {
        if at == MAX_PROVIDERS {
            item.problem(format!("at most {MAX_PROVIDERS} providers can stand here"), None);
            break;
        }
        let Some(name) = item.name_value(help) else { continue };
        if names.contains(&name) {
            item.problem(format!("`{name}` stands here twice"), None);
        } else {
            names.push(name);
        }
    }
    names
}

fn decode_user(item: &Item<'_>) -> Option<String> {
    let user = item.filled_text("write the name of a user, or its number, as a string: \"nobody\"")?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$' | '@' | '\\' | '+');
    if user.starts_with('-') || user.len() > 256 || !user.chars().all(allowed) {
        item.problem("is no user name", Some("write the name of a user, or its number".to_owned()));
        return None;
    }
    Some(user.to_owned())
}

/// What is reserved, and whether it says how much memory, be it well or not.
fn decode_resources(item: Item<'_>) -> (Resources, bool) {
    let Some(mut table) = item.table("write resources = { cpu = 0.25, memory = \"64MiB\" }") else {
        return (Resources::default(), true);
    };
    let (cpu, memory) = (table.take("cpu"), table.take("memory"));
    table.finish();
    let resources = Resources {
        cpu: cpu.and_then(|item| item.cpu()).unwrap_or_default(),
        memory: memory.as_ref().and_then(Item::size).unwrap_or_default(),
    };
    (resources, memory.is_some())
}
