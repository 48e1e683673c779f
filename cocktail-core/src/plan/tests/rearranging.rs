//! `cordon`, `uncordon` and `rearrange`: what they lead to on two machines that nobody sells, and what they refuse.

use std::time::Duration;

use crate::command::Command;
use crate::contract::{RearrangeOptions, TerminateReason};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::fleet::{FleetEvent, FleetLimits, Late, ServerOperationKind};
use crate::id::ServerId;
use crate::server::{ServerState, ServerStep};
use crate::view::WhyView;
use crate::world::{World, actor, name, server_id};

const WEB: &str = "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"web\"]\nreplicas = 2\n\
                   resources = { cpu = 1 }\nupdate = { monitor = \"0s\" }\n";
const MINUTE: Duration = Duration::from_secs(60);

/// Two containers on a machine of four cores, beside another machine.
fn world(cpu_beside: u64) -> World {
    let mut world = World::new();
    world.resize(4_000, ServerState::Ready);
    world.apply(WEB);
    world.settle();
    let mut beside = world.state.servers[&server_id()].clone();
    beside.id = there();
    (beside.containers, beside.allocated) = (0, crate::spec::Resources::default());
    beside.capacity.cpu.0 = cpu_beside;
    world.turn(vec![Event::ServerSeen { server: Box::new(beside) }]);
    assert_eq!(on(&world, &server_id()), 2, "{}", world.describe());
    world
}

fn there() -> ServerId {
    ServerId::new("there")
}

fn on(world: &World, server: &ServerId) -> usize {
    world.of("web").iter().filter(|record| record.server == *server).count()
}

fn state(world: &World, server: &ServerId) -> ServerState {
    world.state.servers[server].state
}

fn cordon(server: &str) -> Command {
    Command::Cordon { server: server.into(), cordoned: true }
}

fn uncordon(server: &str) -> Command {
    Command::Cordon { server: server.into(), cordoned: false }
}

fn rearrange(options: RearrangeOptions) -> Command {
    Command::Rearrange { server: "here".into(), options }
}

