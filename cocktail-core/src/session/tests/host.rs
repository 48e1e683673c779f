//! Managers of the simulated cluster: the ends, a durable store, and a planner that fills slots.

use std::collections::{BTreeMap, BTreeSet};

use super::machine::Machine;
use super::world::{Clock, Event, MS, SECOND, SERVERS, SLOTS, True, World};
use super::{lease, start, timing};
use crate::contract::StopOrder;
use crate::id::{ContainerId, Generation, OperationId, ServerId};
use crate::session::{
    Claim, Connection, Contact, Fact, LeaseEnd, ManagerEnd, ManagerOutput, Order, Phase, Record, Standing, ToManager,
    Verdict,
};
use crate::time::ManagerTime;

/// How long a Manager may act after it renewed its right at the store.
const RIGHT: True = 2 * SECOND;

#[derive(Debug)]
pub(super) enum Heard {
    Message(Connection, ToManager),
    Closed(Connection),
}

/// What survives a Manager.
#[derive(Debug, Clone)]
pub(super) struct Store {
    keys: Vec<String>,
    epoch: u64,
    held_until: True,
    manager_time: u64,
    records: Vec<Record>,
    claims: Vec<BTreeMap<ContainerId, Claim>>,
    slots: Vec<Slot>,
    containers: u64,
}

/// A place that one container fills at a time.
#[derive(Debug, Clone, Default)]
struct Slot {
    container: Option<(ContainerId, usize)>,
    generation: u64,
    replaced: bool,
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            keys: Vec::new(),
            epoch: 0,
            held_until: 0,
            manager_time: 0,
            records: vec![Record::default(); SERVERS],
            claims: vec![BTreeMap::new(); SERVERS],
            slots: vec![Slot::default(); SLOTS],
            containers: 0,
        }
    }
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) alive: bool,
    epoch: u64,
    clock: Clock,
    /// What its clock read and what its time was when it began.
    began: (u64, u64),
    ends: Vec<ManagerEnd>,
    paused: Option<Vec<(usize, Heard)>>,
    /// It cannot reach its store any more.
    stranded: bool,
    /// It runs on an older copy of the store.
    copy: bool,
    busy: BTreeMap<OperationId, usize>,
    /// When it is woken.
    wakes: BTreeSet<True>,
}

impl Host {
    fn now(&self, now: True) -> ManagerTime {
        ManagerTime(self.began.1 + self.clock.read(now) - self.began.0)
    }
}

impl World {
    fn leading(&self) -> Option<usize> {
        let leads = |host: &Host| host.alive && !host.copy && host.epoch == self.store.epoch;
        self.hosts.iter().position(leads)
    }

    /// The next Manager begins, once the right of the one before has passed or that one is dead.
    pub(super) fn acquire(&mut self) {
        if self.now < self.store.held_until {
            self.at(self.store.held_until, Event::Acquire);
            return;
        }
        if self.leading().is_some_and(|host| !self.hosts[host].stranded && self.hosts[host].paused.is_none()) {
            return;
        }
        self.store.epoch += 1;
        let key = format!("key-{}", self.mint());
        self.store.keys.push(key);
        let host = self.host_on(&self.store.clone(), false);
        self.hosts.push(host);
        self.renew(self.hosts.len() - 1);
    }

    fn host_on(&mut self, store: &Store, copy: bool) -> Host {
        let clock = Clock::new(&mut self.dice);
        let now = ManagerTime(store.manager_time);
        let lease = lease(store.epoch, &store.keys);
        let end = |server: usize| {
            let (record, claims) = (store.records[server].clone(), store.claims[server].clone());
            ManagerEnd::new(timing(), ServerId::new(format!("server-{server}")), lease.clone(), record, claims, now)
        };
        Host {
            alive: true,
            epoch: store.epoch,
            clock,
            began: (clock.read(self.now), store.manager_time),
            ends: (0..SERVERS).map(end).collect(),
            paused: None,
            stranded: false,
            copy,
            busy: BTreeMap::new(),
            wakes: BTreeSet::new(),
        }
    }

