//! Servers that come and go, decision by decision.

use std::time::Duration;

use crate::command::Command;
use crate::container::ContainerState;
use crate::contract::{
    ClaimOutcome, Interruption, Offering, OfferingKind, RearrangeOptions, ServerListing, ServerObservation,
    TerminateReason,
};
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Soft};
use crate::fleet::{
    FleetEvent, FleetLimits, Late, Owner, RearrangeLimits, Rearrangement, ServerOperation, ServerOperationKind,
};
use crate::id::{OperationId, ServerId, StoreId};
use crate::operation::OperationState;
use crate::quantity::{Bytes, CpuMillis};
use crate::rollout::RolloutState;
use crate::scaling::{Sample, TrafficSample};
use crate::server::{Server, ServerState};
use crate::settings::Settings;
use crate::spec::Resources;
use crate::time::WallTime;
use crate::world::{World, name};

const CLOUD: &str = "cloud";

fn room(cpu: u64) -> Resources {
    Resources { cpu: CpuMillis(cpu), memory: Bytes(8 << 30) }
}

fn offering(what: &str, cpu: u64, price: f64) -> Offering {
    Offering {
        name: what.into(),
        zone: None,
        kind: OfferingKind::OnDemand,
        price: Some(price),
        allocatable: room(cpu),
        available: true,
    }
}

/// A world whose own machine is full, beside a provider that sells servers of two and of eight cores.
fn world(limits: FleetLimits) -> World {
    let mut world = World::with(Settings::default(), 0);
    let offerings = vec![offering("small", 2_000, 0.1), offering("large", 8_000, 0.5)];
    world.turn(vec![
        FleetEvent::ProviderSeen { provider: name(CLOUD), grows: true, limits, offerings, images: false }.into(),
    ]);
    world
}

fn web(count: u32) -> String {
    format!(
        "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"web\"]\nreplicas = {count}\n\
         resources = {{ cpu = 1 }}\nupdate = {{ monitor = \"0s\" }}\n"
    )
}

fn bought(world: &World) -> Vec<Server> {
    world.state.servers.values().filter(|server| server.provider == name(CLOUD)).cloned().collect()
}

fn open(world: &World) -> Vec<ServerOperation> {
    world.state.server_operations.values().cloned().collect()
}

fn only(world: &World) -> ServerOperation {
    let open = open(world);
    assert_eq!(open.len(), 1, "{open:?}");
    open[0].clone()
}

fn fails(world: &mut World, kind: ErrorKind) -> Vec<Event> {
    let events = world.state.provisioned(only(world).id, Err(Error::new(kind, "no")));
    world.turn(events)
}

/// Every open call succeeds, and new servers join.
fn serve(world: &mut World) {
    for operation in open(world) {
        let events = match operation.kind {
            ServerOperationKind::Provision { .. } => {
                let made =
                    |server: &ServerId| ClaimOutcome { server: server.clone(), result: Ok(format!("i-{server}")) };
                world.state.provisioned(operation.id, Ok(operation.servers.iter().map(made).collect()))
            }
            ServerOperationKind::Clear => world.state.cleared(operation.id, Ok(())),
            ServerOperationKind::Terminate { .. } => world.state.terminated(operation.id, Ok(())),
        };
        world.turn(events);
    }
    for server in bought(world).into_iter().filter(|server| server.state == ServerState::Booting) {
        join(world, &server.id);
    }
}

fn join(world: &mut World, server: &ServerId) {
    let capacity = world.state.servers[server].capacity;
    let address = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    let incarnation = "boot".into();
    world.turn(vec![FleetEvent::Joined { server: server.clone(), incarnation, capacity, address }.into()]);
}

/// A complete listing of what exists, without the named ones.
fn list(world: &mut World, without: &[&ServerId], complete: bool) -> Vec<Event> {
    let is_there = |server: &&Server| {
        !without.contains(&&server.id) && !matches!(server.state, ServerState::Gone | ServerState::Claimed)
    };
    let servers = bought(world).iter().filter(is_there).map(|server| observed(&server.id, None)).collect();
    let listing = ServerListing { servers, complete, as_of: WallTime(world.state.at.0) };
    let events = world.state.listed(&name(CLOUD), world.now(), &listing);
    world.turn(events)
}

fn observed(server: &ServerId, owner: Option<Owner>) -> ServerObservation {
    ServerObservation {
        server: server.clone(),
        provider_id: format!("i-{server}"),
        incarnation: "boot".into(),
        capacity: room(2_000),
        zone: None,
        offering: "small".into(),
        address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        owner,
        labels: std::collections::BTreeMap::new(),
    }
}

