//! Images: fetched when an engine lacks one, and looked at for the program that is to be started.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bollard::query_parameters::CreateImageOptionsBuilder;
use cocktail_core::contract::{Launch, LaunchImage};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::name::Name;
use cocktail_core::spec::BUILT_HERE;
use futures_util::StreamExt;
use tokio::time::Instant;

use crate::client::{Engine, Looked};
use crate::error::{self, Call};
use crate::registry::Proof;
use crate::shared::{Shared, lock};
use crate::{prune, times};

/// Programs that were found in images; beyond so many they are looked for again.
const KNOWN: usize = 1024;
/// Where programs are looked for without a PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What decides which program a container begins with: its image, what is written beside it, its search path and folder.
type Begins = (String, Option<String>, Option<String>, String);

/// What is known of an engine's images.
#[derive(Debug, Default)]
pub(crate) struct Images {
    /// One at a time is fetched of each.
    pulls: Mutex<BTreeMap<(Name, String), Arc<Pull>>>,
    /// One at a time is built of each.
    builds: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Starts whose program was found.
    programs: Mutex<BTreeSet<Begins>>,
}

/// Who fetches an image has the lock; what came of that, and when, is in it.
type Pull = tokio::sync::Mutex<Option<(Instant, Result<()>)>>;

impl Images {
    /// Fetches an image for a Unit. Who asks for the same one in the same Service meanwhile waits for that, and has the same
    /// answer.
    ///
    /// # Errors
    /// `InvalidConfig` for an image that does not exist, and for a password that is not there; `Denied` for one that is not
    /// given to us, `Unavailable` and `Throttled` for a registry that may give it later.
    pub(crate) async fn pull(&self, shared: &Shared, image: &LaunchImage) -> Result<()> {
        let (engine, reference, service) = (&shared.engine, image.reference.as_str(), &image.unit.service);
        if reference.starts_with(BUILT_HERE) {
            let message = format!(
                "{reference} is not on this engine, which has not built it or has removed it: apply its manifest again"
            );
            return Err(Error::invalid(message));
        }
        let came = Instant::now();
        let pull = {
            let mut pulls = lock(&self.pulls);
            pulls.retain(|_, pull| Arc::strong_count(pull) > 1);
            Arc::clone(pulls.entry((service.clone(), reference.to_owned())).or_default())
        };
        let mut last = pull.lock().await;
        if let Some((ended, outcome)) = &*last
            && *ended >= came
        {
            return outcome.clone();
        }
        let pulled = match has(engine, reference).await? {
            true => Ok(()),
            false => {
                let proof = shared.fixed.registries.proof(reference, service).await;
                match proof {
                    Ok(proof) => {
                        let fetched = fetch(engine, reference, &proof).await.map_err(|error| proof.explain(error));
                        if fetched.is_ok() {
                            prune::record(shared, reference).await;
                        }
                        fetched
                    }
                    Err(error) => Err(error),
                }
            }
        };
        *last = Some((Instant::now(), pulled.clone()));
        pulled
    }

    /// What is held while an image is built.
    pub(crate) fn turn(&self, reference: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut builds = lock(&self.builds);
        builds.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(builds.entry(reference.to_owned()).or_default())
    }

    /// Whether the program of a start was found in its image before.
    pub(crate) fn knows_program(&self, launch: &Launch) -> bool {
        begins(launch).is_none_or(|begins| lock(&self.programs).contains(&begins))
    }

    /// Whether a container has the program that it is to start. Where the first process is one of the engine's own, the
    /// engine starts it well and only its output says that the program is missing.
    ///
    /// # Errors
    /// `InvalidConfig` that names the program.
    pub(crate) async fn check_program(&self, engine: &Engine, launch: &Launch, made: &Looked) -> Result<()> {
        let Some(image) = &launch.image else { return Ok(()) };
        let program = made.path.as_str();
        let path = made.env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(PATH);
        // Without a program the engine has refused it already.
        let Some(known) = begins(launch).filter(|_| !program.is_empty()) else { return Ok(()) };
        let mut places: Vec<String> = Vec::new();
        if program.starts_with('/') {
            places.push(program.to_owned());
        } else if program.contains('/') {
            places.push(format!("{}/{program}", made.cwd.trim_end_matches('/')));
        } else {
            places.extend(path.split(':').map(|folder| format!("{}/{program}", folder.trim_end_matches('/'))));
        }
        for place in &places {
            if engine.has_file(&made.id, place).await? {
                let mut programs = lock(&self.programs);
                if programs.len() >= KNOWN {
                    programs.clear();
                }
                programs.insert(known);
                return Ok(());
            }
        }
        let reference = &image.reference;
        let message = match program.contains('/') {
            true => format!("the image {reference} has no program {program}"),
            false => format!("the image {reference} has no program {program} in its PATH ({path})"),
        };
        Err(Error::invalid(message))
    }
}

fn begins(launch: &Launch) -> Option<Begins> {
    let image = launch.image.as_ref()?;
    let entrypoint = image.entrypoint.as_ref().and_then(|parts| parts.first().cloned());
    let path = launch.env.get("PATH").cloned().unwrap_or_default();
    let written = launch.argv.first().cloned();
    Some((image.reference.clone(), entrypoint, written, format!("{path} {}", launch.cwd.display())))
}

/// A reference with a tag or digest: without, an engine would fetch every image of that name.
pub(crate) fn full(reference: &str) -> String {
    let (_, path) = reference.rsplit_once('/').unwrap_or(("", reference));
    if path.contains([':', '@']) { reference.to_owned() } else { format!("{reference}:latest") }
}

pub(crate) async fn has(engine: &Engine, reference: &str) -> Result<bool> {
    let docker = engine.api().await?;
    let what = format!("look for image {reference}");
    match crate::client::bounded(times::CONTROL, Call::Reads, &what, docker.inspect_image(reference)).await {
        Ok(_) => Ok(true),
        Err(error) if *error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

async fn fetch(engine: &Engine, reference: &str, proof: &Proof) -> Result<()> {
    let docker = proof.show(engine.api().await?);
    let what = format!("pull image {reference}");
    let full = full(reference);
    let options = CreateImageOptionsBuilder::new().from_image(&full).build();
    tracing::info!(image = %full, "an image is fetched");
    let fetching = async {
        let mut steps = Box::pin(docker.create_image(Some(options), None, None));
        while let Some(step) = steps.next().await {
            match step {
                Ok(step) => {
                    if let Some(message) = step.error_detail.and_then(|detail| detail.message) {
                        return Err(error::of_pull(&message, &what));
                    }
                }
                Err(bollard::errors::Error::DockerResponseServerError { message, .. }) => {
                    return Err(error::of_pull(&message, &what));
                }
                Err(error) => return Err(error::of(&error, Call::Reads, &what)),
            }
        }
        Ok(())
    };
    match tokio::time::timeout(times::PULL, fetching).await {
        Ok(fetched) => fetched,
        Err(_) => Err(error::timed_out(Call::Reads, &what)),
    }
}
