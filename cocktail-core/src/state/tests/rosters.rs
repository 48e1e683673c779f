//! What a Unit's roster says after changes that concern all of its containers at once.

use std::time::Duration;

use crate::id::Revision;
use crate::state::Class;
use crate::world::{World, unit_id};

const WEB: &str = r#"
service = "shop"
[maps.prod.units.web]
command = ["web"]
replicas = 3
update = { monitor = "5s" }
"#;

/// Containers of the first revision that have been ready for `monitor`.
fn proved(world: &World, monitor: u64) -> usize {
    let roster = world.state.roster(&unit_id("prod", "web")).expect("there are containers");
    let group = roster.group(Class::kept(Revision(1))).expect("they are of the first revision");
    group.proved(world.now(), Duration::from_secs(monitor))
}

#[test]
fn a_longer_monitor_window_has_to_be_proved_by_those_that_were_ready_for_the_shorter_one() {
    let mut world = World::new();
    world.apply(WEB);
    world.settle();
    assert_eq!(proved(&world, 5), 0);
    world.pass(Duration::from_secs(6));
    world.scale("web", 4).expect("a scale is not refused");
    assert_eq!(proved(&world, 5), 3);
    world.apply(&WEB.replace("5s", "30s"));
    assert_eq!(proved(&world, 30), 0);
    world.pass(Duration::from_secs(24));
    assert_eq!(proved(&world, 30), 3);
}