fn settled(count: u32, limits: FleetLimits) -> World {
    let mut world = world(limits);
    world.apply(&web(count));
    serve(&mut world);
    world.answer_all();
    assert_eq!(world.ready("web"), count as usize);
    world
}

#[test]
fn what_is_bought_runs_what_has_no_room() {
    let program = "command = [\"web\"]";
    for (keys, provider) in [(program, CLOUD), ("image = \"web:1\"", "boxes")] {
        let mut world = world(FleetLimits::default());
        let (limits, offerings) = (FleetLimits::default(), vec![offering("box", 4_000, 0.01)]);
        let boxes = name("boxes");
        let seen = FleetEvent::ProviderSeen { provider: boxes, grows: true, limits, offerings, images: true };
        world.turn(vec![seen.into()]);
        world.apply(&web(1).replace(program, keys));
        let bought: Vec<_> = world.state.servers.values().filter(|server| server.tenure.price.is_some()).collect();
        assert_eq!(bought.len(), 1, "{keys}");
        assert_eq!((bought[0].provider.as_str(), bought[0].images), (provider, provider == "boxes"), "{keys}");
    }
}

#[test]
fn what_finds_no_room_is_bought_for_the_least_money_and_placed_when_it_joins() {
    let mut world = world(FleetLimits::default());
    world.apply(&web(3));
    let operation = only(&world);
    assert_eq!(operation.servers.len(), 2, "two small ones are cheaper than a large one");
    assert!(world.unit("web").held.contains("2 servers are on their way"), "{}", world.unit("web").held);
    assert_eq!(world.of("web").len(), 0);
    serve(&mut world);
    assert_eq!(world.of("web").len(), 3);
    assert!(bought(&world).iter().all(|server| server.state == ServerState::Ready));
    assert_eq!(world.unit("web").held, "");
    world.answer_all();
    assert_eq!(world.ready("web"), 3);
    assert_eq!(open(&world), []);
}

#[test]
fn a_server_that_is_bought_has_the_price_and_the_kind_of_what_was_offered() {
    let mut world = world(FleetLimits::default());
    world.apply(&web(1));
    let tenure = &bought(&world)[0].tenure;
    assert_eq!((tenure.price, tenure.kind), (Some(0.1), Some(OfferingKind::OnDemand)));
}

#[test]
fn of_offerings_without_a_price_the_smaller_one_is_bought() {
    let bare = |what: &str, cpu: u64, memory: u64| Offering {
        price: None,
        allocatable: Resources { cpu: CpuMillis(cpu), memory: Bytes(memory << 30) },
        ..offering(what, cpu, 0.0)
    };
    // Cores and gibibytes count the same: 10 are more than 6, and less than 18.
    for (memory, smaller) in [(4, "few-cores"), (16, "many-cores")] {
        let mut world = World::with(Settings::default(), 0);
        let offerings = vec![bare("many-cores", 8_000, 2), bare("few-cores", 2_000, memory)];
        let limits = FleetLimits::default();
        world.turn(vec![
            FleetEvent::ProviderSeen { provider: name(CLOUD), grows: true, limits, offerings, images: false }.into(),
        ]);
        world.apply(&web(1));
        assert_eq!(bought(&world)[0].offering, smaller);
    }
}

#[test]
fn a_unit_says_that_a_server_is_being_chosen_before_one_is_on_its_way() {
    let mut world = world(FleetLimits::default());
    let events = world.apply(&web(3));
    let told: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::Held { because, .. } => because.rsplit("; ").next(),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["cloud: a server is being chosen", "2 servers are on their way"]);
}

#[test]
fn a_unit_that_nothing_on_offer_suits_says_so() {
    let mut world = world(FleetLimits::default());
    let only = |offering: &str| {
        web(1).replace("update =", &format!("place.constraints.offering = [\"{offering}\"]\nupdate ="))
    };
    world.apply(&only("huge"));
    let held = |world: &World| world.unit("web").held.clone();
    let because = "cloud: nothing that it offers is both large enough and what the unit's `place` allows";
    assert!(held(&world).ends_with(because), "{}", held(&world));
    assert_eq!(bought(&world), []);
    // What comes for others is no hope either.
    world.apply(&web(1).replace("units.web", "units.api").replace("maps.prod", "maps.test").replace("shop", "other"));
    assert_eq!(bought(&world).len(), 1);
    assert!(held(&world).ends_with(because), "{}", held(&world));
    world.apply(&only("large"));
    assert!(held(&world).ends_with("1 server is on its way"), "{}", held(&world));
}

