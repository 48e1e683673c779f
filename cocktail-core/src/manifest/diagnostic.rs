//! Problems of a manifest: where, what, what instead.

use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Whether a problem stops the apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is applied.
    Error,
    /// It is applied, and said.
    Warning,
}

/// One problem with its exact place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Whether it stops the apply.
    pub severity: Severity,
    /// The file as it was named.
    pub file: PathBuf,
    /// Byte range in the text.
    pub span: Range<usize>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Dotted path of the key, as `maps.prod.units.web.command`.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}
