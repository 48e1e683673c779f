//! What all steps share: the file, the variables, and the notes that they leave.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cocktail_core::manifest::Diagnostic;

use crate::interpolate::{self, Lookup};
use crate::note::{Note, Notes};
use crate::yaml::{self, MAX_WEIGHT, Outcome, Place, shown};
use crate::{PathKind, Source, dotenv};

/// See the module.
pub(crate) struct Context<'a> {
    pub(crate) source: &'a Source<'a>,
    /// Whether relative paths become absolute.
    elsewhere: bool,
    /// Variables of the file `.env`.
    dotenv: BTreeMap<String, String>,
    notes: RefCell<Notes>,
    /// Variables without a value that were told.
    unset: RefCell<BTreeSet<String>>,
    /// What has been made of the file beyond its own size.
    grown: Cell<usize>,
}

impl<'a> Context<'a> {
    /// Reads `.env` beside the file.
    ///
    /// # Errors
    /// It cannot be read, or its variables grow without end.
    pub(crate) fn new(source: &'a Source<'a>, elsewhere: bool) -> Outcome<Self> {
        let mut context = Self {
            source,
            elsewhere,
            dotenv: BTreeMap::new(),
            notes: RefCell::default(),
            unset: RefCell::default(),
            grown: Cell::new(0),
        };
        match source.surroundings.read(&source.folder.join(".env")) {
            Ok(Some(text)) => {
                let found = context.dotenv(".env", &text, true, Place { line: 1, column: 1 })?;
                context.dotenv = found.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            }
            Ok(None) => {}
            Err(why) => context.note(None, ".env", None, format!("cannot be read: {why}"), "make it readable"),
        }
        Ok(context)
    }

    /// The variables of a file of variables; one without a value is asked of the environment.
    ///
    /// # Errors
    /// They grow without end.
    pub(crate) fn dotenv(
        &self,
        file: &str,
        text: &str,
        substituted: bool,
        place: Place,
    ) -> Outcome<Vec<(String, Option<String>)>> {
        let known = |name: &str| self.variable(name);
        let (found, bad) = dotenv::parse(text, substituted, self.room(), &known)
            .map_err(|message| self.problem(place, format!("{}: {message}", shown(file)), ""))?;
        self.grow(found.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len)).sum(), place)?;
        for line in bad {
            self.note(None, file, None, format!("line {line} is no NAME=value"), "mend the line");
        }
        Ok(found)
    }

    /// The value of a variable, of the environment first.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        self.source.surroundings.variable(name).or_else(|| self.dotenv.get(name).cloned())
    }

    /// Whether the environment itself has a variable.
    pub(crate) fn in_environment(&self, name: &str) -> bool {
        self.source.surroundings.variable(name).is_some()
    }

    /// A text with its variables filled in.
    ///
    /// # Errors
    /// It grows without end.
    pub(crate) fn interpolated(&self, text: &str, place: Place, service: Option<&str>, key: &str) -> Outcome<String> {
        if !text.contains('$') {
            return Ok(text.to_owned());
        }
        let told = |name: &str, message: Option<&str>| {
            if !self.unset.borrow_mut().insert(name.to_owned()) {
                return;
            }
            let what = match message.filter(|message| !message.is_empty()) {
                Some(message) => format!("the variable {} is required: {}", shown(name), shown(message)),
                None => format!("the variable {} is not set, so it is empty here", shown(name)),
            };
            self.note(service, key, Some(place.line), what, "set it, or write it into .env, and import again");
        };
        let known = |name: &str| self.variable(name);
        let lookup = Lookup { value: &known, unset: &told };
        let filled = interpolate::fill(text, &lookup, self.room())
            .map_err(|message| self.problem(place, message, "write $$ for a dollar sign"))?;
        self.grow(filled.len(), place)?;
        Ok(filled)
    }

    fn room(&self) -> usize {
        MAX_WEIGHT - self.grown.get().min(MAX_WEIGHT)
    }

    /// Counts what is made beyond the file's own size.
    ///
    /// # Errors
    /// It is too much.
    pub(crate) fn grow(&self, weight: usize, place: Place) -> Outcome<()> {
        let grown = self.grown.get().saturating_add(weight);
        self.grown.set(grown);
        if grown > MAX_WEIGHT {
            return Err(self.problem(place, "variables and `extends` make the file larger than 8MiB", ""));
        }
        Ok(())
    }

    /// Leaves a note.
    pub(crate) fn note(
        &self,
        service: Option<&str>,
        key: impl Into<String>,
        line: Option<u32>,
        what: impl Into<String>,
        instead: impl Into<String>,
    ) {
        self.notes.borrow_mut().push(Note {
            service: service.map(str::to_owned),
            key: key.into(),
            line,
            what: what.into(),
            instead: instead.into(),
        });
    }

    /// An error at a place.
    pub(crate) fn problem(&self, place: Place, message: impl Into<String>, help: &str) -> Box<Diagnostic> {
        yaml::problem(self.source, place, message, help)
    }

    /// What stands at a path of the Compose file.
    pub(crate) fn kind(&self, path: &str) -> Option<PathKind> {
        self.source.surroundings.kind(&self.source.folder.join(path))
    }

    /// A path of the Compose file as it stands in the manifest. `~` is the home folder.
    pub(crate) fn path(&self, path: &str) -> String {
        let home = path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let path = match (home, self.variable("HOME")) {
            (Some(rest), Some(home)) => format!("{home}{rest}"),
            _ => path.to_owned(),
        };
        if !self.elsewhere || Path::new(&path).is_absolute() {
            return path;
        }
        let plain: PathBuf = Path::new(&path).components().collect();
        self.source.folder.join(plain.strip_prefix(".").unwrap_or(&plain)).to_string_lossy().into_owned()
    }

    /// All notes.
    pub(crate) fn into_notes(self) -> Vec<Note> {
        self.notes.into_inner().finish()
    }
}