#[test]
fn a_call_keeps_its_token_and_another_call_has_another() {
    let mut world = world(FleetLimits::default());
    world.apply(&web(1));
    let first = only(&world);
    let token = first.token(&world.state.store);
    fails(&mut world, ErrorKind::OutcomeUnknown);
    let again = only(&world);
    assert_eq!((again.state, again.tries), (OperationState::OutcomeUnknown, 1));
    assert!(again.not_before > Some(world.now()));
    assert_eq!(again.token(&world.state.store), token);
    assert_ne!(again.token(&StoreId::new("another")), token);
    assert_ne!(ServerOperation { id: OperationId(first.id.0 + 1), ..first }.token(&world.state.store), token);
    assert_eq!(bought(&world).len(), 1, "nothing else is bought while the outcome is unknown");
}

#[test]
fn an_offering_without_stock_is_left_alone_for_a_while_and_the_next_one_is_bought_now() {
    let mut world = world(FleetLimits::default());
    world.apply(&web(1));
    let sold_out = ErrorKind::InsufficientCapacity { offering: "small".into(), retry_after: None };
    fails(&mut world, sold_out.clone());
    let ServerOperationKind::Provision { spec } = only(&world).kind else { panic!("it buys") };
    assert_eq!(spec.offering, "large");
    fails(&mut world, sold_out);
    assert_eq!(open(&world), []);
    assert!(world.unit("web").held.contains("out of stock"), "{}", world.unit("web").held);
    world.pass(FleetLimits::default().stock_out);
    let ServerOperationKind::Provision { spec } = only(&world).kind else { panic!("it buys") };
    assert_eq!(spec.offering, "small");
}

#[test]
fn a_limit_of_the_account_stops_buying_for_a_rest_and_a_wrong_request_for_good() {
    let mut world = world(FleetLimits::default());
    world.apply(&web(1));
    fails(&mut world, ErrorKind::Quota { scope: "cores".into() });
    assert_eq!(open(&world), []);
    world.pass(FleetLimits::default().rest);
    fails(&mut world, ErrorKind::InvalidConfig);
    world.pass(Duration::from_secs(24 * 3600));
    assert_eq!(open(&world), []);
    assert!(world.unit("web").held.contains("cloud: no"), "{}", world.unit("web").held);
}

#[test]
fn a_server_that_does_not_join_is_given_back_and_another_is_bought() {
    let mut world = world(FleetLimits::default());
    world.apply(&web(1));
    let operation = only(&world);
    let server = operation.servers[0].clone();
    let outcome = ClaimOutcome { server: server.clone(), result: Ok(format!("i-{server}")) };
    let events = world.state.provisioned(operation.id, Ok(vec![outcome]));
    world.turn(events);
    world.pass(FleetLimits::default().registration - Duration::from_millis(1));
    assert_eq!(open(&world), []);
    world.pass(Duration::from_millis(1));
    let (back, new): (Vec<_>, Vec<_>) = open(&world).into_iter().partition(|it| it.servers == [server.clone()]);
    assert_eq!((back[0].kind.as_str(), new[0].kind.as_str(), new.len()), ("terminate", "provision", 1));
    let events = world.state.terminated(back[0].id, Ok(()));
    world.turn(events);
    // Its end may stick: it is asked for again until no listing names it.
    world.pass(FleetLimits::default().visibility * 2);
    let again = open(&world).into_iter().find(|it| it.servers == [server.clone()]).expect("it is asked for again");
    let events = world.state.terminated(again.id, Err(Error::new(ErrorKind::NotFound, "no such server")));
    world.turn(events);
    list(&mut world, &[&server], true);
    assert!(!world.state.servers.contains_key(&server));
}

#[test]
fn servers_that_fail_in_a_row_stop_buying() {
    let limits = FleetLimits { registration: Duration::from_secs(10), ..FleetLimits::default() };
    let mut world = world(limits);
    world.apply(&web(1));
    for _ in 0..3 {
        let operation = open(&world).into_iter().find(|it| it.kind.as_str() == "provision").expect("one is bought");
        let server = operation.servers[0].clone();
        let outcome = ClaimOutcome { server: server.clone(), result: Ok(format!("i-{server}")) };
        let events = world.state.provisioned(operation.id, Ok(vec![outcome]));
        world.turn(events);
        world.pass(Duration::from_secs(10));
    }
    assert!(open(&world).iter().all(|it| it.kind.as_str() == "terminate"), "{:?}", open(&world));
    assert!(world.unit("web").held.contains("did not join"), "{}", world.unit("web").held);
    world.pass(FleetLimits::default().rest);
    assert!(open(&world).iter().any(|it| it.kind.as_str() == "provision"));
}

