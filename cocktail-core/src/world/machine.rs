//! The simulated machine: processes, ports of other programs, and calls whose answers come when a test says so.
//!
//! Like a real runtime it makes the same start only once, and it panics where the planner asks for the impossible: two
//! processes on one port, or on one exclusive volume.

use std::collections::{BTreeMap, BTreeSet};

use crate::container::ContainerState;
use crate::contract::{Exit, Handle, Launch};
use crate::error::ErrorKind;
use crate::event::Event;
use crate::id::{ContainerId, Generation, OperationId, UnitId};
use crate::operation::{Failure, Operation, OperationKind};
use crate::state::State;

/// What becomes of an open call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It succeeds, or fails for a good reason: another program has the port.
    Done,
    /// A start fails; ends and removals do not.
    Fails,
    /// It is done, and the answer comes later or never.
    Late,
}

/// Everything outside the Manager.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    processes: BTreeMap<ContainerId, Process>,
    calls: BTreeMap<OperationId, Call>,
    /// The last start of each container: it is never made again.
    started: BTreeMap<ContainerId, Generation>,
    /// Ports that other programs have.
    pub(crate) foreign: BTreeSet<u16>,
}

#[derive(Debug)]
struct Process {
    generation: Generation,
    machine: String,
    ports: BTreeSet<u16>,
    slot: Option<(UnitId, u32)>,
    /// What it was told to load, if it is a worker.
    assignment: Option<u64>,
    /// It waits, and does nothing until it is told to go on.
    paused: bool,
}

#[derive(Debug)]
struct Call {
    operation: Operation,
    launch: Option<Launch>,
    slot: Option<(UnitId, u32)>,
    /// It has been done, and its answer has not been told.
    answer: Option<Event>,
}

impl Machine {
    /// Takes the call of an operation that is durable.
    pub(crate) fn send(&mut self, state: &State, operation: &Operation) {
        let record = &state.containers[&operation.container];
        let launch = matches!(operation.kind, OperationKind::Start | OperationKind::Assign)
            .then(|| state.launch(&operation.container).expect("what is started can be launched"));
        let slot = record.slot.map(|slot| (record.unit.clone(), slot));
        self.calls.insert(operation.id, Call { operation: operation.clone(), launch, slot, answer: None });
    }

    pub(crate) fn open_calls(&self) -> usize {
        self.calls.len()
    }

    /// Ids of the containers that have a process.
    pub(crate) fn running(&self) -> Vec<ContainerId> {
        self.processes.keys().cloned().collect()
    }

    pub(crate) fn generation(&self, container: &ContainerId) -> Option<Generation> {
        self.processes.get(container).map(|process| process.generation)
    }

    /// What a worker was told to load, if it runs.
    pub(crate) fn assignment(&self, container: &ContainerId) -> Option<u64> {
        self.processes.get(container).and_then(|process| process.assignment)
    }

    /// Whether a container was started to wait, and has not been told to go on.
    pub(crate) fn is_paused(&self, container: &ContainerId) -> bool {
        self.processes.get(container).is_some_and(|process| process.paused)
    }

    /// Answers the call at `index`, counted round.
    pub(crate) fn answer(&mut self, index: usize, answer: Answer) -> Option<Event> {
        let id = *self.calls.keys().nth(index % self.calls.len().max(1))?;
        let call = self.calls.remove(&id)?;
        let event = match &call.answer {
            Some(event) => event.clone(),
            None => self.run(&call, answer == Answer::Fails),
        };
        if answer == Answer::Late {
            self.calls.insert(id, Call { answer: Some(event), ..call });
            return None;
        }
        Some(event)
    }

    /// The Manager is gone with the answers to its calls: the next one sends again what is open.
    pub(crate) fn send_again(&mut self, state: &State) {
        self.calls.retain(|id, _| state.operations.contains_key(id));
        for call in self.calls.values_mut() {
            call.answer = None;
        }
    }

    /// A process ends.
    pub(crate) fn exit(&mut self, container: &ContainerId) -> Option<Generation> {
        self.processes.remove(container).map(|process| process.generation)
    }

    /// What a complete listing says that is new.
    pub(crate) fn listing(&self, state: &State) -> Vec<Event> {
        let mut events = Vec::new();
        for record in state.containers.values().filter(|record| record.state.may_run()) {
            let (container, generation) = (record.id.clone(), record.generation);
            match self.processes.get(&record.id) {
                Some(process) if process.generation == generation => {
                    if record.handle.is_none() {
                        events.push(Event::Started { container, generation, handle: handle(generation) });
                    }
                }
                _ => {
                    let ran = matches!(
                        record.state,
                        ContainerState::Waiting
                            | ContainerState::Loading
                            | ContainerState::Ready
                            | ContainerState::Draining
                    );
                    if ran && record.operation.is_none() {
                        events.push(Event::Exited { container, generation, exit: Exit::Unknown });
                    }
                }
            }
        }
        events
    }

