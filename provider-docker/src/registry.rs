//! Registries: which one an image comes from, and what proves to it who asks.
//!
//! Start at [`Registries::proof`]. A proof is made for one call and kept nowhere: passwords are read, and helpers asked, each
//! time. It goes to the engine in a header of our own making: that of the client library is written in letters which engines
//! take for no header at all, as soon as a password has certain characters.

use std::collections::BTreeMap;
use std::fmt;

use bollard::Docker;
use cocktail_agent::values;
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::name::Name;
use cocktail_core::settings::{RegistryAccess, RegistrySettings};
use cocktail_core::spec::SecretSource;
use data_encoding::BASE64URL;
use hyper::header::HeaderValue;
use serde_json::json;
use zeroize::Zeroizing;

use crate::helper;

/// The header that engines want a proof in.
const HEADER: &str = "x-registry-auth";
/// The header that engines want all of them in for a build.
const ALL_HEADER: &str = "x-registry-config";
/// The registry of references without a host.
const HUB: &str = "docker.io";
/// What that is called where passwords are kept.
const HUB_ADDRESS: &str = "https://index.docker.io/v1/";

/// The registries of the settings, by the name of their table.
#[derive(Debug, Default)]
pub(crate) struct Registries(BTreeMap<Name, RegistrySettings>);

/// What proves who asks.
pub(crate) enum Secret {
    Password { username: String, password: Zeroizing<String> },
    Token(Zeroizing<String>),
}

/// What is shown to the registry of one image, for one call.
pub(crate) struct Proof {
    host: String,
    service: Name,
    /// The table that it comes from.
    table: Option<Name>,
    header: Option<HeaderValue>,
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof").field("host", &self.host).field("table", &self.table).finish_non_exhaustive()
    }
}

impl Registries {
    pub(crate) fn new(registries: BTreeMap<Name, RegistrySettings>) -> Self {
        Self(registries)
    }

    /// The table that holds for a Service: one that names it before one that is for all.
    fn find(&self, host: &str, service: &Name) -> Option<(&Name, &RegistrySettings)> {
        let of_host = || self.0.iter().filter(|(_, registry)| registry.host == host);
        let named = of_host().find(|(_, registry)| registry.services.contains(service));
        named.or_else(|| of_host().find(|(_, registry)| registry.services.is_empty()))
    }

    /// The host of a table that a Service may use.
    ///
    /// # Errors
    /// `InvalidConfig` for another one.
    pub(crate) fn host(&self, table: &Name, service: &Name) -> Result<&str> {
        let found = self.0.get(table).filter(|it| it.services.is_empty() || it.services.contains(service));
        let problem = || format!("there is no [registries.{table}] in the settings that is for the service {service}");
        found.map(|registry| registry.host.as_str()).ok_or_else(|| Error::invalid(problem()))
    }

    /// An engine's API that shows every registry of a Service what it wants, for what a build is made from. A registry that
    /// cannot be told now is left out: the build may not need it.
    pub(crate) async fn show_all(&self, docker: Docker, service: &Name) -> Docker {
        let mut all = serde_json::Map::new();
        for host in self.0.values().map(|registry| &registry.host) {
            let Some((name, registry)) = self.find(host, service) else { continue };
            match secret(name, registry).await {
                Ok(Some(secret)) => all.extend([(address(host).to_owned(), proof(host, &secret))]),
                Ok(None) => {}
                Err(error) => tracing::warn!(registry = %name, error = %error.chain(), "a build goes on without it"),
            }
        }
        match coded(&serde_json::Value::Object(all)) {
            Ok(header) => showing(docker, ALL_HEADER, header),
            Err(_) => docker,
        }
    }

    /// What the registry of an image is shown when a Service wants it; nothing where the settings know no such registry.
    ///
    /// # Errors
    /// `InvalidConfig` for a password that is not there, and `Denied`, `InvalidConfig` and `Unavailable` by a helper. They name
    /// the table.
    pub(crate) async fn proof(&self, reference: &str, service: &Name) -> Result<Proof> {
        let host = host_of(reference);
        let found = self.find(&host, service);
        let header = match found {
            Some((name, registry)) => match secret(name, registry).await? {
                Some(secret) => Some(header(&host, &secret)?),
                None => None,
            },
            None => None,
        };
        Ok(Proof { table: found.map(|(name, _)| name.clone()), service: service.clone(), host, header })
    }
}

impl Proof {
    /// An engine's API that shows it with each call.
    pub(crate) fn show(&self, docker: Docker) -> Docker {
        match self.header.clone() {
            Some(header) => showing(docker, HEADER, header),
            None => docker,
        }
    }

    /// Says of a refusal which table is to be corrected.
    pub(crate) fn explain(&self, error: Error) -> Error {
        if *error.kind() != ErrorKind::Denied {
            return error;
        }
        let (host, service) = (&self.host, &self.service);
        let what = match (&self.table, &self.header) {
            (Some(table), Some(_)) => format!("the registry {host} refuses what [registries.{table}] shows it"),
            (Some(table), None) => {
                format!("the registry {host} wants to know who asks, and [registries.{table}] does not say")
            }
            (None, _) => format!("no [registries.NAME] with host = \"{host}\" is for the service {service}"),
        };
        Error::new(ErrorKind::Denied, format!("{error}: {what}"))
    }
}

