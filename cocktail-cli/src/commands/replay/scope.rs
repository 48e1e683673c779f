//! What concerns an object: in a past, names of things that are long gone count as well.
//!
//! A name means what it means to every command, whole names before tails and prefixes. It is looked up among everything
//! that the kept turns and the state speak of, so that a Unit brings along its containers, those that were there before.

use std::collections::{BTreeMap, BTreeSet};

use cocktail_core::error::{Error, ErrorKind, Result};
use cocktail_core::event::Event;

use super::history::Past;

/// Names of everything that concerns one object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scope(BTreeSet<String>);

/// Everything that a past speaks of.
#[derive(Debug, Default)]
struct Names {
    units: BTreeSet<String>,
    /// Containers by id, and whose they were.
    containers: BTreeMap<String, String>,
    servers: BTreeSet<String>,
    /// Operations as events name them, and the container that each was about.
    operations: BTreeMap<String, String>,
}

impl Scope {
    /// What a name stands for.
    ///
    /// # Errors
    /// `NotFound` with the Units that were known; `Conflict` with what it could mean.
    pub(super) fn of(name: &str, past: &Past<'_>) -> Result<Self> {
        let mut names = Names::default();
        for event in past.turns.iter().flat_map(|(_, turn)| &turn.events) {
            names.learn(event);
        }
        if let Ok(state) = &past.state {
            names.units.extend(state.units.keys().map(ToString::to_string));
            let containers = state.containers.values();
            names.containers.extend(containers.map(|record| (record.id.to_string(), record.unit.to_string())));
            names.servers.extend(state.servers.keys().map(ToString::to_string));
        }
        names.find(name)
    }

    /// Whether an object of that whole name is one of them.
    pub(super) fn has(&self, object: &str) -> bool {
        self.0.contains(object)
    }
}

impl Names {
    fn learn(&mut self, event: &Event) {
        match event {
            Event::Claimed { container, unit, .. } => {
                self.containers.insert(container.to_string(), unit.to_string());
                self.units.insert(unit.to_string());
            }
            Event::Intended { operation } => {
                self.containers.insert(operation.container.to_string(), operation.unit.to_string());
                self.operations.insert(format!("operation {}", operation.id), operation.container.to_string());
            }
            Event::ServerSeen { server } => {
                self.servers.insert(server.id.to_string());
            }
            other => {
                let (_, object, _) = other.describe();
                // Only the name of a Unit has three parts.
                if object.matches('/').count() == 2 {
                    self.units.insert(object);
                }
            }
        }
    }

    fn find(&self, name: &str) -> Result<Scope> {
        if self.containers.contains_key(name) {
            return Ok(self.container(name));
        }
        if self.servers.contains(name) {
            return Ok(Scope(BTreeSet::from([name.to_owned()])));
        }
        let part = |unit: &str, parts: usize| unit.splitn(3, '/').take(parts).collect::<Vec<_>>().join("/");
        let groups: [BTreeSet<String>; 3] = [
            self.units.iter().filter(|unit| is_tail(name, unit)).cloned().collect(),
            self.units.iter().map(|unit| part(unit, 2)).filter(|map| is_tail(name, map)).collect(),
            self.units.iter().map(|unit| part(unit, 1)).filter(|service| service == name).collect(),
        ];
        for (group, parts) in groups.iter().zip([3, 2, 1]) {
            if let Some(found) = one(name, group)? {
                return Ok(self.group(found, |unit| part(unit, parts)));
            }
        }
        let ids = self.containers.keys().chain(&self.servers);
        let prefixed = ids.filter(|id| !name.is_empty() && id.starts_with(name)).cloned().collect();
        match one(name, &prefixed)? {
            Some(found) if self.containers.contains_key(found) => Ok(self.container(found)),
            Some(found) => Ok(Scope(BTreeSet::from([found.clone()]))),
            None => Err(Error::not_found(format!("nothing named {name:?} was known then: {}", self.known()))),
        }
    }

