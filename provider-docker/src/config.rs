//! The options of `[providers.<name>]` with `kind = "docker"`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use cocktail_core::quantity::{Bytes, CpuMillis};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Where an engine listens unless somebody says otherwise.
const LOCAL: &str = "unix:///var/run/docker.sock";

/// Files of a build unless somebody says otherwise.
const BUILD_BYTES: Bytes = Bytes(512 << 20);

/// Which engines there are, and how containers are made on them. Every value has a default.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DockerConfig {
    /// The engines; the one of this machine where none is named.
    pub engines: Vec<EngineConfig>,
    /// Where the only engine listens, instead of `engines`.
    pub endpoint: Option<String>,
    /// A label of everything that is made, for people who share engines.
    pub cluster: Option<String>,
    /// Address that leased ports are published at, instead of 127.0.0.1 for a Unix socket and 0.0.0.0 for others.
    pub publish: Option<IpAddr>,
    /// Whether the first process of a container is one that passes signals on and reaps.
    pub init: bool,
    /// Whether containers can write only to their volumes, and to folders in memory for what passes: `/tmp`, `/run`,
    /// `/var/cache`, `/var/log` and `/var/tmp`. A Unit's `read_only` says otherwise.
    pub read_only: bool,
    /// Most bytes of the files that an image is built from.
    #[serde(deserialize_with = "size")]
    pub build_bytes: Bytes,
}

impl Default for DockerConfig {
    fn default() -> Self {
        let engines = vec![EngineConfig::local()];
        Self {
            engines,
            endpoint: None,
            cluster: None,
            publish: None,
            init: true,
            read_only: true,
            build_bytes: BUILD_BYTES,
        }
    }
}

impl DockerConfig {
    /// With the engine at `endpoint`, where one is named.
    ///
    /// # Errors
    /// A sentence for one that is named beside others.
    pub(crate) fn with_endpoint(mut self) -> Result<Self, &'static str> {
        if let Some(url) = self.endpoint.take() {
            if self.engines != [EngineConfig::local()] {
                return Err("`endpoint` is the only engine: leave it or `engines` out");
            }
            self.engines = vec![Written::Url(url).into()];
        }
        Ok(self)
    }
}

/// One engine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Written")]
pub struct EngineConfig {
    /// Its name, which the server's id ends with; needed where there are several.
    pub name: Option<String>,
    /// Where it listens: `unix:///PATH`, `tcp://HOST:PORT` or `ssh://[USER@]HOST[:PORT][/PATH]`.
    pub url: String,
    /// How both ends prove who they are over TCP.
    pub tls: Option<EngineTls>,
    /// Where it stands.
    pub zone: Option<String>,
    /// More that is known, for people.
    pub labels: BTreeMap<String, String>,
    /// What containers can reserve, instead of all that the machine has.
    pub capacity: EngineCapacity,
    /// Address at which this host reaches published ports, instead of that of the URL.
    pub address: Option<IpAddr>,
}

impl EngineConfig {
    /// The engine of this machine.
    pub fn local() -> Self {
        Self::at(LOCAL)
    }

    /// The engine that listens there.
    pub fn at(url: &str) -> Self {
        Written::Url(url.to_owned()).into()
    }
}

/// Files in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineTls {
    /// The authority that the engine's certificate comes from.
    pub ca: PathBuf,
    /// Our certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Part of a machine; what is not said is all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineCapacity {
    /// Processor time.
    #[serde(deserialize_with = "cpu")]
    pub cpu: Option<CpuMillis>,
    /// Memory.
    #[serde(deserialize_with = "memory")]
    pub memory: Option<Bytes>,
}

/// As people write it: a URL, or a table.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Url(String),
    Table(Box<Table>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    name: Option<String>,
    url: String,
    #[serde(default)]
    tls: Option<EngineTls>,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    capacity: EngineCapacity,
    #[serde(default)]
    address: Option<IpAddr>,
}

impl From<Written> for EngineConfig {
    fn from(written: Written) -> Self {
        let Table { name, url, tls, zone, labels, capacity, address } = match written {
            Written::Table(table) => *table,
            Written::Url(url) => {
                let (labels, capacity) = (BTreeMap::new(), EngineCapacity::default());
                Table { name: None, url, tls: None, zone: None, labels, capacity, address: None }
            }
        };
        Self { name, url, tls, zone, labels, capacity, address }
    }
}

/// Cores as people write them: `2`, `1.5`, `"0.5"`.
fn cpu<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<CpuMillis>, D::Error> {
    let text = match Value::deserialize(deserializer)? {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text,
        other => return Err(serde::de::Error::custom(format!("cpu is a number of cores, not {other}"))),
    };
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

/// A size as people write it: `8GiB`.
fn memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn engines_are_urls_or_described() {
        let config: DockerConfig = serde_json::from_value(json!({
            "engines": ["unix:///run/a.sock", {
                "name": "b", "url": "tcp://10.0.0.5:2376", "zone": "z", "labels": { "disk": "ssd" },
                "tls": { "ca": "/ca", "cert": "/cert", "key": "/key" }, "capacity": { "cpu": 1.5, "memory": "2GiB" },
            }],
            "publish": "10.0.0.1", "init": false,
        }))
        .unwrap();
        let (first, second) = (&config.engines[0], &config.engines[1]);
        assert_eq!((first.url.as_str(), &first.name), ("unix:///run/a.sock", &None));
        assert_eq!((second.name.as_deref(), second.zone.as_deref()), (Some("b"), Some("z")));
        assert_eq!(second.capacity, EngineCapacity { cpu: Some(CpuMillis(1500)), memory: Some(Bytes(2 << 30)) });
        assert!(!config.init && second.tls.is_some());
        assert_eq!(DockerConfig::default().engines[0].url, LOCAL);
    }

    #[test]
    fn an_endpoint_is_the_only_engine() {
        let read = |value| serde_json::from_value::<DockerConfig>(value).unwrap().with_endpoint();
        let config = read(json!({ "endpoint": "tcp://10.0.0.5:2375" })).unwrap();
        assert_eq!(
            config.engines.iter().map(|engine| engine.url.as_str()).collect::<Vec<_>>(),
            ["tcp://10.0.0.5:2375"]
        );
        assert!(read(json!({ "endpoint": "unix:///a", "engines": ["unix:///b"] })).is_err());
    }

    #[test]
    fn an_unknown_option_is_an_error_that_names_it() {
        let error = serde_json::from_value::<DockerConfig>(json!({ "engine": "x" })).unwrap_err();
        assert!(error.to_string().contains("engine"), "{error}");
    }
}
