//! [`Runtime`] on the keeper.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cocktail_core::contract::{
    EndpointSource, ExecSession, ExecSpec, Exit, Handle, Hold, Known, Launch, Listing, LogOptions, LogStream,
    Observation, Runtime, RuntimeCapabilities, RuntimeEvent, Sighting, StopOrder, UnloadOrder, UsageReading,
    VolumeFound,
};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::{ContainerId, Generation};
use cocktail_core::spec::Template;
use cocktail_keeper::protocol::{
    self, Adopt, AdoptContainer, AdoptOutcome, Adoption, ContainerInfo, ContainerState, Refusal, SetLease, Shutdown,
    StartOutcome, Started, StopPolicy,
};
use cocktail_keeper::{KeeperClient, KeeperError};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::broadcast::error::RecvError;

use crate::config::KeeperMode;
use crate::disk::Bounds;
use crate::error::{Call, of_keeper};
use crate::shared::{Shared, lock};
use crate::{check, exec, launch, logs};

/// Processes of this machine.
#[derive(Debug)]
pub(crate) struct StandaloneRuntime {
    shared: Arc<Shared>,
}

impl StandaloneRuntime {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    async fn attach(&self, client: &KeeperClient, known: &[Known]) -> Result<Listing> {
        let reads = |error| of_keeper(error, Call::Reads);
        let containers = known.iter().filter_map(|known| self.adoptable(known)).collect();
        let adoption = client.adopt(Adopt { containers }).await.map_err(reads)?;
        let listed = client.list().await.map_err(reads)?;
        let mut listing = observe(&listed);
        listing.descended = client.welcome().descended;
        for known in known {
            let (container, generation) = (&known.launch.container, known.launch.generation);
            let sighting = match listing.containers.get(container) {
                Some(seen) => seen.sighting.clone(),
                None => {
                    let sighting = unlisted(known, &adoption, listed.complete);
                    let seen = Observation { generation, sighting: sighting.clone() };
                    listing.containers.insert(container.clone(), seen);
                    sighting
                }
            };
            self.shared.enter(container, generation);
            let seen = listing.containers.get(container).is_some_and(|seen| seen.generation == generation);
            match sighting {
                Sighting::Running(handle) if seen => {
                    // It registered with an earlier Manager, or is about to. Without a session it serves on all the same.
                    if let Err(error) = self.shared.workers.expect(&self.shared, &known.launch) {
                        tracing::error!(%container, %error, "a worker cannot be heard");
                    }
                    self.shared.started(&known.launch, handle.pid.unwrap_or_default(), false);
                }
                // One that is absent has not ended: its start may be on its way at this moment.
                Sighting::Exited(_) if seen => self.shared.ended(container, generation),
                _ => {}
            }
        }
        Ok(listing)
    }

    /// What a keeper needs to take a worker over; `None` for one that was never seen.
    fn adoptable(&self, known: &Known) -> Option<AdoptContainer> {
        let handle = known.handle.as_ref()?;
        let launch = &known.launch;
        let fixed = &self.shared.fixed;
        // A secret that is missing now is missed by later commands beside the worker, not by the worker.
        let env = launch::environment(launch, &fixed.passed, &fixed.volumes).unwrap_or_else(|_| launch.env.clone());
        Some(AdoptContainer {
            container: launch.container.to_string(),
            generation: launch.generation.0,
            pid: handle.pid?,
            start_time: handle.start_time,
            boot_id: handle.boot_id.clone(),
            ports: launch::ports(&launch.ports, fixed),
            env,
            cwd: launch.cwd.clone(),
            user: launch.user.clone(),
            ..AdoptContainer::default()
        })
    }
}