/// The registry that a reference of an image names.
fn host_of(reference: &str) -> String {
    let first = reference.split_once('/').map(|(first, _)| first);
    let host = first.filter(|first| first.contains(['.', ':']) || *first == "localhost");
    match host.map(str::to_ascii_lowercase) {
        None => HUB.to_owned(),
        Some(host) if host == "index.docker.io" => HUB.to_owned(),
        Some(host) => host,
    }
}

/// What a registry is called by helpers, and by engines.
fn address(host: &str) -> &str {
    if host == HUB { HUB_ADDRESS } else { host }
}

async fn secret(name: &Name, registry: &RegistrySettings) -> Result<Option<Secret>> {
    let key = |part: &str| format!("registries.{name}.{part}");
    Ok(match &registry.access {
        RegistryAccess::Open => None,
        RegistryAccess::Password { username, password } => {
            let password = read(key("password"), password).await?;
            Some(Secret::Password { username: username.clone(), password })
        }
        RegistryAccess::Token(token) => Some(Secret::Token(read(key("token"), token).await?)),
        RegistryAccess::Helper(program) => Some(helper::ask(&key("helper"), program, address(&registry.host)).await?),
    })
}

async fn read(key: String, source: &SecretSource) -> Result<Zeroizing<String>> {
    let source = source.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let value = Zeroizing::new(values::secret(&key, &source)?);
        match value.is_empty() {
            true => Err(Error::invalid(format!("{key}: what it names is empty"))),
            false => Ok(value),
        }
    });
    reading.await.map_err(|error| Error::new(ErrorKind::Unexpected, "reading a password panicked").because(error))?
}

fn showing(docker: Docker, name: &'static str, header: HeaderValue) -> Docker {
    docker.with_request_modifier(move |mut request| {
        request.headers_mut().insert(name, header.clone());
        request
    })
}

/// As engines want it.
fn proof(host: &str, secret: &Secret) -> serde_json::Value {
    match secret {
        Secret::Password { username, password } => {
            json!({ "username": username, "password": &**password, "serveraddress": address(host) })
        }
        Secret::Token(token) => json!({ "identitytoken": &**token, "serveraddress": address(host) }),
    }
}

fn header(host: &str, secret: &Secret) -> Result<HeaderValue> {
    coded(&proof(host, secret))
}

/// A header is marked, so that nothing that prints requests prints it.
fn coded(value: &serde_json::Value) -> Result<HeaderValue> {
    let text = Zeroizing::new(BASE64URL.encode(Zeroizing::new(value.to_string()).as_bytes()));
    let mut header = HeaderValue::from_str(&text).map_err(|_| Error::unexpected("a proof fits into no header"))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn registry(host: &str, services: &[&str]) -> RegistrySettings {
        let services = services.iter().map(|service| name(service)).collect();
        RegistrySettings { host: host.into(), access: RegistryAccess::Open, services }
    }

    #[test]
    fn a_reference_names_its_registry_as_engines_read_it() {
        for (reference, host) in [
            ("web", "docker.io"),
            ("team/web:1", "docker.io"),
            ("index.docker.io/team/web", "docker.io"),
            ("localhost/web", "localhost"),
            ("Registry.example.com/web", "registry.example.com"),
            ("a:5000/web@sha256:00", "a:5000"),
        ] {
            assert_eq!(host_of(reference), host, "{reference}");
        }
    }

    #[test]
    fn a_service_has_its_own_table_before_that_of_all_and_never_anothers() {
        let all = Registries::new(BTreeMap::from([
            (name("a"), registry("x.io", &[])),
            (name("b"), registry("x.io", &["shop"])),
            (name("c"), registry("y.io", &["shop"])),
        ]));
        let found = |host: &str, service: &str| all.find(host, &name(service)).map(|(name, _)| name.to_string());
        assert_eq!(found("x.io", "shop").as_deref(), Some("b"));
        assert_eq!(found("x.io", "bank").as_deref(), Some("a"));
        assert_eq!(found("y.io", "bank"), None);
        assert_eq!(found("z.io", "shop"), None);
    }

    #[test]
    fn a_header_has_the_letters_of_urls_and_is_never_printed() {
        // In the other alphabet these are written with + and /.
        let password = Zeroizing::new("???>>>~~~".to_owned());
        let made = header("x.io", &Secret::Password { username: "u".into(), password }).unwrap();
        let text = made.to_str().unwrap().to_owned();
        assert!(text.contains(['-', '_']) && !text.contains(['+', '/']), "{text}");
        let read: serde_json::Value = serde_json::from_slice(&BASE64URL.decode(text.as_bytes()).unwrap()).unwrap();
        assert_eq!(read, json!({ "username": "u", "password": "???>>>~~~", "serveraddress": "x.io" }));
        let proof = Proof { host: "x.io".into(), service: name("shop"), table: None, header: Some(made) };
        let shown = format!("{proof:?} {:?}", proof.header);
        assert!(!shown.contains(&text), "{shown}");
    }
}
