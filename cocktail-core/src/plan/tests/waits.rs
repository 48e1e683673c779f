//! Decisions that are not taken: each has a reason with numbers, is told once, and ends when it can.

use std::time::Duration;

use crate::command::Command;
use crate::contract::ProbeKind;
use crate::event::Event;
use crate::id::ContainerId;
use crate::plan;
use crate::ports::PortRange;
use crate::server::ServerState;
use crate::settings::Settings;
use crate::world::{World, actor, service, unit_id};

fn shop(units: &[(&str, u32, &str)]) -> String {
    let mut text = "service = \"shop\"\n".to_owned();
    for (unit, count, keys) in units {
        text.push_str(&format!("[maps.prod.units.{unit}]\ncommand = [\"{unit}\"]\nreplicas = {count}\n{keys}\n"));
    }
    text
}

fn held(events: &[Event]) -> Vec<&str> {
    let reasons = events.iter().filter_map(|event| match event {
        Event::Held { because, .. } => Some(because.as_str()),
        _ => None,
    });
    reasons.collect()
}

/// Ends that the Manager decides by itself.
fn stops(events: &[Event]) -> usize {
    let stop = |event: &&Event| matches!(event, Event::Intended { operation } if operation.kind.as_str() == "stop");
    events.iter().filter(stop).count()
}

fn ready_world(settings: Settings, units: &[(&str, u32, &str)]) -> World {
    let mut world = World::with(settings, 64_000);
    world.apply(&shop(units));
    world.settle();
    world
}

fn unwell(world: &mut World, ids: &[ContainerId]) -> Vec<Event> {
    ids.iter().flat_map(|id| world.probe(id, ProbeKind::Live, false)).collect()
}

#[test]
fn a_unit_without_room_says_how_much_is_left_once_and_goes_on_when_there_is_room() {
    let mut world = World::with(Settings::default(), 1_000);
    let events = world.apply(&shop(&[("mass", 3, "resources = { cpu = 0.4 }")]));
    let why = "no room on the only server: it has 200m of 1000m cpu left, the container reserves 400m";
    assert_eq!(held(&events), [why]);
    assert_eq!(world.unit("mass").held, why);
    world.settle();
    assert_eq!(world.ready("mass"), 2);
    // Other numbers and other turns are no other reason.
    world.apply(&shop(&[("mass", 3, "resources = { cpu = 0.4 }"), ("job", 1, "resources = { cpu = 0.1 }")]));
    let later = world.pass(Duration::from_secs(60));
    assert_eq!(held(&later), Vec::<&str>::new());
    assert_eq!(world.unit("mass").held, why);
    let events = world.resize(2_000, ServerState::Ready);
    assert_eq!(held(&events), [""], "it is taken back");
    world.settle();
    assert_eq!((world.ready("mass"), world.unit("mass").held.as_str()), (3, ""));
}

#[test]
fn a_server_that_takes_no_containers_is_a_reason() {
    let mut world = World::new();
    world.resize(64_000, ServerState::Cordoned);
    let events = world.apply(&shop(&[("job", 1, "")]));
    assert_eq!(held(&events), ["no room on the only server: it is cordoned"]);
    let views = world.state.why("job").expect("the unit exists");
    let wait = views.iter().find(|view| view.decision == "wait").expect("the wait is recorded");
    assert_eq!(wait.considered[0].option, "here");
    world.resize(64_000, ServerState::Ready);
    world.settle();
    assert_eq!(world.ready("job"), 1);
}

#[test]
fn a_unit_without_ports_says_how_many_are_used() {
    let settings = Settings { port_range: PortRange { first: 20_000, last: 20_002 }, ..Settings::default() };
    let mut world = World::with(settings, 64_000);
    let events = world.apply(&shop(&[("web", 2, "ports.http = {}\nports.admin = {}")]));
    let why = "no free port in 20000-20002: 2 held, 0 resting, 0 taken by other programs";
    assert_eq!(held(&events), [why]);
    let looked_at = events.iter().find_map(|event| match event {
        Event::Held { considered, .. } => Some(considered.iter().map(|it| it.rejected_because.as_str()).collect()),
        _ => None,
    });
    assert_eq!(looked_at, Some(vec![why]), "the server that was looked at is named");
}

