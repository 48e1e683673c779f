//! Servers of the world: how they come, obey, tell and go.

use cocktail_core::contract::{Exit, Launch, Listing, ProbeKind, UnloadOrder, WorkerSaid};
use cocktail_core::error::ErrorKind;
use cocktail_core::event::Event;
use cocktail_core::fleet::Owner;
use cocktail_core::id::{ContainerId, Epoch, Generation, OperationId, ServerId};
use cocktail_core::operation::Failure;
use cocktail_core::server::ServerState;
use cocktail_core::time::ManagerTime;

use super::Planted;
use super::machine::{Machine, Order, assignment};
use super::manager::Input;
use super::world::{Happening, Readiness, World};

/// Pause between two hellos of a server that was not admitted, and between two looks at what runs.
const HELLO: u64 = 5_000;
const RELIST: u64 = 30_000;

/// Whether what a worker or a program is told makes it useless.
fn is_bad(launch: &Launch) -> bool {
    let given = launch.worker.as_ref().and_then(|worker| worker.assignment.as_ref());
    let told = given.is_some_and(|it| it.microservices.iter().any(|it| it.config.contains("\"bad\":1")));
    told || launch.env.get("BAD").is_some_and(|bad| bad == "1")
}

fn failure(message: &str) -> Failure {
    Failure { kind: ErrorKind::Unavailable, message: message.into(), port: None }
}

impl World {
    /// The provider made something: it boots.
    pub(super) fn object_made(&mut self, id: &str, operation: OperationId) {
        self.watch_made(id, operation);
        let Some(object) = self.provider.objects.get(id) else { return };
        let (server, offering) = (object.server.clone(), object.offering);
        let mute = self.chance.happens(self.rates.never_joins);
        self.trace.note(self.now, format_args!("{server} is made as {id}"));
        self.machines.insert(server.clone(), Machine::new(server.clone(), offering, mute));
        let pause = self.chance.between(2_000, 2 * self.rates.boot.max(1_500));
        self.after(pause, Happening::Booted { server });
    }

    pub(super) fn late_object(&mut self, server: ServerId, offering: usize, operation: OperationId) {
        if self.provider.ours().any(|(_, it)| it.server == server) {
            return;
        }
        let owner = Owner { store: self.store.id.clone(), operation };
        let id = self.provider.make(self.now, server, Some(owner), offering, true, &self.rates, &mut self.chance);
        self.object_made(&id, operation);
    }

    /// An object is being ended: nothing runs on it any more.
    pub(super) fn object_ends(&mut self, id: &str) {
        let Some(object) = self.provider.objects.get(id) else { return };
        let server = object.server.clone();
        self.trace.note(self.now, format_args!("{server} ends"));
        self.machines.remove(&server);
    }

    pub(super) fn object_gone(&mut self, id: &str) {
        if let Some(object) = self.provider.objects.get_mut(id) {
            object.ended.get_or_insert(self.now);
        }
        self.provider.forget(self.now.saturating_sub(600_000));
    }

    pub(super) fn booted(&mut self, server: ServerId) {
        let Some(machine) = self.machines.get_mut(&server) else { return };
        machine.up = !machine.mute;
        if machine.up {
            self.hello(server);
        }
    }

    /// A server that is not admitted yet tells that it is there.
    pub(super) fn hello(&mut self, server: ServerId) {
        let waits =
            |it: ServerState| matches!(it, ServerState::Claimed | ServerState::Provisioning | ServerState::Booting);
        let known = self.replayed.servers.get(&server);
        if !self.machines.contains_key(&server) || known.is_none_or(|it| !waits(it.state)) {
            return;
        }
        // One that is later than the next says nothing more.
        if self.way_back(&server).is_some_and(|pause| pause < HELLO) {
            self.input(Input::Hello(server.clone()));
        }
        self.after(HELLO, Happening::Hello { server });
    }