    /// A Manager renews its right to act, as long as it reaches its store and nobody else has taken over.
    pub(super) fn renew(&mut self, index: usize) {
        let host = &self.hosts[index];
        if !host.alive || host.copy || host.stranded || host.epoch != self.store.epoch {
            return;
        }
        let (paused, now) = (host.paused.is_some(), host.now(self.now));
        self.after(500 * MS, Event::Renew(index));
        if paused {
            return;
        }
        self.store.held_until = self.now + RIGHT;
        let until = Some(ManagerTime(now.0 + RIGHT / MS - 10));
        for server in 0..SERVERS {
            let out = self.hosts[index].ends[server].may_act_until(now, until);
            self.carry_out(index, server, out);
        }
    }

    pub(super) fn host_hears(&mut self, index: usize, server: usize, heard: Heard) {
        let host = &mut self.hosts[index];
        if !host.alive {
            return;
        }
        if let Some(inbox) = &mut host.paused {
            inbox.push((server, heard));
            return;
        }
        let now = host.now(self.now);
        let out = match heard {
            Heard::Message(wire, message) => host.ends[server].received(now, wire, message),
            Heard::Closed(wire) => host.ends[server].closed(now, wire),
        };
        self.carry_out(index, server, out);
    }

    pub(super) fn tick_host(&mut self, index: usize) {
        self.hosts[index].wakes.remove(&self.now);
        for server in 0..SERVERS {
            let host = &mut self.hosts[index];
            if host.alive && host.paused.is_none() {
                let now = host.now(self.now);
                let out = host.ends[server].tick(now);
                self.carry_out(index, server, out);
            }
        }
    }

    /// Commits and then sends; a Manager whose commit is refused knows that it is over, and one may die in between.
    fn carry_out(&mut self, index: usize, server: usize, out: ManagerOutput) {
        let ManagerOutput { facts, messages, hang_up } = out;
        if self.hosts[index].copy && facts.iter().any(|fact| matches!(fact, Fact::Declined { .. })) {
            self.count("declined");
        }
        let host = &mut self.hosts[index];
        if !facts.is_empty() && !host.copy {
            if host.stranded || host.epoch != self.store.epoch {
                self.kill_host(index);
                return;
            }
            self.commit(index, server);
            for fact in facts {
                self.learn(index, server, fact);
            }
            self.commit(index, server);
            if !self.calm && self.dice.percent(self.rates.crash_between) {
                self.crash_host();
                return;
            }
        }
        for (wire, message) in messages {
            self.send_to_machine(wire, message);
        }
        for wire in hang_up {
            self.hang_up(wire.0, false);
        }
        let host = &self.hosts[index];
        if let Some(at) = host.ends[server].wake_at() {
            let when = host.clock.when(at.0 - host.began.1 + host.began.0).max(self.now);
            if host.wakes.first().is_none_or(|first| when < *first) {
                self.hosts[index].wakes.insert(when);
                self.at(when, Event::WakeHost(index));
            }
        }
    }

    fn commit(&mut self, index: usize, server: usize) {
        let end = &self.hosts[index].ends[server];
        self.store.records[server] = end.record().clone();
        self.store.claims[server] = end.claims().clone();
        self.store.manager_time = self.hosts[index].now(self.now).0;
    }

