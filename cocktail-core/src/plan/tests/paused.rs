//! Containers of images that wait paused: who takes them, who takes whose place after a crash, and what goes.

use std::time::Duration;

use crate::command::Command;
use crate::container::{Container, ContainerState};
use crate::contract::{Exit, ProbeKind, WorkerSaid};
use crate::event::Event;
use crate::id::{ContainerId, ServerId};
use crate::operation::OperationKind;
use crate::world::{Answer, World, engine_id};

const PORT: &str = "ports.http = { service = 8080, container = 80 }";

fn shop(image: &str, more: &str) -> String {
    format!("service = \"shop\"\n[maps.prod.units.web]\nimage = \"{image}\"\n{more}\n")
}

fn world(more: &str) -> World {
    let mut world = World::new();
    world.add_engine(64_000);
    world.apply(&shop("web:1", more));
    world.settle();
    world
}

fn ids(world: &World, state: ContainerState) -> Vec<ContainerId> {
    let of_state = |it: &&&Container| it.state == state;
    world.of("web").iter().filter(of_state).map(|it| it.id.clone()).collect()
}

fn waiting(world: &World) -> Vec<ContainerId> {
    ids(world, ContainerState::Waiting)
}

fn ready(world: &World) -> Vec<ContainerId> {
    ids(world, ContainerState::Ready)
}

/// Kinds of the operations that are open on a container.
fn open(world: &World, container: &ContainerId) -> Option<&'static str> {
    let operation = world.container(container).operation?;
    Some(world.state.operations[&operation].kind.as_str())
}

/// It has served for a while, and ends.
fn crash(world: &mut World, container: &ContainerId) -> Vec<Event> {
    world.pass(Duration::from_secs(60));
    world.exit(container, Exit::Code(137))
}

/// The one of those that is about to go on.
fn taken(world: &World, among: &[ContainerId]) -> ContainerId {
    let goes_on = |id: &&ContainerId| open(world, id) == Some("assign");
    among.iter().find(goes_on).unwrap_or_else(|| panic!("{}", world.describe())).clone()
}

fn is_claim(event: &Event) -> bool {
    matches!(event, Event::Claimed { .. })
}

#[test]
fn what_waits_has_its_ports_and_takes_no_traffic_until_it_goes_on_with_the_same() {
    let mut world = world(&format!("replicas = 1\nwarm = 2\n{PORT}"));
    let spare = waiting(&world);
    assert_eq!((world.ready("web"), spare.len()), (1, 2));
    let ports: Vec<_> = spare.iter().map(|id| world.container(id).ports[0].port).collect();
    assert!(ports.iter().all(Option::is_some) && world.machine.is_paused(&spare[0]));
    let launch = world.state.launch(&spare[0]).unwrap();
    assert!(launch.paused && launch.worker.is_none() && launch.probes.len() == 1, "{launch:?}");
    assert_eq!(launch.env["COCKTAIL_UNIT"], "shop/prod/web");

    world.scale("web", 2).unwrap();
    let taken = taken(&world, &spare);
    let record = world.container(&taken);
    let index = spare.iter().position(|id| *id == taken).unwrap();
    assert_eq!((record.state, record.generation.0), (ContainerState::Loading, 1));
    assert_eq!(record.ports[0].port, ports[index]);
    assert!(!world.state.launch(&taken).unwrap().paused);
    world.probe(&taken, ProbeKind::Ready, true);
    assert_eq!(world.ready("web"), 1, "it has not gone on yet");
    world.answer_all();
    assert_eq!(world.ready("web"), 1, "its probe says when it is ready");
    world.probe(&taken, ProbeKind::Ready, true);
    assert_eq!(world.ready("web"), 2);
    world.settle();
    assert_eq!((world.ready("web"), waiting(&world).len()), (2, 2), "and filled up");
}

#[test]
fn one_without_a_probe_is_ready_when_it_goes_on() {
    let mut world = world("replicas = 0\nwarm = 1");
    let spare = waiting(&world);
    world.scale("web", 1).unwrap();
    assert_eq!(ready(&world), []);
    world.answer_all();
    assert_eq!(ready(&world), spare);
}