    /// A machine that can be reached now; one that is paused takes the message when it goes on.
    fn reach(&mut self, server: &ServerId) -> Result<&mut Machine, Option<u64>> {
        let now = self.now;
        match self.machines.get_mut(server) {
            Some(machine) if machine.up && machine.paused > now => Err(Some(machine.paused)),
            Some(machine) if machine.up => Ok(machine),
            _ => Err(None),
        }
    }

    /// An order arrives.
    pub(super) fn at_machine(
        &mut self,
        life: u64,
        epoch: Epoch,
        server: &ServerId,
        operation: OperationId,
        order: Order,
    ) {
        let now = self.now;
        let machine = match self.reach(server) {
            Ok(machine) => machine,
            Err(Some(later)) => {
                let server = server.clone();
                return self.at(later, Happening::AtMachine { life, epoch, server, operation, order });
            }
            Err(None) => return,
        };
        if !machine.obeys(epoch) {
            return self.trace.note(now, format_args!("{server} refuses epoch {epoch}"));
        }
        match order {
            Order::Start(launch) => self.start_worker(life, server, operation, &launch),
            Order::Stop { container, generation, grace } => {
                self.stop_worker(life, server, container, generation, grace);
            }
            Order::Assign(launch) => self.assign_worker(life, server, operation, &launch),
            Order::Unload(order) => self.unload_worker(life, server, operation, &order),
            Order::Remove(container) => {
                let with_volumes = self.has(Planted::VolumeDeleted);
                self.trace.note(now, format_args!("{server} removes {container}"));
                self.watch_remove(server, &container, with_volumes);
                self.tell(server, life, Event::Removed { container });
            }
        }
    }

    /// Tells the Manager of this life something, if it arrives.
    fn tell(&mut self, server: &ServerId, life: u64, event: Event) {
        if let Some(pause) = self.way_back(server) {
            self.after(pause, Happening::Told { life, event: Box::new(event) });
        }
    }

    fn start_worker(&mut self, life: u64, server: &ServerId, operation: OperationId, launch: &Launch) {
        let now = self.now;
        let (container, generation) = (launch.container.clone(), launch.generation);
        let Some(machine) = self.machines.get(server) else { return };
        let handle = machine.handle(generation);
        let started = Event::Started { container: container.clone(), generation, handle };
        if machine.has_started(launch) {
            let exit = machine.exit_of(&container, generation);
            self.tell(server, life, started);
            if let Some(exit) = exit {
                self.tell(server, life, Event::Exited { container, generation, exit });
            }
            return;
        }
        if let Some(failure) = self.watch.failed.get(&operation).cloned() {
            return self.tell(server, life, Event::StartFailed { operation, failure });
        }
        if self.chance.happens(self.rates.start_fails) {
            let taken = launch.ports.first().map(|port| port.port).filter(|_| self.chance.happens(500));
            let (kind, message) = match taken {
                Some(port) => (ErrorKind::Conflict, format!("port {port} is taken")),
                None => (ErrorKind::InvalidConfig, "no such program".into()),
            };
            let failure = Failure { kind, message, port: taken };
            self.watch.failed.insert(operation, failure.clone());
            return self.tell(server, life, Event::StartFailed { operation, failure });
        }
        self.watch_start(server, launch);
        let broken = is_bad(launch) && !self.healed || self.chance.happens(self.rates.never_ready);
        let stubborn = self.chance.happens(self.rates.ignores_stop);
        let Some(machine) = self.machines.get_mut(server) else { return };
        machine.start(launch, stubborn);
        self.trace.note(now, format_args!("{server} starts {container} generation {generation}"));
        self.tell(server, life, started);
        if !broken {
            let pause = self.chance.between(500, 8_000);
            let (server, container) = (server.clone(), container.clone());
            self.after(pause, Happening::WorkerReady { server, container, generation, ready: true });
        }
        let job = launch.env.contains_key("JOB");
        let life = if job { 60_000 } else { self.rates.worker_life };
        if life > 0 && (job || !self.healed) {
            let pause = self.chance.around(life) + 1_000;
            self.after(pause, Happening::WorkerEnds { server: server.clone(), container, generation });
        }
    }

