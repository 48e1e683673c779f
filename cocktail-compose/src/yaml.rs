//! YAML as a tree with places.
//!
//! Start at [`parse`]. The events come from `granit-parser`; the tree is our own, because every value needs its line and column,
//! and because what an alias names is shared and never copied. What aliases and merge keys (`<<`) would grow to is counted
//! before anything walks over it, so that a few lines that double each other are an error and not a full memory.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use cocktail_core::manifest::{Diagnostic, Severity};
use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, Tag};

use crate::{MAX_TEXT, Source};

/// Deepest nesting.
const MAX_DEPTH: usize = 64;

/// What the file may grow to by its aliases, in bytes, with [`NODE`] for each value.
pub(crate) const MAX_WEIGHT: usize = 8 << 20;

/// What a value weighs beside its text.
const NODE: usize = 16;

/// A result whose error says where.
pub(crate) type Outcome<T> = Result<T, Box<Diagnostic>>;

/// Where something stands, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A value.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
    /// What it would take with all aliases written out.
    pub(crate) weight: usize,
}

/// What a value is. Numbers and booleans are texts until somebody wants them.
#[derive(Debug)]
pub(crate) enum Value {
    Null,
    Text(String),
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

/// A key of a map with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Rc<str>,
    pub(crate) place: Place,
    pub(crate) node: Rc<Node>,
}

/// A whole file.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) root: Rc<Node>,
    /// Tags beyond those of YAML itself.
    pub(crate) tags: Vec<(Place, String)>,
}

impl Node {
    /// A map, with its weight.
    pub(crate) fn map(place: Place, entries: Vec<Entry>) -> Self {
        let weight =
            entries.iter().fold(NODE, |sum, entry| sum.saturating_add(NODE + entry.key.len() + entry.node.weight));
        Self { place, value: Value::Map(entries), weight }
    }

    /// A list, with its weight.
    pub(crate) fn list(place: Place, items: Vec<Rc<Node>>) -> Self {
        let weight = items.iter().fold(NODE, |sum, item| sum.saturating_add(item.weight));
        Self { place, value: Value::List(items), weight }
    }

    /// A text.
    pub(crate) fn text(place: Place, text: String) -> Self {
        let weight = NODE + text.len();
        Self { place, value: Value::Text(text), weight }
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Rc<Node>> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| &*entry.key == key).map(|entry| &entry.node),
            _ => None,
        }
    }

    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// An error at a place of the file.
pub(crate) fn problem(source: &Source<'_>, place: Place, message: impl Into<String>, help: &str) -> Box<Diagnostic> {
    let file = source.file.display().to_string();
    let mut problem = Diagnostic::of_file(Severity::Error, file, message);
    problem.line = place.line;
    problem.column = place.column;
    let skipped = usize::try_from(place.line.saturating_sub(1)).unwrap_or(usize::MAX);
    let mut start = 0;
    if let Some(line) = source.text.split_inclusive('\n').nth(skipped) {
        // `line` is a part of the text, so that its address says where it begins.
        start = line.as_ptr().addr() - source.text.as_ptr().addr();
        let column = usize::try_from(place.column.saturating_sub(1)).unwrap_or(usize::MAX);
        start += line.chars().take(column).map(char::len_utf8).sum::<usize>();
    }
    let end = source.text[start..].chars().next().map_or(start, |first| start + first.len_utf8());
    problem.span = start..end;
    Box::new(if help.is_empty() { problem } else { problem.with_help(help) })
}

/// Reads a text.
///
/// # Errors
/// The first place that is no YAML, or that goes beyond a limit.
pub(crate) fn parse(source: &Source<'_>) -> Outcome<Document> {
    if source.text.len() > MAX_TEXT {
        let place = Place { line: 1, column: 1 };
        return Err(problem(source, place, "the file is longer than 1MiB", "check that this is the right file"));
    }
    let mut composer = Composer { source, open: Vec::new(), anchors: HashMap::new(), root: None, tags: Vec::new() };
    for event in Parser::new_from_str(source.text) {
        let (event, span) = event.map_err(|error| {
            let message = match error.kind() {
                ErrorKind::RecursionLimitExceeded => too_deep(),
                _ => format!("this is no YAML: {}", shown(&error.info())),
            };
            problem(source, place_of(error.marker()), message, "")
        })?;
        composer.take(event, place_of(&span.start))?;
    }
    let Composer { root, tags, .. } = composer;
    match root {
        Some(root) => Ok(Document { root, tags }),
        None => {
            Err(problem(source, Place { line: 1, column: 1 }, "the file is empty", "a Compose file has `services`"))
        }
    }
}

fn too_deep() -> String {
    format!("values are nested more than {MAX_DEPTH} levels deep")
}

fn place_of(marker: &Marker) -> Place {
    let number = |it: usize| u32::try_from(it).unwrap_or(u32::MAX);
    Place { line: number(marker.line()).max(1), column: number(marker.col()).saturating_add(1) }
}

/// A list or a map that is not complete.
struct Open {
    place: Place,
    anchor: usize,
    weight: usize,
    items: Items,
}

