//! Which folder holds all state, by the rules that users and scripts rely on.
//!
//! Start at [`DataDir::find`]. In order: `--data-dir`, `$COCKTAIL_DATA_DIR`, the nearest `.cocktail` upwards from the
//! working directory, and for commands that may begin something `.cocktail` in the working directory. A `.cocktail`
//! that the search comes by counts only if it is ours: in a place that everybody can write to, such as `/tmp`, it
//! could be anybody's.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};

/// Name of the folder.
const NAME: &str = ".cocktail";

/// The folder that holds all state; absolute. It may not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataDir(PathBuf);

/// What the search starts from.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// `--data-dir`.
    pub(crate) option: Option<PathBuf>,
    /// `$COCKTAIL_DATA_DIR`.
    pub(crate) variable: Option<OsString>,
    /// The working directory, absolute.
    pub(crate) working_dir: PathBuf,
    /// Our effective uid.
    pub(crate) uid: u32,
}

impl Surroundings {
    /// Those of this process.
    ///
    /// # Errors
    /// The working directory is gone or may not be read.
    pub(crate) fn of_process(option: Option<PathBuf>) -> Outcome<Self> {
        let working_dir = std::env::current_dir()
            .map_err(|error| Failure::Failed(format!("cannot find out the working directory: {error}")))?;
        let variable = std::env::var_os("COCKTAIL_DATA_DIR");
        Ok(Self { option, variable, working_dir, uid: rustix::process::geteuid().as_raw() })
    }
}

impl DataDir {
    /// The folder that a command works with. With `may_begin`, `.cocktail` in the working directory is taken where
    /// nothing else is found; nothing is made.
    ///
    /// # Errors
    /// [`Failure::NoManager`] if there is none; [`Failure::Usage`] for an empty `--data-dir`.
    pub(crate) fn find(from: &Surroundings, may_begin: bool) -> Outcome<Self> {
        if let Some(given) = &from.option {
            if given.as_os_str().is_empty() {
                return Err(Failure::Usage("--data-dir must not be empty".into()));
            }
            return Ok(Self(from.working_dir.join(given)));
        }
        if let Some(given) = from.variable.as_ref().filter(|given| !given.is_empty()) {
            return Ok(Self(from.working_dir.join(given)));
        }
        let mut foreign = None;
        for folder in from.working_dir.ancestors() {
            let candidate = folder.join(NAME);
            match owner_of_folder(&candidate) {
                Some(owner) if owner == from.uid => return Ok(Self(candidate)),
                Some(owner) => foreign = foreign.or(Some((candidate, owner))),
                None => {}
            }
        }
        if may_begin && foreign.as_ref().is_none_or(|(path, _)| path.parent() != Some(&from.working_dir)) {
            return Ok(Self(from.working_dir.join(NAME)));
        }
        Err(Failure::NoManager(match foreign {
            Some((path, owner)) => {
                format!("{} belongs to uid {owner}; give --data-dir to use it all the same", path.display())
            }
            None => format!(
                "no data dir: there is no {NAME} in {} or above; start with `cocktail up FILE`, or give --data-dir",
                from.working_dir.display()
            ),
        }))
    }

    /// Takes a folder as it is; for tests.
    #[cfg(test)]
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The Manager's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("cocktail.sock")
    }

    /// The keeper's socket.
    pub(crate) fn keeper_socket(&self) -> PathBuf {
        self.0.join("run/keeper.sock")
    }

    /// The file that says which Manager `up -d` started, by its process id.
    pub(crate) fn background_file(&self) -> PathBuf {
        self.0.join("manager.background")
    }

    /// Log of a Manager in the background.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.0.join("manager.log")
    }

    /// Makes the folder, for us alone. Nothing happens if it is there.
    ///
    /// # Errors
    /// It cannot be made, or something else has its name.
    pub(crate) fn make(&self) -> Outcome {
        let failed = |error: io::Error| Failure::Failed(format!("cannot make {}: {error}", self.0.display()));
        match fs::DirBuilder::new().mode(0o700).create(&self.0) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.0.is_dir() => {
                // A folder that is still empty is made fit; one with content is judged where the Manager starts.
                if fs::read_dir(&self.0).is_ok_and(|mut entries| entries.next().is_none()) {
                    fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700)).map_err(failed)?;
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new().mode(0o700).recursive(true).create(&self.0).map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// Owner of a folder; `None` if there is none of that name. A link is not followed: it could lead anywhere.
fn owner_of_folder(path: &Path) -> Option<u32> {
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_dir).map(|meta| meta.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(working_dir: &Path) -> Surroundings {
        let uid = rustix::process::geteuid().as_raw();
        Surroundings { option: None, variable: None, working_dir: working_dir.into(), uid }
    }

    #[test]
    fn the_option_wins_over_the_variable_and_the_variable_over_the_search() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(NAME)).unwrap();
        let mut all = from(root.path());
        all.option = Some("given".into());
        all.variable = Some("/elsewhere".into());
        assert_eq!(DataDir::find(&all, false).unwrap().path(), root.path().join("given"));
        all.option = None;
        assert_eq!(DataDir::find(&all, false).unwrap().path(), Path::new("/elsewhere"));
        all.variable = Some(OsString::new());
        assert_eq!(DataDir::find(&all, false).unwrap().path(), root.path().join(NAME));
    }

    #[test]
    fn the_nearest_folder_upwards_is_taken_by_every_command() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b/c");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir(root.path().join(NAME)).unwrap();
        fs::create_dir(root.path().join("a").join(NAME)).unwrap();
        fs::write(root.path().join("a/b").join(NAME), "a file is none").unwrap();
        for may_begin in [false, true] {
            let found = DataDir::find(&from(&deep), may_begin).unwrap();
            assert_eq!(found.path(), root.path().join("a").join(NAME));
        }
    }

    #[test]
    fn without_a_folder_only_a_command_that_begins_something_names_a_new_one() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(DataDir::find(&from(root.path()), true).unwrap().path(), root.path().join(NAME));
        let failure = DataDir::find(&from(root.path()), false).unwrap_err();
        assert_eq!(failure.code(), 6);
        assert!(failure.to_string().contains("cocktail up"), "{failure}");
        assert!(!root.path().join(NAME).exists(), "looking made a folder");
    }

    #[test]
    fn a_folder_of_another_user_is_not_used_by_chance() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(NAME)).unwrap();
        let mut other = from(root.path());
        other.uid += 1;
        for may_begin in [false, true] {
            let failure = DataDir::find(&other, may_begin).unwrap_err();
            assert_eq!(failure.code(), 6);
            assert!(failure.to_string().contains("--data-dir"), "{failure}");
        }
    }

    #[test]
    fn the_folder_is_made_for_us_alone_and_making_it_again_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::at(root.path().join("x/y"));
        dir.make().unwrap();
        dir.make().unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::create_dir(root.path().join("open")).unwrap();
        fs::set_permissions(root.path().join("open"), fs::Permissions::from_mode(0o755)).unwrap();
        DataDir::at(root.path().join("open")).make().unwrap();
        assert_eq!(fs::metadata(root.path().join("open")).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(root.path().join("file"), "").unwrap();
        assert_eq!(DataDir::at(root.path().join("file")).make().unwrap_err().code(), 1);
    }
}
