//! [`Runtime`] on an engine.
//!
//! What is made has a name and labels that are derived from store, container and generation, so a call that is repeated
//! finds what its first attempt made. How a start is made is in `making`.

mod making;
mod seeing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cocktail_core::contract::{
    BuildOutput, Built, ExecSession, ExecSpec, Exit, Handle, Known, Launch, Listing, LogOptions, LogStream, Login,
    Resolved, Runtime, RuntimeCapabilities, RuntimeEvent, StopOrder, UsageReading, VolumeFound,
};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::{ContainerId, Generation, UnitId};
use cocktail_core::name::Name;
use cocktail_core::spec::{Build, Template};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use crate::client::{Condition, Ended};
use crate::shared::{Shared, pauses};
use crate::{body, build, check, exec, image, label, logs, prune, resolve, times, usage, volume, watch};

/// Containers that are ended at once when the runtime ends with everything.
const AT_ONCE: usize = 8;
/// What they get to end by themselves.
const GRACE: Duration = Duration::from_secs(10);

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// Containers of one engine.
#[derive(Debug)]
pub(crate) struct DockerRuntime {
    shared: Arc<Shared>,
}

impl DockerRuntime {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Ends a container of the engine; how it ended. One that is gone is success.
    /// `waits` says that it is paused, as far as is known.
    async fn end(&self, id: &str, signal: i32, grace: Duration, waits: bool) -> Result<Exit> {
        let engine = &self.shared.engine;
        let asked = if grace.is_zero() { SIGKILL } else { signal };
        // An engine takes one down faster when it is not told of a hundred others.
        let room = tokio::time::timeout(times::ROOM, self.shared.ending.acquire()).await;
        let told = Instant::now();
        let ran = engine.kill(id, asked).await?;
        // What is paused hears of it when it goes on.
        if ran && waits {
            engine.unpause(id).await?;
        }
        let short = if asked == SIGKILL { times::ENDING } else { times::ENDING.min(grace) };
        let mut ended = engine.ended(id, short).await?;
        drop(room);
        if ended == Ended::NotYet && ran && asked != SIGKILL {
            // Somebody may have paused it by hand.
            engine.unpause(id).await?;
            ended = engine.ended(id, grace.saturating_sub(told.elapsed())).await?;
        }
        let killed = ran && (asked == SIGKILL || (ended == Ended::NotYet && engine.kill(id, SIGKILL).await?));
        if ended == Ended::NotYet {
            ended = engine.ended(id, times::KILLED).await?;
        }
        match ended {
            Ended::NotYet => {
                let limit = cocktail_core::time::human(times::KILLED);
                return Err(Error::unavailable(format!("container {id} was killed and is not gone within {limit}")));
            }
            // It was us, whatever ended one of its children before; and no code but this one may be for its memory.
            Ended::Code(code) if ran && (killed || code != 128 + SIGKILL) => return Ok(Exit::Code(code)),
            Ended::Code(_) | Ended::Somehow => {}
        }
        match engine.inspect(id).await?.map(|seen| seen.condition) {
            Some(Condition::Exited(exit)) => Ok(exit),
            Some(Condition::Running(_)) => {
                Err(Error::unavailable(format!("container {id} runs although it was killed")))
            }
            Some(Condition::Created | Condition::Leaving) | None => Ok(Exit::Unknown),
        }
    }

    /// Whether somebody has started it again that ended, by hand.
    async fn runs_again(&self, container: &ContainerId, generation: Generation) -> Result<bool> {
        let Some(id) = self.shared.id(container, generation) else { return Ok(false) };
        let seen = self.shared.engine.inspect(&id).await?;
        Ok(seen.is_some_and(|seen| matches!(seen.condition, Condition::Running(_))))
    }

    /// Removes networks that the engine did not remove with their last container.
    fn sweep(&self) {
        let shared = Arc::downgrade(&self.shared);
        tokio::spawn(async move {
            let began = Instant::now();
            for pause in pauses().take_while(|_| began.elapsed() < times::LEFT) {
                tokio::time::sleep(pause).await;
                let Some(shared) = shared.upgrade() else { return };
                match shared.networks.sweep(&shared.engine).await {
                    Ok(false) => return,
                    Ok(true) => {}
                    Err(error) => tracing::debug!(error = error.chain(), "a network that nobody is on is still there"),
                }
            }
        });
    }

    /// The engine's id of the newest start of a container.
    async fn find(&self, container: &ContainerId) -> Result<String> {
        if let Some(id) = self.shared.newest_id(container) {
            return Ok(id);
        }
        let newest = self.starts(container).await?.into_iter().next();
        newest.map(|start| start.id).ok_or_else(|| Error::not_found(format!("the engine has no container {container}")))
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities {
            outlives_manager: true,
            tty: true,
            limits: true,
            inherit: false,
            images: true,
            builds: true,
        }
    }

    async fn fetch(&self, launch: &Launch) -> Result<()> {
        let image = body::image(launch)?;
        match image::has(&self.shared.engine, &image.reference).await? {
            true => Ok(()),
            false => self.shared.images.pull(&self.shared, image).await,
        }
    }

    fn lend(&self, reference: &str, service: &Name, login: Option<Login>) {
        self.shared.fixed.registries.lend(reference, service, login);
    }

    async fn prepare(&self, launch: &Launch) -> Result<()> {
        self.make(launch).await.map(drop)
    }

    fn give_up(&self, container: &ContainerId, generation: Generation) {
        self.shared.given_up(container, generation).cancel();
    }

