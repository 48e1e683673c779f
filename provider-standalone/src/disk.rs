//! What volumes hold, counted as `du` does: blocks on the disk, a file with several names once, links not followed, other
//! file systems left out.
//!
//! Start at [`Counts::count`]. It is bounded in entries and in time. A count that ran out of time goes on with the next
//! volume when it is asked again; until then what was counted before stands.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cocktail_core::contract::VolumeFound;

/// Volumes that are told of.
const VOLUMES: usize = 10_000;
/// How deep they lie: service, map, unit, volume.
const DEPTH: usize = 4;
/// Unit of a file's blocks, whatever the file system's own is.
const BLOCK: u64 = 512;
/// Entries between two looks at the clock.
const STRIDE: usize = 64;

/// How much one count may do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Entries of one volume.
    pub(crate) entries: usize,
    /// Time for all volumes together.
    pub(crate) time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { entries: 200_000, time: Duration::from_secs(2) }
    }
}

/// What was counted last.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    used: BTreeMap<PathBuf, u64>,
    /// The first volume that there was no time for.
    next: Option<PathBuf>,
}

impl Counts {
    /// The volumes below a folder. One that there was never time for is not told.
    pub(crate) fn count(&mut self, root: &Path, bounds: Bounds) -> io::Result<Vec<VolumeFound>> {
        let deadline = Instant::now() + bounds.time;
        let volumes = volumes(root)?;
        let first = self.next.take().and_then(|next| volumes.iter().position(|path| *path >= next)).unwrap_or(0);
        let (later, sooner) = volumes.split_at(first);
        let mut turn = sooner.iter().chain(later);
        for path in turn.by_ref() {
            let (used, complete) = used(&root.join(path), bounds.entries, deadline);
            // A part is less than the whole, unless the whole has grown since.
            let before = self.used.get(path).copied().filter(|_| !complete).unwrap_or_default();
            self.used.insert(path.clone(), used.max(before));
            if Instant::now() >= deadline {
                break;
            }
        }
        self.next = turn.next().cloned();
        let there: BTreeSet<&PathBuf> = volumes.iter().collect();
        self.used.retain(|path, _| there.contains(path));
        let found = |(path, used): (&PathBuf, &u64)| VolumeFound {
            path: path.clone(),
            location: root.join(path),
            used_bytes: Some(*used),
        };
        Ok(self.used.iter().map(found).collect())
    }
}

/// Paths of all volumes below `root`, in order. Hidden folders there are no volumes.
fn volumes(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut level = vec![PathBuf::new()];
    for depth in 0..DEPTH {
        let mut below = Vec::new();
        for path in level {
            let entries = match fs::read_dir(root.join(&path)) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // What belongs to a worker's user may be closed to us; what is above is ours.
                Err(_) if depth > 0 => continue,
                Err(error) => return Err(error),
            };
            for entry in entries.flatten() {
                let hidden = depth == 0 && entry.file_name().as_encoded_bytes().starts_with(b".");
                if !hidden && entry.file_type().is_ok_and(|kind| kind.is_dir()) && below.len() < VOLUMES {
                    below.push(path.join(entry.file_name()));
                }
            }
        }
        level = below;
    }
    level.sort();
    Ok(level)
}

