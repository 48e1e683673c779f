//! `manifest import-compose`: a Compose file as a manifest. No Manager is asked.
//!
//! What it means is decided in [`cocktail_compose`]; here is what needs files and the environment.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use cocktail_compose::{MAX_TEXT, Note, Options, PathKind, Source, Surroundings};
use cocktail_core::contract::ManifestSource;
use serde::Serialize;

use crate::args::{Format, ImportArgs};
use crate::failure::{Failure, Outcome};
use crate::manifests;
use crate::output::Ui;

/// What `-o json` prints.
#[derive(Serialize)]
struct Imported<'a> {
    manifest: &'a str,
    notes: &'a [Note],
}

/// Imports a Compose file; `-` is `input`. Data is the manifest, unless it goes into a file; notes are for people.
///
/// # Errors
/// [`Failure::Diagnosed`] for what is no Compose file, with its place; [`Failure::Usage`] if the file to write is there.
pub(crate) fn import(args: &ImportArgs, working_dir: &Path, input: &mut dyn Read, ui: &mut Ui) -> Outcome {
    let sources = manifests::read(std::slice::from_ref(&args.file), working_dir, input)?;
    let [ManifestSource { file, base, text }] = sources.as_slice() else {
        return Err(Failure::Failed("one file was named, and another number was read".to_owned()));
    };
    let out = args.out.as_ref().map(|out| working_dir.join(out));
    let elsewhere = out.as_ref().and_then(|out| out.parent()).is_some_and(|folder| !is_same(folder, base));
    let options = Options { service: args.service.clone(), map: Some(args.map.clone()), elsewhere };
    let source = Source { file, text, folder: base, surroundings: &Process };
    let imported =
        cocktail_compose::import(&source, &options).map_err(|problem| manifests::failure(&[*problem], &sources, ui))?;
    if let (Some(out), Some(named)) = (&out, &args.out) {
        write_new(out, named, &imported.manifest)?;
    }
    match (ui.format, &args.out) {
        (Format::Json, _) => ui.json(&Imported { manifest: &imported.manifest, notes: &imported.notes })?,
        (Format::Table, None) => ui.data(&imported.manifest)?,
        (Format::Table, Some(_)) => {}
    }
    if ui.format == Format::Json {
        return Ok(());
    }
    for note in &imported.notes {
        let line = note.line.map_or_else(String::new, |line| format!(":{line}"));
        ui.note(&format!("{}{line}: {note}", file.display()));
    }
    let count = |count: usize, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
    let (units, notes) = (count(imported.units, "Unit"), count(imported.notes.len(), "note"));
    ui.note(&match &args.out {
        Some(out) => format!("{} has {units}; {notes}", out.display()),
        None => format!("{units}; {notes}"),
    });
    Ok(())
}

/// Whether two paths are one folder.
fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// Writes a file that is not there yet, whole or not at all.
fn write_new(path: &Path, named: &Path, text: &str) -> Outcome {
    let shown = named.display();
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::Usage(format!("{shown} is there already; name a new file")),
        _ => Failure::Failed(format!("cannot write {shown}: {error}")),
    })?;
    file.write_all(text.as_bytes()).map_err(|error| {
        // It is ours, and half of a manifest is none.
        let _ = fs::remove_file(path);
        Failure::Failed(format!("cannot write {shown}: {error}"))
    })
}

/// The environment and the files of this process.
struct Process;

impl Surroundings for Process {
    fn variable(&self, name: &str) -> Option<String> {
        if name.is_empty() || name.contains(['=', '\0']) {
            return None;
        }
        std::env::var(name).ok()
    }

    fn read(&self, path: &Path) -> Result<Option<String>, String> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.kind().to_string()),
        };
        if !file.metadata().is_ok_and(|meta| meta.is_file()) {
            return Err("it is no file".to_owned());
        }
        let mut text = String::new();
        file.take(MAX_TEXT as u64 + 1).read_to_string(&mut text).map_err(|error| error.kind().to_string())?;
        if text.len() > MAX_TEXT { Err("it is longer than 1MiB".to_owned()) } else { Ok(Some(text)) }
    }

    fn kind(&self, path: &Path) -> Option<PathKind> {
        let meta = fs::metadata(path).ok()?;
        Some(if meta.is_dir() { PathKind::Folder } else { PathKind::File })
    }
}
