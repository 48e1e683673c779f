//! What the manifest does not say, or says in another way.

use std::fmt;

use serde::Serialize;

/// Most notes of one file, so that a bad file cannot fill a terminal.
const MOST: usize = 2_000;

/// One thing of the Compose file that has no counterpart, or not the one that could be expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The service of the Compose file; absent for what concerns the file as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The key, dotted: `deploy.resources`.
    pub key: String,
    /// Its line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What is so.
    pub what: String,
    /// What to do or to write instead.
    pub instead: String,
}

impl fmt::Display for Note {
    /// In one line, without the number of its own line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(service) = &self.service {
            write!(f, "{}: ", service.escape_debug())?;
        }
        write!(f, "{}: {}; {}", self.key.escape_debug(), self.what, self.instead)
    }
}

/// Notes in the order in which they were found.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    list: Vec<Note>,
    more: usize,
}

impl Notes {
    /// Takes one more.
    pub(crate) fn push(&mut self, note: Note) {
        if self.list.len() >= MOST {
            self.more += 1;
        } else if !self.list.contains(&note) {
            self.list.push(note);
        }
    }

    /// All of them; a last one counts those that were too many.
    pub(crate) fn finish(mut self) -> Vec<Note> {
        if self.more > 0 {
            self.list.push(Note {
                service: None,
                key: "notes".to_owned(),
                line: None,
                what: format!("{} more are left out", self.more),
                instead: "divide the file".to_owned(),
            });
        }
        self.list
    }
}
