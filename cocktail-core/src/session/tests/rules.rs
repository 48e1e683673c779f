//! Rules one by one: one agent and one Manager's end, and a wire between them that a test holds in its hand.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{lease, start, timing};
use crate::contract::{Exit, StopOrder};
use crate::id::{ContainerId, Generation, OperationId, ServerId};
use crate::session::{
    AgentConfig, AgentEnd, AgentMemory, AgentOutput, AgentTime, BootId, Connection, Contact, Effect, Fact, Held,
    LeaseEnd, ManagerEnd, ManagerOutput, Order, OrderError, OrderRefusal, Outcome, Phase, Record, Refusal, Report,
    Survivor, Survivors, ToAgent, ToManager,
};
use crate::time::ManagerTime;

const WIRE: Connection = Connection(1);

/// Both ends and a true time that their clocks read alike, since no rule here is about rates.
struct Pair {
    now: u64,
    manager: ManagerEnd,
    agent: AgentEnd,
    facts: Vec<Fact>,
    effects: Vec<Effect>,
    /// Neither end hears the other one.
    cut: bool,
    operations: u64,
}

fn id(text: &str) -> ContainerId {
    ContainerId::new(text)
}

fn keys(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("key-{number}")).collect()
}

fn manager(epoch: u64, record: Record, now: u64) -> ManagerEnd {
    let lease = lease(epoch, &keys(usize::try_from(epoch).unwrap()));
    ManagerEnd::new(timing(), ServerId::new("server"), lease, record, BTreeMap::new(), ManagerTime(now))
}

fn agent(boot: &str, memory: AgentMemory, found: Survivors, now: u64) -> (AgentEnd, AgentOutput) {
    let (server, boot) = (ServerId::new("server"), BootId::new(boot));
    let config = AgentConfig { server, boot, hello_every: Duration::from_millis(300) };
    AgentEnd::new(config, memory, found, AgentTime(now))
}

impl Pair {
    fn new() -> Self {
        let (agent, _) = agent("first", AgentMemory::default(), Survivors::default(), 0);
        let (manager, facts) = (manager(1, Record::default(), 0), Vec::new());
        Self { now: 0, manager, agent, facts, effects: Vec::new(), cut: false, operations: 0 }
    }

    fn joined() -> Self {
        let mut pair = Self::new();
        pair.open(1);
        assert_eq!(pair.manager.session(), pair.agent.session());
        assert_eq!(pair.manager.contact(), Contact::Live);
        pair
    }

    fn open(&mut self, wire: u64) {
        let out = self.agent.opened(AgentTime(self.now), Connection(wire));
        self.agent_does(out);
    }

    fn agent_does(&mut self, out: AgentOutput) {
        self.effects.extend(out.effects);
        let cut = self.cut;
        for (wire, message) in out.messages.into_iter().filter(|_| !cut) {
            let out = self.manager.received(ManagerTime(self.now), wire, message);
            self.manager_does(out);
        }
    }

    fn manager_does(&mut self, out: ManagerOutput) {
        self.facts.extend(out.facts);
        let cut = self.cut;
        for (wire, message) in out.messages.into_iter().filter(|_| !cut) {
            let out = self.agent.received(AgentTime(self.now), wire, message);
            self.agent_does(out);
        }
    }

    /// Lets time pass in steps of 50 ms.
    fn pass(&mut self, millis: u64) {
        for _ in 0..millis / 50 {
            self.now += 50;
            let out = self.agent.tick(AgentTime(self.now));
            self.agent_does(out);
            let out = self.manager.tick(ManagerTime(self.now));
            self.manager_does(out);
        }
    }

    fn order(&mut self, order: Order) -> OperationId {
        self.operations += 1;
        let operation = OperationId(self.operations);
        let out = self.manager.order(ManagerTime(self.now), operation, order).unwrap();
        self.manager_does(out);
        operation
    }

