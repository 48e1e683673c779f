//! No tracked file names a folder of the machine that it was written on.
//!
//! What is looked for comes from the machine itself: the checkout and the home folder; and from where operating systems
//! put people's folders. So nothing here needs to know anybody's machine.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Result, bail};

use crate::context::{Context, output};

/// Fails with file and line of every path of a machine in a tracked file.
pub(super) fn check(context: &Context) -> Result<()> {
    let needles = needles(&context.root, env::var_os("HOME").map(PathBuf::from).as_deref());
    let mut found = Vec::new();
    for file in output(context.command("git").args(["ls-files", "-z"]))?.split('\0').filter(|name| !name.is_empty()) {
        // A file that git knows and the disk does not is being deleted; one that is not text names nothing for people.
        let Ok(text) = fs::read_to_string(context.root.join(file)) else { continue };
        for (number, line) in text.lines().enumerate() {
            if let Some(needle) = needles.iter().find(|needle| names(line, needle)) {
                found.push(format!("{file}:{}: names {needle}", number + 1));
            }
        }
    }
    if !found.is_empty() {
        bail!("paths of a machine:\n{}", found.join("\n"));
    }
    Ok(())
}

/// The folders to look for, each ending in a slash.
fn needles(root: &Path, home: Option<&Path>) -> Vec<String> {
    let mut needles: Vec<String> = ["home", "Users"].iter().map(|folder| format!("/{folder}/")).collect();
    // A folder right below `/` that is not the home, such as a container's `/src`, is too common a word to look for.
    needles.extend([Some(root).filter(|root| root.components().count() > 2), home].into_iter().flatten().map(
        |folder| {
            let mut text = folder.to_string_lossy().into_owned();
            if !text.ends_with('/') {
                text.push('/');
            }
            text
        },
    ));
    needles.retain(|needle| needle.len() > 2);
    needles
}

/// Whether the line holds the folder as the beginning of an absolute path, and not in the middle of another.
fn names(line: &str, needle: &str) -> bool {
    line.match_indices(needle).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let inside =
            before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '}' | '~' | ']'));
        let named =
            line[at + needle.len()..].chars().next().is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_'));
        !inside && named
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_below_somebodys_folder_is_found() {
        let needles = needles(Path::new("/src"), None);
        let line = format!("see /{}/ann/notes", "home");
        assert!(needles.iter().any(|needle| names(&line, needle)));
    }

    #[test]
    fn the_same_word_inside_another_path_or_address_is_not() {
        for line in ["api/home/index.html", "https://example.org/home/page", "the folder /home/ itself"] {
            assert!(!names(line, "/home/"), "{line}");
        }
    }

    #[test]
    fn a_checkout_right_below_the_root_is_not_looked_for() {
        assert_eq!(needles(Path::new("/src"), None).len(), 2);
        assert_eq!(needles(Path::new("/build/cocktail"), Some(Path::new("/build"))).len(), 4);
    }
}
