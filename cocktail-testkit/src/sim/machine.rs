//! One simulated server: processes, ports, volumes, and what its runtime remembers.
//!
//! Like a real runtime it makes the same start only once, also after a reboot, and refuses orders of an older lease.

use std::collections::{BTreeMap, BTreeSet};

use cocktail_core::contract::{Exit, Handle, Launch, Listing, Observation, Sighting, UnloadOrder, WorkerSaid};
use cocktail_core::id::{ContainerId, Epoch, Generation, ServerId};
use cocktail_core::spec::VolumeKind;

/// An order of the Manager.
#[derive(Debug, Clone)]
pub(super) enum Order {
    Start(Box<Launch>),
    Stop { container: ContainerId, generation: Generation, grace: u64 },
    Remove(ContainerId),
    Assign(Box<Launch>),
    Unload(UnloadOrder),
}

/// A running worker.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) generation: Generation,
    pub(super) ports: BTreeSet<u16>,
    /// Exclusive volumes that it holds.
    pub(super) holds: BTreeSet<String>,
    pub(super) ready: bool,
    /// What it was told to load, if it is a worker; 0 for nothing.
    pub(super) assignment: Option<u64>,
    /// The highest that it was ever told: one that comes again is nothing new.
    pub(super) told: u64,
    /// It ignores that it shall stop.
    pub(super) stubborn: bool,
    /// A stop was ordered.
    pub(super) stopping: bool,
}

/// One server.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) server: ServerId,
    pub(super) offering: usize,
    pub(super) boot: u64,
    /// It runs and answers; not while it boots.
    pub(super) up: bool,
    /// It never answers.
    pub(super) mute: bool,
    /// Nothing moves on it until then.
    pub(super) paused: u64,
    pub(super) epoch: Epoch,
    pub(super) processes: BTreeMap<ContainerId, Process>,
    /// The last start of each container, kept on its disk.
    pub(super) started: BTreeMap<ContainerId, Generation>,
    /// Ends that a listing still tells.
    ended: BTreeMap<ContainerId, (Generation, Exit)>,
    /// Volumes by path, with whether they outlive their containers.
    pub(super) volumes: BTreeMap<String, bool>,
}

/// Which assignment a launch gives; 0 for none.
pub(super) fn assignment(launch: &Launch) -> u64 {
    let given = launch.worker.as_ref().and_then(|worker| worker.assignment.as_ref());
    given.map_or(0, |assignment| assignment.number)
}

impl Process {
    /// What a worker says of itself; `None` for a program that is none.
    pub(super) fn says(&self) -> Option<WorkerSaid> {
        Some(match self.assignment? {
            0 => WorkerSaid::Waiting,
            assignment if self.ready => WorkerSaid::Ready { assignment },
            assignment => WorkerSaid::Failed { assignment, error: "refused".into(), port_taken: None },
        })
    }
}

impl Machine {
    pub(super) fn new(server: ServerId, offering: usize, mute: bool) -> Self {
        Self {
            server,
            offering,
            boot: 0,
            up: false,
            mute,
            paused: 0,
            epoch: Epoch::default(),
            processes: BTreeMap::new(),
            started: BTreeMap::new(),
            ended: BTreeMap::new(),
            volumes: BTreeMap::new(),
        }
    }

    /// Whether an order of this lease is obeyed.
    pub(super) fn obeys(&mut self, epoch: Epoch) -> bool {
        if epoch < self.epoch {
            return false;
        }
        self.epoch = epoch;
        true
    }

    /// Whether a start was made before: it is never made again.
    pub(super) fn has_started(&self, launch: &Launch) -> bool {
        self.started.get(&launch.container).is_some_and(|last| *last >= launch.generation)
    }

    /// Starts a worker.
    pub(super) fn start(&mut self, launch: &Launch, stubborn: bool) {
        let container = launch.container.clone();
        self.started.insert(container.clone(), launch.generation);
        self.ended.remove(&container);
        let mut holds = BTreeSet::new();
        for volume in &launch.volumes {
            let (path, lasts) = (volume.path.display().to_string(), volume.kind != VolumeKind::Ephemeral);
            if volume.kind == VolumeKind::Exclusive {
                holds.insert(path.clone());
            }
            self.volumes.insert(path, lasts);
        }
        let ports = launch.ports.iter().map(|port| port.port).collect();
        let generation = launch.generation;
        let assignment = launch.worker.as_ref().map(|_| assignment(launch));
        let told = assignment.unwrap_or_default();
        let process = Process { generation, ports, holds, ready: false, assignment, told, stubborn, stopping: false };
        self.processes.insert(container, process);
    }

    /// A worker ends; `None` if that start does not run.
    pub(super) fn end(&mut self, container: &ContainerId, generation: Generation, exit: Exit) -> Option<Process> {
        if self.processes.get(container)?.generation != generation {
            return None;
        }
        self.ended.insert(container.clone(), (generation, exit));
        self.processes.remove(container)
    }

    /// How a start ended, where that is remembered.
    pub(super) fn exit_of(&self, container: &ContainerId, generation: Generation) -> Option<Exit> {
        self.ended.get(container).filter(|(ended, _)| *ended == generation).map(|(_, exit)| *exit)
    }

    /// Forgets a container with its own volumes, or with all of `volumes` as well.
    pub(super) fn forget(&mut self, container: &ContainerId, with_volumes: bool) {
        self.ended.remove(container);
        let own = format!(".{container}");
        self.volumes.retain(|path, lasts| *lasts && !with_volumes || !*lasts && !path.ends_with(&own));
    }

    /// It starts anew: what ran is gone, what is on its disk is there.
    pub(super) fn reboot(&mut self) {
        self.processes.clear();
        self.ended.clear();
        self.boot += 1;
    }

    /// What runs here.
    pub(super) fn list(&self) -> Listing {
        let running = self.processes.iter().map(|(id, process)| {
            let sighting = Sighting::Running(self.handle(process.generation));
            (id.clone(), Observation { generation: process.generation, sighting })
        });
        let ended = self.ended.iter().map(|(id, (generation, exit))| {
            (id.clone(), Observation { generation: *generation, sighting: Sighting::Exited(*exit) })
        });
        Listing { containers: ended.chain(running).collect(), complete: true, descended: false }
    }

    /// How a start is found again.
    pub(super) fn handle(&self, generation: Generation) -> Handle {
        let pid = u32::try_from(generation.0).ok();
        Handle { pid, start_time: 1, boot_id: format!("boot-{}", self.boot), docker_id: None }
    }
}
