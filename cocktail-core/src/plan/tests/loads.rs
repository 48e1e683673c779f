//! Counts that follow the load and the clock, and containers that run to completion.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::container::ContainerState;
use crate::contract::{Exit, ProbeKind};
use crate::event::{Event, Soft};
use crate::plan;
use crate::scaling::{Bounds, Sample, TrafficSample};
use crate::world::{World, unit_id};

fn scaled(min: u32, keys: &str) -> String {
    format!(
        "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"web\"]\nports.http = {{ service = 8080 }}\n\
         scale = {{ min = {min}, max = 6, {keys} }}\n"
    )
}

fn load(world: &mut World, cpu_millis: u64, rps: f64) {
    let traffic = Some(TrafficSample { rps, ..TrafficSample::default() });
    let sample = Sample { cpu_millis, traffic, ..Sample::default() };
    let samples: BTreeMap<_, _> = world.ids("web").into_iter().map(|id| (id, sample.clone())).collect();
    world.note(&Soft::Sampled(samples));
}

/// Everything starts and is ready, and no time passes.
fn make_ready(world: &mut World) {
    world.answer_all();
    for id in world.ids("web") {
        world.probe(&id, ProbeKind::Ready, true);
    }
}

#[test]
fn more_come_at_once_and_fewer_after_the_window_with_the_numbers_in_why() {
    let mut world = World::new();
    world.apply(&scaled(1, "cpu = 0.5, down = { stabilize = \"30s\" }"));
    make_ready(&mut world);
    world.pass(Duration::from_secs(20));
    load(&mut world, 900, 5.0);
    assert_eq!(world.unit("web").desired, 2);
    let why = world.state.why("web").expect("it exists");
    let scaled = why.iter().find(|why| why.decision == "scale").expect("it is told");
    assert_eq!(scaled.because, "2 instead of 1: cpu is 0.9 over 1 containers, 0.5 each are wanted: 2");
    make_ready(&mut world);
    for _ in 0..3 {
        load(&mut world, 10, 5.0);
        assert_eq!(world.unit("web").desired, 2);
        world.pass(Duration::from_secs(10));
    }
    load(&mut world, 10, 5.0);
    assert_eq!(world.unit("web").desired, 1);
}

#[test]
fn what_just_became_ready_says_nothing_about_the_load() {
    let mut world = World::new();
    world.apply(&scaled(1, "cpu = 0.5"));
    make_ready(&mut world);
    load(&mut world, 5_000, 5.0);
    assert_eq!(world.unit("web").desired, 1);
    world.pass(Duration::from_secs(10));
    load(&mut world, 5_000, 5.0);
    assert_eq!(world.unit("web").desired, 6);
}

#[test]
fn an_idle_unit_goes_to_zero_and_a_waiting_client_wakes_it() {
    let mut world = World::new();
    world.apply(&scaled(0, "rps = 10, down = { stabilize = \"5s\" }"));
    make_ready(&mut world);
    assert!(world.ids("web").is_empty());
    world.note(&Soft::Demand { unit: unit_id("prod", "web") });
    make_ready(&mut world);
    assert_eq!(world.ready("web"), 1);
    world.pass(Duration::from_secs(10));
    load(&mut world, 10, 0.5);
    world.pass(Duration::from_secs(4));
    load(&mut world, 10, 0.0);
    assert_eq!(world.unit("web").desired, 1, "it was used within the window");
    world.pass(Duration::from_secs(6));
    load(&mut world, 10, 0.0);
    assert_eq!(world.unit("web").desired, 0);
}

#[test]
fn a_container_that_was_not_read_is_not_idle() {
    let mut world = World::new();
    world.apply(&scaled(1, "cpu = 0.5"));
    make_ready(&mut world);
    world.scale("web", 4).expect("it is not refused");
    make_ready(&mut world);
    world.pass(Duration::from_secs(10));
    let busy = Sample { cpu_millis: 500, ..Sample::default() };
    let first = world.ids("web")[0].clone();
    for _ in 0..20 {
        world.note(&Soft::Sampled(BTreeMap::from([(first.clone(), busy.clone())])));
        world.pass(Duration::from_secs(10));
    }
    assert_eq!(world.unit("web").desired, 4, "{:?}", world.state.why("web"));
}