    fn run(&mut self, call: &Call, fails: bool) -> Event {
        let (container, generation) = (call.operation.container.clone(), call.operation.generation);
        match (&call.operation.kind, &call.launch) {
            (OperationKind::Start, Some(launch)) => self.start(call, launch, fails),
            (OperationKind::Assign, Some(launch)) => {
                let failure = self.told(launch, fails);
                Event::Assigned { operation: call.operation.id, failure }
            }
            (OperationKind::Unload { .. }, _) => {
                let runs = self.processes.get_mut(&container).filter(|it| it.generation == generation && !fails);
                let failure = runs.is_none().then(|| failure(ErrorKind::Deadline, "it still serves"));
                if let Some(process) = runs {
                    process.ports.clear();
                    process.assignment = None;
                }
                Event::Unloaded { operation: call.operation.id, failure }
            }
            (OperationKind::Remove, _) => {
                assert!(!self.processes.contains_key(&container), "{container} is removed while it runs");
                Event::Removed { container }
            }
            _ => {
                self.processes.remove(&container);
                Event::Exited { container, generation, exit: Exit::Signal(15) }
            }
        }
    }

    /// A worker is told what to load, and what is paused goes on. One that has ended is told nothing: its end was or will be
    /// told.
    fn told(&mut self, launch: &Launch, fails: bool) -> Option<Failure> {
        if launch.image.is_some() {
            assert!(!launch.paused, "{} is to go on, and to wait", launch.container);
            let process = self.processes.get_mut(&launch.container).filter(|it| it.generation == launch.generation)?;
            process.paused &= fails;
            let ports: BTreeSet<u16> = launch.ports.iter().map(|lease| lease.port).collect();
            assert_eq!(process.ports, ports, "{} has the ports that it was made with", launch.container);
            return fails.then(|| failure(ErrorKind::Unavailable, "it does not listen"));
        }
        let given = launch.worker.as_ref()?.assignment.as_ref().expect("it is told something");
        let process = self.processes.get(&launch.container).filter(|it| it.generation == launch.generation)?;
        if process.assignment.is_some_and(|known| known >= given.number) {
            return None;
        }
        if fails {
            return Some(failure(ErrorKind::Unavailable, "it does not listen"));
        }
        let ports: BTreeSet<u16> = launch.ports.iter().map(|lease| lease.port).collect();
        for (other, process) in &self.processes {
            assert!(process.ports.is_disjoint(&ports), "{other} and {} share a port", launch.container);
        }
        let process = self.processes.get_mut(&launch.container)?;
        assert_eq!(process.assignment, None, "{} is told something else while it serves", launch.container);
        (process.ports, process.assignment) = (ports, Some(given.number));
        None
    }

    fn start(&mut self, call: &Call, launch: &Launch, fails: bool) -> Event {
        let (container, generation) = (launch.container.clone(), launch.generation);
        let started = Event::Started { container: container.clone(), generation, handle: handle(generation) };
        if self.started.get(&container).is_some_and(|last| *last >= generation) {
            // The same start again, or one that came too late: its end was or will be told.
            return started;
        }
        assert!(!self.processes.contains_key(&container), "{container} is started again while it runs");
        let ports: BTreeSet<u16> = launch.ports.iter().map(|lease| lease.port).collect();
        assert_eq!(ports.len(), launch.ports.len(), "{container} has a port twice");
        let taken = ports.intersection(&self.foreign).next().copied();
        if fails || taken.is_some() {
            let message = taken.map_or("no such program".into(), |port| format!("port {port} is taken"));
            let kind = if taken.is_some() { ErrorKind::Conflict } else { ErrorKind::InvalidConfig };
            return Event::StartFailed {
                operation: call.operation.id,
                failure: Failure { kind, message, port: taken },
            };
        }
        // Sockets that are handed over are shared by those that have them.
        let ports: BTreeSet<u16> = launch.ports.iter().filter(|lease| !lease.inherit).map(|lease| lease.port).collect();
        // Where a test has several machines, only those of one share its ports.
        let machine = launch.env.get("COCKTAIL_SERVER").cloned().unwrap_or_default();
        for (other, process) in &self.processes {
            let apart = process.machine != machine || process.ports.is_disjoint(&ports);
            assert!(apart, "{other} and {container} share a port");
            assert!(
                process.slot.is_none() || process.slot != call.slot,
                "{other} and {container} share an exclusive volume"
            );
        }
        self.started.insert(container.clone(), generation);
        let given = launch.worker.as_ref().and_then(|worker| worker.assignment.as_ref());
        let assignment = given.map(|assignment| assignment.number);
        assert!(!launch.paused || launch.image.is_some(), "{container} is no image, and cannot be paused");
        let (slot, paused) = (call.slot.clone(), launch.paused);
        self.processes.insert(container, Process { generation, machine, ports, slot, assignment, paused });
        started
    }
}

fn failure(kind: ErrorKind, message: &str) -> Failure {
    Failure { kind, message: message.into(), port: None }
}

fn handle(generation: Generation) -> Handle {
    let pid = u32::try_from(generation.0).ok();
    Handle { pid, start_time: 1, boot_id: "boot".into(), docker_id: None }
}
