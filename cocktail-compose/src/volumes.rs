//! `volumes` and `tmpfs` of a service.

use std::path::{Component, Path};

use crate::PathKind;
use crate::field::{Field, Keys};
use crate::names::{self, Taken};
use crate::unit::{Kind, Volume};
use crate::yaml::{Outcome, shown};

/// Most volumes of a Unit.
const MOST: usize = 64;

/// Folders of the host that no container may have.
const REFUSED: [&str; 5] = ["/proc", "/sys", "/dev", "/run/docker.sock", "/var/run/docker.sock"];

/// Takes the volumes, those that lie around others first.
pub(crate) fn decode(keys: &mut Keys<'_>) -> Outcome<Vec<Volume>> {
    let mut found: Vec<(Volume, Field<'_>)> = Vec::new();
    if let Some(field) = keys.take("volumes") {
        for item in field.list_or_one()? {
            let volume = if item.is_map() { long(&item)? } else { short(&item)? };
            found.extend(volume.map(|volume| (volume, item)));
        }
    }
    if let Some(field) = keys.take("tmpfs") {
        for item in field.list_or_one()? {
            let text = item.text()?;
            let (mount, options) = text.split_once(':').unwrap_or((&text, ""));
            let size = options.split(',').find_map(|option| option.strip_prefix("size="));
            let size = size.and_then(crate::quantity::size).filter(|size| size.0 > 0);
            let mut volume = new(mount, Kind::Ephemeral);
            volume.size = size;
            item.note(
                "the folder lies on the disk of the engine, not in memory",
                "it goes with its container all the same",
            );
            found.push((volume, item));
        }
    }
    Ok(distinct(found))
}

fn new(mount: &str, kind: Kind) -> Volume {
    Volume { name: String::new(), mount: mount.to_owned(), kind, size: None, read_only: false }
}

/// Leaves out what cannot stand beside the others, and gives names.
fn distinct(found: Vec<(Volume, Field<'_>)>) -> Vec<Volume> {
    let mut last: Vec<(Volume, Field<'_>)> = Vec::new();
    for (mut volume, field) in found {
        let path = Path::new(&volume.mount);
        let plain = path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
        if !path.is_absolute() || !plain || path.parent().is_none() || volume.mount.contains('\0') {
            let what = format!("`{}` is no absolute path below / in the image", shown(&volume.mount));
            field.note(what, "it is left out: write the whole path");
            continue;
        }
        volume.mount = path.components().collect::<std::path::PathBuf>().to_string_lossy().into_owned();
        match last.iter().position(|(other, _)| other.mount == volume.mount) {
            Some(at) => last[at] = (volume, field),
            None if last.len() == MOST => {
                field.note(format!("a Unit has at most {MOST} volumes"), "the others are left out");
            }
            None => last.push((volume, field)),
        }
    }
    // The outer one counts where two lie in each other.
    let mut order: Vec<usize> = (0..last.len()).collect();
    order.sort_by_key(|&at| (Path::new(&last[at].0.mount).components().count(), at));
    let mut outer: Vec<usize> = Vec::new();
    for &at in &order {
        let (volume, field) = &last[at];
        match outer.iter().find(|&&other| Path::new(&volume.mount).starts_with(&last[other].0.mount)) {
            Some(&other) => {
                let what = format!("{} lies in the volume {}", shown(&volume.mount), shown(&last[other].0.mount));
                field.note(what, "it is left out: volumes do not lie in each other");
            }
            None => outer.push(at),
        }
    }
    let mut taken = Taken::default();
    let kept = last.into_iter().enumerate().filter(|(at, _)| outer.contains(at));
    kept.map(|(_, (mut volume, _))| {
        let end = match &volume.kind {
            Kind::Named(name) => name.as_str(),
            Kind::Bind(_) | Kind::Ephemeral => volume.mount.rsplit('/').next().unwrap_or_default(),
        };
        volume.name = taken.unique(&names::nearest(end, "data"));
        volume
    })
    .collect()
}

/// `[SOURCE:]TARGET[:OPTIONS]`.
fn short(field: &Field<'_>) -> Outcome<Option<Volume>> {
    let text = field.text()?;
    let parts: Vec<&str> = text.split(':').collect();
    let (source, mount, options) = match parts.as_slice() {
        [mount] => return Ok(Some(new(mount, Kind::Ephemeral))),
        [source, mount] => (*source, *mount, ""),
        [source, mount, options] => (*source, *mount, *options),
        _ => {
            field.note(format!("`{}` has too many colons", shown(&text)), "write SOURCE:TARGET");
            return Ok(None);
        }
    };
    let kind = match source.chars().next() {
        None => {
            field.note(format!("{} has no source", shown(mount)), "it is left out: name a volume or a folder");
            None
        }
        Some('.' | '/' | '~') => bind(field, source, mount),
        Some(_) => Some(Kind::Named(source.to_owned())),
    };
    let mut only_read = false;
    for option in options.split(',').filter(|option| !option.is_empty() && kind.is_some()) {
        match option {
            "rw" | "cached" | "delegated" | "consistent" => {}
            "ro" => {
                read_only(field, mount);
                only_read = true;
            }
            other => field.note(format!("the option `{}` has no counterpart", shown(other)), "it is left out"),
        }
    }
    Ok(kind.map(|kind| Volume { read_only: only_read, ..new(mount, kind) }))
}

/// `type`, `source`, `target` and what belongs to them.
fn long(field: &Field<'_>) -> Outcome<Option<Volume>> {
    let mut keys = field.keys()?;
    let mut text = |key: &str| keys.take(key).map(|field| field.text()).transpose();
    let (kind, source, mount) = (text("type")?, text("source")?, text("target")?);
    let (source, mount) = (source.unwrap_or_default(), mount.unwrap_or_default());
    let only_read = keys.take("read_only").map(|field| field.boolean()).transpose()?.unwrap_or(false);
    let mut size = None;
    for key in ["bind", "volume", "tmpfs"] {
        let Some(of) = keys.take(key) else { continue };
        let mut inner = of.keys()?;
        // Compose makes a folder that is missing; that it is not made here is told where it is missing.
        inner.take("create_host_path");
        if let Some(field) = inner.take("size") {
            size = Some(field.size()?).filter(|size| size.0 > 0);
        }
        inner.finish("it is left out");
    }
    keys.take("consistency");
    keys.finish("it is left out");
    let kind = match kind.as_deref() {
        Some("bind") => bind(field, &source, &mount),
        Some("volume") if source.is_empty() => Some(Kind::Ephemeral),
        Some("volume") => Some(Kind::Named(source)),
        Some("tmpfs") => {
            field.note(
                "the folder lies on the disk of the engine, not in memory",
                "it goes with its container all the same",
            );
            Some(Kind::Ephemeral)
        }
        other => {
            let other = other.unwrap_or_default();
            field.note(format!("a volume of the type `{}` has no counterpart", shown(other)), "it is left out");
            None
        }
    };
    if only_read && kind.is_some() {
        read_only(field, &mount);
    }
    Ok(kind.map(|kind| Volume { size, read_only: only_read, ..new(&mount, kind) }))
}

fn read_only(field: &Field<'_>, mount: &str) {
    field.note(
        format!("{} can be written, too", shown(mount)),
        "volumes cannot be read-only: take care of its permissions",
    );
}

/// A folder of the host, unless it cannot be one.
fn bind(field: &Field<'_>, source: &str, mount: &str) -> Option<Kind> {
    let path = field.cx.path(source);
    let folder = field.cx.source.folder;
    let whole: std::path::PathBuf = folder.join(&path).components().collect();
    let shown_source = shown(source);
    if source.contains('\0') || path.starts_with('~') {
        field.note(format!("{shown_source} is no path here"), "it is left out: write the whole path");
        return None;
    }
    if whole == Path::new("/") || REFUSED.iter().any(|refused| whole.starts_with(refused)) {
        let what = format!("{shown_source} gives the container control of the host");
        field.note(what, "it is left out: bind the one folder that is needed");
        return None;
    }
    let has_ending = |path: &str| Path::new(path).extension().is_some();
    match field.cx.kind(&path) {
        Some(PathKind::Folder) => {}
        None if !has_ending(mount) => {
            field.note(format!("{shown_source} is not there, and is not made"), "make the folder before you apply");
        }
        Some(PathKind::File) | None => {
            let instead = "it is left out: bind its folder, or make it part of the image";
            field.note(format!("{shown_source} is a file, and only folders are bound"), instead);
            return None;
        }
    }
    if whole.components().any(|part| part == Component::ParentDir) || !whole.starts_with(folder) {
        let what = format!("{shown_source} is not below the folder of the manifest");
        field.note(what, "name a folder around it in `manager.binds` of the settings");
    }
    Some(Kind::Bind(path))
}