    fn learn(&mut self, index: usize, server: usize, fact: Fact) {
        match fact {
            Fact::Joined { boot, verdicts, .. } => {
                // A clone may remember what has ended and was removed since its disk was copied.
                let seen = self.hosts[index].ends[server].seen();
                let unknown = |(container, verdict): (&ContainerId, &Verdict)| {
                    matches!(verdict, Verdict::Unknown(_)) && seen[container].is_alive()
                };
                assert!(!verdicts.iter().any(unknown), "server {server} runs what nobody ordered: {verdicts:?}");
                let boots = &mut self.joined[server];
                let boot = boot.to_string();
                if boots.last() != Some(&boot) {
                    assert!(!boots.contains(&boot), "boots of server {server} take turns: {boots:?}, {boot}");
                    boots.push(boot);
                }
                self.count("joined");
            }
            Fact::Lost => {
                let boot = self.joined[server].last().cloned().unwrap_or_default();
                assert!(self.is_quiet(server, &boot), "server {server} serves and is lost");
                self.count("lost");
            }
            Fact::Released { container } => {
                let serves = |machine: &Machine| {
                    machine.processes.iter().any(|((other, _), process)| *other == container && process.serves())
                };
                assert!(!self.machines.iter().any(serves), "{container} serves and is released");
                let slot = &mut self.store.slots[self.slot_of[&container]];
                if slot.replaced && slot.container.as_ref().is_some_and(|(other, _)| *other == container) {
                    *slot = Slot::default();
                }
                self.count("released");
            }
            Fact::Outcome { operation, .. } => self.answered(index, operation, "outcome"),
            Fact::Undecided { operation } => self.answered(index, operation, "undecided"),
            Fact::Twin { .. } => self.count("twin"),
            Fact::Contested { .. } => self.count("contested"),
            Fact::Declined { why } => panic!("an agent declined the leading manager: {why}"),
            Fact::Recorded(_) | Fact::Silent | Fact::Back | Fact::Changed { .. } => (),
        }
    }

    fn answered(&mut self, index: usize, operation: OperationId, what: &'static str) {
        assert_eq!(self.open.remove(&operation), Some(index), "{operation} is answered twice");
        self.hosts[index].busy.remove(&operation);
        self.count(what);
    }

    fn give(&mut self, index: usize, server: usize, slot: usize, order: Order) {
        let operation = OperationId(self.mint());
        let host = &mut self.hosts[index];
        let now = host.now(self.now);
        if let Ok(out) = host.ends[server].order(now, operation, order) {
            host.busy.insert(operation, slot);
            self.open.insert(operation, index);
            self.commit(index, server);
            self.carry_out(index, server, out);
            self.count("ordered");
        }
    }

    /// Fills every slot; replaces what is on lost servers; now and then restarts, moves and cleans up.
    pub(super) fn plan(&mut self) {
        for slot in 0..SLOTS {
            let Some(index) = self.leading() else { return };
            let host = &self.hosts[index];
            if host.paused.is_some() || host.stranded || host.busy.values().any(|busy| *busy == slot) {
                continue;
            }
            match self.store.slots[slot].container.clone() {
                None => self.place(index, slot),
                Some((container, server)) => self.look_after(index, slot, &container, server),
            }
        }
        if !self.calm {
            self.clean_up();
        }
    }

    fn place(&mut self, index: usize, slot: usize) {
        let ends = &self.hosts[index].ends;
        let live: Vec<usize> = (0..SERVERS)
            .filter(|server| ends[*server].contact() == Contact::Live && ends[*server].session().is_some())
            .collect();
        let Some(server) = self.dice.pick(&live) else { return };
        self.store.containers += 1;
        let container = ContainerId::new(format!("c{}-{}", self.hosts[index].epoch, self.store.containers));
        self.slot_of.insert(container.clone(), slot);
        self.store.slots[slot] = Slot { container: Some((container.clone(), server)), generation: 1, replaced: false };
        self.give(index, server, slot, start(&container, 1, policy(slot)));
    }