fn give(world: &mut World, command: &Command) -> Vec<Event> {
    world.command(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn refused(world: &World, command: &Command) -> Error {
    world.state.command(command, &actor()).expect_err("it is refused")
}

fn why(world: &World, object: &str) -> Vec<WhyView> {
    world.state.why(object).expect("it exists")
}

#[test]
fn nothing_new_comes_to_a_cordoned_server_and_what_runs_there_stays() {
    let mut world = world(1_000);
    give(&mut world, &cordon("he"));
    assert_eq!(give(&mut world, &cordon("here")), [], "asked again");
    assert_eq!((state(&world, &server_id()), on(&world, &server_id())), (ServerState::Cordoned, 2));
    world.scale("web", 4).expect("it is a number");
    world.settle();
    assert_eq!((on(&world, &server_id()), on(&world, &there())), (2, 1), "{}", world.describe());
    assert!(world.unit("web").held.contains("no room"), "{}", world.unit("web").held);
    give(&mut world, &uncordon("here"));
    assert_eq!(give(&mut world, &uncordon("here")), [], "asked again");
    world.settle();
    assert_eq!((on(&world, &server_id()), world.ready("web")), (3, 4));
    let told: Vec<String> = why(&world, "here").into_iter().map(|why| why.because).collect();
    assert_eq!(told[..2], ["tester cordoned it", "tester uncordoned it"], "{told:?}");
}

#[test]
fn a_server_that_nobody_sells_is_emptied_as_others_serve_and_stays_empty_until_it_is_uncordoned() {
    let mut world = world(4_000);
    give(&mut world, &rearrange(RearrangeOptions::default()));
    assert_eq!(give(&mut world, &rearrange(RearrangeOptions::default())), [], "asked again");
    while on(&world, &server_id()) > 0 {
        assert!(world.ready("web") >= 2, "others serve first: {}", world.describe());
        let open = world.machine.open_calls();
        assert!(open > 0 || world.state.wake_at().is_some(), "{}", world.describe());
        match open {
            0 => drop(world.pass(Duration::from_secs(1))),
            _ => drop(world.answer(0, crate::world::Answer::Done)),
        }
    }
    world.settle();
    assert_eq!((on(&world, &there()), world.ready("web")), (2, 2));
    assert_eq!(state(&world, &server_id()), ServerState::Draining, "it stays, and takes nothing new");
    give(&mut world, &uncordon("here"));
    assert_eq!(state(&world, &server_id()), ServerState::Ready);
    assert_eq!(world.state.server_view(&server_id()).expect("it is there").rearrangement, None);
}

#[test]
fn nothing_comes_to_an_empty_server_that_shall_be_empty() {
    let mut world = world(4_000);
    let command = Command::Rearrange { server: "there".into(), options: RearrangeOptions::default() };
    give(&mut world, &command);
    assert_eq!(state(&world, &there()), ServerState::Draining);
    world.scale("web", 6).expect("it is a number");
    world.settle();
    assert_eq!((on(&world, &there()), world.ready("web")), (0, 4), "{}", world.describe());
}

#[test]
fn why_tells_what_keeps_containers_on_a_server_that_shall_be_empty() {
    let mut world = world(500);
    give(&mut world, &rearrange(RearrangeOptions::default()));
    world.settle();
    assert_eq!((on(&world, &server_id()), world.ready("web")), (2, 2));
    let told: Vec<String> =
        why(&world, "here").into_iter().map(|why| format!("{}: {}", why.object, why.because)).collect();
    assert!(told.contains(&"here: tester asked to empty here".to_owned()), "{told:?}");
    for container in world.ids("web") {
        let stays = format!("{container}: it stays until its replacement is ready: no room on any of 2 servers");
        assert!(told.iter().any(|line| line.starts_with(&stays)), "{told:#?}");
    }
}

#[test]
fn an_uncordoned_server_keeps_what_has_not_moved_and_what_is_replaced_for_another_reason_still_goes() {
    let mut world = world(500);
    let ids = world.ids("web");
    let because = "tester asked for a restart".to_owned();
    world.turn(vec![Event::ReplaceAsked { container: ids[0].clone(), because: because.clone() }]);
    give(&mut world, &rearrange(RearrangeOptions::default()));
    assert_eq!(world.container(&ids[0]).replace, Some(because.clone()));
    assert_eq!(world.container(&ids[1]).replace, Some("tester asked to empty here".into()));
    give(&mut world, &cordon("here"));
    let record = &world.state.servers[&server_id()];
    assert_eq!(
        (record.state, record.tenure.cordoned),
        (ServerState::Draining, true),
        "that is for when it is called off"
    );
    assert_eq!(give(&mut world, &cordon("here")), []);
    assert!(world.state.servers[&server_id()].tenure.rearrangement.is_some());
    give(&mut world, &uncordon("here"));
    assert_eq!(state(&world, &server_id()), ServerState::Ready);
    assert_eq!(world.container(&ids[0]).replace, Some(because));
    assert_eq!(world.container(&ids[1]).replace, None);
}

#[test]
fn a_deadline_calls_it_off_or_drains_by_force_and_a_second_order_replaces_the_first() {
    let mut world = world(500);
    let minute = RearrangeOptions { deadline: Some(MINUTE), ..RearrangeOptions::default() };
    give(&mut world, &rearrange(minute));
    let view = world.state.server_view(&server_id()).expect("it is there").rearrangement.expect("it is emptied");
    assert_eq!(view.deadline, Some(crate::time::WallTime(world.state.at.0 + 60_000_000).to_string()));
    assert_eq!((view.late, view.give_back), (Late::Cancel, false));
    world.pass(MINUTE);
    assert_eq!((state(&world, &server_id()), on(&world, &server_id())), (ServerState::Ready, 2));
    assert!(world.of("web").iter().all(|record| record.replace.is_none()));

    give(&mut world, &rearrange(minute));
    give(&mut world, &rearrange(RearrangeOptions { late: Late::Force, ..minute }));
    world.pass(MINUTE);
    world.settle();
    assert_eq!(on(&world, &server_id()), 0, "{}", world.describe());
    assert_eq!(world.unit("web").goal(), 2);
}

#[test]
fn a_server_that_can_be_bought_is_given_back_where_that_was_asked_for() {
    let mut world = world(4_000);
    let seen = |grows| FleetEvent::ProviderSeen {
        provider: name("standalone"),
        grows,
        limits: FleetLimits::default(),
        offerings: Vec::new(),
        images: false,
    };
    let order = rearrange(RearrangeOptions { give_back: true, ..RearrangeOptions::default() });
    let error = refused(&world, &order);
    assert_eq!(*error.kind(), ErrorKind::InvalidConfig);
    assert!(
        error.message().starts_with("here cannot be given back: standalone has the servers that it has"),
        "{error}"
    );
    world.turn(vec![seen(true).into()]);
    give(&mut world, &order);
    world.settle();
    let asked: Vec<_> = world.state.server_operations.values().cloned().collect();
    assert_eq!((asked.len(), &asked[0].kind), (1, &ServerOperationKind::Clear), "its provider is asked first");
    let cleared = world.state.cleared(asked[0].id, Ok(()));
    world.turn(cleared);
    world.settle();
    let open: Vec<_> = world.state.server_operations.values().cloned().collect();
    assert_eq!(open.len(), 1, "{}", world.describe());
    assert_eq!(open[0].kind, ServerOperationKind::Terminate { reason: TerminateReason::Requested });
    let views = world.state.operation_views();
    let told: Vec<_> = views.iter().filter(|view| view.kind == "terminate").collect();
    assert_eq!((told.len(), told[0].state.as_str(), told[0].claims[..].join(",")), (1, "intended", "here".into()));
    assert_eq!(told[0].provider_ids, ["machine"]);
    for command in [cordon("here"), uncordon("here"), order] {
        let error = refused(&world, &command);
        assert_eq!(*error.kind(), ErrorKind::Conflict, "{command:?}");
        assert_eq!(error.message(), "here is terminating: it takes no containers any more");
    }
    let answered = world.state.terminated(open[0].id, Ok(()));
    world.turn(answered);
    let views = world.state.operation_views();
    let told: Vec<_> = views.iter().filter(|view| view.kind == "terminate").collect();
    assert_eq!((told.len(), told[0].state.as_str()), (1, "succeeded"), "an operation that ended is still told");
}

#[test]
fn orders_about_what_is_no_server_or_in_no_state_for_them_are_refused() {
    let mut world = world(4_000);
    for server in ["mars", "web", ""] {
        let error = refused(&world, &cordon(server));
        assert_eq!(*error.kind(), ErrorKind::NotFound, "{server}");
        assert_eq!(error.message(), format!("no server {server:?}: there are here, there"));
    }
    let force = rearrange(RearrangeOptions { late: Late::Force, ..RearrangeOptions::default() });
    assert_eq!(*refused(&world, &force).kind(), ErrorKind::InvalidConfig);
    let lost = FleetEvent::Stepped { server: there(), step: ServerStep::Silent, because: "no word".into() };
    world.turn(vec![lost.into()]);
    let error = refused(&world, &uncordon("there"));
    assert_eq!(*error.kind(), ErrorKind::Conflict);
    assert_eq!(error.message(), "there is lost: nothing is placed there until it answers");
    let error = refused(&world, &Command::Remove { object: "here".into() });
    let told = "here is a server: `rearrange` empties it, `cordon` keeps it from new containers";
    assert_eq!(error.message(), told);
}