#[test]
fn what_crashes_after_a_while_gives_way_at_once_and_waits_in_its_turn() {
    let mut world = world(&format!("replicas = 1\nwarm = 1\n{PORT}"));
    let (served, spare) = (ready(&world)[0].clone(), waiting(&world)[0].clone());
    let turn = crash(&mut world, &served);
    assert_eq!(open(&world, &spare), Some("assign"), "in the turn that knows of the crash");
    assert!(!turn.iter().any(is_claim));
    let record = world.container(&served);
    assert!(record.is_spare() && matches!(record.state, ContainerState::Backoff { .. }), "{record:?}");
    world.settle();
    assert_eq!((ready(&world), waiting(&world)), (vec![spare.clone()], vec![served.clone()]));
    assert!(!world.turns().flat_map(|turn| &turn.events).any(|event| {
        matches!(event, Event::Claimed { container, .. } if *container != served && *container != spare)
    }));
    let why: Vec<String> = world.unit("web").why.iter().map(|why| why.because.to_string()).collect();
    let says = format!("{spare}: {served} crashed: exited with code 137; it was waiting");
    assert!(why.contains(&says), "{why:?}");
}

#[test]
fn what_waits_is_not_worn_out_by_a_version_that_crashes() {
    let mut world = world(&format!("replicas = 1\nwarm = 1\n{PORT}\nrestart = {{ base = \"1s\" }}"));
    let (served, spare) = (ready(&world)[0].clone(), waiting(&world)[0].clone());
    crash(&mut world, &served);
    world.answer_all();
    world.probe(&spare, ProbeKind::Ready, true);
    assert_eq!(ready(&world), std::slice::from_ref(&spare));
    world.pass(Duration::from_millis(1_500));
    world.answer_all();
    world.probe(&served, ProbeKind::Ready, true);
    assert_eq!(waiting(&world), std::slice::from_ref(&served));
    // The second crash in a row, after less than its back-off: however long it waited, it ran for that long only.
    world.exit(&spare, Exit::Code(1));
    let record = world.container(&spare);
    assert!(matches!(record.state, ContainerState::Backoff { .. }) && !record.is_spare(), "{record:?}");
    assert_eq!((record.crashes, waiting(&world)), (2, vec![served.clone()]));
    world.settle();
    assert_eq!((ready(&world), waiting(&world)), (vec![spare], vec![served]));
}

#[test]
fn one_that_waits_takes_one_place_when_several_crash_at_once() {
    let mut world = world(&format!("replicas = 3\nwarm = 1\n{PORT}"));
    let (served, spare) = (ready(&world), waiting(&world)[0].clone());
    world.pass(Duration::from_secs(60));
    let ends = |world: &mut World, id: &ContainerId| {
        let generation = world.machine.exit(id).unwrap();
        Event::Exited { container: id.clone(), generation, exit: Exit::Code(1) }
    };
    let ends = served.iter().map(|id| ends(&mut world, id)).collect();
    world.turn(ends);
    let spares: Vec<bool> = served.iter().map(|id| world.container(id).is_spare()).collect();
    assert_eq!(spares.iter().filter(|it| **it).count(), 1);
    assert_eq!(world.container(&spare).state, ContainerState::Loading);
    world.settle();
    assert_eq!((world.ready("web"), waiting(&world).len(), world.of("web").len()), (3, 1, 4));
}

#[test]
fn who_keeps_away_from_others_is_relieved_by_nobody_elsewhere() {
    for (apart, relieved) in [("", true), ("place.affinity.apart = [\"db\"]", false)] {
        let mut world = World::new();
        world.add_engine(64_000);
        world.add_images(ServerId::new("racks"), 64_000);
        world.apply(&shop("web:1", &format!("replicas = 1\nwarm = 1\n{PORT}\n{apart}")));
        world.settle();
        let (served, spare) = (ready(&world)[0].clone(), waiting(&world)[0].clone());
        assert_ne!(world.container(&served).server, world.container(&spare).server);
        crash(&mut world, &served);
        world.settle();
        assert_eq!(ready(&world) == [spare], relieved, "{apart}");
    }
}

#[test]
fn who_crashes_while_the_count_goes_down_just_goes() {
    let mut world = world(&format!("replicas = 2\nwarm = 1\n{PORT}"));
    let (served, spare) = (ready(&world), waiting(&world));
    world.switch("web", true);
    crash(&mut world, &served[0]);
    world.settle();
    assert!(world.of("web").is_empty() && !world.state.containers.contains_key(&spare[0]));
}

