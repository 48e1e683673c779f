//! What a build leaves behind beside its image: an image of each step, and of each stage that was only copied from.
//!
//! They have no labels, so nothing says whose they are. [`record`] has the image say it: it makes it anew with their ids in a
//! label. Only what lies between the head of a stage and what that was made `FROM` is a step.

use std::collections::{BTreeMap, HashMap};
use std::io;

use bollard::body_full;
use bollard::models::{BuildInfo, ImageSummary};
use bollard::query_parameters::BuildImageOptionsBuilder;
use bytes::Bytes as Chunk;
use cocktail_core::error::{Error, Result};
use cocktail_core::spec::Build;
use futures_util::StreamExt;
use tar::{Builder, Header};

use crate::client::bounded;
use crate::error::Call;
use crate::prune::{bare, list, names};
use crate::shared::Shared;
use crate::{label, times};

/// Most steps that are written down. What a program is told of its image must stay small.
const MOST: usize = 256;

/// Images that a build named.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    /// The last one of each stage, in their order.
    heads: Vec<String>,
    /// What each was made from, by short ids.
    bases: Vec<String>,
    /// The next id is that of a base.
    from: bool,
}

impl Stages {
    /// Takes what the engine says beside its words: the id of what a stage has led to.
    pub(crate) fn note(&mut self, step: &BuildInfo) {
        self.heads.extend(step.aux.as_ref().and_then(|head| head.id.clone()));
    }

    /// Takes a line of its words. A program that says the same can only have less be known as a step.
    pub(crate) fn read(&mut self, line: &str) {
        let from = |step: &str| step.get(..5).is_some_and(|word| word.eq_ignore_ascii_case("from "));
        if let Some((_, step)) = line.strip_prefix("Step ").and_then(|line| line.split_once(" : ")) {
            self.from = from(step);
        } else if let Some(id) = line.strip_prefix(" --->").filter(|_| std::mem::take(&mut self.from)) {
            // Of `scratch` there is no image.
            self.bases.extend(Some(id.trim().to_owned()).filter(|id| !id.is_empty()));
        }
    }

    /// Short ids of all steps that led to `reference`, each before what it was made from.
    fn steps(&self, images: &[ImageSummary], reference: &str) -> Vec<String> {
        let images: BTreeMap<&str, &ImageSummary> = images.iter().map(|image| (image.id.as_str(), image)).collect();
        let mut steps = Vec::new();
        for head in self.heads.iter().rev() {
            let mut next = images.get(head.as_str());
            while let Some(image) = next.filter(|_| steps.len() < MOST) {
                let id = bare(&image.id).to_owned();
                let named = names(image).any(|name| name != reference);
                if named || self.bases.contains(&id) || steps.contains(&id) {
                    break;
                }
                steps.push(id);
                next = images.get(image.parent_id.as_str());
            }
        }
        steps
    }
}

/// Makes an image anew that was just built, with the steps of its build in a label. One that says what is to be done with
/// images made from it stays as it is, and so do its steps when it goes.
pub(crate) async fn record(shared: &Shared, build: &Build, reference: &str, stages: &Stages) -> Result<()> {
    let Some(head) = stages.heads.last() else { return Ok(()) };
    let what = format!("write down what image {reference} is made of");
    let docker = shared.engine.api().await?;
    let seen = bounded(times::CONTROL, Call::Reads, &what, docker.inspect_image(head)).await?;
    let steps = stages.steps(&list(shared).await?, reference);
    let triggers = seen.config.and_then(|config| config.on_build).unwrap_or_default();
    if steps.is_empty() || !triggers.is_empty() {
        return Ok(());
    }
    let labels = HashMap::from([(label::BUILT_STEPS, steps.join(" "))]);
    let mut options = BuildImageOptionsBuilder::new().t(reference).labels(&labels).rm(true).forcerm(true);
    if let Some(platform) = &build.platform {
        options = options.platform(platform);
    }
    let archive = archive(head).map_err(|error| Error::unexpected(what.clone()).because(error))?;
    let mut said = docker.build_image(options.build(), None, Some(body_full(archive)));
    let made = async {
        while let Some(step) = said.next().await {
            step?;
        }
        Ok(())
    };
    bounded(times::START, Call::Acts, &what, made).await
}

/// Files of a build that changes nothing.
fn archive(head: &str) -> io::Result<Chunk> {
    let file = format!("FROM {head}\n");
    let mut header = Header::new_gnu();
    header.set_size(file.len() as u64);
    header.set_mode(0o644);
    let mut archive = Builder::new(Vec::new());
    archive.append_data(&mut header, "Dockerfile", file.as_bytes())?;
    archive.into_inner().map(Chunk::from)
}

#[cfg(test)]
mod tests {
    use bollard::models::ImageId;

    use super::*;

    fn id(letter: &str) -> String {
        format!("sha256:{}", letter.repeat(64))
    }

    /// An image with the names that it has, made from another one.
    fn image(letter: &str, from: &str, names: &[&str]) -> ImageSummary {
        let repo_tags = names.iter().map(|name| (*name).to_owned()).collect();
        let parent_id = if from.is_empty() { String::new() } else { id(from) };
        ImageSummary { id: id(letter), parent_id, repo_tags, ..ImageSummary::default() }
    }

    /// What a build says: lines, and ids of stages.
    fn said(lines: &[&str], heads: &[&str]) -> Stages {
        let mut stages = Stages::default();
        lines.iter().for_each(|line| stages.read(line));
        for head in heads {
            stages.note(&BuildInfo { aux: Some(ImageId { id: Some(id(head)) }), ..BuildInfo::default() });
        }
        stages
    }

    fn steps(stages: &Stages, images: &[ImageSummary]) -> String {
        stages.steps(images, "web:1").iter().map(|id| &id[..1]).collect()
    }

    #[test]
    fn steps_of_all_stages_are_found_down_to_what_they_were_made_from() {
        let base = image("1", "0", &["base:1"]);
        let images = [
            base,
            image("0", "", &[]),
            image("a", "1", &[]),
            image("b", "a", &["<none>:<none>"]),
            image("c", "1", &[]),
            image("d", "c", &["web:1"]),
        ];
        assert_eq!(steps(&said(&[], &["b", "d"]), &images), "dcba");
        assert_eq!(steps(&said(&[], &["1", "d"]), &images), "dc", "a stage without a step");
        assert_eq!(steps(&said(&[], &[]), &images), "");
    }

    #[test]
    fn what_nobody_has_named_and_a_stage_was_made_from_is_no_step() {
        let images = [image("1", "", &[]), image("a", "1", &[]), image("b", "a", &["web:1"])];
        let short = |letter: &str| letter.repeat(12);
        assert_eq!(steps(&said(&[], &["b"]), &images), "ba1", "from nothing");
        let scratch = ["Step 1/2 : FROM scratch", " --->", "Step 2/2 : COPY a b", &format!(" ---> {}", short("a"))];
        assert_eq!(steps(&said(&scratch, &["b"]), &images), "ba1");
        let named = ["Step 1/2 : from 1111", &format!(" ---> {}", short("1")), "Step 2/2 : COPY a b"];
        assert_eq!(steps(&said(&named, &["b"]), &images), "ba");
    }
}
