//! [`Provider`] for the one server that is always there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use cocktail_core::contract::{
    ClaimOutcome, Connection, Forwarder, Lease, Offering, Provider, ProviderCapabilities, ProvisionCtx, Requirements,
    ServerClaim, ServerListing, ServerObservation, ServerSpec, TerminateReason,
};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::ServerId;
use cocktail_core::name::Name;
use cocktail_core::spec::Template;
use cocktail_core::time::WallTime;

use crate::check;
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

    fn unsupported(&self, what: &str) -> Error {
        let message = format!("this machine cannot be {what}: it is the one server of provider {}", self.name());
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
        ProviderCapabilities::default()
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

    async fn list(&self) -> Result<ServerListing> {
        let server = ServerObservation {
            server: self.server(),
            provider_id: machine::id(),
            incarnation: machine::boot_id()?,
            capacity: self.shared.fixed.capacity,
            zone: None,
            offering: "local".into(),
            address: self.shared.fixed.config.address,
            owner: None,
            labels: BTreeMap::from([("host".to_owned(), machine::host_name())]),
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let as_of = WallTime(i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        Ok(ServerListing { servers: vec![server], complete: true, as_of })
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
        if *server != self.server() {
            return Err(Error::not_found(format!("provider {} has no server {server}", self.name())));
        }
        self.shared.any_client().await?;
        Ok(Connection::Local(Arc::new(StandaloneRuntime::new(Arc::clone(&self.shared)))))
    }

    fn forwarder(&self) -> Option<Arc<dyn Forwarder>> {
        Some(Arc::new(StandaloneForwarder::new(Arc::clone(&self.shared))))
    }
}
