//! Manifests from files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use cocktail_core::contract::ManifestSource;
use cocktail_core::error::{Error, Result};
use cocktail_core::manifest::MAX_TEXT;

/// Reads a manifest; relative paths in it start from its folder.
///
/// # Errors
/// `InvalidConfig` when the file cannot be read, is no UTF-8, or is longer than any manifest.
pub fn read_manifest(file: impl AsRef<Path>) -> Result<ManifestSource> {
    let file = file.as_ref();
    let failed = |what: &str| Error::invalid(format!("the manifest {} {what}", file.display()));
    let whole = std::path::absolute(file).map_err(|error| failed("has no usable path").because(error))?;
    let opened = File::open(file).map_err(|error| failed("cannot be opened").because(error))?;
    let mut text = String::new();
    let most = MAX_TEXT as u64 + 1;
    opened.take(most).read_to_string(&mut text).map_err(|error| failed("cannot be read").because(error))?;
    if text.len() as u64 >= most {
        return Err(failed(&format!("is longer than {MAX_TEXT} bytes")));
    }
    let base = whole.parent().unwrap_or(Path::new("/")).to_path_buf();
    Ok(ManifestSource { file: file.to_path_buf(), base, text })
}
