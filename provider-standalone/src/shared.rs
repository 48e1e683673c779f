//! What the parts of one runtime share, and what happens to containers.
//!
//! [`Shared`] knows of each container only what it needs to probe it; everything else is asked of the keeper. A
//! container is entered when it is prepared or recovered, marked when it ended, and dropped when it is removed. Probes
//! run from its start to its end.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cocktail_core::contract::{Launch, LaunchProbe, Lease, ProbeKind, RuntimeEvent};
use cocktail_core::id::{ContainerId, Generation};
use cocktail_core::name::Name;
use cocktail_core::spec::{Check, Resources};
use cocktail_keeper::protocol::{Event, EventFrame, SetServices};
use cocktail_keeper::{KeeperHandle, KeeperOptions};
use cocktail_probe::Numbers;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::task::AbortHandle;

use crate::client::Link;
use crate::config::StandaloneConfig;
use crate::disk::Counts;
use crate::exec::exit;
use crate::forwarder::unit_of;
use crate::probe;
use crate::usage::Readings;
use crate::volumes::Volumes;
use crate::workers::Workers;

/// Events that wait for a slow reader; after more than that it is told to attach again.
const EVENTS: usize = 8 * 1024;
/// Commands of exec probes that run at once. The keeper bounds all sessions; some stay for people.
const EXEC_PROBES: usize = 32;

/// What does not change while a provider lives.
#[derive(Debug)]
pub(crate) struct Fixed {
    pub(crate) name: Name,
    pub(crate) config: StandaloneConfig,
    pub(crate) capacity: Resources,
    pub(crate) keeper: KeeperOptions,
    pub(crate) data_dir: PathBuf,
    pub(crate) volumes: Volumes,
    /// What every worker gets of this process' environment.
    pub(crate) passed: BTreeMap<String, String>,
    /// Whether limits of cpu and memory can be enforced.
    pub(crate) limits: bool,
    /// What the keeper runs at the end of a lease.
    pub(crate) guard: Vec<String>,
}

/// State of one provider.
pub(crate) struct Shared {
    pub(crate) fixed: Fixed,
    /// Who acts.
    pub(crate) lease: Mutex<Option<Lease>>,
    pub(crate) link: Mutex<Link>,
    /// Held while a first connection is made.
    pub(crate) connecting: tokio::sync::Mutex<()>,
    pub(crate) in_process: Mutex<Option<KeeperHandle>>,
    /// The last routing table, for a keeper that is started anew.
    pub(crate) table: Mutex<Option<SetServices>>,
    pub(crate) readings: Mutex<Readings>,
    /// What volumes hold. Held while it is counted.
    pub(crate) counts: Mutex<Counts>,
    pub(crate) exec_probes: Arc<Semaphore>,
    pub(crate) workers: Workers,
    containers: Mutex<BTreeMap<ContainerId, Watched>>,
    events: broadcast::Sender<RuntimeEvent>,
}

/// Says which one it is. What is on its way to the keeper may hold secrets.
impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Standalone");
        shown.field("name", &self.fixed.name).field("data_dir", &self.fixed.data_dir).finish_non_exhaustive()
    }
}

/// One container, as far as probing goes.
#[derive(Debug)]
struct Watched {
    generation: Generation,
    ended: bool,
    /// Its main process, once it was started.
    pid: u32,
    /// Ports whose listening socket it inherited.
    inherited: Vec<u16>,
    /// Whether it was ready once, for probes that wait for that.
    up: watch::Sender<bool>,
    /// Tasks of its probes; empty before the start.
    probes: Vec<AbortHandle>,
    /// What its readiness probe last found.
    reported: Numbers,
}

impl Watched {
    fn new(generation: Generation) -> Self {
        let (probes, inherited, reported) = (Vec::new(), Vec::new(), Numbers::new());
        Self { generation, ended: false, pid: 0, inherited, up: watch::Sender::new(false), probes, reported }
    }

    fn stop_probes(&mut self) {
        self.probes.drain(..).for_each(|probe| probe.abort());
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop_probes();
    }
}

