//! What applying a manifest changes, and what it leaves alone.

use crate::container::ContainerState;
use crate::event::Event;
use crate::id::Revision;
use crate::plan::preview;
use crate::spec::{Artifact, ArtifactSource};
use crate::state::State;
use crate::world::{World, name, service};

const SHOP: &str = r#"
service = "shop"
[maps.prod.units.web]
command = ["web"]
replicas = 2
ports.http = { service = 8080 }
[maps.prod.units.job]
command = ["job"]
[maps.batch.units.night]
command = ["night"]
"#;

fn shop(from: &str, to: &str) -> String {
    assert!(SHOP.contains(from));
    SHOP.replace(from, to)
}

fn actions(state: &State, text: &str) -> Vec<(String, String)> {
    let view = preview(state, &[service(text)]);
    view.actions.into_iter().map(|action| (action.action, action.object)).collect()
}

/// Applies `text`, and holds against each other what was said before and what is left to say after.
fn apply(world: &mut World, text: &str) -> Vec<(String, String)> {
    let said = actions(&world.state, text);
    assert_eq!(actions(&world.state, text), said, "a preview says the same twice");
    let events = world.apply(text);
    assert_eq!(said.is_empty(), events.is_empty(), "a preview is empty exactly when nothing changes");
    let view = preview(&world.state, &[service(text)]);
    assert_eq!((view.actions, view.summary.as_str()), (Vec::new(), "nothing would change"));
    said
}

fn said(action: &str, object: &str) -> Vec<(String, String)> {
    vec![(action.into(), object.into())]
}

#[test]
fn a_count_changes_only_when_the_files_value_differs_from_the_last_applied_one() {
    let mut world = World::new();
    apply(&mut world, SHOP);
    world.scale("web", 5).expect("it is not refused");
    assert_eq!(apply(&mut world, &shop("[\"job\"]", "[\"job\", \"-v\"]")), said("replace", "shop/prod/job"));
    assert_eq!(world.unit("web").desired, 5, "an unrelated apply undoes no scale");
    let three = shop("replicas = 2", "replicas = 3");
    assert!(apply(&mut world, &three).contains(&said("reduce", "shop/prod/web")[0]));
    assert_eq!(world.unit("web").desired, 3, "another value in the file is asked for");
    world.scale("web", 4).expect("it is not refused");
    assert_eq!(apply(&mut world, SHOP), said("reduce", "shop/prod/web"));
    assert_eq!(world.unit("web").desired, 2);
}

#[test]
fn a_count_stays_within_limits_that_an_apply_brings() {
    let mut world = World::new();
    let scaled =
        |min: u32, max: u32| shop("replicas = 2", &format!("scale = {{ min = {min}, max = {max}, cpu = 0.5 }}"));
    apply(&mut world, &scaled(1, 9));
    world.scale("web", 8).expect("it is not refused");
    apply(&mut world, &scaled(1, 6));
    assert_eq!(world.unit("web").desired, 6);
}

#[test]
fn a_unit_that_left_its_map_is_removed_and_other_maps_stay() {
    let mut world = World::new();
    apply(&mut world, SHOP);
    world.settle();
    let only_web = "service = \"shop\"\n[maps.prod.units.web]\ncommand = [\"web\"]\nreplicas = 2\nports.http = { service = 8080 }\n";
    assert_eq!(apply(&mut world, only_web), said("remove", "shop/prod/job"));
    world.settle();
    assert!(world.state.unit_named("job").is_err());
    assert_eq!((world.ready("web"), world.ready("night")), (2, 1));
}

#[test]
fn a_changed_service_port_is_no_new_revision() {
    let mut world = World::new();
    apply(&mut world, SHOP);
    world.settle();
    let ids = world.ids("web");
    assert_eq!(apply(&mut world, &shop("8080", "8081")), said("configure", "shop/prod/web"));
    world.settle();
    assert_eq!(world.unit("web").revision, Revision(1));
    assert_eq!(world.ids("web"), ids);
    assert_eq!(world.state.routing_table().routes[0].listen.port(), 8081);
}

#[test]
fn another_artifact_is_a_new_revision_and_another_place_of_the_same_one_is_not() {
    let with = |from: &str, digit: &str| {
        shop("[\"job\"]", &format!("[\"job\"]\nartifact = {{ {from}, sha256 = \"{}\" }}", digit.repeat(64)))
    };
    let mut world = World::new();
    apply(&mut world, SHOP);
    world.settle();
    let first = with("file = \"job.tar\"", "a");
    assert_eq!(apply(&mut world, &first), said("replace", "shop/prod/job"));
    world.settle();
    assert_eq!(apply(&mut world, &with("file = \"job.tar\"", "b")), said("replace", "shop/prod/job"));
    world.settle();
    assert_eq!(world.unit("job").revision, Revision(3));
    let ids = world.ids("job");
    assert_eq!(apply(&mut world, &with("url = \"https://x/job.tar\"", "b")), said("configure", "shop/prod/job"));
    world.settle();
    assert_eq!((world.unit("job").revision, world.ids("job")), (Revision(3), ids.clone()));
    let launch = world.state.launch(&ids[0]).expect("it can be launched");
    let expected = Artifact { source: ArtifactSource::Url("https://x/job.tar".into()), sha256: "b".repeat(64) };
    assert_eq!(launch.artifact, Some(expected), "the next start is told the new place");
}

