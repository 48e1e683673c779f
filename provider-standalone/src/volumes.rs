//! Volumes: folders below the data dir, and links to them in the working directory.
//!
//! Start at [`Volumes::prepare`]. What a container has is written down beside the volumes ([`Owned`]), so that it is
//! taken away with the container also when another process removes it. Nothing but our own links is ever replaced or
//! removed, and no link is made outside the working directory.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use cocktail_core::contract::{Launch, LaunchVolume};
use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::id::ContainerId;
use cocktail_core::spec::VolumeKind;
use serde::{Deserialize, Serialize};

use crate::bind;
use crate::users::{self, User};

/// The volumes of one data dir.
#[derive(Debug, Clone)]
pub(crate) struct Volumes {
    /// The data dir; only passed through.
    data: PathBuf,
    root: PathBuf,
    /// Folders below which the source of a bind may lead.
    binds: Vec<PathBuf>,
}

/// What goes with a container.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Owned {
    /// Links and where they point to.
    links: BTreeMap<PathBuf, PathBuf>,
    /// Folders that live as long as the container.
    ephemeral: Vec<PathBuf>,
}

impl Volumes {
    pub(crate) fn new(data: &Path, binds: Vec<PathBuf>) -> Self {
        Self { data: data.to_owned(), root: data.join("volumes"), binds }
    }

    /// Where all volumes but binds are.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Why a folder may not be bound, if it may not.
    pub(crate) fn bind_problem(&self, source: &Path) -> Option<String> {
        bind::problem(source, &self.binds)
    }

    /// The folder of a volume.
    pub(crate) fn folder(&self, volume: &LaunchVolume) -> PathBuf {
        if volume.kind == VolumeKind::Bind { volume.path.clone() } else { self.root.join(&volume.path) }
    }

    /// Makes the folders and links of a start. Repeating it changes nothing.
    ///
    /// # Errors
    /// `InvalidConfig` where something that is not ours has the place of a link, or a bind's source is missing or leads
    /// elsewhere.
    pub(crate) fn prepare(&self, launch: &Launch) -> Result<()> {
        if launch.volumes.is_empty() {
            return Ok(());
        }
        let user = launch.user.as_deref().map(|name| {
            users::find(name).ok_or_else(|| Error::invalid(format!("there is no user `{name}` on this machine")))
        });
        let user = user.transpose()?;
        let mut owned = Owned::default();
        for volume in &launch.volumes {
            let folder = self.folder(volume);
            match volume.kind {
                VolumeKind::Bind => self.bind_problem(&folder).map_or(Ok(()), |problem| {
                    let name = &volume.name;
                    Err(Error::invalid(format!("volumes.{name}: {problem}")))
                })?,
                _ => self.make(volume, user)?,
            }
            if volume.kind == VolumeKind::Ephemeral {
                owned.ephemeral.push(folder.clone());
            }
            if let Some(link) = &volume.link {
                owned.links.insert(launch.cwd.join(link), folder);
            }
        }
        // Written first: what is made after it is found again, whatever happens between.
        self.write(&launch.container, &owned)?;
        for volume in &launch.volumes {
            if let Some(link) = &volume.link {
                self.link(&launch.cwd, link, &self.folder(volume))?;
            }
        }
        Ok(())
    }

    /// Whether anything goes with a container.
    pub(crate) fn has(&self, container: &ContainerId) -> bool {
        self.record(container).exists()
    }

    /// Takes away what goes with a container: its ephemeral volumes, and links that no other container uses.
    pub(crate) fn remove(&self, container: &ContainerId) -> Result<()> {
        let record = self.record(container);
        let Some(owned) = read(&record) else { return Ok(()) };
        let used: Vec<PathBuf> = self.others(container).into_iter().flat_map(|owned| owned.links.into_keys()).collect();
        for (link, target) in &owned.links {
            if !used.contains(link) && fs::read_link(link).is_ok_and(|to| to == *target) {
                gone(fs::remove_file(link)).map_err(|error| failed("remove the link", link, error))?;
            }
        }
        for folder in owned.ephemeral.iter().filter(|folder| folder.starts_with(&self.root)) {
            gone(fs::remove_dir_all(folder)).map_err(|error| failed("remove the volume", folder, error))?;
        }
        gone(fs::remove_file(&record)).map_err(|error| failed("forget the volumes in", &record, error))
    }