    fn run(&mut self, container: &str, generation: u64, at_lease_end: LeaseEnd) -> OperationId {
        let operation = self.order(start(&id(container), generation, at_lease_end));
        let out = self.agent.started(AgentTime(self.now), &id(container), Generation(generation));
        self.agent_does(out);
        operation
    }

    fn exit(&mut self, container: &str, generation: u64) {
        let out = self.agent.exited(AgentTime(self.now), &id(container), Generation(generation), Exit::Code(0));
        self.agent_does(out);
    }

    fn outcome(&self, operation: OperationId) -> Option<&Outcome> {
        self.facts.iter().find_map(|fact| match fact {
            Fact::Outcome { operation: of, outcome } if *of == operation => Some(outcome),
            _ => None,
        })
    }
}

fn stop(container: &str, generation: u64, grace: u64) -> Order {
    let (container, generation) = (id(container), Generation(generation));
    Order::Stop(StopOrder { container, generation, signal: 15, grace: Duration::from_secs(grace) })
}

fn released(container: &str) -> Fact {
    Fact::Released { container: id(container) }
}

#[test]
fn an_order_that_comes_twice_is_done_once_and_answered_with_the_same_outcome() {
    let mut pair = Pair::joined();
    let session = pair.agent.session().unwrap();
    let orders = || ToAgent::Orders { session, first: 1, orders: vec![start(&id("web"), 1, LeaseEnd::End)] };
    let first = pair.agent.received(AgentTime(0), WIRE, orders());
    assert!(matches!(first.effects[..], [Effect::Run { .. }]));
    let told = pair.agent.started(AgentTime(1), &id("web"), Generation(1)).messages;
    let again = pair.agent.received(AgentTime(2), WIRE, orders());
    assert_eq!(again.effects, []);
    let reports = |messages: &[(Connection, ToManager)]| {
        let all = messages.iter().filter_map(|(_, message)| match message {
            ToManager::Reports { reports, .. } => Some(reports.clone()),
            _ => None,
        });
        all.flatten().last()
    };
    assert!(reports(&told).is_some());
    assert_eq!(reports(&again.messages), reports(&told));
}

#[test]
fn orders_that_overtake_one_another_are_done_in_order() {
    let mut pair = Pair::joined();
    let session = pair.agent.session().unwrap();
    let (first, second) = (start(&id("web"), 1, LeaseEnd::End), stop("web", 1, 0));
    let early =
        pair.agent.received(AgentTime(0), WIRE, ToAgent::Orders { session, first: 2, orders: vec![second.clone()] });
    assert_eq!(early.effects, []);
    let both = ToAgent::Orders { session, first: 1, orders: vec![first, second] };
    let out = pair.agent.received(AgentTime(1), WIRE, both);
    assert!(matches!(out.effects[..], [Effect::Run { .. }, Effect::End { .. }]));
}

/// What an agent has told before it confirms is a number that it chooses.
#[test]
fn no_report_follows_the_last_number_that_there_is() {
    let (mut agent, _) = agent("first", AgentMemory::default(), Survivors::default(), 0);
    let mut manager = manager(1, Record::default(), 0);
    let (_, hello) = agent.opened(AgentTime(0), WIRE).messages.remove(0);
    let (_, welcome) = manager.received(ManagerTime(0), WIRE, hello).messages.remove(0);
    let ToAgent::Welcome(welcome) = welcome else { panic!("{welcome:?}") };
    let (session, as_of, containers) = (welcome.session, u64::MAX, BTreeMap::new());
    let joined = manager.received(ManagerTime(0), WIRE, ToManager::Confirm { session, as_of, containers });
    assert!(joined.facts.iter().any(|fact| matches!(fact, Fact::Joined { .. })));
    for first in [0, 1, u64::MAX] {
        let report = Report::Outcome { order: 1, outcome: Outcome::Started };
        let reports = ToManager::Reports { session, taken: u64::MAX, first, reports: vec![report] };
        let answered = manager.received(ManagerTime(0), WIRE, reports);
        assert_eq!(answered.messages, [(WIRE, ToAgent::Received { session, received: as_of })]);
        assert_eq!(answered.facts, []);
    }
}

