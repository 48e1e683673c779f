//! The manifest goes through its own decoder before anybody sees it.
//!
//! What the decoder refuses is taken out, with a note that says what it said, and it is asked again. The steps before this
//! one know the rules of a manifest, so that this is for what they do not know.

use std::collections::BTreeMap;
use std::path::Path;

use cocktail_core::manifest::{self, Diagnostic, MAX_TEXT, Severity};
use toml_edit::{DocumentMut, Item, TableLike, value};

use crate::command::placeholder;
use crate::context::Context;
use crate::project::Project;
use crate::unit::Unit;
use crate::write;
use crate::yaml::{Outcome, Place};

/// How often the decoder is asked. Each time at least one key is gone.
const ROUNDS: usize = 200;

/// Name of the manifest in what the decoder says.
const NAME: &str = "the manifest";

/// A manifest that decodes, and the number of its Units.
///
/// # Errors
/// The manifest would be too long, or what is wrong with it cannot be taken out.
pub(crate) fn repaired(context: &Context<'_>, project: &Project) -> Outcome<(String, usize)> {
    let mut document = write::document(context, project);
    let units: BTreeMap<&str, &Unit> = project.units.iter().map(|unit| (unit.name.as_str(), unit)).collect();
    let place = Place { line: 1, column: 1 };
    for _ in 0..ROUNDS {
        let text = document.to_string();
        if text.len() > MAX_TEXT {
            return Err(context.problem(place, "the manifest would be longer than 1MiB", "divide the file"));
        }
        let problems = match manifest::parse(&text, Path::new(NAME), context.source.folder) {
            Ok(_) => return Ok((text, project.units.len())),
            Err(problems) => problems,
        };
        let errors: Vec<&Diagnostic> = problems.iter().filter(|it| it.severity == Severity::Error).collect();
        let removed = errors.iter().filter(|problem| remove(context, &mut document, &units, problem)).count();
        if removed == 0 {
            let why = errors.first().map_or_else(String::new, |problem| format!(": {}", problem.message));
            return Err(context.problem(place, format!("no manifest can be made of this{why}"), ""));
        }
    }
    Err(context.problem(place, "too much of the file cannot be said in a manifest", "divide it"))
}

/// Takes out what a problem is about, as little as possible. Says whether anything was there.
fn remove(
    context: &Context<'_>,
    document: &mut DocumentMut,
    units: &BTreeMap<&str, &Unit>,
    problem: &Diagnostic,
) -> bool {
    let parts = parts(&problem.key);
    let [maps, map, of_units, name, rest @ ..] = parts.as_slice() else { return false };
    if maps != "maps" || of_units != "units" || rest.is_empty() {
        return false;
    }
    let table = document.get_mut(maps).and_then(|item| item.get_mut(map)).and_then(|item| item.get_mut(of_units));
    let Some(table) = table.and_then(|item| item.get_mut(name)).and_then(Item::as_table_like_mut) else { return false };
    let Some(unit) = units.get(name.as_str()) else { return false };
    let no_build = rest[0] == "build" && rest.get(1).is_none_or(|key| key == "context");
    let (taken, instead) = if rest[0] == "image" || no_build {
        table.remove("build");
        let instead = placeholder(name);
        if table.get("image").and_then(Item::as_str) == Some(instead.as_str()) {
            return false;
        }
        table.insert("image", value(instead.as_str()));
        (true, format!("`{instead}` stands there instead: name the image"))
    } else {
        (cut(table, rest), "it is left out".to_owned())
    };
    if taken {
        let (key, what) = (rest.join("."), problem.message.as_str());
        context.note(Some(&unit.service), key, Some(unit.line), what, instead);
    }
    taken
}

/// Removes the deepest key of a path that is there.
fn cut(table: &mut dyn TableLike, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    if !rest.is_empty() {
        let inner = table.get_mut(first).and_then(Item::as_table_like_mut);
        if inner.is_some_and(|inner| cut(inner, rest)) {
            return true;
        }
    }
    table.remove(first).is_some()
}

/// The parts of a key as the decoder writes it, without places in arrays.
fn parts(key: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut characters = key.chars();
    while let Some(character) = characters.next() {
        let Some(last) = parts.last_mut() else { break };
        match character {
            '"' => quoted = !quoted,
            '\\' if quoted => last.extend(characters.next()),
            '.' if !quoted => parts.push(String::new()),
            '[' if !quoted => for _ in characters.by_ref().take_while(|it| *it != ']') {},
            other => last.push(other),
        }
    }
    parts
}