#[test]
fn a_quota_of_cpu_or_memory_is_used_up_to_the_last_and_no_further() {
    for (quota, resources, why) in [
        ("cpu = 1", "cpu = 0.5", "1000m cpu, and one more makes 1500m"),
        ("memory = \"1KiB\"", "memory = \"512B\"", "1024 bytes, and one more makes 1536"),
    ] {
        let file = |map: &str, count: u32| {
            format!(
                "service = \"shop\"\nquota = {{ {quota} }}\n[maps.{map}.units.{map}]\ncommand = [\"x\"]\n\
                 resources = {{ {resources} }}\nreplicas = {count}\n"
            )
        };
        let mut world = World::new();
        world.apply(&file("one", 1));
        let events = world.apply(&file("two", 2));
        assert_eq!(held(&events), [format!("the quota of service shop allows {why}")]);
        world.settle();
        assert_eq!(world.ready("one/one") + world.ready("two/two"), 2);
    }
}

#[test]
fn units_that_keep_apart_are_never_on_one_server_and_say_so() {
    let mut world = World::new();
    let apart = |other: &str| format!("place.affinity.apart = [\"{other}\"]");
    let events = world.apply(&shop(&[("web", 2, &apart("web")), ("other", 1, &apart("web"))]));
    let why = held(&events);
    assert!(why.iter().any(|why| why.contains("other is there, which the unit keeps away from")), "{why:?}");
    world.settle();
    assert_eq!(world.ready("web") + world.ready("other"), 1);
}

#[test]
fn a_fixed_port_whose_socket_is_handed_over_is_given_to_several_in_one_pass() {
    let mut world = World::new();
    let events = world.apply(&shop(&[("pair", 2, "ports.main = { fixed = 9000, inherit = true }")]));
    assert_eq!(held(&events), Vec::<&str>::new());
}

#[test]
fn a_unit_over_the_quota_says_what_is_allowed_and_a_higher_one_in_another_file_frees_it() {
    let file = |map: &str, quota: u32, count: u32| {
        format!(
            "service = \"shop\"\nquota = {{ containers = {quota} }}\n[maps.{map}.units.{map}]\ncommand = [\"x\"]\n\
             replicas = {count}\n"
        )
    };
    let mut world = World::new();
    world.apply(&file("one", 3, 2));
    let events = world.apply(&file("two", 3, 2));
    assert_eq!(held(&events), ["the quota of service shop allows 3 containers, and there are 3"]);
    world.settle();
    assert_eq!(world.ready("two/two"), 1);
    world.apply(&file("one", 4, 2));
    world.settle();
    assert_eq!(world.ready("two/two"), 2);
}

#[test]
fn a_container_that_goes_makes_room_for_another_unit() {
    let mut world = World::with(Settings::default(), 1_000);
    let units = [("first", 2, "resources = { cpu = 0.5 }"), ("second", 1, "resources = { cpu = 0.5 }")];
    world.apply(&shop(&units));
    world.settle();
    assert_eq!((world.ready("first"), world.ready("second")), (2, 0));
    world.scale("first", 1).expect("it is not refused");
    world.settle();
    assert_eq!((world.ready("second"), world.unit("second").held.as_str()), (1, ""));
}

