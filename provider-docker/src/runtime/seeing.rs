//! What an engine has of ours, and attaching to it.

use std::collections::BTreeMap;

use bollard::models::ContainerSummary;
use cocktail_core::contract::{Exit, Known, Listing, Observation, Sighting};
use cocktail_core::error::Result;
use cocktail_core::id::{ContainerId, Generation};
use futures_util::{StreamExt, stream};

use super::DockerRuntime;
use super::making::handle;
use crate::client::{Condition, Rough, rough};
use crate::{label, watch};

/// Containers that are inspected at once.
const AT_ONCE: usize = 8;

/// One start as the engine has it.
#[derive(Debug, Clone)]
pub(super) struct Start {
    pub(super) id: String,
    pub(super) container: ContainerId,
    pub(super) generation: Generation,
    roughly: Rough,
}

impl DockerRuntime {
    /// Everything of a container, the newest start first.
    pub(super) async fn starts(&self, container: &ContainerId) -> Result<Vec<Start>> {
        let store = self.shared.store()?;
        let labels = [(label::STORE, store.as_str()), (label::CONTAINER, container.as_str())];
        self.newest_first(&labels).await
    }

    async fn newest_first(&self, labels: &[(&str, &str)]) -> Result<Vec<Start>> {
        let store = self.shared.store()?;
        let listed = self.shared.engine.list(labels).await?;
        let start = |summary: ContainerSummary| {
            let roughly = rough(&summary);
            let (container, generation) = label::read(&summary.labels.unwrap_or_default(), &store)?;
            Some(Start { id: summary.id?, container, generation, roughly })
        };
        let mut starts: Vec<Start> = listed.into_iter().filter_map(start).collect();
        starts.sort_by_key(|start| std::cmp::Reverse(start.generation));
        Ok(starts)
    }

    /// Everything of this store: the newest start of each container, and the starts themselves.
    pub(super) async fn see(&self) -> Result<(Listing, BTreeMap<ContainerId, Start>)> {
        let store = self.shared.store()?;
        let mut newest: BTreeMap<ContainerId, Start> = BTreeMap::new();
        for start in self.newest_first(&[(label::STORE, store.as_str())]).await? {
            // What is being removed is not there any more.
            if start.roughly != Rough::Leaving {
                newest.entry(start.container.clone()).or_insert(start);
            }
        }
        let engine = &self.shared.engine;
        let look = |start: Start| async move {
            let sighting = match start.roughly {
                Rough::Created => Some(Sighting::Prepared),
                _ => match engine.inspect(&start.id).await {
                    Ok(seen) => seen.map(|seen| sighting(&seen.id, seen.condition)),
                    // One that the engine cannot look at says nothing about the others.
                    Err(error) => {
                        tracing::warn!(container = %start.container, error = %error.chain(), "nothing is known of it");
                        Some(Sighting::Unknown)
                    }
                },
            };
            let generation = start.generation;
            sighting.map(|sighting| (start.container, Observation { generation, sighting }))
        };
        let seen = stream::iter(newest.values().cloned()).map(look).buffer_unordered(AT_ONCE);
        let seen: Vec<Option<(ContainerId, Observation)>> = seen.collect().await;
        let containers = seen.into_iter().flatten().collect();
        Ok((Listing { containers, complete: true, descended: false }, newest))
    }

    /// Everything, with the networks.
    async fn look(&self) -> Result<(Listing, BTreeMap<ContainerId, Start>)> {
        let seen = self.see().await?;
        if let Err(error) = self.shared.networks.find(&self.shared.engine, &self.shared.store()?).await {
            tracing::warn!(error = %error.chain(), "networks that nobody is on are not removed yet");
        }
        Ok(seen)
    }

    /// Attaches to what runs. An engine that does not answer says nothing: everything is unknown until it does.
    pub(super) async fn attach(&self, known: &[Known]) -> Listing {
        for known in known {
            // An older one that is asked about after a newer one has no probes to begin.
            let _newer = self.shared.enter(&known.launch.container, known.launch.generation);
        }
        let (mut listing, newest) = match self.look().await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::warn!(error = %error.chain(), "an engine does not say what it runs");
                watch::resync_when_back(&self.shared, error.chain());
                return unknown(known);
            }
        };
        let mut again = false;
        for known in known {
            let (container, generation) = (&known.launch.container, known.launch.generation);
            let seen = listing.containers.entry(container.clone()).or_insert_with(|| {
                // It was there, and somebody removed it with what it had to tell.
                let gone = Sighting::Exited(Exit::Unknown);
                let sighting = if known.handle.is_some() { gone } else { Sighting::Absent };
                Observation { generation, sighting }
            });
            if seen.generation != generation {
                continue;
            }
            let id = newest.get(container).map(|start| start.id.clone());
            match &seen.sighting {
                Sighting::Running(handle) => {
                    let id = id.unwrap_or_default();
                    self.shared.started(&known.launch, &id, handle, false);
                }
                Sighting::Exited(exit) => {
                    self.shared.made(container, generation, id);
                    self.shared.end(container, generation, *exit);
                }
                Sighting::Unknown => again = true,
                Sighting::Prepared => self.shared.made(container, generation, id),
                Sighting::Absent => {}
            }
        }
        if again {
            watch::resync_later(&self.shared, "the engine could not look at some containers".into());
        }
        listing
    }
}

fn sighting(id: &str, condition: Condition) -> Sighting {
    match condition {
        Condition::Created => Sighting::Prepared,
        Condition::Running(pid) => Sighting::Running(handle(id, pid)),
        Condition::Exited(exit) => Sighting::Exited(exit),
        Condition::Leaving => Sighting::Exited(Exit::Unknown),
    }
}

/// What is to be thought of known containers while nobody answers.
fn unknown(known: &[Known]) -> Listing {
    let unknown = |known: &Known| {
        let (container, generation) = (known.launch.container.clone(), known.launch.generation);
        (container, Observation { generation, sighting: Sighting::Unknown })
    };
    Listing { containers: known.iter().map(unknown).collect(), complete: false, descended: false }
}
