//! Random histories of commands, faults and restarts. What must hold after every turn is in [`crate::world`]; here is
//! what must hold at the end: once nothing fails any more, everything is as it was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use crate::command::Command;
use crate::container::ContainerState;
use crate::contract::{Exit, ProbeKind, RearrangeOptions, RolloutAction};
use crate::event::Soft;
use crate::fleet::Late;
use crate::id::ContainerId;
use crate::ports::PortRange;
use crate::rollout::RolloutState;
use crate::scaling::Sample;
use crate::server::ServerState;
use crate::settings::Settings;
use crate::unit::Unit;
use crate::world::{Answer, World, actor, server_id, service};

/// Units that the manifests have or leave out.
const UNITS: [&str; 12] = ["web", "job", "db", "one", "mass", "pair", "batch", "load", "pool", "kin", "box", "jar"];

/// One thing that happens. Numbers choose among what is there, counted round.
#[derive(Debug, Clone)]
enum Action {
    Apply { units: Vec<Option<(u32, u8)>>, quota: u32, surge: u32, replace: bool, canary: bool },
    Rollout(usize, RolloutAction),
    Rollback(usize),
    Load(usize, u64),
    Scale(usize, u32),
    Switch(usize, bool),
    Restart(usize),
    RestartOne(usize),
    Remove(usize),
    Down,
    Pass(u64),
    Answer(usize, Answer),
    Exit(usize),
    Vanish(usize),
    Probe(usize, ProbeKind, bool),
    Soft(usize),
    Foreign(u16),
    Resize(u64, bool),
    Cordon(bool),
    Rearrange(Option<u64>, bool),
    List,
    Snapshot,
    Reopen,
}

/// What a world has room for.
#[derive(Debug, Clone, Copy)]
struct Limits {
    range: PortRange,
    cpu: u64,
    quota: u32,
    budget: u32,
    claims: usize,
}

const ROOMY: Limits = Limits {
    range: PortRange { first: 20_000, last: 20_199 },
    cpu: 64_000,
    quota: 200,
    budget: 100,
    claims: usize::MAX,
};
const TIGHT: Limits =
    Limits { range: PortRange { first: 20_000, last: 20_005 }, cpu: 1_500, quota: 9, budget: 2, claims: 2 };

fn a_probe() -> impl Strategy<Value = ProbeKind> {
    prop_oneof![Just(ProbeKind::Ready), Just(ProbeKind::Live)]
}

fn an_answer() -> impl Strategy<Value = Answer> {
    prop_oneof![6 => Just(Answer::Done), 1 => Just(Answer::Fails), 1 => Just(Answer::Late)]
}

fn an_apply() -> impl Strategy<Value = Action> {
    let unit = prop::option::weighted(0.85, (0_u32..5, 0_u8..3));
    (prop::collection::vec(unit, UNITS.len()), 1_u32..12, 1_u32..3, any::<bool>(), any::<bool>())
        .prop_map(|(units, quota, surge, replace, canary)| Action::Apply { units, quota, surge, replace, canary })
}

fn a_rollout_action() -> impl Strategy<Value = RolloutAction> {
    prop_oneof![
        1 => Just(RolloutAction::Pause),
        2 => Just(RolloutAction::Resume),
        1 => Just(RolloutAction::Promote),
        1 => Just(RolloutAction::Abort)
    ]
}

fn an_action() -> impl Strategy<Value = Action> {
    let any_index = 0_usize..16;
    prop_oneof![
        6 => an_apply(),
        3 => (0..UNITS.len(), 0_u32..6).prop_map(|(unit, count)| Action::Scale(unit, count)),
        2 => (0..UNITS.len(), any::<bool>()).prop_map(|(unit, stopped)| Action::Switch(unit, stopped)),
        3 => (0..UNITS.len(), a_rollout_action()).prop_map(|(unit, action)| Action::Rollout(unit, action)),
        1 => (0..UNITS.len()).prop_map(Action::Rollback),
        2 => (any_index.clone(), 0_u64..3_000).prop_map(|(index, cpu)| Action::Load(index, cpu)),
        2 => (0..UNITS.len()).prop_map(Action::Restart),
        2 => any_index.clone().prop_map(Action::RestartOne),
        1 => (0..UNITS.len()).prop_map(Action::Remove),
        1 => Just(Action::Down),
        6 => (0_u64..7_000).prop_map(Action::Pass),
        24 => (any_index.clone(), an_answer()).prop_map(|(index, answer)| Action::Answer(index, answer)),
        5 => any_index.clone().prop_map(Action::Exit),
        1 => any_index.clone().prop_map(Action::Vanish),
        8 => (any_index.clone(), Just(ProbeKind::Ready), Just(true)).prop_map(|(i, kind, ok)| Action::Probe(i, kind, ok)),
        6 => (any_index.clone(), a_probe(), any::<bool>()).prop_map(|(i, kind, ok)| Action::Probe(i, kind, ok)),
        3 => any_index.prop_map(Action::Soft),
        2 => (20_000_u16..20_006).prop_map(Action::Foreign),
        1 => (0_u64..2, any::<bool>()).prop_map(|(more, cordoned)| Action::Resize(more, cordoned)),
        2 => prop::bool::weighted(0.3).prop_map(Action::Cordon),
        1 => (prop::option::of(0_u64..9_000), any::<bool>()).prop_map(|(span, force)| Action::Rearrange(span, force)),
        2 => Just(Action::List),
        1 => Just(Action::Snapshot),
        2 => Just(Action::Reopen),
    ]
}

