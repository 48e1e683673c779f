//! Removing images that were built or fetched for us and that nobody needs any more.
//!
//! Start at [`prune`]. Whose an image is, the engine itself says, so that the next Manager knows it as well: one that was built
//! has its own name in a label, and one that was fetched by its digest has a name of ours beside that ([`record`]). A name that
//! somebody else gave to an image, or what somebody made from it, is none of ours. Nothing is removed by force, and with an
//! image only what its own build has made: the engine would take everything below that has no name.

use std::collections::BTreeSet;

use bollard::models::ImageSummary;
use bollard::query_parameters::{ListImagesOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder};
use cocktail_core::error::{ErrorKind, Result};
use cocktail_core::id::StoreId;

use crate::client::{bounded, short};
use crate::error::Call;
use crate::resolve::exact;
use crate::shared::Shared;
use crate::{label, times};

/// Images that are removed in one call, those of steps as well, unless one has more: whoever wants to build waits for them.
const AT_ONCE: usize = 8;
/// Images that are tried in one call: some may be such that the engine removes them never.
const TRIED: usize = 32;

/// An image that may go.
#[derive(Debug, PartialEq, Eq)]
enum Old {
    /// Of a build: its name, and what else that has made, each before what it was made from.
    Built { name: String, steps: Vec<String> },
    /// By its digest, and the name that records it.
    Fetched { exact: String, record: String },
    /// A record of something that was fetched, whose digest somebody has taken away since.
    Left { record: String },
}

impl Old {
    fn is_recorded_as(&self, name: &str) -> bool {
        matches!(self, Self::Fetched { record, .. } if record == name)
    }

    fn reference(&self) -> &str {
        match self {
            Self::Built { name, .. } => name,
            Self::Fetched { exact, .. } => exact,
            Self::Left { record } => record,
        }
    }
}

/// Removes what is not among the needed references, and what no container has; the references that are gone.
pub(crate) async fn prune(shared: &Shared, needed: &BTreeSet<String>) -> Result<Vec<String>> {
    let images = list(shared).await?;
    let containers = shared.engine.list(&[]).await?;
    let used = containers.into_iter().filter_map(|container| container.image_id).collect();
    let (mut gone, mut removals, mut failed) = (Vec::new(), 0, None);
    for old in unneeded(&images, &used, &shared.store()?, needed).into_iter().take(TRIED) {
        if removals >= AT_ONCE {
            break;
        }
        let (removed, steps) = match &old {
            Old::Built { name, steps } => (remove_built(shared, name, steps).await, steps.len()),
            Old::Fetched { exact, record } => (remove_fetched(shared, exact, record).await, 0),
            Old::Left { record } => (remove(shared, record).await, 0),
        };
        match removed {
            Ok(true) => {
                tracing::info!(image = old.reference(), "an image that nobody needs any more is removed");
                gone.push(old.reference().to_owned());
                removals += 1 + steps;
            }
            Ok(false) => {}
            // It keeps none of the others.
            Err(error) => {
                tracing::debug!(image = old.reference(), error = error.chain(), "an old image cannot be removed");
                failed = Some(error);
            }
        }
    }
    match failed {
        Some(error) if gone.is_empty() => Err(error),
        _ => Ok(gone),
    }
}

/// Writes down in the engine that it is us who fetched an image. One that cannot be written down stays for ever.
pub(crate) async fn record(shared: &Shared, reference: &str) {
    let Some(exact) = exact(reference) else { return };
    if let Err(error) = name_fetched(shared, &exact).await {
        tracing::debug!(image = reference, error = error.chain(), "it stays when nobody needs it any more");
    }
}

async fn name_fetched(shared: &Shared, exact: &str) -> Result<()> {
    let record = label::fetched(&shared.store()?, exact);
    let (repository, tag) = record.rsplit_once(':').unwrap_or((&record, ""));
    let options = TagImageOptionsBuilder::new().repo(repository).tag(tag).build();
    let docker = shared.engine.api().await?;
    bounded(times::CONTROL, Call::Acts, &format!("name image {exact}"), docker.tag_image(exact, Some(options))).await
}

/// All images of an engine, those of single steps of builds as well.
pub(crate) async fn list(shared: &Shared) -> Result<Vec<ImageSummary>> {
    let docker = shared.engine.api().await?;
    let options = ListImagesOptionsBuilder::new().all(true).build();
    bounded(times::CONTROL, Call::Reads, "list images", docker.list_images(Some(options))).await
}

