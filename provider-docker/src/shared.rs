//! What the parts of one engine's runtime share: which containers are known, who is told, and when an end was told.
//!
//! [`Shared`] holds of each container only what cannot be asked of the engine: that an end was told, and the tasks of its
//! probes. A container is entered when it is prepared or recovered, and dropped when it is removed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use cocktail_core::contract::{Exit, Handle, Launch, LaunchProbe, Lease, ProbeKind, RuntimeEvent};
use cocktail_core::error::{Error, Result};
use cocktail_core::id::{ContainerId, Generation, StoreId};
use cocktail_core::quantity::Bytes;
use cocktail_core::spec::{Check, VolumeKind};
use cocktail_probe::Numbers;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::Engine;
use crate::image::Images;
use crate::network::Networks;
use crate::pausing;
use crate::registry::Registries;
use crate::target::Target;
use crate::times;
use crate::usage::Readings;

/// Events that wait for a slow reader; after more than that it is told to attach again.
const EVENTS: usize = 8 * 1024;
/// Containers that are made or started at once on one engine: with more of them it is slower.
const MAKING: usize = 8;
/// Containers that are ended at once on one engine, and that are removed at once, for the same reason.
const ENDING: usize = 8;
/// Commands of exec probes that run at once on one engine.
const EXEC_PROBES: usize = 16;
/// A kill, as an engine tells it.
const KILLED: Exit = Exit::Code(128 + 9);

/// What does not change while a provider lives.
#[derive(Debug, Clone)]
pub(crate) struct Fixed {
    pub(crate) cluster: Option<String>,
    pub(crate) init: bool,
    pub(crate) read_only: bool,
    pub(crate) log_bytes: u64,
    pub(crate) log_files: u32,
    /// Where leased ports are published.
    pub(crate) publish: IpAddr,
    /// Where this host reaches them.
    pub(crate) address: IpAddr,
    /// Whether the engine has the disk that this process sees.
    pub(crate) local: bool,
    /// Folders below which the source of a bind may lead.
    pub(crate) binds: Vec<PathBuf>,
    /// Registries that want to know who asks.
    pub(crate) registries: Arc<Registries>,
    /// Most bytes of the files of a build.
    pub(crate) build_bytes: Bytes,
}

/// State of one engine's runtime.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) fixed: Fixed,
    pub(crate) engine: Engine,
    pub(crate) images: Images,
    pub(crate) networks: Networks,
    pub(crate) readings: Mutex<Readings>,
    pub(crate) exec_probes: Arc<Semaphore>,
    /// Containers that are made or started at once.
    pub(crate) making: Semaphore,
    /// Containers that are ended at once.
    pub(crate) ending: Semaphore,
    /// Containers that are removed at once: a disk that hangs keeps nothing from being ended.
    pub(crate) removing: Semaphore,
    /// Who acts.
    lease: Mutex<Option<Lease>>,
    containers: Mutex<BTreeMap<ContainerId, Entry>>,
    events: broadcast::Sender<RuntimeEvent>,
    watching: Mutex<Option<AbortHandle>>,
}

/// One start, as far as the engine does not say it.
#[derive(Debug)]
pub(crate) struct Entry {
    generation: Generation,
    /// The engine's id, once it is known.
    id: Option<String>,
    /// It was made by us, and nobody has tried to start it.
    fresh: bool,
    /// Nothing else of this container is in the engine, but for what an older start has left.
    alone: bool,
    /// It may have volumes that go with it.
    ephemeral: bool,
    /// What an older start has left, whose end was told.
    older: Option<String>,
    /// Held while it is made or started: each start has one object in the engine, which is started once.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// It is not wanted any more.
    given_up: CancellationToken,
    /// When its start was answered or it was found running.
    ran: Option<(Instant, Handle)>,
    /// How it ended, which was told.
    ended: Option<Exit>,
    /// Whether it was ready once, for probes that wait for that.
    up: watch::Sender<bool>,
    /// It is paused, or is going to be: its only probe is who sees to that.
    waits: bool,
    /// It was told to go on, and waits no more.
    went_on: bool,
    /// It may not use more memory than it was given.
    limited: bool,
    probes: Vec<AbortHandle>,
    reported: Numbers,
}

