//! Where containers go, among machines that are there.

use crate::event::Event;
use crate::id::ServerId;
use crate::world::{World, name, server_id};

fn web(count: u32, keys: &str) -> String {
    format!("service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"web\"]\nreplicas = {count}\n{keys}\n")
}

/// One more machine of a provider in a zone.
fn add(world: &mut World, id: &str, provider: &str, zone: Option<&str>, cpu: u64) {
    let mut server = world.state.servers[&server_id()].clone();
    server.id = ServerId::new(id);
    server.provider = name(provider);
    server.zone = zone.map(str::to_owned);
    server.capacity.cpu.0 = cpu;
    world.turn(vec![Event::ServerSeen { server: Box::new(server) }]);
}

fn on(world: &World, server: &str) -> usize {
    world.of("web").iter().filter(|record| record.server.as_str() == server).count()
}

#[test]
fn many_that_come_at_once_are_spread_by_their_number_whatever_the_size_of_the_servers() {
    let mut world = World::new();
    add(&mut world, "small", "standalone", None, 4_000);
    world.apply(&web(8, "resources = { cpu = 0.1 }"));
    assert_eq!((on(&world, "here"), on(&world, "small")), (4, 4));
}

#[test]
fn the_order_of_providers_comes_before_the_spread_over_zones() {
    let mut world = World::new();
    for provider in ["first", "second"] {
        for zone in ["a", "b"] {
            add(&mut world, &format!("{provider}-{zone}"), provider, Some(zone), 4_000);
        }
    }
    world.apply(&web(4, "provider = [\"second\", \"first\"]\nplace = { spread = \"zone\" }"));
    let counts = ["second-a", "second-b", "first-a", "first-b"].map(|server| on(&world, server));
    assert_eq!(counts, [2, 2, 0, 0]);
}

#[test]
fn images_go_to_servers_of_images_and_programs_to_the_others() {
    let mut world = World::new();
    let images = |world: &mut World, id: &str| {
        let mut server = world.state.servers[&server_id()].clone();
        (server.id, server.provider, server.images) = (ServerId::new(id), name("boxes"), true);
        world.turn(vec![Event::ServerSeen { server: Box::new(server) }]);
    };
    images(&mut world, "box");
    world.apply(&web(4, ""));
    assert_eq!((on(&world, "here"), on(&world, "box")), (4, 0));

    let boxed = "service = \"shop\"\n[maps.prod.units.web]\nimage = \"web:1\"\nreplicas = 2\n\
                 ports.http = { service = 8080, container = 80 }\nenv = { AT = \"${PORT}\" }\n";
    let mut world = World::new();
    world.apply(boxed);
    let told = world.state.why("web").expect("the unit is known");
    let told = format!("{told:?}");
    assert!(world.of("web").is_empty() && told.contains("it runs programs, not images"), "{told}");
    images(&mut world, "box");
    world.settle();
    assert_eq!((on(&world, "here"), on(&world, "box")), (0, 2));
    let launch = world.state.launch(&world.ids("web")[0]).expect("it can be launched");
    let inside = ["AT", "PORT", "COCKTAIL_PORT_HTTP"].map(|name| launch.env[name].as_str());
    assert_eq!((launch.ports[0].inside(), inside), (80, ["80"; 3]));
    assert!(launch.ports[0].port != 80 && launch.argv.is_empty(), "{launch:?}");
    assert_eq!(launch.image.expect("it has an image").reference, "web:1");
}

#[test]
fn an_engine_and_the_machine_that_it_is_on_give_out_different_ports() {
    let mut world = World::new();
    let mut server = world.state.servers[&server_id()].clone();
    (server.id, server.provider, server.images) = (ServerId::new("box"), name("boxes"), true);
    world.turn(vec![Event::ServerSeen { server: Box::new(server) }]);
    let unit = |name: &str, runs: &str| format!("[maps.prod.units.{name}]\n{runs}\nreplicas = 3\nports.http = {{}}\n");
    let (plain, boxed) = (unit("plain", "command = [\"web\"]"), unit("boxed", "image = \"web:1\""));
    world.apply(&format!("service = \"shop\"\n{plain}{boxed}"));
    let ports =
        |of: &str| world.of(of).iter().flat_map(|it| it.ports.iter().filter_map(|port| port.port)).collect::<Vec<_>>();
    let mut all = [ports("plain"), ports("boxed")].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 6, "{all:?}");
}
