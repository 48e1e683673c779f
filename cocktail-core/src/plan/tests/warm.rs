//! Workers that wait: who takes which, what is filled up, what comes back, and what goes.

use std::time::Duration;

use crate::command::Command;
use crate::container::{Container, ContainerState};
use crate::contract::{Exit, RearrangeOptions, WorkerSaid};
use crate::event::Event;
use crate::fleet::Late;
use crate::id::ContainerId;
use crate::name::Name;
use crate::operation::OperationKind;
use crate::ports::PortLease;
use crate::settings::Settings;
use crate::world::{Answer, World, server_id};

fn unit(name: &str, more: &str) -> String {
    format!("[maps.prod.units.{name}]\nworker = \"w\"\nmicroservices = [\"{name}\"]\n{more}\n")
}

fn shop(units: &[(&str, &str)]) -> String {
    let units: String = units.iter().map(|(name, more)| unit(name, more)).collect();
    format!("service = \"shop\"\n{units}")
}

fn world(units: &[(&str, &str)]) -> World {
    let mut world = World::new();
    world.apply(&shop(units));
    world.settle();
    world
}

fn ids(world: &World, unit: &str, state: ContainerState) -> Vec<ContainerId> {
    let of_state = |it: &&&Container| it.state == state;
    world.of(unit).iter().filter(of_state).map(|it| it.id.clone()).collect()
}

fn waiting(world: &World, unit: &str) -> Vec<ContainerId> {
    ids(world, unit, ContainerState::Waiting)
}

fn say(world: &mut World, container: &ContainerId, said: &WorkerSaid) -> Vec<&'static str> {
    let generation = world.container(container).generation;
    let events = world.state.worker_said(container, generation, said);
    let kinds = events.iter().map(|event| event.describe().0).collect();
    world.turn(events);
    kinds
}

/// Kinds of the operations that are open on a container.
fn open(world: &World, container: &ContainerId) -> Option<&'static str> {
    let operation = world.container(container).operation?;
    Some(world.state.operations[&operation].kind.as_str())
}

#[test]
fn what_waits_longest_is_taken_at_once_with_ports_and_told_what_to_load() {
    let mut world = world(&[("web", "replicas = 1\nwarm = 2\nports.http = {}")]);
    let spare = waiting(&world, "web");
    assert_eq!((world.ready("web"), spare.len()), (1, 2));
    assert!(spare.iter().all(|id| world.container(id).ports.is_empty()), "it holds no port");
    world.scale("web", 2).unwrap();
    let taken: Vec<&ContainerId> =
        spare.iter().filter(|id| world.container(id).state == ContainerState::Loading).collect();
    assert_eq!(taken.len(), 1);
    let taken = taken[0].clone();
    assert_eq!(open(&world, &taken), Some("assign"));
    let record = world.container(&taken);
    assert_eq!(record.generation.0, 1, "its process is the one that waited");
    assert_eq!(record.worker.as_ref().map(|worker| (worker.assignment, worker.spare)), Some((1, false)));
    let port = record.ports[0].port.unwrap();
    let lease = world.state.ports[&server_id()].lease(port);
    assert!(matches!(lease, Some(PortLease::Held(holder)) if *holder == taken), "{lease:?}");
    world.settle();
    assert_eq!((world.ready("web"), waiting(&world, "web").len()), (2, 2), "and filled up");
}

#[test]
fn a_unit_takes_its_own_first_and_then_what_waits_for_another_that_starts_the_same() {
    let mut world = world(&[
        ("a", "replicas = 0\nwarm = 1"),
        ("b", "replicas = 0\nwarm = 1"),
        ("c", "replicas = 0\nenv = { X = \"1\" }"),
    ]);
    let (of_a, of_b) = (waiting(&world, "a"), waiting(&world, "b"));
    world.scale("b", 2).unwrap();
    let of = |world: &World, id: &ContainerId| world.container(id).unit.unit.to_string();
    assert_eq!((of(&world, &of_b[0]), of(&world, &of_a[0])), ("b".into(), "b".into()));
    world.settle();
    assert_eq!((waiting(&world, "a").len(), waiting(&world, "b").len(), world.ready("b")), (1, 1, 2));
    let before = (waiting(&world, "a"), waiting(&world, "b"));
    world.scale("c", 1).unwrap();
    world.settle();
    assert_eq!((waiting(&world, "a"), waiting(&world, "b")), before, "it starts from something else");
    assert_eq!(world.ready("c"), 1);
}

