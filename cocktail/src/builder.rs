//! From a data dir to a running Manager.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cocktail_core::contract::{Gate, Provider, Store};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::name::Name;
use cocktail_core::scaling::ScalingPolicy;
use cocktail_core::settings::{ProviderSettings, Settings};
use cocktail_manager::{Orchestrator, last_settings};
use cocktail_provider_standalone::{StandaloneBuilder, StandaloneProvider};
use cocktail_store::{DataDir, RedbStore};

/// The kind of the provider that this machine is.
const STANDALONE: &str = "standalone";
/// The kind of providers whose servers are engines.
#[cfg(feature = "docker")]
const DOCKER: &str = "docker";

/// A Manager with its data dir. Dereferences to [`Orchestrator`]; cheap to clone.
///
/// The lock on the data dir is given back when the last handle of it is dropped, [`Cocktail::manager`]'s included, after
/// [`Manager::shutdown`](cocktail_core::contract::Manager::shutdown).
#[derive(Debug, Clone)]
pub struct Cocktail {
    orchestrator: Orchestrator,
    data_dir: Arc<DataDir>,
}

impl Cocktail {
    /// Collects what a Manager is made from; the defaults run workers on this machine.
    pub fn builder() -> Builder {
        Builder {
            data_dir: PathBuf::from(".cocktail"),
            settings: Settings::default(),
            providers: Vec::new(),
            scaling: None,
            as_before: false,
        }
    }

    /// The data dir that it holds the lock of.
    pub fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    /// The Manager as a trait object, for code that does not care where it runs.
    pub fn manager(&self) -> Arc<Orchestrator> {
        Arc::new(self.orchestrator.clone())
    }
}

impl Deref for Cocktail {
    type Target = Orchestrator;
    fn deref(&self) -> &Orchestrator {
        &self.orchestrator
    }
}

/// What a Manager is made from.
#[derive(Debug, Clone)]
pub struct Builder {
    pub(crate) data_dir: PathBuf,
    pub(crate) settings: Settings,
    providers: Vec<Arc<dyn Provider>>,
    scaling: Option<Arc<dyn ScalingPolicy>>,
    as_before: bool,
}

impl Builder {
    /// Where all state is kept; `.cocktail` in the working directory by default. Made if it does not exist.
    #[must_use]
    pub fn data_dir(mut self, data_dir: impl Into<PathBuf>) -> Self {
        self.data_dir = data_dir.into();
        self
    }

    /// Time constants and limits; see [`Settings`] for the defaults.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Goes on with the settings that the last Manager of the data dir had; [`Builder::settings`] are for the first one.
    #[must_use]
    pub fn settings_as_before(mut self) -> Self {
        self.as_before = true;
        self
    }

    /// Adds a provider of one's own, before those that the settings name.
    #[must_use]
    pub fn provider(mut self, provider: Arc<dyn Provider>) -> Self {
        self.providers.push(provider);
        self
    }

    /// Exchanges what says how many containers the load asks for; [`TargetTracking`](crate::scaling::TargetTracking) by
    /// default. It is asked about each Unit whose `scale` has a target, after each reading of its containers; bounds,
    /// steps, stabilisation and cool-downs are kept whatever it says.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use cocktail::Cocktail;
    /// use cocktail::scaling::{ScalingInput, ScalingPolicy, Wanted};
    ///
    /// /// One container for every hundred jobs that wait, and one for whatever is left.
    /// #[derive(Debug)]
    /// struct ByBacklog;
    ///
    /// impl ScalingPolicy for ByBacklog {
    ///     fn wanted(&self, input: &ScalingInput<'_>) -> Option<Wanted> {
    ///         // Each container reports the backlog that all of them share.
    ///         let jobs = input.samples.iter().filter_map(|sample| sample.custom.get("backlog")).copied();
    ///         let jobs = jobs.reduce(f64::max)?;
    ///         let count = (jobs / 100.0).ceil() as u32;
    ///         Some(Wanted { count, because: format!("{jobs} jobs wait"), considered: Vec::new() })
    ///     }
    /// }
    ///
    /// let builder = Cocktail::builder().data_dir(".cocktail").scaling_policy(Arc::new(ByBacklog));
    /// # drop(builder);
    /// ```
    #[must_use]
    pub fn scaling_policy(mut self, policy: Arc<dyn ScalingPolicy>) -> Self {
        self.scaling = Some(policy);
        self
    }