    fn look_after(&mut self, index: usize, slot: usize, container: &ContainerId, server: usize) {
        let now = self.hosts[index].now(self.now);
        let end = &mut self.hosts[index].ends[server];
        let Slot { generation, replaced, .. } = self.store.slots[slot];
        if replaced || end.contact() == Contact::Lost || (!self.calm && self.dice.percent(2)) {
            self.store.slots[slot].replaced = true;
            let out = end.fence(now, container);
            self.commit(index, server);
            self.carry_out(index, server, out);
            return;
        }
        if end.session().is_none() {
            return;
        }
        let held = end.seen().get(container).filter(|held| held.phase != Phase::Removed);
        let next = match held {
            Some(held) if held.generation.0 >= generation => match held.phase {
                Phase::Ended(_) | Phase::Failed(_) => held.generation.0 + 1,
                Phase::Running => {
                    // A stop whose session ended before its outcome is given again.
                    let leaving = end.claims()[container].standing == Standing::Leaving;
                    if leaving || (!self.calm && self.dice.percent(1)) {
                        let grace = std::time::Duration::from_secs(6);
                        let stop =
                            StopOrder { container: container.clone(), generation: held.generation, signal: 15, grace };
                        self.give(index, server, slot, Order::Stop(stop));
                        return;
                    }
                    if self.calm || !self.dice.percent(1) {
                        return;
                    }
                    held.generation.0 + 1
                }
                _ => return,
            },
            // It is not there: it ran on another boot, or it was never started.
            Some(_) | None => generation + 1,
        };
        self.store.slots[slot].generation = next;
        self.give(index, server, slot, start(container, next, policy(slot)));
    }

    /// Forgets replaced containers that have ended.
    fn clean_up(&mut self) {
        for server in 0..SERVERS {
            let Some(index) = self.leading() else { return };
            if !self.dice.percent(10) || self.hosts[index].paused.is_some() || self.hosts[index].stranded {
                continue;
            }
            let end = &self.hosts[index].ends[server];
            let fenced = |container: &ContainerId| {
                end.claims().get(container).is_none_or(|claim| claim.standing == Standing::Fenced)
            };
            let over = end.seen().iter().find(|(container, held)| {
                let is_over = matches!(held.phase, Phase::Ended(_) | Phase::Failed(_)) && held.older.is_none();
                let used = self
                    .store
                    .slots
                    .iter()
                    .any(|slot| slot.container.as_ref().is_some_and(|(other, _)| other == *container));
                is_over && fenced(container) && !used
            });
            if let Some(container) = over.map(|(container, _)| container.clone()) {
                self.give(index, server, SLOTS, Order::Remove { container });
            }
        }
    }

    fn kill_host(&mut self, index: usize) {
        self.hosts[index].alive = false;
        self.hosts[index].paused = None;
        self.open.retain(|_, host| *host != index);
        let wires: Vec<u64> =
            self.wires.iter().filter(|(_, wire)| wire.host == index && wire.at_host).map(|(id, _)| *id).collect();
        for wire in wires {
            self.hang_up(wire, false);
        }
    }

    pub(super) fn crash_host(&mut self) {
        let Some(index) = self.leading() else { return };
        self.kill_host(index);
        // A lock on a data dir ends with its holder.
        self.store.held_until = self.now;
        let delay = self.dice.below(5_000) * MS;
        self.after(delay, Event::Acquire);
        self.count("manager crashed");
    }

    pub(super) fn pause_host(&mut self, long: True) {
        let Some(index) = self.leading() else { return };
        if self.hosts[index].paused.is_none() {
            self.hosts[index].paused = Some(Vec::new());
            self.after(long, Event::ResumeHost(index));
            self.after(RIGHT, Event::Acquire);
            self.count("manager paused");
        }
    }

    pub(super) fn resume_host(&mut self, index: usize) {
        for (server, heard) in self.hosts[index].paused.take().into_iter().flatten() {
            self.host_hears(index, server, heard);
        }
        self.tick_host(index);
    }

    /// The leading Manager loses its store and does not know that another one takes over.
    pub(super) fn strand_host(&mut self) {
        let Some(index) = self.leading() else { return };
        self.hosts[index].stranded = true;
        self.after(RIGHT, Event::Acquire);
        self.count("manager stranded");
    }