fn manifest(units: &[Option<(u32, u8)>], quota: u32, surge: u32, replace: bool, canary: bool) -> String {
    let no_room = if replace { "replace" } else { "wait" };
    let canary = if canary { ", canary = 1, on_failure = \"pause\"" } else { "" };
    let mut text = format!("service = \"shop\"\nquota = {{ containers = {quota} }}\n");
    for (unit, wanted) in UNITS.iter().zip(units) {
        let Some((count, version)) = wanted else { continue };
        let (map, count, keys) = match *unit {
            "web" => ("prod", *count, "ports.http = { service = 8080 }\nports.admin = {}\nlive = { tcp = true }"),
            "db" => ("prod", *count, "volumes.data = { mount = \"data\", kind = \"exclusive\" }"),
            "one" => ("prod", (*count).min(1), "ports.main = { fixed = 9000 }"),
            "pair" => ("prod", *count, "ports.main = { fixed = 9001, inherit = true }"),
            "batch" => ("batch", *count, "restart = { when = \"failure\", retries = 1, deadline = \"5s\" }"),
            "load" => ("prod", *count, "ports.http = {}"),
            "pool" => {
                ("prod", *count, "ports.http = { service = 8081 }\nwarm = { count = 2, age = \"20h\", uses = 3 }")
            }
            "kin" => ("batch", *count, "ports.http = {}"),
            "box" => (
                "prod",
                *count,
                "ports.http = { service = 8082, container = 80 }\nlive = { tcp = true }\n\
                 warm = { count = 2, age = \"20h\" }",
            ),
            "jar" => ("batch", *count, "warm = 1"),
            "mass" => ("batch", *count, "resources = { cpu = 0.3 }\nports.main = {}"),
            _ => ("prod", *count, ""),
        };
        let count = match *unit {
            "load" => format!("scale = {{ min = {}, max = 6, cpu = 0.5, down = {{ stabilize = \"3s\" }} }}", count % 2),
            _ => format!("replicas = {count}"),
        };
        // Some workers are told something else by a new version, others start from something else.
        let program = match *unit {
            "pool" | "kin" => format!(
                "worker = \"w\"\nmicroservices = [\"{unit}\"]\nconfig.{unit} = {{ v = {version} }}\nenv = {{ V = \"{}\" }}",
                version / 2
            ),
            "box" | "jar" => format!("image = \"{unit}:{version}\""),
            _ => format!("command = [\"{unit}\"]\nenv = {{ V = \"{version}\" }}"),
        };
        text.push_str(&format!(
            "[maps.{map}.units.{unit}]\n{program}\n{count}\n\
             update = {{ surge = {surge}, no_room = \"{no_room}\"{canary} }}\n{keys}\n"
        ));
    }
    text
}

fn world(limits: Limits) -> World {
    let settings = Settings {
        port_range: limits.range,
        budget_deletions: limits.budget,
        port_poison: Duration::from_secs(5),
        budget_window: Duration::from_secs(8),
        ..Settings::default()
    };
    let mut world = World::with(settings, limits.cpu);
    world.claims = limits.claims;
    world.add_engine(limits.cpu);
    world
}