/// Bytes that a folder uses with everything in it, and whether all of it was counted.
fn used(folder: &Path, entries: usize, deadline: Instant) -> (u64, bool) {
    let Ok(top) = fs::symlink_metadata(folder) else { return (0, true) };
    let mut bytes = top.blocks() * BLOCK;
    let mut counted = 0_usize;
    let mut several_names = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // What vanished meanwhile, or may not be read, uses nothing that can be counted.
        let Ok(listing) = fs::read_dir(&folder) else { continue };
        for entry in listing.flatten() {
            counted += 1;
            if counted > entries || counted.is_multiple_of(STRIDE) && Instant::now() >= deadline {
                return (bytes, false);
            }
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != top.dev() {
                continue;
            }
            if is_first_name(&meta, &mut several_names) {
                bytes = bytes.saturating_add(meta.blocks() * BLOCK);
            }
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    (bytes, true)
}

fn is_first_name(meta: &Metadata, seen: &mut BTreeSet<u64>) -> bool {
    meta.is_dir() || meta.nlink() <= 1 || seen.insert(meta.ino())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    const PLENTY: Bounds = Bounds { entries: 1_000, time: Duration::from_secs(60) };

    /// A file with that many bytes on the disk.
    fn file(path: &Path, bytes: usize) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = File::create(path).unwrap();
        file.write_all(&vec![7; bytes]).unwrap();
        file.sync_all().unwrap();
    }

    fn place() -> TempDir {
        let place = tempfile::tempdir().unwrap();
        file(&place.path().join("shop/prod/web/data/file"), 1 << 20);
        file(&place.path().join("shop/prod/web/cache.0/deep/er/file"), 2 << 20);
        file(&place.path().join(".owned/web-1"), 1);
        fs::create_dir_all(place.path().join("shop/prod/empty")).unwrap();
        place
    }

    fn paths(found: &[VolumeFound]) -> Vec<&str> {
        found.iter().map(|volume| volume.path.to_str().unwrap()).collect()
    }

    #[test]
    fn volumes_are_found_where_they_are_laid_out_and_told_with_what_they_hold() {
        let place = place();
        let found = Counts::default().count(place.path(), PLENTY).unwrap();
        assert_eq!(paths(&found), ["shop/prod/web/cache.0", "shop/prod/web/data"]);
        assert_eq!(found[1].location, place.path().join("shop/prod/web/data"));
        for (volume, mebibytes) in found.iter().zip([2, 1]) {
            let expected = mebibytes << 20..(mebibytes << 20) + (64 << 10);
            assert!(volume.used_bytes.is_some_and(|used| expected.contains(&used)), "{volume:?}");
        }
        let missing = Counts::default().count(&place.path().join("missing"), PLENTY).unwrap();
        assert_eq!(missing, []);
    }

    #[test]
    fn holes_links_and_second_names_use_nothing() {
        let place = place();
        let volume = place.path().join("shop/prod/web/data");
        let before = Counts::default().count(place.path(), PLENTY).unwrap()[1].used_bytes.unwrap();
        fs::hard_link(volume.join("file"), volume.join("same")).unwrap();
        symlink(place.path().join("shop/prod/web/cache.0"), volume.join("link")).unwrap();
        symlink("/", place.path().join("shop/prod/web/root")).unwrap();
        File::create(volume.join("hole")).unwrap().set_len(1 << 40).unwrap();
        let found = Counts::default().count(place.path(), PLENTY).unwrap();
        assert_eq!(found.len(), 2, "a link is no volume");
        assert!(found[1].used_bytes.unwrap() < before + (64 << 10), "{found:?}");
    }

    #[test]
    fn a_count_ends_at_its_bounds_and_the_next_one_goes_on() {
        let place = place();
        for number in 0..50 {
            file(&place.path().join(format!("shop/prod/web/data/many/{number}")), 4096);
        }
        let few = Bounds { entries: 10, ..PLENTY };
        let mut counts = Counts::default();
        let all = counts.count(place.path(), PLENTY).unwrap();
        let part = Counts::default().count(place.path(), few).unwrap();
        assert!(part[1].used_bytes < all[1].used_bytes);
        assert_eq!(counts.count(place.path(), few).unwrap(), all, "what was counted before stands");

        // There is time for one volume only, each time for another one.
        let hurry = Bounds { time: Duration::ZERO, ..PLENTY };
        let mut counts = Counts::default();
        assert_eq!(paths(&counts.count(place.path(), hurry).unwrap()), ["shop/prod/web/cache.0"]);
        assert_eq!(counts.count(place.path(), hurry).unwrap().len(), 2);
        fs::remove_dir_all(place.path().join("shop/prod/web/cache.0")).unwrap();
        assert_eq!(paths(&counts.count(place.path(), hurry).unwrap()), ["shop/prod/web/data"]);
    }
}