    /// A Manager on an older copy of the store, with an epoch as high as one likes. It may look and greet; that no agent
    /// that has obeyed a later lease follows it is all that keeps it away.
    pub(super) fn copy_host(&mut self) {
        let mut store = self.store.clone();
        let Some(older) = store.keys.len().checked_sub(2) else { return };
        let kept = self.dice.below(older as u64 + 1);
        store.keys.truncate(usize::try_from(kept).unwrap() + 1);
        let ours: BTreeSet<&String> = store.keys.iter().collect();
        let obeyed = |machine: &Machine| machine.memory.obeyed.as_ref().map(|lease| lease.key.clone());
        let know = |machine: &Machine| obeyed(machine).is_some_and(|key| !ours.contains(&key));
        if self.hosts.iter().any(|host| host.copy && host.alive) || !self.machines.iter().all(know) {
            return;
        }
        store.keys.push(format!("copied-{}", self.mint()));
        store.epoch += self.dice.below(3);
        let host = self.host_on(&store, true);
        self.hosts.push(host);
        self.count("store copied");
    }

    pub(super) fn heal_hosts(&mut self) {
        for index in 0..self.hosts.len() {
            let leads = self.leading() == Some(index) && !self.hosts[index].stranded;
            if !leads && self.hosts[index].alive {
                self.kill_host(index);
            } else if leads {
                self.resume_host(index);
            }
        }
        self.at(self.store.held_until.max(self.now), Event::Acquire);
    }

    /// What is routed is wanted, once for each slot.
    pub(super) fn check_routes(&self) {
        let Some(index) = self.leading() else { return };
        let mut routed: BTreeMap<usize, &ContainerId> = BTreeMap::new();
        for end in &self.hosts[index].ends {
            for (container, claim) in end.claims() {
                if end.routable(container).is_some() {
                    assert_ne!(claim.standing, Standing::Fenced, "{container} is fenced and routed");
                    let twice = routed.insert(self.slot_of[container], container);
                    assert_eq!(twice, None, "{container} is routed too");
                }
            }
        }
    }

    /// What must hold when nothing has failed for long.
    pub(super) fn assert_settled(&self) {
        let index = self.leading().expect("a manager leads");
        assert!(self.open.is_empty(), "orders without an outcome: {:?}", self.open);
        for (slot, filled) in self.store.slots.iter().enumerate() {
            let (container, server) = filled.container.as_ref().unwrap_or_else(|| panic!("slot {slot} is empty"));
            let routed = self.hosts[index].ends[*server].routable(container);
            let seen = self.hosts[index].ends[*server].seen().get(container);
            assert_eq!(routed, Some(Generation(filled.generation)), "slot {slot}, {container}, {filled:?}: {seen:?}");
        }
        for (server, end) in self.hosts[index].ends.iter().enumerate() {
            let machine = self.machines.iter().find(|machine| machine.server == server && !machine.dead).unwrap();
            let agent = machine.agent.as_ref().expect("agents run");
            assert_eq!(agent.session(), end.session(), "server {server}");
            assert!(end.session().is_some(), "server {server} has no session: {:?}", end.contact());
            let mut held = agent.containers();
            let mut seen = end.seen().clone();
            held.retain(|_, held| held.phase != Phase::Removed);
            seen.retain(|_, held| held.phase != Phase::Removed);
            assert_eq!(held, seen, "server {server}");
            for (container, held) in &held {
                let there = machine.processes.contains_key(&(container.clone(), held.generation.0));
                assert_eq!(there, held.is_alive(), "{container} on server {server}");
            }
        }
        let served = self.machines.iter().flat_map(|machine| machine.processes.values());
        assert_eq!(served.filter(|process| process.serves()).count(), SLOTS, "processes that serve");
    }
}

fn policy(slot: usize) -> LeaseEnd {
    if slot.is_multiple_of(2) { LeaseEnd::End } else { LeaseEnd::Keep }
}
