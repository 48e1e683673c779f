//! Servers that fall silent, are lost and come back: what becomes of their containers, by the policy of the Unit.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::command::Command;
use crate::container::ContainerState as S;
use crate::contract::{
    Handle, Listing, Observation, ProbeKind, RearrangeOptions, ServerListing, ServerObservation, Sighting,
};
use crate::event::Event;
use crate::fleet::FleetEvent;
use crate::id::{ContainerId, ServerId};
use crate::operation::OperationState;
use crate::server::{ServerState, ServerStep};
use crate::session::{Record, Standing};
use crate::spec::Resources;
use crate::time::WallTime;
use crate::world::{World, actor, server_id};

const MINUTE: Duration = Duration::from_secs(60);

fn web(more: &str) -> String {
    format!(
        "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"web\"]\nreplicas = 3\nports.http = {{ service = 8080 }}\n\
         resources = {{ cpu = 1 }}\nupdate = {{ monitor = \"0s\" }}\n{more}"
    )
}

fn rack(number: usize) -> ServerId {
    ServerId::new(format!("rack-{number}"))
}

/// So many servers with agents; the one that the world simulates is one of them.
fn world(servers: usize, more: &str) -> World {
    let mut world = World::new();
    world.resize(8_000, ServerState::Ready);
    let template = world.state.servers[&server_id()].clone();
    let mut all = vec![server_id()];
    for number in 1..servers {
        let mut server = template.clone();
        server.id = rack(number);
        (server.containers, server.allocated) = (0, Resources::default());
        world.turn(vec![Event::ServerSeen { server: Box::new(server) }]);
        all.push(rack(number));
    }
    for server in all {
        world.turn(vec![FleetEvent::SessionRecorded { server, record: Box::default() }.into()]);
    }
    world.apply(&web(more));
    world.settle();
    world
}

fn quiet(server: &ServerId) -> Event {
    FleetEvent::Quiet { server: server.clone(), because: "nothing was heard for 10s".into() }.into()
}

fn lost(server: &ServerId) -> Event {
    FleetEvent::Stepped { server: server.clone(), step: ServerStep::Silent, because: "its lease is over".into() }.into()
}

fn joined(world: &World, server: &ServerId) -> Event {
    let known = &world.state.servers[server];
    let (capacity, address) = (known.capacity, known.address);
    FleetEvent::Joined { server: server.clone(), incarnation: "boot".into(), capacity, address }.into()
}

fn on(world: &World, server: &ServerId) -> Vec<ContainerId> {
    world.of("web").iter().filter(|it| it.server == *server).map(|it| it.id.clone()).collect()
}

fn states(world: &World, server: &ServerId) -> Vec<S> {
    on(world, server).iter().map(|id| world.container(id).state).collect()
}

fn backends(world: &World) -> usize {
    world.state.routing_table().routes.iter().map(|route| route.backends.len()).sum()
}

fn because(world: &World) -> String {
    world.unit("web").held.to_string()
}

#[test]
fn a_quiet_server_gets_no_traffic_and_nothing_new_and_loses_nothing() {
    let mut world = world(3, "");
    assert_eq!(states(&world, &rack(1)), [S::Ready], "{}", world.describe());
    let before = world.ids("web");
    world.turn(vec![quiet(&rack(1))]);
    assert_eq!((backends(&world), states(&world, &rack(1))), (2, vec![S::Loading]));
    let view = world.state.server_view(&rack(1)).unwrap();
    assert_eq!((view.state.as_str(), view.reason.as_str()), ("ready", "nothing was heard for 10s"));
    assert_eq!(world.ids("web"), before, "nobody takes its place yet");
    // However long it is silent: when that is too long the session says.
    world.pass(MINUTE * 10);
    assert_eq!(world.ids("web"), before);
    world.scale("web", 6).unwrap();
    assert_eq!(on(&world, &rack(1)).len(), 1, "nothing is placed there\n{}", world.describe());
    // It is heard again, and its probe says that all is well.
    world.turn(vec![FleetEvent::Heard { server: rack(1) }.into()]);
    let id = on(&world, &rack(1)).remove(0);
    assert!(world.container(&id).deadline.is_some(), "it has to become ready like any other");
    world.probe(&id, ProbeKind::Ready, true);
    assert_eq!(states(&world, &rack(1)), [S::Ready]);
}

