//! Decodes what an image is, how it is started, and which keys have no meaning beside it.

use super::build;
use super::environment::Variables;
use super::table::{Item, Table};
use super::unit::decode_command;
use crate::spec::{BUILT_HERE, Image};

/// Longest reference; those of real registries are far shorter.
const LONGEST: usize = 512;

const IMAGE: &str = "write image = \"registry.example.com/shop/web:1.4\", or a name and @sha256:…";
const ENTRYPOINT: &str = "write it as an array: [\"/usr/bin/server\"]";

/// Takes `image`, `build`, `entrypoint` and `read_only`. Says whether there was an image, be it well or not.
pub(super) fn decode(table: &mut Table<'_>, variables: &Variables) -> (bool, Option<Image>) {
    let (entrypoint, read_only) = (table.take("entrypoint"), table.take("read_only"));
    let (image, built) = (table.take("image"), table.take("build"));
    if image.is_none() && built.is_none() {
        if let Some(entrypoint) = entrypoint {
            let help = "add `image`, or leave `entrypoint` out";
            entrypoint.key_problem("only an image has an entrypoint", Some(help.to_owned()));
        }
        if let Some(read_only) = read_only {
            let help = "add `image`, or leave `read_only` out";
            read_only.key_problem("only an image has files of its own", Some(help.to_owned()));
        }
        return (false, None);
    }
    if let (Some(_), Some(built)) = (&image, &built) {
        let help = "keep one of them: `build` makes the image, and names it";
        built.key_problem("a unit runs an `image` or what it builds", Some(help.to_owned()));
    }
    let entrypoint = match entrypoint.map(|item| decode_entrypoint(&item, variables)) {
        None => Some(None),
        Some(well) => well.map(Some),
    };
    let read_only = read_only.and_then(|item| item.boolean());
    // The Manager names what is built.
    let reference = image.map_or(Some(String::new()), |item| decode_reference(&item));
    let build = match built.map(build::decode) {
        None => Some(None),
        Some(well) => well.map(Some),
    };
    let image = reference.zip(entrypoint).zip(build);
    let image = image.map(|((reference, entrypoint), build)| {
        let digest = None;
        Image { reference, entrypoint, read_only, digest, build }
    });
    (true, image)
}

fn decode_reference(item: &Item<'_>) -> Option<String> {
    let reference = item.filled_text(IMAGE)?;
    if let Err(why) = check(reference) {
        item.problem(why, Some(IMAGE.to_owned()));
        return None;
    }
    if reference.starts_with(BUILT_HERE) {
        let help = "write `build`, which names it itself, or another name";
        item.problem("such names have images that a unit builds", Some(help.to_owned()));
        return None;
    }
    Some(reference.to_owned())
}

fn decode_entrypoint(item: &Item<'_>, variables: &Variables) -> Option<Vec<String>> {
    if item.value().is_str() {
        item.problem("expected an array, found a string: no shell splits it", Some(ENTRYPOINT.to_owned()));
        return None;
    }
    decode_command(item, variables)
}

/// Why a reference names no image, if it does not.
fn check(reference: &str) -> Result<(), &'static str> {
    if reference.len() > LONGEST {
        return Err("the reference of the image is too long");
    }
    let (named, digest) = match reference.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (reference, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err("the digest of an image is `sha256:` and 64 hexadecimal digits");
    }
    let (host, path) = match named.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), path),
        _ => (None, named),
    };
    let host_is_well = |host: &str| host.bytes().all(|it| it.is_ascii_alphanumeric() || b".-:[]".contains(&it));
    if host.is_some_and(|host| !host_is_well(host)) {
        return Err("the registry of the image is no host name");
    }
    let (path, tag) = match path.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (path, None),
    };
    if !is_path(path) {
        return Err("the name of an image has small letters, digits, and `.`, `_`, `-` and `/` between them");
    }
    let tag_is_well = |tag: &str| {
        let inside = |it: u8| it.is_ascii_alphanumeric() || b"._-".contains(&it);
        tag.len() <= 128
            && tag.bytes().all(inside)
            && tag.starts_with(|it: char| it.is_ascii_alphanumeric() || it == '_')
    };
    if tag.is_some_and(|tag| !tag_is_well(tag)) {
        return Err("the tag of an image has letters, digits, `.`, `_` and `-`, at most 128");
    }
    Ok(())
}

/// Whether a text is the name of an image without host and tag.
pub(super) fn is_path(path: &str) -> bool {
    let part_is_well = |part: &str| {
        let inside = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || b"._-".contains(&it);
        let edge = |it: Option<&u8>| it.is_some_and(|it| it.is_ascii_lowercase() || it.is_ascii_digit());
        part.bytes().all(inside) && edge(part.as_bytes().first()) && edge(part.as_bytes().last())
    };
    path.split('/').all(part_is_well)
}

fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(&it))
}

/// Reports what has no meaning for an image: it must be told before the keys are taken.
pub(super) fn refuse_others(table: &mut Table<'_>) {
    if let Some(item) = table.take("artifact") {
        let help = "leave it out: the image has the files";
        item.key_problem("an image needs no artifact", Some(help.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_as_people_write_them_name_an_image() {
        let digest = format!("web@sha256:{}", "a1".repeat(32));
        let well = ["web", "web:1.4", "library/web:latest", "localhost:5000/a/b_c.d-e:T-1_x", "ghcr.io/x/y", &digest];
        for reference in well {
            assert_eq!(check(reference), Ok(()), "{reference}");
        }
    }

    #[test]
    fn what_names_no_image_is_refused_with_a_reason() {
        let digest = format!("web@sha256:{}", "A1".repeat(32));
        let long = "a".repeat(LONGEST + 1);
        let bad = ["", "Web", "web:", "web: 1", "a//b", "/web", "web/", "web@sha256:12", "ex ample.com/web", "-web"];
        for reference in bad.into_iter().chain([digest.as_str(), long.as_str()]) {
            assert!(check(reference).is_err(), "{reference}");
        }
    }
}
