//! Makes a [`DockerProvider`]. Every complaint about input comes from [`DockerBuilder::build`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;

use cocktail_core::error::{Error, Result};
use cocktail_core::id::ServerId;
use cocktail_core::name::Name;
use cocktail_core::settings::{RegistrySettings, Settings};

use crate::client::Engine;
use crate::config::{DockerConfig, EngineConfig};
use crate::provider::{DockerProvider, Server};
use crate::registry::Registries;
use crate::shared::{Fixed, Shared};
use crate::tls::{Way, way};

/// Collects what a [`DockerProvider`] is made from.
#[derive(Debug)]
pub struct DockerBuilder {
    name: Name,
    config: DockerConfig,
    options: BTreeMap<String, serde_json::Value>,
    log_bytes: u64,
    log_files: u32,
    binds: Vec<PathBuf>,
    registries: BTreeMap<Name, RegistrySettings>,
}

impl DockerBuilder {
    /// A provider that Units name `name`.
    pub fn new(name: Name) -> Self {
        let Settings { log_bytes, log_files, .. } = Settings::default();
        let (config, options) = (DockerConfig::default(), BTreeMap::new());
        Self { name, config, options, log_bytes, log_files, binds: Vec::new(), registries: BTreeMap::new() }
    }

    /// Sets the whole configuration. Options that are given as well take precedence as a whole.
    #[must_use]
    pub fn with_config(mut self, config: DockerConfig) -> Self {
        self.config = config;
        self
    }

    /// Takes the configuration from the rest of a `[providers.<name>]` table.
    #[must_use]
    pub fn with_options(mut self, options: &BTreeMap<String, serde_json::Value>) -> Self {
        self.options = options.clone();
        self
    }

    /// Sets the size at which a container's log file is rotated, and how many files are kept.
    #[must_use]
    pub fn with_logs(mut self, bytes: u64, files: u32) -> Self {
        (self.log_bytes, self.log_files) = (bytes, files);
        self
    }

    /// Sets the folders below which the source of a bind volume may lead. Elsewhere it must be what its path says, without
    /// a link on the way.
    #[must_use]
    pub fn with_binds(mut self, binds: Vec<PathBuf>) -> Self {
        self.binds = binds;
        self
    }

    /// Sets the registries that want to know who asks, by the name of their table.
    #[must_use]
    pub fn with_registries(mut self, registries: BTreeMap<Name, RegistrySettings>) -> Self {
        self.registries = registries;
        self
    }

    /// Makes the provider. Connects to nothing yet; the name of an engine's host is looked up.
    ///
    /// # Errors
    /// `InvalidConfig` for an option that is unknown or has a wrong value; `Unavailable` for a host that is not found.
    pub fn build(self) -> Result<DockerProvider> {
        let table = format!("[providers.{}]", self.name);
        let config: DockerConfig = if self.options.is_empty() {
            self.config.clone().with_endpoint().map_err(|problem| Error::invalid(format!("{table}: {problem}")))?
        } else {
            let options = serde_json::Value::Object(self.options.clone().into_iter().collect());
            let config: DockerConfig =
                serde_json::from_value(options).map_err(|error| Error::invalid(format!("{table}: {error}")))?;
            config.with_endpoint().map_err(|problem| Error::invalid(format!("{table}: {problem}")))?
        };
        if config.engines.is_empty() {
            return Err(Error::invalid(format!("{table}: `engines` names no engine: leave it out for the local one")));
        }
        let registries = Arc::new(Registries::new(self.registries.clone()));
        let mut servers = BTreeMap::new();
        for engine in &config.engines {
            let id = match &engine.name {
                Some(name) if Name::new(name.as_str()).is_err() => {
                    let rule = "one has small letters, digits and hyphens";
                    return Err(Error::invalid(format!("{table}: the engine {name:?} has no name: {rule}")));
                }
                Some(name) => ServerId::new(format!("{}-{name}", self.name)),
                None if config.engines.len() == 1 => ServerId::new(self.name.as_str()),
                None => {
                    let message =
                        format!("{table}: of several engines each has a `name`: that at {} has none", engine.url);
                    return Err(Error::invalid(message));
                }
            };
            let server = self.server(&config, engine, &registries)?;
            if servers.insert(id.clone(), server).is_some() {
                return Err(Error::invalid(format!("{table}: two engines have the server's name {id}")));
            }
        }
        Ok(DockerProvider { name: self.name, servers })
    }