#[test]
fn when_most_containers_turn_unwell_nothing_is_ended_until_fewer_are() {
    let mut world = ready_world(Settings::default(), &[("web", 8, "ports.http = {}\nlive = { tcp = true }")]);
    let ids = world.ids("web");
    let events: Vec<Event> = {
        let probes = ids[..6].iter().map(|id| Event::Probed {
            container: id.clone(),
            generation: world.container(id).generation,
            probe: ProbeKind::Live,
            ok: false,
            detail: "connection refused".into(),
        });
        probes.collect()
    };
    let events = world.turn(events);
    assert_eq!(stops(&events), 0, "something other than the containers is wrong");
    let frozen = world.state.frozen.clone().expect("it is frozen");
    let text = "6 of 8 running containers fail their liveness probes at once: none is ended for that until fewer do";
    assert_eq!(frozen, text);
    assert_eq!(world.unit("web").held, format!("{} is not ended: {text}", first_of(&ids[..6])));
    let views = world.state.why("web").expect("the unit exists");
    assert!(views.iter().any(|view| view.decision == "freeze" && view.because == text));
    // Ready containers stay in use, and commands are still done.
    assert_eq!(world.ready("web"), 8);
    world.reopen();
    assert_eq!(world.state.frozen.as_deref(), Some(text), "a restart does not thaw");
    for id in &ids[..3] {
        world.probe(id, ProbeKind::Live, true);
    }
    assert_eq!(world.state.frozen, None);
    assert_eq!(world.state.operations.len(), 3, "those that are unwell after all are ended");
    world.settle();
    assert_eq!((world.ready("web"), world.unit("web").held.as_str()), (8, ""));
}

#[test]
fn a_freeze_also_follows_when_the_healthy_ones_are_taken_away() {
    let live = "ports.http = {}\nlive = { tcp = true }";
    let settings = Settings { budget_deletions: 0, ..Settings::default() };
    let mut world = ready_world(settings, &[("bad", 4, live), ("good", 8, "")]);
    let ids = world.ids("bad");
    unwell(&mut world, &ids);
    assert_eq!(world.state.frozen, None, "4 of 12 are not most");
    world.scale("good", 1).expect("it is not refused");
    world.answer_all();
    assert!(world.state.frozen.is_some(), "4 of 5 are");
}

#[test]
fn few_unwell_containers_are_ended_one_by_one_and_restarted_in_place() {
    let mut world = ready_world(Settings::default(), &[("web", 3, "ports.http = {}\nlive = { tcp = true }")]);
    let ids = world.ids("web");
    let events = unwell(&mut world, &ids);
    assert_eq!(stops(&events), 3, "3 are fewer than what is taken for a fault elsewhere");
    world.answer_all();
    let record = world.container(&ids[0]);
    assert!(record.reason.starts_with("liveness probe failed: connection refused; restart 1 in "), "{}", record.reason);
    world.settle();
    assert_eq!(world.ids("web"), ids);
}

#[test]
fn the_budget_of_own_ends_holds_and_frees_itself_with_time() {
    for reopened in [false, true] {
        budget(reopened);
    }
}

/// Three are unwell and two may be ended; `reopened` says that the Manager is another one when the time has passed.
fn budget(reopened: bool) {
    let settings = Settings { budget_deletions: 2, ..Settings::default() };
    let live = "ports.http = {}\nlive = { tcp = true }";
    let mut world = ready_world(settings, &[("web", 3, live), ("rest", 9, "")]);
    let ids = world.ids("web");
    let events = unwell(&mut world, &ids);
    assert_eq!(stops(&events), 2);
    let why = "is not ended yet: the manager ended 2 containers by itself within 60s, which is its budget";
    assert_eq!(held(&events), [format!("{} {why}", ids[2])]);
    if reopened {
        world.reopen();
    }
    assert_eq!(held(&world.pass(Duration::from_secs(59))), Vec::<&str>::new(), "it is told once");
    let at = world.state.wake_at().expect("the window ends");
    let events = world.pass(at - world.now());
    assert_eq!((stops(&events), held(&events)), (1, vec![""]));
    world.settle();
    assert_eq!(world.ready("web"), 3);
}

#[test]
fn what_users_ask_for_needs_no_budget() {
    let settings = Settings { budget_deletions: 0, ..Settings::default() };
    let mut world = ready_world(settings, &[("job", 5, "")]);
    world.restart("job");
    world.settle();
    world.scale("job", 1).expect("it is not refused");
    world.settle();
    assert_eq!(world.ready("job"), 1);
}

