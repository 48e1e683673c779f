//! Units: the record of what is deployed, scaled and updated as one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{ContainerId, Revision, UnitId};
use crate::manifest;
use crate::rollout::{RevisionRecord, Rollout, RolloutState, RolloutStep};
use crate::scaling::{Bounds, ScalingMemory};
use crate::spec::{Template, UnitSpec, VolumeKind};
use crate::time::{ManagerTime, WallTime};
use crate::why::WhyLog;

/// Pause before workers are started in the place of those that were taken: whoever took them needs the machine first.
const REFILL: Duration = Duration::from_millis(100);
/// Templates that are kept for containers that still run them, for going back, and for looking back.
pub(crate) const REVISIONS_KEPT: u32 = 10;

/// One Unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// What was applied last; after a way back with the template that it went back to.
    pub spec: UnitSpec,
    /// Version of its template: what containers are to be made from.
    pub revision: Revision,
    /// The highest version that was ever given.
    pub newest: Revision,
    /// The version that served last with nothing wrong: what a failed update goes back to.
    #[serde(default)]
    pub good: Option<Revision>,
    /// Identity of the template.
    pub digest: String,
    /// Templates by version: the current one, those that containers still run, and the last few.
    pub templates: BTreeMap<Revision, Template>,
    /// Its revisions, oldest first; as many as templates are kept.
    #[serde(default)]
    pub history: Vec<RevisionRecord>,
    /// The last change of its revision, if there was any.
    #[serde(default)]
    pub rollout: Option<Rollout>,
    /// What scaling remembers.
    #[serde(default)]
    pub scaling: ScalingMemory,
    /// Bounds of the count by the clock.
    #[serde(default)]
    pub bounds: Option<Bounds>,
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
    /// When a worker that waited for it was taken, and others after it: what takes its place is not started at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<ManagerTime>,
    /// Why no container of it can be kept waiting, as one of them found out; until something else is applied, it is switched,
    /// or a Manager starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
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
    pub fn new(spec: UnitSpec, at: WallTime, actor: &str) -> Self {
        let revision = Revision(1);
        let digest = digest(&spec.template);
        let first =
            RevisionRecord { revision, digest: digest.clone(), at, actor: actor.to_owned(), outcome: "serving".into() };
        Self {
            revision,
            newest: revision,
            good: None,
            digest,
            templates: BTreeMap::from([(revision, spec.template.clone())]),
            history: vec![first],
            rollout: None,
            scaling: ScalingMemory::default(),
            bounds: None,
            desired: spec.replicas.initial,
            asked: spec.replicas.initial,
            stopped: false,
            removing: false,
            containers: BTreeSet::new(),
            made: 0,
            taken: None,
            unfit: None,
            held: String::new(),
            held_cause: String::new(),
            why: WhyLog::default(),
            spec,
        }
    }

    /// Takes a newer specification. A changed template is a new revision and begins a rollout; the count changes only
    /// when the manifest's own value does, so that a `scale` by hand is not undone.
    pub fn take(&mut self, spec: UnitSpec, now: ManagerTime, at: WallTime, actor: &str) {
        let digest = digest(&spec.template);
        self.unfit = None;
        if digest == self.digest {
            // What is not part of the digest (service ports, restart policy, …) takes effect without a replacement.
            self.templates.insert(self.revision, spec.template.clone());
        } else {
            self.supersede(at);
            self.newest = self.newest.next();
            self.revision = self.newest;
            self.digest.clone_from(&digest);
            self.templates.insert(self.revision, spec.template.clone());
            let (revision, actor) = (self.revision, actor.to_owned());
            self.history.push(RevisionRecord { revision, digest, at, actor, outcome: "running".into() });
            let canary = if self.good.is_some() { spec.update.canary } else { 0 };
            self.rollout = Some(Rollout {
                from: self.good,
                to: self.revision,
                state: RolloutState::Running,
                back: false,
                reason: format!("applied by {}", self.history.last().map_or("", |record| &record.actor)),
                since: at,
                failed: false,
                made: self.made,
                proved: 0,
                deadline: Some(now + spec.update.progress + spec.update.monitor),
                canary,
                promote_at: None,
                canary_proved: false,
            });
        }
        if self.spec.replicas.scaling.as_ref().map(|scaling| &scaling.schedule)
            != spec.replicas.scaling.as_ref().map(|scaling| &scaling.schedule)
        {
            self.bounds = None;
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

    fn supersede(&mut self, at: WallTime) {
        let newer = self.newest.next();
        let Some(rollout) = &mut self.rollout else { return };
        if let Ok(next) = rollout.state.on(RolloutStep::Supersede, rollout.back) {
            rollout.state = next;
            rollout.since = at;
            let revision = rollout.to;
            self.note_outcome(revision, format!("superseded by revision {newer}"));
        }
    }

    /// Writes down what became of a revision.
    pub fn note_outcome(&mut self, revision: Revision, outcome: impl Into<String>) {
        if let Some(record) = self.history.iter_mut().rev().find(|record| record.revision == revision) {
            record.outcome = outcome.into();
        }
    }

    /// Makes an earlier revision the one that containers are to be made from.
    pub fn go_back(&mut self, to: Revision) {
        let Some(template) = self.templates.get(&to) else { return };
        self.revision = to;
        self.digest = digest(template);
        self.spec.template = template.clone();
    }

    /// The revision that a user's rollback without a number means: what the current one took over from, otherwise the
    /// last one before it that did not fail.
    pub fn previous(&self) -> Option<Revision> {
        if let Some(rollout) = self.rollout.as_ref().filter(|rollout| !rollout.back) {
            let from = rollout.from.filter(|from| self.templates.contains_key(from));
            // Not the number before: that one may have been left by a way back.
            if from.is_some() || rollout.state.is_open() {
                return from;
            }
        }
        let usable = |record: &&RevisionRecord| {
            record.revision != self.revision
                && !record.outcome.starts_with("failed")
                && !record.outcome.starts_with("superseded")
                && self.templates.contains_key(&record.revision)
        };
        self.history.iter().rev().filter(|record| record.revision < self.revision).find(usable).map(|r| r.revision)
    }

    /// Forgets templates that no container runs, beyond the last few.
    pub fn forget_templates(&mut self, in_use: &BTreeSet<Revision>) {
        let surplus = self.templates.len().saturating_sub(REVISIONS_KEPT as usize);
        let old: Vec<Revision> = self
            .templates
            .keys()
            .filter(|revision| {
                **revision != self.revision && Some(**revision) != self.good && !in_use.contains(revision)
            })
            .take(surplus)
            .copied()
            .collect();
        for revision in old {
            self.templates.remove(&revision);
            self.history.retain(|record| record.revision != revision);
        }
    }

    /// When workers may be started in the place of those that were taken.
    pub fn refill_at(&self) -> Option<ManagerTime> {
        self.taken.map(|taken| taken + REFILL)
    }

    /// Whether its containers run to completion.
    pub fn is_job(&self) -> bool {
        self.spec.template.restart.is_job()
    }

    /// Fewest and most containers that a policy may ask for now.
    pub fn limits(&self) -> (u32, u32) {
        let (min, max) = (self.spec.replicas.min, self.spec.replicas.max);
        self.bounds.map_or((min, max), |bounds| (bounds.min, bounds.max))
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
        } else if template.ports.iter().any(|port| port.fixed.is_some() && !port.inherit) {
            Some("a fixed port has one holder at a time")
        } else if template.restart.is_job() {
            Some("a job is run anew, not handed over")
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

/// The identity of what a container is made from: service ports, restart policy, and where an artifact or the files of a build
/// come from, as long as they are the same, can change without a replacement, so they are not part of it.
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
        when: crate::spec::RestartWhen::Always,
        retries: 0,
        deadline: None,
    };
    if let Some(image) = &mut kept.image {
        // Its name says what went into it.
        image.build = None;
    }
    if let Some(artifact) = &mut kept.artifact {
        artifact.source = crate::spec::ArtifactSource::Url(String::new());
    }
    manifest::template_hash(&kept)
}

/// The identity of what a container that waits was started from, without what it is told afterwards: workers of a Service
/// with the same one can take each other's place. One of an image is told nothing, so it waits for its own Unit and version.
pub fn pool(unit: &UnitId, revision: Revision, template: &Template) -> String {
    if template.image.is_some() {
        return format!("{unit} {revision}");
    }
    let mut kept = template.clone();
    kept.microservices.clear();
    kept.ports.clear();
    (kept.ready, kept.live) = (None, None);
    kept.stop = crate::spec::Stop { signal: 0, grace: std::time::Duration::ZERO };
    let hash = digest(&kept);
    // Volumes but binds are a Unit's own, and linked at the start.
    let own = template.volumes.values().any(|volume| volume.kind != VolumeKind::Bind);
    if own { format!("{hash} {}/{}", unit.map, unit.unit) } else { hash }
}