#[test]
fn what_waits_for_the_unit_itself_is_taken_before_what_waits_longer_for_another() {
    let mut world = world(&[("a", "replicas = 0\nwarm = 2"), ("b", "replicas = 0")]);
    world.pass(Duration::from_secs(1));
    world.apply(&shop(&[("a", "replicas = 0\nwarm = 2"), ("b", "replicas = 0\nwarm = 1")]));
    world.settle();
    let (of_a, of_b) = (waiting(&world, "a"), waiting(&world, "b"));
    world.scale("b", 1).unwrap();
    assert_eq!((waiting(&world, "a"), world.ids("b")), (of_a, of_b));
}

#[test]
fn who_cannot_be_told_all_it_needs_takes_nobody_that_waits() {
    let mut world =
        world(&[("a", "replicas = 0\nwarm = 1"), ("b", "replicas = 0\nports.http = {}\nlive = { tcp = true }")]);
    let spare = waiting(&world, "a");
    world.scale("b", 1).unwrap();
    assert_eq!((spare.len(), waiting(&world, "a")), (1, spare));
    world.settle();
    assert_eq!(world.ready("b"), 1);
}

#[test]
fn the_place_of_what_was_taken_is_filled_up_a_moment_later() {
    let mut world = world(&[("web", "replicas = 0\nwarm = 1")]);
    world.scale("web", 1).unwrap();
    assert_eq!(world.of("web").len(), 1, "who needs it has the machine first");
    world.pass(Duration::from_millis(99));
    assert_eq!(world.of("web").len(), 1);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.of("web").len(), 2);
}

#[test]
fn who_leaves_while_enough_wait_ends() {
    let mut world = world(&[("web", "replicas = 2\nwarm = 1")]);
    let spare = waiting(&world, "web");
    world.scale("web", 1).unwrap();
    let leaving = ids(&world, "web", ContainerState::Draining);
    assert_eq!((leaving.len(), open(&world, &leaving[0])), (1, Some("stop")));
    world.settle();
    assert_eq!(waiting(&world, "web"), spare);
}

#[test]
fn a_worker_waits_again_until_it_was_used_as_often_as_it_may_be() {
    let mut world = world(&[("web", "replicas = 2\nwarm = { count = 1, uses = 2 }")]);
    let leave = |world: &mut World| {
        for spare in waiting(world, "web") {
            world.exit(&spare, Exit::Code(1));
        }
        world.scale("web", 1).unwrap();
        let leaving = world.ids("web").into_iter().find(|id| {
            let record = world.container(id);
            record.state == ContainerState::Draining && record.worker.as_ref().is_some_and(|worker| !worker.spare)
        });
        let leaving = leaving.unwrap();
        let how = open(world, &leaving);
        world.settle();
        (leaving, how)
    };
    let (first, how) = leave(&mut world);
    assert_eq!((how, waiting(&world, "web")), (Some("unload"), vec![first.clone()]), "it was used once");
    world.scale("web", 2).unwrap();
    world.settle();
    assert_eq!(leave(&mut world), (first, Some("stop")), "it was used twice");
}

#[test]
fn who_leaves_while_too_few_wait_is_unloaded_and_one_that_starts_gives_way() {
    let mut world = world(&[("web", "replicas = 2\nwarm = 1\nports.http = {}")]);
    let spare = waiting(&world, "web")[0].clone();
    world.exit(&spare, Exit::Code(1));
    let before = ids(&world, "web", ContainerState::Ready);
    world.scale("web", 1).unwrap();
    let leaving = ids(&world, "web", ContainerState::Draining);
    let back = leaving.iter().find(|id| before.contains(id)).unwrap().clone();
    assert_eq!(open(&world, &back), Some("unload"));
    assert!(leaving.contains(&spare), "what is not up yet gives way");
    world.settle();
    assert_eq!(waiting(&world, "web"), std::slice::from_ref(&back));
    assert!(world.container(&back).ports.is_empty());
    world.scale("web", 2).unwrap();
    assert_eq!(world.container(&back).worker.as_ref().map(|worker| worker.assignment), Some(2));
    world.settle();
    assert_eq!((world.ready("web"), waiting(&world, "web").len()), (2, 1));
}