#[async_trait]
impl Runtime for StandaloneRuntime {
    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities {
            outlives_manager: self.shared.fixed.config.keeper == KeeperMode::Process,
            tty: true,
            limits: self.shared.fixed.limits,
            inherit: true,
            images: false,
            builds: false,
        }
    }

    fn learn_endpoints_from(&self, source: Arc<dyn EndpointSource>) {
        self.shared.workers.learn_endpoints_from(&self.shared, source);
    }

    async fn prepare(&self, launch: &Launch) -> Result<()> {
        let client = self.shared.client().await?;
        self.shared.enter(&launch.container, launch.generation);
        client
            .prepare(launch::prepare(launch, &self.shared.fixed))
            .await
            .map_err(|error| of_keeper(error, Call::Acts))?;
        if launch.volumes.is_empty() {
            return Ok(());
        }
        let volumes = self.shared.fixed.volumes.clone();
        let launch = launch.clone();
        blocking(move || volumes.prepare(&launch)).await
    }

    async fn start(&self, launch: &Launch) -> Result<Handle> {
        let client = self.shared.client().await?;
        let mut request = if launch::reads_files(launch) {
            let (shared, launch) = (Arc::clone(&self.shared), launch.clone());
            blocking(move || launch::start(&launch, &shared.fixed)).await?
        } else {
            launch::start(launch, &self.shared.fixed)?
        };
        request.env.extend(self.shared.workers.expect(&self.shared, launch)?);
        match client.start(request).await.map_err(|error| of_keeper(error, Call::Acts))? {
            StartOutcome::Started(started) => {
                if let Some(note) = &started.cgroup_note {
                    tracing::debug!(container = %launch.container, note, "limits are not enforced");
                }
                self.shared.enter(&launch.container, launch.generation);
                self.shared.started(launch, started.pid, true);
                Ok(handle(started))
            }
            // Its end was told before anybody knew of its start, so it is told again.
            StartOutcome::Exited(ended) => {
                let (container, generation) = (launch.container.clone(), launch.generation);
                self.shared.ended(&container, generation);
                self.shared.emit(RuntimeEvent::Exited { container, generation, exit: exec::exit(ended.status) });
                Ok(Handle { boot_id: client.welcome().boot_id.clone(), ..Handle::default() })
            }
        }
    }

    async fn stop(&self, order: &StopOrder) -> Result<Exit> {
        let client = self.shared.client().await?;
        let grace_ms = u64::try_from(order.grace.as_millis()).unwrap_or(u64::MAX);
        let policy = StopPolicy { signal: order.signal, grace_ms };
        let stopped = client.stop(order.container.as_str(), order.generation.0, policy).await;
        let exit = match stopped {
            Ok(ended) => exec::exit(ended.status),
            // Nothing of that start is here, whoever ended it.
            Err(KeeperError::Refused(
                Refusal::NoSuchContainer { .. } | Refusal::NotRunning { .. } | Refusal::Generation { .. },
            )) => Exit::Unknown,
            Err(error) => return Err(of_keeper(error, Call::Acts)),
        };
        self.shared.ended(&order.container, order.generation);
        Ok(exit)
    }

    async fn assign(&self, launch: &Launch) -> Result<()> {
        self.shared.workers.assign(&self.shared, launch)
    }

    async fn unload(&self, order: &UnloadOrder) -> Result<()> {
        self.shared.workers.unload(order).await
    }

    async fn hold(&self, hold: &Hold) -> Result<()> {
        let client = self.shared.client().await?;
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let policy = StopPolicy { signal: SIGTERM, grace_ms: ms(hold.grace) };
        let keep = hold.keep.iter().map(ToString::to_string).collect();
        let guard = self.shared.fixed.guard.clone();
        if !guard.is_empty() && !client.welcome().guards {
            let message = "the keeper of this data dir is of an earlier version, which cannot guard what others run";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let lease = SetLease { ttl_ms: Some(ms(hold.span)), policy, keep, guard };
        client.set_lease(lease).await.map_err(|error| of_keeper(error, Call::Acts))
    }

    async fn held(&self) -> Result<Option<Hold>> {
        let client = self.shared.any_client().await?;
        let SetLease { ttl_ms, policy, keep, .. } =
            client.lease().await.map_err(|error| of_keeper(error, Call::Reads))?;
        Ok(ttl_ms.map(|left| Hold {
            span: Duration::from_millis(left),
            grace: Duration::from_millis(policy.grace_ms),
            keep: keep.into_iter().map(ContainerId::new).collect(),
        }))
    }

    async fn remove(&self, container: &ContainerId) -> Result<()> {
        let client = self.shared.client().await?;
        client.remove(container.as_str(), false).await.map_err(|error| of_keeper(error, Call::Acts))?;
        self.shared.forget(container);
        let (volumes, container) = (self.shared.fixed.volumes.clone(), container.clone());
        if !volumes.has(&container) {
            return Ok(());
        }
        blocking(move || volumes.remove(&container)).await
    }

    async fn release_ports(&self, ports: &[u16]) -> Result<()> {
        let client = self.shared.client().await?;
        client.release_ports(ports.to_vec()).await.map_err(|error| of_keeper(error, Call::Acts))
    }

    async fn list(&self) -> Result<Listing> {
        let client = self.shared.client().await?;
        client.list().await.map(|listing| observe(&listing)).map_err(|error| of_keeper(error, Call::Reads))
    }

    async fn recover(&self, known: &[Known]) -> Result<Listing> {
        let client = self.shared.any_client().await?;
        let attached = self.attach(&client, known).await;
        match &attached {
            Ok(_) => self.shared.adopted(&client),
            // The Manager asks no more by itself, and a lost connection asks when it is there again.
            Err(error) if !client.is_closed() => {
                let (shared, why) = (Arc::downgrade(&self.shared), error.chain());
                tokio::spawn(async move {
                    tokio::time::sleep(AGAIN).await;
                    if let Some(shared) = shared.upgrade().filter(|shared| !shared.is_closed()) {
                        shared.emit(RuntimeEvent::Resync { why });
                    }
                });
            }
            Err(_) => {}
        }
        attached
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        let receiver = self.shared.subscribe();
        stream::unfold(receiver, |mut receiver| async move {
            match receiver.recv().await {
                Ok(event) => Some((event, receiver)),
                Err(RecvError::Lagged(missed)) => {
                    Some((RuntimeEvent::Resync { why: format!("{missed} events were missed") }, receiver))
                }
                Err(RecvError::Closed) => None,
            }
        })
        .boxed()
    }

    async fn usage(&self) -> Result<BTreeMap<ContainerId, UsageReading>> {
        let client = self.shared.client().await?;
        let usage = client.usage().await.map_err(|error| of_keeper(error, Call::Reads))?;
        Ok(lock(&self.shared.readings).take(Instant::now(), usage))
    }

    async fn reported(&self) -> Result<BTreeMap<ContainerId, BTreeMap<String, f64>>> {
        Ok(self.shared.reported())
    }

    async fn volumes(&self) -> Result<Vec<VolumeFound>> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let counted = lock(&shared.counts).count(shared.fixed.volumes.root(), Bounds::default());
            counted.map_err(|error| Error::unavailable("the volumes of the data dir cannot be read").because(error))
        })
        .await
    }

    async fn logs(&self, container: &ContainerId, options: &LogOptions) -> Result<LogStream> {
        let client = self.shared.any_client().await?;
        let log = client.logs(logs::request(container, options)).await;
        Ok(logs::lines(container, log.map_err(|error| of_keeper(error, Call::Reads))?))
    }

    async fn exec(&self, container: &ContainerId, spec: &ExecSpec) -> Result<ExecSession> {
        let client = self.shared.client().await?;
        let session = client.exec(exec::request(container, spec)).await;
        Ok(exec::session(session.map_err(|error| of_keeper(error, Call::Acts))?, spec.timeout))
    }

    async fn check(&self, template: &Template) -> Result<Vec<(String, String)>> {
        let (template, volumes) = (template.clone(), self.shared.fixed.volumes.clone());
        blocking(move || Ok(check::template(&template, &volumes))).await
    }

    async fn shutdown(&self, stop: bool) -> Result<()> {
        let in_process = lock(&self.shared.in_process).take();
        let client = self.shared.close();
        self.shared.forget_all();
        let mut ended = Ok(());
        if stop && let Some(client) = client {
            let order = Shutdown { kill: true, ..Shutdown::default() };
            ended = match client.shutdown(order).await {
                // It may be gone before its answer has left.
                Ok(()) | Err(KeeperError::Disconnected) => Ok(()),
                Err(error) => Err(of_keeper(error, Call::Acts)),
            };
        }
        if let Some(keeper) = in_process {
            blocking(move || {
                keeper.shutdown();
                Ok(())
            })
            .await?;
        }
        ended
    }
}

