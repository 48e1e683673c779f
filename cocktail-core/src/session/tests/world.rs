//! A small cluster with one seed: machines, Managers, a network that loses, doubles, delays and reorders, clocks that
//! differ in rate and offset. Start at [`World::run`]. What must hold after every event is in [`World::check`].

use std::collections::{BTreeMap, BTreeSet};

use super::host::{Host, Store};
use super::machine::Machine;
use crate::backoff::mix;
use crate::id::{ContainerId, OperationId};
use crate::session::{Connection, ToAgent, ToManager};

/// Microseconds of true time.
pub(super) type True = u64;

pub(super) const MS: True = 1_000;
pub(super) const SECOND: True = 1_000 * MS;
pub(super) const SERVERS: usize = 3;
pub(super) const SLOTS: usize = 5;

/// The world's only source of chance.
#[derive(Debug)]
pub(super) struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.thrown += 1;
        mix(self.seed, "session", self.thrown) % end.max(1)
    }
    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        let index = usize::try_from(self.below(items.len() as u64)).unwrap();
        items.get(index).copied()
    }
}

/// A clock of its own rate and offset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    ppm: i64,
    offset_ms: u64,
}

impl Clock {
    pub(super) fn new(dice: &mut Dice) -> Self {
        Self { ppm: dice.below(1_001).cast_signed() - 500, offset_ms: dice.below(60_000) }
    }
    fn rate(self) -> u64 {
        (1_000_000 + self.ppm).cast_unsigned()
    }
    pub(super) fn read(self, now: True) -> u64 {
        self.offset_ms + now * self.rate() / 1_000_000 / 1_000
    }
    /// First true time at which it reads at least `millis`.
    pub(super) fn when(self, millis: u64) -> True {
        (millis.saturating_sub(self.offset_ms) * 1_000_000_000).div_ceil(self.rate())
    }
}

#[derive(Debug)]
pub(super) enum Event {
    ToHost(u64, ToManager),
    ToMachine(u64, ToAgent),
    HostClosed(u64),
    MachineClosed(u64),
    Dial(usize, u64),
    WakeMachine(usize, u64),
    WakeHost(usize),
    Resume(usize),
    ResumeHost(usize),
    StartAgent(usize, u64),
    Ran { machine: usize, boot: u64, container: ContainerId, generation: u64, ok: bool },
    Ends { machine: usize, boot: u64, container: ContainerId, generation: u64 },
    HoldOver(usize, u64),
    Heal { machine: usize, from: bool },
    Plan,
    Renew(usize),
    Acquire,
    Fault,
}

/// A connection between a machine and a Manager; each side learns by itself that it is over.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) machine: usize,
    pub(super) host: usize,
    pub(super) at_machine: bool,
    pub(super) at_host: bool,
}

/// How bad a seed is, in percent, drawn by itself.
#[derive(Debug)]
pub(super) struct Rates {
    pub(super) drop: u64,
    double: u64,
    slow: u64,
    pub(super) start_fails: u64,
    pub(super) crash_between: u64,
    fault_every: True,
    /// Runtimes fence by themselves; without it agents neither pause nor die.
    pub(super) keepers: bool,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: True,
    pub(super) dice: Dice,
    pub(super) rates: Rates,
    queue: BTreeMap<(True, u64), Event>,
    queued: u64,
    pub(super) machines: Vec<Machine>,
    pub(super) hosts: Vec<Host>,
    pub(super) store: Store,
    pub(super) wires: BTreeMap<u64, Wire>,
    wired: u64,
    pub(super) cut: BTreeSet<(usize, bool)>,
    pub(super) calm: bool,
    /// Which slot a container fills.
    pub(super) slot_of: BTreeMap<ContainerId, usize>,
    pub(super) open: BTreeMap<OperationId, usize>,
    /// Boots that joined each server, in order.
    pub(super) joined: Vec<Vec<String>>,
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) minted: u64,
}

