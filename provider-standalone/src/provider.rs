//! [`Provider`] for the one server that is always there.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use cocktail_core::contract::{
    ClaimOutcome, Connection, Forwarder, Lease, Offering, Provider, ProviderCapabilities, ProvisionCtx, Requirements,
    Runtime as _, ServerClaim, ServerListing, ServerObservation, ServerSpec, TerminateReason,
};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::ServerId;
use cocktail_core::name::Name;
use cocktail_core::spec::{Resources, Template};
use cocktail_core::time::WallTime;

use crate::check;
use crate::config::{Runs, StaticServer};
use crate::forwarder::StandaloneForwarder;
use crate::machine;
use crate::runtime::StandaloneRuntime;
use crate::shared::{Fixed, Shared, lock};

/// This machine as a provider of one server, with the forwarder of its service ports.
///
/// The server has the provider's name. It can be neither bought nor given back.
#[derive(Debug)]
pub struct StandaloneProvider {
    shared: Arc<Shared>,
}

impl StandaloneProvider {
    pub(crate) fn new(fixed: Fixed) -> Self {
        Self { shared: Arc::new(Shared::new(fixed)) }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The one server's id.
    pub fn server(&self) -> ServerId {
        ServerId::new(self.shared.fixed.name.as_str())
    }

    fn local(&self) -> Result<ServerObservation> {
        Ok(ServerObservation {
            server: self.server(),
            provider_id: machine::id(),
            incarnation: machine::boot_id()?,
            capacity: self.shared.fixed.capacity,
            zone: None,
            offering: "local".into(),
            address: self.shared.fixed.config.address,
            owner: None,
            labels: BTreeMap::from([("host".to_owned(), machine::host_name())]),
        })
    }

    /// Whether its servers run images: those of agents, which have engines.
    fn runs_images(&self) -> bool {
        self.shared.fixed.config.runs == Runs::Images
    }

    fn unsupported(&self, what: &str) -> Error {
        let message = format!("provider {} cannot be {what}: it has the machines that it has", self.name());
        Error::new(ErrorKind::Unsupported, message)
    }
}

#[async_trait]
impl Provider for StandaloneProvider {
    fn name(&self) -> &Name {
        &self.shared.fixed.name
    }

    fn kind(&self) -> &'static str {
        "standalone"
    }

    fn lead(&self, lease: &Lease) {
        *lock(&self.shared.lease) = Some(lease.clone());
    }

    fn capabilities(&self) -> ProviderCapabilities {
        ProviderCapabilities { images: self.runs_images(), ..ProviderCapabilities::default() }
    }

    fn validate(&self, template: &Template) -> Vec<(String, String)> {
        match self.runs_images() {
            // The rest is what the engines there can say.
            true => check::of_images(template),
            false => check::without_looking(template),
        }
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

    async fn list(&self) -> Result<ServerListing> {
        let config = &self.shared.fixed.config;
        let mut servers: Vec<ServerObservation> = config.servers.iter().map(remote).collect();
        if config.is_local() {
            servers.push(self.local()?);
        } else {
            // Nothing is asked of the keeper here but its forwarder, which takes no orders before somebody has looked.
            StandaloneRuntime::new(Arc::clone(&self.shared)).recover(&[]).await?;
        }
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

    /// Connects to the keeper, and starts one where none runs.
    ///
    /// # Errors
    /// `NotFound` for another server; `Refused` when the workers of the data dir belong to another store, to a newer
    /// Manager or to a newer copy of the data dir; `Unavailable` when no keeper can be started.
    async fn connect(&self, server: &ServerId) -> Result<Connection> {
        let config = &self.shared.fixed.config;
        if config.servers.iter().any(|other| other.name == server.as_str()) {
            return Ok(Connection::Agent);
        }
        if *server != self.server() || !config.is_local() {
            return Err(Error::not_found(format!("provider {} has no server {server}", self.name())));
        }
        self.shared.any_client().await?;
        Ok(Connection::Local(Arc::new(StandaloneRuntime::new(Arc::clone(&self.shared)))))
    }

    fn forwarder(&self) -> Option<Arc<dyn Forwarder>> {
        Some(Arc::new(StandaloneForwarder::new(Arc::clone(&self.shared))))
    }
}

/// A machine with an agent: what it has, and which boot it is, the agent says.
fn remote(server: &StaticServer) -> ServerObservation {
    ServerObservation {
        server: ServerId::new(server.name.as_str()),
        provider_id: server.name.clone(),
        incarnation: String::new(),
        capacity: Resources::default(),
        zone: server.zone.clone(),
        offering: "static".into(),
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        owner: None,
        labels: server.labels.clone(),
    }
}
