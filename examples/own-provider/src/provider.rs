//! [`Provider`]: servers are bought, listed, given back and connected to.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use cocktail_core::contract::{
    Checkpoint, ClaimOutcome, Connection, Lease, Offering, OfferingKind, Provider, ProviderCapabilities, ProvisionCtx,
    Requirements, Runtime, ServerClaim, ServerListing, ServerObservation, ServerSpec, TerminateReason,
};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::fleet::Owner;
use cocktail_core::id::{ServerId, StoreId};
use cocktail_core::name::Name;
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::spec::{Check, Resources, Template};
use cocktail_core::time::WallTime;
use serde_json::json;

use crate::cloud::{Cloud, Tag};
use crate::runtime::FolderRuntime;

/// What can be bought: name, cores, GiB of memory, price per hour.
const CATALOGUE: [(&str, u64, u64, f64); 2] = [("small", 1, 1, 0.01), ("large", 4, 8, 0.05)];

/// Servers that are folders below one folder, the account.
#[derive(Debug)]
pub struct FolderProvider {
    name: Name,
    cloud: Cloud,
    /// Containers end with this value, so each value is another boot of all servers.
    boot: String,
    lease: Mutex<Option<Lease>>,
    runtimes: Mutex<BTreeMap<ServerId, Arc<FolderRuntime>>>,
}

impl FolderProvider {
    /// A provider that Units name `name`, on the account `root`, which exists. Makes nothing yet.
    ///
    /// # Errors
    /// `Unavailable` where the system gives no random numbers.
    pub fn new(name: Name, root: &Path) -> Result<Self> {
        let (cloud, boot) = (Cloud::new(root.to_owned()), Cloud::new_id()?);
        Ok(Self { name, cloud, boot, lease: Mutex::default(), runtimes: Mutex::default() })
    }

    /// Whose servers we see.
    fn store(&self) -> Result<StoreId> {
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        let lease = lease.as_ref().ok_or_else(|| Error::unexpected("nobody leads this provider yet"))?;
        Ok(lease.store.clone())
    }

    /// The cloud's id of a server of ours.
    async fn find(&self, server: &ServerId) -> Result<Option<String>> {
        let store = self.store()?;
        let found = self.cloud.list().await?;
        let is_it = |tag: &Tag| tag.store == store && tag.server == *server;
        match found.servers.into_iter().find(|(_, tag)| is_it(tag)) {
            Some((id, _)) => Ok(Some(id)),
            None if found.complete => Ok(None),
            // What could not be read may be it.
            None => Err(Error::unavailable("the listing is not complete").with("server", server)),
        }
    }

    fn runtime(&self, server: &ServerId) -> Arc<FolderRuntime> {
        let mut runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        runtimes.retain(|_, runtime| !runtime.is_closed());
        Arc::clone(runtimes.entry(server.clone()).or_insert_with(|| Arc::new(FolderRuntime::new())))
    }
}

#[async_trait]
impl Provider for FolderProvider {
    fn name(&self) -> &Name {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "folder"
    }