#[test]
fn what_ran_on_a_lost_server_is_replaced_and_ends_when_that_is_back() {
    let mut world = world(3, "");
    let gone = on(&world, &rack(1)).remove(0);
    world.turn(vec![quiet(&rack(1))]);
    world.turn(vec![lost(&rack(1))]);
    world.settle();
    assert_eq!(world.container(&gone).state, S::Fenced, "{}", world.describe());
    assert_eq!((world.ready("web"), backends(&world)), (3, 3), "{}", world.describe());
    assert_eq!(world.state.session_claims(&rack(1))[&gone].standing, Standing::Fenced);
    assert_eq!(world.state.fenced_on(&rack(1)), std::slice::from_ref(&gone));
    // Nothing is told to it as long as it is away.
    world.pass(MINUTE * 60);
    assert_eq!(world.container(&gone).state, S::Fenced);
    let back = joined(&world, &rack(1));
    world.turn(vec![back]);
    assert_eq!(world.state.servers[&rack(1)].state, ServerState::Ready);
    assert_eq!(world.container(&gone).state, S::Draining, "it ends wherever it is found");
    world.settle();
    assert!(!world.state.containers.contains_key(&gone), "{}", world.describe());
    assert_eq!((world.ready("web"), world.ids("web").len()), (3, 3), "no third copy, and none too few");
}

#[test]
fn a_server_that_is_back_before_anybody_took_the_place_of_what_it_ran_goes_on() {
    let mut world = world(3, "place = { partition = \"wait\" }\n");
    let id = on(&world, &rack(1)).remove(0);
    assert!(world.state.launch(&id).unwrap().outlives_lease);
    world.turn(vec![lost(&rack(1))]);
    world.settle();
    world.pass(MINUTE * 60);
    assert_eq!((world.container(&id).state, world.ids("web").len()), (S::Lost, 3));
    assert!(because(&world).contains("it is waited for until rack-1 is back"), "{}", because(&world));
    let (back, asked) = (joined(&world, &rack(1)), world.now());
    world.turn(vec![back]);
    let generation = world.container(&id).generation;
    let seen = Observation { generation, sighting: Sighting::Running(Handle::default()) };
    let listing = Listing { containers: [(id.clone(), seen)].into(), complete: true, descended: false };
    let found = world.state.found(&rack(1), asked, &listing);
    world.turn(found);
    assert_eq!(world.container(&id).state, S::Loading);
    world.probe(&id, ProbeKind::Ready, true);
    assert_eq!((world.container(&id).generation, world.ready("web")), (generation, 3), "it was not touched");
    assert_eq!(because(&world), "");
}

#[test]
fn what_stops_with_its_server_starts_there_again() {
    let mut world = world(3, "place = { partition = \"stop\" }\n");
    let id = on(&world, &rack(1)).remove(0);
    assert!(!world.state.launch(&id).unwrap().outlives_lease);
    world.turn(vec![lost(&rack(1))]);
    world.vanish(&id);
    world.pass(MINUTE * 60);
    assert_eq!((world.container(&id).state, world.ids("web").len()), (S::Lost, 3));
    let (back, asked) = (joined(&world, &rack(1)), world.now());
    world.turn(vec![back]);
    let nothing = Listing { complete: true, ..Listing::default() };
    // What an incomplete listing does not name may run.
    let unsure = Listing { complete: false, ..Listing::default() };
    assert_eq!(world.state.found(&rack(1), asked, &unsure), []);
    let found = world.state.found(&rack(1), asked, &nothing);
    world.turn(found);
    world.settle();
    assert_eq!((world.container(&id).state, world.container(&id).generation.0), (S::Ready, 2));
}

#[test]
fn where_most_servers_are_lost_at_once_nothing_is_replaced_until_they_are_back_or_given_up() {
    let mut world = world(3, "");
    let (first, second) = (on(&world, &rack(1)).remove(0), on(&world, &rack(2)).remove(0));
    world.turn(vec![quiet(&rack(1)), quiet(&rack(2))]);
    world.turn(vec![lost(&rack(1))]);
    world.turn(vec![lost(&rack(2))]);
    world.settle();
    assert_eq!((world.container(&first).state, world.container(&second).state), (S::Lost, S::Lost));
    assert!(because(&world).contains("2 of 3 servers are silent or lost at once"), "{}", because(&world));
    // One is given up: what ran there is replaced, the other is waited for.
    let options = RearrangeOptions::default();
    world.command(&Command::Rearrange { server: "rack-1".into(), options }).unwrap();
    world.settle();
    assert_eq!((world.container(&first).state, world.container(&second).state), (S::Fenced, S::Lost));
    assert_eq!(world.ready("web"), 2, "{}", world.describe());
    // It is back: one of three is no mass loss, and so the other one is given up as well.
    let back = joined(&world, &rack(1));
    world.turn(vec![back]);
    world.settle();
    assert_eq!(world.container(&second).state, S::Fenced);
    assert_eq!(world.ready("web"), 3, "{}", world.describe());
    assert_eq!(world.state.servers[&rack(1)].state, ServerState::Draining, "it was to be emptied");
}