#[test]
fn what_an_agent_makes_up_is_remembered_up_to_a_limit() {
    let mut pair = Pair::joined();
    pair.run("web", 1, LeaseEnd::End);
    let (session, connection) = (pair.manager.session().unwrap(), pair.manager.connection().unwrap());
    let held = Held { generation: Generation(1), phase: Phase::Running, blocked: false, older: None };
    // The first ones have the numbers of what it has told before.
    let made_up = |number| Report::Changed { container: id(&format!("no-{number}")), held: held.clone() };
    let reports = (0..70_000).map(made_up).collect();
    let out = pair.manager.received(
        ManagerTime(pair.now),
        connection,
        ToManager::Reports { session, taken: 1, first: 1, reports },
    );
    assert!(out.facts.len() < 1 << 16, "nobody is told of the others");
    assert_eq!(pair.manager.seen().len(), 1 << 16);
    assert!(pair.manager.seen().contains_key(&id("web")), "what is ours is not left out");
}

#[test]
fn an_order_of_an_earlier_session_changes_nothing() {
    let mut pair = Pair::joined();
    let session = pair.agent.session().unwrap();
    pair.open(2);
    assert_ne!(pair.agent.session(), Some(session));
    let late = ToAgent::Orders { session, first: 1, orders: vec![start(&id("web"), 1, LeaseEnd::End)] };
    let out = pair.agent.received(AgentTime(pair.now), Connection(2), late);
    assert_eq!((out.effects, out.memos), (vec![], vec![]));
}

#[test]
fn a_newer_generation_runs_when_the_older_one_has_ended_and_an_older_one_never_again() {
    let mut pair = Pair::joined();
    pair.run("web", 1, LeaseEnd::End);
    pair.effects.clear();
    let second = pair.order(start(&id("web"), 2, LeaseEnd::End));
    assert!(matches!(pair.effects[..], [Effect::End { generation: Generation(1), .. }]));
    assert_eq!(pair.outcome(second), None);
    pair.exit("web", 1);
    assert!(matches!(pair.effects.last(), Some(Effect::Run { launch, .. }) if launch.generation == Generation(2)));
    let session = pair.agent.session().unwrap();
    let older = ToAgent::Orders { session, first: 3, orders: vec![start(&id("web"), 1, LeaseEnd::End)] };
    let out = pair.agent.received(AgentTime(pair.now), WIRE, older);
    assert_eq!(out.effects, []);
    let refused = Outcome::Refused(OrderRefusal::OlderGeneration { newest: Generation(2) });
    assert!(format!("{:?}", out.messages).contains(&format!("{refused:?}")));
}

#[test]
fn what_was_stopped_before_it_came_is_never_started() {
    let mut pair = Pair::joined();
    let stopped = pair.order(stop("web", 3, 0));
    assert_eq!(pair.outcome(stopped), Some(&Outcome::Ended(None)));
    let started = pair.order(start(&id("web"), 3, LeaseEnd::End));
    assert_eq!(pair.outcome(started), Some(&Outcome::Refused(OrderRefusal::AlreadyEnded)));
}

#[test]
fn the_lease_runs_from_when_the_beat_was_sent_however_late_its_answer_comes() {
    let mut pair = Pair::joined();
    let out = pair.agent.tick(AgentTime(500));
    let (session, beat) = out
        .messages
        .iter()
        .find_map(|(_, message)| match message {
            ToManager::Beat { session, number, .. } => Some((*session, *number)),
            _ => None,
        })
        .unwrap();
    let out = pair.agent.received(AgentTime(1_100), WIRE, ToAgent::Renew { session, beat, received: 0 });
    let fence = timing().spans().fence;
    assert_eq!(out.effects, [Effect::Hold { until: AgentTime(3_500), fence }]);
    let again = pair.agent.received(AgentTime(1_150), WIRE, ToAgent::Renew { session, beat, received: 0 });
    assert_eq!(again.effects, [], "an answer counts once");
}