#[test]
fn an_empty_server_is_given_back_after_its_time_and_never_the_last_that_shall_stay() {
    let limits = FleetLimits { min_servers: 1, ..FleetLimits::default() };
    let mut world = settled(4, limits.clone());
    assert_eq!(bought(&world).len(), 2);
    world.scale("web", 0).expect("it is a number");
    world.answer_all();
    assert_eq!(world.of("web").len(), 0);
    world.pass(limits.idle - Duration::from_secs(1));
    assert_eq!(open(&world), []);
    world.pass(Duration::from_secs(1));
    assert_eq!(only(&world).kind, ServerOperationKind::Clear, "the provider is asked first");
    serve(&mut world);
    let operation = only(&world);
    assert_eq!(operation.servers.len(), 1);
    serve(&mut world);
    list(&mut world, &[&operation.servers[0]], true);
    assert_eq!(bought(&world).len(), 1);
    world.pass(limits.idle * 10);
    assert_eq!((bought(&world).len(), open(&world).len()), (1, 0));
}

#[test]
fn a_server_that_its_provider_keeps_is_used_again() {
    let mut world = settled(1, FleetLimits::default());
    world.scale("web", 0).expect("it is a number");
    world.answer_all();
    world.pass(FleetLimits::default().idle);
    let refused = || Err(Error::new(ErrorKind::Refused, "protected"));
    let events = world.state.cleared(only(&world).id, refused());
    world.turn(events);
    assert_eq!((open(&world), bought(&world)[0].state), (vec![], ServerState::Ready), "nothing was drained");
    world.pass(Duration::from_secs(300));
    serve(&mut world);
    // It may have changed its mind.
    let events = world.state.terminated(only(&world).id, refused());
    world.turn(events);
    assert_eq!(open(&world), []);
    world.scale("web", 1).expect("it is a number");
    assert_eq!(world.of("web").len(), 1, "{}", world.describe());
    assert_eq!(bought(&world).len(), 1);
}

#[test]
fn a_server_that_joins_before_its_call_is_answered_may_be_left_out_of_listings_from_then_on() {
    let limits = FleetLimits::default();
    let mut world = world(limits.clone());
    world.apply(&web(1));
    // The call is long on its way, and what it makes joins before the answer is there.
    world.pass(limits.visibility);
    let server = only(&world).servers[0].clone();
    join(&mut world, &server);
    for _ in 0..2 {
        world.pass(limits.visibility / 4);
        assert_eq!(list(&mut world, &[&server], true), []);
    }
    assert_eq!((bought(&world)[0].state, &*bought(&world)[0].provider_id), (ServerState::Ready, ""));
    let events = list(&mut world, &[], true);
    assert!(matches!(&events[..], [Event::Fleet { event }] if event.describe().0 == "server-identified"), "{events:?}");
    assert_eq!(bought(&world)[0].provider_id, format!("i-{server}"));
    assert_eq!(list(&mut world, &[], true), [], "it is told once");
}

#[test]
fn an_empty_server_that_is_used_again_before_its_provider_has_answered_stays() {
    let mut world = settled(1, FleetLimits::default());
    world.scale("web", 0).expect("it is a number");
    world.answer_all();
    world.pass(FleetLimits::default().idle);
    assert_eq!(only(&world).kind, ServerOperationKind::Clear);
    world.scale("web", 1).expect("it is a number");
    let record = &bought(&world)[0];
    assert_eq!((record.containers, &record.tenure.rearrangement), (1, &None), "{}", world.describe());
    serve(&mut world);
    assert_eq!((open(&world), bought(&world)[0].state), (vec![], ServerState::Ready), "a late answer changes nothing");
}

#[test]
fn an_empty_server_is_not_to_go_while_its_provider_has_not_answered_an_earlier_question() {
    let mut world = settled(1, FleetLimits::default());
    let empty = |world: &mut World| {
        world.scale("web", 0).expect("it is a number");
        world.answer_all();
        world.pass(FleetLimits::default().idle);
    };
    empty(&mut world);
    let first = only(&world);
    assert_eq!(first.kind, ServerOperationKind::Clear);
    world.scale("web", 1).expect("it is a number");
    empty(&mut world);
    assert_eq!((only(&world).id, &bought(&world)[0].tenure.rearrangement), (first.id, &None));
    serve(&mut world);
    assert_eq!(only(&world).kind, ServerOperationKind::Clear, "it is asked anew");
    assert_ne!(only(&world).id, first.id);
}

