//! What was asked for: the model that a manifest decodes into.
//!
//! Start at [`ServiceSpec`]. These are plain values without behaviour of their own; they are made by
//! [`crate::manifest`], kept in [`crate::state::State`] and written to the journal. What exists (containers, servers)
//! has types of its own. Paths are absolute here: the decoder resolved them against the manifest's folder.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::quantity::{Bytes, CpuMillis};

/// A Service: the top group, with a quota and its application maps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// The Service's name.
    pub name: Name,
    /// Words of the user's own.
    #[serde(default)]
    pub labels: Labels,
    /// Limits that are checked at apply and when placing.
    #[serde(default)]
    pub quota: Quota,
    /// The application maps that this manifest owns. Maps of the Service that it does not name stay as they are.
    pub maps: BTreeMap<Name, MapSpec>,
}

/// Words of the user's own, by name. They are shown and decide nothing.
pub type Labels = BTreeMap<String, String>;

/// Limits of a Service over all its maps; `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Sum of reserved cpu.
    pub cpu: Option<CpuMillis>,
    /// Sum of reserved memory.
    pub memory: Option<Bytes>,
    /// Number of containers.
    pub containers: Option<u32>,
}

/// An ApplicationMap: one workload of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapSpec {
    /// Words of the user's own.
    #[serde(default)]
    pub labels: Labels,
    /// The Units by name.
    pub units: BTreeMap<Name, UnitSpec>,
}

/// A Unit: what is deployed, scaled and updated as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitSpec {
    /// Words of the user's own.
    #[serde(default)]
    pub labels: Labels,
    /// How many containers are wanted. Not part of the revision: changing it replaces nothing.
    pub replicas: Replicas,
    /// Everything that a container is made from. A change of it is a new revision.
    pub template: Template,
    /// How a new revision takes over.
    pub update: Update,
    /// Where containers go. Not part of the revision: changing it moves nothing.
    #[serde(default)]
    pub place: Place,
    /// Containers that wait: workers with nothing loaded, paused containers of images. Not part of the revision.
    #[serde(default)]
    pub warm: Warm,
}

/// Containers that wait, for instant use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warm {
    /// How many, beside the containers that serve.
    pub count: u32,
    /// Longest time that one waits before a new one takes its place.
    pub age: Duration,
    /// Assignments after which a worker ends when it leaves instead of waiting again; 0 is no limit.
    pub uses: u32,
}

impl Default for Warm {
    fn default() -> Self {
        Self { count: 0, age: Duration::from_secs(3_600), uses: 0 }
    }
}

/// Where the containers of a Unit go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Far from each other, or close together.
    pub order: PlaceOrder,
    /// Zones that are allowed; all where none is named.
    pub zones: Vec<String>,
    /// Offerings that are allowed; all where none is named.
    pub offerings: Vec<String>,
    /// Units of the same map that must have a container on the same server.
    pub near: Vec<Name>,
    /// Units of the same map that must have none there; its own name makes it one container per server. Holds both
    /// ways.
    pub apart: Vec<Name>,
    /// Who is placed first where there is not room for all: the higher number.
    pub priority: i32,
    /// What becomes of containers whose server falls silent.
    #[serde(default)]
    pub partition: Partition,
}

/// What becomes of a container whose server falls silent. It may be dead, cut off or paused; its containers may run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Partition {
    /// It ends with its server's lease, and another one takes its place when that is surely over.
    #[default]
    Replace,
    /// It runs on, reached by nobody through us, until its server is back. None takes its place.
    Wait,
    /// It ends with its server's lease. None takes its place: it is started again when the server is back.
    Stop,
}

/// What a server is chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlaceOrder {
    /// Fewest containers of the Unit in the domain, then most room.
    Spread(Domain),
    /// Most containers of the Unit in the domain, then least room that is enough.
    Pack(Domain),
}

impl Default for PlaceOrder {
    fn default() -> Self {
        Self::Spread(Domain::Server)
    }
}

/// What containers share or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Domain {
    /// One server.
    Server,
    /// All servers of a zone.
    Zone,
}

/// The count that the manifest asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicas {
    /// Fewest containers that a command or a policy may ask for.
    pub min: u32,
    /// Most containers that a command or a policy may ask for.
    pub max: u32,
    /// What the manifest says at the start: `replicas`, or `scale.min`.
    pub initial: u32,
    /// What changes the count by itself, if anything does.
    #[serde(default)]
    pub scaling: Option<Scaling>,
}

