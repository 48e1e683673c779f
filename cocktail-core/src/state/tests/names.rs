//! Names that people type.

use crate::error::ErrorKind;
use crate::id::{ContainerId, ServerId};
use crate::state::Object;
use crate::world::{World, name, server_id, unit_id};

const SHOP: &str = r#"
service = "shop"
[maps.prod.units.web]
command = ["web"]
replicas = 2
[maps.prod.units.job]
command = ["job"]
[maps.staging.units.web]
command = ["web"]
[maps.staging.units.prod]
command = ["named-like-a-map"]
replicas = 0
"#;

fn world() -> World {
    let mut world = World::new();
    world.apply(SHOP);
    world
}

fn refused(world: &World, text: &str) -> (ErrorKind, String) {
    let error = world.state.object(text).expect_err("it is no object");
    (error.kind().clone(), error.to_string())
}

#[test]
fn any_unambiguous_tail_names_a_unit() {
    let world = world();
    for text in ["shop/prod/web", "prod/web"] {
        assert_eq!(world.state.object(text).ok(), Some(Object::Unit(unit_id("prod", "web"))), "{text}");
    }
    assert_eq!(world.state.object("job").ok(), Some(Object::Unit(unit_id("prod", "job"))));
}

#[test]
fn an_ambiguous_tail_is_refused_with_what_it_could_mean() {
    let (kind, text) = refused(&world(), "web");
    assert_eq!(kind, ErrorKind::Conflict);
    assert_eq!(text, "\"web\" could be shop/prod/web, shop/staging/web");
}

#[test]
fn a_tail_ends_at_a_slash() {
    let (kind, text) = refused(&world(), "eb");
    assert_eq!(kind, ErrorKind::NotFound);
    let known = "shop/prod/job, shop/prod/web, shop/staging/prod, shop/staging/web";
    assert_eq!(text, format!("no object \"eb\": there are the units {known}"));
    for text in ["/web", "", "prod/", "p/prod/web"] {
        assert_eq!(refused(&world(), text).0, ErrorKind::NotFound, "{text:?}");
    }
}

#[test]
fn a_unit_comes_before_a_map_and_a_map_before_a_service_of_the_same_name() {
    let world = world();
    assert_eq!(world.state.object("prod").ok(), Some(Object::Unit(unit_id("staging", "prod"))));
    assert_eq!(world.state.object("shop/prod").ok(), Some(Object::Map(name("shop"), name("prod"))));
    assert_eq!(world.state.object("staging").ok(), Some(Object::Map(name("shop"), name("staging"))));
    assert_eq!(world.state.object("shop").ok(), Some(Object::Service(name("shop"))));
}

#[test]
fn containers_and_servers_go_by_id_or_unique_prefix() {
    let world = world();
    let ids = world.ids("prod/web");
    let first: &ContainerId = &ids[0];
    assert_eq!(world.state.object(first.as_str()).ok(), Some(Object::Container(first.clone())));
    let prefix = &first.as_str()[..8];
    assert_eq!(world.state.object(prefix).ok(), Some(Object::Container(first.clone())));
    assert_eq!(refused(&world, "web-").0, ErrorKind::Conflict);
    assert_eq!(world.state.object("he").ok(), Some(Object::Server(ServerId::new("here"))));
    assert_eq!(world.state.object("here").ok(), Some(Object::Server(server_id())));
}

#[test]
fn a_unit_stands_for_its_only_container() {
    let world = world();
    let only = world.state.container_named("job").ok();
    assert_eq!(only, world.ids("job").first().cloned());
    let several = world.state.container_named("prod/web").expect_err("there are two");
    assert_eq!(*several.kind(), ErrorKind::Conflict);
    assert!(several.message().starts_with("unit shop/prod/web has 2 containers: name one of web-"));
    let none = world.state.container_named("staging/prod").expect_err("there is none");
    assert_eq!(none.message(), "unit shop/staging/prod has no container");
    let server = world.state.container_named("here").expect_err("it is a server");
    assert_eq!(server.message(), "\"here\" is no container");
}

#[test]
fn without_any_unit_the_answer_says_so() {
    let (_, text) = refused(&World::new(), "web");
    assert_eq!(text, "no object \"web\": there is no unit");
}