#[test]
fn data_stays_where_it_is_until_somebody_gives_the_server_up() {
    let mut world = world(3, "volumes.data = { mount = \"data\", kind = \"exclusive\" }\n");
    let id = on(&world, &rack(1)).remove(0);
    world.turn(vec![lost(&rack(1))]);
    world.settle();
    assert_eq!((world.container(&id).state, world.ids("web").len()), (S::Lost, 3));
    assert!(because(&world).contains("its volume is on rack-1, which is lost"), "{}", because(&world));
}

#[test]
fn a_start_that_was_on_its_way_to_a_lost_server_is_over() {
    let mut world = world(3, "");
    world.scale("web", 6).unwrap();
    let starting = on(&world, &rack(1)).into_iter().find(|id| world.container(id).operation.is_some()).unwrap();
    let operation = world.container(&starting).operation.unwrap();
    world.turn(vec![lost(&rack(1))]);
    assert!(!world.state.operations.contains_key(&operation), "nobody waits for it any more");
    let ended = world.state.operation_views().into_iter().find(|view| view.id == operation.0).unwrap();
    assert_eq!(ended.state, OperationState::Resolved.as_str());
    assert_eq!(world.container(&starting).state, S::Fenced);
}

#[test]
fn a_cordoned_server_is_cordoned_when_it_is_back() {
    let mut world = world(3, "");
    world.command(&Command::Cordon { server: "rack-1".into(), cordoned: true }).unwrap();
    world.turn(vec![lost(&rack(1))]);
    let back = joined(&world, &rack(1));
    world.turn(vec![back]);
    assert_eq!(world.state.servers[&rack(1)].state, ServerState::Cordoned);
}

#[test]
fn what_is_fenced_counts_against_no_quota() {
    let mut world = world(3, "");
    world.apply(&web("").replacen("service = \"shop\"", "service = \"shop\"\nquota = { containers = 3 }", 1));
    let lost_one = on(&world, &rack(1)).remove(0);
    world.turn(vec![lost(&rack(1))]);
    world.settle();
    assert_eq!((world.container(&lost_one).state, world.ready("web")), (S::Fenced, 3), "{}", because(&world));
    let record = Record::default();
    assert_eq!(world.state.servers[&rack(1)].tenure.session.as_deref(), Some(&record), "{}", actor());
}

#[test]
fn what_was_told_to_run_on_is_never_replaced_while_it_may_run_whatever_its_unit_wants_by_now() {
    let mut world = world(3, "place = { partition = \"wait\" }\n");
    let id = on(&world, &rack(1)).remove(0);
    // It was started to run on; the Unit changes its mind, and nothing starts anew for that.
    world.apply(&web(""));
    world.turn(vec![lost(&rack(1))]);
    world.settle();
    assert_eq!(world.container(&id).state, S::Lost, "{}", world.describe());
    let options = RearrangeOptions::default();
    world.command(&Command::Rearrange { server: "rack-1".into(), options }).unwrap();
    world.settle();
    assert_eq!((world.container(&id).state, world.ids("web").len()), (S::Lost, 3), "also when it is given up");
}

#[test]
fn what_runs_on_alone_is_not_replaced_because_its_server_was_being_emptied() {
    let mut world = world(3, "place = { partition = \"wait\" }\n");
    let id = on(&world, &rack(1)).remove(0);
    // It finds no room elsewhere, and stays for now.
    for server in ["here", "rack-2"] {
        world.command(&Command::Cordon { server: server.into(), cordoned: true }).unwrap();
    }
    let rearrange = Command::Rearrange { server: "rack-1".into(), options: RearrangeOptions::default() };
    world.command(&rearrange).unwrap();
    world.turn(vec![lost(&rack(1))]);
    for server in ["here", "rack-2"] {
        world.command(&Command::Cordon { server: server.into(), cordoned: false }).unwrap();
    }
    world.settle();
    assert_eq!((world.container(&id).state, world.ids("web").len()), (S::Lost, 3), "{}", world.describe());
}