#[test]
fn a_container_that_never_becomes_ready_is_ended_at_its_deadline_with_what_was_seen() {
    let keys = "ports.http = {}\nupdate = { progress = \"5s\" }";
    let mut world = World::new();
    world.apply(&shop(&[("web", 1, keys)]));
    world.answer_all();
    let id = world.ids("web")[0].clone();
    world.probe(&id, ProbeKind::Ready, false);
    assert_eq!(stops(&world.pass(Duration::from_millis(4_999))), 0);
    assert_eq!(stops(&world.pass(Duration::from_millis(1))), 1);
    world.answer_all();
    let reason = &world.container(&id).reason;
    assert!(reason.starts_with("not ready within 5s: connection refused; restart 1 in "), "{reason}");
}

#[test]
fn what_waits_is_known_again_after_a_restart() {
    let mut world = World::with(Settings::default(), 1_000);
    world.apply(&shop(&[("mass", 3, "resources = { cpu = 0.5 }")]));
    world.snapshot();
    world.reopen();
    assert!(world.unit("mass").held.starts_with("no room"));
    assert!(world.state.units.contains_key(&unit_id("prod", "mass")));
    world.scale("mass", 2).expect("it is not refused");
    assert_eq!(world.unit("mass").held, "");
}

fn first_of(ids: &[ContainerId]) -> &ContainerId {
    ids.iter().min().expect("there is one")
}

#[test]
fn as_many_decisions_are_kept_as_the_settings_say() {
    let settings = Settings { why_per_object: 3, ..Settings::default() };
    let mut world = ready_world(settings, &[("job", 1, "")]);
    for count in [2, 1, 3, 1, 4, 2] {
        world.scale("job", count).expect("it is not refused");
        world.settle();
    }
    assert_eq!(world.unit("job").why.iter().count(), 3);
    assert!(world.state.containers.values().all(|record| record.why.iter().count() <= 3));
}

#[test]
fn what_is_beyond_the_share_of_a_turn_is_made_in_the_next_ones_and_waits_for_nothing() {
    let mut world = World::new();
    world.claims = 3;
    let events = world.apply(&shop(&[("web", 4, "ports.http = {}"), ("job", 4, "")]));
    let claimed = |events: &[Event]| events.iter().filter(|event| matches!(event, Event::Claimed { .. })).count();
    assert_eq!((claimed(&events), held(&events)), (8, vec![]));
    let turns: Vec<usize> = world.turns().map(|turn| claimed(&turn.events)).filter(|count| *count > 0).collect();
    assert_eq!(turns, [3, 3, 2]);
    world.settle();
    assert_eq!((world.ready("web"), world.ready("job")), (4, 4));
}

#[test]
fn very_many_units_without_room_all_wait_however_few_containers_a_turn_may_make() {
    let mut world = World::with(Settings::default(), 1_000);
    let names: Vec<String> = (0..200).map(|number| format!("u{number}")).collect();
    let units: Vec<_> = names.iter().map(|name| (name.as_str(), 1, "resources = { cpu = 2 }")).collect();
    decide_few(&mut world, &shop(&units), 1);
    let forgotten = world.state.units.iter().filter(|(_, unit)| unit.held.is_empty()).count();
    assert_eq!((forgotten, world.state.take_anomalies()), (0, Vec::new()));
}

#[test]
fn who_found_no_room_is_held_also_while_others_use_up_what_a_turn_may_make() {
    let mut world = World::with(Settings::default(), 1_000);
    const BIG: (&str, u32, &str) = ("zbig", 1, "resources = { cpu = 2 }");
    world.apply(&shop(&[BIG]));
    let reason = world.state.units[&unit_id("prod", "zbig")].held.clone();
    let decided = decide_few(&mut world, &shop(&[BIG, ("web", 5, "")]), 2);
    assert!(world.state.is_unfinished() && world.ids("web").len() == 2);
    assert_eq!((held(&decided), &world.state.units[&unit_id("prod", "zbig")].held), (Vec::new(), &reason));
    assert_eq!(world.state.wanting().count(), 1, "what it misses is still wanted");
}

/// Applies a manifest and decides a turn that may make so many containers.
fn decide_few(world: &mut World, text: &str, claims: usize) -> Vec<Event> {
    let command = Command::Apply(vec![service(text)]);
    let commanded = world.state.command(&command, &actor()).unwrap();
    commanded.events.iter().for_each(|event| world.state.apply(event));
    plan::decide_first(&mut world.state, claims)
}
