//! [`Provider`] for engines that are there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use cocktail_core::contract::{
    ClaimOutcome, Connection, Lease, Offering, Provider, ProviderCapabilities, ProvisionCtx, Requirements, ServerClaim,
    ServerListing, ServerObservation, ServerSpec, TerminateReason,
};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::ServerId;
use cocktail_core::name::Name;
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::spec::{Resources, Template};
use cocktail_core::time::WallTime;
use futures_util::future::join_all;

use crate::check;
use crate::config::EngineConfig;
use crate::runtime::DockerRuntime;
use crate::shared::Shared;

/// Engines as a provider of servers. They can be neither bought nor given back.
#[derive(Debug)]
pub struct DockerProvider {
    pub(crate) name: Name,
    pub(crate) servers: BTreeMap<ServerId, Server>,
}

/// One engine.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) config: EngineConfig,
    pub(crate) shared: Arc<Shared>,
}

impl DockerProvider {
    /// The servers' ids.
    pub fn servers(&self) -> impl Iterator<Item = &ServerId> {
        self.servers.keys()
    }

    fn unsupported(&self, what: &str) -> Error {
        let message = format!("provider {} cannot be {what}: it has the engines that it has", self.name);
        Error::new(ErrorKind::Unsupported, message)
    }
}

impl Server {
    /// What is known of it. An engine that does not answer is there all the same, with what was written down about it.
    async fn observe(&self, id: &ServerId) -> ServerObservation {
        let info = match self.shared.engine.info().await {
            Ok(info) => info,
            Err(error) => {
                tracing::warn!(server = %id, error = %error.chain(), "an engine does not answer");
                Default::default()
            }
        };
        let positive = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or_default();
        let written = self.config.capacity;
        let capacity = Resources {
            cpu: written.cpu.unwrap_or(CpuMillis(positive(info.ncpu).saturating_mul(1_000))),
            memory: written.memory.unwrap_or(Bytes(positive(info.mem_total))),
        };
        let mut labels = self.config.labels.clone();
        labels.extend(info.name.map(|host| ("host".to_owned(), host)));
        labels.extend(info.server_version.map(|version| ("engine".to_owned(), version)));
        ServerObservation {
            server: id.clone(),
            provider_id: self.config.url.clone(),
            incarnation: info.id.unwrap_or_default(),
            capacity,
            zone: self.config.zone.clone(),
            offering: "engine".into(),
            address: self.shared.fixed.address,
            owner: None,
            labels,
        }
    }
}

#[async_trait]
impl Provider for DockerProvider {
    fn name(&self) -> &Name {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "docker"
    }

    fn lead(&self, lease: &Lease) {
        for server in self.servers.values() {
            server.shared.lead(lease);
        }
    }

    fn capabilities(&self) -> ProviderCapabilities {
        ProviderCapabilities { images: true, ..ProviderCapabilities::default() }
    }

    fn validate(&self, template: &Template) -> Vec<(String, String)> {
        check::without_looking(template)
    }

    async fn offerings(&self, _requirements: &Requirements) -> Result<Vec<Offering>> {
        Ok(Vec::new())
    }

    async fn provision(
        &self,
        _ctx: &dyn ProvisionCtx,
        _spec: &ServerSpec,
        _claims: &[ServerClaim],
    ) -> Result<Vec<ClaimOutcome>> {
        Err(self.unsupported("asked for more servers"))
    }

    /// The engines that the settings name, which answer or not.
    async fn list(&self) -> Result<ServerListing> {
        let servers = join_all(self.servers.iter().map(|(id, server)| server.observe(id))).await;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let as_of = WallTime(i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        Ok(ServerListing { servers, complete: true, as_of })
    }

    async fn can_terminate(&self, _server: &ServerId) -> Result<()> {
        Err(self.unsupported("given back"))
    }

    async fn terminate(&self, _ctx: &dyn ProvisionCtx, _servers: &[ServerId], _reason: TerminateReason) -> Result<()> {
        Err(self.unsupported("given back"))
    }

    /// Connects to an engine, also to one that does not answer now: what it runs is unknown until it does.
    ///
    /// # Errors
    /// `NotFound` for another server.
    async fn connect(&self, server: &ServerId) -> Result<Connection> {
        let found = self.servers.get(server);
        let found = found.ok_or_else(|| Error::not_found(format!("provider {} has no server {server}", self.name)))?;
        Ok(Connection::Local(Arc::new(DockerRuntime::new(Arc::clone(&found.shared)))))
    }
}