#[test]
fn an_empty_server_that_shall_be_emptied_and_kept_takes_nothing() {
    let mut world = settled(1, FleetLimits::default());
    world.scale("web", 0).expect("it is a number");
    world.answer_all();
    let server = bought(&world)[0].id.clone();
    let because = "it is looked at".into();
    let rearrangement = Rearrangement { because, deadline: None, late: Late::Cancel, give_back: None, cleared: false };
    world.turn(vec![FleetEvent::Rearranging { server: server.clone(), rearrangement: Some(rearrangement) }.into()]);
    assert_eq!(world.state.servers[&server].state, ServerState::Draining);
    world.scale("web", 1).expect("it is a number");
    assert_eq!(world.state.servers[&server].containers, 0, "{}", world.describe());
}

#[test]
fn a_server_is_emptied_only_as_others_serve_and_then_given_back() {
    let mut world = settled(2, FleetLimits::default());
    let server = bought(&world)[0].id.clone();
    let rearrangement = Rearrangement {
        because: "it is retired".into(),
        deadline: None,
        late: Late::Cancel,
        give_back: Some(TerminateReason::Requested),
        cleared: false,
    };
    world.turn(vec![FleetEvent::Rearranging { server: server.clone(), rearrangement: Some(rearrangement) }.into()]);
    assert_eq!(world.ready("web"), 2, "nothing goes before its replacement is ready");
    for _ in 0..8 {
        serve(&mut world);
        assert!(world.ready("web") >= 2);
        if world.machine.open_calls() > 0 {
            world.answer(0, crate::world::Answer::Done);
        }
        assert!(world.ready("web") >= 2);
    }
    world.settle();
    serve(&mut world);
    list(&mut world, &[&server], true);
    assert!(!world.state.servers.contains_key(&server), "{}", world.describe());
    assert_eq!(world.ready("web"), 2);
}

#[test]
fn what_could_not_move_in_time_stays_where_the_order_was_to_call_it_off() {
    let limits = FleetLimits { max_servers: 1, ..FleetLimits::default() };
    let mut world = settled(2, limits);
    let server = bought(&world)[0].id.clone();
    let deadline = Some(world.now() + Duration::from_secs(30));
    let rearrangement = Rearrangement {
        because: "it is retired".into(),
        deadline,
        late: Late::Cancel,
        give_back: Some(TerminateReason::Requested),
        cleared: false,
    };
    world.turn(vec![FleetEvent::Rearranging { server: server.clone(), rearrangement: Some(rearrangement) }.into()]);
    assert!(world.of("web").iter().all(|record| record.replace.is_none()), "its provider was not asked yet");
    serve(&mut world);
    assert!(world.of("web").iter().all(|record| record.replace.is_some()));
    world.pass(Duration::from_secs(30));
    assert!(world.of("web").iter().all(|record| record.replace.is_none()));
    let record = &world.state.servers[&server];
    assert_eq!((record.state, record.tenure.rearrangement.clone()), (ServerState::Ready, None));
    assert_eq!(world.ready("web"), 2);
}

#[test]
fn a_server_that_was_cordoned_is_cordoned_again_when_its_rearrangement_is_called_off() {
    let limits = FleetLimits { max_servers: 1, ..FleetLimits::default() };
    let mut world = settled(2, limits);
    let server = bought(&world)[0].id.clone();
    let name = server.to_string();
    let options = RearrangeOptions { deadline: Some(Duration::from_secs(30)), ..RearrangeOptions::default() };
    world.command(&Command::Cordon { server: name.clone(), cordoned: true }).expect("it is there");
    world.command(&Command::Rearrange { server: name, options }).expect("it is there");
    assert_eq!(world.state.servers[&server].state, ServerState::Draining);
    world.pass(Duration::from_secs(30));
    let record = &world.state.servers[&server];
    assert_eq!((record.state, record.tenure.rearrangement.clone()), (ServerState::Cordoned, None));
}

#[test]
fn only_two_complete_listings_say_that_a_server_is_gone_and_then_its_containers_are_made_anew() {
    let mut world = settled(2, FleetLimits::default());
    let server = bought(&world)[0].id.clone();
    world.pass(FleetLimits::default().visibility);
    list(&mut world, &[&server], false);
    assert_eq!(world.state.servers[&server].tenure.missing, None, "an incomplete listing says nothing");
    list(&mut world, &[&server], true);
    world.pass(Duration::from_secs(30));
    list(&mut world, &[], true);
    assert_eq!(world.state.servers[&server].tenure.missing, None, "it was named again");
    list(&mut world, &[&server], true);
    assert_eq!(world.ready("web"), 2);
    world.pass(Duration::from_secs(30));
    list(&mut world, &[&server], true);
    assert!(!world.state.servers.contains_key(&server));
    let live = world.of("web").into_iter().filter(|it| it.state != ContainerState::Stopped).count();
    assert_eq!(live, 0, "{}", world.describe());
    assert!(open(&world).iter().any(|it| it.kind.as_str() == "provision"));
    serve(&mut world);
    world.answer_all();
    assert_eq!(world.ready("web"), 2);
}

