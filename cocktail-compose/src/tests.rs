//! Whole files: what becomes of them, and what is said.

mod bad;
mod random;
mod shapes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cocktail_core::manifest::{self, Diagnostic};
use cocktail_core::spec::{MapSpec, UnitSpec};

use crate::{Imported, Options, PathKind, Source, Surroundings, import};

/// A machine: variables, and files below `/srv/shop`. A path that ends with a slash is a folder.
#[derive(Default)]
pub(super) struct Machine {
    variables: BTreeMap<String, String>,
    files: BTreeMap<PathBuf, Option<String>>,
}

impl Machine {
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    pub(super) fn file(mut self, path: &str, text: &str) -> Self {
        let folder = path.ends_with('/');
        let path = Path::new("/srv/shop").join(path).components().collect();
        self.files.insert(path, (!folder).then(|| text.to_owned()));
        self
    }

    pub(super) fn import(&self, text: &str) -> Result<Imported, Box<Diagnostic>> {
        self.import_with(text, &Options::default())
    }

    pub(super) fn import_with(&self, text: &str, options: &Options) -> Result<Imported, Box<Diagnostic>> {
        let source =
            Source { file: Path::new("compose.yaml"), text, folder: Path::new("/srv/shop"), surroundings: self };
        import(&source, options)
    }
}

impl Surroundings for Machine {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn read(&self, path: &Path) -> Result<Option<String>, String> {
        let path: PathBuf = path.components().collect();
        match self.files.get(&path) {
            Some(Some(text)) => Ok(Some(text.clone())),
            Some(None) => Err("it is a folder".to_owned()),
            None => Ok(None),
        }
    }

    fn kind(&self, path: &Path) -> Option<PathKind> {
        let path: PathBuf = path.components().filter(|part| !matches!(part, std::path::Component::CurDir)).collect();
        self.files.get(&path).map(|text| if text.is_some() { PathKind::File } else { PathKind::Folder })
    }
}

/// Imports a file that is well.
pub(super) fn well(text: &str) -> Imported {
    Machine::default().import(text).unwrap_or_else(|problem| panic!("{problem:?}"))
}

/// The Units of a manifest, which has to decode.
pub(super) fn map_of(imported: &Imported) -> MapSpec {
    let parsed = manifest::parse(&imported.manifest, Path::new("shop.toml"), Path::new("/srv/shop"));
    let service = parsed.unwrap_or_else(|problems| panic!("{problems:?}\n{}", imported.manifest)).service.unwrap();
    service.maps.into_values().next().unwrap()
}

/// One Unit of a manifest.
pub(super) fn unit_of(imported: &Imported, name: &str) -> UnitSpec {
    let mut units = map_of(imported).units;
    units.remove(&cocktail_core::name::Name::new(name).unwrap()).unwrap_or_else(|| panic!("no {name}: {units:?}"))
}

/// A service `web` with these lines.
pub(super) fn web(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("services:\n  web:\n    image: web:1\n    restart: always\n{lines}")
}

/// The lines of the manifest's only Unit, without its image.
pub(super) fn lines_of(imported: &Imported) -> Vec<String> {
    let everywhere = |line: &&str| line.starts_with("image") || *line == "read_only = false";
    imported.manifest.lines().skip(4).filter(|line| !everywhere(line)).map(str::to_owned).collect()
}

/// The notes, each as one line.
pub(super) fn notes_of(imported: &Imported) -> Vec<String> {
    imported.notes.iter().map(ToString::to_string).collect()
}
