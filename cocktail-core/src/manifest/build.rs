//! Decodes `build`: how an image is made from files beside the manifest.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::image::is_path;
use super::table::{Item, Table};
use crate::spec::Build;

/// Most build arguments.
pub(super) const MAX_ARGS: usize = 256;

const BUILD: &str = "write build = { context = \".\" }";
const FILE: &str = "write file = \"docker/web.Dockerfile\", relative to the context";
const ARGS: &str = "write args = { VERSION = \"1\" }; no secrets: they stay in the image, and are shown";
const PLATFORM: &str = "write platform = \"linux/amd64\"";
const NAME: &str = "write name = \"team/web\", without host and tag";

/// Decodes the table. `None` after a problem, which has been reported.
pub(super) fn decode(item: Item<'_>) -> Option<Build> {
    let mut table = item.table(BUILD)?;
    let context = table.require("context", BUILD).and_then(|item| item.path(BUILD));
    let file = match table.take("file") {
        None => Some(PathBuf::from("Dockerfile")),
        Some(item) => decode_file(&item),
    };
    let args = table.take("args").map_or(Some(BTreeMap::new()), decode_args);
    let target = optional(table.take("target"), |item| decode_word(item, "write target = \"run\""));
    let platform = optional(table.take("platform"), |item| decode_word(item, PLATFORM));
    let registry = optional(table.take("registry"), |item| item.name_value("write registry = \"hub\""));
    let name = decode_name(&mut table, registry.as_ref().is_none_or(Option::is_some));
    table.finish();
    Some(Build {
        context: context?,
        file: file?,
        args: args?,
        target: target?,
        platform: platform?,
        registry: registry?,
        name: name?,
    })
}

/// A key that need not be there: `None` for one that is not well.
fn optional<T>(item: Option<Item<'_>>, read: impl FnOnce(&Item<'_>) -> Option<T>) -> Option<Option<T>> {
    item.map_or(Some(None), |item| read(&item).map(Some))
}

fn decode_file(item: &Item<'_>) -> Option<PathBuf> {
    let file = Path::new(item.filled_text(FILE)?);
    if !file.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        item.problem("the Dockerfile lies below the context", Some(FILE.to_owned()));
        return None;
    }
    Some(file.to_owned())
}

fn decode_args(item: Item<'_>) -> Option<BTreeMap<String, String>> {
    let mut table = item.table(ARGS)?;
    let mut args = BTreeMap::new();
    for (at, item) in table.drain().into_iter().enumerate() {
        if at == MAX_ARGS {
            item.key_problem(format!("at most {MAX_ARGS} entries can stand here"), None);
            return None;
        }
        let well = |it: char| it.is_ascii_alphanumeric() || it == '_';
        if item.name.is_empty() || !item.name.chars().all(well) || item.name.starts_with(|it: char| it.is_ascii_digit())
        {
            item.key_problem("is no name of a build argument", Some(ARGS.to_owned()));
            continue;
        }
        args.insert(item.name.to_owned(), item.text(ARGS)?.to_owned());
    }
    Some(args)
}

fn decode_word(item: &Item<'_>, help: &str) -> Option<String> {
    let word = item.filled_text(help)?;
    if word.len() > 128 || !word.bytes().all(|it| it.is_ascii_alphanumeric() || b"._/-".contains(&it)) {
        item.problem("has letters, digits, `.`, `_`, `/` and `-`", Some(help.to_owned()));
        return None;
    }
    Some(word.to_owned())
}

fn decode_name(table: &mut Table<'_>, has_registry: bool) -> Option<Option<String>> {
    let Some(item) = table.take("name") else { return Some(None) };
    let name = item.filled_text(NAME)?;
    if name.len() > 255 || !is_path(name) {
        item.problem(
            "the name of an image has small letters, digits, and `.`, `_`, `-` and `/` between them",
            Some(NAME.to_owned()),
        );
        return None;
    }
    if !has_registry {
        item.problem(
            "an image that is not pushed needs no name",
            Some("add `registry`, or leave `name` out".to_owned()),
        );
        return None;
    }
    Some(Some(name.to_owned()))
}