    /// A worker that waits is told what to load. One that has ended is told nothing: its end was or will be told.
    fn assign_worker(&mut self, life: u64, server: &ServerId, operation: OperationId, launch: &Launch) {
        let (container, generation, number) = (launch.container.clone(), launch.generation, assignment(launch));
        let broken = is_bad(launch) && !self.healed || self.chance.happens(self.rates.never_ready);
        let deaf = self.chance.happens(self.rates.start_fails);
        let Some(machine) = self.machines.get(server) else { return };
        let waits = machine.processes.get(&container).filter(|it| it.generation == generation);
        let failure = match waits.filter(|it| it.told < number).and_then(|it| it.assignment) {
            Some(_) if deaf => Some(failure("it does not listen")),
            Some(known) => {
                if known > 0 {
                    self.breach("I15 workers", format!("{container} is told something else while it serves"));
                }
                self.watch_assign(server, launch);
                if let Some(process) = self.machines.get_mut(server).and_then(|it| it.processes.get_mut(&container)) {
                    process.ports = launch.ports.iter().map(|port| port.port).collect();
                    (process.assignment, process.told, process.ready) = (Some(number), number, false);
                }
                self.trace.note(self.now, format_args!("{container} is told what to load, assignment {number}"));
                if !broken {
                    let pause = self.chance.between(5, 1_000);
                    let (server, container) = (server.clone(), container.clone());
                    self.after(pause, Happening::WorkerReady { server, container, generation, ready: true });
                }
                None
            }
            None => None,
        };
        self.tell(server, life, Event::Assigned { operation, failure });
    }

    /// A worker closes what it has loaded, or takes too long for it.
    fn unload_worker(&mut self, life: u64, server: &ServerId, operation: OperationId, order: &UnloadOrder) {
        let slow = self.chance.happens(self.rates.ignores_stop);
        let Some(machine) = self.machines.get_mut(server) else { return };
        let runs = machine.processes.get_mut(&order.container).filter(|it| it.generation == order.generation);
        let failure = match runs {
            None => Some(failure("it does not run")),
            Some(process) if process.assignment == Some(order.assignment) => {
                if !slow {
                    (process.assignment, process.ready) = (Some(0), false);
                    process.ports.clear();
                }
                slow.then(|| failure("it still serves"))
            }
            // It was unloaded before, and nobody heard that.
            Some(process) if process.assignment == Some(0) => None,
            Some(_) => Some(failure("it serves something else")),
        };
        self.tell(server, life, Event::Unloaded { operation, failure });
    }

    fn stop_worker(
        &mut self,
        life: u64,
        server: &ServerId,
        container: ContainerId,
        generation: Generation,
        grace: u64,
    ) {
        let Some(machine) = self.machines.get_mut(server) else { return };
        match machine.processes.get_mut(&container).filter(|it| it.generation == generation) {
            Some(process) if process.stopping => {}
            Some(process) => {
                process.stopping = true;
                let (pause, exit) = if process.stubborn {
                    (grace, Exit::Signal(9))
                } else {
                    (self.chance.between(50, 2_000).min(grace), Exit::Signal(15))
                };
                let server = server.clone();
                self.after(pause, Happening::WorkerStopped { server, container, generation, exit });
            }
            None => {
                let exit = machine.exit_of(&container, generation).unwrap_or(Exit::Unknown);
                self.tell(server, life, Event::Exited { container, generation, exit });
            }
        }
    }

