//! Decodes volumes. Where a volume appears is a relative path without `..`, so that no link leaves the worker's folder;
//! inside an image it is an absolute one.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::table::{Item, Table};
use crate::name::Name;
use crate::spec::{VolumeKind, VolumeSpec};

/// Most volumes of a Unit.
const MAX_VOLUMES: usize = 64;

const VOLUME: &str = "write volumes.data = { mount = \"data\", kind = \"exclusive\" }";

const KINDS: [(&str, VolumeKind); 4] = [
    ("exclusive", VolumeKind::Exclusive),
    ("shared", VolumeKind::Shared),
    ("ephemeral", VolumeKind::Ephemeral),
    ("bind", VolumeKind::Bind),
];

/// Folders whose content is the host itself.
const REFUSED: [&str; 5] = ["/proc", "/sys", "/dev", "/run/docker.sock", "/var/run/docker.sock"];

/// Decodes `volumes`. Without `kind` a volume is exclusive, the kind that can lose nothing.
pub(super) fn decode(item: Option<Item<'_>>, image: bool) -> BTreeMap<Name, VolumeSpec> {
    let Some(table) = item.and_then(|item| item.table(VOLUME)) else {
        return BTreeMap::new();
    };
    let mut volumes: BTreeMap<Name, VolumeSpec> = BTreeMap::new();
    for (name, item) in table.named(MAX_VOLUMES) {
        let place = item.clone();
        let Some(volume) = item.table(VOLUME).and_then(|table| decode_volume(table, image)) else {
            continue;
        };
        let inside =
            |other: &VolumeSpec| other.mount.starts_with(&volume.mount) || volume.mount.starts_with(&other.mount);
        if let Some((other, _)) = volumes.iter().find(|(_, other)| inside(other)) {
            place.key_problem(format!("the mount lies in that of volume `{other}`, or around it"), None);
        }
        volumes.insert(name, volume);
    }
    volumes
}

fn decode_volume(mut table: Table<'_>, image: bool) -> Option<VolumeSpec> {
    let mount =
        table.require("mount", VOLUME).and_then(|item| if image { decode_inside(&item) } else { decode_mount(&item) });
    let kind = table.take("kind");
    let kind = kind.map_or(Some(VolumeKind::Exclusive), |item| item.one_of(&KINDS));
    let size = table.take("size").and_then(|item| item.size());
    let source = table.take("source");
    match (&source, kind) {
        (None, Some(VolumeKind::Bind)) => {
            let help = "add source = \"/srv/data\", the folder of the host";
            table.problem("a volume of kind `bind` needs a source", Some(help.to_owned()));
        }
        (Some(source), Some(VolumeKind::Exclusive | VolumeKind::Shared | VolumeKind::Ephemeral)) => {
            let help = "write kind = \"bind\", or leave `source` out";
            source.key_problem("only a volume of kind `bind` has a source", Some(help.to_owned()));
        }
        _ => {}
    }
    let source = source.and_then(|item| decode_source(&item));
    table.finish();
    Some(VolumeSpec { mount: mount?, kind: kind?, size, source })
}

fn decode_mount(item: &Item<'_>) -> Option<PathBuf> {
    let help = "write a path below the working directory: mount = \"data\"";
    let mount = Path::new(item.filled_text(help)?);
    // Components are compared, not the text: `a/./b` is fine, `a/../b` is not, and `.` alone names no link.
    let plain = mount.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let cleaned: PathBuf = mount.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    if !plain || cleaned.as_os_str().is_empty() {
        item.problem("a mount is a relative path without `..`", Some(help.to_owned()));
        return None;
    }
    Some(cleaned)
}

/// Where a volume is inside an image.
fn decode_inside(item: &Item<'_>) -> Option<PathBuf> {
    let help = "write a path inside the image: mount = \"/var/lib/data\"";
    let mount = Path::new(item.filled_text(help)?);
    let plain = mount.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    if !mount.is_absolute() || !plain || mount.parent().is_none() {
        item.problem("a mount in an image is an absolute path without `..`", Some(help.to_owned()));
        return None;
    }
    Some(mount.components().collect())
}

fn decode_source(item: &Item<'_>) -> Option<PathBuf> {
    let source = item.path("write source = \"/srv/data\"")?;
    let cleaned = lexical(&source);
    if cleaned == Path::new("/") || REFUSED.iter().any(|refused| cleaned.starts_with(refused)) {
        let help = "bind the one folder that the worker needs";
        item.problem("this folder gives the worker control of the host", Some(help.to_owned()));
        return None;
    }
    Some(source)
}

/// The path without `.` and `..`, as far as that can be told without looking at links.
pub(super) fn lexical(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::CurDir => {}
            part => cleaned.push(part),
        }
    }
    cleaned
}
