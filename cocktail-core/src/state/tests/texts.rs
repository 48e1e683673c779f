//! Long texts that repeat are kept once. Short ones lie where they are used.

use crate::world::World;

const WEB: &str = r#"
service = "shop"
[maps.prod.units.a-name-that-does-not-fit-where-it-is-used]
command = ["web"]
replicas = 2
ports.this-one-does-not-fit-either = {}
"#;

fn assert_shared(world: &World) {
    let (id, unit) = world.state.units.iter().next().expect("there is one");
    let port = &unit.template(unit.revision).ports[0].name;
    for (key, record) in &world.state.containers {
        assert_eq!(record.id.as_str().as_ptr(), key.as_str().as_ptr());
        assert_eq!(unit.containers.get(key).map(|id| id.as_str().as_ptr()), Some(key.as_str().as_ptr()));
        assert_eq!(record.unit.unit.as_str().as_ptr(), id.unit.as_str().as_ptr());
        assert_eq!(record.ports[0].name.as_str().as_ptr(), port.as_str().as_ptr());
    }
}

#[test]
fn long_ids_and_names_keep_their_text_once_also_after_they_were_read() {
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
