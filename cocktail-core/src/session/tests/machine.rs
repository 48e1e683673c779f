//! Machines of the simulated cluster: an agent on a runtime that outlives it, with durable memory.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::world::{Clock, Event, MS, True, World};
use crate::contract::Exit;
use crate::error::ErrorKind;
use crate::id::{ContainerId, Generation, ServerId};
use crate::session::{
    AgentConfig, AgentEnd, AgentMemory, AgentOutput, AgentTime, BootId, Connection, Effect, Failure, LeaseEnd,
    Survivor, Survivors, ToAgent,
};

#[derive(Debug)]
pub(super) enum Heard {
    Nothing,
    Opened(Connection),
    Closed(Connection),
    Message(Connection, ToAgent),
    Started(ContainerId, u64),
    Failed(ContainerId, u64),
    Exited(ContainerId, u64, Exit),
}

#[derive(Debug)]
pub(super) struct Process {
    started: bool,
    blocked: bool,
    at_lease_end: LeaseEnd,
    ends_at: Option<True>,
}

impl Process {
    /// It may answer a request, also while it is ending.
    pub(super) fn serves(&self) -> bool {
        self.started && !self.blocked
    }
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) server: usize,
    pub(super) boot: u64,
    clock: Clock,
    pub(super) memory: AgentMemory,
    pub(super) agent: Option<AgentEnd>,
    pub(super) wire: Option<u64>,
    /// Counts the agent's processes.
    pub(super) life: u64,
    paused: Option<Vec<Heard>>,
    pub(super) processes: BTreeMap<(ContainerId, u64), Process>,
    exits: BTreeMap<ContainerId, (u64, Exit)>,
    hold: Option<(AgentTime, Duration)>,
    pub(super) dead: bool,
    clone: bool,
    /// Highest generation that was run, as long as the memory lasts.
    run: BTreeMap<ContainerId, u64>,
    /// When the agent is woken.
    wakes: BTreeSet<True>,
}

impl Machine {
    pub(super) fn boot_id(&self) -> BootId {
        BootId::new(format!("boot-{}", self.boot))
    }
    fn now(&self, now: True) -> AgentTime {
        AgentTime(self.clock.read(now))
    }
}

impl World {
    pub(super) fn add_machine(&mut self, server: usize, cloned: Option<usize>) {
        let clock = Clock::new(&mut self.dice);
        let boot = self.mint();
        let (memory, run) = match cloned.map(|index| &self.machines[index]) {
            Some(original) => (original.memory.clone(), original.run.clone()),
            None => (AgentMemory::default(), BTreeMap::new()),
        };
        self.machines.push(Machine {
            server,
            boot,
            clock,
            memory,
            agent: None,
            wire: None,
            life: 0,
            paused: None,
            processes: BTreeMap::new(),
            exits: BTreeMap::new(),
            hold: None,
            dead: false,
            clone: cloned.is_some(),
            run,
            wakes: BTreeSet::new(),
        });
        let machine = self.machines.len() - 1;
        self.start_agent(machine, 0);
    }

    pub(super) fn start_agent(&mut self, index: usize, life: u64) {
        let now = self.now;
        let machine = &mut self.machines[index];
        if machine.life != life || machine.agent.is_some() || machine.dead {
            return;
        }
        let alive = machine.processes.iter().map(|((container, generation), process)| {
            let Process { blocked, at_lease_end, .. } = *process;
            let generation = Generation(*generation);
            (container.clone(), Survivor { generation, exit: None, blocked, at_lease_end })
        });
        let ended = machine.exits.iter().map(|(container, (generation, exit))| {
            let (generation, exit) = (Generation(*generation), Some(*exit));
            (container.clone(), Survivor { generation, exit, blocked: false, at_lease_end: LeaseEnd::End })
        });
        let containers = ended.chain(alive).collect();
        let config = AgentConfig {
            server: ServerId::new(format!("server-{}", machine.server)),
            boot: machine.boot_id(),
            hello_every: Duration::from_millis(300),
        };
        let found = Survivors { lease: machine.hold, containers };
        let (agent, out) = AgentEnd::new(config, machine.memory.clone(), found, machine.now(now));
        machine.agent = Some(agent);
        self.do_as_told(index, out);
        self.dial_soon(index);
    }

