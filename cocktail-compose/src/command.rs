//! `command`, `entrypoint`, `image` and `read_only`.

use crate::build;
use crate::field::{Field, Keys};
use crate::unit::Unit;
use crate::yaml::{Outcome, shown};

/// Takes the image, or how it is built.
pub(crate) fn image(keys: &mut Keys<'_>, unit: &mut Unit, of: &Field<'_>) -> Outcome<()> {
    let image = keys.take_as("image", |field| Ok(field.text()?.trim().to_owned()))?;
    let build = keys.take("build");
    unit.image = placeholder(&unit.name);
    match (image, build) {
        (image, Some(build)) => {
            let image = image.filter(|(image, _)| !image.is_empty());
            if let Some((image, _)) = &image {
                unit.image.clone_from(image);
            }
            unit.build = build::decode(&build, keys, &format!("`{}` stands there instead", shown(&unit.image)))?;
            if let (Some((image, field)), Some(_)) = (image, &unit.build) {
                let what = format!("what is built is not called `{}`, but by a hash of its files", shown(&image));
                field.note(
                    what,
                    "write `registry` and `name` into `build` to have it pushed, or `image` alone to fetch it",
                );
            }
        }
        (Some((image, field)), None) if image.is_empty() => {
            field.note("is empty", format!("`{}` stands there instead: name the image", unit.image));
        }
        (Some((image, _)), None) => unit.image = image,
        (None, None) => {
            let instead = format!("`{}` stands there instead: name the image", unit.image);
            of.cx.note(of.service, "image", Some(of.place.line), "there is no `image` and no `build`", instead);
        }
    }
    Ok(())
}

/// The image that stands where none is named.
pub(crate) fn placeholder(name: &str) -> String {
    format!("{name}:latest")
}

/// Takes `entrypoint`, `command` and `read_only`.
pub(crate) fn decode(keys: &mut Keys<'_>, unit: &mut Unit) -> Outcome<()> {
    unit.read_only = keys.take("read_only").map(|field| field.boolean()).transpose()?.unwrap_or(false);
    let entrypoint = keys.take_as("entrypoint", words)?;
    let command = keys.take_as("command", words)?;
    match (entrypoint, command) {
        // An empty entrypoint takes that of the image away: the command is the program then.
        (Some((empty, field)), command) if empty.is_empty() => match command {
            Some((mut words, _)) if !words.is_empty() => {
                let arguments = words.split_off(1);
                unit.entrypoint = Some(words);
                unit.command = Some(arguments).filter(|arguments| !arguments.is_empty());
            }
            _ => field.note("is empty, and there is no command", "the image's own entrypoint is used"),
        },
        (entrypoint, command) => {
            unit.entrypoint = entrypoint.map(|(words, _)| words);
            match command {
                // With an entrypoint of one's own, the image's command does not count.
                Some((words, field)) if words.is_empty() && unit.entrypoint.is_none() => {
                    field.note("is empty", "the image's own command is used: name the entrypoint as well");
                }
                command => unit.command = command.map(|(words, _)| words).filter(|words| !words.is_empty()),
            }
        }
    }
    let empty_first = |words: &Option<Vec<String>>| words.as_ref().is_some_and(|words| words[0].is_empty());
    for (key, words) in [("entrypoint", &mut unit.entrypoint), ("command", &mut unit.command)] {
        if empty_first(words) {
            *words = None;
            let what = "begins with an empty word";
            keys.of().cx.note(Some(&unit.service), key, Some(unit.line), what, "name a program first");
        }
    }
    Ok(())
}

/// Words of a list, or of a text as a shell splits it.
pub(crate) fn words(field: &Field<'_>) -> Outcome<Vec<String>> {
    if field.is_list() {
        return field.texts();
    }
    let text = field.text()?;
    if text.split_whitespace().any(|word| word.starts_with('#')) {
        field.note("`#` begins a comment here", "write a list of words if it is one of them");
    }
    shlex::split(&text).ok_or_else(|| field.problem("a quote is not closed", "write a list of words"))
}