    fn server(&self, config: &DockerConfig, engine: &EngineConfig, registries: &Arc<Registries>) -> Result<Server> {
        let (local, found) = match way(&engine.url)? {
            Way::Unix(_) => (true, IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Way::Ssh(remote) => (false, resolve(&remote.host, remote.port.unwrap_or(22), engine.address)?),
            Way::Tcp(host, port) => {
                if engine.tls.is_none() {
                    let url = &engine.url;
                    tracing::warn!(url, "whoever reaches this engine is root on its machine: it has no tls");
                }
                (false, resolve(host, port, engine.address)?)
            }
        };
        let everywhere = IpAddr::V4(if local { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED });
        let fixed = Fixed {
            cluster: config.cluster.clone(),
            init: config.init,
            read_only: config.read_only,
            log_bytes: self.log_bytes,
            log_files: self.log_files,
            publish: config.publish.unwrap_or(everywhere),
            address: engine.address.unwrap_or(found),
            local,
            binds: self.binds.clone(),
            registries: Arc::clone(registries),
            build_bytes: config.build_bytes,
        };
        let shared = Arc::new(Shared::new(fixed, Engine::new(engine)?));
        Ok(Server { config: engine.clone(), shared })
    }
}

/// The address of an engine's host, unless one is written down.
fn resolve(host: &str, port: u16, written: Option<IpAddr>) -> Result<IpAddr> {
    if let Some(address) = written.or_else(|| host.parse().ok()) {
        return Ok(address);
    }
    let failed = || format!("the engine's host {host} has no address: write `address` beside its url");
    let found = (host, port).to_socket_addrs().map_err(|error| Error::unavailable(failed()).because(error))?;
    found.map(|at| at.ip()).next().ok_or_else(|| Error::unavailable(failed()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn build(engines: serde_json::Value) -> Result<DockerProvider> {
        let options = BTreeMap::from([("engines".to_owned(), engines)]);
        DockerBuilder::new(Name::new("docker").unwrap()).with_options(&options).build()
    }

    #[test]
    fn each_engine_is_a_server_with_a_name_of_its_own() {
        let ids = |provider: DockerProvider| provider.servers().map(ToString::to_string).collect::<Vec<_>>();
        let alone = DockerBuilder::new(Name::new("docker").unwrap()).build().unwrap();
        assert_eq!(ids(alone), ["docker"]);
        let two = json!([{ "name": "a", "url": "unix:///a" }, { "name": "b", "url": "tcp://127.0.0.1:2375" }]);
        assert_eq!(ids(build(two).unwrap()), ["docker-a", "docker-b"]);
    }

    #[test]
    fn engines_that_cannot_be_are_refused_with_what_to_write() {
        let named = |name: &str| json!({ "name": name, "url": "unix:///a" });
        for (engines, says) in [
            (json!([]), "names no engine"),
            (json!(["unix:///a", "unix:///b"]), "each has a `name`"),
            (json!([named("A B")]), "has no name"),
            (json!([named("a"), named("a")]), "two engines"),
            (json!(["ssh://-oX=y"]), "names no host"),
            (json!([{ "url": "tcp://127.0.0.1:1", "tls": { "ca": "/no", "cert": "/no", "key": "/no" } }]), "/no"),
            (json!([{ "url": "unix:///a", "tls": { "ca": "/no", "cert": "/no", "key": "/no" } }]), "needs no tls"),
        ] {
            let error = build(engines).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
