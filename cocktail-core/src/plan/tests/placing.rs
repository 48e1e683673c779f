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