    fn container(&self, id: &str) -> Scope {
        let operations = self.operations.iter().filter(|(_, container)| *container == id).map(|(name, _)| name.clone());
        Scope(operations.chain([id.to_owned()]).collect())
    }

    /// A group of Units with all that belongs to them.
    fn group(&self, name: &str, group_of: impl Fn(&str) -> String) -> Scope {
        let ours: BTreeSet<&String> = self.units.iter().filter(|unit| group_of(unit) == name).collect();
        let containers: BTreeSet<&String> =
            self.containers.iter().filter(|(_, unit)| ours.contains(unit)).map(|(id, _)| id).collect();
        let operations = self.operations.iter().filter(|(_, of)| containers.contains(of)).map(|(name, _)| name);
        let mut all: BTreeSet<String> =
            operations.chain(ours.iter().copied()).chain(containers.iter().copied()).cloned().collect();
        // Manifests are applied to Services.
        all.extend(ours.iter().filter_map(|unit| unit.split('/').next()).map(str::to_owned));
        all.insert(name.to_owned());
        Scope(all)
    }

    fn known(&self) -> String {
        const SHOWN: usize = 8;
        let shown: Vec<&str> = self.units.iter().take(SHOWN).map(String::as_str).collect();
        match self.units.len() {
            0 => "there was no unit".to_owned(),
            all if all > SHOWN => format!("there were the units {} and {} more", shown.join(", "), all - SHOWN),
            _ => format!("there were the units {}", shown.join(", ")),
        }
    }
}

/// Whether a name is the last parts of another.
fn is_tail(name: &str, whole: &str) -> bool {
    whole.strip_suffix(name).is_some_and(|before| !name.is_empty() && (before.is_empty() || before.ends_with('/')))
}

fn one<'a>(name: &str, found: &'a BTreeSet<String>) -> Result<Option<&'a String>> {
    if found.len() > 1 {
        let names: Vec<&str> = found.iter().map(String::as_str).collect();
        return Err(Error::new(ErrorKind::Conflict, format!("{name:?} could be {}", names.join(", "))));
    }
    Ok(found.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let units = ["shop/prod/web", "shop/prod/worker", "shop/dev/web"];
        let containers = [("web-1", units[0]), ("web-2", units[2]), ("worker-1", units[1])];
        Names {
            units: units.map(str::to_owned).into(),
            containers: containers.map(|(id, unit)| (id.to_owned(), unit.to_owned())).into(),
            servers: ["local".to_owned()].into(),
            operations: [("operation 7".to_owned(), "web-1".to_owned())].into(),
        }
    }

    fn found(name: &str) -> Vec<String> {
        names().find(name).unwrap().0.into_iter().collect()
    }

    #[test]
    fn a_unit_brings_its_containers_and_their_operations() {
        assert_eq!(found("prod/web"), ["operation 7", "shop", "shop/prod/web", "web-1"]);
        assert_eq!(found("worker"), ["shop", "shop/prod/worker", "worker-1"]);
    }

    #[test]
    fn maps_services_containers_and_servers_have_names_too() {
        assert_eq!(found("dev"), ["shop", "shop/dev", "shop/dev/web", "web-2"]);
        assert_eq!(found("shop").len(), 8);
        assert_eq!(found("web-1"), ["operation 7", "web-1"]);
        assert_eq!(found("worker-"), ["worker-1"]);
        assert_eq!(found("local"), ["local"]);
    }

    #[test]
    fn a_name_that_means_several_things_or_nothing_is_refused_with_what_there_was() {
        let error = names().find("web").unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("shop/dev/web, shop/prod/web"), "{error}");
        for name in ["wbe", ""] {
            let error = names().find(name).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::NotFound);
            assert!(error.to_string().contains("shop/prod/worker"), "{error}");
        }
    }
}
