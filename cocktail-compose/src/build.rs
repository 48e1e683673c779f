//! `build`: how an image is made from files beside the Compose file.

use std::path::{Component, Path, PathBuf};

use crate::PathKind;
use crate::field::{Field, Keys};
use crate::unit::Build;
use crate::yaml::{Outcome, shown};

/// Beginnings of contexts that are no folders.
const REMOTE: [&str; 8] =
    ["http://", "https://", "git://", "ssh://", "git@", "github.com/", "docker-image://", "oci-layout://"];

/// What is so, and what to do instead, for keys that cannot be said in a manifest.
const KEYS: [(&str, &str, &str); 15] = [
    ("additional_contexts", "files come from the context alone", "copy them into it, or name an image in FROM"),
    ("cache_from", "what the engine has built before is used again, and nothing else", "it is left out"),
    ("cache_to", "what is built stays on its engine", "it is left out"),
    ("entitlements", "builds have no privileges", "it is left out"),
    ("extra_hosts", "no lines are added to /etc/hosts", "use names that can be looked up"),
    ("isolation", "the runtime is the engine's choice", "it is left out"),
    ("labels", "images get no labels of one's own", "write LABEL into the Dockerfile"),
    ("network", "the network is the engine's choice", "it is left out"),
    ("provenance", "nothing is attested", "it is left out"),
    ("sbom", "nothing is attested", "it is left out"),
    ("secrets", "a build has no secrets", "have the image made elsewhere, and name it in `image`"),
    ("shm_size", "/dev/shm has the engine's size", "set `default-shm-size` for the engine"),
    ("ssh", "a build has no keys", "have the image made elsewhere, and name it in `image`"),
    ("tags", "the image is named by a hash of its files", "write `registry` and `name` to have it pushed"),
    ("ulimits", "limits are the engine's choice", "set them for the engine"),
];

/// Takes what `build` says. `None` for what is no folder of this machine, which has been told.
pub(crate) fn decode(field: &Field<'_>, of: &mut Keys<'_>, instead: &str) -> Outcome<Option<Build>> {
    let mut keys = match field.is_map() {
        true => Some(field.keys()?),
        false => None,
    };
    let context = match &mut keys {
        Some(keys) => keys.text("context")?,
        None => Some(field.text()?),
    };
    let context = context.map(|context| context.trim().to_owned()).filter(|context| !context.is_empty());
    let context = context.unwrap_or_else(|| ".".to_owned());
    if REMOTE.iter().any(|begin| context.starts_with(begin)) || context.ends_with(".git") {
        let what = format!("`{}` is no folder of this machine", shown(&context));
        field.note(what, format!("{instead}: have a copy beside the manifest, and write `build`"));
        return Ok(None);
    }
    let path = field.cx.path(&context);
    if context.contains('\0') || path.starts_with('~') {
        field.note(format!("{} is no path here", shown(&context)), format!("{instead}: write the whole path"));
        return Ok(None);
    }
    let own = Path::new(&path).components().all(|part| part == Component::CurDir);
    if !own && field.cx.kind(&path) != Some(PathKind::Folder) {
        let what = format!("there is no folder {}", shown(&context));
        field.note(what, "make it before you apply");
    }
    let mut build = Build { context: path, ..Build::default() };
    if let Some(keys) = keys {
        details(keys, &mut build)?;
    }
    // What the service says counts: it is where its containers run.
    build.platform = of.text("platform")?.or(build.platform);
    Ok(Some(build))
}

fn details(mut keys: Keys<'_>, build: &mut Build) -> Outcome<()> {
    if let Some((file, field)) = keys.take_as("dockerfile", Field::text)? {
        build.file = below(&field, &build.context, &file);
        if build.file.is_none() {
            let what = format!("{} is not below the context", shown(&file));
            field.note(what, "the file `Dockerfile` of the context is built instead: move it there");
        }
    }
    if let Some(field) = keys.take("dockerfile_inline") {
        let instead = "the file `Dockerfile` of the context is built instead: write it there";
        field.note("a Dockerfile is a file of the context", instead);
    }
    if let Some(field) = keys.take("args") {
        for (name, value, field) in field.pairs()? {
            let given = value.is_none();
            // One that is not set has the value of the Dockerfile, as in Compose.
            let Some(value) = value.or_else(|| field.cx.variable(&name)) else { continue };
            if given {
                let what = format!("the value of the variable {} of whoever imports is in the manifest", shown(&name));
                field.note(
                    what,
                    "see that it is no secret: what an image is built with is shown to all who see the Unit",
                );
            }
            build.args.retain(|(other, _)| *other != name);
            build.args.push((name, value));
        }
    }
    build.target = keys.text("target")?;
    if let Some(field) = keys.take("platforms") {
        let platforms = field.texts()?;
        if let [first, _, ..] = platforms.as_slice() {
            let what = format!("an image is built for one platform: {}", shown(first));
            field.note(what, "leave `platform` out, and each engine builds for its own");
        }
        build.platform = platforms.into_iter().next();
    }
    for (key, what, instead) in [
        ("no_cache", "what an engine has built before is used again", "change an argument to build anew"),
        ("pull", "what an engine has is not fetched again", "name a digest in FROM"),
        ("privileged", "builds have no privileges", "have the image made elsewhere, and name it in `image`"),
    ] {
        if let Some(field) = keys.take(key)
            && field.boolean()?
        {
            field.note(what, instead);
        }
    }
    for (key, field) in keys.rest() {
        match KEYS.iter().find(|(known, ..)| *known == key) {
            Some((_, what, instead)) => field.note(*what, *instead),
            None => field.note("is not known here", "it is left out"),
        }
    }
    Ok(())
}

/// The Dockerfile relative to its context; `None` where it lies elsewhere.
fn below(field: &Field<'_>, context: &str, file: &str) -> Option<String> {
    let context = field.cx.source.folder.join(context);
    let whole = lexical(&context.join(file));
    let file = whole.strip_prefix(lexical(&context)).ok()?;
    file.to_str().filter(|file| !file.is_empty() && !file.contains('\0')).map(str::to_owned)
}

/// A path without `.` and `..`, whatever links there are: as Compose reads it.
fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_without_a_counterpart_stand_in_order_and_once() {
        assert!(KEYS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn a_path_has_no_detours() {
        assert_eq!(lexical(Path::new("/a/./b/../../c/d")), Path::new("/c/d"));
        assert_eq!(lexical(Path::new("/../a")), Path::new("/a"));
    }
}