/// How the count follows the load and the clock.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// What one container shall have of each metric: `cpu` and `memory` as a share of what is reserved (of one core where
    /// no cpu is), `in_flight`, `rps`, `queue`, or a metric of the worker's own.
    pub targets: BTreeMap<String, f64>,
    /// Damping of more.
    pub up: Damping,
    /// Damping of fewer.
    pub down: Damping,
    /// Bounds by the clock; the entry that began last is in force.
    pub schedule: Vec<Scheduled>,
    /// Where the workers' own metrics are, in the text format of Prometheus.
    pub scrape: Option<Scrape>,
}

impl Eq for Scaling {}

/// What keeps the count from following every whim of a metric.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damping {
    /// Time for which the metrics must have asked for it.
    pub stabilize: Duration,
    /// Most containers of one change; 0 is no limit.
    pub step: u32,
    /// Least time since the last change.
    pub cooldown: Duration,
}

/// Bounds that are in force from a time on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    /// When it begins: minute, hour, day of the month, month, day of the week, and optionally a time zone; UTC without.
    pub cron: String,
    /// Fewest containers from then on.
    pub min: u32,
    /// Most containers from then on.
    pub max: u32,
}

/// Where a worker's own metrics are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrape {
    /// Path and query.
    pub path: String,
    /// Port by name; the first one when `None`.
    pub port: Option<Name>,
}

/// What a container is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// The program and its arguments, before substitution of `${PORT}` and the like.
    pub command: Vec<String>,
    /// The image that it is run from, on servers that run images. The command then replaces that of the image; it is empty
    /// where the image's own is to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// Providers by name, in order of preference; empty means the Manager's default.
    pub providers: Vec<Name>,
    /// Working directory; that of the image where it is empty.
    pub cwd: PathBuf,
    /// User to run as; the Manager's own when `None`.
    pub user: Option<String>,
    /// Environment, before substitution.
    pub env: BTreeMap<String, String>,
    /// Names that are taken from the Manager's environment at start.
    pub env_from: Vec<String>,
    /// Environment variables whose values are resolved at start and never stored.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Ports by name. The order is the order of the manifest: the first one is `PORT`.
    pub ports: Vec<PortSpec>,
    /// What is reserved when placing, and enforced where the system can.
    pub resources: Resources,
    /// When a container may take traffic.
    pub ready: Option<Probe>,
    /// When a container must be replaced.
    pub live: Option<Probe>,
    /// How a container is asked to end.
    pub stop: Stop,
    /// What happens after an exit.
    pub restart: Restart,
    /// Volumes by name.
    pub volumes: BTreeMap<Name, VolumeSpec>,
    /// Resource limits of the process (`nofile`, `core`, …), value by name.
    pub rlimits: BTreeMap<String, u64>,
    /// What the program is told to load, in this order, if it is a worker; empty for one that knows nothing of us.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub microservices: Vec<MicroserviceSpec>,
    /// Where a server that is not the Manager's own gets the files of the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
}

impl Template {
    /// What keeps a container that waits from becoming one of this: it has to be there at its start, or nobody else may have
    /// it meanwhile.
    pub fn untold(&self) -> Option<Untold<'_>> {
        if self.microservices.is_empty() && self.image.is_none() {
            return Some(Untold::Program);
        }
        if self.image.is_some() && self.restart.is_job() {
            return Some(Untold::Job);
        }
        if self.image.is_some()
            && let Some(port) = self.ports.iter().find(|port| port.fixed.is_some())
        {
            return Some(Untold::Fixed(&port.name));
        }
        if let Some(port) = self.ports.iter().find(|port| port.inherit) {
            return Some(Untold::Socket(&port.name));
        }
        if let Some((name, _)) = self.volumes.iter().find(|(_, volume)| volume.kind == VolumeKind::Exclusive) {
            return Some(Untold::Volume(name));
        }
        if self.image.is_some() {
            return None;
        }
        let says_itself = self.ready.as_ref().is_none_or(|probe| probe.check == Check::Worker) && self.live.is_none();
        (!says_itself).then_some(Untold::Probe)
    }

    /// Whether a container that waits can become one of this: a worker by being told what to load, one of an image by going
    /// on.
    pub fn can_wait(&self) -> bool {
        self.untold().is_none()
    }
}

