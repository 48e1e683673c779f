//! Servers: where they come from.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::forwarder::Forwarder;
use super::runtime::Runtime;
use super::store::Lease;
use crate::error::Result;
use crate::id::{OperationId, ServerId};
use crate::name::Name;
use crate::spec::{Resources, Template};
use crate::time::WallTime;

/// Provisions servers.
///
/// What a call creates carries our cluster, store and operation, so that [`Provider::list`] finds it again; what does
/// not carry them is invisible.
#[async_trait]
pub trait Provider: fmt::Debug + Send + Sync {
    /// The name that a Unit's `provider` says.
    fn name(&self) -> &Name;

    /// The kind: `standalone`, `docker`, `ec2`, `azure`.
    fn kind(&self) -> &'static str;

    /// Says who acts from now on. The Manager calls it once it holds the lease, before anything that looks at servers
    /// or containers. What outlives a Manager (keepers, agents) refuses a lease that is older than the one it obeyed
    /// last, or that does not descend from it, so a provider passes the lease on to it; one that has nothing of the
    /// kind does nothing. Repeating it replaces the lease for later connections.
    fn lead(&self, lease: &Lease) {
        let _ = lease;
    }

    /// What this provider can do. The conformance suite picks its cases from it.
    fn capabilities(&self) -> ProviderCapabilities;

    /// Checks a template without network. Returns the manifest key below the unit and a sentence for each problem.
    fn validate(&self, template: &Template) -> Vec<(String, String)>;

    /// What could be provisioned for these requirements, with price and availability where they are known.
    async fn offerings(&self, requirements: &Requirements) -> Result<Vec<Offering>>;

    /// Asks for one server per claim; returns once the request is accepted, not once they have booted.
    ///
    /// Repeating it with the same operation yields the same servers, also after a crash of the caller. Success and
    /// failure are per claim.
    async fn provision(
        &self,
        ctx: &dyn ProvisionCtx,
        spec: &ServerSpec,
        claims: &[ServerClaim],
    ) -> Result<Vec<ClaimOutcome>>;

    /// Every server with our tag, those being created or deleted included.
    async fn list(&self) -> Result<ServerListing>;

    /// Whether the provider would let this server go; asked before any drain.
    async fn can_terminate(&self, server: &ServerId) -> Result<()>;

    /// Gives servers back. One that is gone already is success.
    async fn terminate(&self, ctx: &dyn ProvisionCtx, servers: &[ServerId], reason: TerminateReason) -> Result<()>;

    /// Servers that will be taken away: all notices that are in force, so that a missed one is found again. Asked only of
    /// a provider that says `interruptions` among its capabilities.
    async fn interruptions(&self) -> Result<Vec<Interruption>> {
        Ok(Vec::new())
    }

    /// How to run containers on a server.
    async fn connect(&self, server: &ServerId) -> Result<Connection>;

    /// The forwarder of service ports, where this provider brings one for the Manager's host.
    fn forwarder(&self) -> Option<Arc<dyn Forwarder>> {
        None
    }
}

/// How a server's containers are driven.
#[derive(Debug, Clone)]
pub enum Connection {
    /// By a runtime in this process.
    Local(Arc<dyn Runtime>),
    /// By an agent that dials the Manager.
    Agent,
}

/// What a provider can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderCapabilities {
    /// It can be asked for more servers.
    pub grows: bool,
    /// Servers can be stopped and started again.
    pub suspends: bool,
    /// It tells of interruptions beforehand.
    pub interruptions: bool,
    /// It places containers itself.
    pub places: bool,
    /// Its servers run images, and nothing else.
    #[serde(default)]
    pub images: bool,
}

/// What one provisioning call works with; made by the Manager.
#[async_trait]
pub trait ProvisionCtx: fmt::Debug + Send + Sync {
    /// The operation, durable before the call.
    fn operation(&self) -> OperationId;
    /// Idempotency token derived from cluster, operation, attempt and parameters.
    fn token(&self) -> &str;
    /// Time left for the call.
    fn deadline(&self) -> Duration;
    /// What a new server needs to join, byte for byte the same at each repetition.
    fn bootstrap(&self) -> &[u8];
    /// Makes one step durable; handed back by [`ProvisionCtx::checkpoints`] when the call is repeated.
    async fn checkpoint(&self, checkpoint: Checkpoint) -> Result<()>;
    /// Steps of earlier attempts of this operation.
    async fn checkpoints(&self) -> Result<Vec<Checkpoint>>;
}

/// One durable step of a long operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Order of the steps.
    pub step: u32,
    /// What the step is.
    pub name: String,
    /// What is needed to go on: an address to poll, the name of a half-made resource.
    pub data: serde_json::Value,
}

/// What placement asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirements {
    /// Least allocatable resources.
    pub resources: Resources,
}

/// One thing that can be bought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offering {
    /// The provider's name of the type.
    pub name: String,
    /// Zone, where there are zones.
    pub zone: Option<String>,
    /// How it is paid for.
    pub kind: OfferingKind,
    /// Price per hour, if known.
    pub price: Option<f64>,
    /// What containers can use of it.
    pub allocatable: Resources,
    /// Whether it can be had now.
    pub available: bool,
}

/// How a server is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OfferingKind {
    /// Kept until given back.
    OnDemand,
    /// Cheaper, and may be taken away.
    Spot,
    /// Kept stopped, started when needed.
    Warm,
}

/// What a server is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSpec {
    /// The chosen offering by name.
    pub offering: String,
    /// Zone, where there are zones.
    pub zone: Option<String>,
    /// How it is paid for; the provider's default when `None`.
    #[serde(default)]
    pub kind: Option<OfferingKind>,
}

/// Our durable intent to have one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerClaim {
    /// The server that fulfils it.
    pub server: ServerId,
}

/// What became of one claim.
#[derive(Debug, Clone)]
pub struct ClaimOutcome {
    /// The server.
    pub server: ServerId,
    /// The provider's own id, or why not; the kind of the error names the reaction.
    pub result: Result<String>,
}

/// Servers as a provider sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerListing {
    /// What was seen.
    pub servers: Vec<ServerObservation>,
    /// Whether what is not named is absent.
    pub complete: bool,
    /// When the provider answered.
    pub as_of: WallTime,
}

/// One server as a provider sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerObservation {
    /// Ours.
    pub server: ServerId,
    /// The provider's.
    pub provider_id: String,
    /// Boot id: another one is another incarnation.
    pub incarnation: String,
    /// What containers can use.
    pub capacity: Resources,
    /// Zone, where there are zones.
    pub zone: Option<String>,
    /// The offering it is of.
    pub offering: String,
    /// Address of its containers as the Manager's host reaches them.
    pub address: std::net::IpAddr,
    /// Who made it, as its tags say; `None` where the provider keeps no tags.
    #[serde(default)]
    pub owner: Option<crate::fleet::Owner>,
    /// More that is known, for `inspect`.
    pub labels: BTreeMap<String, String>,
}

/// A server that its provider will take away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interruption {
    /// The server.
    pub server: ServerId,
    /// When, by the wall clock.
    pub at: WallTime,
    /// What the provider says.
    pub because: String,
}

/// Why servers are given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TerminateReason {
    /// Nothing runs on it.
    Empty,
    /// A user asked.
    Requested,
    /// Its provider is about to take it away.
    Interrupted,
    /// What ran on it has room elsewhere, for less.
    Rearranged,
    /// It never joined.
    NeverJoined,
    /// It belongs to no claim of this store.
    Orphan,
}
