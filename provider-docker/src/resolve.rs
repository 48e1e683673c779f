//! What the reference of an image stands for: the registry's word, else that of the engine.

use bollard::models::ImageInspect;
use cocktail_core::contract::Resolved;
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::name::Name;
use cocktail_core::spec::without_tag;

use crate::client::bounded;
use crate::error::{self, Call};
use crate::image::full;
use crate::shared::Shared;
use crate::times;

/// What an image is: by the registry, or by the engine if that has it.
///
/// # Errors
/// Those of the registry, for an image that the engine does not have; with the context `engine` for one that does not answer.
pub(crate) async fn resolve(shared: &Shared, reference: &str, service: &Name) -> Result<Resolved> {
    let reached = shared.engine.reached().await;
    reached.map_err(|error| error.with("engine", shared.engine.url()))?;
    let failed = match ask(shared, reference, service).await {
        Ok(digest) => return Ok(Resolved { digest: Some(digest), doubt: None }),
        Err(failed) => failed,
    };
    let docker = shared.engine.api().await?;
    let what = format!("look for image {reference}");
    match bounded(times::CONTROL, Call::Reads, &what, docker.inspect_image(reference)).await {
        Ok(here) => Ok(Resolved { digest: of_engine(&here, reference), doubt: Some(failed.chain()) }),
        Err(error) if *error.kind() == ErrorKind::NotFound => Err(failed),
        Err(error) => Err(error),
    }
}

/// Asks the registry, through the engine.
pub(crate) async fn ask(shared: &Shared, reference: &str, service: &Name) -> Result<String> {
    let what = format!("look for image {reference} in its registry");
    let proof = shared.fixed.registries.proof(reference, service).await?;
    let docker = proof.show(shared.engine.api().await?);
    let full = full(reference);
    let asking = docker.inspect_registry_image(&full, None);
    let answer = match tokio::time::timeout(times::RESOLVE, asking).await {
        Ok(Ok(answer)) => answer,
        // Engines say all kinds of failures with all kinds of status.
        Ok(Err(bollard::errors::Error::DockerResponseServerError { message, .. })) => {
            return Err(proof.explain(error::of_pull(&message, &what)));
        }
        Ok(Err(failed)) => return Err(error::of(&failed, Call::Reads, &what)),
        Err(_) => return Err(error::timed_out(Call::Reads, &what)),
    };
    let digest = answer.descriptor.digest.filter(|digest| is_digest(digest));
    digest.ok_or_else(|| Error::unexpected(format!("{what}: the answer has no digest")))
}

/// What the registry said when the engine got the image from there, or gave it there.
fn of_engine(here: &ImageInspect, reference: &str) -> Option<String> {
    let name = familiar(without_tag(reference));
    let mut known = here.repo_digests.iter().flatten().filter_map(|entry| entry.split_once('@'));
    known.find(|(of, digest)| familiar(of) == name && is_digest(digest)).map(|(_, digest)| digest.to_owned())
}

/// A reference with a digest as engines show it: without its tag, and without what is meant where nothing is said. `None` for
/// one that has none.
pub(crate) fn exact(reference: &str) -> Option<String> {
    let (name, digest) = reference.split_once('@')?;
    Some(format!("{}@{digest}", familiar(without_tag(name))))
}

/// A name as engines show it: without what is meant where nothing is said.
fn familiar(name: &str) -> &str {
    let name = ["docker.io/", "index.docker.io/"].iter().find_map(|hub| name.strip_prefix(hub)).unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(&it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engines_word_is_that_of_the_same_name() {
        let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
        let known = [("web", "a"), ("team/web", "b"), ("x.io/web", "c")];
        let known = known.map(|(name, letter)| format!("{name}@{}", digest(letter)));
        let here = ImageInspect { repo_digests: Some(known.to_vec()), ..ImageInspect::default() };
        for (reference, found) in [
            ("web:1", Some("a")),
            ("docker.io/library/web", Some("a")),
            ("docker.io/team/web:2", Some("b")),
            ("x.io/web:1", Some("c")),
            ("y.io/web:1", None),
        ] {
            assert_eq!(of_engine(&here, reference), found.map(digest), "{reference}");
        }
        assert_eq!(of_engine(&ImageInspect::default(), "web"), None);
    }
}