impl Entry {
    fn new(generation: Generation) -> Self {
        Self {
            generation,
            id: None,
            fresh: false,
            alone: false,
            ephemeral: true,
            older: None,
            turn: Arc::default(),
            given_up: CancellationToken::new(),
            ran: None,
            ended: None,
            up: watch::Sender::new(false),
            waits: false,
            went_on: false,
            limited: true,
            probes: Vec::new(),
            reported: Numbers::new(),
        }
    }

    /// Whether it is all that the engine has of its container.
    fn is_only(&self) -> bool {
        self.alone && self.older.is_none()
    }

    fn stop_probes(&mut self) {
        self.probes.drain(..).for_each(|probe| probe.abort());
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.stop_probes();
    }
}

/// A container that is known to run.
#[derive(Debug, Clone)]
pub(crate) struct Runs {
    pub(crate) container: ContainerId,
    pub(crate) generation: Generation,
    pub(crate) id: String,
    /// The main process, as the engine's machine numbers it.
    pub(crate) pid: Option<u32>,
    /// Since when that is known.
    pub(crate) since: Instant,
}

/// A lock that no panic makes useless: what it guards is consistent after every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pauses between attempts, without end, each longer than the one before up to a bound.
pub(crate) fn pauses() -> impl Iterator<Item = Duration> + Send {
    let (least, most) = times::AGAIN;
    ExponentialBuilder::default().with_min_delay(least).with_max_delay(most).with_jitter().without_max_times().build()
}

impl Shared {
    pub(crate) fn new(fixed: Fixed, engine: Engine) -> Self {
        Self {
            fixed,
            engine,
            images: Images::default(),
            networks: Networks::default(),
            readings: Mutex::default(),
            exec_probes: Arc::new(Semaphore::new(EXEC_PROBES)),
            making: Semaphore::new(MAKING),
            ending: Semaphore::new(ENDING),
            removing: Semaphore::new(ENDING),
            lease: Mutex::default(),
            containers: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
            watching: Mutex::default(),
        }
    }

    pub(crate) fn lead(&self, lease: &Lease) {
        *lock(&self.lease) = Some(lease.clone());
    }

    /// Whose containers these are.
    ///
    /// # Errors
    /// `Unavailable` before anybody leads.
    pub(crate) fn store(&self) -> Result<StoreId> {
        let lease = lock(&self.lease);
        let lease = lease.as_ref().ok_or_else(|| Error::unavailable("nobody leads this provider yet"))?;
        Ok(lease.store.clone())
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.events.subscribe()
    }

    /// Tells everybody who listens; nobody may.
    pub(crate) fn emit(&self, event: RuntimeEvent) {
        let _nobody_listens = self.events.send(event);
    }

    /// Watches the engine, if nobody does yet.
    pub(crate) fn watch(&self, begin: impl FnOnce() -> AbortHandle) {
        lock(&self.watching).get_or_insert_with(begin);
    }

    /// A start is intended. What an older generation had ends.
    ///
    /// # Errors
    /// `Conflict` where a newer one is known.
    pub(crate) fn enter(&self, container: &ContainerId, generation: Generation) -> Result<()> {
        let mut containers = lock(&self.containers);
        match containers.get(container) {
            Some(entry) if entry.generation > generation => {
                let message = format!("{container} is at generation {} already", entry.generation);
                Err(Error::new(cocktail_core::error::ErrorKind::Conflict, message))
            }
            Some(entry) if entry.generation == generation => Ok(()),
            older => {
                let left = older.filter(|entry| entry.is_only() && entry.ended.is_some()).and_then(|it| it.id.clone());
                let mut entry = Entry::new(generation);
                entry.older = left;
                containers.insert(container.clone(), entry);
                Ok(())
            }
        }
    }

    /// What is known of a start.
    fn with<T>(
        &self,
        container: &ContainerId,
        generation: Generation,
        work: impl FnOnce(&mut Entry) -> T,
    ) -> Option<T> {
        lock(&self.containers).get_mut(container).filter(|entry| entry.generation == generation).map(work)
    }

