//! Running containers on one server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::exit::Exit;
use super::launch::{Launch, ProbeKind};
use super::login::Login;
use super::manager::{EndpointStream, ExecSession, ExecSpec, LogOptions, LogStream};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ContainerId, Generation, UnitId};
use crate::name::Name;
use crate::spec::Build;

/// Who knows which containers serve.
pub trait EndpointSource: fmt::Debug + Send + Sync {
    /// As [`Manager::watch_endpoints`](super::Manager::watch_endpoints).
    fn watch(&self, unit: Option<&str>) -> EndpointStream;
}

/// Runs containers on one server.
///
/// Every method may be repeated: a container and its generation name one start, and the same start never makes two
/// processes. Calls run to completion; a caller that lost the answer repeats the call or asks [`Runtime::list`].
#[async_trait]
pub trait Runtime: fmt::Debug + Send + Sync {
    /// What this runtime can do.
    fn capabilities(&self) -> RuntimeCapabilities;

    /// Has what a start comes from on this server, so that no order has to wait for it: an image is fetched. Repeating it
    /// costs little. A runtime that fetches nothing has nothing to do.
    ///
    /// # Errors
    /// As [`Runtime::prepare`] for an image.
    async fn fetch(&self, launch: &Launch) -> Result<()> {
        let _ = launch;
        Ok(())
    }

    /// What the registry of an image is shown from now on when a Service wants something of it; nothing where there is no
    /// login. Kept in memory and nowhere else, by a runtime that is not on the Manager's host.
    fn lend(&self, reference: &str, service: &Name, login: Option<Login>) {
        let _ = (reference, service, login);
    }

    /// Does everything but the start: folders, volumes, and proof that the ports are free, by binding them.
    ///
    /// Repeating it for the same generation succeeds. For a higher generation, what is left of the older one is
    /// ended first.
    ///
    /// A runtime of images fetches the image, and leaves the proof of the ports to its engine, which gives it at the start.
    ///
    /// # Errors
    /// `Conflict` with the context `port` when another program has a port; `InvalidConfig` for a missing user, folder,
    /// program or image; `Denied` for an image that is not given to us.
    async fn prepare(&self, launch: &Launch) -> Result<()>;

    /// Says that a start is not wanted any more: what [`Runtime::prepare`] waits for, as for an image that is being fetched,
    /// need not be waited for. It then fails with something transient.
    fn give_up(&self, _container: &ContainerId, _generation: Generation) {}

    /// Starts what was prepared. The same generation again answers with the same process.
    ///
    /// # Errors
    /// `InvalidConfig` when the program cannot be run; `OutcomeUnknown` when the answer was lost.
    async fn start(&self, launch: &Launch) -> Result<Handle>;

    /// Where what runs here may learn which containers serve. Called once, before anything else.
    fn learn_endpoints_from(&self, source: Arc<dyn EndpointSource>) {
        // A runtime that has nobody to tell it.
        drop(source);
    }

    /// Asks a container to end, and ends it by force after the grace; returns when nothing of it is left.
    /// A container that is gone already is success.
    async fn stop(&self, order: &StopOrder) -> Result<Exit>;

    /// Tells a worker that waits what to load: the assignment of `launch`. Returns when the worker is sure to be told; what
    /// it makes of it is told as [`WorkerSaid`]. The same assignment again changes nothing.
    ///
    /// A container of an image that was [paused](Launch::paused) goes on, and its probes begin.
    ///
    /// # Errors
    /// `NotFound` for a container that does not run; `Unsupported` by a runtime that has no sessions with workers and pauses
    /// nothing.
    async fn assign(&self, launch: &Launch) -> Result<()> {
        Err(no_sessions(&launch.container))
    }

    /// Has a worker refuse what is new, finish what is in flight and close what it has loaded; returns when nothing of the
    /// assignment is left. The same order again, also after it was carried out, changes nothing.
    ///
    /// # Errors
    /// `Deadline` when it has not done so within the grace and a little more; `NotFound` for a worker that does not run;
    /// `Unsupported` by a runtime that has no sessions with workers. What becomes of the worker then is the caller's to say.
    async fn unload(&self, order: &UnloadOrder) -> Result<()> {
        Err(no_sessions(&order.container))
    }

    /// Lets everything run for so long, and renews that each time; then all but what is to be kept ends, also when nobody
    /// is there any more to say so. For whoever runs containers in the name of somebody who may become unreachable.
    ///
    /// # Errors
    /// `Unsupported` by a runtime whose containers end with whoever drives it, or never.
    async fn hold(&self, hold: &Hold) -> Result<()> {
        let _ = hold;
        Err(Error::new(ErrorKind::Unsupported, "this runtime holds nothing by a lease"))
    }

    /// What is left of the time that [`Runtime::hold`] gave last, zero when it is over; `None` when nothing was given.
    async fn held(&self) -> Result<Option<Hold>> {
        Ok(None)
    }

    /// Forgets a container that has ended, with its files. A missing one is success.
    async fn remove(&self, container: &ContainerId) -> Result<()>;

    /// Ports whose hold-down is over: other Managers on this host may have them.
    async fn release_ports(&self, ports: &[u16]) -> Result<()>;