/// What may go of these images, if no container has it since.
fn unneeded(images: &[ImageSummary], used: &BTreeSet<String>, store: &StoreId, needed: &BTreeSet<String>) -> Vec<Old> {
    let exactly: BTreeSet<String> = needed.iter().filter_map(|reference| exact(reference)).collect();
    let bases: BTreeSet<&str> = images.iter().map(|image| image.parent_id.as_str()).collect();
    let free = |image: &&ImageSummary| !used.contains(&image.id) && !bases.contains(image.id.as_str());
    let (mut built, mut fetched, records) = (Vec::new(), Vec::new(), label::fetched_by(store));
    for image in images.iter().filter(free) {
        let name = built_as(image, store).filter(|name| !needed.contains(*name));
        built.extend(name.map(|name| (image, name)));
        // Under a name of somebody else's it is theirs as well.
        if image.repo_tags.iter().all(|name| name.starts_with(label::FETCHED)) {
            let ours = |exact: &String| Old::Fetched { exact: exact.clone(), record: label::fetched(store, exact) };
            let ours = image.repo_digests.iter().filter(|exact| !exactly.contains(*exact)).map(ours);
            fetched.extend(ours.filter(|old| image.repo_tags.iter().any(|name| old.is_recorded_as(name))));
            let left = image.repo_tags.iter().filter(|name| name.starts_with(&records)).cloned();
            fetched.extend(left.filter(|_| image.repo_digests.is_empty()).map(|record| Old::Left { record }));
        }
    }
    let going: BTreeSet<&str> = built.iter().map(|(image, _)| image.id.as_str()).collect();
    let stays = images.iter().filter(|image| !going.contains(image.id.as_str()));
    let kept: BTreeSet<&str> = stays.flat_map(steps).collect();
    let nameless = |image: &&ImageSummary| names(image).next().is_none() && !used.contains(&image.id);
    let nameless: BTreeSet<&str> = images.iter().filter(nameless).map(|image| bare(&image.id)).collect();
    let removable = |id: &&str| !kept.contains(id) && nameless.contains(id);
    let built = built.into_iter().map(|(image, name)| Old::Built {
        name: name.clone(),
        steps: steps(image).filter(removable).map(str::to_owned).collect(),
    });
    built.chain(fetched).collect()
}

/// What a build of this store has called an image, if it is still called so.
fn built_as<'a>(image: &'a ImageSummary, store: &StoreId) -> Option<&'a String> {
    let ours = image.labels.get(label::BUILT_FOR).is_some_and(|built_for| built_for == store.as_str());
    image.labels.get(label::BUILT_AS).filter(|name| ours && image.repo_tags.contains(name))
}

/// Images of the steps that led to one that has the name that it was built as.
fn steps(image: &ImageSummary) -> impl Iterator<Item = &str> {
    let named = image.labels.get(label::BUILT_AS).is_some_and(|name| image.repo_tags.contains(name));
    let steps = image.labels.get(label::BUILT_STEPS).filter(|_| named);
    steps.into_iter().flat_map(|steps| steps.split(' '))
}

/// Names and digests of an image. Older engines say so of one that has none.
pub(crate) fn names(image: &ImageSummary) -> impl Iterator<Item = &String> {
    image.repo_tags.iter().chain(&image.repo_digests).filter(|name| !name.starts_with("<none>"))
}

/// The short id of an image, without what all begin with.
pub(crate) fn bare(id: &str) -> &str {
    short(id.strip_prefix("sha256:").unwrap_or(id))
}

/// Takes the name away, and then what only that build has made. A step that somebody has begun to use stays.
async fn remove_built(shared: &Shared, name: &str, steps: &[String]) -> Result<bool> {
    let removed = remove(shared, name).await?;
    if removed {
        for step in steps {
            remove(shared, step).await?;
        }
    }
    Ok(removed)
}

/// Takes the record away first: with a second name the engine would let go of the digest while a container needs it.
async fn remove_fetched(shared: &Shared, exact: &str, record: &str) -> Result<bool> {
    remove(shared, record).await?;
    let removed = remove(shared, exact).await?;
    if !removed && let Err(error) = name_fetched(shared, exact).await {
        tracing::debug!(image = exact, error = error.chain(), "it stays when nobody needs it any more");
    }
    Ok(removed)
}