/// Does one action; commands that are refused change nothing.
fn act(world: &mut World, limits: Limits, action: &Action) {
    let container = |index: usize, from: Vec<ContainerId>| from.get(index % from.len().max(1)).cloned();
    let command = |world: &mut World, command: Command| {
        // A refusal is an answer as good as any here.
        let _ = world.command(&command);
    };
    match action {
        Action::Rollout(unit, action) => {
            command(world, Command::Rollout { unit: UNITS[*unit].into(), action: *action });
        }
        Action::Rollback(unit) => command(world, Command::Rollback { unit: UNITS[*unit].into(), to: None }),
        Action::Load(index, cpu_millis) => {
            if let Some(id) = container(*index, world.state.containers.keys().cloned().collect()) {
                let sample = Sample { cpu_millis: *cpu_millis, ..Sample::default() };
                let unit = world.container(&id).unit.clone();
                world.note(&Soft::Sampled(BTreeMap::from([(id, sample)])));
                world.note(&Soft::Demand { unit });
            }
        }
        Action::Apply { units, quota, surge, replace, canary } => {
            let quota = if limits.quota < 100 { *quota } else { limits.quota };
            // A manifest names at least one unit.
            if units.iter().any(Option::is_some) {
                let spec = service(&manifest(units, quota.max(asked(units)), *surge, *replace, *canary));
                command(world, Command::Apply(vec![spec]));
            }
        }
        Action::Scale(unit, count) => {
            let count = if UNITS[*unit] == "one" { (*count).min(1) } else { *count };
            let _ = world.scale(UNITS[*unit], count);
        }
        Action::Switch(unit, stopped) => {
            command(world, Command::Switch { object: UNITS[*unit].into(), stopped: *stopped });
        }
        Action::Restart(unit) => command(world, Command::Restart { object: UNITS[*unit].into() }),
        Action::RestartOne(index) => {
            if let Some(id) = container(*index, world.state.containers.keys().cloned().collect()) {
                command(world, Command::Restart { object: id.to_string() });
            }
        }
        Action::Remove(unit) => command(world, Command::Remove { object: UNITS[*unit].into() }),
        Action::Down => command(world, Command::Down),
        Action::Pass(millis) => drop(world.pass(Duration::from_millis(*millis))),
        Action::Answer(index, answer) => drop(world.answer(*index, *answer)),
        Action::Exit(index) => {
            if let Some(id) = container(*index, world.machine.running()) {
                world.exit(&id, Exit::Code(i32::from(index % 2 == 0)));
            }
        }
        Action::Vanish(index) => {
            if let Some(id) = container(*index, world.machine.running()) {
                world.vanish(&id);
            }
        }
        Action::Probe(index, kind, ok) => {
            if let Some(id) = container(*index, world.machine.running()) {
                world.probe(&id, *kind, *ok);
            }
        }
        Action::Soft(index) => {
            if let Some(id) = container(*index, world.state.containers.keys().cloned().collect()) {
                let generation = world.container(&id).generation;
                world.note(&Soft::Prepared { container: id.clone(), generation });
                world.note(&Soft::ProbeDetail { container: id.clone(), generation, detail: "refused".into() });
                world.note(&Soft::Drained { container: id });
            }
        }
        Action::Foreign(port) => {
            if !world.machine.foreign.remove(port) {
                world.machine.foreign.insert(*port);
            }
        }
        Action::Resize(more, cordoned) => {
            let state = if *cordoned { ServerState::Cordoned } else { ServerState::Ready };
            world.resize(limits.cpu * (1 + more), state);
        }
        Action::Cordon(cordoned) => cordon(world, *cordoned),
        Action::Rearrange(span, force) => {
            let deadline = span.map(Duration::from_millis);
            let late = if *force && deadline.is_some() { Late::Force } else { Late::Cancel };
            let options = RearrangeOptions { deadline, late, give_back: false };
            command(world, Command::Rearrange { server: server_id().to_string(), options });
        }
        Action::List => drop(world.list()),
        Action::Snapshot => world.snapshot(),
        Action::Reopen => world.reopen(),
    }
}

fn cordon(world: &mut World, cordoned: bool) {
    let command = Command::Cordon { server: server_id().to_string(), cordoned };
    world.command(&command).expect("the server is there");
    assert_eq!(world.state.command(&command, &actor()).expect("it is").events, [], "asked again");
}

fn asked(units: &[Option<(u32, u8)>]) -> u32 {
    units.iter().flatten().map(|(count, _)| count).sum()
}

/// Runs a history and lets the world come to rest without faults.
fn run(limits: Limits, actions: &[Action]) -> World {
    let mut world = world(limits);
    for action in actions {
        act(&mut world, limits, action);
    }
    world.machine.foreign.clear();
    cordon(&mut world, false);
    world.resize(limits.cpu, ServerState::Ready);
    world.settle();
    // Somebody lets go on what a failure or a command has stopped.
    for action in [RolloutAction::Resume, RolloutAction::Promote] {
        for unit in UNITS {
            // There may be no such unit, or nothing to go on with.
            let _ = world.command(&Command::Rollout { unit: unit.into(), action });
        }
        world.settle();
    }
    world
}