    /// The newest generation that was entered.
    pub(crate) fn generation(&self, container: &ContainerId) -> Option<Generation> {
        lock(&self.containers).get(container).map(|entry| entry.generation)
    }

    /// The engine's id of a start, if it is known.
    pub(crate) fn id(&self, container: &ContainerId, generation: Generation) -> Option<String> {
        self.with(container, generation, |entry| entry.id.clone()).flatten()
    }

    /// The engine's id of the newest start.
    pub(crate) fn newest_id(&self, container: &ContainerId) -> Option<String> {
        lock(&self.containers).get(container)?.id.clone()
    }

    /// A start was made just now, by us. `alone` says that nothing else of this start is in the engine.
    pub(crate) fn made_anew(&self, launch: &Launch, id: &str, alone: bool) {
        self.with(&launch.container, launch.generation, |entry| {
            entry.id = Some(id.to_owned());
            (entry.fresh, entry.alone) = (true, alone);
            entry.ephemeral = launch.volumes.iter().any(|volume| volume.kind == VolumeKind::Ephemeral);
        });
    }

    /// The engine's id of a start that nobody has tried yet; from now on somebody has.
    pub(crate) fn take_fresh(&self, container: &ContainerId, generation: Generation) -> Option<String> {
        self.with(container, generation, |entry| entry.id.clone().filter(|_| std::mem::take(&mut entry.fresh)))
            .flatten()
    }

    /// What the start before has left in the engine, where that is all that is there.
    pub(crate) fn older(&self, container: &ContainerId, generation: Generation) -> Option<String> {
        self.with(container, generation, |entry| entry.older.clone()).flatten()
    }

    /// Nothing older is in the engine any more.
    pub(crate) fn older_gone(&self, container: &ContainerId, generation: Generation) {
        self.with(container, generation, |entry| entry.older = None);
    }

    /// The only thing that the engine has of a container, if that is known, and whether volumes go with it.
    pub(crate) fn only(&self, container: &ContainerId) -> Option<(Generation, String, bool)> {
        let containers = lock(&self.containers);
        let entry = containers.get(container).filter(|entry| entry.is_only())?;
        Some((entry.generation, entry.id.clone()?, entry.ephemeral))
    }

    pub(crate) fn made(&self, container: &ContainerId, generation: Generation, id: Option<String>) {
        self.with(container, generation, |entry| {
            entry.id = id;
            entry.fresh = false;
        });
    }

    /// What is held while a container is made or started.
    pub(crate) fn turn(&self, container: &ContainerId, generation: Generation) -> Arc<tokio::sync::Mutex<()>> {
        self.with(container, generation, |entry| Arc::clone(&entry.turn)).unwrap_or_default()
    }

    /// What tells that a start is not wanted any more.
    pub(crate) fn given_up(&self, container: &ContainerId, generation: Generation) -> CancellationToken {
        self.with(container, generation, |entry| entry.given_up.clone()).unwrap_or_default()
    }

    /// A container runs: its probes begin, unless they run already or its end was heard of first.
    /// `fresh` says that it was started just now and may take its time to come up.
    pub(crate) fn started(self: &Arc<Self>, launch: &Launch, id: &str, handle: &Handle, fresh: bool) {
        let begin = |entry: &mut Entry| {
            entry.id = Some(id.to_owned());
            if entry.ended.is_some() {
                return;
            }
            entry.ran.get_or_insert_with(|| (Instant::now(), handle.clone()));
            entry.limited = launch.resources.memory.0 > 0;
            if launch.paused && entry.went_on {
                // It was still to wait when that was asked.
                return;
            }
            if launch.paused && !fresh {
                // Whoever asks anew is told anew.
                entry.stop_probes();
            }
            if !entry.probes.is_empty() {
                return;
            }
            entry.waits = launch.paused;
            if entry.waits {
                let waiting = pausing::wait(self.target(launch), launch.probes.clone(), id.to_owned());
                return entry.probes.push(tokio::spawn(waiting).abort_handle());
            }
            let waits = fresh && launch.probes.iter().any(|probe| probe.kind == ProbeKind::Ready);
            if !waits {
                entry.up.send_replace(true);
            }
            let probe = |probe: &LaunchProbe| {
                tokio::spawn(cocktail_probe::run(self.target(launch), probe.clone(), entry.up.clone())).abort_handle()
            };
            let looked_for = launch.probes.iter().filter(|probe| probe.check != Check::Worker);
            entry.probes = looked_for.map(probe).collect();
        };
        self.with(&launch.container, launch.generation, begin);
    }

