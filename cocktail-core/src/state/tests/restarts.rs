//! Exits and what follows: back-off, crash loops, healthy times, ports that turn out taken, answers that come late.

use std::time::Duration;

use crate::container::{Container, ContainerState};
use crate::contract::{Exit, Handle, ProbeKind};
use crate::event::Event;
use crate::id::{ContainerId, Generation};
use crate::ports::{PortLease, PortRange};
use crate::settings::Settings;
use crate::world::{Answer, World, server_id};

const JOB: &str = r#"
service = "shop"
[maps.prod.units.job]
command = ["job"]
restart = { base = "100ms", max = "2s", reset = "10s" }
"#;

const WEB: &str = r#"
service = "shop"
[maps.prod.units.web]
command = ["web"]
ports.http = {}
"#;

fn running(text: &str) -> (World, ContainerId) {
    let mut world = World::new();
    world.apply(text);
    world.settle();
    let id = world.state.containers.keys().next().expect("there is one").clone();
    (world, id)
}

/// It ends, and its back-off passes until it runs again. Returns the back-off.
fn crash(world: &mut World, id: &ContainerId) -> (Duration, String) {
    world.exit(id, Exit::Code(3));
    let ContainerState::Backoff { until } = world.container(id).state else { panic!("{}", world.describe()) };
    let (pause, reason) = (until - world.now(), world.container(id).reason.clone());
    world.pass(pause);
    world.answer_all();
    (pause, reason)
}

fn port(record: &Container) -> Option<u16> {
    record.ports[0].port
}

#[test]
fn each_exit_doubles_the_pause_and_the_fifth_is_called_a_crash_loop() {
    let (mut world, id) = running(JOB);
    for (crashes, full) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1_600), (6, 2_000), (7, 2_000)] {
        let (pause, reason) = crash(&mut world, &id);
        let longest = Duration::from_millis(full);
        assert!(pause <= longest && pause >= longest * 3 / 4 - Duration::from_millis(1), "{crashes}: {pause:?}");
        let prefix = format!("crash loop ({crashes} in a row): ");
        assert_eq!(reason.starts_with(&prefix), crashes >= 5, "{reason}");
        let plain = reason.strip_prefix(&prefix).unwrap_or(&reason);
        assert!(plain.starts_with("exited with code 3 after 0ms; restart "), "{reason}");
        assert!(plain.contains(&format!("restart {crashes} in ")), "{reason}");
        assert_eq!(world.container(&id).restarts, crashes);
    }
}

#[test]
fn a_healthy_time_makes_the_back_off_start_anew() {
    let (mut world, id) = running(JOB);
    for _ in 0..6 {
        crash(&mut world, &id);
    }
    world.pass(Duration::from_millis(9_999));
    assert!(crash(&mut world, &id).1.starts_with("crash loop (7 in a row)"), "not long enough");
    world.pass(Duration::from_secs(10));
    let (pause, reason) = crash(&mut world, &id);
    assert!(pause <= Duration::from_millis(100), "{pause:?}");
    assert!(reason.starts_with("exited with code 3 after 10s; restart 8 in "), "{reason}");
}

#[test]
fn a_base_of_zero_restarts_in_the_same_moment_and_is_never_called_a_loop() {
    let (mut world, id) = running(&JOB.replace("100ms", "0ms"));
    for crashes in 1..8 {
        let events = world.exit(&id, Exit::Code(3));
        assert!(events.iter().any(|event| matches!(event, Event::Intended { .. })), "{events:?}");
        let record = world.container(&id);
        assert_eq!((record.state, record.crashes), (ContainerState::Preparing, crashes));
        let reasons: Vec<&str> = record.why.iter().map(|why| why.because.as_str()).collect();
        assert!(!reasons.concat().contains("crash loop"), "{reasons:?}");
        world.answer_all();
    }
}

#[test]
fn a_restart_in_place_keeps_id_and_ports() {
    let (mut world, id) = running(WEB);
    let before = port(world.container(&id));
    crash(&mut world, &id);
    assert_eq!((port(world.container(&id)), world.container(&id).generation), (before, Generation(2)));
}

#[test]
fn a_port_that_turns_out_taken_is_exchanged_at_once_and_left_alone() {
    let mut world = World::new();
    world.machine.foreign.insert(20_000);
    world.apply(WEB);
    let id = world.ids("web")[0].clone();
    world.answer(0, Answer::Done);
    assert_eq!(port(world.container(&id)), Some(20_001));
    let poisoned = PortLease::Poisoned(world.now() + Settings::default().port_poison);
    assert_eq!(world.state.ports[&server_id()].lease(20_000), Some(&poisoned));
    world.settle();
    let record = world.container(&id);
    assert_eq!((record.state, record.generation, record.restarts), (ContainerState::Ready, Generation(1), 0));
}