#[test]
fn a_reply_that_was_lost_is_found_by_a_listing() {
    let mut world = world(FleetLimits::default());
    world.apply(&web(1));
    let operation = only(&world);
    fails(&mut world, ErrorKind::OutcomeUnknown);
    list(&mut world, &[], true);
    assert_eq!(world.state.servers[&operation.servers[0]].state, ServerState::Booting);
    assert_eq!(open(&world), []);
    let late = world.state.provisioned(operation.id, Err(Error::new(ErrorKind::InvalidConfig, "late")));
    assert_eq!(late, [], "an answer to what has ended says nothing");
}

#[test]
fn an_orphan_of_ours_goes_when_a_second_complete_listing_shows_it() {
    let mut world = settled(1, FleetLimits::default());
    let owner = Owner { store: world.state.store.clone(), operation: OperationId(1) };
    let lost = ServerId::new("cloud-lost");
    let show = |world: &mut World, complete: bool, passes: u64| {
        world.pass(Duration::from_secs(passes));
        let mut servers: Vec<_> = bought(world).iter().map(|server| observed(&server.id, None)).collect();
        servers.push(observed(&lost, Some(owner.clone())));
        let listing = ServerListing { servers, complete, as_of: WallTime(world.state.at.0) };
        let events = world.state.listed(&name(CLOUD), world.now(), &listing);
        world.turn(events);
    };
    show(&mut world, true, 1);
    show(&mut world, true, 1);
    assert_eq!(open(&world), [], "it is too young: its claim may be on its way");
    show(&mut world, false, 600);
    assert_eq!(open(&world), [], "an incomplete listing proves nothing");
    show(&mut world, true, 1);
    let operation = only(&world);
    assert_eq!(operation.servers, [lost]);
    let events = world.state.terminated(operation.id, Ok(()));
    world.turn(events);
    list(&mut world, &[], true);
    assert!(world.state.providers[&name(CLOUD)].orphans.is_empty());
    assert_eq!(open(&world), []);
}

#[test]
fn a_server_of_another_store_stops_buying_and_is_never_touched() {
    let mut world = settled(1, FleetLimits::default());
    let owner = Owner { store: StoreId::new("a-copy"), operation: OperationId(1) };
    let foreign = observed(&ServerId::new("cloud-foreign"), Some(owner));
    let mut servers: Vec<_> = bought(&world).iter().map(|server| observed(&server.id, None)).collect();
    servers.push(foreign);
    for _ in 0..3 {
        world.pass(Duration::from_secs(600));
        let listing = ServerListing { servers: servers.clone(), complete: true, as_of: WallTime(world.state.at.0) };
        let events = world.state.listed(&name(CLOUD), world.now(), &listing);
        world.turn(events);
    }
    let refused = world.state.providers[&name(CLOUD)].refused.clone().expect("nothing is bought");
    assert!(refused.because.contains("a-copy") && refused.until.is_none(), "{}", refused.because);
    assert_eq!(open(&world), []);
    assert_eq!(world.ready("web"), 1);
}

#[test]
fn no_more_servers_are_bought_than_allowed_whatever_is_unknown() {
    let mut world = world(FleetLimits { max_servers: 2, ..FleetLimits::default() });
    world.apply(&web(40));
    assert_eq!(bought(&world).len(), 2);
    fails(&mut world, ErrorKind::OutcomeUnknown);
    world.pass(Duration::from_secs(3600));
    assert_eq!(bought(&world).len(), 2);
    serve(&mut world);
    assert!(world.unit("web").held.contains("which is its limit"), "{}", world.unit("web").held);
    assert_eq!(bought(&world).len(), 2);
}

#[test]
fn a_server_that_its_provider_takes_away_is_emptied_first_and_what_is_left_is_drained_in_time() {
    let mut world = settled(2, FleetLimits::default());
    let server = bought(&world)[0].id.clone();
    let at = WallTime(world.state.at.0 + 120_000_000);
    let notice = Interruption { server: server.clone(), at, because: "spot capacity is needed".into() };
    let notice = std::slice::from_ref(&notice);
    let events = world.state.interrupted(&name(CLOUD), notice);
    assert_eq!(world.state.interrupted(&name("other"), notice), []);
    world.turn(events);
    assert_eq!(world.state.interrupted(&name(CLOUD), notice), [], "the same notice says nothing new");
    assert_eq!(world.state.servers[&server].state, ServerState::Draining);
    let kinds: Vec<&str> = open(&world).iter().map(|it| it.kind.as_str()).collect();
    assert_eq!(kinds, ["provision"], "others serve first, and nobody asks whether it may go");
    let ServerOperationKind::Provision { spec } = only(&world).kind else { panic!("it buys") };
    let known = &world.state.servers[&server];
    assert!(
        spec.offering != known.offering || spec.zone != known.zone,
        "what is taken away is short: another kind is bought"
    );
    assert_eq!(world.ready("web"), 2);
    // The replacement does not come in time.
    world.pass(Duration::from_secs(90));
    assert!(world.of("web").iter().all(|record| record.state == ContainerState::Draining), "{}", world.describe());
}

