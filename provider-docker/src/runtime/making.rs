//! Making and starting what a launch says, so that a call that is repeated finds what its first attempt made.

use std::sync::Arc;

use cocktail_core::contract::{Exit, Handle, Launch};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::{ContainerId, Generation};
use cocktail_core::spec::VolumeKind;

use super::{DockerRuntime, SIGKILL, blocking};
use crate::client::{Condition, Looked, short};
use crate::shared::pauses;
use crate::{body, error, label, volume};

/// Attempts to have a name that somebody holds who cannot be seen, or is just being removed.
const ATTEMPTS: usize = 8;

impl DockerRuntime {
    /// Has a container in the engine for this start; the engine's id.
    pub(super) async fn make(&self, launch: &Launch) -> Result<String> {
        let (shared, engine) = (&self.shared, &self.shared.engine);
        let (container, generation) = (&launch.container, launch.generation);
        body::image(launch)?;
        shared.enter(container, generation)?;
        let turn = shared.turn(container, generation);
        let _turn = turn.lock().await;
        if let Some(id) = shared.id(container, generation) {
            if engine.inspect(&id).await?.is_some() {
                return Ok(id);
            }
            shared.made(container, generation, None);
        }
        // What an older start has left is removed when this one runs, unless it may still run itself.
        let older = shared.older(container, generation);
        let shares = launch.volumes.iter().all(|volume| volume.kind != VolumeKind::Exclusive);
        if generation.0 > 1 && !(older.is_some() && shares) {
            self.end_older(launch).await?;
            shared.older_gone(container, generation);
        }
        let network = self.join(launch, false).await?;
        volume::check_owner(engine, launch).await?;
        let (made, alone) = self.create(launch, network).await?;
        if !shared.images.knows_program(launch) {
            let looked = engine.inspect(&made).await?;
            let looked = looked.ok_or_else(|| gone(launch))?;
            if let Err(error) = shared.images.check_program(engine, launch, &looked).await {
                engine.remove(&made, true).await?;
                return Err(error);
            }
        }
        match alone {
            Some(alone) => shared.made_anew(launch, &made, alone),
            None => shared.made(container, generation, Some(made.clone())),
        }
        Ok(made)
    }