/// What a container that waits cannot be given after its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untold<'a> {
    /// It loads nothing: it is no worker.
    Program,
    /// It begins its work at its start.
    Job,
    /// A port that one container has at a time.
    Fixed(&'a Name),
    /// A port whose socket it inherits.
    Socket(&'a Name),
    /// An exclusive volume.
    Volume(&'a Name),
    /// A probe that looks at it from outside.
    Probe,
}

/// An image, and how it is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Where it is: `registry/name:tag`, or `name@sha256:…`.
    pub reference: String,
    /// What replaces the entrypoint of the image, before substitution; the image's own when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Whether its files can only be read, but for volumes and folders for what passes; what the provider says when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// What the reference stood for when it was applied: `sha256:` and 64 hexadecimal digits. No manifest says it, the Manager
    /// asks. `None` where the reference says it itself, and where nobody could.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How it is made, where it is not only fetched. The reference is then given by the Manager, and says by a hash what went
    /// into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
}

/// How an image is made from files of the Manager's machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The folder with the files.
    pub context: PathBuf,
    /// The Dockerfile, relative to that.
    pub file: PathBuf,
    /// Build arguments. They are stored and shown.
    pub args: BTreeMap<String, String>,
    /// The stage that is built; the last one when `None`.
    pub target: Option<String>,
    /// What it is built for; what the engine is when `None`.
    pub platform: Option<String>,
    /// The table of the registry that it is pushed to. Without one, each server builds it for itself.
    pub registry: Option<Name>,
    /// What it is called in that registry; service, map and Unit when `None`.
    pub name: Option<String>,
}

/// What the references of images begin with that a server has built for itself. No registry is ever asked for those.
pub const BUILT_HERE: &str = "localhost/cocktail/";

impl Image {
    /// Whether the reference itself says which bytes it means.
    pub fn is_exact(&self) -> bool {
        self.reference.contains('@') || self.build.is_some() && self.reference.starts_with(BUILT_HERE)
    }

    /// What a server is asked for: the bytes that the reference stood for when it was applied, where that is known.
    pub fn exact(&self) -> String {
        match &self.digest {
            Some(digest) if !self.reference.contains('@') => format!("{}@{digest}", without_tag(&self.reference)),
            _ => self.reference.clone(),
        }
    }

    /// What is known of the bytes, for people.
    pub fn said(&self) -> String {
        match &self.digest {
            _ if self.is_exact() => self.reference.clone(),
            Some(digest) => format!("{} is {digest}", self.reference),
            None => format!("{} is not pinned: no registry says what it is", self.reference),
        }
    }
}

/// A reference of an image without its tag and digest.
pub fn without_tag(reference: &str) -> &str {
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    // A colon before the last slash is that of a port.
    let path = name.rfind('/').map_or(0, |slash| slash + 1);
    name[path..].find(':').map_or(name, |colon| &name[..path + colon])
}

/// A microservice that a worker loads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MicroserviceSpec {
    /// As the worker registered it.
    pub name: Name,
    /// What it is told, as JSON.
    pub config: String,
}

/// The files of a command, for a server that is not the Manager's own: an archive that is unpacked there and becomes the
/// working directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Where it comes from.
    pub source: ArtifactSource,
    /// SHA-256 of the archive in 64 hexadecimal digits, in lower case. Nothing is unpacked that has another.
    pub sha256: String,
}

/// Where an [`Artifact`] comes from. It is stored and shown, so it holds nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArtifactSource {
    /// A file of the Manager's machine.
    File(PathBuf),
    /// An `http` or `https` URL that the server itself fetches.
    Url(String),
}

/// Where a secret's value comes from. The value itself is never part of a spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretSource {
    /// The content of a file, without its last line break.
    File(PathBuf),
    /// A variable of the Manager's environment.
    Env(String),
}

/// One named port of a Unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// Its name: `PORT_<NAME>` in substitutions, `COCKTAIL_PORT_<NAME>` in the environment.
    pub name: Name,
    /// The Unit's stable port on the Manager's host, forwarded to the ready containers.
    pub service: Option<u16>,
    /// A port number that every container must have, instead of a leased one.
    pub fixed: Option<u16>,
    /// Whether the worker gets the listening socket itself (`LISTEN_FDS`).
    pub inherit: bool,
    /// Address that the service port listens on.
    pub address: std::net::IpAddr,
    /// The number that the program of an image listens on inside its container; the leased one when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<u16>,
}

