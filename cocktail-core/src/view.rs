//! What users see: the JSON that commands and the API answer with.
//!
//! These shapes are a promise to programs outside this repository. Fields may be added; none is renamed or removed.
//! Times are RFC 3339 UTC, sizes bytes, cpu thousandths of a core.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;
use crate::fleet::Late;
use crate::manifest::Diagnostic;
use crate::scaling::Sample;

/// One container (`ps`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerView {
    /// Id, kept over restarts in place.
    pub id: String,
    /// Service.
    pub service: String,
    /// ApplicationMap.
    pub map: String,
    /// Unit.
    pub unit: String,
    /// Revision of the Unit that it is made from.
    pub revision: u64,
    /// Number of its starts.
    pub generation: u64,
    /// Server that it is on.
    pub server: String,
    /// Provider of the server.
    pub provider: String,
    /// State in lower case.
    pub state: String,
    /// True exactly in `ready`.
    pub ready: bool,
    /// Why it is in this state, for people.
    pub reason: String,
    /// Since when it is in this state.
    pub since: String,
    /// Restarts in place since it was made.
    pub restarts: u64,
    /// Process id, for processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Engine's id, for Docker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_id: Option<String>,
    /// Ports.
    pub ports: Vec<PortView>,
    /// Last reading of cpu and memory.
    pub usage: UsageView,
}

/// One port of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortView {
    /// Its name.
    pub name: String,
    /// Host that it listens on.
    pub host: String,
    /// The number.
    pub port: u16,
}

/// Cpu and memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageView {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Resident bytes.
    pub memory_bytes: u64,
}

/// One Unit (`units`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitView {
    /// Service.
    pub service: String,
    /// ApplicationMap.
    pub map: String,
    /// Unit.
    pub unit: String,
    /// Containers wanted.
    pub desired: u32,
    /// Containers that take traffic.
    pub ready: u32,
    /// Containers of the current revision.
    pub updated: u32,
    /// Current revision.
    pub revision: u64,
    /// Replacement in progress, if any.
    pub rollout: RolloutView,
    /// Sum over the containers.
    pub usage: UsageView,
    /// What stands in the way, for people; empty when all is well.
    #[serde(default)]
    pub reason: String,
    /// Stopped by command.
    #[serde(default)]
    pub stopped: bool,
    /// Fewest and most containers that a policy may ask for now.
    #[serde(default)]
    pub limits: (u32, u32),
    /// The count follows the load or the clock.
    #[serde(default)]
    pub autoscaled: bool,
    /// Its containers run to completion.
    #[serde(default)]
    pub job: bool,
    /// A job's containers that completed.
    #[serde(default)]
    pub succeeded: u32,
    /// A job's containers that failed for good.
    #[serde(default)]
    pub failed: u32,
    /// Words of the user's own: those of the Unit, its map and its Service.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Where a rollout stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutView {
    /// `running`, `paused`, `completed`, `superseded`, `rolling-back`, `rolled-back`.
    pub state: String,
    /// How far it is, for people.
    #[serde(default)]
    pub step: String,
    /// Why.
    pub reason: String,
    /// The revision that served before it; the same one while containers are replaced by their like.
    #[serde(default)]
    pub from: Option<u64>,
    /// The revision that takes over, or took over.
    #[serde(default)]
    pub to: Option<u64>,
    /// Since when it is in this state; empty where there was no rollout.
    #[serde(default)]
    pub since: String,
    /// A failure brought it into this state, and no user.
    #[serde(default)]
    pub failed: bool,
    /// The canary is well, and the others follow only when somebody promotes it.
    #[serde(default)]
    pub asks_promotion: bool,
}

/// One server (`servers`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerView {
    /// Id.
    pub id: String,
    /// Provider by name.
    pub provider: String,
    /// The provider's own id.
    pub provider_id: String,
    /// State in lower case.
    pub state: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: String,
    /// Zone, where there are zones.
    pub zone: Option<String>,
    /// Offering that it is of.
    pub offering: String,
    /// What containers can use.
    pub capacity: ResourcesView,
    /// What containers have reserved.
    pub allocated: ResourcesView,
    /// Number of containers.
    pub containers: u32,
    /// Boot that is running.
    pub incarnation: String,
    /// How it is being emptied, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rearrangement: Option<RearrangementView>,
}

/// How a server is emptied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RearrangementView {
    /// Why.
    pub because: String,
    /// When it has to be empty; `null` for as long as it takes.
    pub deadline: Option<String>,
    /// What happens then with what is still there: `cancel` (it stays) or `force` (it is drained).
    pub late: Late,
    /// It is given back once it is empty.
    pub give_back: bool,
}

/// Cpu and memory as reserved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourcesView {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

/// One service port (`endpoints`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointView {
    /// Service.
    pub service: String,
    /// ApplicationMap.
    pub map: String,
    /// Unit.
    pub unit: String,
    /// The port's name.
    pub port_name: String,
    /// The stable port; `null` where the Unit has none.
    pub service_port: Option<u16>,
    /// Address that the stable port listens on.
    #[serde(default)]
    pub address: String,
    /// Why it does not listen, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Ready containers.
    pub backends: Vec<BackendView>,
}