#[test]
fn a_lease_that_ended_while_the_agent_did_not_run_is_over_before_any_message_is_read() {
    let mut pair = Pair::joined();
    pair.run("web", 1, LeaseEnd::End);
    let session = pair.agent.session().unwrap();
    let queued = ToAgent::Orders { session, first: 2, orders: vec![start(&id("late"), 1, LeaseEnd::End)] };
    let out = pair.agent.received(AgentTime(600_000), WIRE, queued);
    assert!(matches!(&out.effects[..], [Effect::End { container, .. }] if *container == id("web")));
    assert_eq!(out.hang_up, [WIRE]);
}

#[test]
fn at_the_leases_end_some_are_ended_within_the_fence_and_some_are_blocked_until_they_are_admitted() {
    let mut pair = Pair::joined();
    pair.run("ends", 1, LeaseEnd::End);
    pair.run("slow", 1, LeaseEnd::End);
    pair.run("keeps", 1, LeaseEnd::Keep);
    pair.order(stop("slow", 1, 600));
    pair.effects.clear();
    pair.cut = true;
    pair.pass(3_000);
    let (generation, grace) = (Generation(1), timing().spans().fence);
    let end = |container| Effect::End { container: id(container), generation, grace };
    let block = Effect::Block { container: id("keeps"), generation };
    assert_eq!(pair.effects, [end("ends"), block, end("slow")]);
    pair.exit("ends", 1);
    pair.effects.clear();
    pair.cut = false;
    pair.open(2);
    assert!(pair.effects.contains(&Effect::Unblock { container: id("keeps"), generation }));
    assert_eq!(pair.manager.routable(&id("keeps")), Some(generation));
    assert_eq!(pair.manager.routable(&id("ends")), None);
}

#[test]
fn a_replaced_container_is_released_when_the_server_is_lost_and_ended_when_it_returns() {
    let mut pair = Pair::joined();
    pair.run("web", 1, LeaseEnd::Keep);
    pair.cut = true;
    pair.pass(1_500);
    assert_eq!(pair.manager.contact(), Contact::Silent);
    let out = pair.manager.fence(ManagerTime(pair.now), &id("web"));
    pair.manager_does(out);
    pair.pass(2_000);
    assert!(!pair.facts.contains(&Fact::Lost), "the lease may still run");
    pair.pass(500);
    let lost = pair.facts.iter().position(|fact| *fact == Fact::Lost).unwrap();
    assert_eq!(pair.facts[lost + 1..], [released("web")]);
    pair.effects.clear();
    pair.cut = false;
    pair.open(2);
    let generation = Generation(1);
    assert!(pair.effects.contains(&Effect::End { container: id("web"), generation, grace: Duration::ZERO }));
    assert!(!pair.effects.contains(&Effect::Unblock { container: id("web"), generation }));
    assert_eq!(pair.manager.routable(&id("web")), None);
    let again = start(&id("web"), 2, LeaseEnd::Keep);
    let refused = pair.manager.order(ManagerTime(pair.now), OperationId(9), again);
    assert_eq!(refused, Err(OrderError::Fenced));
}

#[test]
fn a_container_that_is_replaced_while_its_server_answers_is_released_when_it_has_ended() {
    let mut pair = Pair::joined();
    pair.run("web", 1, LeaseEnd::End);
    let out = pair.manager.fence(ManagerTime(pair.now), &id("web"));
    pair.manager_does(out);
    assert!(!pair.facts.contains(&released("web")));
    pair.exit("web", 1);
    assert!(pair.facts.contains(&released("web")));
    let before = pair.facts.len();
    let out = pair.manager.fence(ManagerTime(pair.now), &id("web"));
    pair.manager_does(out);
    assert_eq!(pair.facts[before..], [released("web")], "who lost the answer asks again");
}

