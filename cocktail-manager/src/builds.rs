//! Images that are built from files of this machine: what they are called, and having them where containers get them.
//!
//! [`name`] asks a server of images what equal files are called, so that a dry run knows whether anything would change.
//! [`build`] is part of an apply alone, before anything is written down: what cannot be built changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use cocktail_core::contract::{Built, Runtime};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::{ServerId, UnitId};
use cocktail_core::manifest::{Diagnostic, Parsed};
use cocktail_core::spec::{Build, Image};
use futures_util::future::join_all;
use tracing::info;

use crate::apply::Known;
use crate::images::{Key, for_each};
use crate::shared::Shared;

/// One Unit whose image is built.
struct Wanted {
    unit: UnitId,
    key: Key,
    image: Image,
    build: Build,
    /// Servers that may run it and build.
    servers: Vec<(ServerId, Arc<dyn Runtime>)>,
    /// One that may run it and builds nothing.
    only_runs: Option<ServerId>,
}

fn wanted(shared: &Shared, files: &mut [Parsed], known: &Known) -> Vec<Wanted> {
    let mut all = Vec::new();
    for_each(files, |unit, key, image, providers| {
        let Some(build) = image.build.clone() else { return };
        let builds = |(_, runtime): &(ServerId, Arc<dyn Runtime>)| runtime.capabilities().builds;
        let (servers, others): (Vec<_>, Vec<_>) = known.servers(shared, providers).into_iter().partition(builds);
        let only_runs = others.into_iter().next().map(|(server, _)| server);
        all.push(Wanted { unit, key: key.of_build(), image: image.clone(), build, servers, only_runs });
    });
    all
}

/// Names the images that are to be built. What keeps them from it is told where it is written.
///
/// # Errors
/// Those that have nothing to do with what is written.
pub(crate) async fn name(shared: &Shared, files: &mut [Parsed], known: &Known) -> Result<Vec<Diagnostic>> {
    let mut names: BTreeMap<UnitId, String> = BTreeMap::new();
    let mut found = Vec::new();
    for wanted in wanted(shared, files, known) {
        let Some((_, runtime)) = wanted.servers.first() else {
            let message = "there is no engine to build it: add [providers.docker] with kind = \"docker\"";
            let help = wanted
                .only_runs
                .as_ref()
                .map(|server| format!("the engine of {server} builds nothing: its agent drives it"));
            found.push(wanted.key.error(files, message, help));
            continue;
        };
        if let Some(server) = wanted.only_runs.as_ref().filter(|_| wanted.build.registry.is_none()) {
            let message =
                format!("{server} could not have it: its agent builds nothing, and fetches what is in a registry");
            let help = "give `build` a `registry`, or name a `provider` whose engines build".to_owned();
            found.push(wanted.key.error(files, &message, Some(help)));
            continue;
        }
        match runtime.name_build(&wanted.build, &wanted.unit).await {
            Ok(name) => {
                names.insert(wanted.unit, name);
            }
            Err(error) if *error.kind() == ErrorKind::InvalidConfig => {
                found.push(wanted.key.error(files, &error.chain(), None));
            }
            Err(error) => return Err(refusal(&wanted, &error)),
        }
    }
    for_each(files, |unit, _, image, _| {
        if let Some(name) = names.remove(&unit) {
            image.reference = name;
        }
    });
    Ok(found)
}

/// Builds what is not there yet. Engines that cannot be reached are left out with a warning, unless there is no other.
///
/// # Errors
/// `Refused` where nobody can build now, `Denied` by a registry, `Conflict` for files that change meanwhile.
pub(crate) async fn build(shared: &Shared, files: &mut [Parsed], known: &Known) -> Result<Vec<Diagnostic>> {
    let mut digests: BTreeMap<UnitId, Option<String>> = BTreeMap::new();
    let mut found = Vec::new();
    for wanted in wanted(shared, files, known) {
        let mut built = None;
        let mut failures = Vec::new();
        for (server, result) in on_servers(shared, &wanted).await {
            match result {
                Ok(done) => built = built.or(Some(done)),
                Err(error) => failures.push((server, error)),
            }
        }
        for (server, error) in &failures {
            let fault = matches!(error.kind(), ErrorKind::InvalidConfig | ErrorKind::Unsupported);
            let output = error.context("output").filter(|output| !output.is_empty());
            if fault {
                let help = output.map(|output| format!("the last lines on {server}:\n{output}"));
                found.push(wanted.key.error(files, &format!("it cannot be built: {}", error.message()), help));
                break;
            }
            if built.is_none() || !error.kind().is_transient() {
                return Err(refusal(&wanted, error));
            }
            let message = format!("it is not built on {server}: {}", error.message());
            let help = "apply again when that engine answers: nothing is started there before";
            found.push(wanted.key.warning(files, &message, help));
        }
        digests.insert(wanted.unit, built.and_then(|built| built.digest));
    }
    for_each(files, |unit, _, image, _| {
        if let Some(digest) = digests.remove(&unit) {
            image.digest = digest;
        }
    });
    Ok(found)
}

/// On every server that may run it; with a registry on the first that can, since the others fetch it.
async fn on_servers(shared: &Shared, wanted: &Wanted) -> Vec<(ServerId, Result<Built>)> {
    let Wanted { unit, image, build, servers, .. } = wanted;
    let on = |(server, runtime): (ServerId, Arc<dyn Runtime>)| async move {
        let tell = shared.builds.teller(unit, &server);
        info!(%unit, %server, image = image.reference, "an image is looked for or built");
        let built = runtime.build(build, unit, &image.reference, &tell).await;
        (server, built)
    };
    if build.registry.is_none() {
        return join_all(servers.iter().cloned().map(on)).await;
    }
    let mut failures = Vec::new();
    for server in servers.iter().cloned() {
        match on(server).await {
            (server, Err(error)) if error.kind().is_transient() => failures.push((server, Err(error))),
            // Which server did it is nobody's business: all fetch it.
            done => return vec![done],
        }
    }
    failures
}

/// Why nothing is applied, for whoever applies.
fn refusal(wanted: &Wanted, error: &Error) -> Error {
    let kind = match error.kind() {
        // It may be well in a moment, and it is not the Manager that cannot be reached.
        kind if kind.is_transient() => ErrorKind::Refused,
        kind => kind.clone(),
    };
    Error::new(kind, format!("nothing was applied: the image of {} is not built", wanted.unit)).because(error.clone())
}
