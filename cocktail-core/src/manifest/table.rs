//! A small decoder over spanned TOML: every value knows its place, every table knows which keys it accepts.
//!
//! Start at [`Table::take`]: it hands out one key and remembers that the table accepts it. [`Table::finish`] then
//! reports what nobody took, with the nearest accepted key. Take keys without conditions, so that the accepted keys do
//! not depend on the input. Decoding goes on after a problem: a method that returns `None` has reported why.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Severity;
use super::report::Report;
use crate::name::Name;
use crate::quantity::{Bytes, CpuMillis, InvalidQuantity, format_duration, parse_duration};

/// Longest duration of a manifest; above it, sums of deadlines could overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A table that is being decoded.
pub(super) struct Table<'a> {
    pub(super) report: &'a Report<'a>,
    pub(super) key: String,
    pub(super) span: Range<usize>,
    entries: BTreeMap<&'a str, Item<'a>>,
    accepted: BTreeSet<&'static str>,
}

/// A value that is being decoded, with its key.
#[derive(Clone)]
pub(super) struct Item<'a> {
    pub(super) report: &'a Report<'a>,
    /// Dotted path.
    pub(super) key: String,
    /// The last part of the path as it was written.
    pub(super) name: &'a str,
    pub(super) key_span: Range<usize>,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Table<'a> {
    /// The document itself.
    pub(super) fn root(report: &'a Report<'a>, document: &'a Spanned<DeTable<'a>>) -> Self {
        Self::new(report, String::new(), 0..0, document.get_ref())
    }

    fn new(report: &'a Report<'a>, key: String, span: Range<usize>, table: &'a DeTable<'a>) -> Self {
        let entries = table
            .iter()
            .map(|(name, value)| {
                let text: &'a str = name.get_ref();
                let path = join(&key, text);
                report.place(&path, name.span());
                (text, Item { report, key: path, name: text, key_span: name.span(), value })
            })
            .collect();
        Self { report, key, span, entries, accepted: BTreeSet::new() }
    }

    /// Takes a key that the table accepts.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Item<'a>> {
        self.accepted.insert(name);
        self.entries.remove(name)
    }

    /// Takes a key whose absence is an error.
    pub(super) fn require(&mut self, name: &'static str, help: &str) -> Option<Item<'a>> {
        let item = self.take(name);
        if item.is_none() {
            self.problem(format!("missing key `{name}`"), Some(help.to_owned()));
        }
        item
    }

    /// Refuses keys that are promised but not there yet, and says whether there was one.
    pub(super) fn not_yet(&mut self, names: &[(&'static str, &str)]) -> bool {
        let mut any = false;
        for (name, instead) in names {
            if let Some(item) = self.entries.remove(name) {
                item.key_problem(format!("`{name}` is not supported yet"), Some((*instead).to_owned()));
                any = true;
            }
        }
        any
    }

    /// Whether nothing is left to take.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// At most `limit` entries with names as keys, in the order of the text. More of them, and keys that are no names,
    /// are reported and left out.
    pub(super) fn named(mut self, limit: usize) -> Vec<(Name, Item<'a>)> {
        let mut named = Vec::new();
        for (at, item) in self.drain().into_iter().enumerate() {
            if at == limit {
                item.key_problem(format!("at most {limit} entries can stand here"), None);
                break;
            }
            match Name::new(item.name) {
                Ok(name) => named.push((name, item)),
                Err(why) => item.key_problem(why.to_string(), None),
            }
        }
        named
    }

    /// All entries in the order of the text.
    pub(super) fn drain(&mut self) -> Vec<Item<'a>> {
        let mut items: Vec<_> = std::mem::take(&mut self.entries).into_values().collect();
        items.sort_by_key(|item| item.key_span.start);
        items
    }

    /// Reports every key that nobody took.
    pub(super) fn finish(mut self) {
        let unknown = self.drain();
        let accepted = || self.accepted.iter().copied();
        for item in unknown {
            let help = || match nearest(item.name, accepted()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", accepted().collect::<Vec<_>>().join(", ")),
            };
            let help = (!self.report.is_full()).then(help);
            item.key_problem(format!("unknown key `{}`", shown(item.name)), help);
        }
        #[cfg(test)]
        self.report.accepted.borrow_mut().entry(self.key).or_default().extend(self.accepted);
    }

    /// Reports an error about the table as a whole.
    pub(super) fn problem(&self, message: impl Into<String>, help: Option<String>) {
        self.report.add(Severity::Error, self.span.clone(), &self.key, message, help);
    }
}

impl<'a> Item<'a> {
    /// Reports an error at the value.
    pub(super) fn problem(&self, message: impl Into<String>, help: Option<String>) {
        self.report.add(Severity::Error, self.value.span(), &self.key, message, help);
    }

    /// Reports an error at the key.
    pub(super) fn key_problem(&self, message: impl Into<String>, help: Option<String>) {
        self.report.add(Severity::Error, self.key_span.clone(), &self.key, message, help);
    }

    /// Reports a warning at the key.
    pub(super) fn warning(&self, message: impl Into<String>, help: Option<String>) {
        self.report.add(Severity::Warning, self.key_span.clone(), &self.key, message, help);
    }

    fn wrong(&self, wanted: &str, help: Option<String>) {
        self.problem(format!("expected {wanted}, found {}", kind(self.value.get_ref())), help);
    }

    /// The value as it was parsed.
    pub(super) fn value(&self) -> &'a DeValue<'a> {
        self.value.get_ref()
    }

    /// A table.
    pub(super) fn table(self, help: &str) -> Option<Table<'a>> {
        match self.value.get_ref() {
            DeValue::Table(table) => Some(Table::new(self.report, self.key, self.key_span, table)),
            _ => {
                self.wrong("a table", Some(help.to_owned()));
                None
            }
        }
    }

    /// A text without NUL, which no program, path or variable can hold.
    pub(super) fn text(&self, help: &str) -> Option<&'a str> {
        match self.value.get_ref() {
            DeValue::String(text) if text.contains('\0') => {
                self.problem("a text must not contain a NUL character", None);
                None
            }
            DeValue::String(text) => Some(text),
            _ => {
                self.wrong("a string", Some(help.to_owned()));
                None
            }
        }
    }

    /// A text with at least one character.
    pub(super) fn filled_text(&self, help: &str) -> Option<&'a str> {
        let text = self.text(help)?;
        if text.is_empty() {
            self.problem("must not be empty", Some(help.to_owned()));
            return None;
        }
        Some(text)
    }

    /// A path; a relative one counts from the manifest's folder.
    pub(super) fn path(&self, help: &str) -> Option<PathBuf> {
        self.filled_text(help).map(|text| self.report.base.join(text))
    }

    /// A name.
    pub(super) fn name_value(&self, help: &str) -> Option<Name> {
        Name::new(self.text(help)?).map_err(|why| self.problem(why.to_string(), None)).ok()
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let words = || choices.iter().map(|(word, _)| *word);
        let all = format!("one of: {}", words().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", "));
        let text = self.text(&all)?;
        let found = choices.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let help = nearest(text, words()).map_or(all, |near| format!("did you mean {near:?}?"));
            self.problem(format!("unknown value \"{}\"", shown(text)), Some(help));
        }
        found.map(|(_, choice)| *choice)
    }

    /// Items of an array.
    pub(super) fn items(&self, help: &str) -> Option<Vec<Item<'a>>> {
        let DeValue::Array(array) = self.value.get_ref() else {
            self.wrong("an array", Some(help.to_owned()));
            return None;
        };
        let items = array.iter().enumerate().map(|(at, value)| Item {
            report: self.report,
            key: format!("{}[{at}]", self.key),
            name: self.name,
            key_span: value.span(),
            value,
        });
        Some(items.collect())
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => {
                self.wrong("true or false", None);
                None
            }
        }
    }

    /// A whole number between two bounds.
    pub(super) fn number<T: TryFrom<i128>>(&self, range: std::ops::RangeInclusive<i128>) -> Option<T> {
        let DeValue::Integer(integer) = self.value.get_ref() else {
            let help = match self.value.get_ref() {
                DeValue::String(text) if text.parse::<i64>().is_ok() => {
                    Some(format!("write it without quotes: {text}"))
                }
                _ => None,
            };
            self.wrong("a whole number", help);
            return None;
        };
        let value = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let value = value.filter(|value| range.contains(value)).and_then(|value| T::try_from(value).ok());
        if value.is_none() {
            self.problem(format!("must be a whole number from {} to {}", range.start(), range.end()), None);
        }
        value
    }

    /// A number above zero.
    pub(super) fn positive(&self) -> Option<f64> {
        let number = match self.value.get_ref() {
            DeValue::Integer(_) | DeValue::Float(_) => self.number_text().and_then(|text| text.parse::<f64>().ok()),
            _ => {
                self.wrong("a number", None);
                return None;
            }
        };
        let number = number.filter(|number| number.is_finite() && *number > 0.0);
        if number.is_none() {
            self.problem("must be a number above zero", None);
        }
        number
    }

    /// An amount of cpu, in cores.
    pub(super) fn cpu(&self) -> Option<CpuMillis> {
        let Some(text) = self.number_text() else {
            self.wrong("a number of cores", Some("write it like 0.25 or 2".to_owned()));
            return None;
        };
        self.quantity(CpuMillis::from_str(&text), || None).filter(|cpu| self.above_zero(cpu.0 > 0))
    }

    /// A size with its unit, above zero.
    pub(super) fn size(&self) -> Option<Bytes> {
        self.any_size().filter(|size| self.above_zero(size.0 > 0))
    }

    /// A size with its unit, or zero.
    pub(super) fn any_size(&self) -> Option<Bytes> {
        let text = self.text("write it with a unit: \"64MiB\"")?;
        self.quantity(Bytes::from_str(text), || {
            // `64M`, `64mb` and the like: the number stays, the unit gets its full name.
            let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let unit = text[number.len()..].chars().next()?.to_ascii_uppercase();
            let unit = ["KiB", "MiB", "GiB", "TiB"].into_iter().find(|name| name.starts_with(unit))?;
            Bytes::from_str(&format!("{number}{unit}")).ok().map(|_| format!("did you mean \"{number}{unit}\"?"))
        })
    }

    /// A size that is at least `least`.
    pub(super) fn size_from(&self, least: Bytes) -> Option<Bytes> {
        let size = self.size()?;
        if size < least {
            self.problem(format!("must be at least {least}"), None);
            return None;
        }
        Some(size)
    }

    fn above_zero(&self, holds: bool) -> bool {
        if !holds {
            self.problem("must be above zero", Some("leave the key out for no limit".to_owned()));
        }
        holds
    }

    /// A duration that is at least `least`.
    pub(super) fn duration(&self, least: Duration) -> Option<Duration> {
        let text = self.text("write it with a unit: \"10s\"")?;
        let seconds = format!("{text}s");
        let help = || parse_duration(&seconds).ok().map(|_| format!("did you mean \"{seconds}\"?"));
        let duration = self.quantity(parse_duration(text), help)?;
        if duration < least || duration > LONGEST {
            let (least, most) = (format_duration(least), format_duration(LONGEST));
            self.problem(format!("must be from {least} to {most}"), None);
            return None;
        }
        Some(duration)
    }

    fn quantity<T>(&self, read: Result<T, InvalidQuantity>, help: impl FnOnce() -> Option<String>) -> Option<T> {
        read.map_err(|why| self.problem(why.to_string(), help())).ok()
    }

    /// A number in decimal notation.
    fn number_text(&self) -> Option<Cow<'a, str>> {
        match self.value.get_ref() {
            DeValue::Integer(integer) if integer.radix() == 10 => Some(Cow::Borrowed(integer.as_str())),
            DeValue::Integer(integer) => {
                i128::from_str_radix(integer.as_str(), integer.radix()).ok().map(|value| Cow::Owned(value.to_string()))
            }
            DeValue::Float(float) => Some(Cow::Borrowed(float.as_str())),
            _ => None,
        }
    }
}

/// `key.part`, with quotes where the part could be mistaken for a path. Long parts are cut, because every key below
/// repeats them.
pub(super) fn join(key: &str, part: &str) -> String {
    let plain = (1..=64).contains(&part.len())
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    let part = if plain { Cow::Borrowed(part) } else { Cow::Owned(format!("\"{}\"", shown(part))) };
    if key.is_empty() { part.into_owned() } else { format!("{key}.{part}") }
}

/// The candidate that `written` is most likely a slip of.
pub(super) fn nearest<'c>(written: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    if written.len() > 64 {
        return None;
    }
    let written = written.to_ascii_lowercase().replace('-', "_");
    candidates
        .map(|candidate| {
            (strsim::damerau_levenshtein(&written, &candidate.to_ascii_lowercase().replace('-', "_")), candidate)
        })
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(3) / 3).min(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Text of a stranger as it may stand in a message: short, and without control characters.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(40).flat_map(char::escape_debug).collect();
    if text.chars().nth(40).is_some() { format!("{short}…") } else { short }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