#[test]
fn a_new_version_exchanges_what_waits_and_a_replacement_of_the_same_uses_it() {
    let mut world = world(&format!("replicas = 2\nwarm = 1\n{PORT}"));
    let (served, spare) = (ready(&world), waiting(&world));
    world.restart(served[0].as_str());
    assert_eq!(taken(&world, &spare), spare[0]);
    assert_eq!(world.ready("web"), 2, "the other one goes when this one serves");
    world.settle();
    assert!(ready(&world).contains(&spare[0]) && !world.state.containers.contains_key(&served[0]));

    let spare = waiting(&world);
    world.apply(&shop("web:2", &format!("replicas = 2\nwarm = 1\n{PORT}")));
    assert_eq!(open(&world, &spare[0]), Some("stop"));
    world.settle();
    assert!(world.of("web").iter().all(|it| it.revision.0 == 2));
    assert_eq!((world.ready("web"), waiting(&world).len()), (2, 1));

    let spare = waiting(&world);
    world.apply(&shop("web:2", &format!("replicas = 2\nwarm = 1\n{PORT}\nrestart = {{ base = \"1s\" }}")));
    world.settle();
    assert_eq!(waiting(&world), spare, "that is no new version");
}

#[test]
fn what_has_waited_long_enough_is_exchanged_and_what_ends_while_it_waits_comes_back() {
    let mut world = world(&format!("replicas = 0\nwarm = {{ count = 1, age = \"100h\" }}\n{PORT}"));
    let first = waiting(&world)[0].clone();
    world.exit(&first, Exit::Code(137));
    world.settle();
    assert_eq!((waiting(&world), world.container(&first).generation.0), (vec![first.clone()], 2));
    world.pass(Duration::from_secs(100 * 3_600));
    world.settle();
    let second = waiting(&world);
    assert!(second.len() == 1 && second[0] != first, "{second:?}");
}

#[test]
fn the_next_manager_has_what_waits_go_on() {
    let mut world = world(&format!("replicas = 1\nwarm = 2\n{PORT}"));
    let spare = waiting(&world);
    world.scale("web", 2).unwrap();
    let first = taken(&world, &spare);
    world.reopen();
    world.settle();
    assert!(ready(&world).contains(&first), "{}", world.describe());
    world.reopen();
    let (served, spare) = (ready(&world)[0].clone(), waiting(&world));
    crash(&mut world, &served);
    taken(&world, &spare);
    world.settle();
    assert_eq!((world.ready("web"), waiting(&world).len()), (2, 2));
}

#[test]
fn who_does_not_go_on_is_replaced() {
    let mut world = world(&format!("replicas = 0\nwarm = 1\n{PORT}"));
    let spare = waiting(&world)[0].clone();
    world.scale("web", 1).unwrap();
    let index = world.state.operations.values().position(|open| open.kind == OperationKind::Assign).unwrap();
    world.answer(index, Answer::Fails);
    let because = world.container(&spare).replace.clone().unwrap();
    assert!(because.starts_with("it cannot go on: "), "{because}");
    world.settle();
    assert_eq!((world.ready("web"), waiting(&world).len()), (1, 1));
    assert!(!world.state.containers.contains_key(&spare));
}

#[test]
fn where_nothing_can_be_paused_that_is_said_and_not_tried_again_until_something_changes() {
    let mut world = World::new();
    world.add_engine(64_000);
    world.apply(&shop("web:1", &format!("replicas = 1\nwarm = 1\n{PORT}")));
    world.answer_all();
    let spare = world.of("web").into_iter().find(|it| it.is_spare()).unwrap();
    let (id, generation) = (spare.id.clone(), spare.generation);
    let said = WorkerSaid::Unfit { error: "the engine has no freezer".into() };
    let events = world.state.worker_said(&id, generation, &said);
    world.turn(events);
    world.settle();
    assert_eq!((world.ready("web"), world.of("web").len()), (1, 1));
    assert_eq!(world.unit("web").held, "0 of 1 wait for whoever needs them: the engine has no freezer");
    world.apply(&shop("web:1", &format!("replicas = 1\nwarm = 2\n{PORT}")));
    world.settle();
    assert_eq!((world.unit("web").held.as_str(), waiting(&world).len()), ("", 2));
}

#[test]
fn what_waits_on_a_cordoned_engine_takes_the_place_of_what_crashes_there_and_no_other() {
    let mut world = world(&format!("replicas = 1\nwarm = 1\n{PORT}"));
    let (served, spare) = (ready(&world)[0].clone(), waiting(&world)[0].clone());
    world.command(&Command::Cordon { server: engine_id().to_string(), cordoned: true }).unwrap();
    world.scale("web", 2).unwrap();
    assert_eq!(waiting(&world), std::slice::from_ref(&spare), "nothing new serves there");
    world.scale("web", 1).unwrap();
    crash(&mut world, &served);
    world.settle();
    assert_eq!((ready(&world), waiting(&world)), (vec![spare], vec![served]));
}