impl EndpointView {
    /// Whether it is one of a Unit, which is named in full (`service/map/unit`) or by the end of that.
    pub fn is_of(&self, unit: &str) -> bool {
        let mut named = unit.rsplit('/');
        let mut names = [&self.unit, &self.map, &self.service].into_iter();
        // At least one part, and each of them right.
        named.all(|part| names.next().is_some_and(|name| name == part))
    }
}

/// One ready container behind a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendView {
    /// The container.
    pub container: String,
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// One volume (`volumes`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeView {
    /// Service.
    pub service: String,
    /// ApplicationMap.
    pub map: String,
    /// Unit.
    pub unit: String,
    /// Name in the manifest.
    pub name: String,
    /// `exclusive`, `shared`, `ephemeral`, `bind`; empty for one that no manifest names any more.
    pub kind: String,
    /// Where it is.
    pub path: String,
    /// Bytes that it holds; `null` where that was not counted.
    pub used_bytes: Option<u64>,
    /// Bytes that the manifest expects at most.
    pub size_bytes: Option<u64>,
    /// Server that it is on.
    pub server: String,
    /// Containers that have it now.
    pub containers: Vec<String>,
}

/// What one object did during the last hour.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryView {
    /// The object.
    pub object: String,
    /// Time of one point, in milliseconds.
    pub interval_ms: u64,
    /// Oldest first; times without a reading are left out.
    pub points: Vec<PointView>,
}

/// One point of a history.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PointView {
    /// When.
    pub at: String,
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Resident bytes.
    pub memory_bytes: u64,
    /// Requests a second.
    pub rps: f64,
    /// Requests without an answer.
    pub in_flight: u64,
    /// Median time to the first byte of an answer, in milliseconds.
    pub p50_ms: f64,
    /// The time that one answer in a hundred exceeds, in milliseconds.
    pub p99_ms: f64,
    /// Ready containers, of a Unit.
    pub ready: u32,
}

/// What every Unit and container does now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UsageReport {
    /// By `service/map/unit`.
    pub units: BTreeMap<String, UnitUsage>,
    /// By id.
    pub containers: BTreeMap<String, Sample>,
}

/// What one Unit does now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UnitUsage {
    /// Sum over its containers; latencies over all their requests.
    pub sample: Sample,
    /// Requests that were answered since its service port was made.
    pub requests_total: u64,
    /// Connections since its service port was made.
    pub connections_total: u64,
    /// Connections that found no container in time.
    pub refused_total: u64,
    /// Clients that wait for a ready container.
    pub waiting: u64,
}

/// One line of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildLine {
    /// The Unit whose image it is.
    pub unit: String,
    /// The server that builds it.
    pub server: String,
    /// The line.
    pub line: String,
}

/// One operation on a container or on servers (`ops`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationView {
    /// Id.
    pub id: u64,
    /// `start`, `stop`, `remove` of a container; `provision` and `terminate` of servers.
    pub kind: String,
    /// What it fulfils.
    pub claims: Vec<String>,
    /// Attempt, from 1.
    pub attempt: u32,
    /// What the provider calls the result.
    pub provider_ids: Vec<String>,
    /// `intended`, `issued`, `succeeded`, `failed`, `outcome-unknown`, `resolved`.
    pub state: String,
    /// Why it failed.
    pub error: Option<String>,
    /// Since when.
    pub since: String,
    /// When it is given up; empty where it never is.
    pub deadline: String,
}

/// One event of the journal (`events`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Position in the journal; the events of one turn share it.
    pub seq: u64,
    /// When.
    pub at: String,
    /// What happened.
    pub kind: String,
    /// To what.
    pub object: String,
    /// Why.
    pub reason: String,
    /// Everything else.
    pub detail: serde_json::Value,
}

/// One decision or non-decision (`why`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyView {
    /// When.
    pub at: String,
    /// What was decided: `start`, `stop`, `wait`, `none`, …
    pub decision: String,
    /// About what.
    pub object: String,
    /// Why, with the numbers that were used.
    pub because: String,
    /// What else was looked at.
    pub considered: Vec<ConsideredView>,
}

/// An option that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsideredView {
    /// What.
    pub option: String,
    /// Why not.
    pub rejected_because: String,
}

/// What would be done (`plan`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// Actions in order; empty when nothing would change.
    pub actions: Vec<PlanAction>,
    /// One sentence.
    pub summary: String,
    /// What was noticed on the way.
    #[serde(default)]
    pub warnings: Vec<Diagnostic>,
}

/// One action of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanAction {
    /// `create`, `replace`, `reduce`, `remove`, `scale`, …
    pub action: String,
    /// What it is about.
    pub object: String,
    /// Why.
    pub because: String,
}

/// The Manager itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerView {
    /// Version of the library.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Store id.
    pub store: String,
    /// Epoch of its lease.
    pub epoch: u64,
    /// Where its state is.
    pub data_dir: String,
    /// Last turn that is durable.
    pub seq: u64,
    /// `running`, `degraded` (the store cannot be written), `frozen`.
    pub state: String,
    /// Why it is degraded or frozen.
    pub reason: String,
    /// Things that should be impossible and were seen since its start; its log tells them.
    #[serde(default)]
    pub anomalies: u64,
}

/// An error as the API answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// The kind, with what belongs to it.
    pub error: ErrorKind,
    /// One line.
    pub message: String,
    /// Problems of a manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}