    /// Makes the folder of a volume below ours, step by step, and gives the last one to the user.
    fn make(&self, volume: &LaunchVolume, user: Option<User>) -> Result<()> {
        let path = &volume.path;
        if path.as_os_str().is_empty() || !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(Error::invalid(format!("{} is no path of a volume", path.display())));
        }
        let folder = self.root.join(path);
        let make = |folder: &Path| match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other.map_err(|error| failed("make the volume", folder, error)),
        };
        make(&self.root)?;
        for above in above(&self.root, &folder) {
            make(&above)?;
        }
        make(&folder)?;
        let Some(user) = user else { return Ok(()) };
        // Another user must get to the folder, and nothing more: passing through is not looking.
        let mut passed = above(&self.root, &folder);
        passed.extend([self.root.clone(), self.data.clone()]);
        for above in passed {
            let passable = fs::metadata(&above).and_then(|meta| {
                let mode = meta.mode() & 0o7777;
                if mode & 0o001 != 0 {
                    Ok(())
                } else {
                    fs::set_permissions(&above, PermissionsExt::from_mode(mode | 0o011))
                }
            });
            passable.map_err(|error| failed("open the way to the volume through", &above, error))?;
        }
        let given = chown(&folder, Some(user.uid), Some(user.gid));
        given.map_err(|error| failed("give the volume to its user:", &folder, error))
    }

    fn link(&self, cwd: &Path, link: &Path, target: &Path) -> Result<()> {
        let plain = link.components().all(|part| matches!(part, Component::Normal(_)));
        if link.as_os_str().is_empty() || !plain {
            return Err(Error::invalid(format!("{} is no name for a volume in the working directory", link.display())));
        }
        let path = cwd.join(link);
        if let Some(above) = path.parent().filter(|above| *above != cwd) {
            fs::create_dir_all(above).map_err(|error| failed("make the folder", above, error))?;
            let inside = fs::canonicalize(above).and_then(|above| Ok(above.starts_with(fs::canonicalize(cwd)?)));
            if !inside.map_err(|error| failed("look at the folder", above, error))? {
                return Err(Error::invalid(format!("{} leads out of the working directory", path.display())));
            }
        }
        match fs::read_link(&path) {
            Ok(to) if to == *target => return Ok(()),
            Ok(to) if to.starts_with(&self.root) => {
                gone(fs::remove_file(&path)).map_err(|error| failed("replace the link", &path, error))?;
            }
            Ok(to) => return Err(taken(&path, &format!("a link to {}", to.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(taken(&path, "something else")),
            Err(error) => return Err(failed("look at", &path, error)),
        }
        match symlink(target, &path) {
            // Another container of the Unit was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_link_to(&path, target) => Ok(()),
            other => other.map_err(|error| failed("make the link", &path, error)),
        }
    }

    fn records(&self) -> PathBuf {
        self.root.join(".owned")
    }

    fn record(&self, container: &ContainerId) -> PathBuf {
        self.records().join(container.as_str())
    }

    fn others(&self, container: &ContainerId) -> Vec<Owned> {
        let Ok(entries) = fs::read_dir(self.records()) else { return Vec::new() };
        let others = entries.flatten().filter(|entry| entry.file_name() != container.as_str());
        others.filter_map(|entry| read(&entry.path())).collect()
    }

    fn write(&self, container: &ContainerId, owned: &Owned) -> Result<()> {
        if *owned == Owned::default() {
            return Ok(());
        }
        let record = self.record(container);
        let written = DirBuilder::new().recursive(true).mode(0o700).create(self.records()).and_then(|()| {
            let draft = record.with_extension("new");
            fs::write(&draft, serde_json::to_vec(owned)?)?;
            fs::rename(draft, &record)
        });
        written.map_err(|error| failed("write down the volumes in", &record, error))
    }
}

fn read(record: &Path) -> Option<Owned> {
    serde_json::from_slice(&fs::read(record).ok()?).ok()
}

/// Folders between `root` and `folder`, without both.
fn above(root: &Path, folder: &Path) -> Vec<PathBuf> {
    let mut above: Vec<PathBuf> =
        folder.ancestors().skip(1).take_while(|above| *above != root).map(Path::to_owned).collect();
    above.reverse();
    above
}

fn is_link_to(path: &Path, target: &Path) -> bool {
    fs::read_link(path).is_ok_and(|to| to == *target)
}

/// What is missing already is gone.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn taken(path: &Path, by: &str) -> Error {
    Error::invalid(format!(
        "{} is to be a link to a volume, and {by} has that place: move it away, or mount the volume under another name",
        path.display()
    ))
}

fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::Unavailable
        }
        _ => ErrorKind::InvalidConfig,
    };
    Error::new(kind, format!("cannot {what} {}", path.display())).because(error)
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
