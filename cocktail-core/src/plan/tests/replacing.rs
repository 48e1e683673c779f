//! Extend first, then destroy; and the declared exceptions, which end nothing that could not be replaced.

use std::collections::BTreeSet;

use crate::container::ContainerState;
use crate::event::{Event, Soft};
use crate::id::Revision;
use crate::rollout::RolloutState;
use crate::settings::Settings;
use crate::world::{Answer, World};

fn unit(count: u32, version: u32, keys: &str) -> String {
    format!(
        "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"web\"]\nreplicas = {count}\n\
         env = {{ V = \"{version}\" }}\n{keys}\n"
    )
}

fn slots(world: &World) -> BTreeSet<u32> {
    world.of("web").iter().filter_map(|record| record.slot).collect()
}

fn drains(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::DrainBegun { .. })).count()
}

#[test]
fn a_rollout_has_one_more_ready_before_one_goes() {
    let mut world = World::new();
    let keys = "ports.http = {}\nupdate = { monitor = \"0s\" }";
    world.apply(&unit(3, 1, keys));
    world.settle();
    world.apply(&unit(3, 2, keys));
    let mut least = usize::MAX;
    let mut most = 0;
    while world.machine.open_calls() > 0 || world.of("web").iter().any(|record| record.state == ContainerState::Loading)
    {
        world.answer(0, Answer::Done);
        let loading: Vec<_> = world
            .of("web")
            .iter()
            .filter(|record| record.state == ContainerState::Loading)
            .map(|r| r.id.clone())
            .collect();
        for id in loading {
            world.probe(&id, crate::contract::ProbeKind::Ready, true);
        }
        least = least.min(world.ready("web"));
        let there = world.of("web").iter().filter(|record| record.state != ContainerState::Stopped).count();
        most = most.max(there);
    }
    assert_eq!((least, most), (3, 4));
    assert!(world.of("web").iter().all(|record| record.revision == world.unit("web").revision));
}

#[test]
fn a_replacement_that_never_becomes_ready_leaves_the_old_ones_alone() {
    let mut world = World::new();
    let keys = "ports.http = {}";
    world.apply(&unit(3, 1, keys));
    world.settle();
    let old = world.ids("web");
    world.apply(&unit(3, 2, keys));
    for _ in 0..5 {
        world.answer_all();
        if let Some(at) = world.state.wake_at() {
            world.pass(at - world.now());
        }
    }
    assert_eq!(world.ready("web"), 3);
    assert!(old.iter().all(|id| world.container(id).state == ContainerState::Ready));
    let rollout = world.unit("web").rollout.clone().expect("there was one");
    assert_eq!((rollout.state, world.unit("web").revision), (RolloutState::RolledBack, Revision(1)));
}

#[test]
fn a_routed_container_is_stopped_when_its_connections_have_ended_or_their_time_is_over() {
    for by_time in [true, false] {
        let mut world = World::new();
        world.apply(&unit(1, 1, "ports.http = { service = 8080 }"));
        world.settle();
        let id = world.ids("web")[0].clone();
        world.scale("web", 0).expect("it is not refused");
        assert_eq!(world.machine.open_calls(), 0, "connections are still open");
        if by_time {
            world.pass(Settings::default().drain);
            assert!(world.state.operations.values().any(|open| open.because.contains("did not end within 5s")));
        } else {
            world.note(&Soft::Drained { container: id });
        }
        assert_eq!(world.machine.open_calls(), 1, "{}", world.describe());
    }
}

#[test]
fn an_exclusive_volume_follows_from_the_old_one_to_its_replacement() {
    let mut world = World::new();
    let keys = "volumes.data = { mount = \"data\", kind = \"exclusive\" }";
    world.apply(&unit(3, 1, keys));
    world.settle();
    assert_eq!(slots(&world), BTreeSet::from([0, 1, 2]));
    world.apply(&unit(3, 2, keys));
    world.settle();
    assert_eq!(slots(&world), BTreeSet::from([0, 1, 2]), "the data stays where it was");
}

#[test]
fn the_first_exclusive_volumes_stay_in_use_when_fewer_are_wanted() {
    let mut world = World::new();
    let keys = "volumes.data = { mount = \"data\", kind = \"exclusive\" }";
    world.apply(&unit(3, 1, keys));
    world.settle();
    // The youngest container now has the first volume.
    let first = world.of("web").iter().find(|record| record.slot == Some(0)).expect("it is there").id.clone();
    world.restart(first.as_str());
    world.settle();
    world.scale("web", 1).expect("it is not refused");
    world.settle();
    assert_eq!(slots(&world), BTreeSet::from([0]));
}

