//! Registries: which one an image comes from, and what proves to it who asks.
//!
//! Start at [`Registries::proof`]. A proof is made for one call and kept nowhere: passwords are read, and helpers asked, each
//! time. It goes to the engine in a header of our own making: that of the client library is written in letters which engines
//! take for no header at all, as soon as a password has certain characters.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use bollard::Docker;
use cocktail_agent::registries::{self, Secret, address, host_of};
use cocktail_core::contract::Login;
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::name::Name;
use cocktail_core::settings::RegistrySettings;
use data_encoding::BASE64URL;
use hyper::header::HeaderValue;
use serde_json::json;
use zeroize::Zeroizing;

use crate::shared::lock;

/// The header that engines want a proof in.
const HEADER: &str = "x-registry-auth";
/// The header that engines want all of them in for a build.
const ALL_HEADER: &str = "x-registry-config";

/// The registries of the settings, and what was lent by who has settings.
#[derive(Debug, Default)]
pub(crate) struct Registries {
    own: registries::Registries,
    /// By host and Service, in memory alone.
    lent: Mutex<BTreeMap<(String, Name), Login>>,
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
        Self { own: registries::Registries::new(registries), lent: Mutex::default() }
    }

    /// What the registry of an image is shown from now on for a Service.
    pub(crate) fn lend(&self, reference: &str, service: &Name, login: Option<Login>) {
        let key = (host_of(reference), service.clone());
        match login {
            Some(login) => lock(&self.lent).insert(key, login),
            None => lock(&self.lent).remove(&key),
        };
    }

    /// The host of a table that a Service may use.
    ///
    /// # Errors
    /// `InvalidConfig` for another one.
    pub(crate) fn host(&self, table: &Name, service: &Name) -> Result<&str> {
        self.own.host(table, service)
    }

    /// An engine's API that shows every registry of a Service what it wants, for what a build is made from. A registry that
    /// cannot be told now is left out: the build may not need it.
    pub(crate) async fn show_all(&self, docker: Docker, service: &Name) -> Docker {
        let mut all = serde_json::Map::new();
        for host in self.own.hosts() {
            match self.own.secret(host, service).await {
                Ok(Some((_, Some(secret)))) => all.extend([(address(host).to_owned(), proof(host, &secret))]),
                Ok(_) => {}
                Err(error) => tracing::warn!(registry = host, error = %error.chain(), "a build goes on without it"),
            }
        }
        match coded(&serde_json::Value::Object(all)) {
            Ok(header) => showing(docker, ALL_HEADER, header),
            Err(_) => docker,
        }
    }

    /// What the registry of an image is shown when a Service wants it; nothing where nobody knows of such a registry.
    ///
    /// # Errors
    /// `InvalidConfig` for a password that is not there, and `Denied`, `InvalidConfig` and `Unavailable` by a helper. They name
    /// the table.
    pub(crate) async fn proof(&self, reference: &str, service: &Name) -> Result<Proof> {
        let (host, service) = (host_of(reference), service.clone());
        let lent = lock(&self.lent).get(&(host.clone(), service.clone())).cloned();
        let found = match lent {
            Some(Login { table, proof }) => Some((table, proof.map(Secret::from))),
            None => self.own.secret(&host, &service).await?,
        };
        let (table, secret) = found.map_or((None, None), |(table, secret)| (Some(table), secret));
        let header = secret.map(|secret| header(&host, &secret)).transpose()?;
        Ok(Proof { table, service, host, header })
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
