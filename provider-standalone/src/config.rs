//! The options of `[providers.<name>]` with `kind = "standalone"`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use cocktail_core::quantity::{Bytes, CpuMillis, parse_duration};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// How this machine serves as a Server. Every value has a default.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StandaloneConfig {
    /// Address that workers listen on, as probes and the forwarder reach them.
    pub address: IpAddr,
    /// Cpu that containers can reserve, instead of all cores of the machine.
    #[serde(deserialize_with = "cpu")]
    pub cpu: Option<CpuMillis>,
    /// Memory that containers can reserve, instead of all memory of the machine.
    #[serde(deserialize_with = "memory")]
    pub memory: Option<Bytes>,
    /// Where the keeper runs.
    pub keeper: KeeperMode,
    /// A keeper that holds nothing and that nobody is connected to ends after this time.
    #[serde(deserialize_with = "duration")]
    pub idle_exit: Duration,
    /// Connections of one service port at a time; more wait in the kernel.
    pub max_connections: u32,
    /// How long a connection waits while no container is ready.
    #[serde(deserialize_with = "duration")]
    pub hold: Duration,
    /// Whether this machine takes containers; where no other is named it does.
    pub local: Option<bool>,
    /// Other machines that take containers. On each of them runs an agent.
    pub servers: Vec<StaticServer>,
    /// What those machines run, as their agents are told.
    pub runs: Runs,
}

/// What machines run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runs {
    /// Programs of the machine.
    #[default]
    Programs,
    /// Images, on an engine there.
    Images,
}

/// A machine that is there, and has an agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Written")]
pub struct StaticServer {
    /// Its name, which is the server's id.
    pub name: String,
    /// Where it stands.
    pub zone: Option<String>,
    /// More that is known, for people.
    pub labels: BTreeMap<String, String>,
}

/// As people write it: a name, or a table.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Name(String),
    Table(Table),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    name: String,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl From<Written> for StaticServer {
    fn from(written: Written) -> Self {
        match written {
            Written::Name(name) => Self { name, zone: None, labels: BTreeMap::new() },
            Written::Table(Table { name, zone, labels }) => Self { name, zone, labels },
        }
    }
}

impl StandaloneConfig {
    /// Whether this machine takes containers.
    pub fn is_local(&self) -> bool {
        self.local.unwrap_or(self.servers.is_empty())
    }
}

/// Where the keeper runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeeperMode {
    /// In a process of its own, which outlives this one.
    #[default]
    Process,
    /// In this process, which its workers then end with: for tests.
    InProcess,
}

impl Default for StandaloneConfig {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            cpu: None,
            memory: None,
            keeper: KeeperMode::Process,
            idle_exit: Duration::from_secs(60),
            max_connections: 4096,
            hold: Duration::from_secs(5),
            local: None,
            servers: Vec::new(),
            runs: Runs::default(),
        }
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

/// A duration as people write it: `10s`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_are_read_as_people_write_them() {
        let config: StandaloneConfig = serde_json::from_value(json!({
            "address": "127.0.0.2", "cpu": 1.5, "memory": "2GiB", "keeper": "in-process", "idle_exit": "5m",
        }))
        .unwrap();
        assert_eq!((config.cpu, config.memory), (Some(CpuMillis(1500)), Some(Bytes(2 << 30))));
        assert_eq!((config.keeper, config.idle_exit), (KeeperMode::InProcess, Duration::from_secs(300)));
    }

    #[test]
    fn other_machines_are_named_or_described() {
        let servers = json!(["rack-1", { "name": "rack-2", "zone": "b", "labels": { "disk": "ssd" } }]);
        let config: StandaloneConfig = serde_json::from_value(json!({ "servers": servers })).unwrap();
        let (first, second) = (&config.servers[0], &config.servers[1]);
        assert_eq!((first.name.as_str(), first.zone.as_deref()), ("rack-1", None));
        assert_eq!((second.name.as_str(), second.zone.as_deref()), ("rack-2", Some("b")));
        assert_eq!(second.labels["disk"], "ssd");
        assert!(!config.is_local(), "whoever names others does not mean this one, unless told so");
        let both: StandaloneConfig = serde_json::from_value(json!({ "servers": ["a"], "local": true })).unwrap();
        assert!(both.is_local() && StandaloneConfig::default().is_local());
    }

    #[test]
    fn an_unknown_option_is_an_error_that_names_it() {
        let error = serde_json::from_value::<StandaloneConfig>(json!({ "adress": "127.0.0.1" })).unwrap_err();
        assert!(error.to_string().contains("adress"), "{error}");
    }
}