/// Pause before the Manager is asked to attach again after that failed.
const AGAIN: Duration = Duration::from_millis(500);

/// What asks a worker to end when the lease is over.
const SIGTERM: i32 = 15;

/// What a keeper's listing says.
fn observe(listed: &protocol::Listing) -> Listing {
    let observation = |info: &ContainerInfo| {
        let sighting = match &info.state {
            ContainerState::Prepared => Sighting::Prepared,
            // Something of it is left; its end is told when nothing is.
            ContainerState::Running(started) | ContainerState::Ending(started) => {
                Sighting::Running(handle(started.clone()))
            }
            ContainerState::Exited(ended) => Sighting::Exited(exec::exit(ended.status)),
        };
        let observation = Observation { generation: Generation(info.generation), sighting };
        (ContainerId::new(info.container.clone()), observation)
    };
    let containers = listed.containers.iter().map(observation).collect();
    Listing { containers, complete: listed.complete, descended: false }
}

/// What is to be thought of a known container that the keeper does not list.
fn unlisted(known: &Known, adoption: &Adoption, complete: bool) -> Sighting {
    match (adoption.outcomes.get(known.launch.container.as_str()), &known.handle) {
        (Some(AdoptOutcome::Gone), _) => Sighting::Exited(Exit::Unknown),
        (Some(AdoptOutcome::Unknown | AdoptOutcome::Adopted), _) => Sighting::Unknown,
        (None, None) if complete => Sighting::Absent,
        (None, _) => Sighting::Unknown,
    }
}

fn handle(started: Started) -> Handle {
    Handle { pid: Some(started.pid), start_time: started.start_time, boot_id: started.boot_id, docker_id: None }
}

/// Work that may wait for a disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::new(ErrorKind::Unexpected, "work on files panicked").because(error))?
}