    fn target(self: &Arc<Self>, launch: &Launch) -> Target {
        Target {
            shared: Arc::downgrade(self),
            container: launch.container.clone(),
            generation: launch.generation,
            address: self.fixed.address,
            waits: launch.paused,
        }
    }

    /// Whether a start is paused, or going to be.
    pub(crate) fn waits(&self, container: &ContainerId, generation: Generation) -> bool {
        self.with(container, generation, |entry| entry.waits && entry.ended.is_none()).unwrap_or(false)
    }

    /// A container that waits is to go on: nobody pauses it from now on. Whoever calls this holds its turn.
    pub(crate) fn goes_on(&self, container: &ContainerId, generation: Generation) {
        self.with(container, generation, |entry| {
            entry.went_on = true;
            if std::mem::take(&mut entry.waits) {
                entry.stop_probes();
            }
        });
    }

    /// Whether what an event says of an end is all that there is to know: which start it was, and that its memory, which is
    /// told with the same code as a kill, had nothing to do with it.
    pub(crate) fn is_plain_end(&self, container: &ContainerId, generation: Generation, id: &str, exit: Exit) -> bool {
        let plain = |entry: &mut Entry| {
            let runs = entry.ran.is_some() && entry.ended.is_none() && entry.id.as_deref() == Some(id);
            runs && (exit != KILLED || !entry.limited)
        };
        self.with(container, generation, plain).unwrap_or(false)
    }

    /// A container ended. Tells of it, once for each start.
    pub(crate) fn ended(&self, container: &ContainerId, generation: Generation, exit: Exit) {
        if self.end(container, generation, exit) {
            self.emit(RuntimeEvent::Exited { container: container.clone(), generation, exit });
        }
    }

    /// The same for one whose end is the answer to a call. Says whether that is news.
    pub(crate) fn end(&self, container: &ContainerId, generation: Generation, exit: Exit) -> bool {
        let ended = self.with(container, generation, |entry| {
            entry.stop_probes();
            entry.reported.clear();
            entry.ended.replace(exit).is_none()
        });
        ended.unwrap_or(false)
    }

    /// How a start ended, if that was told.
    pub(crate) fn told(&self, container: &ContainerId, generation: Generation) -> Option<Exit> {
        self.with(container, generation, |entry| entry.ended).flatten()
    }

    /// Containers that are known to run.
    pub(crate) fn running(&self) -> Vec<Runs> {
        let containers = lock(&self.containers);
        let runs = |(container, entry): (&ContainerId, &Entry)| {
            let (since, handle) = entry.ran.as_ref().filter(|_| entry.ended.is_none())?;
            let (container, generation) = (container.clone(), entry.generation);
            Some(Runs { container, generation, id: entry.id.clone()?, pid: handle.pid, since: *since })
        };
        containers.iter().filter_map(runs).collect()
    }

    /// A readiness probe found numbers, or none where there were some.
    pub(crate) fn report(&self, container: &ContainerId, generation: Generation, numbers: Numbers) {
        self.with(container, generation, |entry| {
            if entry.ended.is_none() {
                entry.reported = numbers;
            }
        });
    }

    /// What containers last reported.
    pub(crate) fn reported(&self) -> BTreeMap<ContainerId, Numbers> {
        let containers = lock(&self.containers);
        let reporting = containers.iter().filter(|(_, entry)| !entry.reported.is_empty());
        reporting.map(|(container, entry)| (container.clone(), entry.reported.clone())).collect()
    }

    pub(crate) fn forget(&self, container: &ContainerId) {
        lock(&self.containers).remove(container);
    }

    /// Ends probes and the watch, for the end of the runtime.
    pub(crate) fn close(&self) {
        if let Some(watching) = lock(&self.watching).take() {
            watching.abort();
        }
        lock(&self.containers).clear();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}
