//! Makes a [`StandaloneProvider`]. Every complaint about input comes from [`StandaloneBuilder::build`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cocktail_core::error::{Error, Result};
use cocktail_core::name::Name;
use cocktail_core::settings::Settings;
use cocktail_keeper::KeeperOptions;

use crate::config::{Runs, StandaloneConfig};
use crate::launch;
use crate::machine;
use crate::provider::StandaloneProvider;
use crate::shared::Fixed;
use crate::volumes::Volumes;

/// Commands that may run beside containers at a time, those of probes included.
const EXEC_SESSIONS: u32 = 64;

/// Collects what a [`StandaloneProvider`] is made from.
#[derive(Debug)]
pub struct StandaloneBuilder {
    name: Name,
    data_dir: PathBuf,
    config: StandaloneConfig,
    options: BTreeMap<String, serde_json::Value>,
    log_bytes: u64,
    log_files: u32,
    binds: Vec<PathBuf>,
    guard: Vec<String>,
}

impl StandaloneBuilder {
    /// A provider that Units name `name`, whose keeper, logs and volumes live in `data_dir`: absolute, existing, and
    /// locked by the caller for as long as the provider lives.
    pub fn new(name: Name, data_dir: &Path) -> Self {
        let Settings { log_bytes, log_files, .. } = Settings::default();
        Self {
            name,
            data_dir: data_dir.to_owned(),
            config: StandaloneConfig::default(),
            options: BTreeMap::new(),
            log_bytes,
            log_files,
            binds: Vec::new(),
            guard: Vec::new(),
        }
    }

    /// Sets the whole configuration. Options that are given as well take precedence as a whole.
    #[must_use]
    pub fn with_config(mut self, config: StandaloneConfig) -> Self {
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

    /// Sets what the keeper runs when the time that [`Runtime::hold`](cocktail_core::contract::Runtime::hold) gave is over,
    /// until it succeeds: this program with these arguments and the grace in milliseconds. For containers that are not the
    /// keeper's own to end.
    #[must_use]
    pub fn with_guard(mut self, arguments: Vec<String>) -> Self {
        self.guard = arguments;
        self
    }

    /// Makes the provider. Starts nothing yet.
    ///
    /// # Errors
    /// `InvalidConfig` for an option that is unknown or has a wrong value, and for a data dir that is not absolute;
    /// `Unavailable` when the size of the machine cannot be read.
    pub fn build(self) -> Result<StandaloneProvider> {
        let config = if self.options.is_empty() {
            self.config
        } else {
            let options = serde_json::Value::Object(self.options.into_iter().collect());
            serde_json::from_value(options)
                .map_err(|error| Error::invalid(format!("[providers.{}]: {error}", self.name)))?
        };
        if !self.data_dir.is_absolute() {
            return Err(Error::invalid(format!("the data dir {} is not absolute", self.data_dir.display())));
        }
        check_servers(&self.name, &config)?;
        let machine = machine::capacity()?;
        let capacity = cocktail_core::spec::Resources {
            cpu: config.cpu.unwrap_or(machine.cpu),
            memory: config.memory.unwrap_or(machine.memory),
        };
        let keeper = KeeperOptions {
            idle_exit: config.idle_exit,
            log_bytes: self.log_bytes,
            log_files: self.log_files,
            exec_sessions: EXEC_SESSIONS,
            ..KeeperOptions::new(self.data_dir.join("run"), self.data_dir.join("logs"))
        };
        let fixed = Fixed {
            name: self.name,
            passed: launch::passed(),
            volumes: Volumes::new(&self.data_dir, self.binds),
            limits: machine::enforces_limits(),
            data_dir: self.data_dir,
            guard: self.guard,
            keeper,
            capacity,
            config,
        };
        Ok(StandaloneProvider::new(fixed))
    }
}

/// The names of other machines: each once, and one that a certificate can have.
fn check_servers(provider: &Name, config: &StandaloneConfig) -> Result<()> {
    let wrong = |what: String| Err(Error::invalid(format!("[providers.{provider}]: {what}")));
    let mut seen = std::collections::BTreeSet::new();
    for server in &config.servers {
        let name = server.name.as_str();
        if Name::new(name).is_err() {
            return wrong(format!("the server {name:?} has no name: one has small letters, digits and hyphens"));
        }
        if name == provider.as_str() {
            return wrong(format!("the server {name:?} cannot have the provider's name: that is this machine"));
        }
        if !seen.insert(name) {
            return wrong(format!("the server {name:?} is named twice"));
        }
    }
    if config.runs == Runs::Images && config.is_local() {
        let how = "this machine runs programs: name `servers` whose agents have an engine, without `local`";
        return wrong(format!("`runs` is \"images\", but {how}"));
    }
    if config.servers.is_empty() && config.local == Some(false) {
        return wrong("without this machine it needs `servers`".into());
    }
    Ok(())
}