#[test]
fn a_managers_downtime_is_counted_against_nobody() {
    let mut pair = Pair::joined();
    let record = pair.manager.record().clone();
    pair.now += 3_600_000;
    let mut next = manager(2, record, 3_000);
    let early = next.tick(ManagerTime(3_000 + 3_500)).facts;
    assert!(!early.contains(&Fact::Lost), "{early:?}");
    assert!(next.tick(ManagerTime(3_000 + 3_554)).facts.contains(&Fact::Lost));
}

#[test]
fn a_manager_without_the_right_to_act_answers_nobody_and_loses_nobody() {
    let mut pair = Pair::joined();
    let _ = pair.manager.may_act_until(ManagerTime(0), Some(ManagerTime(700)));
    pair.pass(10_000);
    assert!(!pair.facts.contains(&Fact::Lost));
    let refused = pair.manager.order(ManagerTime(pair.now), OperationId(1), start(&id("web"), 1, LeaseEnd::End));
    assert_eq!(refused, Err(OrderError::NoSession));
    assert_eq!(pair.agent.session(), None);
}

#[test]
fn an_agent_that_hears_nothing_is_lost_though_it_is_heard() {
    let mut pair = Pair::joined();
    for step in 0..200_u64 {
        pair.now += 50;
        // Every answer is lost; the agent dials again and again.
        let now = AgentTime(pair.now);
        let out = if step % 10 == 0 { pair.agent.opened(now, Connection(step + 2)) } else { pair.agent.tick(now) };
        for (wire, message) in out.messages {
            let out = pair.manager.received(ManagerTime(pair.now), wire, message);
            pair.facts.extend(out.facts);
        }
    }
    assert!(pair.facts.contains(&Fact::Lost));
}

#[test]
fn a_manager_that_was_overtaken_is_declined_and_orders_nothing() {
    let mut pair = Pair::joined();
    let record = pair.manager.record().clone();
    let mut old = std::mem::replace(&mut pair.manager, manager(2, record, 0));
    pair.open(2);
    pair.run("web", 1, LeaseEnd::End);
    assert_eq!(pair.agent.memory().obeyed.as_ref().map(|lease| lease.epoch.0), Some(2));
    let out = pair.agent.opened(AgentTime(pair.now), Connection(3));
    let welcome = old.received(ManagerTime(pair.now), Connection(3), out.messages[0].1.clone()).messages;
    let out = pair.agent.received(AgentTime(pair.now), Connection(3), welcome[0].1.clone());
    assert!(matches!(out.messages[..], [(_, ToManager::Declined { .. })]), "{out:?}");
    assert_eq!(out.hang_up, [Connection(3)]);
    let out = old.received(ManagerTime(pair.now), Connection(3), out.messages[0].1.clone());
    assert!(matches!(out.facts[..], [Fact::Declined { .. }]));
}

fn hello(boot: &str, memory: AgentMemory, manager: &mut ManagerEnd, now: u64) -> ManagerOutput {
    let (mut agent, _) = agent(boot, memory, Survivors::default(), now);
    let out = agent.opened(AgentTime(now), Connection(9));
    manager.received(ManagerTime(now), Connection(9), out.messages[0].1.clone())
}

fn refusal(out: &ManagerOutput) -> Option<&Refusal> {
    match out.messages.first() {
        Some((_, ToAgent::Refused { why, .. })) => Some(why),
        _ => None,
    }
}

#[test]
fn a_cloned_disk_waits_until_the_first_is_lost_and_the_first_never_comes_back() {
    let mut pair = Pair::joined();
    let memory = pair.agent.memory().clone();
    let out = hello("second", memory.clone(), &mut pair.manager, pair.now);
    assert_eq!(refusal(&out), Some(&Refusal::Occupied));
    assert_eq!(out.facts, [Fact::Contested { boot: BootId::new("second") }]);
    let (second, _) = agent("second", memory.clone(), Survivors::default(), pair.now);
    let first = std::mem::replace(&mut pair.agent, second);
    pair.cut = true;
    pair.pass(4_000);
    pair.cut = false;
    pair.open(20);
    assert!(matches!(pair.facts.last(), Some(Fact::Joined { rebooted: true, .. })), "{:?}", pair.facts);
    let out = hello("first", first.memory().clone(), &mut pair.manager, pair.now);
    assert_eq!(refusal(&out), Some(&Refusal::Superseded));
    assert_eq!(out.facts, [Fact::Twin { boot: BootId::new("first") }]);
    let mut next = manager(2, pair.manager.record().clone(), 0);
    assert_eq!(refusal(&hello("first", memory, &mut next, 60_000)), Some(&Refusal::Superseded));
}