    /// Nothing of ours outlives a Manager, so there is nobody to pass the lease on to.
    fn lead(&self, lease: &Lease) {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease.clone());
    }

    fn capabilities(&self) -> ProviderCapabilities {
        ProviderCapabilities { grows: true, ..ProviderCapabilities::default() }
    }

    /// What a user would otherwise learn from a container that does not start.
    fn validate(&self, template: &Template) -> Vec<(String, String)> {
        let http = |check: &Check| matches!(check, Check::Http { .. });
        let probe = |probe: &Option<cocktail_core::spec::Probe>| probe.as_ref().is_some_and(|probe| http(&probe.check));
        let cannot = [
            ("user", template.user.is_some(), "containers here run as the manager's own user"),
            ("secrets", !template.secrets.is_empty(), "secrets are not resolved here"),
            ("volumes", !template.volumes.is_empty(), "there are no volumes here"),
            ("rlimits", !template.rlimits.is_empty(), "limits of a process cannot be set here"),
            ("ports", template.ports.iter().any(|port| port.inherit), "sockets cannot be handed over here"),
            ("ready", probe(&template.ready), "there are only tcp and exec probes here"),
            ("live", probe(&template.live), "there are only tcp and exec probes here"),
        ];
        let problems = cannot.into_iter().filter(|(_, applies, _)| *applies);
        problems.map(|(key, _, sentence)| (key.to_owned(), sentence.to_owned())).collect()
    }

    async fn offerings(&self, requirements: &Requirements) -> Result<Vec<Offering>> {
        let needs = requirements.resources;
        let offerings = CATALOGUE.map(|(name, cores, gib, price)| Offering {
            name: name.into(),
            zone: None,
            kind: OfferingKind::OnDemand,
            price: Some(price),
            allocatable: Resources { cpu: CpuMillis(cores * 1_000), memory: Bytes(gib << 30) },
            available: true,
        });
        let fits = |has: Resources| has.cpu >= needs.cpu && has.memory >= needs.memory;
        Ok(offerings.into_iter().filter(|offering| fits(offering.allocatable)).collect())
    }

    /// The cloud's id of a server is drawn at random, so it is made durable before the server is made: whoever repeats the
    /// call, from wherever, finds it in the checkpoints and makes the same server.
    async fn provision(
        &self,
        ctx: &dyn ProvisionCtx,
        spec: &ServerSpec,
        claims: &[ServerClaim],
    ) -> Result<Vec<ClaimOutcome>> {
        if !CATALOGUE.iter().any(|(name, ..)| *name == spec.offering) {
            return Err(Error::invalid("there is no such offering").with("offering", &spec.offering));
        }
        let store = self.store()?;
        let known = ctx.checkpoints().await?;
        let mut outcomes = Vec::new();
        for (step, claim) in (0..).zip(claims) {
            let before = known.iter().find(|checkpoint| checkpoint.step == step);
            let id = match before.and_then(|checkpoint| checkpoint.data["id"].as_str()) {
                Some(id) => id.to_owned(),
                None => {
                    let id = Cloud::new_id()?;
                    ctx.checkpoint(Checkpoint { step, name: "id drawn".into(), data: json!({ "id": id }) }).await?;
                    id
                }
            };
            let (server, offering) = (claim.server.clone(), spec.offering.clone());
            let tag = Tag { store: store.clone(), operation: ctx.operation(), server: server.clone(), offering };
            let made = self.cloud.create(&id, &tag, ctx.bootstrap()).await?;
            let scope = || ErrorKind::Quota { scope: "servers of the account".into() };
            let full = || Error::new(scope(), "the account has no room for another server");
            let result = if made { Ok(id) } else { Err(full()) };
            outcomes.push(ClaimOutcome { server, result });
        }
        Ok(outcomes)
    }

    async fn list(&self) -> Result<ServerListing> {
        let (store, found) = (self.store()?, self.cloud.list().await?);
        let offerings = self.offerings(&Requirements::default()).await?;
        let observe = |(provider_id, tag): (String, Tag)| {
            let offering = offerings.iter().find(|offering| offering.name == tag.offering);
            ServerObservation {
                server: tag.server,
                provider_id,
                incarnation: self.boot.clone(),
                capacity: offering.map(|offering| offering.allocatable).unwrap_or_default(),
                zone: None,
                offering: tag.offering,
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                owner: Some(Owner { store: tag.store, operation: tag.operation }),
                labels: BTreeMap::from([("operation".to_owned(), tag.operation.to_string())]),
            }
        };
        // What does not carry our tag is invisible.
        let servers = found.servers.into_iter().filter(|(_, tag)| tag.store == store).map(observe).collect();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let as_of = WallTime(i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        Ok(ServerListing { servers, complete: found.complete, as_of })
    }

    async fn can_terminate(&self, server: &ServerId) -> Result<()> {
        let found = self.find(server).await?;
        found.map(drop).ok_or_else(|| Error::not_found("there is no such server").with("server", server))
    }

    async fn terminate(&self, _ctx: &dyn ProvisionCtx, servers: &[ServerId], _reason: TerminateReason) -> Result<()> {
        for server in servers {
            if let Some(id) = self.find(server).await? {
                self.runtime(server).shutdown(true).await?;
                self.cloud.delete(&id).await?;
            }
        }
        Ok(())
    }

    async fn connect(&self, server: &ServerId) -> Result<Connection> {
        self.can_terminate(server).await?;
        Ok(Connection::Local(self.runtime(server)))
    }
}
