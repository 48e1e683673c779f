//! From a Docker Compose file to a manifest of cocktail, with a note on everything that has no counterpart.
//!
//! Start at [`import`]. It reads the YAML with its places and limits (`yaml`), resolves what extends what and decodes each
//! service (`project`, `service`), writes TOML (`write`) and gives the result to the decoder of manifests (`check`).
//!
//! What always holds: the result decodes, because what the decoder refuses becomes a note; a key is used, noted, or begins
//! with `x-`; the same input gives the same output; no input panics or costs more than a bounded amount of time and memory.
//! Nothing here opens a file or reads the environment: that is asked of [`Surroundings`].

mod build;
mod check;
mod command;
mod context;
mod deploy;
mod dotenv;
mod environment;
mod extends;
mod field;
mod health;
mod interpolate;
mod names;
mod note;
mod other;
mod policy;
mod ports;
mod project;
mod quantity;
mod secrets;
mod service;
#[cfg(test)]
mod tests;
mod unit;
mod volumes;
mod write;
mod yaml;

use std::path::Path;

use cocktail_core::manifest::Diagnostic;
use cocktail_core::name::Name;

pub use note::Note;

use context::Context;

/// Longest text of a Compose file in bytes. Callers need not read more than one byte beyond it.
pub const MAX_TEXT: usize = 1 << 20;

/// What is known outside of the Compose file.
pub trait Surroundings {
    /// The value of a variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;

    /// The text of a file, `None` if there is none. It should read no more than [`MAX_TEXT`].
    ///
    /// # Errors
    /// Why it cannot be read, in a few words.
    fn read(&self, path: &Path) -> Result<Option<String>, String>;

    /// What stands at a path, `None` if nothing does or it cannot be told.
    fn kind(&self, path: &Path) -> Option<PathKind>;
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// A folder.
    Folder,
    /// Anything else.
    File,
}

/// A Compose file, and where it stands.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The file as the user named it; it only stands in messages.
    pub file: &'a Path,
    /// Its text.
    pub text: &'a str,
    /// Its folder, absolute.
    pub folder: &'a Path,
    /// What is known outside of it.
    pub surroundings: &'a dyn Surroundings,
}

/// What the user chose.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Name of the Service; by default the `name` of the file, or that of its folder.
    pub service: Option<Name>,
    /// Name of the application map; `prod` by default.
    pub map: Option<Name>,
    /// Whether the manifest will stand in another folder, so that relative paths become absolute.
    pub elsewhere: bool,
}

/// A manifest that decodes, and what it does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The manifest, as TOML.
    pub manifest: String,
    /// What has no counterpart, or another one than could be expected.
    pub notes: Vec<Note>,
    /// How many Units the manifest has.
    pub units: usize,
}

/// Turns a Compose file into a manifest.
///
/// # Errors
/// The first place that is no YAML, has another type than Compose wants, or grows beyond the limits; a file without services.
pub fn import(source: &Source<'_>, options: &Options) -> Result<Imported, Box<Diagnostic>> {
    let document = yaml::parse(source)?;
    let context = Context::new(source, options.elsewhere)?;
    for (place, tag) in &document.tags {
        context.note(None, tag, Some(place.line), "tags are not looked at", "write the value without it");
    }
    let project = project::decode(&context, &document.root, options)?;
    let (manifest, units) = check::repaired(&context, &project)?;
    Ok(Imported { manifest, notes: context.into_notes(), units })
}
