//! What can be said about a template before anything is made of it.

use std::env;
use std::fs;

use cocktail_core::spec::{SecretSource, Template, VolumeKind};

use crate::body::RLIMITS;
use crate::shared::Fixed;
use crate::volume;

type Problems = Vec<(String, String)>;

/// Problems that need no look at anything.
pub(crate) fn without_looking(template: &Template) -> Problems {
    let mut problems = Problems::new();
    if template.image.is_none() {
        let key = if template.microservices.is_empty() { "command" } else { "worker" };
        let sentence = "an engine runs images, not programs: write `image`, or name another `provider`";
        problems.push((key.to_owned(), sentence.to_owned()));
    }
    let unknown = template.rlimits.keys().filter(|name| !RLIMITS.contains(&name.as_str()));
    problems.extend(unknown.map(|name| {
        let sentence = "this limit cannot be set for containers of an engine";
        (format!("rlimits.{name}"), sentence.to_owned())
    }));
    problems
}

/// The manifest key below the unit, and a sentence, for each problem.
pub(crate) fn template(template: &Template, fixed: &Fixed) -> Problems {
    let mut problems = without_looking(template);
    let unset = |name: &String| env::var_os(name).is_none();
    let missing = |name: &str| format!("the variable {name} is not set in the manager's environment");
    for name in template.env_from.iter().filter(|name| unset(name)) {
        problems.push(("env_from".to_owned(), missing(name)));
    }
    for (name, source) in &template.secrets {
        let sentence = match source {
            SecretSource::Env(from) if unset(from) => missing(from),
            SecretSource::File(path) => match fs::File::open(path) {
                Err(error) => format!("{} cannot be read: {}", path.display(), error.kind()),
                Ok(_) => continue,
            },
            SecretSource::Env(_) => continue,
        };
        problems.push((format!("secrets.{name}"), sentence));
    }
    for (name, volume) in template.volumes.iter().filter(|(_, volume)| volume.kind == VolumeKind::Bind) {
        if let Some(problem) = volume.source.as_deref().and_then(|source| volume::bind_problem(source, fixed)) {
            problems.push((format!("volumes.{name}.source"), problem));
        }
    }
    problems
}