#[test]
fn who_does_not_unload_or_was_used_often_enough_or_is_broken_ends() {
    for case in ["does not unload", "used", "broken"] {
        let uses = if case == "used" { "warm = { count = 1, uses = 1 }" } else { "warm = 1" };
        let mut world = world(&[("web", &format!("replicas = 2\n{uses}"))]);
        let spare = waiting(&world, "web")[0].clone();
        world.exit(&spare, Exit::Code(1));
        let before = ids(&world, "web", ContainerState::Ready);
        if case == "broken" {
            say(&mut world, &before[0], &WorkerSaid::Broken { error: "no database".into() });
        } else {
            world.scale("web", 1).unwrap();
        }
        if case == "does not unload" {
            let back = before.iter().find(|id| open(&world, id) == Some("unload")).unwrap().clone();
            let index = world.state.operations.values().position(|open| open.container == back).unwrap();
            world.answer(index, Answer::Fails);
            assert_eq!(open(&world, &back), Some("stop"), "{case}");
        }
        world.settle();
        let kept = waiting(&world, "web");
        assert_eq!(kept.len(), 1, "{case}");
        assert!(!before.contains(&kept[0]), "{case}: it does not wait again");
    }
}

#[test]
fn who_cannot_be_told_is_replaced_and_what_was_said_of_an_earlier_assignment_says_nothing() {
    let mut world = world(&[("web", "replicas = 0\nwarm = 1\nports.http = {}")]);
    let spare = waiting(&world, "web")[0].clone();
    world.scale("web", 1).unwrap();
    let index = world.state.operations.values().position(|open| open.kind == OperationKind::Assign).unwrap();
    world.answer(index, Answer::Fails);
    assert_ne!(world.container(&spare).replace, None);
    world.settle();
    assert_eq!((world.ready("web"), waiting(&world, "web").len()), (1, 1));
    assert!(!world.state.containers.contains_key(&spare));

    let serving = ids(&world, "web", ContainerState::Ready)[0].clone();
    let said = WorkerSaid::Failed { assignment: 7, error: "late".into(), port_taken: None };
    assert_eq!(say(&mut world, &serving, &said), Vec::<&str>::new());
    assert_eq!(say(&mut world, &serving, &WorkerSaid::Waiting), Vec::<&str>::new());
    let spare = waiting(&world, "web")[0].clone();
    assert_eq!(say(&mut world, &spare, &WorkerSaid::Ready { assignment: 1 }), Vec::<&str>::new());
}

#[test]
fn a_port_that_another_program_has_is_left_alone_and_its_worker_starts_again_with_another() {
    let mut world = world(&[("web", "replicas = 0\nwarm = 1\nports.http = {}")]);
    let spare = waiting(&world, "web")[0].clone();
    world.scale("web", 1).unwrap();
    world.answer_all();
    let port = world.container(&spare).ports[0].port.unwrap();
    let port_taken = Some(Name::new("http").unwrap());
    let said = WorkerSaid::Failed { assignment: 1, error: "address in use".into(), port_taken };
    assert_eq!(say(&mut world, &spare, &said), ["unready", "port-taken"]);
    let lease = world.state.ports[&server_id()].lease(port);
    assert!(matches!(lease, Some(PortLease::Poisoned(_))), "{lease:?}");
    assert_eq!(open(&world, &spare), Some("stop"));
    let stop = world.container(&spare).operation.unwrap();
    assert_eq!(world.state.operations[&stop].because, format!("another program has port {port}"));
    let reason = world.container(&spare).reason.clone();
    assert!(reason.contains(&format!("another program has port {port}")), "{reason}");
    world.answer_all();
    assert!(matches!(world.container(&spare).state, ContainerState::Backoff { .. }), "not at once");
    world.settle();
    let record = world.container(&spare);
    assert_eq!((record.state, record.generation.0), (ContainerState::Ready, 2));
    assert_ne!(record.ports[0].port, Some(port));
    // One that was proved before the start is the worker's own fault.
    let said = WorkerSaid::Failed {
        assignment: 1,
        error: "address in use".into(),
        port_taken: Some(Name::new("http").unwrap()),
    };
    assert_eq!(say(&mut world, &spare, &said), ["unready"]);
}

#[test]
fn what_has_waited_long_enough_is_exchanged_and_not_all_at_once() {
    let mut world = world(&[("web", "replicas = 0\nwarm = { count = 8, age = \"100h\" }")]);
    let before = waiting(&world, "web");
    let mut least = before.len();
    for _ in 0..100 {
        world.pass(Duration::from_secs(3_600));
        least = least.min(waiting(&world, "web").len());
        world.settle();
    }
    let after = waiting(&world, "web");
    assert_eq!(after.len(), 8);
    assert!(after.iter().all(|id| !before.contains(id)), "each was exchanged");
    assert!(least >= 5, "at one time only {least} waited");
}