    /// Everything that runs here for this store.
    async fn list(&self) -> Result<Listing>;

    /// Attaches to what runs already, without touching a worker, and starts to watch and probe it.
    ///
    /// Says for each known container whether it is present, absent or unknown, and reports starts whose answer was
    /// lost. Called once after a Manager's start and again when [`RuntimeEvent::Resync`] asks for it.
    async fn recover(&self, known: &[Known]) -> Result<Listing>;

    /// What happens to containers. One stream per call; a lagging reader gets [`RuntimeEvent::Resync`].
    fn events(&self) -> BoxStream<'static, RuntimeEvent>;

    /// Cpu and memory of every container.
    async fn usage(&self) -> Result<BTreeMap<ContainerId, UsageReading>>;

    /// Numbers that readiness probes found in JSON answers, by container and key.
    async fn reported(&self) -> Result<BTreeMap<ContainerId, BTreeMap<String, f64>>> {
        Ok(BTreeMap::new())
    }

    /// Volumes of this store on this server with what they hold, also those that nobody uses any more.
    async fn volumes(&self) -> Result<Vec<VolumeFound>> {
        Ok(Vec::new())
    }

    /// Output of a container, oldest first.
    async fn logs(&self, container: &ContainerId, options: &LogOptions) -> Result<LogStream>;

    /// Runs a command beside a container: its environment, folder and user.
    async fn exec(&self, container: &ContainerId, spec: &ExecSpec) -> Result<ExecSession>;

    /// What the reference of an image stands for now, for a Service. The registry says it; where that gives no answer, what
    /// is here under that name counts. Changes nothing.
    ///
    /// # Errors
    /// As [`Runtime::prepare`] for an image that is not here: `InvalidConfig` where there is none, `Denied` where it is not
    /// given to us, `Unavailable` and `Throttled` by a registry that may say it later, and `Unavailable` with the context
    /// `engine` where it is the server that does not answer.
    async fn resolve(&self, reference: &str, service: &Name) -> Result<Resolved> {
        let _ = (reference, service);
        Ok(Resolved::default())
    }

    /// What an image is called that is built from files of the Manager's machine. Everything that goes into it is in the name:
    /// equal files and settings have equal names, on every server. Changes nothing.
    ///
    /// # Errors
    /// `InvalidConfig` for files that cannot be read, and for a registry that the Service may not use; `Unsupported` by a
    /// runtime that builds nothing.
    async fn name_build(&self, build: &Build, unit: &UnitId) -> Result<String> {
        let _ = build;
        Err(builds_nothing(unit))
    }

    /// Builds the image that [`Runtime::name_build`] gave this name, and pushes it where it has a registry. What is there
    /// already is not built again, so repeating it costs little. Tells the lines of the build while it runs.
    ///
    /// # Errors
    /// `InvalidConfig` for what cannot be built, with its last lines as context `output`; `Conflict` when the files are not
    /// those of the name any more; `Denied` and `Unavailable` by a registry, `Unavailable` by a server; `Unsupported` as above.
    async fn build(&self, build: &Build, unit: &UnitId, reference: &str, output: &BuildOutput) -> Result<Built> {
        let _ = (build, reference, output);
        Err(builds_nothing(unit))
    }

    /// Removes images that were built or fetched for this store, whose references are not among the needed ones, a few at most;
    /// the references that are gone. What somebody else made, named or uses stays. Repeating it removes the next ones, until
    /// none is left. Nothing is built meanwhile for this store: whoever calls it sees to that.
    ///
    /// # Errors
    /// `Unavailable` by a server that does not answer.
    async fn prune_images(&self, needed: &BTreeSet<String>) -> Result<Vec<String>> {
        let _ = needed;
        Ok(Vec::new())
    }

    /// Checks what only this machine can say about a template: whether the program, folder and user exist.
    /// Returns the manifest key below the unit and a sentence for each problem.
    async fn check(&self, template: &crate::spec::Template) -> Result<Vec<(String, String)>>;

    /// Ends the runtime. With `stop`, everything that it runs is ended first and nothing is left behind; without, it
    /// runs on for the next Manager.
    async fn shutdown(&self, stop: bool) -> Result<()>;
}

/// What a runtime can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeCapabilities {
    /// Containers outlive the Manager.
    pub outlives_manager: bool,
    /// Exec with a terminal.
    pub tty: bool,
    /// Limits of cpu and memory are enforced.
    pub limits: bool,
    /// Listening sockets are handed to workers.
    pub inherit: bool,
    /// It runs images, and nothing else.
    #[serde(default)]
    pub images: bool,
    /// It builds images.
    #[serde(default)]
    pub builds: bool,
}

/// What the reference of an image stands for, see [`Runtime::resolve`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The digest of its manifest, `sha256:…`. `None` for an image that is here and that no registry ever had, and from a
    /// runtime that cannot tell.
    pub digest: Option<String>,
    /// Why it was not the registry that said so.
    pub doubt: Option<String>,
}

/// Takes the lines of a build.
pub type BuildOutput = dyn Fn(&str) + Send + Sync;

