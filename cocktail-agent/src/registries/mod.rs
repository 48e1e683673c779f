//! Registries of images: whose table holds for a Service, and what proves to it who asks.
//!
//! Start at [`Registries::secret`]. Passwords are read, and helpers asked, each time, and kept nowhere.

mod helper;

use std::collections::BTreeMap;

use cocktail_core::contract::{Login, LoginProof};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::name::Name;
use cocktail_core::settings::{RegistryAccess, RegistrySettings};
use cocktail_core::spec::SecretSource;
use zeroize::Zeroizing;

use crate::values;

/// The registry of references without a host.
const HUB: &str = "docker.io";
/// What that is called where passwords are kept.
const HUB_ADDRESS: &str = "https://index.docker.io/v1/";

/// The registries of the settings, by the name of their table.
#[derive(Debug, Default)]
pub struct Registries(BTreeMap<Name, RegistrySettings>);

/// What proves who asks. Nothing prints it.
pub enum Secret {
    /// A user's password.
    Password {
        /// The user.
        username: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// An identity token.
    Token(Zeroizing<String>),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Registries {
    /// Those of the settings.
    pub fn new(registries: BTreeMap<Name, RegistrySettings>) -> Self {
        Self(registries)
    }

    /// The hosts of all tables.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(|registry| registry.host.as_str())
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
    pub fn host(&self, table: &Name, service: &Name) -> Result<&str> {
        let found = self.0.get(table).filter(|it| it.services.is_empty() || it.services.contains(service));
        let problem = || format!("there is no [registries.{table}] in the settings that is for the service {service}");
        found.map(|registry| registry.host.as_str()).ok_or_else(|| Error::invalid(problem()))
    }

    /// What a registry is shown when a Service wants something of it, with the table that says so; no secret where that says
    /// that it is open. `None` where the settings know no such registry.
    ///
    /// # Errors
    /// `InvalidConfig` for a password that is not there, and `Denied`, `InvalidConfig` and `Unavailable` by a helper. They name
    /// the table.
    pub async fn secret(&self, host: &str, service: &Name) -> Result<Option<(Name, Option<Secret>)>> {
        let Some((name, registry)) = self.find(host, service) else { return Ok(None) };
        Ok(Some((name.clone(), secret(name, registry).await?)))
    }

    /// The same, as it is told to whoever is somewhere else.
    ///
    /// # Errors
    /// As [`Registries::secret`].
    pub async fn login(&self, reference: &str, service: &Name) -> Result<Option<Login>> {
        let found = self.secret(&host_of(reference), service).await?;
        let proof = |secret| match secret {
            Secret::Password { username, password } => {
                LoginProof::Password { username, password: password.as_str().to_owned() }
            }
            Secret::Token(token) => LoginProof::Token(token.as_str().to_owned()),
        };
        Ok(found.map(|(table, secret)| Login { table, proof: secret.map(proof) }))
    }
}

impl From<LoginProof> for Secret {
    fn from(proof: LoginProof) -> Self {
        match proof {
            LoginProof::Password { username, password } => {
                Self::Password { username, password: Zeroizing::new(password) }
            }
            LoginProof::Token(token) => Self::Token(Zeroizing::new(token)),
        }
    }
}

/// The registry that a reference of an image names.
pub fn host_of(reference: &str) -> String {
    let first = reference.split_once('/').map(|(first, _)| first);
    let host = first.filter(|first| first.contains(['.', ':']) || *first == "localhost");
    match host.map(str::to_ascii_lowercase) {
        None => HUB.to_owned(),
        Some(host) if host == "index.docker.io" => HUB.to_owned(),
        Some(host) => host,
    }
}

/// What a registry is called by helpers, and by engines.
pub fn address(host: &str) -> &str {
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
}
