//! How many containers of a Unit were ready at every moment, as the journal tells: no look from outside misses less.
//!
//! Start at [`Journal::read`]. The journal holds what containers did and what was decided, also by Managers that were
//! killed since; a container is ready from its probe's success until it fails, ends, or begins to drain.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::Home;

/// The events of a Home so far.
#[derive(Debug)]
pub struct Journal {
    events: Vec<Value>,
}

/// How many were ready after an event.
#[derive(Debug, Clone)]
pub struct Moment {
    /// The turn.
    pub seq: u64,
    /// Ready containers after it.
    pub ready: usize,
    /// The event, for people.
    pub event: String,
}

impl Journal {
    /// Reads all events. Needs a Manager.
    #[track_caller]
    pub fn read(home: &Home) -> Self {
        Self { events: home.run(&["-o", "json", "events"]).json_lines() }
    }

    /// The events of one kind about an object, by its name as events tell it.
    pub fn of<'a>(&'a self, kind: &'a str, object: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events.iter().filter(move |event| event["kind"] == kind && event["object"] == object)
    }

    /// How many containers of a Unit (`service/map/unit`) were ready after each event that has to do with that.
    pub fn ready(&self, unit: &str) -> Vec<Moment> {
        let (mut members, mut ready) = (BTreeSet::new(), BTreeSet::new());
        let mut moments = Vec::new();
        for event in &self.events {
            let (Some(object), Some(kind)) = (event["object"].as_str(), event["kind"].as_str()) else { continue };
            if kind == "claimed" && event["detail"]["unit"] == unit {
                members.insert(object);
            }
            if !members.contains(object) {
                continue;
            }
            let changed = match kind {
                "ready" => ready.insert(object),
                "unready" | "drain-begun" | "exited" | "removed" => ready.remove(object),
                _ => false,
            };
            if changed {
                let reason = event["reason"].as_str().unwrap_or_default();
                moments.push(Moment {
                    seq: event["seq"].as_u64().unwrap_or_default(),
                    ready: ready.len(),
                    event: format!("{kind} {object}: {reason}"),
                });
            }
        }
        moments
    }

    /// Fails the test if fewer than `least` containers of a Unit were ready after any event later than `from`.
    ///
    /// # Panics
    /// When there were fewer, with what came before.
    #[track_caller]
    pub fn never_below(&self, unit: &str, least: usize, from: u64) {
        let moments = self.ready(unit);
        let Some(at) = moments.iter().position(|moment| moment.seq > from && moment.ready < least) else { return };
        let before = moments[at.saturating_sub(12)..=at].iter();
        let before: Vec<String> =
            before.map(|moment| format!("{} ready after {} {}", moment.ready, moment.seq, moment.event)).collect();
        panic!("fewer than {least} containers of {unit} were ready:\n{}", before.join("\n"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn journal(events: &[(&str, &str)]) -> Journal {
        let event = |(seq, (kind, object)): (usize, &(&str, &str))| json!({ "seq": seq, "kind": kind, "object": object, "reason": "", "detail": { "unit": "s/m/u" } });
        Journal { events: events.iter().enumerate().map(event).collect() }
    }

    #[test]
    fn a_container_is_ready_from_its_success_until_it_fails_drains_or_ends() {
        for end in ["unready", "drain-begun", "exited"] {
            let events =
                [("claimed", "a"), ("claimed", "b"), ("ready", "a"), ("ready", "b"), (end, "a"), ("exited", "a")];
            let counts: Vec<usize> = journal(&events).ready("s/m/u").iter().map(|moment| moment.ready).collect();
            assert_eq!(counts, [1, 2, 1], "{end}");
        }
    }

    #[test]
    #[should_panic(expected = "fewer than 2")]
    fn one_ready_container_too_few_is_found() {
        journal(&[("claimed", "a"), ("claimed", "b"), ("ready", "a"), ("ready", "b"), ("drain-begun", "a")])
            .never_below("s/m/u", 2, 3);
    }

    #[test]
    fn what_was_before_is_not_judged() {
        journal(&[("claimed", "a"), ("ready", "a"), ("claimed", "b"), ("ready", "b")]).never_below("s/m/u", 2, 2);
    }
}