    /// A worker's readiness changes, and it may change back.
    pub(super) fn worker_ready(
        &mut self,
        server: &ServerId,
        container: ContainerId,
        generation: Generation,
        ready: bool,
    ) {
        if !ready && self.healed {
            // It was to flap while things went wrong.
            return;
        }
        let (life, flaps) = (self.life, self.rates.flaps);
        let machine = match self.reach(server) {
            Ok(machine) => machine,
            Err(Some(later)) => {
                let server = server.clone();
                return self.at(later, Happening::WorkerReady { server, container, generation, ready });
            }
            Err(None) => return,
        };
        let Some(process) = machine.processes.get_mut(&container).filter(|it| it.generation == generation) else {
            return;
        };
        process.ready = ready && process.assignment != Some(0);
        if let Some(said) = process.says() {
            let waits = said == WorkerSaid::Waiting;
            if let Some(pause) = self.way_back(server) {
                self.after(pause, Happening::Said { life, container: container.clone(), generation, said });
            }
            if waits {
                return;
            }
        } else {
            let (probe, detail) = (ProbeKind::Ready, if ready { "answered" } else { "refused" }.to_owned());
            let event = Event::Probed { container: container.clone(), generation, probe, ok: ready, detail };
            self.tell(server, life, event);
        }
        let server = server.clone();
        if !ready {
            let pause = self.chance.between(500, 20_000);
            self.after(pause, Happening::WorkerReady { server, container, generation, ready: true });
        } else if flaps > 0 && !self.healed {
            let pause = self.chance.around(flaps * 5) + 1_000;
            self.after(pause, Happening::WorkerReady { server, container, generation, ready: false });
        }
    }

    /// A worker ends, by itself or because it was told to.
    pub(super) fn worker_ended(
        &mut self,
        server: &ServerId,
        container: ContainerId,
        generation: Generation,
        exit: Exit,
    ) {
        let life = self.life;
        let machine = match self.reach(server) {
            Ok(machine) => machine,
            Err(Some(later)) => {
                let server = server.clone();
                return self.at(later, Happening::WorkerStopped { server, container, generation, exit });
            }
            Err(None) => return,
        };
        if machine.end(&container, generation, exit).is_some() {
            self.trace.note(self.now, format_args!("{container} generation {generation} ends: {exit}"));
            self.tell(server, life, Event::Exited { container, generation, exit });
        }
    }

    /// The Manager asks all servers for what runs on them.
    pub(super) fn relist_machines(&mut self) {
        let (life, asked) = (self.life, self.manager_time());
        self.after(RELIST, Happening::RelistMachines { life });
        let Some(manager) = &self.manager else { return };
        let epoch = manager.epoch;
        let joined = |it: ServerState| {
            matches!(it, ServerState::Joined | ServerState::Ready | ServerState::Cordoned | ServerState::Draining)
        };
        let servers: Vec<ServerId> =
            manager.state.servers.values().filter(|it| joined(it.state)).map(|it| it.id.clone()).collect();
        for server in servers {
            if let Some(pause) = self.way_there(&server) {
                self.after(pause, Happening::ListMachine { life, epoch, server, asked });
            }
        }
    }

    pub(super) fn list_machine(&mut self, life: u64, epoch: Epoch, server: ServerId, asked: ManagerTime) {
        let Ok(machine) = self.reach(&server) else { return };
        if !machine.obeys(epoch) {
            return;
        }
        let listing = Box::new(machine.list());
        let ready = machine.processes.iter().map(|(id, it)| (id.clone(), it.generation, it.ready, it.says())).collect();
        if let Some(pause) = self.way_back(&server) {
            self.after(pause, Happening::MachineListed { life, server, asked, listing, ready });
        }
    }

    pub(super) fn machine_listed(
        &mut self,
        server: &ServerId,
        asked: ManagerTime,
        listing: Listing,
        ready: Vec<Readiness>,
    ) {
        self.trace.note(self.now, format_args!("{server} lists {}", listing.containers.len()));
        self.input(Input::MachineListed { server: server.clone(), asked, listing, ready });
    }
}
