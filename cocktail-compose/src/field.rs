//! Reading values: what they must be, and where they stand if they are not.

use std::time::Duration;

use cocktail_core::manifest::Diagnostic;
use cocktail_core::quantity::{Bytes, CpuMillis};

use crate::context::Context;
use crate::quantity;
use crate::yaml::{Entry, Node, Outcome, Place, Value, shown};

/// A value with its key.
#[derive(Clone)]
pub(crate) struct Field<'a> {
    pub(crate) cx: &'a Context<'a>,
    pub(crate) service: Option<&'a str>,
    /// Dotted, from the service on, or from the file if it is of no service.
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) node: &'a Node,
}

impl<'a> Field<'a> {
    /// An error at the value.
    pub(crate) fn problem(&self, message: impl AsRef<str>, help: &str) -> Box<Diagnostic> {
        let owner = self.service.map(|name| format!("services.{}", shown(name)));
        let parts: Vec<&str> = owner.as_deref().into_iter().chain([self.key.as_str()]).collect();
        let key = parts.join(".");
        let key = key.trim_end_matches('.');
        let message =
            if key.is_empty() { message.as_ref().to_owned() } else { format!("`{key}`: {}", message.as_ref()) };
        self.cx.problem(self.node.place, message, help)
    }

    /// A note about the value.
    pub(crate) fn note(&self, what: impl Into<String>, instead: impl Into<String>) {
        self.cx.note(self.service, &self.key, Some(self.place.line), what, instead);
    }

    /// Whether variables are part of what is written.
    pub(crate) fn has_variables(&self) -> bool {
        matches!(&self.node.value, Value::Text(text) if text.contains('$'))
    }

    /// Whether it is a list.
    pub(crate) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    /// Whether it is a map.
    pub(crate) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// Whether nothing is written.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    /// A text, with its variables filled in; nothing is an empty one.
    pub(crate) fn text(&self) -> Outcome<String> {
        match &self.node.value {
            Value::Text(text) => self.cx.interpolated(text, self.node.place, self.service, &self.key),
            Value::Null => Ok(String::new()),
            _ => Err(self.problem(format!("expected a text, found {}", self.node.kind()), "")),
        }
    }

    /// Items of a list.
    pub(crate) fn list(&self) -> Outcome<Vec<Field<'a>>> {
        match &self.node.value {
            Value::List(items) => Ok(items.iter().map(|node| self.at(self.key.clone(), node.place, node)).collect()),
            Value::Null => Ok(Vec::new()),
            _ => Err(self.problem(format!("expected a list, found {}", self.node.kind()), "")),
        }
    }

    /// Items of a list, or the one text that stands instead of it.
    pub(crate) fn list_or_one(&self) -> Outcome<Vec<Field<'a>>> {
        if matches!(self.node.value, Value::Text(_)) { Ok(vec![self.clone()]) } else { self.list() }
    }

    /// Texts of a list.
    pub(crate) fn texts(&self) -> Outcome<Vec<String>> {
        self.list_or_one()?.iter().map(Field::text).collect()
    }

    /// Keys of a map.
    pub(crate) fn keys(&self) -> Outcome<Keys<'a>> {
        let entries = match &self.node.value {
            Value::Map(entries) => entries.iter().map(Some).collect(),
            Value::Null => Vec::new(),
            _ => return Err(self.problem(format!("expected a map, found {}", self.node.kind()), "")),
        };
        Ok(Keys { of: self.clone(), entries })
    }

    /// `KEY=VALUE` of a list, or keys with values of a map; `None` for a key alone.
    pub(crate) fn pairs(&self) -> Outcome<Vec<(String, Option<String>, Field<'a>)>> {
        if self.is_map() {
            let keys = self.keys()?;
            let pairs = keys.entries.into_iter().flatten().map(|entry| {
                let field = self.at(format!("{}.{}", self.key, entry.key), entry.place, &entry.node);
                let value = if field.is_null() { None } else { Some(field.text()?) };
                Ok((entry.key.to_string(), value, field))
            });
            return pairs.collect();
        }
        let pairs = self.list()?.into_iter().map(|field| {
            let text = field.text()?;
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (text, None),
            };
            Ok((name, value, field))
        });
        pairs.collect()
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self) -> Outcome<bool> {
        let text = self.text()?;
        quantity::boolean(&text).ok_or_else(|| self.problem("expected true or false", ""))
    }

    /// A whole number.
    pub(crate) fn number(&self) -> Outcome<u64> {
        let text = self.text()?;
        text.trim().parse().map_err(|_| self.problem(format!("expected a whole number, found `{}`", shown(&text)), ""))
    }

    /// A span of time.
    pub(crate) fn duration(&self) -> Outcome<Duration> {
        let text = self.text()?;
        let help = "write it like 30s or 1m30s";
        quantity::duration(text.trim())
            .ok_or_else(|| self.problem(format!("expected a span of time, found `{}`", shown(&text)), help))
    }

    /// A size.
    pub(crate) fn size(&self) -> Outcome<Bytes> {
        let text = self.text()?;
        quantity::size(&text)
            .ok_or_else(|| self.problem(format!("expected a size, found `{}`", shown(&text)), "write it like 512m"))
    }

    /// Cores; `None` for zero, which is no limit.
    pub(crate) fn cpu(&self) -> Outcome<Option<CpuMillis>> {
        let text = self.text()?;
        if text.trim().parse::<f64>() == Ok(0.0) {
            return Ok(None);
        }
        let cpu = quantity::cpu(&text);
        cpu.map(Some).ok_or_else(|| self.problem(format!("expected a number of cores, found `{}`", shown(&text)), ""))
    }

    fn at(&self, key: String, place: Place, node: &'a Node) -> Field<'a> {
        Field { cx: self.cx, service: self.service, key, place, node }
    }
}

