//! Which bytes the name of an image stands for: asked when it is new in a Unit, and kept with the revision.
//!
//! [`keep`] is pure: who applies the same reference again gets what it was pinned to, so an apply that is about something else
//! never moves an image. [`pin`] asks the servers of images about the rest, and the first that answers is believed: all of
//! them ask the same registries. Nothing is left half done: an image is pinned, or is on that server and no registry knows it,
//! or no server answers at all, or nothing is applied.

use std::collections::{BTreeMap, BTreeSet};

use cocktail_core::contract::{ApplyOptions, Resolved};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::UnitId;
use cocktail_core::manifest::{Diagnostic, Parsed};
use cocktail_core::name::Name;
use cocktail_core::spec::{Image, Template};
use futures_util::future::join_all;

use crate::apply::Known;
use crate::shared::Shared;

/// What is asked once for all Units that want the same.
type Question = (Name, String, Vec<Name>);

/// Gives images that were applied before what they were pinned to; the Units whose images have to be asked about.
pub(crate) fn keep(files: &mut [Parsed], known: &Known, options: ApplyOptions) -> BTreeSet<UnitId> {
    let mut new = BTreeSet::new();
    for_each(files, |id, _, image, _| {
        if image.is_exact() {
            return;
        }
        match known.images.get(&id) {
            // What is built has its bytes in its name, and whoever builds it says the digest.
            Some(before) if before.reference == image.reference && (!options.pull || image.build.is_some()) => {
                image.digest.clone_from(&before.digest);
            }
            _ if image.build.is_some() => {}
            _ => {
                new.insert(id);
            }
        }
    });
    new
}

/// Pins the images of the Units in `new`. Those that nobody can pin are told as warnings, those that do not exist as errors.
///
/// # Errors
/// `Denied` for an image that a registry does not give to us, `Refused` where nobody answers.
pub(crate) async fn pin(
    shared: &Shared,
    files: &mut [Parsed],
    new: &BTreeSet<UnitId>,
    known: &Known,
) -> Result<Vec<Diagnostic>> {
    let mut answers: BTreeMap<Question, Result<Resolved>> = BTreeMap::new();
    for_each(files, |id, _, image, providers| {
        if new.contains(&id) {
            answers.insert(question(&id, image, providers), Ok(Resolved::default()));
        }
    });
    let asked = answers.into_keys().map(|question| async {
        let answer = ask(shared, &question, known).await;
        (question, answer)
    });
    let answers: BTreeMap<Question, Result<Resolved>> = join_all(asked).await.into_iter().collect();
    let mut found = Vec::new();
    let mut failed = None;
    for_each(files, |id, key, image, providers| {
        if !new.contains(&id) {
            return;
        }
        match answers.get(&question(&id, image, providers)) {
            Some(Ok(Resolved { digest, doubt })) => {
                image.digest.clone_from(digest);
                let doubt = doubt.as_ref().map(|doubt| format!(" ({doubt})")).unwrap_or_default();
                let help = match (digest.is_some(), doubt.is_empty()) {
                    (true, true) => return,
                    (true, false) => "this is what an engine has under that name: `apply --pull` asks again",
                    (false, _) => {
                        "`apply --pull` asks again, once a registry has it: then each server and a rollback get the same bytes"
                    }
                };
                found.push((key, format!("{}{doubt}", image.said()), Some(help)));
            }
            Some(Err(error)) if *error.kind() == ErrorKind::InvalidConfig => found.push((key, error.chain(), None)),
            Some(Err(error)) => {
                failed.get_or_insert_with(|| refusal(&id, image, error));
            }
            None => {}
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let told = |(key, message, help): (Key, String, Option<&str>)| match help {
        Some(help) => key.warning(files, &message, help),
        None => key.error(files, &message, None),
    };
    Ok(found.into_iter().map(told).collect())
}

/// Where an image stands.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    file: usize,
    key: String,
}

impl Key {
    /// Where it says how it is built.
    pub(crate) fn of_build(self) -> Self {
        let unit = self.key.strip_suffix("image").unwrap_or(&self.key);
        Self { file: self.file, key: format!("{unit}build") }
    }

    pub(crate) fn error(&self, files: &[Parsed], message: &str, help: Option<String>) -> Diagnostic {
        let error = files[self.file].spans.error(&self.key, message);
        match help {
            Some(help) => error.with_help(help),
            None => error,
        }
    }

    pub(crate) fn warning(&self, files: &[Parsed], message: &str, help: &str) -> Diagnostic {
        files[self.file].spans.warning(&self.key, message).with_help(help)
    }
}

/// Shows every image of the files, with its Unit, its place, and the providers that may run it.
pub(crate) fn for_each(files: &mut [Parsed], mut show: impl FnMut(UnitId, Key, &mut Image, &[Name])) {
    for (at, file) in files.iter_mut().enumerate() {
        let Some(service) = &mut file.service else { continue };
        for (map, spec) in &mut service.maps {
            for (name, unit) in &mut spec.units {
                let Template { image: Some(image), providers, .. } = &mut unit.template else { continue };
                let id = UnitId::new(service.name.clone(), map.clone(), name.clone());
                let key = Key { file: at, key: format!("maps.{map}.units.{name}.image") };
                show(id, key, image, providers);
            }
        }
    }
}

fn question(id: &UnitId, image: &Image, providers: &[Name]) -> Question {
    (id.service.clone(), image.reference.clone(), providers.to_vec())
}

/// Asks one server after the other until one has an answer: each would ask the same registry, which may count how often.
async fn ask(shared: &Shared, (service, reference, providers): &Question, known: &Known) -> Result<Resolved> {
    let (mut failed, mut doubt) = (None, None);
    for (_, runtime) in known.servers(shared, providers) {
        match runtime.resolve(reference, service).await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.context("engine").is_some() => doubt = Some(error.chain()),
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    // Where no server answers, or the first one has to be bought, nothing is started before one does.
    failed.map_or(Ok(Resolved { digest: None, doubt }), Err)
}

/// Why nothing is applied, for whoever applies.
fn refusal(id: &UnitId, image: &Image, error: &Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::Denied => ErrorKind::Denied,
        // It may be well in a moment, and it is not the Manager that cannot be reached.
        kind if kind.is_transient() => ErrorKind::Refused,
        kind => kind.clone(),
    };
    let what = format!("nothing was applied: nobody says what the image {} of {id} is", image.reference);
    Error::new(kind, what).because(error.clone())
}