/// A lock that no panic makes useless: what it guards is consistent after every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(fixed: Fixed) -> Self {
        Self {
            fixed,
            lease: Mutex::default(),
            link: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            in_process: Mutex::default(),
            table: Mutex::default(),
            readings: Mutex::default(),
            counts: Mutex::default(),
            exec_probes: Arc::new(Semaphore::new(EXEC_PROBES)),
            workers: Workers::default(),
            containers: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
        }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.events.subscribe()
    }

    /// Tells everybody who listens; nobody may.
    pub(crate) fn emit(&self, event: RuntimeEvent) {
        let _nobody_listens = self.events.send(event);
    }

    /// A start is intended. Probes of an older generation end.
    pub(crate) fn enter(&self, container: &ContainerId, generation: Generation) {
        let mut containers = lock(&self.containers);
        if containers.get(container).is_none_or(|watched| watched.generation < generation) {
            containers.insert(container.clone(), Watched::new(generation));
        }
    }

    /// A container runs: its probes begin, unless they run already or its end was heard of first.
    /// `fresh` says that it was started just now and may take its time to come up.
    pub(crate) fn started(self: &Arc<Self>, launch: &Launch, pid: u32, fresh: bool) {
        let inherited: Vec<u16> = launch.ports.iter().filter(|port| port.inherit).map(|port| port.port).collect();
        if launch.probes.is_empty() && inherited.is_empty() {
            return;
        }
        let mut containers = lock(&self.containers);
        let Some(watched) = containers.get_mut(&launch.container) else { return };
        if watched.generation != launch.generation || watched.ended || !watched.probes.is_empty() {
            return;
        }
        (watched.pid, watched.inherited) = (pid, inherited);
        // What must be alive must have come up first.
        let waits = fresh && launch.probes.iter().any(|probe| probe.kind == ProbeKind::Ready);
        // A worker may have said so before its start was answered.
        let up = watched.up.clone();
        if !waits {
            up.send_replace(true);
        }
        let probe = |probe: &LaunchProbe| {
            let target = probe::Target {
                shared: Arc::downgrade(self),
                container: launch.container.clone(),
                generation: launch.generation,
                pid,
                address: self.fixed.config.address,
                inherited: watched.inherited.clone(),
            };
            tokio::spawn(cocktail_probe::run(target, probe.clone(), up.clone())).abort_handle()
        };
        // What a worker says itself is not looked for.
        let looked_for = launch.probes.iter().filter(|probe| probe.check != Check::Worker);
        watched.probes = looked_for.map(probe).collect();
    }

    /// A worker says that it is ready: what must be alive is looked at from now on.
    pub(crate) fn came_up(&self, container: &ContainerId, generation: Generation) {
        if let Some(watched) = lock(&self.containers).get(container)
            && watched.generation == generation
        {
            watched.up.send_replace(true);
        }
    }

    /// A container ended, and with it its probes.
    pub(crate) fn ended(&self, container: &ContainerId, generation: Generation) {
        if let Some(watched) = lock(&self.containers).get_mut(container)
            && watched.generation == generation
        {
            watched.ended = true;
            watched.stop_probes();
            watched.reported.clear();
        }
    }

    /// Main processes of other running containers that accept from the same inherited socket.
    pub(crate) fn others_at(&self, container: &ContainerId, port: u16) -> Vec<u32> {
        let containers = lock(&self.containers);
        let others = containers.iter().filter(|(other, watched)| *other != container && !watched.ended);
        others.filter(|(_, watched)| watched.inherited.contains(&port)).map(|(_, watched)| watched.pid).collect()
    }

    /// A readiness probe found numbers, or none where there were some.
    pub(crate) fn report(&self, container: &ContainerId, generation: Generation, numbers: Numbers) {
        if let Some(watched) = lock(&self.containers).get_mut(container)
            && watched.generation == generation
            && !watched.ended
        {
            watched.reported = numbers;
        }
    }

    /// What containers last reported.
    pub(crate) fn reported(&self) -> BTreeMap<ContainerId, Numbers> {
        let containers = lock(&self.containers);
        let reporting = containers.iter().filter(|(_, watched)| !watched.reported.is_empty());
        let mut reported: BTreeMap<ContainerId, Numbers> =
            reporting.map(|(container, watched)| (container.clone(), watched.reported.clone())).collect();
        for (container, usage) in self.workers.usage() {
            let numbers = reported.entry(ContainerId::new(container)).or_default();
            numbers.extend(usage.custom);
            numbers.extend([("in_flight".into(), usage.in_flight as f64), ("queue".into(), usage.queue as f64)]);
        }
        reported
    }

    pub(crate) fn forget(&self, container: &ContainerId) {
        self.workers.forget(container);
        lock(&self.containers).remove(container);
    }

    /// Probes of everything end; for the end of the runtime.
    pub(crate) fn forget_all(&self) {
        self.workers.close(self);
        lock(&self.containers).clear();
    }

    /// Takes what the keeper tells.
    pub(crate) fn on_event(&self, frame: EventFrame) {
        match frame.event {
            Event::Exited { container, generation, exit: ended } => {
                let (container, generation) = (ContainerId::new(container), Generation(generation));
                self.ended(&container, generation);
                self.emit(RuntimeEvent::Exited { container, generation, exit: exit(ended.status) });
            }
            Event::BackendIdle { container, .. } => {
                self.emit(RuntimeEvent::Drained { container: ContainerId::new(container) });
            }
            Event::BackendRefused { service, container } => {
                tracing::debug!(service, container, "a container refused a connection");
            }
            Event::ClientWaiting { service } => {
                if let Some(unit) = unit_of(&service) {
                    self.emit(RuntimeEvent::Demand { unit });
                }
            }
            Event::LogDropped { container, bytes } => {
                tracing::warn!(container, bytes, "output of a container was dropped: it writes faster than the disk");
            }
            Event::LeaseExpired => self.emit(RuntimeEvent::Resync { why: "the keeper ended all workers".into() }),
            Event::Gap => self.emit(RuntimeEvent::Resync { why: "events of the keeper were lost".into() }),
            Event::Unknown => {}
        }
    }
}