/// What one container reserves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Processor time.
    pub cpu: CpuMillis,
    /// Memory.
    pub memory: Bytes,
}

/// A check of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is done.
    pub check: Check,
    /// Pause between two checks.
    pub every: Duration,
    /// Longest that one check may take.
    pub timeout: Duration,
    /// Consecutive failures that turn the result to bad.
    pub failures: u32,
}

/// The kind of a [`Probe`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// A connection to the first port (or the named one) succeeds.
    Tcp {
        /// Port by name; the first one when `None`.
        port: Option<Name>,
    },
    /// `GET path` answers 200 to 399.
    Http {
        /// Path and query.
        path: String,
        /// Port by name; the first one when `None`.
        port: Option<Name>,
    },
    /// A command inside the container ends with 0.
    Exec {
        /// The program and its arguments, before substitution.
        command: Vec<String>,
    },
    /// The worker says so itself.
    Worker,
}

/// How a container is ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Signal number that asks it to end.
    pub signal: i32,
    /// Time until everything of it is killed.
    pub grace: Duration,
}

/// Restart policy after an exit that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// First back-off; doubled at each further exit.
    pub base: Duration,
    /// Longest back-off.
    pub max: Duration,
    /// Time of staying up after which the back-off starts anew.
    pub reset: Duration,
    /// After which exits it starts again. All but `Always` make the Unit a job.
    #[serde(default)]
    pub when: RestartWhen,
    /// Further attempts of a job's container after its first one failed.
    #[serde(default)]
    pub retries: u32,
    /// Longest time for a job's container, all attempts together.
    #[serde(default)]
    pub deadline: Option<Duration>,
}

impl Restart {
    /// Whether its containers run to completion.
    pub const fn is_job(&self) -> bool {
        !matches!(self.when, RestartWhen::Always)
    }
}

/// After which exits a container starts again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestartWhen {
    /// After each.
    #[default]
    Always,
    /// After a failed one, up to the limit of retries.
    Failure,
    /// After none.
    Never,
}

/// How a changed template takes over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Containers that may exist above the desired count while replacing.
    pub surge: u32,
    /// Time that a replacement must stay ready before the next step.
    pub monitor: Duration,
    /// Time within which a container must become ready.
    pub progress: Duration,
    /// What a failed update leads to.
    pub on_failure: OnFailure,
    /// What happens where there is no room for the replacement.
    pub no_room: NoRoom,
    /// Containers that are replaced first; the others wait until they are promoted. 0 is no canary.
    #[serde(default)]
    pub canary: u32,
    /// Time after which a canary that is well is promoted by itself; by hand only when `None`.
    #[serde(default)]
    pub promote: Option<Duration>,
}

/// Reaction to a failed update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Go back to the last good revision, once.
    Rollback,
    /// Stay, and ask.
    Pause,
}

/// Reaction to missing room for a replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoRoom {
    /// Wait until the progress deadline.
    Wait,
    /// Stop the old one first: the declared exception to law 1.
    Replace,
}

/// A volume of a Unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Name of the link in the working directory.
    pub mount: PathBuf,
    /// Who shares it.
    pub kind: VolumeKind,
    /// Expected size.
    pub size: Option<Bytes>,
    /// The source of a bind.
    pub source: Option<PathBuf>,
}

/// Who shares a volume, and how long it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeKind {
    /// One container at a time; the data follows its replacement.
    Exclusive,
    /// All containers of the Unit.
    Shared,
    /// One container; it goes with it.
    Ephemeral,
    /// A folder of the host.
    Bind,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_asked_for_by_what_its_tag_stood_for() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        let exact = |reference: &str, digest: Option<&String>| {
            Image {
                reference: reference.into(),
                entrypoint: None,
                read_only: None,
                digest: digest.cloned(),
                build: None,
            }
            .exact()
        };
        assert_eq!(exact("web", None), "web");
        for (reference, name) in [("web", "web"), ("a:5000/b/c:1.4", "a:5000/b/c"), ("a:5000/b", "a:5000/b")] {
            assert_eq!(exact(reference, Some(&digest)), format!("{name}@{digest}"));
        }
        let written = format!("web:1@{digest}");
        assert_eq!(exact(&written, Some(&"sha256:00".into())), written);
    }
}