#[test]
fn changed_restart_times_are_no_new_revision_and_hold_at_the_next_exit() {
    let mut world = World::new();
    apply(&mut world, SHOP);
    world.settle();
    let faster = shop("[\"job\"]", "[\"job\"]\nrestart = { base = \"0ms\" }");
    assert_eq!(apply(&mut world, &faster), said("configure", "shop/prod/job"));
    let id = world.ids("job")[0].clone();
    world.exit(&id, crate::contract::Exit::Code(1));
    world.pass(std::time::Duration::ZERO);
    assert_eq!(world.container(&id).state, ContainerState::Preparing);
    assert_eq!(world.unit("job").revision, Revision(1));
}

#[test]
fn a_changed_template_is_a_new_revision_that_replaces_one_by_one() {
    let mut world = World::new();
    apply(&mut world, SHOP);
    world.settle();
    let old = world.ids("web");
    let changed = shop("[\"web\"]", "[\"web\", \"-v\"]");
    assert_eq!(apply(&mut world, &changed), said("replace", "shop/prod/web"));
    assert_eq!(world.unit("web").revision, Revision(2));
    let view = world.state.unit_view(&world.state.unit_named("web").expect("it exists")).expect("it exists");
    assert_eq!((view.rollout.state.as_str(), view.updated), ("running", 1));
    world.settle();
    let now = world.ids("web");
    assert!(now.len() == 2 && old.iter().all(|id| !now.contains(id)));
    assert!(world.of("web").iter().all(|record| record.revision == Revision(2)));
}

#[test]
fn a_unit_that_is_applied_while_it_is_removed_is_as_new() {
    let mut world = World::new();
    apply(&mut world, SHOP);
    world.scale("web", 4).expect("it is not refused");
    world.settle();
    world.switch("job", true);
    world.remove("web");
    world.remove("job");
    assert_eq!(world.ready("web"), 0, "it takes no traffic any more");
    let said = apply(&mut world, SHOP);
    let created = ["shop/prod/job", "shop/prod/web"].map(|unit| ("create".to_owned(), unit.to_owned()));
    assert_eq!(said, created);
    assert!(!world.unit("web").removing);
    world.settle();
    assert_eq!((world.unit("web").desired, world.ready("web")), (2, 2));
    assert_eq!(world.ready("job"), 1, "a new unit is not stopped");
}

#[test]
fn ids_of_containers_never_come_back() {
    let mut world = World::new();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        apply(&mut world, SHOP);
        world.settle();
        for id in world.state.containers.keys() {
            assert!(seen.insert(id.clone()), "{id} was there before");
        }
        world.remove("shop");
        world.settle();
        assert!(world.state.units.is_empty() && world.state.services.is_empty());
    }
}

#[test]
fn a_quota_is_a_change_that_is_told() {
    let mut world = World::new();
    apply(&mut world, SHOP);
    let with = format!("{}\n", shop("service = \"shop\"", "service = \"shop\"\nquota = { containers = 9 }"));
    assert_eq!(apply(&mut world, &with), said("set-quota", "shop"));
    assert_eq!(world.state.services[&name("shop")].quota.containers, Some(9));
}

#[test]
fn an_update_that_ends_the_old_one_first_is_named_before_it_starts() {
    let cases = [
        ("ports.http = { fixed = 9000 }", "a fixed port has one holder at a time"),
        ("volumes.data = { mount = \"data\", kind = \"exclusive\" }", "an exclusive volume has one holder at a time"),
        ("update = { no_room = \"replace\" }", "where there is no room, the old one ends first"),
    ];
    for (keys, reason) in cases {
        let text = |argument: &str| {
            format!("service = \"shop\"\n[maps.prod.units.db]\ncommand = [\"db\", \"{argument}\"]\n{keys}\n")
        };
        let mut world = World::new();
        world.apply(&text("1"));
        let view = preview(&world.state, &[service(&text("2"))]);
        assert_eq!(view.actions.len(), 1);
        assert!(view.actions[0].because.contains(reason), "{}", view.actions[0].because);
    }
}

#[test]
fn a_preview_of_a_new_unit_says_how_many_containers_start() {
    let view = preview(&World::new().state, &[service(SHOP)]);
    let told: Vec<(&str, &str)> = view.actions.iter().map(|it| (it.object.as_str(), it.because.as_str())).collect();
    let [("shop/batch/night", one), ("shop/prod/job", other), ("shop/prod/web", two)] = told[..] else {
        panic!("{told:?}")
    };
    assert!(one == "new in the manifest; 1 container starts" && other == one, "{told:?}");
    assert!(two == "new in the manifest; 2 containers start", "{told:?}");
}

#[test]
fn an_apply_is_one_event_however_many_units_it_has() {
    let mut world = World::new();
    let applied = |event: &&Event| matches!(event, Event::Applied { .. });
    assert_eq!(world.apply(SHOP).iter().filter(applied).count(), 1);
}