#[test]
fn a_metric_that_nobody_reports_is_told() {
    let mut world = World::new();
    world.apply(&scaled(1, "queue = 10"));
    make_ready(&mut world);
    world.pass(Duration::from_secs(10));
    load(&mut world, 900, 5.0);
    let why = world.state.why("web").expect("it exists");
    assert!(why.iter().any(|why| why.because == "none of 1 containers reports queue"), "{why:?}");
}

#[test]
fn bounds_by_the_clock_hold_whatever_the_load_says() {
    let mut world = World::new();
    world.apply(&scaled(1, "cpu = 0.5"));
    make_ready(&mut world);
    let bounds = |bounds| Event::BoundsSet { unit: unit_id("prod", "web"), bounds, because: "08:00".into() };
    world.turn(vec![bounds(Some(Bounds { min: 3, max: 4 }))]);
    make_ready(&mut world);
    assert_eq!(world.ready("web"), 3);
    world.pass(Duration::from_secs(20));
    load(&mut world, 5_000, 1.0);
    assert_eq!(world.unit("web").desired, 4);
    world.turn(vec![bounds(Some(Bounds { min: 1, max: 2 }))]);
    assert_eq!(world.unit("web").desired, 2);
}

#[test]
fn a_waiting_client_wakes_nothing_while_the_clock_allows_none() {
    let mut world = World::new();
    world.apply(&scaled(0, "rps = 10"));
    let none = Some(Bounds { min: 0, max: 0 });
    world.turn(vec![Event::BoundsSet { unit: unit_id("prod", "web"), bounds: none, because: "22:00".into() }]);
    world.state.note(&Soft::Demand { unit: unit_id("prod", "web") });
    assert_eq!(plan::decide(&mut world.state), []);
}

fn job(keys: &str) -> String {
    format!(
        "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"web\"]\nreplicas = 2\n\
         restart = {{ base = \"0s\", {keys} }}\n"
    )
}

#[test]
fn a_job_is_done_when_its_containers_are_and_is_not_started_again() {
    let mut world = World::new();
    world.apply(&job("when = \"failure\", retries = 1"));
    world.settle();
    let [one, two] = &world.ids("web")[..] else { panic!("{}", world.describe()) };
    let (one, two) = (one.clone(), two.clone());
    world.exit(&one, Exit::Code(0));
    world.exit(&two, Exit::Code(3));
    world.settle();
    assert_eq!(world.container(&two).generation.0, 2, "it has another attempt");
    world.exit(&two, Exit::Code(3));
    world.settle();
    world.pass(Duration::from_secs(600));
    world.settle();
    let view = &world.state.unit_views()[0];
    assert_eq!((view.succeeded, view.failed, world.machine.running().len()), (1, 1, 0));
    assert_eq!(world.container(&one).state, ContainerState::Stopped);
    let why = &world.container(&two).reason;
    assert!(why.starts_with("failed: exited with code 3") && why.ends_with("no attempt is left after 2"), "{why}");
}

#[test]
fn a_job_that_takes_too_long_is_ended_and_has_failed() {
    let mut world = World::new();
    world.apply(&job("when = \"failure\", deadline = \"30s\""));
    world.settle();
    let view = &world.state.unit_views()[0];
    assert_eq!((view.succeeded, view.failed), (0, 2));
    assert_eq!(world.container(&world.ids("web")[0]).reason, "failed: not done within 30s");
}

#[test]
fn a_job_that_is_done_runs_again_when_a_restart_is_asked_for() {
    let mut world = World::new();
    world.apply(&job("when = \"never\""));
    world.settle();
    for id in world.ids("web") {
        world.exit(&id, Exit::Code(1));
    }
    world.settle();
    assert_eq!(world.machine.running().len(), 0);
    world.restart("web");
    world.settle();
    assert_eq!((world.machine.running().len(), world.ids("web").len()), (2, 2));
}

#[test]
fn a_changed_job_runs_anew_and_an_unchanged_one_does_not() {
    let mut world = World::new();
    let text = job("when = \"never\"");
    world.apply(&text);
    world.settle();
    for id in world.ids("web") {
        world.exit(&id, Exit::Code(0));
    }
    let done = world.ids("web");
    world.apply(&text);
    world.settle();
    assert_eq!(world.ids("web"), done);
    world.apply(&text.replace("[\"web\"]", "[\"web\", \"again\"]"));
    world.settle();
    assert_eq!((world.machine.running().len(), world.ids("web").len()), (2, 2));
    assert!(world.ids("web").iter().all(|id| !done.contains(id)));
}