    /// Takes the data dir, starts or finds its keeper, adopts what runs, and goes on with what was wanted.
    ///
    /// # Errors
    /// `Refused` when another Manager has the data dir, when it is an older copy, or when what runs belongs to another
    /// store; `InvalidConfig` for a data dir or setting that cannot be used; `Unavailable` when the disk cannot.
    pub async fn start(self) -> Result<Cocktail> {
        let data_dir = Arc::new(DataDir::open(&self.data_dir, true)?);
        let store: Arc<dyn Store> = Arc::new(RedbStore::open(data_dir.path())?);
        let mut settings = self.settings;
        if self.as_before {
            settings = last_settings(&store).await?.unwrap_or(settings);
            // Those of the first Manager may be on no disk that is here.
            settings.watch.retain(|file| file.parent().is_some_and(Path::is_dir));
        }
        let mut providers = self.providers;
        providers.extend(configured(&settings, &data_dir)?);
        let gate = gate(&settings, &data_dir, &store).await?;
        let mut builder = Orchestrator::builder(store)
            .with_settings(settings)
            .with_data_dir(data_dir.path().to_path_buf())
            .keeping(data_dir.clone());
        for provider in providers {
            builder = builder.with_provider(provider);
        }
        if let Some(gate) = gate {
            builder = builder.with_gate(gate);
        }
        if let Some(policy) = self.scaling {
            builder = builder.with_scaling_policy(policy);
        }
        Ok(Cocktail { orchestrator: builder.start().await?, data_dir })
    }
}

/// How long certificates of agents are valid.
#[cfg(feature = "agents")]
const VALIDITY: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);

/// Where agents connect, if the settings say so.
#[cfg(feature = "agents")]
async fn gate(settings: &Settings, data_dir: &DataDir, store: &Arc<dyn Store>) -> Result<Option<Arc<dyn Gate>>> {
    use cocktail_agent::gate::{AgentGate, GateLimits};
    let Some(listen) = settings.listen else { return Ok(None) };
    let hosts = settings.advertise.iter().filter_map(|address| address.rsplit_once(':'));
    let mut names: Vec<String> = hosts.map(|(host, _)| host.trim_matches(['[', ']']).to_owned()).collect();
    names.push(listen.ip().to_string());
    let letters = store.id().as_str().to_ascii_lowercase();
    let cluster: String = letters.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    let dir = data_dir.path().join("authority");
    let gate = AgentGate::open(listen, &dir, &format!("c{cluster}"), VALIDITY, names, GateLimits::default()).await?;
    let registries = cocktail_agent::registries::Registries::new(settings.registries.clone());
    Ok(Some(Arc::new(gate.with_registries(registries))))
}

#[cfg(not(feature = "agents"))]
async fn gate(settings: &Settings, _data_dir: &DataDir, _store: &Arc<dyn Store>) -> Result<Option<Arc<dyn Gate>>> {
    match settings.listen {
        Some(_) => {
            let message = "this program cannot take agents: build it with the feature `agents`";
            Err(Error::new(ErrorKind::Unsupported, message))
        }
        None => Ok(None),
    }
}

/// The providers that the settings name; this machine with defaults where they name none of its kind.
fn configured(settings: &Settings, data_dir: &DataDir) -> Result<Vec<Arc<dyn Provider>>> {
    let mut providers: Vec<Arc<dyn Provider>> = Vec::new();
    let mut here = false;
    for (name, provider) in &settings.providers {
        match provider.kind.as_str() {
            STANDALONE if !here => {
                here = true;
                providers.push(Arc::new(standalone(name.clone(), provider, settings, data_dir)?));
            }
            STANDALONE => {
                let message = format!("[providers.{name}]: this machine is a provider already, and there is one of it");
                return Err(Error::invalid(message));
            }
            #[cfg(feature = "docker")]
            DOCKER => providers.push(Arc::new(docker(name.clone(), provider, settings)?)),
            kind => {
                let message = format!("[providers.{name}]: this program has no provider of kind {kind:?}");
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        }
    }
    // It also has the service ports, wherever the containers behind them are.
    if !here {
        providers.push(Arc::new(this_machine(settings, data_dir)?));
    }
    Ok(providers)
}

/// This machine as the settings describe it, or with defaults.
pub(crate) fn this_machine(settings: &Settings, data_dir: &DataDir) -> Result<StandaloneProvider> {
    if let Some((name, provider)) = settings.providers.iter().find(|(_, provider)| provider.kind.as_str() == STANDALONE)
    {
        return standalone(name.clone(), provider, settings, data_dir);
    }
    let kind = Name::new(STANDALONE).map_err(|error| Error::unexpected(error.to_string()))?;
    let defaults = ProviderSettings { kind: kind.clone(), options: std::collections::BTreeMap::new() };
    standalone(kind, &defaults, settings, data_dir)
}

#[cfg(feature = "docker")]
fn docker(
    name: Name,
    provider: &ProviderSettings,
    settings: &Settings,
) -> Result<cocktail_provider_docker::DockerProvider> {
    cocktail_provider_docker::DockerBuilder::new(name)
        .with_options(&provider.options)
        .with_logs(settings.log_bytes, settings.log_files)
        .with_binds(settings.binds.clone())
        .with_registries(settings.registries.clone())
        .build()
}

fn standalone(
    name: Name,
    provider: &ProviderSettings,
    settings: &Settings,
    data_dir: &DataDir,
) -> Result<StandaloneProvider> {
    let builder = StandaloneBuilder::new(name, data_dir.path())
        .with_options(&provider.options)
        .with_logs(settings.log_bytes, settings.log_files)
        .with_binds(settings.binds.clone());
    builder.build()
}