#[test]
fn a_taken_port_at_a_restart_is_one_restart() {
    let (mut world, id) = running(WEB);
    world.exit(&id, Exit::Signal(9));
    world.machine.foreign.insert(20_000);
    world.settle();
    let record = world.container(&id);
    assert_eq!((record.generation, record.restarts), (Generation(2), 1));
}

#[test]
fn where_every_port_is_taken_the_claim_waits_with_a_reason_and_goes_on_when_one_is_free() {
    let settings = Settings { port_range: PortRange { first: 20_000, last: 20_000 }, ..Settings::default() };
    let mut world = World::with(settings, 1_000);
    world.machine.foreign.insert(20_000);
    world.apply(WEB);
    world.answer_all();
    let id = world.ids("web")[0].clone();
    let why = "cannot start: no free port in 20000-20000: 0 held, 0 resting, 1 taken by other programs";
    assert_eq!(world.unit("web").held, format!("{id} {why}"));
    world.machine.foreign.clear();
    world.settle();
    assert_eq!((world.ready("web"), world.unit("web").held.as_str()), (1, ""));
}

#[test]
fn a_fixed_port_that_is_taken_backs_off_and_stays_the_same() {
    let mut world = World::new();
    world.machine.foreign.insert(9_000);
    world.apply(&WEB.replace("ports.http = {}", "ports.http = { fixed = 9000 }"));
    world.answer(0, Answer::Done);
    let record = world.of("web")[0].clone();
    assert!(matches!(record.state, ContainerState::Backoff { .. }), "{}", record.state);
    assert!(record.reason.starts_with("port 9000 is taken; restart 1 in "), "{}", record.reason);
    world.machine.foreign.clear();
    world.settle();
    assert_eq!(port(world.container(&record.id)), Some(9_000));
}

#[test]
fn a_fixed_port_within_the_range_is_not_leased_to_the_same_container_twice() {
    let ports = "ports.main = { fixed = 20000 }\nports.admin = {}";
    let (world, id) = running(&WEB.replace("ports.http = {}", ports));
    let numbers: Vec<u16> = world.container(&id).port_numbers().collect();
    assert_eq!(numbers, [20_000, 20_001]);
}

#[test]
fn an_answer_that_comes_after_the_end_is_no_news() {
    let mut world = World::new();
    world.apply(JOB);
    let id = world.ids("job")[0].clone();
    world.answer(0, Answer::Late);
    world.exit(&id, Exit::Code(1));
    world.answer(0, Answer::Done);
    let record = world.container(&id);
    assert!(matches!(record.state, ContainerState::Backoff { .. }), "{}", record.state);
    assert_eq!(record.handle, None, "a process that has ended is shown");
}

#[test]
fn observations_of_an_older_start_change_nothing() {
    let (mut world, id) = running(JOB);
    crash(&mut world, &id);
    let before = world.container(&id).clone();
    let (container, generation) = (id.clone(), Generation(1));
    let detail = "late".to_owned();
    world.turn(vec![
        Event::Exited { container: container.clone(), generation, exit: Exit::Code(9) },
        Event::Started { container: container.clone(), generation, handle: Handle::default() },
        Event::Probed { container: container.clone(), generation, probe: ProbeKind::Live, ok: false, detail },
        Event::Removed { container: ContainerId::new("job-nobody") },
    ]);
    assert_eq!(*world.container(&id), before);
}

#[test]
fn a_start_that_fails_backs_off_with_its_reason() {
    let mut world = World::new();
    world.apply(JOB);
    world.answer(0, Answer::Fails);
    let record = world.of("job")[0].clone();
    assert!(record.reason.starts_with("no such program; restart 1 in "), "{}", record.reason);
    assert_eq!(record.crashes, 1);
    world.settle();
    assert_eq!(world.ready("job"), 1);
}

#[test]
fn a_port_that_rests_wakes_who_waits_also_after_a_snapshot() {
    let settings = Settings { port_range: PortRange { first: 20_000, last: 20_000 }, ..Settings::default() };
    let mut world = World::with(settings, 1_000);
    let two = format!("{WEB}[maps.prod.units.other]\ncommand = [\"other\"]\nports.main = {{}}\n");
    world.apply(&two);
    world.settle();
    assert_eq!(world.ready("other") + world.ready("web"), 1);
    let (first, second) = if world.ready("web") == 1 { ("web", "other") } else { ("other", "web") };
    world.switch(first, true);
    world.answer_all();
    assert_eq!(world.ids(second).len(), 0, "its port rests");
    world.snapshot();
    world.reopen();
    world.settle();
    assert_eq!(world.ready(second), 1);
}