impl World {
    /// Lives through `faulty` with faults and `healed` without any.
    pub(super) fn run(seed: u64, faulty: True, healed: True) -> Self {
        let mut dice = Dice { seed, thrown: 0 };
        let rates = Rates {
            drop: dice.below(4) * dice.below(10),
            double: dice.below(10),
            slow: dice.below(8),
            start_fails: dice.below(8),
            crash_between: dice.below(3),
            fault_every: (300 + dice.below(3_000)) * MS,
            keepers: dice.percent(75),
        };
        let mut world = Self {
            now: 0,
            dice,
            rates,
            queue: BTreeMap::new(),
            queued: 0,
            machines: Vec::new(),
            hosts: Vec::new(),
            store: Store::new(),
            wires: BTreeMap::new(),
            wired: 0,
            cut: BTreeSet::new(),
            calm: false,
            slot_of: BTreeMap::new(),
            open: BTreeMap::new(),
            joined: vec![Vec::new(); SERVERS],
            counts: BTreeMap::new(),
            minted: 0,
        };
        for server in 0..SERVERS {
            world.add_machine(server, None);
        }
        world.acquire();
        world.after(200 * MS, Event::Plan);
        world.after(SECOND, Event::Fault);
        world.live_until(faulty);
        world.heal();
        world.live_until(faulty + healed);
        world
    }

