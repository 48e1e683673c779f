//! What a listing of a server's containers says, turned into events: pure, so that a simulated world and the real one read
//! listings alike.

use super::State;
use crate::container::{Container, ContainerState};
use crate::contract::{Exit, Listing, Sighting};
use crate::event::Event;
use crate::id::ServerId;
use crate::time::ManagerTime;

impl State {
    /// What follows from a listing of a server that was asked for at `asked`. What it does not name counts as absent only if
    /// it is complete and was asked for after the container was last known to change; what is known already says nothing.
    pub fn found(&self, server: &ServerId, asked: ManagerTime, listing: &Listing) -> Vec<Event> {
        let mut events = Vec::new();
        for record in self.on(server).filter(|record| record.state.may_run()) {
            let exited = |exit| {
                let (container, generation) = (record.id.clone(), record.generation);
                Event::Exited { container, generation, exit }
            };
            let Some(seen) = listing.containers.get(&record.id) else {
                if listing.complete && self.is_gone(record, asked) {
                    events.push(exited(Exit::Unknown));
                }
                continue;
            };
            if seen.generation != record.generation {
                // Its last start was never heard of there, and the one before has ended.
                let over = seen.generation < record.generation && !matches!(seen.sighting, Sighting::Running(_));
                if record.state == ContainerState::Lost && listing.complete && over {
                    events.push(exited(Exit::Unknown));
                }
                continue;
            }
            match &seen.sighting {
                Sighting::Running(handle) => {
                    let lost = record.state == ContainerState::Lost;
                    if lost || is_starting(record) || record.handle.as_ref() != Some(handle) {
                        let (container, generation) = (record.id.clone(), record.generation);
                        events.push(Event::Started { container, generation, handle: handle.clone() });
                    }
                }
                Sighting::Exited(exit) => events.push(exited(*exit)),
                Sighting::Absent if self.is_gone(record, asked) => events.push(exited(Exit::Unknown)),
                Sighting::Absent | Sighting::Prepared | Sighting::Unknown => {}
            }
        }
        events
    }

    /// Whether an absence means an end: it ran before the listing was asked for, and no call on it is under way.
    fn is_gone(&self, record: &Container, asked: ManagerTime) -> bool {
        let ran = matches!(
            record.state,
            ContainerState::Waiting | ContainerState::Loading | ContainerState::Ready | ContainerState::Draining
        );
        if record.state == ContainerState::Lost {
            return true;
        }
        let settled = record.operation.is_none_or(|id| !self.operations.contains_key(&id));
        ran && settled && record.started.is_some_and(|started| started < asked)
    }
}

fn is_starting(record: &Container) -> bool {
    matches!(record.state, ContainerState::Preparing | ContainerState::Prepared | ContainerState::Starting)
}