#[test]
fn a_start_that_never_arrived_is_over_when_the_server_is_back_with_an_earlier_one() {
    let mut world = world(3, "place = { partition = \"stop\" }\n");
    let id = on(&world, &rack(1)).remove(0);
    world.exit(&id, crate::contract::Exit::Code(1));
    world.pass(MINUTE);
    assert_eq!(world.container(&id).generation.0, 2, "{}", world.describe());
    world.turn(vec![lost(&rack(1))]);
    assert_eq!(world.container(&id).state, S::Lost);
    let (back, asked) = (joined(&world, &rack(1)), world.now());
    world.turn(vec![back]);
    let seen = Observation {
        generation: crate::id::Generation(1),
        sighting: Sighting::Exited(crate::contract::Exit::Code(1)),
    };
    let listing = Listing { containers: [(id.clone(), seen)].into(), complete: true, descended: false };
    let found = world.state.found(&rack(1), asked, &listing);
    assert_eq!(found.len(), 1);
    world.turn(found);
    assert!(matches!(world.container(&id).state, S::Backoff { .. }), "{}", world.describe());
}

/// What follows when the provider names these at a Manager's start.
fn named(world: &World, servers: &[ServerId]) -> Vec<Event> {
    let seen = |server: &ServerId| ServerObservation {
        server: server.clone(),
        provider_id: server.to_string(),
        incarnation: String::new(),
        capacity: Resources::default(),
        zone: None,
        offering: "static".into(),
        address: Ipv4Addr::LOCALHOST.into(),
        owner: None,
        labels: BTreeMap::new(),
    };
    let listing = ServerListing { servers: servers.iter().map(seen).collect(), complete: true, as_of: WallTime(0) };
    world.state.named(&world.state.servers[&server_id()].provider, &listing)
}

#[test]
fn a_machine_that_is_named_no_longer_is_emptied_and_forgotten() {
    let mut world = world(3, "");
    let all = [server_id(), rack(1), rack(2)];
    assert_eq!(named(&world, &all), [], "nothing follows from what is as it was");
    let events = named(&world, &[server_id(), rack(2)]);
    world.turn(events);
    world.settle();
    assert!(!world.state.servers.contains_key(&rack(1)), "{}", world.describe());
    assert_eq!((world.ready("web"), world.ids("web").len()), (3, 3));
}

#[test]
fn a_machine_that_burned_is_forgotten_with_what_was_replaced_and_only_then() {
    let mut world = world(3, "");
    world.turn(vec![lost(&rack(1))]);
    world.settle();
    assert_eq!(states(&world, &rack(1)), [S::Fenced]);
    let events = named(&world, &[server_id(), rack(2)]);
    world.turn(events);
    world.settle();
    assert!(!world.state.servers.contains_key(&rack(1)), "{}", world.describe());
    assert_eq!((world.ready("web"), world.ids("web").len()), (3, 3));
}

#[test]
fn a_machine_on_which_something_may_run_alone_is_not_forgotten() {
    let mut world = world(3, "place = { partition = \"wait\" }\n");
    world.turn(vec![lost(&rack(1))]);
    let events = named(&world, &[server_id(), rack(2)]);
    world.turn(events);
    world.settle();
    world.pass(MINUTE * 60);
    assert_eq!(states(&world, &rack(1)), [S::Lost], "{}", world.describe());
}

#[test]
fn a_machine_that_is_named_again_takes_containers_again() {
    let mut world = world(2, "");
    let here = on(&world, &rack(1)).len();
    let events = named(&world, &[server_id()]);
    world.turn(events);
    assert_eq!(world.state.servers[&rack(1)].state, ServerState::Draining, "{}", world.describe());
    let events = named(&world, &[server_id(), rack(1)]);
    world.turn(events);
    world.settle();
    assert_eq!(world.state.servers[&rack(1)].state, ServerState::Ready, "{}", world.describe());
    world.scale("web", 8).unwrap();
    world.settle();
    assert!(on(&world, &rack(1)).len() > here, "{}", world.describe());
}
