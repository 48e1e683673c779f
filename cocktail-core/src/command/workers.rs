//! What workers ask for.

use std::time::Duration;

use super::Count;
use crate::container::{Container, ContainerState};
use crate::contract::{Actor, ProbeKind, WorkerSaid};
use crate::event::Event;
use crate::id::{ContainerId, Generation};
use crate::state::State;

/// How long the next word of the same kind about a container is not kept.
const NOTED: Duration = Duration::from_secs(10);

impl State {
    /// What follows from what a worker said about itself. Asking for what is on its way already, and saying again what was
    /// just said, changes nothing.
    pub fn worker_said(&self, container: &ContainerId, generation: Generation, said: &WorkerSaid) -> Vec<Event> {
        let runs = |it: &&Container| it.generation == generation && it.state.may_run();
        let Some(record) = self.containers.get(container).filter(runs) else { return Vec::new() };
        let noted = |what: &str, because: String| {
            // A worker may say very much, each time in other words: one in a while is enough to be shown.
            let lately = self.at.0.saturating_sub(i64::try_from(NOTED.as_micros()).unwrap_or(i64::MAX));
            let again = record.why.iter().any(|why| why.decision.as_str() == what && why.at.0 > lately);
            let event = || Event::Noted { container: container.clone(), what: what.to_owned(), because };
            (!again).then(event).into_iter().collect()
        };
        match said {
            WorkerSaid::Waiting => {
                let news = record.is_spare() && record.state == ContainerState::Loading;
                let event = || Event::Registered { container: container.clone(), generation };
                news.then(event).into_iter().collect()
            }
            WorkerSaid::Unfit { error } => {
                let news = record.is_spare() && record.state == ContainerState::Loading && record.replace.is_none();
                let event = || Event::Unfit { container: container.clone(), because: error.clone() };
                news.then(event).into_iter().collect()
            }
            WorkerSaid::Ready { assignment } => {
                let news = is_about(record, *assignment) && record.state == ContainerState::Loading;
                news.then(|| readiness(record, true, "the worker says so".into())).into_iter().collect()
            }
            WorkerSaid::Failed { assignment, error, port_taken } if is_about(record, *assignment) => {
                let mut events = Vec::new();
                // A worker may say very much, each time in other words: the first are kept.
                if record.state == ContainerState::Ready || record.probe.is_empty() {
                    events.push(readiness(record, false, error.clone()));
                }
                let port = record.ports.iter().find(|lease| Some(&lease.name) == port_taken.as_ref());
                // It would have the same fixed port again, and one that was proved before the start is taken by the worker
                // itself: then it tries again when its time is over.
                let fixed = |port: u16| {
                    let unit = self.units.get(&record.unit);
                    unit.is_some_and(|it| {
                        it.template(record.revision).ports.iter().any(|spec| spec.fixed == Some(port))
                    })
                };
                let unproved = record.worker.as_ref().is_some_and(|worker| worker.late) && record.is_wanted();
                if let Some(port) = port.and_then(|it| it.port).filter(|port| unproved && !fixed(*port)) {
                    let because = format!("another program has port {port}");
                    events.push(Event::PortTaken { container: container.clone(), port, because });
                }
                events
            }
            WorkerSaid::Failed { .. } => Vec::new(),
            WorkerSaid::Degraded { error } => noted("degraded", format!("it says: {error}")),
            WorkerSaid::Broken { error } if record.is_wanted() => {
                let because = format!("it says that it is broken: {error}");
                vec![Event::ReplaceAsked { container: container.clone(), because }]
            }
            WorkerSaid::Broken { .. } => Vec::new(),
            WorkerSaid::Extend { reason } => {
                // Whoever leaves has nothing to ask for, and a Unit that is stopped stays so.
                let unit = self.units.get(&record.unit).filter(|unit| record.is_wanted() && unit.goal() > 0);
                let Some(unit) = unit else { return Vec::new() };
                if self.ready(&record.unit) < unit.goal() as usize {
                    return noted("extension", format!("it asks for help ({reason}): one is on its way"));
                }
                let actor = Actor(format!("{container}, which asks for help ({reason})"));
                match self.scale_command(&record.unit.to_string(), Count::More(1), &actor) {
                    Ok(commanded) => commanded.events,
                    Err(error) => noted("extension", format!("it asks for help ({reason}): {error}")),
                }
            }
        }
    }
}

/// Whether an assignment is what a container is to have loaded now: what was said of an earlier one says nothing.
fn is_about(record: &Container, assignment: u64) -> bool {
    let current = record.worker.as_ref().is_some_and(|worker| !worker.spare && worker.assignment == assignment);
    current && matches!(record.state, ContainerState::Loading | ContainerState::Ready)
}

fn readiness(record: &Container, ok: bool, detail: String) -> Event {
    let (container, generation, probe) = (record.id.clone(), record.generation, ProbeKind::Ready);
    Event::Probed { container, generation, probe, ok, detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    const WORKER: &str = "service = \"shop\"\n[maps.prod.units.web]\nworker = \"w\"\nmicroservices = [\"orders\"]\n\
                          scale = { min = 1, max = 2 }\n";

    fn say(world: &mut World, said: WorkerSaid) -> Vec<&'static str> {
        let record = world.of("web")[0].clone();
        let events = world.state.worker_said(&record.id, record.generation, &said);
        let kinds = events.iter().map(|event| event.describe().0).collect();
        world.turn(events);
        kinds
    }

    #[test]
    fn a_worker_that_asks_for_help_gets_one_more_at_a_time_within_the_bounds() {
        let mut world = World::new();
        world.apply(WORKER);
        world.settle();
        let extend = || WorkerSaid::Extend { reason: "queue".into() };
        assert_eq!(say(&mut world, extend()), ["scaled"]);
        assert_eq!(world.of("web").len(), 2);
        assert_eq!(say(&mut world, extend()), ["noted"], "one is on its way");
        assert_eq!(say(&mut world, extend()), Vec::<&str>::new(), "and that was said");
        world.settle();
        world.pass(NOTED);
        assert_eq!(say(&mut world, extend()), ["noted"], "it may have no more");
        assert_eq!(world.of("web").len(), 2);
        world.switch("web", true);
        assert_eq!(say(&mut world, extend()), Vec::<&str>::new(), "it is stopped");
    }

    #[test]
    fn a_worker_that_is_broken_is_replaced_once_and_a_degraded_one_stays() {
        let mut world = World::new();
        world.apply(WORKER);
        world.settle();
        let degraded = || WorkerSaid::Degraded { error: "cold cache".into() };
        assert_eq!(say(&mut world, degraded()), ["noted"]);
        let other = WorkerSaid::Degraded { error: "colder cache".into() };
        assert_eq!(say(&mut world, other), Vec::<&str>::new(), "one in a while");
        world.pass(NOTED);
        assert_eq!(say(&mut world, degraded()), ["noted"]);
        assert_eq!(world.of("web").len(), 1);
        let broken = || WorkerSaid::Broken { error: "no database".into() };
        assert_eq!(say(&mut world, broken()), ["replace-asked"]);
        assert_eq!(world.of("web").len(), 2, "another one comes first");
        assert_eq!(say(&mut world, broken()), Vec::<&str>::new());
    }

    #[test]
    fn what_an_older_start_said_says_nothing() {
        let mut world = World::new();
        world.apply(WORKER);
        world.settle();
        let record = world.of("web")[0].clone();
        let said = WorkerSaid::Broken { error: "late".into() };
        assert_eq!(world.state.worker_said(&record.id, Generation(record.generation.0 + 1), &said), []);
    }
}
