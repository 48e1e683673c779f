//! Units: the record of what is deployed, scaled and updated as one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::{ContainerId, Revision};
use crate::manifest;
use crate::spec::{Template, UnitSpec, VolumeKind};
use crate::why::WhyLog;

/// Templates that are kept for containers that still run them, and for looking back.
const REVISIONS_KEPT: usize = 10;

/// One Unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// What was applied last.
    pub spec: UnitSpec,
    /// Version of its template.
    pub revision: Revision,
    /// Identity of the template.
    pub digest: String,
    /// Templates by version: the current one, and older ones that containers still run.
    pub templates: BTreeMap<Revision, Template>,
    /// Containers wanted while it is not stopped.
    pub desired: u32,
    /// The count in the manifest that was applied last. Only a change of it changes `desired`.
    pub asked: u32,
    /// Stopped by command.
    #[serde(default)]
    pub stopped: bool,
    /// It goes when its last container has gone.
    #[serde(default)]
    pub removing: bool,
    /// Its containers.
    #[serde(default)]
    pub containers: BTreeSet<ContainerId>,
    /// Containers made so far: the next one's ordinal.
    #[serde(default)]
    pub made: u64,
    /// Why nothing is done about something that is wanted; empty when nothing stands in the way.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub held: String,
    /// The same without the numbers that change by themselves.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub held_cause: String,
    /// Decisions about it.
    #[serde(default)]
    pub why: WhyLog,
}

impl Unit {
    /// A Unit as it is applied for the first time.
    pub fn new(spec: UnitSpec) -> Self {
        let revision = Revision(1);
        let digest = digest(&spec.template);
        Self {
            revision,
            digest,
            templates: BTreeMap::from([(revision, spec.template.clone())]),
            desired: spec.replicas.initial,
            asked: spec.replicas.initial,
            stopped: false,
            removing: false,
            containers: BTreeSet::new(),
            made: 0,
            held: String::new(),
            held_cause: String::new(),
            why: WhyLog::default(),
            spec,
        }
    }

    /// Takes a newer specification. A changed template is a new revision; the count changes only when the manifest's
    /// own value does, so that a `scale` by hand is not undone.
    pub fn take(&mut self, spec: UnitSpec) {
        let digest = digest(&spec.template);
        if digest == self.digest {
            // What is not part of the digest (service ports, restart policy) takes effect without a replacement.
            self.templates.insert(self.revision, spec.template.clone());
        } else {
            self.revision = self.revision.next();
            self.digest = digest;
            self.templates.insert(self.revision, spec.template.clone());
        }
        if spec.replicas.initial != self.asked || self.removing {
            self.asked = spec.replicas.initial;
            self.desired = spec.replicas.initial;
        }
        self.desired = self.desired.clamp(spec.replicas.min, spec.replicas.max);
        if self.removing {
            // It is as new: whether its last container had gone already must make no difference.
            self.stopped = false;
            self.removing = false;
        }
        self.spec = spec;
    }

    /// Forgets templates that no container runs, beyond the last few.
    pub fn forget_templates(&mut self, in_use: &BTreeSet<Revision>) {
        let surplus = self.templates.len().saturating_sub(REVISIONS_KEPT);
        let old: Vec<Revision> = self
            .templates
            .keys()
            .filter(|revision| **revision != self.revision && !in_use.contains(revision))
            .take(surplus)
            .copied()
            .collect();
        for revision in old {
            self.templates.remove(&revision);
        }
    }

    /// Containers that shall exist now.
    pub fn goal(&self) -> u32 {
        if self.stopped || self.removing { 0 } else { self.desired }
    }

    /// The template of a revision; the current one where an older was dropped.
    pub fn template(&self, revision: Revision) -> &Template {
        self.templates.get(&revision).unwrap_or(&self.spec.template)
    }

    /// Whether an old container must be gone before its replacement can start, and what forces it.
    pub fn stop_first(&self) -> Option<&'static str> {
        let template = &self.spec.template;
        if template.volumes.values().any(|volume| volume.kind == VolumeKind::Exclusive) {
            Some("an exclusive volume has one holder at a time")
        } else if template.ports.iter().any(|port| port.fixed.is_some()) {
            Some("a fixed port has one holder at a time")
        } else {
            None
        }
    }

    /// Whether its containers hold exclusive volumes.
    pub fn has_slots(&self) -> bool {
        self.spec.template.volumes.values().any(|volume| volume.kind == VolumeKind::Exclusive)
    }

    /// Whether it has a service port.
    pub fn is_routed(&self) -> bool {
        self.spec.template.ports.iter().any(|port| port.service.is_some())
    }
}

/// The identity of what a container is made from: service ports and restart policy can change without a replacement,
/// so they are not part of it.
pub fn digest(template: &Template) -> String {
    let mut kept = template.clone();
    for port in &mut kept.ports {
        port.service = None;
        port.address = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    }
    kept.restart = crate::spec::Restart {
        base: std::time::Duration::ZERO,
        max: std::time::Duration::ZERO,
        reset: std::time::Duration::ZERO,
    };
    manifest::template_hash(&kept)
}