/// What is left to do for nobody: no call, no freeze, no container in between.
fn assert_at_rest(world: &World) {
    assert!(world.state.operations.is_empty(), "{}", world.describe());
    assert_eq!(world.state.frozen, None);
    for record in world.state.containers.values() {
        assert!(
            matches!(record.state, ContainerState::Ready | ContainerState::Claimed | ContainerState::Waiting)
                || record.is_done(),
            "{} is {} for ever\n{}",
            record.id,
            record.state,
            world.describe()
        );
    }
}

/// Everything that was asked for runs, and nothing else.
fn assert_fulfilled(world: &World) {
    assert_at_rest(world);
    for (id, unit) in &world.state.units {
        let fresh = |record: &&crate::container::Container| {
            let there = record.state == ContainerState::Ready || record.is_done();
            there && record.revision == unit.revision && record.replace.is_none()
        };
        let count = world.state.of(unit).filter(fresh).count();
        assert_eq!(count, unit.goal() as usize, "{id} is not fulfilled\n{}", world.describe());
        let waiting = world.state.of(unit).filter(|it| it.state == ContainerState::Waiting).count();
        assert_eq!(waiting, warm(unit), "other than are to wait for {id}\n{}", world.describe());
        assert_eq!(unit.containers.len(), count + waiting, "{id} has too many\n{}", world.describe());
        assert_eq!(unit.held, "", "{id} waits for nothing");
        assert!(!unit.removing, "{id} is removed and stays");
    }
    let running: BTreeSet<ContainerId> = world.machine.running().into_iter().collect();
    let wanted = world.state.containers.values().filter(|record| !record.is_done());
    let wanted: BTreeSet<ContainerId> = wanted.map(|record| record.id.clone()).collect();
    assert_eq!(running, wanted, "what runs is not what is known");
}

/// Containers that are to wait for a Unit.
fn warm(unit: &Unit) -> usize {
    if unit.stopped { 0 } else { unit.spec.warm.count as usize }
}

fn assert_nothing_left(world: &mut World) {
    world.command(&Command::Down).expect("a removal is not refused");
    world.settle();
    assert!(world.state.units.is_empty() && world.state.containers.is_empty(), "{}", world.describe());
    assert_eq!(world.machine.running(), []);
    world.state.take_rested_ports();
    let held = world.state.ports.values().flat_map(crate::ports::PortPool::leases);
    let held: Vec<_> = held.filter(|(_, lease)| !matches!(lease, crate::ports::PortLease::Poisoned(_))).collect();
    assert!(held.is_empty(), "{held:?}");
}

fn cases() -> ProptestConfig {
    let config = ProptestConfig::default();
    // The environment's PROPTEST_CASES is in the default; without it, what fits into a build's patience.
    let cases = if config.cases == 256 { 48 } else { config.cases };
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 600, ..config }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn whatever_happens_all_that_was_asked_for_runs_in_the_end_where_there_is_room(
        actions in prop::collection::vec(an_action(), 1..90)
    ) {
        let mut world = run(ROOMY, &actions);
        assert_fulfilled(&world);
        assert_nothing_left(&mut world);
    }

    #[test]
    fn where_there_is_no_room_whatever_is_missing_has_a_reason(
        actions in prop::collection::vec(an_action(), 1..90)
    ) {
        let mut world = run(TIGHT, &actions);
        assert_at_rest(&world);
        for (id, unit) in &world.state.units {
            let ready = |record: &&crate::container::Container| {
                let there = record.state == ContainerState::Ready || record.is_done();
                there && record.revision == unit.revision && record.replace.is_none()
            };
            let paused = unit.rollout.as_ref().filter(|rollout| rollout.state == RolloutState::Paused);
            if paused.is_some_and(|rollout| !rollout.reason.is_empty()) {
                continue;
            }
            let waiting = world.state.of(unit).filter(|it| it.state == ContainerState::Waiting).count();
            let serving = world.state.of(unit).filter(ready).count() == unit.goal() as usize;
            let fulfilled = serving && waiting == warm(unit);
            assert!(fulfilled || !unit.held.is_empty(), "{id} lacks a reason\n{}", world.describe());
            assert!(!fulfilled || unit.held.is_empty(), "{id} waits for nothing\n{}", world.describe());
        }
        assert_nothing_left(&mut world);
    }
}
