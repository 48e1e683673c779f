//! Decodes `[registries.<name>]`: where images come from that are not for everybody, and who may have them.
//!
//! What proves who asks never stands here, only where it comes from. Messages never repeat a host that is refused: people
//! write a name and a password before it.

use std::collections::BTreeMap;

use super::environment::decode_secret;
use super::table::Item;
use crate::name::Name;
use crate::settings::{RegistryAccess, RegistrySettings};

/// Most registries of a Manager.
const MAX_REGISTRIES: usize = 64;

/// Most Services that a registry is for.
pub(super) const MAX_SERVICES: usize = 64;

const TABLE: &str = "write [registries.NAME] and host = \"registry.example.com\" below it";
const HOST: &str = "write host = \"registry.example.com:5000\", or \"docker.io\"";
const PASSWORD: &str = "write username = \"…\" and password = { file = \"/run/password\" } or { env = \"PASSWORD\" }";
const HELPER: &str = "write helper = \"pass\" for the program docker-credential-pass";
const SERVICES: &str = "write services = [\"shop\"], or leave it out for all";

/// Takes the registries. Those that are not well have been reported and are left out.
pub(super) fn decode(item: Item<'_>) -> BTreeMap<Name, RegistrySettings> {
    let Some(table) = item.table(TABLE) else { return BTreeMap::new() };
    let mut all: BTreeMap<Name, RegistrySettings> = BTreeMap::new();
    for (name, item) in table.named(MAX_REGISTRIES) {
        let Some(registry) = decode_registry(item.clone()) else { continue };
        let twin = all.iter().find(|(_, other)| other.host == registry.host && both(other, &registry));
        if let Some((twin, _)) = twin {
            let problem = format!("`{twin}` has the same host for the same services");
            item.key_problem(problem, Some("keep one of them, or name other `services`".to_owned()));
            continue;
        }
        all.insert(name, registry);
    }
    all
}

/// Whether a Service could not tell which of two tables is meant.
fn both(one: &RegistrySettings, other: &RegistrySettings) -> bool {
    one.services.is_empty() && other.services.is_empty() || one.services.iter().any(|it| other.services.contains(it))
}

fn decode_registry(item: Item<'_>) -> Option<RegistrySettings> {
    let mut table = item.table(TABLE)?;
    let host = table.require("host", HOST).and_then(|item| decode_host(&item));
    let username = table.take("username").map(|item| item.filled_text(PASSWORD).map(str::to_owned));
    let password = table.take("password").map(decode_secret);
    let token = table.take("token").map(decode_secret);
    let helper = table.take("helper").map(|item| decode_helper(&item));
    let services = table.take("services").map(|item| decode_services(&item));
    let proofs = usize::from(username.is_some() || password.is_some());
    let proofs = proofs + usize::from(token.is_some()) + usize::from(helper.is_some());
    if proofs > 1 {
        let help = "keep one of them: `username` and `password`, `token`, or `helper`";
        table.problem("a registry is told once who asks", Some(help.to_owned()));
    }
    let access = match (username, password, token, helper) {
        (None, None, None, None) => Some(RegistryAccess::Open),
        (Some(username), Some(password), ..) => {
            username.zip(password).map(|(username, password)| RegistryAccess::Password { username, password })
        }
        (Some(_), None, ..) | (None, Some(_), ..) => {
            table.problem("`username` and `password` belong together", Some(PASSWORD.to_owned()));
            None
        }
        (None, None, Some(token), _) => token.map(RegistryAccess::Token),
        (None, None, None, Some(helper)) => helper.map(RegistryAccess::Helper),
    };
    table.finish();
    Some(RegistrySettings { host: host?, access: access?, services: services.unwrap_or_default() })
}

/// The host in the one way in which it is compared.
fn decode_host(item: &Item<'_>) -> Option<String> {
    let host = item.filled_text(HOST)?.to_ascii_lowercase();
    if host.contains("://") || host.contains('/') {
        item.problem("a registry is named by its host alone, without https:// and path", Some(HOST.to_owned()));
        return None;
    }
    let well = |it: u8| it.is_ascii_alphanumeric() || b".-:[]".contains(&it);
    if host.len() > 255 || !host.bytes().all(well) {
        item.problem("is no host name", Some(HOST.to_owned()));
        return None;
    }
    // So many names has the registry that references without a host mean.
    let hub = ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"].contains(&host.as_str());
    if !hub && host != "localhost" && !host.contains(['.', ':']) {
        item.problem("has neither a dot nor a port: references of images take it for a folder", Some(HOST.to_owned()));
        return None;
    }
    Some(if hub { "docker.io".to_owned() } else { host })
}

fn decode_helper(item: &Item<'_>) -> Option<String> {
    let name = item.filled_text(HELPER)?;
    let edge = |it: Option<&u8>| it.is_some_and(u8::is_ascii_alphanumeric);
    let inside = |it: u8| it.is_ascii_alphanumeric() || b"._-".contains(&it);
    let bytes = name.as_bytes();
    if bytes.len() > 64 || !edge(bytes.first()) || !edge(bytes.last()) || !name.bytes().all(inside) {
        item.problem("is no name of a credential helper", Some(HELPER.to_owned()));
        return None;
    }
    Some(name.to_owned())
}

fn decode_services(item: &Item<'_>) -> Vec<Name> {
    let mut names: Vec<Name> = Vec::new();
    let Some(items) = item.items(SERVICES) else { return names };
    if items.is_empty() {
        item.problem("names no service", Some(SERVICES.to_owned()));
    }
    for (at, item) in items.into_iter().enumerate() {
        if at == MAX_SERVICES {
            item.problem(format!("at most {MAX_SERVICES} services can stand here"), None);
            break;
        }
        let Some(name) = item.name_value(SERVICES) else { continue };
        if names.contains(&name) {
            item.problem(format!("`{name}` stands here twice"), None);
        } else {
            names.push(name);
        }
    }
    names
}
