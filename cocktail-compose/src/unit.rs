//! A Unit as it will stand in the manifest: only what differs from the defaults.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use cocktail_core::quantity::{Bytes, CpuMillis};

/// See the module. Texts are as Compose has them; [`crate::write`] escapes what the manifest would substitute.
#[derive(Debug, Default)]
pub(crate) struct Unit {
    /// The service of the Compose file.
    pub(crate) service: String,
    /// Where it begins there.
    pub(crate) line: u32,
    /// The valid name.
    pub(crate) name: String,
    /// What it runs, where it is not built.
    pub(crate) image: String,
    pub(crate) build: Option<Build>,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) command: Option<Vec<String>>,
    /// Whether its files can only be read.
    pub(crate) read_only: bool,
    pub(crate) replicas: Option<u64>,
    pub(crate) cwd: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) environment: Environment,
    pub(crate) ports: Vec<Port>,
    pub(crate) cpu: Option<CpuMillis>,
    pub(crate) memory: Option<Bytes>,
    pub(crate) ready: Option<Probe>,
    pub(crate) stop_signal: Option<Signal>,
    pub(crate) stop_grace: Option<Duration>,
    pub(crate) restart: Restart,
    pub(crate) update: Update,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) rlimits: BTreeMap<&'static str, i64>,
    pub(crate) labels: Vec<(String, String)>,
}

/// How its image is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Build {
    /// The folder, as it stands in the manifest.
    pub(crate) context: String,
    /// The Dockerfile, relative to that; `Dockerfile` when `None`.
    pub(crate) file: Option<String>,
    pub(crate) args: Vec<(String, String)>,
    pub(crate) target: Option<String>,
    pub(crate) platform: Option<String>,
}

/// Variables, in the order in which they were set first.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub(crate) env: Vec<(String, String)>,
    /// Taken from the Manager's environment.
    pub(crate) env_from: Vec<String>,
    pub(crate) secrets: Vec<(String, SecretSource)>,
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    File(String),
    Variable(String),
}

/// A port that the program of the image listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) container: u16,
    pub(crate) service: Option<u16>,
    /// Only with `service`.
    pub(crate) address: Option<IpAddr>,
    pub(crate) line: u32,
}

/// A readiness probe.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) check: Check,
    pub(crate) every: Duration,
    pub(crate) timeout: Duration,
    pub(crate) failures: u64,
}

/// What a probe does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Check {
    Exec(Vec<String>),
    Http { path: String, port: String },
}

/// A signal, by name or by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Signal {
    Name(String),
    Number(i64),
}

/// When a container starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum When {
    #[default]
    Always,
    Failure,
    Never,
}

/// See the keys of the manifest.
#[derive(Debug, Default)]
pub(crate) struct Restart {
    pub(crate) when: When,
    pub(crate) retries: Option<u64>,
    pub(crate) base: Option<Duration>,
    pub(crate) reset: Option<Duration>,
}

/// See the keys of the manifest.
#[derive(Debug, Default)]
pub(crate) struct Update {
    pub(crate) surge: Option<u64>,
    pub(crate) monitor: Option<Duration>,
    pub(crate) progress: Option<Duration>,
    pub(crate) pause: bool,
}

/// A volume, before it is known who else uses it.
#[derive(Debug, Clone)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) mount: String,
    pub(crate) kind: Kind,
    pub(crate) size: Option<Bytes>,
    /// Whether Compose lets the container only read it.
    pub(crate) read_only: bool,
}

/// Where the content of a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A named volume of the Compose file.
    Named(String),
    /// A folder of the host, as it stands in the manifest.
    Bind(String),
    /// It goes with the container.
    Ephemeral,
}