    pub(super) fn machine_hears(&mut self, index: usize, heard: Heard) {
        let now = self.now;
        let machine = &mut self.machines[index];
        machine.wakes.remove(&now);
        if let Heard::Closed(wire) = &heard
            && machine.wire == Some(wire.0)
        {
            machine.wire = None;
            self.dial_soon(index);
        }
        let machine = &mut self.machines[index];
        if let Some(inbox) = &mut machine.paused {
            inbox.push(heard);
            return;
        }
        let at = machine.now(now);
        let Some(agent) = &mut machine.agent else { return };
        let out = match heard {
            Heard::Nothing => agent.tick(at),
            Heard::Opened(wire) => agent.opened(at, wire),
            Heard::Closed(wire) => agent.closed(at, wire),
            Heard::Message(wire, message) => agent.received(at, wire, message),
            Heard::Started(container, generation) => agent.started(at, &container, Generation(generation)),
            Heard::Failed(container, generation) => {
                let failure = Failure { kind: ErrorKind::Unavailable, text: "no".to_owned(), port: None, engine: None };
                agent.start_failed(at, &container, Generation(generation), failure)
            }
            Heard::Exited(container, generation, exit) => agent.exited(at, &container, Generation(generation), exit),
        };
        self.do_as_told(index, out);
    }

    fn do_as_told(&mut self, index: usize, out: AgentOutput) {
        let AgentOutput { memos, effects, messages, hang_up } = out;
        let machine = &mut self.machines[index];
        let epoch = |memory: &AgentMemory| memory.obeyed.as_ref().map(|lease| lease.epoch);
        let before = epoch(&machine.memory);
        for memo in memos {
            machine.memory.apply(memo);
        }
        assert!(epoch(&machine.memory) >= before, "the obeyed epoch decreased");
        let crashes = !self.calm && self.rates.keepers && !effects.is_empty();
        if crashes && self.dice.percent(self.rates.crash_between) {
            self.kill_agent(index);
            return;
        }
        for effect in effects {
            self.effect(index, effect);
        }
        for (wire, message) in messages {
            self.send_to_host(wire, message);
        }
        for wire in hang_up {
            self.hang_up(wire.0, true);
        }
        let machine = &self.machines[index];
        if let Some(at) = machine.agent.as_ref().and_then(AgentEnd::wake_at) {
            let (when, life) = (machine.clock.when(at.0).max(self.now), machine.life);
            if machine.wakes.first().is_none_or(|first| when < *first) {
                self.machines[index].wakes.insert(when);
                self.at(when, Event::WakeMachine(index, life));
            }
        }
    }