    /// Ends and removes what is left of older starts.
    async fn end_older(&self, launch: &Launch) -> Result<()> {
        for start in self.starts(&launch.container).await? {
            if start.generation > launch.generation {
                let (container, generation) = (&launch.container, start.generation);
                let message = format!("{container} is at generation {generation} in the engine already");
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            if start.generation < launch.generation {
                self.end(&start.id, SIGKILL, std::time::Duration::ZERO, false).await?;
                self.shared.engine.remove(&start.id, true).await?;
            }
        }
        Ok(())
    }

    /// Makes it; whether it is alone, if it was made just now.
    async fn create(&self, launch: &Launch, mut network: String) -> Result<(String, Option<bool>)> {
        let engine = &self.shared.engine;
        let image = body::image(launch)?;
        let plain = label::container(&launch.store, &launch.container, launch.generation);
        let mut name = plain.clone();
        let (mut pulled, mut rejoined, mut waits) = (false, false, pauses());
        for attempt in 0..ATTEMPTS {
            let body = self.body(launch, &network).await?;
            let made = {
                let _room = self.shared.making.acquire().await;
                engine.create(&name, body).await
            };
            let error = match made {
                Ok(id) => return Ok((id, Some(name == plain))),
                Err(error) => error,
            };
            match error.kind() {
                ErrorKind::NotFound if says(&error, "network") && !rejoined => {
                    rejoined = true;
                    network = self.join(launch, true).await?;
                }
                ErrorKind::NotFound if !pulled => {
                    pulled = true;
                    let given_up = self.shared.given_up(&launch.container, launch.generation);
                    let pulled = given_up.run_until_cancelled(self.shared.images.pull(&self.shared, image)).await;
                    pulled.unwrap_or_else(|| Err(Error::unavailable("it is not wanted any more")))?;
                }
                ErrorKind::NotFound => return Err(Error::invalid(error.to_string())),
                ErrorKind::Conflict => match engine.inspect(&name).await? {
                    Some(held) if self.is_this(launch, &held) => match held.condition {
                        // It may have been made for other ports, by a call that nobody knows the end of.
                        Condition::Created => engine.remove(&held.id, true).await?,
                        Condition::Leaving => tokio::time::sleep(waits.next().unwrap_or_default()).await,
                        Condition::Running(_) | Condition::Exited(_) => return Ok((held.id, None)),
                    },
                    Some(held) => return Err(foreign(&name, &held)),
                    // Somebody holds the name who cannot be seen: another name is as good, labels say whose it is.
                    None if attempt + 2 >= ATTEMPTS => {
                        if let Some(made) = self.made_before(launch).await? {
                            return Ok((made, None));
                        }
                        name = format!("{plain}-{attempt}");
                    }
                    None => tokio::time::sleep(waits.next().unwrap_or_default()).await,
                },
                _ => return Err(error),
            }
        }
        Err(Error::unavailable(format!("the name {plain} is held in the engine and does not come free")))
    }

    async fn body(&self, launch: &Launch, network: &str) -> Result<bollard::models::ContainerCreateBody> {
        if !body::reads_files(launch) && launch.volumes.is_empty() {
            return body::of(launch, &self.shared.fixed, network);
        }
        let (launch, fixed, network) = (launch.clone(), self.shared.fixed.clone(), network.to_owned());
        blocking(move || body::of(&launch, &fixed, &network)).await
    }

    /// The network of its map; `anew` where somebody has removed the one that was there.
    async fn join(&self, launch: &Launch, anew: bool) -> Result<String> {
        let network = label::network(&launch.store, &body::image(launch)?.unit);
        let shared = &self.shared;
        shared.networks.join(&shared.engine, &launch.store, &network, &launch.container, anew).await
    }

    /// What an earlier attempt made for this start, whatever its name.
    async fn made_before(&self, launch: &Launch) -> Result<Option<String>> {
        let starts = self.starts(&launch.container).await?;
        Ok(starts.into_iter().find(|start| start.generation == launch.generation).map(|start| start.id))
    }

    fn is_this(&self, launch: &Launch, held: &Looked) -> bool {
        label::read(&held.labels, &launch.store) == Some((launch.container.clone(), launch.generation))
    }

    /// Starts what was made, once.
    pub(super) async fn begin(&self, launch: &Launch) -> Result<Handle> {
        let (shared, engine) = (&self.shared, &self.shared.engine);
        let (container, generation) = (&launch.container, launch.generation);
        shared.enter(container, generation)?;
        let turn = shared.turn(container, generation);
        let _turn = turn.lock().await;
        let (id, before) = match shared.take_fresh(container, generation) {
            // Nobody has tried to start it.
            Some(id) => (id, Condition::Created),
            None => self.find_made(launch).await?,
        };
        let condition = match before {
            Condition::Created => {
                self.start_made(launch, &id).await?;
                let after = engine.inspect(&id).await;
                let unknown = |error: Error| Error::new(ErrorKind::OutcomeUnknown, error.chain());
                after.map_err(unknown)?.ok_or_else(|| gone(launch))?.condition
            }
            condition => condition,
        };
        self.clear_older(container, generation);
        match condition {
            Condition::Running(pid) => {
                let handle = handle(&id, pid);
                shared.started(launch, &id, &handle, true);
                Ok(handle)
            }
            // Its end may have been told already, before anybody knew of its start.
            Condition::Exited(exit) => {
                shared.made(container, generation, Some(id.clone()));
                shared.ended(container, generation, exit);
                Ok(Handle { docker_id: Some(id), ..Handle::default() })
            }
            Condition::Created => {
                Err(Error::unavailable(format!("{container} was started, and the engine has not begun")))
            }
            Condition::Leaving => {
                shared.ended(container, generation, Exit::Unknown);
                Err(gone(launch))
            }
        }
    }

    /// What an earlier call made for this start.
    async fn find_made(&self, launch: &Launch) -> Result<(String, Condition)> {
        let id = match self.shared.id(&launch.container, launch.generation) {
            Some(id) => Some(id),
            None => self.made_before(launch).await?,
        };
        let id = id.ok_or_else(|| gone(launch))?;
        let seen = self.shared.engine.inspect(&id).await?.filter(|seen| self.is_this(launch, seen));
        let seen = seen.ok_or_else(|| gone(launch))?;
        Ok((seen.id, seen.condition))
    }

    /// Removes what the start before has left, while nobody waits for it. What stays, the next look at everything removes.
    fn clear_older(&self, container: &ContainerId, generation: Generation) {
        let Some(older) = self.shared.older(container, generation) else { return };
        let (shared, container) = (Arc::clone(&self.shared), container.clone());
        tokio::spawn(async move {
            match shared.engine.remove(&older, true).await {
                Ok(()) => shared.older_gone(&container, generation),
                Err(error) => tracing::warn!(%container, error = %error.chain(), "an earlier start is still there"),
            }
        });
    }

    /// Has a container that waits go on, and begins its probes.
    pub(super) async fn go_on(&self, launch: &Launch) -> Result<()> {
        let (shared, engine) = (&self.shared, &self.shared.engine);
        let (container, generation) = (&launch.container, launch.generation);
        shared.enter(container, generation)?;
        let turn = shared.turn(container, generation);
        let _turn = turn.lock().await;
        let ended = || Error::not_found(format!("{container} of generation {generation} does not run"));
        if shared.told(container, generation).is_some() {
            return Err(ended());
        }
        shared.goes_on(container, generation);
        let id = match shared.id(container, generation) {
            Some(id) => Some(id),
            None => self.made_before(launch).await?,
        };
        let id = id.ok_or_else(ended)?;
        if !engine.unpause(&id).await? {
            let seen = engine.inspect(&id).await?;
            seen.filter(|seen| matches!(seen.condition, Condition::Running(_))).ok_or_else(ended)?;
        }
        shared.started(launch, &id, &handle(&id, 0), true);
        Ok(())
    }

    async fn start_made(&self, launch: &Launch, id: &str) -> Result<()> {
        let (shared, engine) = (&self.shared, &self.shared.engine);
        let started = {
            let _room = shared.making.acquire().await;
            engine.start(id).await
        };
        let Err(error) = started else { return Ok(()) };
        match error.kind() {
            // Somebody has removed its network: it is made anew, on another one.
            ErrorKind::NotFound if says(&error, "network") => {
                engine.remove(id, true).await?;
                shared.made(&launch.container, launch.generation, None);
                self.join(launch, true).await?;
                Err(Error::unavailable(error.to_string()))
            }
            // What cannot be started is not left behind: it would hold its name, and ports that are not its own.
            ErrorKind::Conflict | ErrorKind::InvalidConfig => {
                engine.remove(id, true).await?;
                shared.made(&launch.container, launch.generation, None);
                Err(with_port(error, launch))
            }
            ErrorKind::NotFound => Err(Error::new(ErrorKind::Conflict, error.to_string())),
            _ => Err(error),
        }
    }
}

/// How it is found again.
pub(super) fn handle(id: &str, pid: u32) -> Handle {
    Handle { pid: (pid > 0).then_some(pid), docker_id: Some(id.to_owned()), ..Handle::default() }
}

fn says(error: &Error, word: &str) -> bool {
    error.to_string().contains(word)
}

fn gone(launch: &Launch) -> Error {
    let message = format!("{} of generation {} is not prepared in the engine", launch.container, launch.generation);
    Error::new(ErrorKind::Conflict, message)
}

fn foreign(name: &str, held: &Looked) -> Error {
    let message = format!(
        "the name {name} belongs to container {} of the engine, which is not ours: rename or remove that one",
        short(&held.id)
    );
    Error::new(ErrorKind::Conflict, message)
}

/// Says which port somebody else has, if that is what is wrong.
fn with_port(failed: Error, launch: &Launch) -> Error {
    let message = failed.to_string();
    if !error::is_taken(&message) {
        return failed;
    }
    let names = |port: u16| message.split(|it: char| !it.is_ascii_digit()).any(|number| number == port.to_string());
    let taken = launch.ports.iter().find(|port| names(port.port)).or(launch.ports.first());
    match taken {
        Some(taken) => failed.with("port", taken.port),
        None => failed,
    }
}
