//! Manager settings: every time constant and limit, with its default (`[manager]`, `[providers.<name>]`,
//! `[registries.<name>]`).
//!
//! A plain value; [`crate::manifest`] decodes it from `cocktail.toml`. Durations go down to 100 ms.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::ports::PortRange;
use crate::session::Timing;
use crate::spec::SecretSource;
use crate::unit::REVISIONS_KEPT;

/// Settings of one Manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Ports that are leased to containers. Outside the kernel's ephemeral range.
    pub port_range: PortRange,
    /// How long a port rests after its holder's exit was observed.
    pub port_hold_down: Duration,
    /// How long a port that turned out taken is left alone.
    pub port_poison: Duration,
    /// Longest wait for connections to end before a drained container is asked to stop.
    pub drain: Duration,
    /// Deadline of preparing and starting one container.
    pub start_deadline: Duration,
    /// Pause between two complete listings of a runtime.
    pub relist: Duration,
    /// Pause between two readings of cpu and memory.
    pub usage: Duration,
    /// Deletions that the Manager may decide by itself per `budget_window`; commands of a user are not counted.
    pub budget_deletions: u32,
    /// Window of the deletion budget.
    pub budget_window: Duration,
    /// Size of the journal from which old turns are dropped.
    pub journal_bytes: u64,
    /// Turns between two snapshots.
    pub snapshot_every: u64,
    /// Decisions that are kept per object for `why`.
    pub why_per_object: usize,
    /// Size at which a container's log file is rotated.
    pub log_bytes: u64,
    /// Log files that are kept per container.
    pub log_files: u32,
    /// Newest revisions of each Unit whose images stay on engines, beside those that are needed anyway.
    #[serde(default = "image_revisions")]
    pub image_revisions: u32,
    /// Pause between two looks for images that nobody needs any more.
    #[serde(default = "image_prune")]
    pub image_prune: Duration,
    /// Manifests that are applied when they change.
    pub watch: Vec<PathBuf>,
    /// Folders below which the source of a bind volume may lie, absolute. Below its own folder a manifest may always bind.
    #[serde(default)]
    pub binds: Vec<PathBuf>,
    /// Where Prometheus may scrape over TCP; `None` is nowhere.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// The spans of sessions with the agents of other servers.
    #[serde(default)]
    pub session: Timing,
    /// Where agents of other servers connect; `None` is nowhere.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// Where agents find that from outside, as `host:port`; the address itself where none is named.
    #[serde(default)]
    pub advertise: Vec<String>,
    /// Providers by the name that a Unit's `provider` says.
    pub providers: BTreeMap<Name, ProviderSettings>,
    /// Registries of images that want to know who asks.
    #[serde(default)]
    pub registries: BTreeMap<Name, RegistrySettings>,
}

/// One entry of `[registries.<name>]`: a registry, and where what proves who asks comes from. The proof itself is looked up
/// at each use and is never part of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrySettings {
    /// Where it is, as references of images begin: `registry.example.com:5000`; `docker.io` for those without a host.
    pub host: String,
    /// What proves who asks.
    pub access: RegistryAccess,
    /// Services whose images come from there with this; all where none is named.
    #[serde(default)]
    pub services: Vec<Name>,
}

/// How a registry knows who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistryAccess {
    /// It asks nobody.
    Open,
    /// By name and password.
    Password {
        /// The name.
        username: String,
        /// Where the password comes from.
        password: SecretSource,
    },
    /// By an identity token, which the engine exchanges for one that the registry takes.
    Token(SecretSource),
    /// By what the program `docker-credential-NAME` says.
    Helper(String),
}

/// One entry of `[providers.<name>]`: the kind, and the rest as the provider's own crate reads it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderSettings {
    /// Kind: `standalone`, later `docker`, `ec2`, `azure`.
    pub kind: Name,
    /// Everything else of the table.
    pub options: BTreeMap<String, serde_json::Value>,
}

/// Credentials of a provider are options too, and which ones only its crate knows: keys are shown, values are not.
impl fmt::Debug for ProviderSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.options.keys().collect();
        f.debug_struct("ProviderSettings").field("kind", &self.kind).field("options", &keys).finish()
    }
}

/// As many as a Unit remembers.
fn image_revisions() -> u32 {
    REVISIONS_KEPT
}

fn image_prune() -> Duration {
    Duration::from_secs(15 * 60)
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port_range: PortRange::default(),
            port_hold_down: Duration::from_secs(2),
            port_poison: Duration::from_secs(60),
            drain: Duration::from_secs(5),
            start_deadline: Duration::from_secs(30),
            relist: Duration::from_secs(30),
            usage: Duration::from_secs(10),
            budget_deletions: 100,
            budget_window: Duration::from_secs(60),
            journal_bytes: 64 << 20,
            snapshot_every: 4096,
            why_per_object: 32,
            log_bytes: 10 << 20,
            log_files: 3,
            image_revisions: image_revisions(),
            image_prune: image_prune(),
            watch: Vec::new(),
            binds: Vec::new(),
            metrics: None,
            session: Timing::default(),
            listen: None,
            advertise: Vec::new(),
            providers: BTreeMap::new(),
            registries: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_provider_options_are_not_shown() {
        let kind = Name::new("ec2").unwrap();
        let options = BTreeMap::from([("secret_key".to_owned(), serde_json::json!({ "value": "hunter2" }))]);
        let provider = ProviderSettings { kind: kind.clone(), options };
        let settings = Settings { providers: BTreeMap::from([(kind, provider)]), ..Settings::default() };
        let shown = format!("{settings:?} {settings:#?}");
        assert!(shown.contains("secret_key") && !shown.contains("hunter2"), "{shown}");
    }
}