    fn effect(&mut self, index: usize, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::Hold { until, fence } => {
                let machine = &mut self.machines[index];
                machine.hold = Some((until, fence));
                let (when, boot) = (machine.clock.when(until.0), machine.boot);
                if self.rates.keepers {
                    self.at(when, Event::HoldOver(index, boot));
                }
            }
            Effect::Run { launch, at_lease_end } => {
                let (container, generation) = (launch.container.clone(), launch.generation.0);
                let machine = &mut self.machines[index];
                let before = machine.run.insert(container.clone(), generation);
                assert!(before < Some(generation), "{container} {generation} is run after {before:?}");
                let held = machine.hold.is_some_and(|(until, _)| machine.now(now) < until);
                assert!(held, "{container} is run without a lease");
                let process = Process { started: false, blocked: false, at_lease_end, ends_at: None };
                machine.processes.insert((container.clone(), generation), process);
                let boot = machine.boot;
                let ok = self.calm || !self.dice.percent(self.rates.start_fails);
                let delay = self.dice.below(400) * MS;
                self.after(delay, Event::Ran { machine: index, boot, container, generation, ok });
            }
            Effect::End { container, generation, grace } => self.end(index, &container, generation.0, grace),
            Effect::Block { container, generation } => self.block(index, container, generation, true),
            Effect::Unblock { container, generation } => self.block(index, container, generation, false),
            Effect::Forget { container } => {
                self.machines[index].exits.remove(&container);
            }
        }
    }

    fn block(&mut self, index: usize, container: ContainerId, generation: Generation, blocked: bool) {
        let machine = &mut self.machines[index];
        let held = machine.hold.is_some_and(|(until, _)| machine.now(self.now) < until);
        assert!(blocked || held, "{container} is admitted without a lease");
        if let Some(process) = machine.processes.get_mut(&(container, generation.0)) {
            process.blocked = blocked;
        }
    }

    /// Whatever has to end may take all of its grace, by the machine's clock.
    fn end(&mut self, index: usize, container: &ContainerId, generation: u64, grace: Duration) {
        let now = self.now;
        let machine = &mut self.machines[index];
        let deadline = machine.clock.when((machine.now(now) + grace).0).max(now);
        let ends_at = if self.dice.percent(50) { deadline } else { now + self.dice.below(deadline - now + 1) };
        let boot = machine.boot;
        let Some(process) = machine.processes.get_mut(&(container.clone(), generation)) else { return };
        if process.ends_at.is_none_or(|at| ends_at < at) {
            process.ends_at = Some(ends_at);
            self.at(ends_at, Event::Ends { machine: index, boot, container: container.clone(), generation });
        }
    }

    pub(super) fn ran(&mut self, index: usize, boot: u64, container: &ContainerId, generation: u64, ok: bool) {
        let machine = &mut self.machines[index];
        let key = (container.clone(), generation);
        let Some(process) = machine.processes.get_mut(&key).filter(|_| machine.boot == boot) else { return };
        if ok {
            process.started = true;
            self.machine_hears(index, Heard::Started(container.clone(), generation));
        } else {
            machine.processes.remove(&key);
            self.machine_hears(index, Heard::Failed(container.clone(), generation));
        }
    }

    pub(super) fn ends(&mut self, index: usize, boot: u64, container: &ContainerId, generation: u64) {
        let machine = &mut self.machines[index];
        let there = machine.processes.remove(&(container.clone(), generation)).filter(|_| machine.boot == boot);
        if there.is_some() {
            let exit = Exit::Signal(15);
            machine.exits.insert(container.clone(), (generation, exit));
            self.machine_hears(index, Heard::Exited(container.clone(), generation, exit));
        }
    }

    /// The runtime fences by itself, whatever its agent is doing.
    pub(super) fn hold_over(&mut self, index: usize, boot: u64) {
        let machine = &mut self.machines[index];
        let Some((until, fence)) = machine.hold.filter(|_| machine.boot == boot) else { return };
        if machine.now(self.now) < until {
            return;
        }
        let mut ending = Vec::new();
        for ((container, generation), process) in &mut machine.processes {
            match process.at_lease_end {
                LeaseEnd::Keep => process.blocked = true,
                LeaseEnd::End => ending.push((container.clone(), *generation)),
            }
        }
        for (container, generation) in ending {
            self.end(index, &container, generation, fence);
        }
    }

    pub(super) fn pause(&mut self, index: usize, long: True) {
        let machine = &mut self.machines[index];
        if machine.paused.is_none() && machine.agent.is_some() {
            machine.paused = Some(Vec::new());
            self.after(long, Event::Resume(index));
            self.count("paused");
        }
    }

    pub(super) fn resume(&mut self, index: usize) {
        for heard in self.machines[index].paused.take().into_iter().flatten() {
            self.machine_hears(index, heard);
        }
        self.machine_hears(index, Heard::Nothing);
    }

    pub(super) fn kill_agent(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        if machine.agent.take().is_none() {
            return;
        }
        machine.paused = None;
        machine.life += 1;
        machine.wakes.clear();
        let (life, wire) = (machine.life, machine.wire.take());
        if let Some(wire) = wire {
            self.hang_up(wire, true);
        }
        let delay = self.dice.below(6_000) * MS;
        self.after(delay, Event::StartAgent(index, life));
        self.count("agent killed");
    }

    pub(super) fn reboot(&mut self, index: usize, forgets: bool) {
        self.kill_agent(index);
        let boot = self.mint();
        let clock = Clock::new(&mut self.dice);
        let machine = &mut self.machines[index];
        (machine.boot, machine.clock, machine.hold) = (boot, clock, None);
        machine.processes.clear();
        machine.exits.clear();
        if forgets {
            machine.memory = AgentMemory::default();
            machine.run.clear();
        }
        self.count(if forgets { "rebooted without state" } else { "rebooted" });
    }

    pub(super) fn clone_machine(&mut self, index: usize) {
        if self.machines.len() < super::world::SERVERS + 2 && !self.machines[index].dead {
            self.add_machine(self.machines[index].server, Some(index));
            self.count("cloned");
        }
    }

    pub(super) fn crash_process(&mut self, index: usize) {
        let machine = &self.machines[index];
        let (boot, keys) = (machine.boot, machine.processes.keys().cloned().collect::<Vec<_>>());
        let chosen = self.dice.below(keys.len() as u64);
        if let Some((container, generation)) = keys.into_iter().nth(usize::try_from(chosen).unwrap()) {
            self.ends(index, boot, &container, generation);
            self.count("process crashed");
        }
    }

    /// What an operator does in the end: clones go, and a boot that another one took over from boots anew.
    pub(super) fn heal_machines(&mut self) {
        for index in 0..self.machines.len() {
            self.resume(index);
            let machine = &mut self.machines[index];
            if machine.clone {
                machine.dead = true;
                machine.agent = None;
                machine.processes.clear();
                continue;
            }
            let boot = machine.boot_id().to_string();
            if self.joined[machine.server].contains(&boot) && self.joined[machine.server].last() != Some(&boot) {
                self.reboot(index, false);
            }
            self.dial_soon(index);
        }
    }

    /// The most that a machine may serve after its lease.
    pub(super) fn is_quiet(&self, server: usize, boot: &str) -> bool {
        let of = |machine: &&Machine| machine.server == server && machine.boot_id().as_str() == boot;
        self.machines.iter().filter(of).all(|machine| !machine.processes.values().any(Process::serves))
    }
}
