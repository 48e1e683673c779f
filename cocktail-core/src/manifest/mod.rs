//! The manifest: TOML that says what should run, and settings of the Manager that runs it.
//!
//! Start at [`parse`]. It turns text into [`ServiceSpec`] and [`Settings`], finds every problem in one pass, and gives
//! each its exact place as a [`Diagnostic`], which [`render`] draws. [`check`] then compares files that are applied
//! together, and [`check_settings`] a file with the settings in force.
//!
//! What always holds: no input panics, recurses deeply or costs more than a bounded amount of memory ([`MAX_TEXT`],
//! [`MAX_DEPTH`], a bounded number of diagnostics); a decoded spec has only names, ports, paths and durations that the rest
//! of core may rely on; messages never repeat a value that could be a secret. The text and the folder come in as
//! values: reading files and looking at the machine is left to callers, who report what they find through [`Spans`].
//!
//! The decoder is our own over the spans of `toml`, because a derived one stops at the first problem and cannot suggest.
//! [`schema`] describes the same keys for editors; a test keeps the two sets equal.

mod artifact;
mod build;
mod check;
mod cron;
mod diagnostic;
mod environment;
mod image;
mod labels;
mod manager;
mod network;
mod policy;
mod registry;
mod render;
mod report;
mod revision;
mod scale;
mod schema;
mod service;
mod substitute;
mod table;
#[cfg(test)]
mod tests;
mod unit;
mod volume;
mod warm;
mod worker;

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use check::{check, check_settings};
pub use diagnostic::{Diagnostic, Severity, Spans};
pub use policy::RLIMITS;
pub use render::{Colour, render, render_files};
pub use revision::template_hash;
pub use schema::schema;
pub use substitute::{SubstituteError, substitute};

use crate::settings::Settings;
use crate::spec::ServiceSpec;
use report::Report;
use table::Table;

/// Longest text of a manifest in bytes. Callers need not read more than one byte beyond it.
pub const MAX_TEXT: usize = 1 << 20;

/// Deepest nesting of tables and arrays.
pub const MAX_DEPTH: usize = 32;

/// A file that was decoded without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The Service, if the file names one.
    pub service: Option<ServiceSpec>,
    /// The Manager's settings, if the file has any of `[manager]`, `[providers.<name>]` and `[registries.<name>]`; what it
    /// leaves out has its default.
    pub settings: Option<Settings>,
    /// The folder that its relative paths count from.
    pub base: PathBuf,
    /// What is odd without being wrong.
    pub warnings: Vec<Diagnostic>,
    /// Where the keys stand.
    pub spans: Spans,
}

/// Decodes a file that holds a Service, Manager settings, or both.
///
/// `file` only stands in messages; relative paths of the manifest count from `base`, which should be absolute. The
/// same text gives the same result.
///
/// # Errors
/// All problems of the file, errors first and warnings after them, in the order of the text; at most 20, then one that
/// counts the rest. A text that is no TOML gives the first place where it is not.
pub fn parse(text: &str, file: &Path, base: &Path) -> Result<Parsed, Vec<Diagnostic>> {
    let report = Report::new(if text.len() > MAX_TEXT { "" } else { text }, file, base);
    let decoded = decode(text, &report);
    let spans = report.spans();
    let (problems, failed) = report.finish();
    match decoded {
        Some((service, settings)) if !failed => {
            Ok(Parsed { service, settings, base: base.to_owned(), warnings: problems, spans })
        }
        _ => Err(problems),
    }
}

/// Decodes a file for its Manager settings; a file without any gives the defaults. The second value holds warnings.
///
/// # Errors
/// As [`parse`]: a Service in the same file is checked, too.
pub fn parse_settings(text: &str, file: &Path, base: &Path) -> Result<(Settings, Vec<Diagnostic>), Vec<Diagnostic>> {
    let parsed = parse(text, file, base)?;
    Ok((parsed.settings.unwrap_or_default(), parsed.warnings))
}

fn decode(text: &str, report: &Report<'_>) -> Option<(Option<ServiceSpec>, Option<Settings>)> {
    let whole = |message: &str, help: &str| {
        let problem = Diagnostic::of_file(Severity::Error, report.file(), message);
        report.push(problem.with_help(help));
    };
    if text.len() > MAX_TEXT {
        whole("the file is longer than 1MiB, which no manifest needs", "check that this is the right file");
        return None;
    }
    if report.base.to_str().is_none() {
        whole("the path of this folder is not UTF-8, so it cannot be stored", "move the file to another folder");
        return None;
    }
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(why) => {
            let span = why.span().unwrap_or(0..0);
            let deep = why.message().contains("recurs");
            let message = if deep { too_deep() } else { format!("this is no TOML: {}", one_line(why.message())) };
            report.add(Severity::Error, span, "", message, None);
            return None;
        }
    };
    if let Some(span) = document.get_ref().values().find_map(|value| deeper(value, MAX_DEPTH - 1)) {
        report.add(Severity::Error, span, "", too_deep(), None);
        return None;
    }
    // Recursion is over a document of at most MAX_DEPTH levels from here on.
    let mut root = Table::root(report, &document);
    let empty = root.is_empty();
    let service = service::decode(&mut root);
    let settings = manager::decode(&mut root);
    root.finish();
    if empty {
        let help = "start with service = \"…\" and [maps.prod.units.web], or with [manager]";
        whole("the file has neither a Service nor Manager settings", help);
    }
    if let Some(service) = &service {
        for problem in check::within(service, settings.as_ref(), &report.spans()) {
            report.push(problem);
        }
    }
    Some((service, settings))
}

fn too_deep() -> String {
    format!("tables and arrays are nested more than {MAX_DEPTH} levels deep")
}

/// Place of the first value that has more than `levels` levels. The parser bounds the depth of what comes in here.
fn deeper(value: &Spanned<DeValue<'_>>, levels: usize) -> Option<std::ops::Range<usize>> {
    match (value.get_ref(), levels.checked_sub(1)) {
        (DeValue::Array(_) | DeValue::Table(_), None) => Some(value.span()),
        (DeValue::Array(items), Some(levels)) => items.iter().find_map(|item| deeper(item, levels)),
        (DeValue::Table(table), Some(levels)) => table.values().find_map(|item| deeper(item, levels)),
        _ => None,
    }
}

/// The parser's message without line breaks and trailing stops.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