/// What is left of a map.
pub(crate) struct Keys<'a> {
    of: Field<'a>,
    entries: Vec<Option<&'a Entry>>,
}

impl<'a> Keys<'a> {
    /// The map itself.
    pub(crate) fn of(&self) -> &Field<'a> {
        &self.of
    }

    /// Takes a key, also one that says nothing.
    pub(crate) fn take_any(&mut self, key: &str) -> Option<Field<'a>> {
        let found = self.entries.iter_mut().find(|entry| entry.is_some_and(|entry| &*entry.key == key));
        found.and_then(Option::take).map(|entry| self.field(entry))
    }

    /// Takes a key that says something. One whose variables leave nothing of it does not, and that they are not set has
    /// been told.
    pub(crate) fn take(&mut self, key: &str) -> Option<Field<'a>> {
        self.take_any(key).filter(|field| match &field.node.value {
            Value::Null => false,
            Value::Text(text) if text.contains('$') => !field.text().is_ok_and(|text| text.is_empty()),
            _ => true,
        })
    }

    /// Takes the text of a key that says something.
    pub(crate) fn text(&mut self, key: &str) -> Outcome<Option<String>> {
        Ok(self.take_as(key, Field::text)?.map(|(text, _)| text))
    }

    /// Takes a key that says something, and reads it.
    pub(crate) fn take_as<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&Field<'a>) -> Outcome<T>,
    ) -> Outcome<Option<(T, Field<'a>)>> {
        self.take(key).map(|field| Ok((read(&field)?, field))).transpose()
    }

    /// What was not taken, in the order of the file, without what is meant for others.
    pub(crate) fn rest(self) -> Vec<(&'a str, Field<'a>)> {
        let Self { of, entries } = self;
        let rest = Keys { of, entries: Vec::new() };
        entries
            .into_iter()
            .flatten()
            .filter(|entry| !entry.key.starts_with("x-"))
            .map(|entry| (&*entry.key, rest.field(entry)))
            .collect()
    }

    /// Everything, in the order of the file.
    pub(crate) fn all(self) -> Vec<(&'a str, Field<'a>)> {
        let Self { of, entries } = self;
        let rest = Keys { of, entries: Vec::new() };
        entries.into_iter().flatten().map(|entry| (&*entry.key, rest.field(entry))).collect()
    }

    /// Notes what was not taken.
    pub(crate) fn finish(self, instead: &str) {
        for (_, field) in self.rest() {
            field.note("has no counterpart", instead);
        }
    }

    fn field(&self, entry: &'a Entry) -> Field<'a> {
        let key = match self.of.key.as_str() {
            "" => entry.key.to_string(),
            key => format!("{key}.{}", entry.key),
        };
        self.of.at(key, entry.place, &entry.node)
    }
}