#[test]
fn a_fixed_port_is_handed_over_with_the_old_one_going_first() {
    let mut world = World::new();
    let keys = "ports.main = { fixed = 9000 }";
    world.apply(&unit(1, 1, keys));
    world.settle();
    let old = world.ids("web");
    let events = world.apply(&unit(1, 2, keys));
    assert_eq!(drains(&events), 1);
    let because = "replaced by revision 2; it goes first, since a fixed port has one holder at a time";
    assert_eq!(world.container(&old[0]).reason, because);
    world.settle();
    assert_eq!(world.ready("web"), 1);
    assert_ne!(world.ids("web"), old);
}

#[test]
fn an_old_one_does_not_go_first_for_a_replacement_that_could_not_run() {
    let mut world = World::with(Settings::default(), 1_000);
    let exclusive = "volumes.data = { mount = \"data\", kind = \"exclusive\" }";
    world.apply(&unit(2, 1, &format!("{exclusive}\nresources = {{ cpu = 0.2 }}")));
    world.settle();
    world.apply(&unit(2, 2, &format!("{exclusive}\nresources = {{ cpu = 5 }}")));
    assert_eq!(world.ready("web"), 2, "{}", world.describe());
    let why = "no room on the only server: it has 800m of 1000m cpu left, the container reserves 5000m";
    assert_eq!(world.unit("web").held, why);
}

#[test]
fn one_that_goes_first_leaves_its_place_in_the_quota_to_its_replacement() {
    let mut world = World::new();
    let keys = "ports.main = { fixed = 9000 }";
    let full = |version: u32| unit(1, version, keys).replace("[maps", "quota = { containers = 1 }\n[maps");
    world.apply(&full(1));
    world.settle();
    let events = world.apply(&full(2));
    assert_eq!((drains(&events), world.unit("web").held.as_str()), (1, ""));
    world.settle();
    assert_eq!((world.ready("web"), world.of("web")[0].revision), (1, Revision(2)));
}

#[test]
fn a_new_container_says_which_it_replaces_and_why() {
    let mut world = World::new();
    world.apply(&unit(1, 1, ""));
    world.settle();
    world.restart("web");
    world.apply(&unit(1, 2, ""));
    world.settle();
    let events = world.turns().flat_map(|turn| &turn.events);
    let claimed: Vec<&str> = events
        .filter_map(|event| match event {
            Event::Claimed { because, .. } => Some(because.as_str()),
            _ => None,
        })
        .collect();
    let restarted = "replaces one: tester asked for a restart";
    assert_eq!(claimed, ["1 of 1 wanted", restarted, "revision 2 replaces 1: 1 of 1"]);
}

#[test]
fn where_there_is_no_room_replace_gives_up_one_at_a_time_and_wait_none() {
    for (no_room, replaced) in [("replace", true), ("wait", false)] {
        let mut world = World::with(Settings::default(), 1_000);
        let keys = format!("resources = {{ cpu = 0.5 }}\nupdate = {{ no_room = \"{no_room}\" }}");
        world.apply(&unit(2, 1, &keys));
        world.settle();
        let events = world.apply(&unit(2, 2, &keys));
        assert_eq!(drains(&events), usize::from(replaced));
        assert!(!world.unit("web").held.is_empty(), "what waits has a reason");
        world.settle();
        assert_eq!(world.ready("web"), 2);
        let revision = Revision(if replaced { 2 } else { 1 });
        assert!(world.of("web").iter().all(|record| record.revision == revision), "{}", world.describe());
        let rollout = world.unit("web").rollout.clone().expect("there was one");
        let (state, because) = match replaced {
            true => (RolloutState::Completed, "all 2 containers are of revision 2"),
            false => (RolloutState::RolledBack, "all 2 containers are of revision 1 again"),
        };
        assert!(rollout.state == state && rollout.reason.ends_with(because), "{rollout:?}");
        let outcome = &world.unit("web").history[1].outcome;
        assert_eq!(outcome.starts_with("failed: no progress within 60s: no room on the only server"), !replaced);
    }
}

#[test]
fn replace_does_not_end_everything_for_room_that_ending_cannot_make() {
    let mut world = World::with(Settings::default(), 1_000);
    let keys = |cpu: &str| format!("resources = {{ cpu = {cpu} }}\nupdate = {{ no_room = \"replace\" }}");
    world.apply(&unit(3, 1, &keys("0.3")));
    world.settle();
    world.apply(&unit(3, 2, &keys("2")));
    assert_eq!(world.ready("web"), 3, "{}", world.describe());
    assert!(world.unit("web").held.contains("the container reserves 2000m"));
    world.settle();
    assert_eq!((world.ready("web"), world.unit("web").revision), (3, Revision(1)), "{}", world.describe());
}

#[test]
fn a_manager_that_ends_takes_its_containers_along_and_keeps_what_was_asked_for() {
    let mut world = World::new();
    world.apply(&unit(2, 1, ""));
    world.settle();
    world.note(&Soft::Halt);
    world.answer_all();
    assert!(world.state.containers.is_empty());
    world.reopen();
    world.settle();
    assert_eq!(world.ready("web"), 2);
}