/// An image that was built, or was there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Built {
    /// The digest that its registry says; `None` for one that is only on the server.
    pub digest: Option<String>,
}

fn builds_nothing(unit: &UnitId) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the servers of {unit} build no images"))
}

fn no_sessions(container: &ContainerId) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the server of {container} has no sessions with workers"))
}

/// A volume as a runtime found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFound {
    /// Path below the data dir's volumes, as in [`LaunchVolume::path`](super::LaunchVolume::path).
    pub path: PathBuf,
    /// Where it is.
    pub location: PathBuf,
    /// What it holds, where that is known.
    pub used_bytes: Option<u64>,
}

/// How to find a started container again, also after the Manager or the keeper died.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// Process id, for runtimes with processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Start time of the process in clock ticks since boot.
    #[serde(default)]
    pub start_time: u64,
    /// The boot that pid and start time belong to.
    #[serde(default)]
    pub boot_id: String,
    /// Container id, for Docker engines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_id: Option<String>,
}

/// Which container to end, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOrder {
    /// The container.
    pub container: ContainerId,
    /// Which start of it.
    pub generation: Generation,
    /// Signal that asks.
    pub signal: i32,
    /// Time until everything is killed; zero kills at once.
    pub grace: Duration,
}

/// How long containers may run without another word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// From now on, on a clock that counts the time in which the machine sleeps.
    pub span: Duration,
    /// What they get to end in then.
    pub grace: Duration,
    /// Containers that run on.
    pub keep: BTreeSet<ContainerId>,
}

/// Which assignment of a worker is to be closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnloadOrder {
    /// The container.
    pub container: ContainerId,
    /// Which start of it.
    pub generation: Generation,
    /// The number of the assignment.
    pub assignment: u64,
    /// Time that what is in flight gets to end in.
    pub grace: Duration,
}

/// What the Manager knows about a container when it asks a runtime to attach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The start that was last intended.
    pub launch: Launch,
    /// What was seen of it; `None` when the answer to the start was lost.
    pub handle: Option<Handle>,
}

/// Everything that a runtime runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Containers by id.
    pub containers: BTreeMap<ContainerId, Observation>,
    /// Whether what is not named here is absent. Nothing destructive follows from an incomplete listing.
    pub complete: bool,
    /// Whether it is proved that nothing here is newer than our store: the runtime carried out orders of an earlier
    /// lease that ours descends from, or a user told it to go on with ours. Not proved says nothing.
    #[serde(default)]
    pub descended: bool,
}

/// One container as a runtime sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Which start.
    pub generation: Generation,
    /// What was seen.
    pub sighting: Sighting,
}

/// Three-valued observation: present (running or ended), absent, unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sighting {
    /// Prepared, not started.
    Prepared,
    /// Running.
    Running(Handle),
    /// It ended.
    Exited(Exit),
    /// It was never here, or is gone without a trace.
    Absent,
    /// It cannot be said.
    Unknown,
}

/// What happens to containers without anybody asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeEvent {
    /// A container ended; nothing of it is left.
    Exited {
        /// The container.
        container: ContainerId,
        /// Which start.
        generation: Generation,
        /// How.
        exit: Exit,
    },
    /// A probe's result changed, or is known for the first time.
    Probe {
        /// The container.
        container: ContainerId,
        /// Which start.
        generation: Generation,
        /// Which probe.
        kind: ProbeKind,
        /// The new result.
        ok: bool,
        /// What was seen, for people.
        detail: String,
    },
    /// A container that was taken out of the routing table has no connection left.
    Drained {
        /// The container.
        container: ContainerId,
    },
    /// A worker said something about itself.
    Worker {
        /// The container.
        container: ContainerId,
        /// Which start.
        generation: Generation,
        /// What.
        said: WorkerSaid,
    },
    /// A client waits at a service port of a Unit that has no ready container.
    Demand {
        /// The Unit.
        unit: UnitId,
    },
    /// Events may have been missed: call [`Runtime::recover`].
    Resync {
        /// Why.
        why: String,
    },
}

/// What a worker says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerSaid {
    /// It is up with nothing loaded; of an image: it is paused.
    Waiting,
    /// It cannot be kept waiting where it is, and would not be when started again.
    Unfit {
        /// Why.
        error: String,
    },
    /// What it was told to load takes requests.
    Ready {
        /// The number of the assignment.
        assignment: u64,
    },
    /// What it was told to load cannot be loaded.
    Failed {
        /// The number of the assignment.
        assignment: u64,
        /// Why.
        error: String,
        /// The port that another program has, by name, if that was it.
        port_taken: Option<Name>,
    },
    /// It wants one more container of its Unit.
    Extend {
        /// Why.
        reason: String,
    },
    /// Something is wrong, and it serves.
    Degraded {
        /// What.
        error: String,
    },
    /// It cannot serve: another container takes its place.
    Broken {
        /// Why.
        error: String,
    },
}

/// One reading of a container's use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageReading {
    /// Cpu use since the last reading, in thousandths of a core.
    pub cpu_millis: u64,
    /// Resident memory.
    pub memory_bytes: u64,
}
