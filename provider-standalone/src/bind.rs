//! Where the source of a bind volume really is.
//!
//! Whether a manifest may name a folder is decided by its text, before anything runs. Here the folder is looked at: it must
//! be what its path says, without any link on the way, or lie where the settings allow binds. So no link that somebody
//! made later leads a volume out of the folders that were allowed.

use std::fs;
use std::path::{Path, PathBuf};

/// Why a folder may not be bound, if it may not.
pub(crate) fn problem(source: &Path, allowed: &[PathBuf]) -> Option<String> {
    let shown = source.display();
    if !source.is_absolute() || !source.is_dir() {
        return Some(format!("{shown} is no folder on this machine"));
    }
    let real = match fs::canonicalize(source) {
        Ok(real) => real,
        Err(error) => return Some(format!("{shown} cannot be followed: {}", error.kind())),
    };
    // Links in the allowed folders' own paths are the administrator's.
    let below = |folder: &PathBuf| fs::canonicalize(folder).is_ok_and(|folder| real.starts_with(folder));
    // Equal part by part, so a `..` makes a difference and a `.` or a doubled slash does not.
    if real == *source || allowed.iter().any(below) {
        return None;
    }
    let real = real.display();
    Some(format!(
        "{shown} leads to {real}, which is below no folder of manager.binds: add it there, or name it as it is"
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_is_bound_where_its_path_says_or_where_binds_are_allowed() {
        let place = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(place.path()).unwrap();
        let (inside, outside) = (base.join("inside"), base.join("outside"));
        fs::create_dir_all(inside.join("data")).unwrap();
        fs::create_dir_all(outside.join("data")).unwrap();
        assert_eq!(problem(&inside.join("data"), &[]), None);
        assert_eq!(problem(&inside.join("./data/"), &[]), None);

        symlink(&outside, inside.join("away")).unwrap();
        symlink("/", inside.join("root")).unwrap();
        let away = inside.join("away/data");
        let because = problem(&away, std::slice::from_ref(&inside)).unwrap();
        assert!(because.contains(outside.join("data").to_str().unwrap()) && because.contains("manager.binds"));
        assert!(problem(&inside.join("away"), &[]).is_some());
        assert!(problem(&inside.join("root"), std::slice::from_ref(&inside)).is_some());
        // What is left after taking `..` away by text is another folder than the one that it leads to.
        assert!(problem(&inside.join("away/../inside/data"), &[]).is_some());
        assert_eq!(problem(&away, std::slice::from_ref(&outside)), None);
        // An allowed folder may be a link itself, and one with the same beginning of a name is another.
        assert_eq!(problem(&away, &[inside.join("away")]), None);
        assert!(problem(&away, &[base.join("out")]).is_some());
    }

    #[test]
    fn what_is_no_folder_is_said() {
        for source in ["relative", "/nowhere/at/all", "/etc/hostname"] {
            assert_eq!(
                problem(Path::new(source), &["/".into()]),
                Some(format!("{source} is no folder on this machine"))
            );
        }
    }
}