/// Removes one name, and the image where that was the last one. Says whether it is gone: it stays where a container has it.
async fn remove(shared: &Shared, image: &str) -> Result<bool> {
    let docker = shared.engine.api().await?;
    let options = RemoveImageOptionsBuilder::new().noprune(true).build();
    let what = format!("remove image {image}");
    match bounded(times::REMOVE, Call::Acts, &what, docker.remove_image(image, Some(options), None)).await {
        Ok(_) => Ok(true),
        Err(error) if *error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) if *error.kind() == ErrorKind::Conflict => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    const DIGEST: &str = "sha256:aa";

    fn store() -> StoreId {
        StoreId::new("ours")
    }

    fn image(id: &str, names: &[&str], digests: &[&str]) -> ImageSummary {
        let owned = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect();
        let id = format!("sha256:{id}{}", "0".repeat(64 - id.len()));
        ImageSummary { id, repo_tags: owned(names), repo_digests: owned(digests), ..ImageSummary::default() }
    }

    /// One that a store has built as `name`, by steps with these ids.
    fn built(store: &str, id: &str, name: &str, steps: &[&str]) -> ImageSummary {
        let steps: Vec<String> = steps.iter().map(|step| bare(&image(step, &[], &[]).id).to_owned()).collect();
        let labels = [(label::BUILT_FOR, store), (label::BUILT_AS, name), (label::BUILT_STEPS, &steps.join(" "))];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        ImageSummary { labels, ..image(id, &[name], &[]) }
    }

    fn fetched(store: &StoreId, id: &str, more: &[&str]) -> ImageSummary {
        let record = label::fetched(store, &format!("web@{DIGEST}"));
        image(id, &[&[record.as_str()], more].concat(), &[&format!("web@{DIGEST}")])
    }

    fn old(images: &[ImageSummary], used: &[&ImageSummary], needed: &[&str]) -> Vec<(String, Vec<String>)> {
        let used = used.iter().map(|image| image.id.clone()).collect();
        let needed = needed.iter().map(|name| (*name).to_owned()).collect();
        let told = |old: Old| match old {
            Old::Built { name, steps } => (name, steps.iter().map(|id| id[..1].to_owned()).collect()),
            Old::Fetched { exact, .. } => (exact, Vec::new()),
            Old::Left { record } => (record, Vec::new()),
        };
        unneeded(images, &used, &store(), &needed).into_iter().map(told).collect()
    }

    fn just(name: &str) -> Vec<(String, Vec<String>)> {
        vec![(name.to_owned(), Vec::new())]
    }

    #[test]
    fn what_we_have_built_goes_when_it_is_not_needed_and_has_its_own_name() {
        let one = built("ours", "1", "localhost/cocktail/a:1", &[]);
        assert_eq!(old(from_ref(&one), &[], &[]), just("localhost/cocktail/a:1"));
        assert_eq!(old(from_ref(&one), &[], &["localhost/cocktail/a:1"]), []);
        assert_eq!(old(from_ref(&one), &[&one], &[]), [], "a container has it");
        assert_eq!(old(&[built("other", "1", "localhost/cocktail/a:1", &[])], &[], &[]), []);
        let from_it = ImageSummary { parent_id: one.id.clone(), ..image("2", &["mine:1"], &[]) };
        assert_eq!(old(&[one.clone(), from_it], &[], &[]), [], "somebody has made another one from it");
        let renamed = ImageSummary { repo_tags: vec!["mine:1".to_owned()], ..one };
        assert_eq!(old(&[renamed], &[], &[]), []);
    }

    #[test]
    fn steps_of_a_build_go_with_it_unless_another_one_has_them_or_somebody_names_or_runs_them() {
        let one = built("ours", "1", "a:1", &["b", "c", "d", "e", "f"]);
        let other = built("other", "2", "x:1", &["c"]);
        let none = || image("b", &["<none>:<none>"], &["<none>@<none>"]);
        let run = image("e", &[], &[]);
        let images = [one, other, none(), image("c", &[], &[]), image("d", &["mine:1"], &[]), run.clone()];
        assert_eq!(old(&images, &[&run], &[]), [("a:1".to_owned(), vec!["b".to_owned()])]);
        // Of two that go both have them: the second removal finds them gone, or goes on where the first one could not.
        let both = [built("ours", "1", "a:1", &["b"]), built("ours", "2", "a:2", &["b"]), none()];
        assert_eq!(old(&both, &[], &["a:2"]), [("a:1".to_owned(), vec![])]);
        assert_eq!(old(&both, &[], &[]), ["a:1", "a:2"].map(|name| (name.to_owned(), vec!["b".to_owned()])));
    }

    #[test]
    fn what_we_have_fetched_goes_unless_somebody_has_named_it() {
        let web = format!("web@{DIGEST}");
        let one = fetched(&store(), "1", &[]);
        assert_eq!(old(from_ref(&one), &[], &[]), just(&web));
        assert_eq!(old(from_ref(&one), &[&one], &[]), []);
        for needed in [web.clone(), format!("docker.io/library/web:1@{DIGEST}")] {
            assert_eq!(old(from_ref(&one), &[], &[&needed]), [], "{needed}");
        }
        assert_eq!(old(&[fetched(&store(), "1", &["web:1"])], &[], &[]), []);
        assert_eq!(old(&[fetched(&StoreId::new("other"), "1", &[])], &[], &[]), []);
        let theirs = label::fetched(&StoreId::new("other"), "x@sha256:bb");
        assert_eq!(old(&[fetched(&store(), "1", &[&theirs])], &[], &[]), just(&web), "a record is no name");
        assert_eq!(old(&[image("1", &[], &[&web])], &[], &[]), [], "we have not fetched it");
        let ours = label::fetched(&store(), &web);
        assert_eq!(old(&[image("1", &[&ours], &[])], &[], &[&web]), just(&ours), "nobody finds it by its digest");
        assert_eq!(old(&[image("1", &[&theirs], &[])], &[], &[]), []);
    }
}
