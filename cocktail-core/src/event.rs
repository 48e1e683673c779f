//! Everything that changes [`crate::state::State`].
//!
//! [`Event`]s are durable: journaled in turns, replayed after a crash. [`Soft`] observations are applied and forgotten;
//! a decision that follows from one stores what it used.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::contract::{Exit, Handle, ProbeKind};
use crate::fleet::FleetEvent;
use crate::id::{ContainerId, Epoch, Generation, OperationId, Revision, Seq, ServerId, UnitId};
use crate::name::Name;
use crate::operation::{Failure, Operation, OperationKind};
use crate::rollout::RolloutStep;
use crate::scaling::{Bounds, Sample};
use crate::server::Server;
use crate::settings::Settings;
use crate::spec::ServiceSpec;
use crate::time::{ManagerTime, WallTime};
use crate::view::{ConsideredView, EventView};

/// One turn as it stands in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Manager time of the turn.
    pub now: ManagerTime,
    /// Wall clock of the turn.
    pub at: WallTime,
    /// The lease under which it was decided.
    pub epoch: Epoch,
    /// What happened and what was decided, in order.
    pub events: Vec<Event>,
}

/// A durable change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Event {
    /// A Manager took the lease.
    ManagerStarted {
        /// Its epoch.
        epoch: Epoch,
        /// Its settings.
        settings: Box<Settings>,
    },
    /// Manifests became the desired state of the maps that they name.
    Applied {
        /// What they say.
        service: Box<ServiceSpec>,
        /// Who gave the command.
        actor: String,
    },
    /// The count of a Unit was set by command.
    Scaled {
        /// The Unit.
        unit: UnitId,
        /// The count.
        desired: u32,
        /// Who gave the command.
        actor: String,
    },
    /// A Unit was stopped or started by command.
    Switched {
        /// The Unit.
        unit: UnitId,
        /// Stopped, or started again.
        stopped: bool,
        /// Who gave the command.
        actor: String,
    },
    /// A Unit was removed by command.
    UnitRemoved {
        /// The Unit.
        unit: UnitId,
        /// Who gave the command.
        actor: String,
    },
    /// The last container of a removed Unit is gone.
    UnitForgotten {
        /// The Unit.
        unit: UnitId,
    },
    /// The count of a Unit was set by its scaling policy.
    Autoscaled {
        /// The Unit.
        unit: UnitId,
        /// The count.
        desired: u32,
        /// Why, with the numbers that were used.
        because: String,
        /// What other metrics asked for.
        considered: Vec<ConsideredView>,
    },
    /// The clock gave a Unit other bounds.
    BoundsSet {
        /// The Unit.
        unit: UnitId,
        /// The bounds; the manifest's own when `None`.
        bounds: Option<Bounds>,
        /// Why.
        because: String,
    },
    /// A rollout took a step.
    RolloutStepped {
        /// The Unit.
        unit: UnitId,
        /// The step.
        step: RolloutStep,
        /// The step follows from a failure.
        #[serde(default)]
        failed: bool,
        /// Why.
        because: String,
    },
    /// More replacements of a rollout have stayed ready for the monitor window.
    RolloutProgressed {
        /// The Unit.
        unit: UnitId,
        /// How many.
        proved: u32,
    },
    /// A canary stayed ready for the monitor window; the others wait for its promotion.
    CanaryProved {
        /// The Unit.
        unit: UnitId,
    },
    /// A canary is good enough: the others follow.
    Promoted {
        /// The Unit.
        unit: UnitId,
        /// Why.
        because: String,
    },
    /// A container shall be replaced.
    ReplaceAsked {
        /// The container.
        container: ContainerId,
        /// Why.
        because: String,
    },
    /// A server was seen for the first time, or has changed.
    ServerSeen {
        /// As it is now.
        server: Box<Server>,
    },
    /// A container is intended.
    Claimed {
        /// Its id.
        container: ContainerId,
        /// Its Unit.
        unit: UnitId,
        /// Version of the Unit.
        revision: Revision,
        /// Where.
        server: ServerId,
        /// Its ports in the manifest's order.
        ports: Vec<(Name, u16)>,
        /// Which of the Unit's exclusive volumes it has.
        slot: Option<u32>,
        /// It is to wait with nothing loaded.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        spare: bool,
        /// Why.
        because: String,
        /// Servers that were not chosen.
        considered: Vec<ConsideredView>,
    },
    /// A worker is up with nothing loaded, or a container of an image is paused.
    Registered {
        /// The container.
        container: ContainerId,
        /// Which start.
        generation: Generation,
    },
    /// A container that waits was taken by a Unit. What it is told follows as an operation.
    CheckedOut {
        /// The container.
        container: ContainerId,
        /// Who takes it.
        unit: UnitId,
        /// Version of the Unit.
        revision: Revision,
        /// Its ports in the manifest's order.
        ports: Vec<(Name, u16)>,
        /// Why.
        because: String,
        /// A container of the Unit that crashed, whose place it takes: that one waits from then on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instead: Option<ContainerId>,
    },
    /// A container that was to wait cannot, and no other one of its Unit can.
    Unfit {
        /// The container.
        container: ContainerId,
        /// Why.
        because: String,
    },
    /// A worker was told what to load, or cannot be.
    Assigned {
        /// The operation.
        operation: OperationId,
        /// Why it cannot be told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    /// A worker has closed what it had loaded, or has not.
    Unloaded {
        /// The operation.
        operation: OperationId,
        /// Why it has not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    /// A worker could not listen at a port that it was given: another program has it.
    PortTaken {
        /// The container.
        container: ContainerId,
        /// The port.
        port: u16,
        /// What the worker said.
        because: String,
    },
    /// A claim got other ports, because the first turned out taken.
    PortsLeased {
        /// The container.
        container: ContainerId,
        /// All its ports in the manifest's order.
        ports: Vec<(Name, u16)>,
        /// Why.
        because: String,
    },
    /// An operation is durable; its call may be sent now.
    Intended {
        /// The operation.
        operation: Box<Operation>,
    },
    /// A start did not happen, surely.
    StartFailed {
        /// The operation.
        operation: OperationId,
        /// Why.
        failure: Failure,
    },
    /// A container runs.
    Started {
        /// The container.
        container: ContainerId,
        /// Which start.
        generation: Generation,
        /// How to find it.
        handle: Handle,
    },
    /// A container ended; nothing of it is left.
    Exited {
        /// The container.
        container: ContainerId,
        /// Which start.
        generation: Generation,
        /// How.
        exit: Exit,
    },
    /// A stopped container's files are gone.
    Removed {
        /// The container.
        container: ContainerId,
    },
    /// A probe's result changed.
    Probed {
        /// The container.
        container: ContainerId,
        /// Which start.
        generation: Generation,
        /// Which probe.
        probe: ProbeKind,
        /// The new result.
        ok: bool,
        /// What was seen.
        detail: String,
    },
    /// A worker said something that is kept among the decisions about its container.
    Noted {
        /// The container.
        container: ContainerId,
        /// In one word or two.
        what: String,
        /// What it said.
        because: String,
    },
    /// A container leaves the routing table, to be stopped.
    DrainBegun {
        /// The container.
        container: ContainerId,
        /// Why.
        because: String,
    },
    /// Nothing is done about a Unit, for this reason; an empty one takes it back.
    Held {
        /// The Unit.
        unit: UnitId,
        /// Why.
        because: String,
        /// The reason without the numbers that change by themselves: with the same cause it is not told again.
        #[serde(default)]
        cause: String,
        /// What was looked at.
        considered: Vec<ConsideredView>,
    },
    /// Destructive decisions of the Manager's own are suspended, or allowed again.
    Froze {
        /// Why; `None` thaws.
        because: Option<String>,
    },
    /// Something about servers or providers.
    Fleet {
        /// What.
        event: Box<FleetEvent>,
    },
}

/// A change that is not journaled.
#[derive(Debug, Clone, PartialEq)]
pub enum Soft {
    /// A start is prepared: ports are proved.
    Prepared {
        /// The container.
        container: ContainerId,
        /// Which start.
        generation: Generation,
    },
    /// A start cannot be prepared yet, which is tried again. What an image comes from may be away.
    Delayed {
        /// The container.
        container: ContainerId,
        /// Which start.
        generation: Generation,
        /// What is in the way.
        because: String,
    },
    /// A drained container has no connection left.
    Drained {
        /// The container.
        container: ContainerId,
    },
    /// What a failing readiness probe saw last.
    ProbeDetail {
        /// The container.
        container: ContainerId,
        /// Which start.
        generation: Generation,
        /// What was seen.
        detail: String,
    },
    /// What some containers did during the last interval. More follows.
    Read(BTreeMap<ContainerId, Sample>),
    /// What containers did during the last interval, besides those that were told of before. The policy is asked.
    Sampled(BTreeMap<ContainerId, Sample>),
    /// A client waits at a service port of a Unit that has no ready container.
    Demand {
        /// The Unit.
        unit: UnitId,
    },
    /// The Manager ends and takes its containers along.
    Halt,
}

impl From<FleetEvent> for Event {
    fn from(event: FleetEvent) -> Self {
        Self::Fleet { event: Box::new(event) }
    }
}

impl Event {
    /// What the event is called, what it is about, and why it happened.
    pub fn describe(&self) -> (&'static str, String, String) {
        match self {
            Self::ManagerStarted { epoch, .. } => {
                ("manager-started", "manager".into(), format!("took the lease with epoch {epoch}"))
            }
            Self::Applied { service, actor } => ("applied", service.name.to_string(), format!("applied by {actor}")),
            Self::Scaled { unit, desired, actor } => {
                ("scaled", unit.to_string(), format!("set to {desired} by {actor}"))
            }
            Self::Switched { unit, stopped: true, actor } => {
                ("unit-stopped", unit.to_string(), format!("stopped by {actor}"))
            }
            Self::Switched { unit, stopped: false, actor } => {
                ("unit-started", unit.to_string(), format!("started by {actor}"))
            }
            Self::UnitRemoved { unit, actor } => ("unit-removed", unit.to_string(), format!("removed by {actor}")),
            Self::UnitForgotten { unit } => ("unit-gone", unit.to_string(), "its last container is gone".into()),
            Self::Autoscaled { unit, desired, because, .. } => {
                ("autoscaled", unit.to_string(), format!("set to {desired}: {because}"))
            }
            Self::BoundsSet { unit, because, .. } => ("bounds-set", unit.to_string(), because.clone()),
            Self::RolloutStepped { unit, step, because, .. } => {
                let kind = match step {
                    RolloutStep::Pause => "rollout-paused",
                    RolloutStep::Resume => "rollout-resumed",
                    RolloutStep::Finish => "rollout-finished",
                    RolloutStep::RollBack { .. } => "rolling-back",
                    RolloutStep::Supersede => "rollout-superseded",
                };
                (kind, unit.to_string(), because.clone())
            }
            Self::RolloutProgressed { unit, proved } => {
                ("rollout-progressed", unit.to_string(), format!("{proved} replacements stayed ready"))
            }
            Self::CanaryProved { unit } => ("canary-proved", unit.to_string(), "the canary stayed ready".into()),
            Self::Promoted { unit, because } => ("promoted", unit.to_string(), because.clone()),
            Self::ReplaceAsked { container, because } => ("replace-asked", container.to_string(), because.clone()),
            Self::ServerSeen { server } => ("server-seen", server.id.to_string(), server.reason.clone()),
            Self::Claimed { container, because, .. } => ("claimed", container.to_string(), because.clone()),
            Self::PortsLeased { container, because, .. } => ("ports-leased", container.to_string(), because.clone()),
            Self::Intended { operation } => {
                let kind = match operation.kind {
                    OperationKind::Start => "start-intended",
                    OperationKind::Stop { .. } => "stop-intended",
                    OperationKind::Remove => "remove-intended",
                    OperationKind::Assign => "assign-intended",
                    OperationKind::Unload { .. } => "unload-intended",
                };
                (kind, operation.container.to_string(), operation.because.clone())
            }
            Self::StartFailed { operation, failure } => {
                ("start-failed", format!("operation {operation}"), failure.message.clone())
            }
            Self::Registered { container, .. } => {
                ("registered", container.to_string(), "it is up with nothing to do".into())
            }
            Self::Unfit { container, because } => ("unfit", container.to_string(), because.clone()),
            Self::CheckedOut { container, because, .. } => ("checked-out", container.to_string(), because.clone()),
            Self::Assigned { operation, failure } => ended("assigned", "assign-failed", *operation, failure.as_ref()),
            Self::Unloaded { operation, failure } => ended("unloaded", "unload-failed", *operation, failure.as_ref()),
            Self::PortTaken { container, because, .. } => ("port-taken", container.to_string(), because.clone()),
            Self::Started { container, handle, .. } => (
                "started",
                container.to_string(),
                handle.pid.map_or_else(|| "runs".into(), |pid| format!("runs as process {pid}")),
            ),
            Self::Exited { container, exit, .. } => ("exited", container.to_string(), exit.to_string()),
            Self::Removed { container } => ("removed", container.to_string(), "its files are gone".into()),
            Self::Probed { container, ok, detail, probe, .. } => {
                let kind = match (probe, ok) {
                    (ProbeKind::Ready, true) => "ready",
                    (ProbeKind::Ready, false) => "unready",
                    (ProbeKind::Live, true) => "alive",
                    (ProbeKind::Live, false) => "unwell",
                };
                (kind, container.to_string(), detail.clone())
            }
            Self::Noted { container, because, .. } => ("noted", container.to_string(), because.clone()),
            Self::DrainBegun { container, because } => ("drain-begun", container.to_string(), because.clone()),
            Self::Held { unit, because, .. } if because.is_empty() => {
                ("resumed", unit.to_string(), "what it waited for is there".into())
            }
            Self::Held { unit, because, .. } => ("held", unit.to_string(), because.clone()),
            Self::Froze { because: Some(because) } => ("frozen", "manager".into(), because.clone()),
            Self::Froze { because: None } => ("thawed", "manager".into(), "decisions go on".into()),
            Self::Fleet { event } => event.describe(),
        }
    }

    /// The event as users see it.
    pub fn view(&self, seq: Seq, at: WallTime) -> EventView {
        let (kind, object, reason) = self.describe();
        let detail = serde_json::to_value(self).unwrap_or(serde_json::Value::Null);
        EventView { seq: seq.0, at: at.to_string(), kind: kind.into(), object, reason, detail }
    }
}

/// How an operation of a worker is told of.
fn ended(
    done: &'static str,
    failed: &'static str,
    operation: OperationId,
    failure: Option<&Failure>,
) -> (&'static str, String, String) {
    let object = format!("operation {operation}");
    match failure {
        None => (done, object, "done".into()),
        Some(failure) => (failed, object, failure.message.clone()),
    }
}
