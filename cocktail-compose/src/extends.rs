//! `extends`: a service that is another one with changes.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::context::Context;
use crate::yaml::{Entry, Node, Outcome, Value, shown};

/// Longest row of services that extend each other.
const LONGEST: usize = 32;

/// Keys whose later value replaces the earlier one, although both are lists.
const REPLACED: [&str; 3] = ["command", "entrypoint", "test"];

/// Services, each with what it extends.
///
/// # Errors
/// Services that extend each other in a circle, or one that is not there.
pub(crate) fn resolve(context: &Context<'_>, services: &[Entry]) -> Outcome<Vec<Entry>> {
    let by_name: BTreeMap<&str, &Entry> = services.iter().map(|entry| (&*entry.key, entry)).collect();
    let mut done: BTreeMap<Rc<str>, Rc<Node>> = BTreeMap::new();
    let resolved = services.iter().map(|entry| {
        let node = resolved(context, entry, &by_name, &mut done, LONGEST)?;
        Ok(Entry { node, ..entry.clone() })
    });
    resolved.collect()
}

fn resolved(
    context: &Context<'_>,
    entry: &Entry,
    services: &BTreeMap<&str, &Entry>,
    done: &mut BTreeMap<Rc<str>, Rc<Node>>,
    left: usize,
) -> Outcome<Rc<Node>> {
    if let Some(node) = done.get(&entry.key) {
        return Ok(Rc::clone(node));
    }
    let Some(extends) = entry.node.get("extends") else { return Ok(Rc::clone(&entry.node)) };
    let Some(left) = left.checked_sub(1) else {
        let message = format!("`{}` extends itself, or too many others in a row", shown(&entry.key));
        return Err(context.problem(extends.place, message, "write out what it has of the others"));
    };
    let text = |node: &Node| match &node.value {
        Value::Text(text) => context.interpolated(text, node.place, Some(&entry.key), "extends").map(Some),
        _ => Ok(None),
    };
    let (name, file) = match &extends.value {
        Value::Text(_) => (text(extends)?, None),
        Value::Map(_) => {
            let part = |key: &str| extends.get(key).map_or(Ok(None), |node| text(node));
            (part("service")?, part("file")?)
        }
        _ => (None, None),
    };
    let Some(name) = name else {
        let message = format!("`services.{}.extends` names no service", shown(&entry.key));
        return Err(context.problem(extends.place, message, "write extends: { service: name }"));
    };
    let own = context.source.file.file_name().and_then(|name| name.to_str());
    if let Some(file) = file.filter(|file| Some(file.trim_start_matches("./")) != own) {
        let what = format!("`{}` of {} is not read", shown(&name), shown(&file));
        let instead = "`docker compose config` writes one file with everything in it: import that";
        context.note(Some(&entry.key), "extends", Some(extends.place.line), what, instead);
        return Ok(Rc::clone(&entry.node));
    }
    let Some(base) = services.get(name.as_str()) else {
        let message = format!("there is no service `{}` to extend", shown(&name));
        return Err(context.problem(extends.place, message, ""));
    };
    let base = resolved(context, base, services, done, left)?;
    context.grow(base.weight, extends.place)?;
    let node = merged(&base, &entry.node, "");
    done.insert(Rc::clone(&entry.key), Rc::clone(&node));
    Ok(node)
}

/// What `base` has and `over` changes, by the rules of Compose: maps key by key, lists one after the other.
fn merged(base: &Rc<Node>, over: &Rc<Node>, key: &str) -> Rc<Node> {
    if REPLACED.contains(&key) {
        return Rc::clone(over);
    }
    match (&base.value, &over.value) {
        (Value::Map(base), Value::Map(changes)) => {
            let mut at: BTreeMap<&str, usize> = BTreeMap::new();
            let mut entries: Vec<Entry> = Vec::new();
            for entry in base {
                at.insert(&entry.key, entries.len());
                entries.push(entry.clone());
            }
            for change in changes {
                match at.get(&*change.key) {
                    Some(&at) => {
                        let node = merged(&entries[at].node, &change.node, &change.key);
                        entries[at] = Entry { node, ..change.clone() };
                    }
                    None => entries.push(change.clone()),
                }
            }
            Rc::new(Node::map(over.place, entries))
        }
        (Value::List(base), Value::List(more)) => {
            Rc::new(Node::list(over.place, base.iter().chain(more).cloned().collect()))
        }
        // `environment` and its kin: one of them is a list of NAME=VALUE.
        (Value::List(items), Value::Map(_)) => match pairs(items) {
            Some(map) => merged(&Rc::new(Node::map(base.place, map)), over, key),
            None => Rc::clone(over),
        },
        (Value::Map(_), Value::List(items)) => match pairs(items) {
            Some(map) => merged(base, &Rc::new(Node::map(over.place, map)), key),
            None => Rc::clone(over),
        },
        _ => Rc::clone(over),
    }
}

/// `NAME=VALUE` items as a map; the last of a name counts.
fn pairs(items: &[Rc<Node>]) -> Option<Vec<Entry>> {
    let mut map: BTreeMap<&str, Entry> = BTreeMap::new();
    for item in items {
        let Value::Text(text) = &item.value else { return None };
        let (name, node) = match text.split_once('=') {
            Some((name, value)) => (name, Node::text(item.place, value.to_owned())),
            None => (text.as_str(), Node { place: item.place, value: Value::Null, weight: 0 }),
        };
        map.insert(name, Entry { key: name.into(), place: item.place, node: Rc::new(node) });
    }
    Some(map.into_values().collect())
}