    async fn start(&self, launch: &Launch) -> Result<Handle> {
        self.begin(launch).await
    }

    async fn assign(&self, launch: &Launch) -> Result<()> {
        self.go_on(launch).await
    }

    async fn stop(&self, order: &StopOrder) -> Result<Exit> {
        let (container, generation) = (&order.container, order.generation);
        if let Some(exit) = self.shared.told(container, generation)
            && !self.runs_again(container, generation).await?
        {
            return Ok(exit);
        }
        let id = match self.shared.id(container, generation) {
            Some(id) => id,
            None => {
                let starts = self.starts(container).await?;
                match starts.into_iter().find(|start| start.generation == generation) {
                    Some(start) => start.id,
                    None => return Ok(Exit::Unknown),
                }
            }
        };
        let waits = self.shared.waits(container, generation);
        if waits {
            let turn = self.shared.turn(container, generation);
            let _turn = turn.lock().await;
            self.shared.goes_on(container, generation);
        }
        let exit = self.end(&id, order.signal, order.grace, waits).await?;
        self.shared.end(container, generation, exit);
        Ok(exit)
    }

    async fn remove(&self, container: &ContainerId) -> Result<()> {
        let (engine, store) = (&self.shared.engine, self.shared.store()?);
        let (all, ephemeral) = match self.shared.only(container) {
            Some((generation, id, ephemeral)) => (vec![(generation, id)], ephemeral),
            None => {
                let starts = self.starts(container).await?;
                (starts.into_iter().map(|start| (start.generation, start.id)).collect(), true)
            }
        };
        for (generation, id) in all {
            // What has ended and runs again was started by somebody else.
            let ended = self.shared.told(container, generation).is_some();
            let _room = self.shared.removing.acquire().await;
            engine.remove(&id, ended).await?;
        }
        self.shared.forget(container);
        if ephemeral {
            volume::remove_ephemeral(engine, &store, container).await?;
        }
        if self.shared.networks.leave(engine, &store, container).await? {
            self.sweep();
        }
        Ok(())
    }

    /// The engine holds no port of a container that is gone.
    async fn release_ports(&self, _ports: &[u16]) -> Result<()> {
        Ok(())
    }

    async fn list(&self) -> Result<Listing> {
        Ok(self.see().await?.0)
    }

    async fn recover(&self, known: &[Known]) -> Result<Listing> {
        let listing = self.attach(known).await;
        self.shared.watch(|| watch::begin(&self.shared));
        Ok(listing)
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
        usage::read(&self.shared).await
    }

    async fn reported(&self) -> Result<BTreeMap<ContainerId, BTreeMap<String, f64>>> {
        Ok(self.shared.reported())
    }

    async fn volumes(&self) -> Result<Vec<VolumeFound>> {
        volume::found(&self.shared.engine, &self.shared.store()?).await
    }

    async fn logs(&self, container: &ContainerId, options: &LogOptions) -> Result<LogStream> {
        let id = self.find(container).await?;
        if self.shared.engine.inspect(&id).await?.is_none() {
            return Err(Error::not_found(format!("the engine has no container {container} any more")));
        }
        logs::lines(&self.shared.engine, &id, container, options).await
    }

    async fn exec(&self, container: &ContainerId, spec: &ExecSpec) -> Result<ExecSession> {
        let id = self.find(container).await?;
        exec::begin(&self.shared, &id, spec, ()).await
    }

    async fn resolve(&self, reference: &str, service: &Name) -> Result<Resolved> {
        resolve::resolve(&self.shared, reference, service).await
    }

    async fn name_build(&self, build: &Build, unit: &UnitId) -> Result<String> {
        build::name(&self.shared, build, unit).await
    }

    async fn build(&self, build: &Build, unit: &UnitId, reference: &str, output: &BuildOutput) -> Result<Built> {
        build::build(&self.shared, build, unit, reference, output).await
    }

    async fn prune_images(&self, needed: &BTreeSet<String>) -> Result<Vec<String>> {
        prune::prune(&self.shared, needed).await
    }

    async fn check(&self, template: &Template) -> Result<Vec<(String, String)>> {
        let (template, fixed) = (template.clone(), self.shared.fixed.clone());
        blocking(move || Ok(check::template(&template, &fixed))).await
    }

    async fn shutdown(&self, stop: bool) -> Result<()> {
        self.shared.close();
        if !stop {
            return Ok(());
        }
        let (engine, store) = (&self.shared.engine, self.shared.store()?);
        let left = engine.list(&[(label::STORE, store.as_str())]).await?;
        let ids = left.into_iter().filter_map(|summary| summary.id.map(|id| (id, summary.labels.unwrap_or_default())));
        let store = &store;
        let end = |(id, labels): (String, _)| async move {
            self.end(&id, SIGTERM, GRACE, true).await?;
            engine.remove(&id, true).await?;
            match label::read(&labels, store) {
                Some((container, _)) => volume::remove_ephemeral(engine, store, &container).await,
                None => Ok(()),
            }
        };
        // One that cannot be ended keeps none of the others.
        let ended: Vec<Result<()>> = stream::iter(ids).map(end).buffer_unordered(AT_ONCE).collect().await;
        let cleared = self.shared.networks.clear(engine, store).await;
        ended.into_iter().chain([cleared]).collect()
    }
}

/// Work that may wait for a disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::new(ErrorKind::Unexpected, "work on files panicked").because(error))?
}