/// Two servers, each half empty.
fn half_empty(limits: FleetLimits) -> World {
    half_empty_of(limits, "")
}

/// As [`half_empty`], with more keys of what runs there.
fn half_empty_of(limits: FleetLimits, keys: &str) -> World {
    let mut world = world(limits);
    let both = |each: u32| {
        let unit = |unit: &str| {
            format!(
                "[maps.prod.units.{unit}]\ncommand = [\"{unit}\"]\nreplicas = {each}\nresources = {{ cpu = 1 }}\n\
                 update = {{ monitor = \"0s\" }}\n{keys}\n"
            )
        };
        format!("service = \"shop\"\n{}{}", unit("api"), unit("web"))
    };
    world.apply(&both(2));
    serve(&mut world);
    world.answer_all();
    world.apply(&both(1));
    world.answer_all();
    let counts: Vec<u32> = bought(&world).iter().map(|server| server.containers).collect();
    assert_eq!(counts, [1, 1], "{}", world.describe());
    world
}

fn emptied(world: &World) -> Vec<ServerId> {
    let goes = |server: &Server| {
        server.tenure.rearrangement.as_ref().is_some_and(|it| it.give_back == Some(TerminateReason::Rearranged))
    };
    bought(world).into_iter().filter(goes).map(|server| server.id).collect()
}

#[test]
fn a_server_that_runs_little_is_given_back_where_a_gain_is_asked_for_and_nobody_works_on_it() {
    let every = Duration::from_secs(60);
    let rearrange = Some(RearrangeLimits { gain: 1.0, budget: 1, every });
    let off = FleetLimits { idle: Duration::from_secs(86_400), ..FleetLimits::default() };
    let on = FleetLimits { rearrange, ..off.clone() };
    let mut calm = half_empty(off);
    calm.pass(every * 10);
    assert_eq!(emptied(&calm), [] as [ServerId; 0], "it is off by default");

    let least = FleetLimits { min_servers: 2, ..on.clone() };
    let mut kept = half_empty(least);
    kept.pass(every);
    assert_eq!(emptied(&kept), [] as [ServerId; 0], "two servers shall stay");

    let mut world = half_empty(on);
    let busy =
        Sample { traffic: Some(TrafficSample { in_flight: 1, ..TrafficSample::default() }), ..Sample::default() };
    let ids = |world: &World| [world.ids("web"), world.ids("api")].concat();
    let all = ids(&world).into_iter().map(|id| (id, busy.clone())).collect();
    world.note(&Soft::Sampled(all));
    world.pass(every);
    assert_eq!(emptied(&world), [] as [ServerId; 0], "somebody works on both");
    let all = ids(&world).into_iter().map(|id| (id, Sample::default())).collect();
    world.note(&Soft::Sampled(all));
    world.pass(every);
    assert_eq!(emptied(&world).len(), 1, "one at a time: {}", world.describe());
    assert_eq!(only(&world).kind, ServerOperationKind::Clear, "its provider is asked first");
    serve(&mut world);
    for _ in 0..8 {
        world.answer_all();
        assert!(world.ready("web") >= 1 && world.ready("api") >= 1, "others serve first");
        assert!(open(&world).iter().all(|it| it.kind.as_str() != "provision"), "nothing is bought for it");
    }
    assert_eq!(only(&world).kind, ServerOperationKind::Terminate { reason: TerminateReason::Rearranged });
}

/// Limits with which a server is given back for any gain, and how often servers are compared.
fn any_gain() -> (FleetLimits, Duration) {
    let every = Duration::from_secs(60);
    let rearrange = Some(RearrangeLimits { gain: 1.0, budget: 1, every });
    (FleetLimits { idle: Duration::from_secs(86_400), rearrange, ..FleetLimits::default() }, every)
}

#[test]
fn what_has_a_volume_is_not_moved_for_the_sake_of_money() {
    for (keys, moved) in [("", 1), ("volumes.data = { mount = \"data\", kind = \"shared\" }", 0)] {
        let (limits, every) = any_gain();
        let mut world = half_empty_of(limits, keys);
        world.pass(every);
        assert_eq!(emptied(&world).len(), moved, "{keys}");
    }
}