    pub(super) fn mint(&mut self) -> u64 {
        self.minted += 1;
        self.minted
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn after(&mut self, span: True, event: Event) {
        self.at(self.now + span, event);
    }

    pub(super) fn at(&mut self, time: True, event: Event) {
        self.queued += 1;
        self.queue.insert((time.max(self.now), self.queued), event);
    }

    fn live_until(&mut self, end: True) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((time, _), event) = entry.remove_entry();
            self.now = time;
            self.happen(event);
            self.check();
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToHost(wire, message) => {
                if let Some(host) = self.wires.get(&wire).filter(|wire| wire.at_host).map(|wire| wire.host) {
                    let server = self.machines[self.wires[&wire].machine].server;
                    self.host_hears(host, server, super::host::Heard::Message(Connection(wire), message));
                }
            }
            Event::ToMachine(wire, message) => {
                if let Some(machine) = self.wires.get(&wire).filter(|wire| wire.at_machine).map(|wire| wire.machine) {
                    self.machine_hears(machine, super::machine::Heard::Message(Connection(wire), message));
                }
            }
            Event::HostClosed(wire) => {
                let Some(ended) = self.wires.get_mut(&wire).filter(|wire| wire.at_host) else { return };
                ended.at_host = false;
                let (host, server) = (ended.host, self.machines[ended.machine].server);
                self.host_hears(host, server, super::host::Heard::Closed(Connection(wire)));
            }
            Event::MachineClosed(wire) => {
                let Some(ended) = self.wires.get_mut(&wire).filter(|wire| wire.at_machine) else { return };
                ended.at_machine = false;
                let machine = ended.machine;
                self.machine_hears(machine, super::machine::Heard::Closed(Connection(wire)));
            }
            Event::Dial(machine, life) => self.dial(machine, life),
            Event::WakeMachine(machine, life) if self.machines[machine].life == life => {
                self.machine_hears(machine, super::machine::Heard::Nothing);
            }
            Event::WakeMachine(..) => (),
            Event::WakeHost(host) => self.tick_host(host),
            Event::Resume(machine) => self.resume(machine),
            Event::ResumeHost(host) => self.resume_host(host),
            Event::StartAgent(machine, life) => self.start_agent(machine, life),
            Event::Ran { machine, boot, container, generation, ok } => {
                self.ran(machine, boot, &container, generation, ok);
            }
            Event::Ends { machine, boot, container, generation } => self.ends(machine, boot, &container, generation),
            Event::HoldOver(machine, boot) => self.hold_over(machine, boot),
            Event::Heal { machine, from } => {
                self.cut.remove(&(machine, from));
            }
            Event::Plan => {
                self.plan();
                self.after(200 * MS, Event::Plan);
            }
            Event::Renew(host) => self.renew(host),
            Event::Acquire => self.acquire(),
            Event::Fault => self.fault(),
        }
    }

    fn dial(&mut self, machine: usize, life: u64) {
        let caller = &self.machines[machine];
        if caller.life != life || caller.agent.is_none() || caller.wire.is_some() || caller.dead {
            return;
        }
        let up: Vec<usize> = (0..self.hosts.len()).filter(|host| self.hosts[*host].alive).collect();
        let cut = self.cut.contains(&(machine, true)) || self.cut.contains(&(machine, false));
        let Some(host) = self.dice.pick(&up).filter(|_| !cut) else {
            self.dial_soon(machine);
            return;
        };
        self.wired += 1;
        let wire = self.wired;
        self.wires.insert(wire, Wire { machine, host, at_machine: true, at_host: true });
        self.machines[machine].wire = Some(wire);
        self.machine_hears(machine, super::machine::Heard::Opened(Connection(wire)));
    }

    pub(super) fn dial_soon(&mut self, machine: usize) {
        let (pause, life) = (50 * MS + self.dice.below(800) * MS, self.machines[machine].life);
        self.after(pause, Event::Dial(machine, life));
    }

    /// When, and how often, something that is sent now arrives.
    fn arrivals(&mut self, machine: usize, from_machine: bool) -> Vec<True> {
        if self.calm {
            return vec![5 * MS];
        }
        if self.cut.contains(&(machine, from_machine)) || self.dice.percent(self.rates.drop) {
            return Vec::new();
        }
        let copies = 1 + u64::from(self.dice.percent(self.rates.double));
        let delay = |world: &mut Self| match world.dice.percent(world.rates.slow) {
            true => world.dice.below(9_000) * MS,
            false => MS + world.dice.below(60) * MS,
        };
        (0..copies).map(|_| delay(self)).collect()
    }

    pub(super) fn send_to_host(&mut self, wire: Connection, message: ToManager) {
        let Some(open) = self.wires.get(&wire.0).filter(|wire| wire.at_machine) else { return };
        for delay in self.arrivals(open.machine, true) {
            self.after(delay, Event::ToHost(wire.0, message.clone()));
        }
    }

    pub(super) fn send_to_machine(&mut self, wire: Connection, message: ToAgent) {
        let Some(open) = self.wires.get(&wire.0).filter(|wire| wire.at_host) else { return };
        for delay in self.arrivals(open.machine, false) {
            self.after(delay, Event::ToMachine(wire.0, message.clone()));
        }
    }

    /// One side is done with a wire; the other one learns it, or never does.
    pub(super) fn hang_up(&mut self, wire: u64, by_machine: bool) {
        let Some(ended) = self.wires.get_mut(&wire) else { return };
        let side = if by_machine { &mut ended.at_machine } else { &mut ended.at_host };
        *side = false;
        let machine = ended.machine;
        if by_machine && self.machines[machine].wire == Some(wire) {
            self.machines[machine].wire = None;
            self.dial_soon(machine);
        }
        for delay in self.arrivals(machine, by_machine) {
            self.after(delay, if by_machine { Event::HostClosed(wire) } else { Event::MachineClosed(wire) });
        }
    }

    fn fault(&mut self) {
        if self.calm {
            return;
        }
        let every = self.rates.fault_every;
        let pause = every / 2 + self.dice.below(every);
        self.after(pause, Event::Fault);
        let machine = usize::try_from(self.dice.below(self.machines.len() as u64)).unwrap();
        let long = self.dice.below(9_000) * MS;
        match self.dice.below(16) {
            0..=3 => {
                let ways: &[bool] = [&[true][..], &[false], &[true, false]][self.dice.below(3) as usize];
                for from in ways {
                    self.cut.insert((machine, *from));
                    self.after(long, Event::Heal { machine, from: *from });
                }
                self.count("cut");
            }
            4 => {
                if let Some(wire) = self.machines[machine].wire {
                    self.happen(Event::MachineClosed(wire));
                    self.count("broken");
                }
            }
            5 | 6 if self.rates.keepers => self.pause(machine, long),
            7 if self.rates.keepers => self.kill_agent(machine),
            8 => self.reboot(machine, self.now.is_multiple_of(2)),
            9 => self.clone_machine(machine),
            10 => self.crash_host(),
            11 => self.pause_host(long),
            12 => self.strand_host(),
            13 => self.copy_host(),
            _ => self.crash_process(machine),
        }
    }

    fn heal(&mut self) {
        self.calm = true;
        self.cut.clear();
        self.heal_hosts();
        self.heal_machines();
    }

    /// What must hold after every event.
    fn check(&self) {
        let mut serving: BTreeMap<usize, Vec<(&ContainerId, u64, usize)>> = BTreeMap::new();
        let mut alive: BTreeMap<(usize, &ContainerId), Vec<u64>> = BTreeMap::new();
        for (index, machine) in self.machines.iter().enumerate() {
            for ((container, generation), process) in &machine.processes {
                alive.entry((index, container)).or_default().push(*generation);
                if process.serves() {
                    serving.entry(self.slot_of[container]).or_default().push((container, *generation, index));
                }
            }
        }
        for (slot, who) in serving {
            assert!(who.len() < 2, "slot {slot} is served twice: {who:?}");
        }
        for ((machine, container), generations) in alive {
            assert!(generations.len() < 2, "{container} has two processes on machine {machine}: {generations:?}");
        }
        self.check_routes();
    }
}