#[test]
fn a_copy_within_one_boot_is_told_by_the_session_that_it_knows_last() {
    let mut pair = Pair::joined();
    let mut copy = pair.agent.memory().clone();
    copy.starts = 7;
    pair.open(2);
    let out = hello("first", copy, &mut pair.manager, pair.now);
    assert_eq!(refusal(&out), Some(&Refusal::Superseded));
}

#[test]
fn a_boot_that_is_proved_dead_is_replaced_at_once() {
    let mut pair = Pair::joined();
    pair.run("web", 1, LeaseEnd::End);
    let out = pair.manager.fence(ManagerTime(pair.now), &id("web"));
    let mut facts = out.facts;
    facts.extend(pair.manager.proven_dead(ManagerTime(pair.now), &BootId::new("first")).facts);
    assert!(facts.ends_with(&[Fact::Lost, released("web")]), "{facts:?}");
    let out = hello("second", AgentMemory::default(), &mut pair.manager, pair.now);
    assert_eq!(refusal(&out), None);
}

#[test]
fn an_agent_that_was_started_anew_keeps_what_serves_under_a_lease_and_fences_what_does_not() {
    let survivor = Survivor { generation: Generation(2), exit: None, blocked: false, at_lease_end: LeaseEnd::End };
    let containers = BTreeMap::from([(id("web"), survivor)]);
    let fence = Duration::from_millis(500);
    let leased = Survivors { lease: Some((AgentTime(900), fence)), containers: containers.clone() };
    let (mut kept, out) = agent("first", AgentMemory::default(), leased, 100);
    assert_eq!(out.effects, []);
    assert_eq!(kept.containers()[&id("web")].phase, Phase::Running);
    assert!(matches!(kept.tick(AgentTime(900)).effects[..], [Effect::End { .. }]));
    let (_, out) = agent("first", AgentMemory::default(), Survivors { lease: None, containers }, 100);
    assert!(matches!(out.effects[..], [Effect::End { .. }]));
}

#[test]
fn the_outcome_of_an_order_is_told_or_the_session_ends() {
    let mut pair = Pair::joined();
    let operation = pair.order(start(&id("web"), 1, LeaseEnd::End));
    let out = pair.manager.closed(ManagerTime(pair.now), WIRE);
    assert_eq!(out.facts, [Fact::Undecided { operation }]);
}

#[test]
fn messages_survive_being_written_and_read() {
    let mut pair = Pair::new();
    let out = pair.agent.opened(AgentTime(0), WIRE);
    let text = serde_json::to_string(&out.messages[0].1).unwrap();
    assert_eq!(serde_json::from_str::<ToManager>(&text).unwrap(), out.messages[0].1);
    let answer = pair.manager.received(ManagerTime(0), WIRE, out.messages[0].1.clone());
    let text = serde_json::to_string(&answer.messages[0].1).unwrap();
    assert_eq!(serde_json::from_str::<ToAgent>(&text).unwrap(), answer.messages[0].1);
}

#[test]
fn a_generation_that_was_ordered_is_remembered_though_the_agent_died_before_it_ran() {
    let mut pair = Pair::joined();
    pair.order(start(&id("web"), 2, LeaseEnd::End));
    let (next, _) = agent("first", pair.agent.memory().clone(), Survivors::default(), pair.now);
    let held = &next.containers()[&id("web")];
    assert_eq!((held.generation, &held.phase), (Generation(2), &Phase::Ended(None)));
}