#[test]
fn what_keeps_apart_is_not_moved_together_for_the_sake_of_money() {
    let (limits, every) = any_gain();
    let mut world = world(limits);
    let apart = web(1) + "place.affinity.apart = [\"api\"]\n";
    let api = web(1).replace("service = \"shop\"\n", "").replace("web", "api");
    world.apply(&(apart + &api));
    for _ in 0..2 {
        serve(&mut world);
        world.answer_all();
    }
    let counts: Vec<u32> = bought(&world).iter().map(|server| server.containers).collect();
    assert_eq!((counts, world.ready("web"), world.ready("api")), (vec![1, 1], 1, 1));
    world.pass(every);
    assert_eq!(emptied(&world), [] as [ServerId; 0], "there is room on either server, for one of them");
}

#[test]
fn a_rollout_does_not_fail_while_the_server_that_it_needs_boots() {
    let rollout = |world: &World| world.unit("web").rollout.clone().expect("there is one").state;
    let second = web(2).replace("monitor = \"0s\"", "monitor = \"0s\", progress = \"1m\"") + "env = { V = \"2\" }\n";
    let mut world = settled(2, FleetLimits::default());
    world.apply(&second);
    assert_eq!(only(&world).kind.as_str(), "provision", "there is room for one more on no server");
    for _ in 0..5 {
        world.pass(Duration::from_secs(61));
        assert_eq!(rollout(&world), RolloutState::Running, "{}", world.unit("web").held);
    }
    serve(&mut world);
    world.settle();
    assert_eq!(rollout(&world), RolloutState::Completed, "{}", world.describe());

    let mut full = settled(2, FleetLimits { max_servers: 1, ..FleetLimits::default() });
    full.apply(&second);
    full.pass(Duration::from_secs(61));
    assert_ne!(rollout(&full), RolloutState::Running, "nothing is on its way");
}

#[test]
fn what_is_taken_away_at_once_is_drained_once_and_nothing_comes_to_it() {
    // A server with room for what would be made instead.
    let mut world = settled(1, FleetLimits::default());
    let server = bought(&world)[0].id.clone();
    let at = WallTime(world.state.at.0 + 10_000_000);
    let notice = Interruption { server: server.clone(), at, because: "spot capacity is needed".into() };
    let events = world.state.interrupted(&name(CLOUD), std::slice::from_ref(&notice));
    world.turn(events);
    assert_eq!(world.state.servers[&server].state, ServerState::Draining);
    let here: Vec<ContainerState> =
        world.of("web").iter().filter(|record| record.server == server).map(|record| record.state).collect();
    assert_eq!(here, [ContainerState::Draining]);
    assert_eq!(only(&world).kind.as_str(), "provision");
    let refused = world.command(&Command::Cordon { server: server.to_string(), cordoned: false });
    assert_eq!(*refused.expect_err("it goes").kind(), ErrorKind::Conflict);
}

#[test]
fn a_late_no_says_nothing_about_an_order_that_came_after_the_question() {
    let mut world = settled(2, FleetLimits::default());
    let server = bought(&world)[0].id.clone();
    let order = |give_back| Command::Rearrange {
        server: server.to_string(),
        options: RearrangeOptions { give_back, ..RearrangeOptions::default() },
    };
    world.command(&order(true)).expect("it is there");
    let asked = only(&world);
    world.command(&order(false)).expect("it is there");
    let events = world.state.cleared(asked.id, Err(Error::new(ErrorKind::Refused, "protected")));
    world.turn(events);
    assert!(!world.state.server_operations.contains_key(&asked.id));
    let record = &world.state.servers[&server];
    assert_eq!(record.state, ServerState::Draining, "it is emptied all the same");
    assert!(world.of("web").iter().all(|record| record.replace.is_some()));
}

#[test]
fn what_an_order_has_marked_stays_when_a_later_order_is_refused() {
    let mut world = settled(2, FleetLimits { max_servers: 1, ..FleetLimits::default() });
    let server = bought(&world)[0].id.clone();
    let order = |give_back| Command::Rearrange {
        server: server.to_string(),
        options: RearrangeOptions { give_back, ..RearrangeOptions::default() },
    };
    world.command(&order(false)).expect("it is there");
    assert!(world.of("web").iter().all(|record| record.replace.is_some()));
    world.command(&order(true)).expect("it is there");
    let events = world.state.cleared(only(&world).id, Err(Error::new(ErrorKind::Refused, "protected")));
    world.turn(events);
    assert!(world.of("web").iter().all(|record| record.replace.is_none()), "{}", world.describe());
    assert_eq!(world.state.servers[&server].state, ServerState::Ready);
}