enum Items {
    List(Vec<Rc<Node>>),
    Map { entries: Vec<Entry>, keys: BTreeSet<Rc<str>>, key: Option<(Rc<str>, Place)>, merged: Vec<Rc<Node>> },
}

struct Composer<'a> {
    source: &'a Source<'a>,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    tags: Vec<(Place, String)>,
}

impl Composer<'_> {
    fn problem<T>(&self, place: Place, message: impl Into<String>, help: &str) -> Outcome<T> {
        Err(problem(self.source, place, message, help))
    }

    fn take(&mut self, event: Event<'_>, place: Place) -> Outcome<()> {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                self.problem(place, "a second document begins here", "import each of them from a file of its own")
            }
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some(node) => self.add(node, place),
                None => self.problem(place, "the alias stands inside what it names", "write the value out"),
            },
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = tag.as_ref().is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                self.tagged(tag.as_deref(), place);
                let empty = matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let node = if empty && style == ScalarStyle::Plain && !is_text {
                    Node { place, value: Value::Null, weight: NODE }
                } else {
                    Node::text(place, text.into_owned())
                };
                self.complete(node, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.tagged(tag.as_deref(), place);
                self.begin(place, anchor, Items::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.tagged(tag.as_deref(), place);
                let items = Items::Map { entries: Vec::new(), keys: BTreeSet::new(), key: None, merged: Vec::new() };
                self.begin(place, anchor, items)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            // Where a stream or a document begins and ends, and comments.
            _ => Ok(()),
        }
    }

    fn tagged(&mut self, tag: Option<&Tag>, place: Place) {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            self.tags.push((place, tag.to_string()));
        }
    }

    fn begin(&mut self, place: Place, anchor: usize, items: Items) -> Outcome<()> {
        if self.open.len() >= MAX_DEPTH {
            return self.problem(place, too_deep(), "");
        }
        if matches!(self.open.last(), Some(Open { items: Items::Map { key: None, .. }, .. })) {
            return self.problem(place, "a list or a map cannot be a key", "write a text as the key");
        }
        self.open.push(Open { place, anchor, weight: NODE, items });
        Ok(())
    }

    fn end(&mut self) -> Outcome<()> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let node = match open.items {
            Items::List(items) => Node { place: open.place, value: Value::List(items), weight: open.weight },
            Items::Map { mut entries, mut keys, merged, .. } => {
                let mut weight = open.weight;
                // What the map says itself wins, then the first of those that are merged.
                for source in merged {
                    let Value::Map(others) = &source.value else { continue };
                    for other in others {
                        if keys.insert(other.key.clone()) {
                            entries.push(other.clone());
                        }
                    }
                    weight = weight.saturating_add(source.weight);
                    self.weigh(weight, open.place)?;
                }
                Node { place: open.place, value: Value::Map(entries), weight }
            }
        };
        self.complete(node, open.anchor)
    }

    fn complete(&mut self, node: Node, anchor: usize) -> Outcome<()> {
        let place = node.place;
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.add(node, place)
    }

    /// Puts a value into what is open.
    fn add(&mut self, node: Rc<Node>, place: Place) -> Outcome<()> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.weight = open.weight.saturating_add(node.weight);
        let weight = open.weight;
        match &mut open.items {
            Items::List(items) => items.push(node),
            Items::Map { keys, key: key @ None, .. } => {
                let text: Rc<str> = match &node.value {
                    Value::Text(text) => text.as_str().into(),
                    Value::Null => "null".into(),
                    _ => return self.problem(place, "a list or a map cannot be a key", "write a text as the key"),
                };
                if &*text != "<<" && !keys.insert(Rc::clone(&text)) {
                    let message = format!("the key `{}` stands here twice", shown(&text));
                    return self.problem(place, message, "keep one of them");
                }
                *key = Some((text, place));
            }
            Items::Map { entries, key, .. } => {
                let Some((key, key_place)) = key.take() else { return Ok(()) };
                if &*key == "<<" {
                    return self.merge(node, place);
                }
                entries.push(Entry { key, place: key_place, node });
            }
        }
        self.weigh(weight, place)
    }

    /// Remembers what `<<` names.
    fn merge(&mut self, node: Rc<Node>, place: Place) -> Outcome<()> {
        let sources = match &node.value {
            Value::Map(_) => vec![Rc::clone(&node)],
            Value::List(items) => items.clone(),
            Value::Null => Vec::new(),
            Value::Text(_) => return self.problem(place, "`<<` needs a map, or a list of maps", "write <<: *name"),
        };
        if sources.iter().any(|source| !matches!(source.value, Value::Map(_))) {
            return self.problem(place, "`<<` needs a map, or a list of maps", "write <<: *name");
        }
        if let Some(Open { items: Items::Map { merged, .. }, .. }) = self.open.last_mut() {
            merged.extend(sources);
        }
        Ok(())
    }

    fn weigh(&self, weight: usize, place: Place) -> Outcome<()> {
        if weight > MAX_WEIGHT {
            return self.problem(place, "aliases make the file larger than 8MiB", "write out what is needed");
        }
        Ok(())
    }
}

/// Text of a stranger as it may stand in a message.
pub(crate) fn shown(text: &str) -> String {
    let short: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() { format!("{short}…") } else { short }
}