#[test]
fn fewer_wait_when_fewer_are_to_and_none_for_a_unit_that_is_stopped() {
    let mut world = world(&[("web", "replicas = 1\nwarm = 3")]);
    world.apply(&shop(&[("web", "replicas = 1\nwarm = 1")]));
    world.settle();
    assert_eq!((world.ready("web"), waiting(&world, "web").len()), (1, 1));
    assert_eq!(world.unit("web").revision.0, 1, "that is no new version");
    world.switch("web", true);
    world.settle();
    assert_eq!(world.of("web").len(), 0);
    world.switch("web", false);
    world.settle();
    assert_eq!((world.ready("web"), waiting(&world, "web").len()), (1, 1));
}

#[test]
fn where_there_is_no_room_for_what_is_to_wait_the_unit_says_so_and_serves() {
    let mut world = World::with(Settings::default(), 1_000);
    world.apply(&shop(&[("web", "replicas = 2\nwarm = 2\nresources = { cpu = 0.4 }")]));
    world.settle();
    assert_eq!((world.ready("web"), waiting(&world, "web").len()), (2, 0));
    let held = &world.unit("web").held;
    assert!(held.starts_with("0 of 2 wait for whoever needs them: no room"), "{held}");
    world.scale("web", 1).unwrap();
    world.settle();
    assert_eq!((world.ready("web"), waiting(&world, "web").len()), (1, 1), "who left waits");
    let told = |event: &&Event| matches!(event, Event::Unloaded { failure: None, .. });
    let turns: Vec<Event> = world.turns().flat_map(|turn| turn.events.clone()).collect();
    assert_eq!(turns.iter().filter(told).count(), 1);
}

#[test]
fn a_unit_that_serves_says_so_when_only_what_is_to_wait_still_finds_no_room() {
    let mut world = World::with(Settings::default(), 1_000);
    world.apply(&shop(&[("web", "replicas = 3\nwarm = 2\nresources = { cpu = 0.4 }")]));
    let full = "no room on the only server: it has 200m of 1000m cpu left, the container reserves 400m";
    assert_eq!(world.unit("web").held, full);
    world.scale("web", 2).unwrap();
    assert_eq!(world.unit("web").held, format!("0 of 2 wait for whoever needs them: {full}"));
}

#[test]
fn who_comes_back_to_a_server_that_is_to_be_emptied_leaves_it() {
    let mut world = world(&[("web", "replicas = 2\nwarm = 1")]);
    let spare = waiting(&world, "web")[0].clone();
    world.exit(&spare, Exit::Code(1));
    world.scale("web", 1).unwrap();
    let back = world.ids("web").into_iter().find(|id| open(&world, id) == Some("unload")).unwrap();
    let options = RearrangeOptions { deadline: None, late: Late::Cancel, give_back: false };
    let server = server_id().to_string();
    world.command(&Command::Rearrange { server, options }).unwrap();
    let index = world.state.operations.values().position(|open| open.container == back).unwrap();
    world.answer(index, Answer::Done);
    // That a pass over everything finds nothing more is seen after every turn.
    assert_ne!(world.container(&back).replace, None, "{}", world.describe());
}

#[test]
fn what_is_told_anew_counts_as_made_now_and_what_waits_is_no_part_of_a_rollout() {
    let mut world = world(&[("web", "replicas = 1\nwarm = 3")]);
    let spare = waiting(&world, "web")[0].clone();
    world.exit(&spare, Exit::Code(1));
    world.settle();
    let made = world.unit("web").made;
    world.apply(&shop(&[("web", "replicas = 1\nwarm = 3\nconfig.web = { v = 2 }")]));
    let taken = ids(&world, "web", ContainerState::Loading)[0].clone();
    assert!(world.container(&taken).ordinal > made, "a failure of it is one of the rollout");
    assert_eq!(world.container(&taken).crashes, 0);
    world.settle();
    let id = world.state.unit_named("web").unwrap();
    let view = world.state.unit_view(&id).unwrap();
    assert_eq!((view.updated, view.rollout.state.as_str(), view.reason.as_str()), (1, "completed", ""));
    assert!(world.of("web").iter().any(|it| it.revision.0 == 1), "what waits is that of before");
}

#[test]
fn as_many_come_back_in_one_turn_as_are_to_wait_and_the_others_end() {
    let mut world = world(&[("web", "replicas = 5\nwarm = 2")]);
    for spare in waiting(&world, "web") {
        world.exit(&spare, Exit::Code(1));
    }
    world.scale("web", 1).unwrap();
    let kinds: Vec<&str> = world.ids("web").iter().filter_map(|id| open(&world, id)).collect();
    let count = |kind: &str| kinds.iter().filter(|it| **it == kind).count();
    // Beside two that served, the two that are not up yet end.
    assert_eq!((count("unload"), count("stop")), (2, 4), "{}", world.describe());
    world.settle();
    assert_eq!((world.ready("web"), waiting(&world, "web").len()), (1, 2));
}
