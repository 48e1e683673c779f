//! Texts that repeat are kept once.

use crate::world::World;

const WEB: &str = r#"
service = "shop"
[maps.prod.units.web]
command = ["web"]
replicas = 2
ports.http = {}
"#;

fn assert_shared(world: &World) {
    let (id, unit) = world.state.units.iter().next().expect("there is one");
    let (server, _) = world.state.servers.iter().next().expect("there is one");
    let port = &unit.template(unit.revision).ports[0].name;
    for (key, record) in &world.state.containers {
        assert_eq!(record.id.as_str().as_ptr(), key.as_str().as_ptr());
        assert_eq!(unit.containers.get(key).map(|id| id.as_str().as_ptr()), Some(key.as_str().as_ptr()));
        assert_eq!(record.unit.unit.as_str().as_ptr(), id.unit.as_str().as_ptr());
        assert_eq!(record.server.as_str().as_ptr(), server.as_str().as_ptr());
        assert_eq!(record.ports[0].name.as_str().as_ptr(), port.as_str().as_ptr());
    }
}

#[test]
fn ids_and_names_keep_their_text_once_also_after_they_were_read() {
    let mut world = World::new();
    world.apply(WEB);
    world.settle();
    assert_shared(&world);
    world.reopen();
    assert_shared(&world);
    world.snapshot();
    world.reopen();
    assert_shared(&world);
}
