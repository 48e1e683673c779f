//! Commands: what they lead to, what they refuse, and that asking again for what is the case leads to nothing.

use crate::command::{Command, Count};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::world::{World, actor, unit_id};

const SHOP: &str = r#"
service = "shop"
quota = { containers = 6 }
[maps.prod.units.web]
command = ["web"]
scale = { min = 1, max = 5, cpu = 0.5 }
[maps.prod.units.job]
command = ["job"]
replicas = 2
"#;

fn world() -> World {
    let mut world = World::new();
    world.apply(SHOP);
    world.settle();
    world
}

fn asks(world: &World, command: &Command) -> Vec<Event> {
    world.state.command(command, &actor()).expect("it is not refused").events
}

fn refused(world: &World, command: &Command) -> Error {
    world.state.command(command, &actor()).expect_err("it is refused")
}

fn scale(unit: &str, count: Count) -> Command {
    Command::Scale { unit: unit.into(), count }
}

fn switch(object: &str, stopped: bool) -> Command {
    Command::Switch { object: object.into(), stopped }
}

fn restart(object: &str) -> Command {
    Command::Restart { object: object.into() }
}

fn remove(object: &str) -> Command {
    Command::Remove { object: object.into() }
}

#[test]
fn a_count_beyond_the_units_limits_is_refused_with_the_limits() {
    let world = world();
    for count in [Count::Exactly(0), Count::Exactly(6), Count::More(5), Count::Fewer(1), Count::More(u32::MAX)] {
        let error = refused(&world, &scale("web", count));
        assert_eq!(*error.kind(), ErrorKind::Refused, "{count:?}");
        assert!(error.message().starts_with("shop/prod/web may have 1 to 5 containers, not "), "{error}");
    }
}

#[test]
fn a_count_beyond_the_quota_is_refused_with_what_is_left() {
    let world = world();
    let error = refused(&world, &scale("web", Count::Exactly(5)));
    assert_eq!(*error.kind(), ErrorKind::Refused);
    let text = "the quota of service shop allows 6 containers; other units have 2, so shop/prod/web may have 4";
    assert_eq!(error.message(), text);
    assert_eq!(asks(&world, &scale("web", Count::Exactly(4))).len(), 1);
}

#[test]
fn fewer_containers_are_allowed_also_above_a_quota_that_was_lowered() {
    let mut world = world();
    world.scale("web", 4).expect("there is room");
    world.apply(&SHOP.replace("containers = 6", "containers = 4"));
    assert_eq!(asks(&world, &scale("web", Count::Fewer(1))).len(), 1, "5 of 4 are better than 6 of 4");
    assert_eq!(*refused(&world, &scale("web", Count::More(1))).kind(), ErrorKind::Refused);
}

#[test]
fn counts_are_set_extended_and_reduced() {
    let mut world = world();
    for (count, expected) in [(Count::Exactly(3), 3), (Count::More(1), 4), (Count::Fewer(2), 2)] {
        let command = scale("web", count);
        let events = asks(&world, &command);
        let (unit, actor) = (unit_id("prod", "web"), "tester".into());
        assert_eq!(events, [Event::Scaled { unit, desired: expected, actor }]);
        world.command(&command).expect("it was not refused before");
    }
}

#[test]
fn asking_again_for_what_is_the_case_leads_to_nothing() {
    let mut world = world();
    let commands = [scale("web", Count::Exactly(2)), switch("job", true), restart("web"), remove("job"), Command::Down];
    for command in commands {
        assert_ne!(asks(&world, &command), [], "{command:?}");
        world.command(&command).expect("it is not refused");
        assert_eq!(asks(&world, &command), [], "{command:?} again");
    }
    assert_eq!(asks(&World::new(), &Command::Down), []);
    let mut world = World::new();
    world.apply(SHOP);
    assert_eq!(world.apply(SHOP), []);
}

#[test]
fn stop_and_start_keep_the_count() {
    let mut world = world();
    world.switch("prod", true);
    world.settle();
    assert!(world.state.containers.is_empty());
    assert_eq!(world.unit("job").desired, 2);
    world.switch("prod", false);
    world.settle();
    assert_eq!((world.ready("job"), world.ready("web")), (2, 1));
}

#[test]
fn a_restart_replaces_a_map_a_unit_or_one_container_each_once() {
    for (object, replaced) in [("prod", 3), ("job", 2), ("web", 1)] {
        let mut world = world();
        let before = world.state.containers.clone();
        let asked = asks(&world, &restart(object));
        assert_eq!(asked.len(), replaced, "{object}");
        world.restart(object);
        world.settle();
        let kept = before.keys().filter(|id| world.state.containers.contains_key(id)).count();
        assert_eq!(kept, 3 - replaced, "{object}");
        assert_eq!((world.ready("job"), world.ready("web")), (2, 1));
    }
    let mut world = world();
    let ids = world.ids("job");
    world.restart(ids[0].as_str());
    world.settle();
    let now = world.ids("job");
    assert_eq!((now.len(), now.contains(&ids[0]), now.contains(&ids[1])), (2, false, true));
}

#[test]
fn a_removed_container_is_replaced_and_a_removed_unit_is_not() {
    let mut world = world();
    let ids = world.ids("job");
    world.remove(ids[0].as_str());
    world.settle();
    assert_eq!((world.ready("job"), world.ids("job").contains(&ids[0])), (2, false));
    world.remove("job");
    world.settle();
    assert!(world.state.unit_named("job").is_err());
    assert_eq!(world.ready("web"), 1);
}

#[test]
fn a_unit_that_is_being_removed_is_not_scaled() {
    let mut world = world();
    world.remove("job");
    let error = refused(&world, &scale("job", Count::Exactly(3)));
    assert_eq!(*error.kind(), ErrorKind::Conflict);
    assert_eq!(error.message(), "shop/prod/job is being removed: apply its manifest again to have it back");
}

#[test]
fn what_is_no_unit_is_neither_stopped_nor_started_and_a_server_is_not_restarted_or_removed() {
    let world = world();
    let container = world.ids("web")[0].to_string();
    for command in [switch(&container, true), switch("here", true), restart("here"), remove("here")] {
        assert_eq!(*refused(&world, &command).kind(), ErrorKind::InvalidConfig, "{command:?}");
    }
    for command in [scale("nope", Count::More(1)), switch("nope", true), restart("nope"), remove("nope")] {
        assert_eq!(*refused(&world, &command).kind(), ErrorKind::NotFound, "{command:?}");
    }
}
