//! CSV with a header: columns are found by their names, and every complaint says file, line and column.

use std::path::Path;

use csv::{ReaderBuilder, StringRecord, Trim};

use super::Source;
use crate::failure::{Failure, Outcome};

/// Rows at most: more than a week of every second.
const MOST: usize = 1_000_000;

/// Rows under a header.
pub(super) struct Sheet<'a> {
    source: &'a Source,
    header: StringRecord,
    rows: Vec<StringRecord>,
}

/// One row.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    sheet: &'a Sheet<'a>,
    record: &'a StringRecord,
}

impl<'a> Sheet<'a> {
    /// Reads the whole text. Columns may stand in any order; empty lines and those that begin with `#` are left out.
    ///
    /// # Errors
    /// A column that is missing, twice or unknown; a row that is longer or shorter than the header; too many rows.
    pub(super) fn read(source: &'a Source, required: &[&str], optional: &[&str]) -> Outcome<Self> {
        let file = source.file();
        let mut reader =
            ReaderBuilder::new().trim(Trim::All).comment(Some(b'#')).flexible(true).from_reader(source.text.as_bytes());
        let wrong = |error: csv::Error| at(file, line_of(source, error.position()), &error.to_string());
        let header = reader.headers().map_err(wrong)?.clone();
        let line = line_of(source, header.position());
        let known: Vec<&str> = required.iter().chain(optional).copied().collect();
        for (index, name) in header.iter().enumerate() {
            if !known.contains(&name) {
                let text = format!("there is no column {name:?}: the first line names some of {}", known.join(","));
                return Err(at(file, line, &text));
            }
            if header.iter().take(index).any(|other| other == name) {
                return Err(at(file, line, &format!("the column {name:?} is there twice")));
            }
        }
        if let Some(missing) = required.iter().find(|name| !header.iter().any(|column| column == **name)) {
            let text = format!("the column {missing:?} is missing: the first line has to name {}", required.join(","));
            return Err(at(file, line, &text));
        }
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(wrong)?;
            let line = line_of(source, record.position());
            if record.len() != header.len() {
                let text = format!("{} values under {} columns", record.len(), header.len());
                return Err(at(file, line, &text));
            }
            if rows.len() == MOST {
                return Err(at(file, line, &format!("more than {MOST} rows: take longer steps")));
            }
            rows.push(record);
        }
        if rows.is_empty() {
            return Err(at(file, line, "there is no row under the first line"));
        }
        Ok(Self { source, header, rows })
    }

    /// The rows in order.
    pub(super) fn rows(&'a self) -> impl Iterator<Item = Row<'a>> {
        self.rows.iter().map(move |record| Row { sheet: self, record })
    }

    /// Whether there is such a column.
    pub(super) fn has(&self, column: &str) -> bool {
        self.header.iter().any(|name| name == column)
    }

    /// A complaint about the sheet as a whole.
    pub(super) fn wrong(&self, text: &str) -> Failure {
        at(self.source.file(), line_of(self.source, self.header.position()), text)
    }
}

impl<'a> Row<'a> {
    /// The value of a column; `None` where there is none or it is empty.
    pub(super) fn text(&self, column: &str) -> Option<&'a str> {
        let index = self.sheet.header.iter().position(|name| name == column)?;
        self.record.get(index).filter(|text| !text.is_empty())
    }

    /// The value of a column that has to have one.
    ///
    /// # Errors
    /// It has none.
    pub(super) fn needed(&self, column: &str, instead: &str) -> Outcome<&'a str> {
        self.text(column).ok_or_else(|| self.wrong(column, &format!("is empty: write {instead}")))
    }

    /// A number that is not negative.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn number(&self, column: &str, instead: &str) -> Outcome<f64> {
        let text = self.needed(column, instead)?;
        let number: Option<f64> = text.parse().ok();
        let number = number.filter(|number| number.is_finite() && *number >= 0.0 && *number <= 1e12);
        number.ok_or_else(|| self.wrong(column, &format!("{text:?} is no such number: write {instead}")))
    }

    /// A complaint about a value.
    pub(super) fn wrong(&self, column: &str, text: &str) -> Failure {
        let source = self.sheet.source;
        at(source.file(), line_of(source, self.record.position()), &format!("{column}: {text}"))
    }
}

/// The line that a record stands in. Its position is the end of the one before, with what is left out between them.
fn line_of(source: &Source, position: Option<&csv::Position>) -> u64 {
    let from = position.and_then(|position| usize::try_from(position.byte()).ok()).unwrap_or_default();
    let (before, after) = source.text.split_at_checked(from).unwrap_or((&source.text, ""));
    let left_out = after.lines().take_while(|line| line.trim().is_empty() || line.starts_with('#')).count();
    (before.matches('\n').count() + left_out + 1) as u64
}

fn at(file: &Path, line: u64, text: &str) -> Failure {
    Failure::Usage(format!("{}:{line}: {text}", file.display()))
}

/// Reads a span of time: seconds as a number, or a duration. In milliseconds.
pub(super) fn span(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse::<f64>() {
        // A year is more than anybody simulates, and far from what cannot be counted.
        let fits = seconds.is_finite() && (0.0..=31_622_400.0).contains(&seconds);
        return fits.then_some((seconds * 1000.0).round() as u64);
    }
    let span = cocktail_core::quantity::parse_duration(text).ok()?;
    u64::try_from(span.as_millis()).ok().filter(|millis| *millis <= 31_622_400_000)
}
